"""A NIR graph made ready to be used: read from a file, checked, flat, in order.

A NIR graph may be nested, cyclic or plainly wrong; a `CheckedGraph` is none of it. Whoever runs,
imports or places a graph starts from it:

    nested      a graph `sub` inside is flattened into nodes `sub.name`; an `Input` or `Output` inside passes its value on
    edges       several edges into a node are a sum, in the order of the edges
    cycles      through a `Delay` of at least one step, which reads the past; to one without, a `Delay` of one step is added, so
                that its neuron reads the spikes of the step before, as every simulator does (`export.nir.cycles` says which)
    scalars     a neuron's, Scale's, Threshold's or Delay's parameter of shape () or (1,) holds for every element of the input, and
                one with an axis of 1 where the input is longer, for all of that axis
    shapes      without time and batch; nothing is computed or allocated to find them. Axes of 1 that a declared shape has before
                the graph's own, as of a batch, are left out where the graph cannot be read with them
    biases      one that is missing is zero
"""

import math
import sys
from collections import deque
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import nir
import numpy as np

from export.nir.cycles import cycles, delay_feedback, in_order, reached
from export.nir.nodes import (
    MAX_ELEMENTS,
    NEURONS,
    SCALAR,
    Array,
    Shape,
    declared_shape,
    delay_steps,
    output_shape,
    prepared,
    refused,
    shown,
)  # fmt: skip
from zoo.errors import ExportError, InputError

__all__ = [
    "CheckedGraph",
    "ResetBySubtraction",
    "check_graph",
    "find_recurrent_nodes",
    "find_subtractive_resets",
]

DEFAULT_DT = 1e-4  # seconds a step, where nobody says it; what snnTorch and SpikingJelly assume
MAX_DEPTH = 32  # of graphs in graphs
MAX_NODES = 100_000
TIMED = (*NEURONS, nir.Delay)  # what dt decides something of


@dataclass(frozen=True)
class CheckedGraph:
    """A flat graph whose nodes fit each other. Every node is reached from the only `Input`, or from
    a `Delay` of known shape.

    Parameters are finite numbers: arrays of the input's shape for the elementwise nodes (read-only
    views where a scalar was given: copy before you write), and for convolutions and pools `stride`,
    `padding`, `dilation` and `kernel_size` are tuples with an integer for each axis, `groups` an
    integer; `padding` may be "same".
    """

    nodes: dict[str, nir.NIRNode]  # each after those that it reads, Delays of a step or more aside
    # what each node reads, in the order of the edges; () for the Input
    sources: dict[str, tuple[str, ...]]
    shapes: dict[str, Shape]  # each node's output, without time and batch
    dt: float  # seconds a step
    entry: str  # the only Input
    # a node integrates or delays by `dt`, and neither the metadata nor the caller gave it
    dt_assumed: bool

    def inputs(self, name: str) -> Shape:
        """The shape that a node reads; for the Input, that of what it is given."""
        return self.shapes[self.sources[name][0]] if self.sources[name] else self.shapes[name]

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """Who reads each node, in order."""
        readers: dict[str, list[str]] = {name: [] for name in self.nodes}
        for name, read in self.sources.items():
            for source in read:
                readers[source].append(name)
        return {name: tuple(names) for name, names in readers.items()}

    def delay_steps(self, name: str) -> Array:
        """The delay of each element of a `Delay`, in whole steps, as int64."""
        return delay_steps(name, self.nodes[name], self.dt)


@dataclass(frozen=True)
class ResetBySubtraction:
    """The nodes that subtract a membrane's threshold from it one step after a spike."""

    threshold: str  # its output is the neuron's spikes
    scale: str
    delay: str


