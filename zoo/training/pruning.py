"""Pruning while training: a growing share of the weights behind the stem stays zero.

`magnitude` sets the smallest weights to zero, of which the share grows along a cube, and keeps them
there (Zhu and Gupta 2017, arXiv:1710.01878, equation 1). `gradr` is Grad R (Chen et al., IJCAI
2021, arXiv:2105.04916): a weight is `s * max(theta, 0)` with a fixed sign `s`; `theta` follows the
gradient of the weight times `s` even where the weight is zero, so that it may come back, and a
prior pulls all of them down. The paper's prior has one strength for thousands of epochs; here the
strength follows the same share along a cube, and what is zero at the end of it stays so.
"""

from typing import Any

import torch
from torch import Tensor

from zoo.danet import DANet
from zoo.training.config import Recipe
from zoo.training.synops import Events, pruned_convolutions, weight_costs

__all__ = ["Pruning", "zeros"]

STEPS_PER_MASK = 20  # between two choices of the weights that are zero
PRIOR_GROWTH = 1.25  # factor on the strength of Grad R's prior, while the share is too small


def zeros(net: DANet) -> float:
    """Return the share of zeros among the weights of the convolutions behind the stem."""
    weights = [conv.weight for conv in pruned_convolutions(net).values()]
    total = sum(weight.numel() for weight in weights)
    return 1 - sum(int(weight.count_nonzero()) for weight in weights) / total if total else 0.0


class Pruning:
    """The masks of a run: which weights are not zero. They are part of its checkpoint.

    Weights that are zero at the start are pruned already.
    """

    def __init__(self, net: DANet, recipe: Recipe, per_epoch: int) -> None:
        self.recipe = recipe
        first, last = recipe.pruned_epochs
        self.first, self.last = round(first * per_epoch), round(last * per_epoch)
        self.convolutions = pruned_convolutions(net) if recipe.prune else {}
        self.convolutions = {
            name: conv for name, conv in self.convolutions.items() if conv.weight.requires_grad
        }
        self.weights: dict[str, Tensor] = {
            name: conv.weight for name, conv in self.convolutions.items()
        }
        self.masks = {name: weight.detach() != 0 for name, weight in self.weights.items()}
        # Grad R: the sign of each weight, and how far the prior moves them all at each step
        self.signs = (
            {name: weight.detach().sign() for name, weight in self.weights.items()}
            if recipe.prune_method == "gradr"
            else {}
        )
        self.prior = 0.0

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs to go on."""
        return {"masks": self.masks, "signs": self.signs, "prior": self.prior}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from the state of a checkpoint."""
        for key in ("masks", "signs"):
            values = getattr(self, key)
            values.update(
                {name: value.to(self.weights[name].device) for name, value in state[key].items()}
            )
        self.prior = state["prior"]

    def share_at(self, step: int) -> float:
        """Return the share of zeros that is wanted after a step."""
        done = (step - self.first) / max(1, self.last - self.first)
        return self.recipe.prune * (1 - (1 - min(1.0, max(0.0, done))) ** 3)

    def chooses(self, step: int) -> bool:
        """Return whether weights are chosen after a step."""
        in_time = self.first <= step <= self.last
        return bool(self.masks) and in_time and (step % STEPS_PER_MASK == 0 or step == self.last)

    @torch.no_grad()
    def update(
        self, optimizer: torch.optim.Optimizer, step: int, events: dict[str, Events]
    ) -> None:
        """Keep zeros at zero after `step`, and choose more of them where it is time.

        `events` are what the convolutions read at that step, needed for the scope `synops` alone.
        """
        if not self.masks:
            return
        if self.signs and step < self.last:
            self._pull(step)
            return
        if self.chooses(step):
            self._choose(self.share_at(step), events)
        for name, weight in self.weights.items():
            weight.mul_(self.masks[name])
            if self.signs:
                weight.copy_((weight * self.signs[name]).clamp_min_(0) * self.signs[name])
            momentum = optimizer.state[weight].get("momentum_buffer")
            if momentum is not None:
                momentum.mul_(self.masks[name])

    def _choose(self, share: float, events: dict[str, Events]) -> None:
        """Mask the share of the weights with the lowest scores; masked ones come first."""
        scores = {name: self._score(name, events) for name in self.weights}
        if self.recipe.prune_scope == "layer":
            for name, score in scores.items():
                self.masks[name] = _above(score, share) & (score > 0)
            return
        together = torch.cat([score.flatten() for score in scores.values()])
        kept = _above(together, share)
        parts = torch.split(kept, [score.numel() for score in scores.values()])
        for (name, score), part in zip(scores.items(), parts, strict=True):
            self.masks[name] = part.view_as(score) & (score > 0)

    def _score(self, name: str, events: dict[str, Events]) -> Tensor:
        """Return how much each weight is worth.

        With the scope `synops` it is the size over the root of its SynOps: the loss grows with the
        square of what is taken away, and the cost falls with the SynOps.
        """
        weight = self.weights[name].detach()
        score = weight * self.signs[name] if self.signs else weight.abs()
        if self.recipe.prune_scope == "synops":
            cost = weight_costs(self.convolutions[name], events[name])
            score = score / (cost + 1).sqrt()
        return score

    def _pull(self, step: int) -> None:
        """Move every `theta` of Grad R down, by a strength that follows the share along a cube."""
        for name, weight in self.weights.items():
            sign = self.signs[name]
            weight.sub_(sign, alpha=self.prior)
            self.masks[name] = weight * sign > 0
        if step % STEPS_PER_MASK or step < self.first:
            return
        total = sum(mask.numel() for mask in self.masks.values())
        pruned = 1 - sum(int(mask.sum()) for mask in self.masks.values()) / total
        wanted = self.share_at(step)
        if pruned < wanted:
            sizes = sum(float(weight.abs().sum()) for weight in self.weights.values())
            least = sizes / total / (self.last - self.first)
            self.prior = max(self.prior * PRIOR_GROWTH, least)
        else:
            self.prior /= PRIOR_GROWTH


def _above(scores: Tensor, share: float) -> Tensor:
    """Return which scores are not among the lowest `share` of them, in the scores' shape."""
    order = scores.flatten().argsort(stable=True)
    kept = torch.ones_like(order, dtype=torch.bool)
    kept[order[: round(share * len(order))]] = False
    return kept.view_as(scores)
