"""Pruning while training: a growing share of the weights that spikes meet stays zero.

The share grows along a cube (Zhu and Gupta 2017, arXiv:1710.01878, equation 1). `magnitude` sets
the smallest weights to zero and keeps them there. `gradr` is Grad R (Chen et al., IJCAI 2021,
arXiv:2105.04916): a weight is `s * max(theta, 0)` with a fixed sign `s`; `theta` follows the
gradient of the weight times `s` even where the weight is zero, so that it may come back, and a
prior pulls all of them towards one centre. The paper's prior keeps its strength for thousands of
epochs, and the share that comes of it is only roughly the one asked for; here the prior is as
strong as it takes to follow the cube, and what is zero at its end stays so.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.danet import DANet
from zoo.errors import ConfigError
from zoo.training.config import Recipe
from zoo.training.synops import Events, convolutions_of_spikes, weight_costs

__all__ = ["Pruning", "threshold", "zeros"]

STEPS_PER_CHOICE = 20  # between two choices of the weights that are zero


def zeros(net: DANet) -> float:
    """Return the share of zeros among the weights of the convolutions that read spikes."""
    weights = [conv.weight for conv in convolutions_of_spikes(net).values()]
    total = sum(weight.numel() for weight in weights)
    return 1 - sum(int(weight.count_nonzero()) for weight in weights) / total


def threshold(scores: list[Tensor], share: float) -> Tensor:
    """Return the score up to which the lowest `share` of all scores lie; none is below the least.

    Among scores that are zero it is zero.
    """
    together = torch.cat([score.flatten() for score in scores])
    lowest = round(share * len(together))
    return together.kthvalue(lowest).values if lowest else together.min() - 1


class Pruning:
    """The masks of a run: which weights are not zero. They are part of its checkpoint.

    Weights that are zero at the start are pruned already, but for those of the blocks `grown`,
    which start as the identity. Raises `ConfigError` if the epochs of the recipe hold no step.
    """

    def __init__(
        self, net: DANet, recipe: Recipe, per_epoch: int, grown: Sequence[str] = ()
    ) -> None:
        self.recipe = recipe
        first, last = recipe.pruned_epochs
        self.first, self.last = round(first * per_epoch), round(last * per_epoch)
        if recipe.prune and self.last <= self.first:
            raise ConfigError(
                f"prune_epochs = [{first:g}, {last:g}] hold no step, of {per_epoch} an epoch: "
                "set them further apart"
            )
        self.convolutions = {
            path: conv
            for path, conv in convolutions_of_spikes(net).items()
            if recipe.prune and conv.weight.requires_grad
        }
        self.weights: dict[str, Tensor] = {
            path: conv.weight for path, conv in self.convolutions.items()
        }
        self.masks = {
            path: torch.ones_like(weight, dtype=torch.bool)
            if any(path.startswith(f"{block}.") for block in grown)
            else weight.detach() != 0
            for path, weight in self.weights.items()
        }
        # Grad R: the sign of each weight, and how far the prior moves each theta at a step, for
        # every group of weights that are chosen among
        self.signs: dict[str, Tensor] = {}
        if recipe.prune_method == "gradr":
            self.signs = {
                path: weight.detach().sign().to(torch.int8) for path, weight in self.weights.items()
            }
        by_layer = recipe.prune_scope == "layer"
        self.groups = [[path] for path in self.weights] if by_layer else [[*self.weights]]
        self.priors = [0.0] * len(self.groups)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs to go on."""
        return {"masks": self.masks, "signs": self.signs, "priors": self.priors}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from the state of a checkpoint."""
        for values, saved in ((self.masks, state["masks"]), (self.signs, state["signs"])):
            for path, value in values.items():
                value.copy_(saved[path])
        self.priors = list(state["priors"])

    def share(self) -> float:
        """Return the share of zeros so far, among the weights that may be pruned."""
        total = sum(mask.numel() for mask in self.masks.values())
        return 1 - sum(int(mask.sum()) for mask in self.masks.values()) / total

    def share_at(self, step: int) -> float:
        """Return the share of zeros that is wanted after a step."""
        done = (step - self.first) / (self.last - self.first)
        return self.recipe.prune * (1 - (1 - min(1.0, max(0.0, done))) ** 3)

    def chooses(self, step: int) -> bool:
        """Return whether weights are chosen after a step."""
        in_time = self.first <= step <= self.last
        on_time = (step - self.first) % STEPS_PER_CHOICE == 0 or step == self.last
        return bool(self.masks) and in_time and on_time

    @torch.no_grad()
    def update(
        self, optimizer: torch.optim.Optimizer, step: int, events: dict[str, Events]
    ) -> None:
        """Keep zeros at zero after `step`, and choose more of them where it is time.

        `events` are what the convolutions read at that step, needed for the scope `synops` alone.
        """
        rewires = bool(self.signs) and step < self.last
        if self.signs and step <= self.last:
            self._pull(step)
        elif self.chooses(step):
            self._choose(self.share_at(step), events)
        for path, weight in self.weights.items():
            if rewires:
                continue  # theta goes on behind a weight that is zero
            weight.copy_(self.masked(path, weight))
            momentum = optimizer.state[weight].get("momentum_buffer")
            if momentum is not None:
                momentum.mul_(self.masks[path])

    def masked(self, path: str, weight: Tensor) -> Tensor:
        """Return the weight of a convolution with its zeros; by Grad R with its fixed signs."""
        kept = weight * self.masks[path]
        if self.signs:
            kept = (kept * self.signs[path]).clamp_min(0) * self.signs[path]
        return kept + 0.0  # and no -0.0

    def _choose(self, share: float, events: dict[str, Events]) -> None:
        """Mask the lowest share of each group; what is zero already is the lowest."""
        for group in self.groups:
            scores = [self._score(path, events) for path in group]
            most = threshold(scores, share)
            for path, score in zip(group, scores, strict=True):
                self.masks[path] &= score > most

    def _score(self, path: str, events: dict[str, Events]) -> Tensor:
        """Return how much each weight is worth.

        With the scope `synops` it is the size over the root of its SynOps: the loss grows with the
        square of what is taken away, and the cost falls with the SynOps.
        """
        size = self.weights[path].detach().abs()
        if self.recipe.prune_scope != "synops":
            return size
        return size / (weight_costs(self.convolutions[path], events[path]) + 1).sqrt()

    def _pull(self, step: int) -> None:
        """Move every `theta` of Grad R by the prior of its group, which follows the cube."""
        for i, group in enumerate(self.groups):
            for path in group:
                self.weights[path].sub_(self.signs[path] * self.priors[i])
            if self.chooses(step):
                thetas = [self.weights[path] * self.signs[path] for path in group]
                # moved down by this, just the share that is wanted is at zero or below
                wanted = float(threshold(thetas, self.share_at(step)))
                self.priors[i] = wanted / STEPS_PER_CHOICE
                if step == self.last:
                    for path in group:
                        self.weights[path].sub_(self.signs[path] * wanted)
            for path in group:
                self.masks[path] = self.weights[path] * self.signs[path] > 0