def check_graph(
    graph: nir.NIRGraph, *, dt: float | None = None, shape: Shape | None = None
) -> CheckedGraph:
    """Check, flatten and order a graph.

    `dt`, in seconds, is by default `graph.metadata["dt"]`, and `DEFAULT_DT` where that is missing.
    A `dt` that contradicts the metadata raises `InputError`.

    `shape` is that of the values to be given, without time and batch. An `Input` that declares no
    shape takes it; one that declares it behind further axes, of batch or time, loses these; any
    other raises `InputError`. Raises `ExportError` of one line for a graph that is not sound.
    """
    if not isinstance(graph, nir.NIRGraph):
        raise ExportError(f"a nir.NIRGraph is needed, but {shown(graph)} was given")
    given = _time_step("", graph, dt)
    dt = DEFAULT_DT if given is None else given
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    _flatten("", graph, dt, 0, nodes, edges)
    entry, sources = _wiring(graph, nodes, edges)
    nodes = {name: prepared(name, node) for name, node in nodes.items()}
    assumed = given is None and any(isinstance(node, TIMED) for node in nodes.values())
    delay_feedback(nodes, sources, dt)
    order = in_order(nodes, sources, dt)
    ready = CheckedGraph(
        {name: nodes[name] for name in order},
        {name: sources[name] for name in order},
        {},
        dt,
        entry,
        assumed,
    )
    return _shaped(ready, shape)


def find_subtractive_resets(checked: CheckedGraph) -> dict[str, ResetBySubtraction]:
    """The membranes that are reset by subtraction, which NIR says as a loop, and the nodes of that
    loop.

        M (I or LI) -> Threshold(theta) -> Scale(-theta / gain) -> Delay(one step) -> M

    The gain is what a current of 1 adds to `M` in a step: `dt r`, or `dt r / tau`. The three read
    nothing else, `M` reads more than them, and `M` has only one such loop. What other nodes read as
    the neuron's spikes is the `Threshold`'s output; whether they read `M`, the `Scale` or the
    `Delay` too is in `check_graph.readers`.
    """
    found: dict[str, ResetBySubtraction] = {}
    for membrane, node in checked.nodes.items():
        if type(node) not in (nir.I, nir.LI) or len(checked.sources[membrane]) < 2:
            continue
        loops = [
            loop for delay in checked.sources[membrane] if (loop := _loop(checked, membrane, delay))
        ]
        if len(loops) == 1:
            found[membrane] = loops[0]
    return found


def find_recurrent_nodes(checked: CheckedGraph) -> frozenset[str]:
    """The nodes of recurrent connections: what lies on a cycle between the neuron whose past spikes
    are read and the next neuron.

    A loop that resets a neuron by subtraction is no such connection.
    """
    inside = {
        name
        for loop in find_subtractive_resets(checked).values()
        for name in (loop.scale, loop.delay)
    }
    found: set[str] = set()
    for cycle in cycles(checked.sources):
        between = {
            name
            for name in cycle - inside
            if type(checked.nodes[name]) not in (*NEURONS, nir.Threshold)
        }
        delays = [
            name
            for name in between
            if type(checked.nodes[name]) is nir.Delay and checked.delay_steps(name).min() > 0
        ]
        found |= reached(delays, checked.sources, between) | reached(
            delays, checked.readers, between
        )
    return frozenset(found)


def _loop(checked: CheckedGraph, membrane: str, delay: str) -> ResetBySubtraction | None:
    """The loop through `delay` that subtracts the threshold of `membrane`, if it is one."""
    names = [delay]
    for kind in (nir.Delay, nir.Scale, nir.Threshold):
        if type(checked.nodes[names[-1]]) is not kind or len(checked.sources[names[-1]]) != 1:
            return None
        names.append(checked.sources[names[-1]][0])
    _, scale, threshold, read = names
    if read != membrane or (checked.delay_steps(delay) != 1).any():
        return None
    taken = _gain(checked, membrane) * checked.nodes[scale].scale.astype(np.float64)
    if not np.allclose(taken, -checked.nodes[threshold].threshold, rtol=1e-6, atol=0):
        return None
    return ResetBySubtraction(threshold, scale, delay)


def _gain(checked: CheckedGraph, membrane: str) -> Array:
    """What a current of 1 adds to an `I` or `LI` in one step."""
    node = checked.nodes[membrane]
    rate = checked.dt if type(node) is nir.I else checked.dt / np.asarray(node.tau, np.float64)
    return np.asarray(rate * node.r, np.float64)


