"""The module of each NIR node: snnTorch neurons, and layers with parameters. `export.nir.network`
connects them.

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
from export.nir.nodes import CONVS, POOLS
from zoo.errors import ExportError

__all__ = ["Cuba", "Delay", "Neuron", "SpikeGrad", "Surrogate", "Threshold", "euler", "node_module"]

Array = np.ndarray[Any, np.dtype[Any]]
SpikeGrad = Callable[[Tensor], Tensor]  # u -> 1. where u > 0, else 0., with a surrogate gradient


class Surrogate(nn.Module):
    """Spikes of `u`, with the surrogate gradient taken at `u / unit`."""

    unit: Tensor

    def __init__(self, spike_grad: SpikeGrad, unit: Tensor) -> None:
        super().__init__()
        self.spike_grad = spike_grad
        self.register_buffer("unit", torch.where(unit == 0, 1, unit.abs()))

    def forward(self, u: Tensor) -> Tensor:
        return self.spike_grad(u / self.unit).to(u.dtype)  # surrogates of snnTorch end in float32


class Threshold(nn.Module):
    """Spikes where the input is above `threshold`."""

    threshold: Tensor

    def __init__(self, threshold: Tensor, spike_grad: SpikeGrad) -> None:
        super().__init__()
        self.register_buffer("threshold", threshold)
        self.spike_grad = Surrogate(spike_grad, torch.ones_like(threshold))

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.spike_grad(x - self.threshold)
        return spikes


class Scale(nn.Module):
    """`y = scale x`."""

    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


class Affine(nn.Module):
    """`y = W x + b` over the last axis, with weights `[..., rows, columns]` of their own for every
    element of the others.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("...rc,...c->...r", self.weight, x)
        return y if self.bias is None else y + self.bias


class Delay(nn.Module):
    """`y[t] = x[t - steps]`, element by element; zero before the start."""

    steps: Tensor

    def __init__(self, steps: Array) -> None:
        super().__init__()
        self.register_buffer("steps", torch.from_numpy(steps))
        self.backs = [int(back) for back in np.unique(steps)]

    def forward(self, past: list[Tensor], t: int, like: Tensor) -> Tensor:
        """`y[t]` `[B, ...]` of `past = [x[0], x[1], ...]`."""
        y = like.new_zeros(like.shape[1], *self.steps.shape)
        for back in self.backs:
            if back <= t:
                y = torch.where(self.steps == back, past[t - back], y)
        return y


class Neuron(nn.Module):
    """`snn.Leaky` of `gain x + drive`: `x` and state -> spikes, or for one that does not `fire` its
    membrane, and state.
    """

    gain: Tensor
    drive: Tensor
    v_reset: Tensor | None

    def __init__(
        self,
        terms: tuple[Tensor, Tensor, Tensor],
        fire: tuple[Tensor, Tensor] | None,
        spike_grad: SpikeGrad,
    ) -> None:
        super().__init__()
        beta, gain, drive = terms
        self.register_buffer("gain", gain)
        self.register_buffer("drive", drive)
        self.register_buffer("v_reset", fire[1] if fire and fire[1].any() else None)
        self.leaky = _leaky(
            beta,
            fire[0] if fire else torch.ones(()),
            "zero" if fire else "none",
            Surrogate(spike_grad, gain),
        )
        self.fires = fire is not None

    def subtract(self, fires: Threshold) -> None:
        """From now on a spike of `fires` takes its threshold off the membrane."""
        spike_grad = self.leaky.spike_grad
        fires.spike_grad = Surrogate(spike_grad.spike_grad, self.gain)
        self.leaky = _leaky(self.leaky.beta, fires.threshold.clone(), "subtract", spike_grad)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        leaky, outputs = self.leaky, []
        spikes, v = state or (torch.zeros_like(x[0]), torch.zeros_like(x[0]))
        for current in (self.gain * x + self.drive).unbind(0):
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
            membrane.leaky.spike_grad.spike_grad, membrane.gain * synapse.gain
        )

    def forward(self, x: Tensor, states: tuple[Any, Any] | None) -> tuple[Tensor, tuple[Any, Any]]:
        before = states or (None, None)
        current, synapse = self.synapse(x, before[0])
        output, membrane = self.membrane(current, before[1])
        return output, (synapse, membrane)


def _leaky(beta: Tensor, threshold: Tensor, reset: str, spike_grad: nn.Module) -> Any:
    leaky = snn.Leaky(
        beta=beta,
        threshold=threshold,
        spike_grad=spike_grad,
        reset_mechanism=reset,
        reset_delay=True,
    )
    snn.SpikingNeuron.instances.remove(leaky)  # where snnTorch would keep it alive
    return leaky


