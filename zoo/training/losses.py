"""The losses of a recipe.

Shapes: `T` time steps, `B` images, `K` classes; targets are classes `[B]` or their shares `[B, K]`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.training.config import Recipe

__all__ = ["compute_loss"]


def compute_loss(recipe: Recipe, logits: Tensor, targets: Tensor, teacher: Tensor | None) -> Tensor:
    """Return the recipe's loss, a scalar in float32.

    The logits are `[B, K]`, or `[T, B, K]` (of every time step) where the recipe's loss is `tet`;
    `teacher` are the logits `[B, K]` of another network on the same images, if there is one.
    """
    logits = logits.float()
    if recipe.loss == "tet":
        loss, logits = _tet(recipe, logits, targets), logits.mean(0)
    else:
        loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
    if teacher is None:
        return loss
    distillation = _distillation(logits, teacher.detach().float(), recipe.temperature)
    return (1 - recipe.distill) * loss + recipe.distill * distillation


def _tet(recipe: Recipe, logits: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of temporal efficient training (Deng et al. 2022, eq. 10 to 12).

    It is the mean over time of each step's cross entropy, and a term that keeps the logits near the
    threshold of 1.
    """
    steps = torch.stack(
        [F.cross_entropy(step, targets, label_smoothing=recipe.label_smoothing) for step in logits]
    )
    return (1 - recipe.tet_weight) * steps.mean() + recipe.tet_weight * (logits - 1).square().mean()


def _distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the divergence of the softened predictions times the temperature squared.

    The factor keeps the size of the gradients (Hinton et al. 2015, section 2).
    """
    student, target = (F.log_softmax(x / temperature, 1) for x in (logits, teacher))
    return F.kl_div(student, target, reduction="batchmean", log_target=True) * temperature**2
