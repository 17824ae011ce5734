"""A plain reading of NIR: any graph of its 1.0.8 primitives, run step by step in numpy. It shares no code with the exporter.

Time is integrated by explicit Euler with `dt`; every state is zero before the first step. With `a = dt / tau`:

    LI              v[t] = (1 - a) v[t-1] + a v_leak + a r x[t]         tau dv/dt = (v_leak - v) + r x
    I               v[t] = v[t-1] + dt r x[t]                           dv/dt = r x
    LIF, IF         the same, then z[t] = v[t] > v_threshold, and v[t] becomes v_reset where z[t] = 1
    CubaLI(F)       i[t] = (1 - a_syn) i[t-1] + a_syn w_in x[t], and i[t], of the same step, is the x[t] of a LI(F)
    Delay           y[t] = x[t - delay / dt], zero before the start; whole steps only
    Threshold       y = x > threshold;   Scale  y = scale x;   Affine  y = W x + b;   Linear  y = W x
    AvgPool2d       SumPool2d over the area of its whole window, padding included

Several edges into a node are a sum, in the order of the edges. A nested graph `sub` is flattened into nodes `sub.name`; an `Input`
or `Output` inside passes its value on. `a` is rounded to the precision in which its node stores `tau`, so that a decay which is a
power of two comes back without an error whatever `dt` is.

Shapes: `T` time steps, `B` batch; a value is `[T, B, ...]`, where `...` is the shape that the graph speaks of.
"""

from collections.abc import Callable
from functools import reduce
from graphlib import CycleError, TopologicalSorter
from math import inf, prod
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import ExportError, InputError

__all__ = ["MAX_BYTES", "run"]

MAX_BYTES = 1 << 32  # of all values together, and of what one convolution or pool works on
MAX_DEPTH = 32  # of graphs in graphs
Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]
Step = Callable[[Array], Array]  # a node's input at one step, [B, ...] -> its output
# Every parameter has the shape of the input.
ELEMENTWISE = (nir.Scale, nir.Threshold, nir.Delay, nir.I, nir.IF, nir.LI, nir.LIF, nir.CubaLI, nir.CubaLIF)
POOLS, CONVS = (nir.SumPool2d, nir.AvgPool2d), (nir.Conv1d, nir.Conv2d)


def run(graph: nir.NIRGraph, inputs: Array, *, dt: float = 1e-4, dtype: type[np.floating[Any]] = np.float32) -> dict[str, Array]:
    """Every node's output `[T, B, ...]` for `inputs` `[T, B, ...]` of the graph's only `Input`, computed in float32 or float64.

    `graph.metadata["dt"]` overrules `dt`. Raises `InputError` for inputs and `ExportError` for a graph that cannot be run.
    """
    x = np.asarray(inputs)
    if dtype not in (np.float32, np.float64):
        raise InputError(f"dtype {dtype!r}: valid are numpy.float32 and numpy.float64")
    if x.ndim < 2 or 0 in x.shape or x.dtype.kind not in "fiub":
        raise InputError(f"inputs of shape {list(x.shape)} and type {x.dtype}: expected numbers [T, B, ...], none of them 0")
    dt = _time_step(graph, dt)
    nodes, edges = _flat(graph, dt)
    entry, sources = _wiring(graph, nodes, edges)
    delays = {name: _delay(name, node, dt, len(x)) for name, node in nodes.items() if type(node) is nir.Delay}
    order = _order(sources, {name for name, steps in delays.items() if steps.min(initial=1) > 0})
    shapes = _shapes(order, nodes, sources, entry, x.shape[1:])
    _bounded("all values", len(x) * sum(map(prod, shapes.values())))
    steps = {name: _step(name, nodes[name], dt, dtype) for name in order if name not in delays}
    outputs = {name: np.zeros((len(x), *shapes[name]), dtype) for name in order}

    def total(name: str, t: int) -> Array:
        return reduce(np.add, (outputs[source][t] for source in sources[name]))

    for t in range(len(x)):
        for name in order:
            if name == entry:
                outputs[name][t] = x[t]
            elif name not in delays:
                outputs[name][t] = steps[name](total(name, t))
            else:
                for back in np.unique(delays[name][delays[name] <= t]):
                    chosen = delays[name] == back
                    outputs[name][t][:, chosen] = total(name, t - int(back))[:, chosen]
    return outputs