@np.errstate(over="ignore")
def node_module(flow: CheckedGraph, name: str, spike_grad: SpikeGrad) -> nn.Module:
    """The module of a node."""
    node: Any = flow.nodes[name]
    fire = (
        (_tensor(node.v_threshold), _tensor(node.v_reset)) if hasattr(node, "v_threshold") else None
    )
    match node:
        case nir.Input() | nir.Output():
            return nn.Identity()
        case nir.Flatten():
            return nn.Flatten(
                *(
                    d + (d >= 0)
                    for d in (np.asarray(dim).item() for dim in (node.start_dim, node.end_dim))
                )
            )
        case nir.Scale():
            return Scale(_tensor(node.scale))
        case nir.Threshold():
            return Threshold(_tensor(node.threshold), spike_grad)
        case nir.Delay():
            return Delay(flow.delay_steps(name))
        case nir.I() | nir.IF():
            return Neuron(euler(name, flow.dt, None, node.r, node.r), fire, spike_grad)
        case nir.LI() | nir.LIF():
            return Neuron(euler(name, flow.dt, node.tau, node.r, node.v_leak), fire, spike_grad)
        case nir.CubaLI() | nir.CubaLIF():
            synapse = Neuron(
                euler(name, flow.dt, node.tau_syn, node.w_in, np.zeros_like(node.w_in)),
                None,
                spike_grad,
            )
            return Cuba(
                synapse,
                Neuron(euler(name, flow.dt, node.tau_mem, node.r, node.v_leak), fire, spike_grad),
            )
        case _:
            return _weighted(node)


def euler(
    name: str, dt: float, tau: Array | None, r: Array, leak: Array
) -> tuple[Tensor, Tensor, Tensor]:
    """`beta`, `gain` and `drive`, rounded as the interpreter rounds them."""
    if tau is None:
        gain = np.asarray(dt, np.result_type(r, np.float32)) * r
        return _tensor(np.ones_like(gain)), _tensor(gain), _tensor(np.zeros_like(gain))
    if not (tau >= dt * (1 - 1e-6)).all():
        raise ExportError(
            f"NIR node {name!r} has a time constant below the time step, {dt} seconds: give a smaller dt"
        )
    a = np.minimum(np.asarray(dt, np.result_type(tau, np.float32)) / tau, 1)
    return _tensor(1 - a), _tensor(a * r), _tensor(a * leak)


def _weighted(node: Any) -> nn.Module:
    """A convolution, a pool or a matrix, of `[N, ...]`."""
    if type(node) in POOLS:
        area = int(np.prod(node.kernel_size)) if type(node) is nir.AvgPool2d else 1
        pool = nn.AvgPool2d(node.kernel_size, node.stride, divisor_override=area)
        return _padded([(p, p) for p in node.padding], pool)
    weight, bias = _tensor(node.weight), _tensor(node.bias) if hasattr(node, "bias") else None
    if type(node) not in CONVS and weight.dim() > 2:
        return Affine(weight, bias)
    module: Any
    pads: list[tuple[int, int]] = []
    rows, columns, *kernel = weight.shape
    if type(node) not in CONVS:
        module = nn.Linear(columns, rows, device="meta")  # no random numbers for what is replaced
    else:
        kind: Any = nn.Conv1d if type(node) is nir.Conv1d else nn.Conv2d
        padding = node.padding
        if padding == "same":
            reach = [d * (k - 1) for d, k in zip(node.dilation, kernel, strict=True)]
            pads, padding = [(r // 2, r - r // 2) for r in reach], 0
        module = kind(
            columns * node.groups,
            rows,
            kernel,
            node.stride,
            padding,
            node.dilation,
            node.groups,
            device="meta",
        )
    module.weight = nn.Parameter(weight)
    module.bias = None if bias is None else nn.Parameter(bias)
    return _padded(pads, module)


def _padded(pads: list[tuple[int, int]], module: nn.Module) -> nn.Module:
    """`module` after zeros around each axis."""
    sides = [side for pad in reversed(pads) for side in pad]
    kind = nn.ConstantPad1d if len(pads) == 1 else nn.ConstantPad2d
    return nn.Sequential(kind(sides, 0.0), module) if any(sides) else module  # type: ignore[arg-type]  # a list of two or four


@np.errstate(over="ignore")  # an infinity, as in the interpreter
def _tensor(values: Array) -> Tensor:
    """A copy in float32."""
    return torch.from_numpy(np.array(values, np.float32, order="C"))
