"""What is minimised. Shapes: `T` time steps, `B` images, `K` classes; targets are classes `[B]` or
their shares `[B, K]`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.training.config import Recipe

__all__ = ["compute_loss"]


def compute_loss(recipe: Recipe, logits: Tensor, targets: Tensor, teacher: Tensor | None) -> Tensor:
    """The recipe's loss of logits `[B, K]`, or of every step's, `[T, B, K]`, where the recipe's
    loss is `tet`.

    `teacher`: logits `[B, K]` of another network on the same images, or nothing.
    """
    logits = logits.float()
    if recipe.loss == "tet":
        loss, logits = _tet(recipe, logits, targets), logits.mean(0)
    else:
        loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
    if teacher is None:
        return loss
    return (1 - recipe.distill) * loss + recipe.distill * _distillation(
        logits, teacher.detach().float(), recipe.temperature
    )


def _tet(recipe: Recipe, logits: Tensor, targets: Tensor) -> Tensor:
    """Temporal efficient training (Deng et al. 2022, eq. 10 to 12): the mean over time of each
    step's cross entropy, and a term that keeps logits near the threshold of 1.
    """
    steps = torch.stack(
        [F.cross_entropy(step, targets, label_smoothing=recipe.label_smoothing) for step in logits]
    )
    return (1 - recipe.tet_weight) * steps.mean() + recipe.tet_weight * (logits - 1).square().mean()


def _distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Divergence of the softened predictions, times the temperature squared, so that gradients keep
    their size (Hinton et al. 2015, section 2).
    """
    student, wanted = (F.log_softmax(x / temperature, 1) for x in (logits, teacher))
    return F.kl_div(student, wanted, reduction="batchmean", log_target=True) * temperature**2