def _refused(name: str, why: str) -> ExportError:
    return ExportError(f"NIR node {name!r} {' '.join(why.split())}")  # an array in it may have brought line breaks


def _arrays(node: Any) -> dict[str, Array]:
    return {field: np.asarray(value) for field, value in vars(node).items() if isinstance(value, np.ndarray | np.generic)}


def _bounded(name: str, elements: int) -> None:
    if 8 * elements > MAX_BYTES:
        raise _refused(
            name, f"would take {8 * elements:.1e} bytes; at most {MAX_BYTES:.1e} are allowed: smaller inputs, fewer steps"
        )


def _time_step(graph: nir.NIRGraph, dt: float) -> float:
    given = graph.metadata.get("dt", dt)
    if not (isinstance(given, int | float | np.number) and 0 < given < inf):
        raise ExportError(f"dt = {given!r} is no time step: it must be a positive number of seconds")
    return float(given)


def _flat(graph: nir.NIRGraph, dt: float, prefix: str = "") -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Nodes and edges with every nested graph in the place of its node."""
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    ends: dict[str, tuple[str, str]] = {}  # where a node is entered and left
    for key, node in graph.nodes.items():
        name = prefix + key
        inner, ends[key] = {name: node}, (name, name)
        if isinstance(node, nir.NIRGraph):
            if prefix.count(".") >= MAX_DEPTH or node.metadata.get("dt", dt) != dt:
                raise _refused(name, f"is a graph of another dt than {dt}, or lies deeper than {MAX_DEPTH} graphs")
            inner, within = _flat(node, dt, name + ".")
            edges += within
            ways = [[f"{name}.{k}" for k, v in node.nodes.items() if type(v) is kind] for kind in (nir.Input, nir.Output)]
            if any(len(way) != 1 for way in ways):
                raise _refused(name, "is a graph with other than one Input and one Output")
            ends[key] = (ways[0][0], ways[1][0])
        if nodes.keys() & inner.keys():
            raise _refused(name, "has the name of another node")
        nodes |= inner
    for a, b in graph.edges:
        if a not in ends or b not in ends:
            raise ExportError(f"the edge {prefix + a!r} -> {prefix + b!r} has an end that is no node")
        edges.append((ends[a][1], ends[b][0]))
    return nodes, edges


def _wiring(graph: nir.NIRGraph, nodes: dict[str, Any], edges: list[tuple[str, str]]) -> tuple[str, dict[str, list[str]]]:
    """The node that takes the inputs, and for every node those that it reads, in the order of the edges."""
    entries = [name for name, node in graph.nodes.items() if type(node) is nir.Input]
    if len(entries) != 1:
        raise ExportError(f"the graph has {len(entries)} Input nodes: exactly one can be run")
    if len(set(edges)) != len(edges):
        a, b = next(edge for edge in edges if edges.count(edge) > 1)
        raise ExportError(f"the edge {a!r} -> {b!r} is there twice, which NIR does not allow")
    sources: dict[str, list[str]] = {name: [] for name in nodes}
    for a, b in edges:
        sources[b].append(a)
    for name, read in sources.items():
        if bool(read) == (name == entries[0]):
            raise _refused(name, "reads another node, but is the graph's Input" if read else "reads no other node")
    return entries[0], sources


def _delay(name: str, node: Any, dt: float, most: int) -> Array:
    """A delay in whole steps; `most` stands for all that reach beyond the end."""
    steps = np.asarray(node.delay, np.float64) / dt
    if not (np.isfinite(steps).all() and (steps >= 0).all() and np.allclose(steps, np.rint(steps), rtol=1e-6, atol=1e-6)):
        raise _refused(name, f"delays by other than whole steps of {dt} seconds")
    return np.minimum(np.rint(steps), most).astype(np.int64)


def _order(sources: dict[str, list[str]], delayed: set[str]) -> list[str]:
    """Every node after those that it reads; one that is `delayed` reads only the past."""
    try:
        return [*TopologicalSorter({name: [] if name in delayed else read for name, read in sources.items()}).static_order()]
    except CycleError as error:
        raise ExportError(f"a cycle without a Delay of a step or more: {' -> '.join(map(repr, error.args[1]))}") from None


def _shapes(order: list[str], nodes: dict[str, Any], sources: dict[str, list[str]], entry: str, given: Shape) -> dict[str, Shape]:
    """Every node's output `[B, ...]`, found and checked before anything is allocated."""
    shapes: dict[str, Shape] = {}
    reads: dict[str, Shape] = {entry: given}
    for name in order:
        node = nodes[name]
        if name != entry:
            reads[name] = (given[0], *node.delay.shape) if type(node) is nir.Delay else shapes[sources[name][0]]
        shapes[name] = _output_shape(name, node, reads[name])
    for name, read in sources.items():
        for source in read:
            if shapes[source] != reads[name]:
                raise _refused(name, f"reads {list(reads[name][1:])}, but {source!r} gives {list(shapes[source][1:])}")
    return shapes