def _time_step(name: str, graph: nir.NIRGraph, dt: float | None) -> float | None:
    """The time step of a graph: what its metadata say, or else `dt`. Raises `InputError` where they
    say another than `dt`.
    """
    metadata = getattr(graph, "metadata", None)
    if not isinstance(metadata, dict):
        raise ExportError(
            f"the metadata of graph {shown(name)} are {shown(metadata)}: they must be a dict"
        )
    for step in (metadata.get("dt"), dt):
        if step is not None and not (
            isinstance(step, int | float | np.integer | np.floating)
            and 0 < step < sys.float_info.max
        ):
            raise ExportError(
                f"dt = {shown(step)} is no time step: it must be a positive number of seconds"
            )
    said = dt if metadata.get("dt") is None else metadata["dt"]
    # of a float32, perhaps
    if dt is not None and said is not None and not math.isclose(said, dt, rel_tol=1e-6):
        which = f"graph {shown(name)}" if name else "the graph"
        raise InputError(
            f"dt = {float(dt):g} contradicts {which}, whose metadata say dt = {float(said):g}: leave dt out"
        )
    return None if said is None else float(said)


def _flatten(
    prefix: str,
    graph: nir.NIRGraph,
    dt: float,
    depth: int,
    nodes: dict[str, Any],
    edges: list[tuple[str, str]],
) -> None:
    """Add the nodes and edges of `graph` to `nodes` and `edges`, every nested graph in the place of
    its node.
    """
    ends: dict[str, tuple[str, str]] = {}  # where a node is entered and left
    inner, wires = (getattr(graph, part, None) for part in ("nodes", "edges"))
    if not isinstance(inner, Mapping) or not all(isinstance(key, str) for key in inner):
        raise ExportError(f"the nodes of graph {shown(prefix)} must be a dict with names as keys")
    if not isinstance(wires, list | tuple | set):
        raise ExportError(
            f"the edges of graph {shown(prefix)} are {shown(wires)}: they must be a list of pairs of names"
        )
    for key, node in inner.items():
        name = prefix + key
        ends[key] = (name, name)
        if isinstance(node, nir.NIRGraph):
            ends[key] = _ends(name, node)
            if depth >= MAX_DEPTH or _time_step(name, node, None) not in (None, dt):
                raise refused(
                    name,
                    f"is a graph of another dt than {dt}, or lies deeper than {MAX_DEPTH} graphs",
                )
            _flatten(name + ".", node, dt, depth + 1, nodes, edges)
        elif name in nodes:
            raise refused(name, "has the name of another node")
        else:
            nodes[name] = node
        if len(nodes) > MAX_NODES:
            raise ExportError(f"the graph has more than {MAX_NODES} nodes: split it")
    for edge in wires:
        if not (
            isinstance(edge, list | tuple)
            and len(edge) == 2
            and all(isinstance(end, str) for end in edge)
        ):
            raise ExportError(f"the edge {shown(edge)} is no pair of names")
        a, b = edge
        if a not in ends or b not in ends:
            raise ExportError(
                f"the edge {shown(prefix + a)} -> {shown(prefix + b)} has an end that is no node"
            )
        edges.append((ends[a][1], ends[b][0]))


def _ends(name: str, graph: nir.NIRGraph) -> tuple[str, str]:
    """The `Input` and the `Output` of a nested graph."""
    inner = getattr(graph, "nodes", None)
    inner = inner if isinstance(inner, Mapping) else {}
    ways = [
        [key for key, node in inner.items() if type(node) is kind]
        for kind in (nir.Input, nir.Output)
    ]
    if any(len(way) != 1 for way in ways):
        raise refused(name, "is a graph with other than one Input and one Output")
    return f"{name}.{ways[0][0]}", f"{name}.{ways[1][0]}"


