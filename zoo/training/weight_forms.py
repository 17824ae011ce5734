"""The weights that a network computes with in training, where they are not its parameters.

Weights of few bits lie on their levels, and those that Grad R prunes are zero, while the optimiser
goes on with the parameters behind them: it takes the gradient of what was computed with (the
straight-through estimator, Bengio et al. 2013, arXiv:1308.3432). At the end the network gets those
weights for good. Frozen parts stay as they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.blocks import SamePool
from zoo.danet import DANet
from zoo.levels import round_to_levels
from zoo.training.config import Recipe
from zoo.training.pruning import Pruning
from zoo.training.synops import convolutions_of_spikes

__all__ = ["WeightForms", "norms_behind"]

BINARY = 1  # bits


class NormBehind(NamedTuple):
    """The BatchNorm that follows a convolution, and how many values a pool before it averages."""

    path: str
    pooled: int


def norms_behind(net: DANet) -> dict[str, NormBehind]:
    """Return the BatchNorm that can be folded into each convolution, by the path of the latter."""
    found = {}
    for parent, module in net.named_modules():
        pool = getattr(module, "pool", None)
        pooled = pool.window**2 if isinstance(pool, SamePool) else 1
        for (conv, one), (norm, two) in pairwise(module.named_children()):
            if isinstance(one, nn.Conv2d) and isinstance(two, _BatchNorm):
                found[f"{parent}.{conv}"] = NormBehind(f"{parent}.{norm}", pooled)
    return found


class WeightForms:
    """The weights of `net` as they are computed with: pruned, and of the recipe's bits.

    8 bits are those of `zoo export --weights int8`: each output channel has 127 levels on either
    side of zero, the largest of which is its largest weight. A BatchNorm that is folded later
    scales a whole channel, and so changes no level. With one scale for a layer (`int8-layer`) the
    levels are those of the weights as its statistics so far fold them. With one bit the weights
    that spikes meet are `a * sign(w)`, where `a` is the mean size of the channel's weights that are
    not zero (XNOR-Net, Rastegari et al. 2016, arXiv:1603.05279, equation 6).
    """

    def __init__(self, net: DANet, pruning: Pruning, recipe: Recipe) -> None:
        self.net, self.pruning, self.bits = net, pruning, recipe.weight_bits
        self.norms = norms_behind(net) if recipe.weight_scale == "layer" else None
        spiking = convolutions_of_spikes(net)
        self.rounded = [
            path
            for path, module in net.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
            and self.bits
            and module.weight.requires_grad
            and (path in spiking or self.bits != BINARY)
        ]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Compute in the block, which holds the backward pass too, with the weights' forms."""
        # What is pruned by size is zero itself.
        paths = sorted({*self.rounded, *self.pruning.signs})
        weights = [self.net.get_parameter(f"{path}.weight") for path in paths]
        behind = [weight.data.clone() for weight in weights]
        self._settle(self.net, [*self.pruning.signs])
        try:
            yield
        finally:
            for weight, before in zip(weights, behind, strict=True):
                weight.data.copy_(before)

    def settle(self, model: DANet) -> None:
        """Give `model`, whose parameters are those of the net or their average, its forms."""
        self._settle(model, [*self.pruning.masks])

    @torch.no_grad()
    def _settle(self, model: DANet, masked: list[str]) -> None:
        for path in masked:
            weight = model.get_parameter(f"{path}.weight").data
            weight.copy_(self.pruning.masked(path, weight))
        for path in self.rounded:
            weight = model.get_parameter(f"{path}.weight").data
            if self.bits == BINARY:
                _to_signs(weight)
            elif self.norms is None:
                round_to_levels(weight, weight.abs().flatten(1).amax(1))
            else:
                _round_folded(model, path, self.norms.get(path))


def _to_signs(weight: Tensor) -> None:
    """Give every weight that is not zero the mean size of its output channel."""
    rows = weight.abs().flatten(1)
    mean = rows.sum(1) / rows.count_nonzero(1).clamp_min(1)
    weight.sign_().mul_(mean.view(-1, *[1] * (weight.dim() - 1)))


def _round_folded(model: DANet, path: str, behind: NormBehind | None) -> None:
    """Round the weights of a layer so that, folded, they lie on the levels of one scale.

    As in `export.prepare.quantize`, the largest level is the layer's largest weight or bias; behind
    a pool of n values an integer weight stands for a weight / n.
    """
    layer = model.get_submodule(path)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    weight, bias = layer.weight.data, layer.bias
    factor = weight.new_ones(len(weight))
    if behind:
        norm = model.get_submodule(behind.path)
        assert isinstance(norm, _BatchNorm)
        assert norm.running_mean is not None and norm.running_var is not None
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        shift = norm.bias - norm.running_mean * factor
        bias = behind.pooled * (shift if bias is None else shift + bias * factor)
    rows = factor.view(-1, *[1] * (weight.dim() - 1))
    folded = weight * rows
    largest = folded.abs().amax()
    if bias is not None:
        largest = torch.maximum(largest, bias.abs().amax())
    round_to_levels(folded, largest)
    weight.copy_(torch.where(rows == 0, weight, folded / rows))