def _output_shape(name: str, node: Any, shape: Shape) -> Shape:
    """`[B, ...]` -> `[B, ...]`. Raises `ExportError` for a node that is unknown or does not take `shape`."""
    kind, takes = type(node), shape[1:]
    for field, value in _arrays(node).items():
        if value.dtype.kind not in "fiu" or not np.isfinite(value).all():
            raise _refused(name, f"has {field} that are not finite numbers")
        if kind in ELEMENTWISE and value.shape != takes:
            raise _refused(name, f"reads {list(takes)}, but its {field} has the shape {list(value.shape)}")
    if kind in ELEMENTWISE:
        return shape
    if kind in (nir.Affine, nir.Linear):
        *outer, rows, columns = node.weight.shape
        if (*outer, columns) != takes or (kind is nir.Affine and node.bias.shape != (*outer, rows)):
            raise _refused(name, f"reads {list(takes)}, but has weights {list(node.weight.shape)} or a bias that does not fit them")
        return (shape[0], *outer, rows)
    if kind in CONVS + POOLS:
        return _window_shape(name, node, shape)
    if kind not in (nir.Input, nir.Output, nir.Flatten):
        raise _refused(name, f"is of the unknown type {kind.__name__}")
    declared = node.input_type["input"]
    if declared is not None and tuple(declared) != takes:
        error = InputError if kind is nir.Input else ExportError
        raise error(f"NIR node {name!r} reads {list(takes)}, but declares {np.asarray(declared).tolist()}")
    if kind is not nir.Flatten:
        return shape
    first, last = (d + len(takes) * (d < 0) for d in (node.start_dim, node.end_dim))
    if not 0 <= first <= last < len(takes):
        raise _refused(name, f"flattens dimensions {node.start_dim} to {node.end_dim} of {list(takes)}")
    return (shape[0], *takes[:first], prod(takes[first : last + 1]), *takes[last + 1 :])


def _ints(name: str, value: Any, axes: int, least: int) -> Shape:
    array = np.asarray(value)
    if array.dtype.kind not in "iu" or array.shape not in ((), (1,), (axes,)) or not least <= array.min() <= array.max() <= 1 << 20:
        raise _refused(name, f"has {value!r} where {axes} integers from {least} to {1 << 20} are expected")
    return tuple(int(v) for v in np.broadcast_to(array, axes))


def _window_shape(name: str, node: Any, shape: Shape) -> Shape:
    """`[B, C, ...]` -> `[B, C_out, ...]`, which torch finds without computing."""
    axes, x, kernel, weight = 1 if type(node) is nir.Conv1d else 2, torch.empty(shape, device="meta"), (1,), None
    if len(shape) != axes + 2:
        raise _refused(name, f"reads {list(shape[1:])}, but needs channels and {axes} more axes")
    if type(node) in CONVS:
        groups, (cout, cin, *kernel) = _ints(name, node.groups, 1, 1)[0], node.weight.shape
        fits = shape[1] == cin * groups and cout % groups == 0 and node.bias.shape == (cout,) and len(kernel) == axes
        if not fits or (node.input_shape is not None and _ints(name, node.input_shape, axes, 1) != shape[2:]):
            raise _refused(name, f"reads {list(shape[1:])}, which its weights, bias, groups or input_shape do not fit")
        weight = torch.empty(node.weight.shape, device="meta")
    try:
        out = _slide(name, node, x, weight, None)
    except (RuntimeError, ValueError) as error:
        raise _refused(name, f"cannot slide over {list(shape[1:])}: {str(error).splitlines()[0]}") from None
    _bounded(name, shape[0] * shape[1] * prod(out.shape[2:]) * prod(kernel))
    return tuple(out.shape)


