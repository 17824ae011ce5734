"""The module of each NIR node: snnTorch neurons, and layers with parameters.

`export.nir.network` connects them.

Shapes: `T` time steps, `B` batch. A neuron takes `[T, B, ...]` and its state of the step before;
any other node `[N, ...]`.
"""

from collections.abc import Callable
from typing import Any

import nir
import numpy as np
import snntorch as snn
import torch
from torch import Tensor, nn

from export.nir.graph import CheckedGraph
from export.nir.integration import neuron_constants
from export.nir.nodes import CONVS, NODE_KINDS, POOLS, paddings
from zoo.arrays import Array

__all__ = ["Cuba", "Delay", "Neuron", "SpikeGrad", "Surrogate", "Threshold", "node_module"]

SpikeGrad = Callable[[Tensor], Tensor]  # u -> 1. where u > 0, else 0., with a surrogate gradient
Terms = tuple[Tensor, Tensor, Tensor]  # decay, input gain and bias current of one state


class Surrogate(nn.Module):
    """Gives spikes of `u`, with the surrogate gradient taken at `u / unit`."""

    unit: Tensor

    def __init__(self, spike_grad: SpikeGrad, unit: Tensor) -> None:
        super().__init__()
        self.spike_grad = spike_grad
        self.register_buffer("unit", torch.where(unit == 0, 1, unit.abs()))

    def forward(self, u: Tensor) -> Tensor:
        """Return 1 where `u` is above zero, else 0."""
        return self.spike_grad(u / self.unit).to(u.dtype)  # surrogates of snnTorch end in float32


class Threshold(nn.Module):
    """Fires where the input is above `threshold`."""

    threshold: Tensor

    def __init__(self, threshold: Tensor, spike_grad: SpikeGrad) -> None:
        super().__init__()
        self.register_buffer("threshold", threshold)
        self.spike_grad = Surrogate(spike_grad, torch.ones_like(threshold))

    def forward(self, x: Tensor) -> Tensor:
        """Return the spikes of `x` `[N, ...]`."""
        spikes: Tensor = self.spike_grad(x - self.threshold)
        return spikes


class Scale(nn.Module):
    """Computes `y = scale x`."""

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """Return `y` `[N, ...]`."""
        return self.scale * x


class Affine(nn.Module):
    """Computes `y = W x + b` over the last axis.

    The weights `[..., rows, columns]` are of their own for every element of the other axes.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return `y` `[N, ..., rows]` of `x` `[N, ..., columns]`."""
        y = torch.einsum("...rc,...c->...r", self.weight, x)
        return y if self.bias is None else y + self.bias


class Delay(nn.Module):
    """Computes `y[t] = x[t - steps]`, element by element; zero before the start."""

    steps: Tensor

    def __init__(self, steps: Array) -> None:
        super().__init__()
        self.register_buffer("steps", torch.from_numpy(steps))
        self.backs = [int(back) for back in np.unique(steps)]

    def forward(self, past: list[Tensor], t: int, like: Tensor) -> Tensor:
        """Return `y[t]` `[B, ...]` of `past = [x[0], x[1], ...]`, in the type of `like`."""
        y = like.new_zeros(like.shape[1], *self.steps.shape)
        for back in self.backs:
            if back <= t:
                y = torch.where(self.steps == back, past[t - back], y)
        return y


