"""A plain reading of NIR: any graph of its 1.0.8 primitives, run step by step in numpy. It shares
no code with the exporter.

Time is integrated by explicit Euler with `dt`; every state is zero before the first step. With `a =
dt / tau`:

    LI              v[t] = (1 - a) v[t-1] + a v_leak + a r x[t]         tau dv/dt = (v_leak - v) + r x
    I               v[t] = v[t-1] + dt r x[t]                           dv/dt = r x
    LIF, IF         the same, then z[t] = v[t] > v_threshold, and v[t] becomes v_reset where z[t] = 1
    CubaLI(F)       i[t] = (1 - a_syn) i[t-1] + a_syn w_in x[t], and i[t], of the same step, is the x[t] of a LI(F)
    Delay           y[t] = x[t - delay / dt], zero before the start; whole steps only
    Threshold       y = x > threshold;   Scale  y = scale x;   Affine  y = W x + b;   Linear  y = W x
    AvgPool2d       SumPool2d over the area of its whole window, padding included

Nested graphs, sums and cycles are as `export.nir.graph` reads them. `a` is rounded to the precision
in which its node stores `tau`, so that a decay which is a power of two comes back without an error
whatever `dt` is.

Shapes: `T` time steps, `B` batch; a value is `[T, B, ...]`, where `...` is the shape that the graph
speaks of.
"""

import math
from collections.abc import Callable
from functools import reduce
from itertools import product
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from export.nir.graph import CheckedGraph, check_graph
from export.nir.nodes import CONVS, PARAMETERS, POOLS
from zoo.errors import ExportError, InputError

__all__ = ["MAX_BYTES", "run", "step_of"]

MAX_BYTES = 1 << 32  # of all values together, and of what one convolution or pool works on
Array = np.ndarray[Any, np.dtype[Any]]
Step = Callable[[Array], Array]  # a node's input at one step, [B, ...] -> its output


def run(
    graph: nir.NIRGraph,
    inputs: Array,
    *,
    dt: float | None = None,
    dtype: type[np.floating[Any]] = np.float32,
) -> dict[str, Array]:
    """Every node's output `[T, B, ...]` for `inputs` `[T, B, ...]` of the graph's only `Input`,
    computed in float32 or float64.

    `dt` is as `export.nir.graph.flow` takes it. Raises `InputError` for inputs and `ExportError`
    for a graph that cannot be run.
    """
    x = np.asarray(inputs)
    if dtype not in (np.float32, np.float64):
        raise InputError(f"dtype {dtype!r}: valid are numpy.float32 and numpy.float64")
    if x.ndim < 2 or 0 in x.shape or x.dtype.kind not in "fiub":
        raise InputError(
            f"inputs of shape {list(x.shape)} and type {x.dtype}: expected numbers [T, B, ...], none of them 0"
        )
    ready = check_graph(graph, dt=dt, shape=x.shape[2:])
    _bounded("all values", math.prod(x.shape[:2]) * sum(map(math.prod, ready.shapes.values())))
    for name in ready.nodes:
        _bounded(f"NIR node {name!r}", x.shape[1] * _work(ready, name))
    delays = {
        name: ready.delay_steps(name)
        for name, node in ready.nodes.items()
        if type(node) is nir.Delay
    }
    with np.errstate(over="ignore"):
        steps = {name: _step(ready, name, dtype) for name in ready.nodes if name not in delays}
    outputs = {
        name: np.zeros((*x.shape[:2], *shape), dtype) for name, shape in ready.shapes.items()
    }

    def total(name: str, t: int) -> Array:
        return reduce(np.add, (outputs[source][t] for source in ready.sources[name]))

    # what a precision cannot hold is an infinity, as in every other engine
    with np.errstate(over="ignore", invalid="ignore"):
        for t, name in product(range(len(x)), ready.nodes):
            if name == ready.entry:
                outputs[name][t] = x[t]
            elif name not in delays:
                outputs[name][t] = steps[name](total(name, t))
            else:
                for back in np.unique(delays[name][delays[name] <= t]):
                    chosen = delays[name] == back
                    outputs[name][t][:, chosen] = total(name, t - int(back))[:, chosen]
    return outputs


def _bounded(name: str, elements: int) -> None:
    if 8 * elements > MAX_BYTES:
        raise ExportError(
            f"{name} would take {8 * elements:.1e} bytes; at most {MAX_BYTES:.1e} are allowed: smaller inputs, fewer steps"
        )


def _work(checked: CheckedGraph, name: str) -> int:
    """The numbers that a node of a flow works on at one step of one image, besides its input and
    output.
    """
    node, takes = checked.nodes[name], checked.inputs(name)
    if type(node) not in CONVS + POOLS:
        return 0
    kernel = node.kernel_size if type(node) in POOLS else node.weight.shape[2:]
    pads = [2 * p for p in node.padding] if node.padding != "same" else _same(node)
    padded = takes[0] * math.prod(n + p for n, p in zip(takes[1:], pads, strict=True))
    return padded + takes[0] * math.prod((*checked.shapes[name][1:], *kernel))


