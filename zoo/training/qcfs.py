"""Training as an ANN, at the cost of one time step, that becomes a network of spikes.

In training every layer of neurons is the function of quantisation, clipping, floor and shift (QCFS,
Bu et al., ICLR 2022, arXiv:2303.04347, equation 8), here as a share of its threshold:

    h(x) = clip(floor(x L / theta + shift), 0, L) / L

That is how often an integrate-and-fire neuron with reset by subtraction fires in T = L steps of the
current x, if it starts with `shift` of its threshold `theta`, which is learnt. So the network
becomes one of spikes as it is: the neurons take over the thresholds, and weights stay. No format
has a membrane that starts above zero; a current of `shift * theta / T` a step, a bias of the
BatchNorm before, arrives at the same sum. The shift is 1/2, where every step of rounding lies in
the middle, but for neurons that read the stream, which has no BatchNorm of their own: these round
down in training too.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from zoo.autograd import is_recorded, note_spikes
from zoo.danet import DANet
from zoo.errors import ConfigError
from zoo.neurons import Lif

__all__ = ["Qcfs", "as_ann", "check_config", "norms_before", "settle"]


class Qcfs(Lif):
    """A layer of neurons as an ANN computes it, with a threshold that is learnt.

    Currents `[B, ...]` in; out come `0, 1/L, ..., 1`, the share of the steps in which neurons fire.
    Its state has the keys of the `Lif` that it takes the place of.
    """

    def __init__(self, lif: Lif, levels: int, shift: float) -> None:
        nn.Module.__init__(self)
        self.steps, self.fused = lif.steps, lif.fused
        self.neuron = lif.neuron
        self.levels, self.shift = levels, shift
        self.neuron.threshold = nn.Parameter(self.neuron.threshold.detach().clone())

    def forward(self, current: Tensor) -> Tensor:
        """Return the shares of steps, in the shape and dtype of the currents."""
        rates: Tensor = _Levels.apply(  # type: ignore[no-untyped-call]  # torch does not type it
            current, self.neuron.threshold, self.levels, self.shift, is_recorded(self)
        )
        return rates


class _Levels(torch.autograd.Function):
    """`clip(floor(x L / theta + shift), 0, L) / L`, whose floor has the derivative 1."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, threshold: Tensor, levels: int, shift: float, as_bytes: bool
    ) -> Tensor:
        ctx.save_for_backward(x, threshold)
        ctx.levels, ctx.shift = levels, shift
        counts = x.float().mul(levels / threshold).add_(shift).floor_().clamp_(0, levels)
        height = torch.full_like(threshold, 1 / levels)
        rates = (counts * height).to(x.dtype)
        if as_bytes:
            note_spikes(rates, counts.to(torch.uint8), height)
        return rates

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x, threshold = ctx.saved_tensors
        level = x.float().mul(ctx.levels / threshold).add_(ctx.shift)
        inside = (level > 0) & (level < ctx.levels)
        grad = torch.where(inside, grad, 0) / threshold
        return grad.to(x.dtype), -(grad * x).sum(dtype=torch.float32) / threshold, None, None, None


def check_config(net: DANet) -> None:
    """Raise `ConfigError` for a network whose neurons are no sums that a rate could stand for."""
    config = net.config
    if config.beta != 1 or config.reset != "subtract":
        raise ConfigError(
            f"activation = 'qcfs' is for neurons of beta 1 that reset by subtraction, and these "
            f"have beta {config.beta:g} and reset {config.reset!r}: "
            "give --config beta=1 reset=subtract"
        )
    if any(isinstance(module, nn.MaxPool2d) for module in net.modules()):
        raise ConfigError(
            f"activation = 'qcfs' has no maximum of spikes, and the stem {config.stem!r} takes "
            "one: give --config stem=imagenet, which averages"
        )


def norms_before(net: DANet) -> dict[str, str]:
    """Return the BatchNorm whose output a layer of neurons alone reads, by the path of the layer.

    It may be added to a shortcut before the neurons.
    """
    found = {}
    for parent, module in net.named_modules():
        layers = [
            (name, child)
            for name, child in module.named_children()
            if isinstance(child, nn.Conv2d | _BatchNorm | Lif)
        ]
        for (norm, one), (lif, two) in pairwise(layers):
            if isinstance(one, _BatchNorm) and isinstance(two, Lif):
                found[f"{parent}.{lif}"] = f"{parent}.{norm}"
    return found


def as_ann(net: DANet, levels: int) -> None:
    """Let the neurons of `net` compute as an ANN does, in place.

    Frozen parts learn no threshold.
    """
    shifted = norms_before(net)
    frozen = tuple(f"{part}." for part in net.frozen)
    for path, module in [*net.named_modules()]:
        if isinstance(module, Lif):
            parent, _, name = path.rpartition(".")
            layer = Qcfs(module, levels, 0.5 if path in shifted else 0.0)
            layer.neuron.threshold.requires_grad_(not f"{path}.".startswith(frozen))
            setattr(net.get_submodule(parent), name, layer)


@torch.no_grad()
def settle(model: DANet) -> None:
    """Give `model`, whose weights are those of the ANN, half a threshold over its T steps.

    That is an input, and no weight, of frozen parts too.
    """
    for lif, norm in norms_before(model).items():
        neuron = model.get_submodule(lif)
        assert isinstance(neuron, Lif)
        model.get_parameter(f"{norm}.bias").add_(neuron.neuron.threshold / (2 * neuron.steps))