class Neuron(nn.Module):
    """An `snn.Leaky` that reads `input_gain x + bias_current`.

    From `x` and state it gives spikes and state; or, if it does not fire, its membrane and state.
    """

    input_gain: Tensor
    bias_current: Tensor
    v_reset: Tensor | None

    def __init__(
        self, terms: Terms, fire: tuple[Tensor, Tensor] | None, spike_grad: SpikeGrad
    ) -> None:
        super().__init__()
        decay, input_gain, bias_current = terms
        threshold, v_reset = fire or (torch.ones(()), torch.zeros(()))
        self.register_buffer("input_gain", input_gain)
        self.register_buffer("bias_current", bias_current)
        self.register_buffer("v_reset", v_reset if v_reset.any() else None)
        reset = "zero" if fire else "none"
        self.leaky = _leaky(decay, threshold, reset, Surrogate(spike_grad, input_gain))
        self.fires = fire is not None

    def subtract(self, threshold: Threshold) -> None:
        """Let a spike of `threshold` take that threshold off the membrane from now on."""
        spike_grad = self.leaky.spike_grad
        threshold.spike_grad = Surrogate(spike_grad.spike_grad, self.input_gain)
        value = threshold.threshold.clone()
        self.leaky = _leaky(self.leaky.beta, value, "subtract", spike_grad)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the output `[T, B, ...]` of `x` `[T, B, ...]`, and the state after it."""
        leaky, outputs = self.leaky, []
        spikes, v = state or (torch.zeros_like(x[0]), torch.zeros_like(x[0]))
        for current in (self.input_gain * x + self.bias_current).unbind(0):
            if self.v_reset is not None:
                current = current + leaky.beta * self.v_reset * spikes.detach()
            spikes, v = leaky(current, v)
            outputs.append(spikes if self.fires else v)
        leaky.mem, leaky.reset = x.new_zeros(0), None  # snnTorch would keep them
        return torch.stack(outputs), (spikes, v)


class Cuba(nn.Module):
    """A synapse, and the neuron that reads its current."""

    def __init__(self, synapse: Neuron, membrane: Neuron) -> None:
        super().__init__()
        self.synapse, self.membrane = synapse, membrane
        membrane.leaky.spike_grad = Surrogate(
            membrane.leaky.spike_grad.spike_grad, membrane.input_gain * synapse.input_gain
        )

    def forward(self, x: Tensor, states: tuple[Any, Any] | None) -> tuple[Tensor, tuple[Any, Any]]:
        """Return the output `[T, B, ...]` of `x` `[T, B, ...]`, and both states after it."""
        before = states or (None, None)
        current, synapse = self.synapse(x, before[0])
        output, membrane = self.membrane(current, before[1])
        return output, (synapse, membrane)


def _leaky(decay: Tensor, threshold: Tensor, reset: str, spike_grad: nn.Module) -> Any:
    leaky = snn.Leaky(
        beta=decay,
        threshold=threshold,
        spike_grad=spike_grad,
        reset_mechanism=reset,
        reset_delay=True,
    )
    snn.SpikingNeuron.instances.remove(leaky)  # which would keep it alive
    return leaky


@np.errstate(over="ignore")
def node_module(checked: CheckedGraph, name: str, spike_grad: SpikeGrad) -> nn.Module:
    """Return the module of a node. Raises `ExportError` for a time constant below the time step."""
    node: Any = checked.nodes[name]
    match NODE_KINDS[type(node)].role:
        case "neuron":
            return _neuron(checked, name, spike_grad)
        case "linear" | "pool":
            return _weighted(node)
        case "delay":
            return Delay(checked.delay_steps(name))
    match node:
        case nir.Scale():
            return Scale(_tensor(node.scale))
        case nir.Threshold():
            return Threshold(_tensor(node.threshold), spike_grad)
        case nir.Flatten():
            dims = (np.asarray(dim).item() for dim in (node.start_dim, node.end_dim))
            return nn.Flatten(*(dim + (dim >= 0) for dim in dims))  # behind the batch
        case _:  # an Input or Output
            return nn.Identity()


def _neuron(checked: CheckedGraph, name: str, spike_grad: SpikeGrad) -> Neuron | Cuba:
    node: Any = checked.nodes[name]
    fires = NODE_KINDS[type(node)].spikes
    fire = (_tensor(node.v_threshold), _tensor(node.v_reset)) if fires else None
    *synapse, membrane = (
        (_tensor(decay), _tensor(input_gain), _tensor(bias_current))
        for decay, input_gain, bias_current in neuron_constants(name, node, checked.dt).values()
    )
    neuron = Neuron(membrane, fire, spike_grad)
    if not synapse:
        return neuron
    (current,) = synapse
    return Cuba(Neuron(current, None, spike_grad), neuron)


def _weighted(node: Any) -> nn.Module:
    """Return a convolution, a pool or a matrix, of `[N, ...]`."""
    if type(node) in POOLS:
        area = int(np.prod(node.kernel_size)) if type(node) is nir.AvgPool2d else 1
        pool = nn.AvgPool2d(node.kernel_size, node.stride, divisor_override=area)
        return _padded(paddings(node), pool)
    weight, bias = _tensor(node.weight), _tensor(node.bias) if hasattr(node, "bias") else None
    if type(node) not in CONVS and weight.dim() > 2:
        return Affine(weight, bias)
    pads: list[tuple[int, int]] = []
    rows, columns, *kernel = weight.shape
    module: Any
    # On "meta" no random numbers are drawn for what is replaced.
    if type(node) not in CONVS:
        module = nn.Linear(columns, rows, device="meta")
    else:
        padding, inputs = node.padding, columns * node.groups
        if padding == "same":
            pads, padding = paddings(node), 0
        conv: Any = nn.Conv1d if type(node) is nir.Conv1d else nn.Conv2d
        options = (node.stride, padding, node.dilation, node.groups)
        module = conv(inputs, rows, kernel, *options, device="meta")
    module.weight = nn.Parameter(weight)
    module.bias = None if bias is None else nn.Parameter(bias)
    return _padded(pads, module)


def _padded(pads: list[tuple[int, int]], module: nn.Module) -> nn.Module:
    """Return `module` after zeros around each axis."""
    sides = [side for pad in reversed(pads) for side in pad]
    if not any(sides):
        return module
    kind = nn.ConstantPad1d if len(pads) == 1 else nn.ConstantPad2d
    return nn.Sequential(kind(sides, 0.0), module)  # type: ignore[arg-type]  # a list of two or four


@np.errstate(over="ignore")  # an infinity, as in the interpreter
def _tensor(values: Array) -> Tensor:
    """Return a copy in float32."""
    return torch.from_numpy(np.array(values, np.float32, order="C"))