def _same(node: Any) -> list[int]:
    """How much longer each axis of a convolution's input must be for an output of its own size."""
    return [d * (k - 1) for d, k in zip(node.dilation, node.weight.shape[2:], strict=True)]


def _slide(node: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """A convolution, or a pool, of `[B, C, ...]`."""
    if weight is None:
        height, width = node.padding
        area = math.prod(node.kernel_size) if type(node) is nir.AvgPool2d else 1
        return F.avg_pool2d(
            F.pad(x, (width, width, height, height)),
            node.kernel_size,
            node.stride,
            divisor_override=area,
        )
    pads = node.padding
    if pads == "same":  # as torch pads, which may warn of it
        x, pads = F.pad(x, [pad for r in reversed(_same(node)) for pad in (r // 2, r - r // 2)]), 0
    conv = F.conv1d if x.dim() == 3 else F.conv2d
    return conv(x, weight, bias, node.stride, pads, node.dilation, node.groups)


def step_of(checked: CheckedGraph, name: str) -> Step:
    """A node's own computation in float32: its input `[B, ...]` of one step -> its output; a neuron
    begins with a state of zero.
    """
    return _step(checked, name, np.float32)


class _Membrane:
    """`v[t] = keep v[t-1] + gain x[t] + drive`; with `fire`, a threshold and a reset, the output is
    spikes instead of `v`.
    """

    def __init__(
        self,
        dtype: Any,
        keep: Array,
        gain: Array,
        drive: Array,
        fire: tuple[Array, Array] | None = None,
    ) -> None:
        self.keep, self.gain, self.drive = (
            np.asarray(value, dtype) for value in (keep, gain, drive)
        )
        self.v, self.fire = np.zeros((), dtype), fire

    def __call__(self, x: Array) -> Array:
        self.v = self.keep * self.v + (self.gain * x + self.drive)
        if self.fire is None:
            return self.v
        fired = self.v > self.fire[0]
        self.v = np.where(fired, self.fire[1], self.v)
        return fired.astype(x.dtype)


def _euler(
    name: str, dt: float, tau: Array | None, gain: Array, leak: Array
) -> tuple[Array, Array, Array]:
    """`keep`, `gain` and `drive` of a membrane: `1 - a`, `a r`, `a v_leak`, or `1`, `dt r`, `0` for
    one without a leak.
    """
    if tau is None:
        return (
            np.ones_like(gain),
            np.asarray(dt, np.result_type(gain, np.float32)) * gain,
            np.zeros_like(gain),
        )
    if not (tau >= dt * (1 - 1e-6)).all():
        raise ExportError(
            f"NIR node {name!r} has a time constant below the time step, {dt} seconds"
        )
    a = np.minimum(np.asarray(dt, np.result_type(tau, np.float32)) / tau, 1)
    return 1 - a, a * gain, a * leak


def _step(checked: CheckedGraph, name: str, dtype: type[np.floating[Any]]) -> Step:
    """What a node does to its input `[B, ...]` of one time step; a neuron remembers its state from
    call to call.
    """
    node: Any = checked.nodes[name]
    p = {field: getattr(node, field).astype(dtype) for field in PARAMETERS.get(type(node), ())}
    fire = (p["v_threshold"], p["v_reset"]) if "v_threshold" in p else None
    match node:
        case nir.Input() | nir.Output():
            return lambda x: x
        case nir.Flatten():
            return lambda x: x.reshape(len(x), *checked.shapes[name])
        case nir.Scale():
            return lambda x: p["scale"] * x
        case nir.Threshold():
            return lambda x: (x > p["threshold"]).astype(dtype)
        case nir.Affine() | nir.Linear():
            return lambda x: (p["weight"] @ x[..., None])[..., 0] + p.get("bias", dtype(0))
        case nir.I() | nir.IF():
            return _Membrane(dtype, *_euler(name, checked.dt, None, node.r, node.r), fire)
        case nir.LI() | nir.LIF():
            return _Membrane(dtype, *_euler(name, checked.dt, node.tau, node.r, node.v_leak), fire)
        case nir.CubaLI() | nir.CubaLIF():
            synapse = _Membrane(
                dtype, *_euler(name, checked.dt, node.tau_syn, node.w_in, 0 * node.v_leak)
            )
            membrane = _Membrane(
                dtype, *_euler(name, checked.dt, node.tau_mem, node.r, node.v_leak), fire
            )
            return lambda x: membrane(synapse(x))
        case _:
            weight, bias = (
                torch.from_numpy(p[key]) if key in p else None for key in ("weight", "bias")
            )
            return lambda x: _slide(node, torch.from_numpy(x), weight, bias).numpy()