def _wiring(
    graph: nir.NIRGraph, nodes: dict[str, Any], edges: list[tuple[str, str]]
) -> tuple[str, dict[str, tuple[str, ...]]]:
    """The node that takes the inputs, and for every node those that it reads, in the order of the
    edges.
    """
    entries = [name for name, node in graph.nodes.items() if type(node) is nir.Input]
    if len(entries) != 1:
        named = (
            f" ({', '.join(map(shown, entries[:4]))}{', ...' if len(entries) > 4 else ''})"
            if entries
            else ""
        )
        raise ExportError(
            f"the graph has {len(entries)} Input nodes{named}: exactly one can be used; let one Input feed all its readers"
        )
    sources: dict[str, dict[str, None]] = {name: {} for name in nodes}
    for a, b in edges:
        if a in sources[b]:
            raise ExportError(
                f"the edge {shown(a)} -> {shown(b)} is there twice, which NIR does not allow"
            )
        sources[b][a] = None
    for name, read in sources.items():
        if bool(read) == (name == entries[0]):
            raise refused(
                name,
                "reads another node, but is the graph's Input" if read else "reads no other node",
            )
    return entries[0], {name: tuple(read) for name, read in sources.items()}


def _shaped(checked: CheckedGraph, shape: Shape | None) -> CheckedGraph:
    """`check_graph` with all shapes, and with parameters of the shape of the input."""
    declared = declared_shape(checked.entry, checked.nodes[checked.entry])
    if shape is None:
        if declared is None:
            raise refused(checked.entry, "declares no shape: give it one, as in shape=(1, 28, 28)")
        return _read_as_declared(checked, declared)
    declared = shape if declared is None else declared
    if declared[len(declared) - len(shape) :] != shape or len(declared) < len(shape):
        name, wrong = shown(checked.entry), shown(list(declared))
        raise InputError(
            f"NIR node {name} reads {list(shape)}, but declares {wrong}: only first axes, of batch or time, may be left out"
        )
    return _find_shapes(checked, shape, declared[: len(declared) - len(shape)])


def _read_as_declared(checked: CheckedGraph, declared: Shape) -> CheckedGraph:
    """`check_graph` with the shape that its `Input` declares, or else with that without first axes
    of 1.

    Raises `ExportError` that says which axes may be those of batch or time, where the graph could
    be read without them.
    """
    first: ExportError | None = None
    for skipped in range(max(1, min(3, len(declared)))):
        extra, shape = declared[:skipped], declared[skipped:]
        try:
            found = _find_shapes(checked, shape, extra)
        except ExportError as error:
            first = first or error
            continue
        if set(extra) <= {1}:
            return found
        axes = "axis is" if skipped == 1 else f"{skipped} axes are"
        raise ExportError(
            f"{first}; NIR node {shown(checked.entry)} declares {shown(list(declared))}: if the first {axes} of batch or time, "
            f"give shape={shape}"
        )
    assert first is not None
    raise first


def _find_shapes(checked: CheckedGraph, given: Shape, extra: Shape) -> CheckedGraph:
    """`check_graph` with shapes, from the Input and the delays of known shape onwards, and with
    parameters of the input's shape.

    `extra` are the axes that the Input declares before those that are `given`.
    """
    checked = CheckedGraph(
        {name: copy(node) for name, node in checked.nodes.items()},
        checked.sources,
        {},
        checked.dt,
        checked.entry,
        checked.dt_assumed,
    )
    delays = {
        name: node.delay.shape for name, node in checked.nodes.items() if type(node) is nir.Delay
    }
    reads = {checked.entry: given} | {
        name: shape for name, shape in delays.items() if shape not in SCALAR
    }
    waiting = deque(reads)
    while waiting:
        name = waiting.popleft()
        checked.shapes[name] = shape = output_shape(name, checked.nodes[name], reads[name], extra)
        if math.prod(shape) > MAX_ELEMENTS:
            raise refused(
                name,
                f"would take {math.prod(shape):.1e} numbers; at most {MAX_ELEMENTS:.1e} are allowed",
            )
        for reader in checked.readers[name]:
            if reader not in reads:
                reads[reader] = shape
                waiting.append(reader)
    for name, read in checked.sources.items():
        if name not in reads:
            raise refused(name, "is not reached from the graph's Input")
        for source in read:
            if checked.shapes[source] != reads[name]:
                raise refused(
                    name,
                    f"reads {list(reads[name])}, but {shown(source)} gives {list(checked.shapes[source])}",
                )
    return checked
