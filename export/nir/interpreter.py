"""A plain interpreter of NIR: it runs any graph of the 1.0.8 primitives step by step in numpy.

It shares no code with the exporter. Time is integrated by explicit Euler with `dt`; every state is
zero before the first step. With `a = dt / tau`:

    LI              v[t] = (1 - a) v[t-1] + a v_leak + a r x[t]         tau dv/dt = (v_leak - v) + r x
    I               v[t] = v[t-1] + dt r x[t]                           dv/dt = r x
    LIF, IF         the same, then z[t] = v[t] > v_threshold, and v[t] becomes v_reset where z[t] = 1
    CubaLI(F)       i[t] = (1 - a_syn) i[t-1] + a_syn w_in x[t], and i[t], of the same step, is the
                    x[t] of a LI(F)
    Delay           y[t] = x[t - delay / dt], zero before the start; whole steps only
    Threshold       y = x > threshold;   Scale  y = scale x
    Affine          y = W x + b;         Linear y = W x
    AvgPool2d       SumPool2d over the area of its whole window, padding included

Nested graphs, sums and cycles are as `export.nir.graph` reads them, and the constants of neurons
as `export.nir.integration` rounds them.

Shapes: `T` time steps, `B` batch; a value is `[T, B, ...]`, where `...` is the shape that the graph
speaks of.
"""  # noqa: E501 -- equations in columns

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
from export.nir.integration import Constants, neuron_constants
from export.nir.nodes import CONVS, PARAMETERS, POOLS, kernel_size, paddings
from zoo.arrays import Array
from zoo.errors import ExportError, InputError

__all__ = ["MAX_BYTES", "run", "step_of"]

MAX_BYTES = 1 << 32  # of all values together, and of what one convolution or pool works on
Step = Callable[[Array], Array]  # a node's input at one step, [B, ...] -> its output


def run(
    graph: nir.NIRGraph,
    inputs: Array,
    *,
    dt: float | None = None,
    dtype: type[np.floating[Any]] = np.float32,
) -> dict[str, Array]:
    """Return every node's output `[T, B, ...]` for `inputs` `[T, B, ...]` of the graph's `Input`.

    It is computed in `dtype`, which is float32 or float64. `dt`, in seconds, is as
    `export.nir.graph.check_graph` takes it. Raises `InputError` for inputs and `ExportError` for a
    graph that cannot be run.
    """
    x = np.asarray(inputs)
    if dtype not in (np.float32, np.float64):
        raise InputError(f"dtype {dtype!r}: valid are numpy.float32 and numpy.float64")
    if x.ndim < 2 or 0 in x.shape or x.dtype.kind not in "fiub":
        raise InputError(
            f"inputs of shape {list(x.shape)} and type {x.dtype}: expected numbers [T, B, ...], "
            "none of them 0"
        )
    checked = check_graph(graph, dt=dt, shape=x.shape[2:])
    _check_size("all values", math.prod(x.shape[:2]) * sum(map(math.prod, checked.shapes.values())))
    for name in checked.nodes:
        _check_size(f"NIR node {name!r}", x.shape[1] * _work_elements(checked, name))
    delays = {
        name: checked.delay_steps(name)
        for name, node in checked.nodes.items()
        if type(node) is nir.Delay
    }
    with np.errstate(over="ignore"):
        steps = {name: _step(checked, name, dtype) for name in checked.nodes if name not in delays}
    outputs = {
        name: np.zeros((*x.shape[:2], *shape), dtype) for name, shape in checked.shapes.items()
    }

    def total(name: str, t: int) -> Array:
        return reduce(np.add, (outputs[source][t] for source in checked.sources[name]))

    # What a precision cannot hold is an infinity, as in every other engine.
    with np.errstate(over="ignore", invalid="ignore"):
        for t, name in product(range(len(x)), checked.nodes):
            if name == checked.entry:
                outputs[name][t] = x[t]
            elif name not in delays:
                outputs[name][t] = steps[name](total(name, t))
            else:
                for back in np.unique(delays[name][delays[name] <= t]):
                    chosen = delays[name] == back
                    outputs[name][t][:, chosen] = total(name, t - int(back))[:, chosen]
    return outputs


def step_of(checked: CheckedGraph, name: str) -> Step:
    """Return a node's own computation in float32: its input `[B, ...]` of one step -> its output.

    A neuron begins with a state of zero.
    """
    return _step(checked, name, np.float32)


def _check_size(name: str, elements: int) -> None:
    """Raise `ExportError` for more numbers than `MAX_BYTES` hold."""
    if 8 * elements > MAX_BYTES:
        raise ExportError(
            f"{name} would take {8 * elements:.1e} bytes; at most {MAX_BYTES:.1e} are allowed: "
            "smaller inputs, fewer steps"
        )


def _work_elements(checked: CheckedGraph, name: str) -> int:
    """Return how many numbers a node works on for one image besides its input and output."""
    node, takes = checked.nodes[name], checked.inputs(name)
    if type(node) not in CONVS + POOLS:
        return 0
    axes = zip(takes[1:], paddings(node), strict=True)
    padded = takes[0] * math.prod(size + sum(pads) for size, pads in axes)
    return padded + takes[0] * math.prod((*checked.shapes[name][1:], *kernel_size(node)))


def _slide(node: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return a convolution, or a pool, of `[B, C, ...]`."""
    if weight is None:
        pad_y, pad_x = node.padding
        padded = F.pad(x, (pad_x, pad_x, pad_y, pad_y))
        area = math.prod(node.kernel_size) if type(node) is nir.AvgPool2d else 1
        return F.avg_pool2d(padded, node.kernel_size, node.stride, divisor_override=area)
    pads = node.padding
    if pads == "same":  # as torch pads, which may warn of it
        x, pads = F.pad(x, [pad for axis in reversed(paddings(node)) for pad in axis]), 0
    conv = F.conv1d if x.dim() == 3 else F.conv2d
    return conv(x, weight, bias, node.stride, pads, node.dilation, node.groups)


class _State:
    """A state `v[t] = decay v[t-1] + (input_gain x[t] + bias_current)`, from step to step.

    With `fire`, a threshold and the value after a reset, the output is spikes instead of `v`.
    """

    def __init__(self, constants: Constants, fire: tuple[Array, Array] | None, dtype: Any) -> None:
        self.decay, self.input_gain, self.bias_current = constants
        self.v, self.fire = np.zeros((), dtype), fire

    def __call__(self, x: Array) -> Array:
        self.v = self.decay * self.v + (self.input_gain * x + self.bias_current)
        if self.fire is None:
            return self.v
        threshold, reset = self.fire
        fired = self.v > threshold
        self.v = np.where(fired, reset, self.v)
        return fired.astype(x.dtype)


def _step(checked: CheckedGraph, name: str, dtype: type[np.floating[Any]]) -> Step:
    """Return what a node does to its input `[B, ...]` of one time step.

    A neuron remembers its state from call to call.
    """
    node: Any = checked.nodes[name]
    p = {field: getattr(node, field).astype(dtype) for field in PARAMETERS[type(node)]}
    if constants := neuron_constants(name, node, checked.dt, dtype):
        *before, membrane = constants.values()
        fire = (p["v_threshold"], p["v_reset"]) if "v_threshold" in p else None
        states = [*(_State(terms, None, dtype) for terms in before), _State(membrane, fire, dtype)]
        return lambda x: reduce(lambda value, state: state(value), states, x)
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
        case _:
            weight, bias = (
                torch.from_numpy(p[key]) if key in p else None for key in ("weight", "bias")
            )
            return lambda x: _slide(node, torch.from_numpy(x), weight, bias).numpy()
