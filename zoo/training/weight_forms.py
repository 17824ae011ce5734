"""What a network computes with in training, where that is not its parameters themselves.

Pruned weights are zero, and weights of few bits lie on their levels, while the optimiser goes on
with the parameters behind them: it takes the gradient of what was computed with (the
straight-through estimator, Bengio et al. 2013, arXiv:1308.3432). At the end the network gets those
weights for good.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from zoo.blocks import Block, SamePool
from zoo.danet import DANet
from zoo.levels import round_to_levels
from zoo.training.config import Recipe
from zoo.training.pruning import Pruning
from zoo.training.synops import pruned_convolutions

__all__ = ["WeightForms"]

BINARY = 1  # bits


class WeightForms:
    """The weights of `net` as they are computed with: pruned, then of `bits` bits, 0 for all.

    8 bits are those of `zoo export --weights int8`: each output channel has 127 levels on either
    side of zero, the largest of which is its largest weight. A BatchNorm that is folded later
    scales a whole channel, and so changes no level. With one scale for a layer (`int8-layer`) the
    levels are those of the weights as its statistics so far fold them. With one bit the weights
    behind the stem are `a * sign(w)`, where `a` is the mean size of the channel's weights that are
    not zero (XNOR-Net, Rastegari et al. 2016, arXiv:1603.05279, equation 6).
    """

    def __init__(self, net: DANet, pruning: Pruning, recipe: Recipe) -> None:
        self.net, self.pruning, self.bits = net, pruning, recipe.weight_bits
        self.whole_layer = recipe.weight_scale == "layer"
        layers = {
            f"{path}.weight": module
            for path, module in net.named_modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
        }
        behind_stem = pruned_convolutions(net)
        rounded = (behind_stem if self.bits == BINARY else layers) if self.bits else {}
        self.names = sorted({*rounded, *pruning.masks})
        self.rounded = frozenset(rounded)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Compute in the block, which holds the backward pass too, with the weights' forms."""
        weights = [self.net.get_parameter(name) for name in self.names]
        behind = [weight.data.clone() for weight in weights]
        self.settle(self.net)
        try:
            yield
        finally:
            for weight, before in zip(weights, behind, strict=True):
                weight.data.copy_(before)
                if self.bits == BINARY and weight.grad is not None:
                    weight.grad.mul_(before.abs() <= 1)  # the estimator's window

    @torch.no_grad()
    def settle(self, model: DANet) -> None:
        """Give `model`, whose parameters are those of the net, the weights' forms for good."""
        for name in self.names:
            weight = model.get_parameter(name).data
            if name in self.pruning.masks:
                weight.mul_(self.pruning.masks[name]).add_(0.0)  # -0.0 becomes 0.0
            if name not in self.rounded:
                continue
            if self.bits == BINARY:
                _to_signs(weight)
            elif self.whole_layer:
                _round_folded(model, name, weight)
            else:
                round_to_levels(weight, weight.abs().flatten(1).amax(1))


def _to_signs(weight: Tensor) -> None:
    """Give every weight that is not zero the mean size of its output channel."""
    rows = weight.abs().flatten(1)
    mean = rows.sum(1) / rows.count_nonzero(1).clamp_min(1)
    weight.sign_().mul_(mean.view(-1, *[1] * (weight.dim() - 1)))


def _round_folded(model: DANet, name: str, weight: Tensor) -> None:
    """Round the weights of a layer so that, folded, they lie on the levels of one scale.

    As in `export.prepare.quantize`, the largest level is the layer's largest weight or bias.
    """
    factor, bias = _folding(model, name, weight)
    rows = factor.view(-1, *[1] * (weight.dim() - 1))
    folded = weight * rows
    round_to_levels(folded, torch.maximum(folded.abs().amax(), bias.abs().amax()))
    weight.copy_(torch.where(rows == 0, weight, folded / rows))


def _folding(model: DANet, name: str, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a BatchNorm behind a layer multiplies each channel by, and its folded bias."""
    path = name.removesuffix(".weight")
    layer, modules = model.get_submodule(path), dict(model.named_modules())
    parent, _, child = path.rpartition(".")
    norm = modules.get(f"{parent}.{child.replace('conv', 'bn')}")
    precedes = isinstance(modules[parent], Block) and model.config.order == "b"
    if not isinstance(norm, nn.BatchNorm2d) or norm is layer or precedes:
        own = getattr(layer, "bias", None)
        return weight.new_ones(len(weight)), weight.new_zeros(1) if own is None else own
    assert norm.running_mean is not None and norm.running_var is not None
    factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
    bias = norm.bias - norm.running_mean * factor
    # behind a pool of n values an integer weight stands for a weight / n
    pool = getattr(modules[parent], "pool", None)
    return factor, bias * (pool.window**2 if isinstance(pool, SamePool) else 1)