def _slide(name: str, node: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """A convolution, or a pool, of `[B, C, ...]`."""
    axes, padding = x.dim() - 2, node.padding
    stride = _ints(name, node.stride, axes, 1)
    if weight is None:
        (height, width), kernel = _ints(name, padding, axes, 0), _ints(name, node.kernel_size, axes, 1)
        _bounded(name, prod(x.shape[:2]) * (x.shape[2] + 2 * height) * (x.shape[3] + 2 * width))
        area = prod(kernel) if type(node) is nir.AvgPool2d else 1
        return F.avg_pool2d(F.pad(x, (width, width, height, height)), kernel, stride, divisor_override=area)
    dilation = _ints(name, node.dilation, axes, 1)
    reach = [d * (k - 1) if str(padding) == "same" else 0 for d, k in zip(dilation, weight.shape[2:], strict=True)]
    if any(reach) and max(stride) > 1:
        raise _refused(name, "pads to the 'same' size with a stride, which has no meaning")
    x = F.pad(x, [pad for r in reversed(reach) for pad in (r // 2, r - r // 2)])  # as torch does, which may warn of it
    pads = _ints(name, 0 if isinstance(padding, str) else padding, axes, 0)
    conv = F.conv1d if axes == 1 else F.conv2d
    return conv(x, weight, bias, stride, pads, dilation, int(node.groups))


class _Membrane:
    """`v[t] = keep v[t-1] + gain x[t] + drive`; with `fire`, a threshold and a reset, the output is spikes instead of `v`."""

    def __init__(self, dtype: Any, keep: Array, gain: Array, drive: Array, fire: tuple[Array, Array] | None = None) -> None:
        self.keep, self.gain, self.drive = (np.asarray(value, dtype) for value in (keep, gain, drive))
        self.v, self.fire = np.zeros((), dtype), fire

    def __call__(self, x: Array) -> Array:
        self.v = self.keep * self.v + (self.gain * x + self.drive)
        if self.fire is None:
            return self.v
        fired = self.v > self.fire[0]
        self.v = np.where(fired, self.fire[1], self.v)
        return fired.astype(x.dtype)


def _euler(name: str, dt: float, tau: Array | None, gain: Array, leak: Array) -> tuple[Array, Array, Array]:
    """`keep`, `gain` and `drive` of a membrane: `1 - a`, `a r`, `a v_leak`, or `1`, `dt r`, `0` for one without a leak."""
    if tau is None:
        return np.ones_like(gain), np.asarray(dt, np.result_type(gain, np.float32)) * gain, np.zeros_like(gain)
    if not (tau >= dt * (1 - 1e-6)).all():
        raise _refused(name, f"has a time constant below the time step, {dt} seconds")
    a = np.minimum(np.asarray(dt, np.result_type(tau, np.float32)) / tau, 1)
    return 1 - a, a * gain, a * leak


def _step(name: str, node: Any, dt: float, dtype: type[np.floating[Any]]) -> Step:
    """What a node does to its input `[B, ...]` of one time step; a neuron remembers its state from call to call."""
    p = {field: value.astype(dtype) for field, value in _arrays(node).items()}
    fire = (p["v_threshold"], p["v_reset"]) if "v_threshold" in p else None
    match node:
        case nir.Input() | nir.Output():
            return lambda x: x
        case nir.Flatten():
            return lambda x: x.reshape(_output_shape(name, node, x.shape))
        case nir.Scale():
            return lambda x: p["scale"] * x
        case nir.Threshold():
            return lambda x: (x > p["threshold"]).astype(dtype)
        case nir.Affine() | nir.Linear():
            return lambda x: (p["weight"] @ x[..., None])[..., 0] + p.get("bias", dtype(0))
        case nir.I() | nir.IF():
            return _Membrane(dtype, *_euler(name, dt, None, node.r, node.r), fire)
        case nir.LI() | nir.LIF():
            return _Membrane(dtype, *_euler(name, dt, node.tau, node.r, node.v_leak), fire)
        case nir.CubaLI() | nir.CubaLIF():
            synapse = _Membrane(dtype, *_euler(name, dt, node.tau_syn, node.w_in, 0 * node.v_leak))
            membrane = _Membrane(dtype, *_euler(name, dt, node.tau_mem, node.r, node.v_leak), fire)
            return lambda x: membrane(synapse(x))
        case _:
            weight, bias = (torch.from_numpy(p[key]) if key in p else None for key in ("weight", "bias"))
            return lambda x: _slide(name, node, torch.from_numpy(x), weight, bias).numpy()
