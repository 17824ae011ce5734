"""A NIR graph made ready to be used: read from a file, checked, flat, in order.

A NIR graph may be nested, cyclic or plainly wrong; a `CheckedGraph` is none of it. Whoever runs,
imports or places a graph starts from it:

    nested      a graph `sub` inside is flattened into nodes `sub.name`; an `Input` or `Output`
                inside passes its value on
    edges       several edges into a node are a sum, in the order of the edges
    cycles      go through a `Delay` of at least one step, which reads the past; to one without, a
                `Delay` of one step is added, so that its neuron reads the spikes of the step
                before, as every simulator does (`export.nir.cycles` says which)
    scalars     a neuron's, Scale's, Threshold's or Delay's parameter of shape () or (1,) holds for
                every element of the input, and one with an axis of 1 where the input is longer,
                for all of that axis
    shapes      are without time and batch; nothing is computed or allocated to find them. Axes of 1
                that a declared shape has before the graph's own, as of a batch, are left out where
                the graph cannot be read with them
    biases      are zero where they are missing
"""

import math
import sys
from collections import deque
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import nir
import numpy as np

from export.nir.cycles import cycles, delay_feedback, in_order, reached, readers_of
from export.nir.nodes import (
    MAX_ELEMENTS,
    NEURONS,
    NODE_KINDS,
    SCALAR,
    SPIKING,
    declared_shape,
    delay_steps,
    nodes_of,
    output_shape,
    prepared,
    refused,
)
from zoo.arrays import Array, Shape
from zoo.errors import ExportError, InputError, first_few
from zoo.records import shown

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
TIMED = nodes_of("neuron", "delay")  # nodes whose output depends on dt


@dataclass(frozen=True)
class ResetBySubtraction:
    """A neuron whose spike takes the threshold off its membrane one step later; NIR says a loop.

    The loop is `membrane -> threshold -> scale -> delay -> membrane`.
    """

    membrane: str
    threshold: str  # its output is the neuron's spikes
    scale: str
    delay: str
    inputs: tuple[str, ...]  # what the neuron reads: the membrane's sources without the loop
    readers: tuple[str, ...]  # which nodes read its spikes, besides the loop


@dataclass(frozen=True)
class CheckedGraph:
    """A flat graph whose nodes fit each other.

    Every node is reached from the only `Input`, or from a `Delay` of known shape. Parameters are
    finite numbers: arrays of the input's shape for the elementwise nodes (read-only views where a
    scalar was given: copy before you write), and for convolutions and pools `stride`, `padding`,
    `dilation` and `kernel_size` are tuples with an integer for each axis, `groups` an integer;
    `padding` may be "same".
    """

    nodes: dict[str, nir.NIRNode]  # each after those that it reads, Delays of a step or more aside
    # What each node reads, in the order of the edges; () for the Input.
    sources: dict[str, tuple[str, ...]]
    shapes: dict[str, Shape]  # each node's output, without time and batch
    dt: float  # seconds a step
    entry: str  # the only Input
    # A node integrates or delays by `dt`, and neither the metadata nor the caller gave it.
    dt_assumed: bool

    def inputs(self, name: str) -> Shape:
        """Return the shape that a node reads; for the Input, that of what it is given."""
        return self.shapes[self.sources[name][0]] if self.sources[name] else self.shapes[name]

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """The nodes that read each node, in order."""
        return {name: tuple(names) for name, names in readers_of(self.sources).items()}

    @cached_property
    def subtractive_resets(self) -> dict[str, ResetBySubtraction]:
        """The neurons that are reset by subtraction, by membrane; see `find_subtractive_resets`."""
        return find_subtractive_resets(self)

    @cached_property
    def resets_by_spikes(self) -> dict[str, ResetBySubtraction]:
        """The same, by the `Threshold` that gives the spikes and so stands for the neuron."""
        return {reset.threshold: reset for reset in self.subtractive_resets.values()}

    def neuron_sources(self, name: str) -> tuple[str, ...]:
        """Return what a node reads; of the spikes of a subtractive reset, what its neuron reads."""
        reset = self.resets_by_spikes.get(name)
        return reset.inputs if reset else self.sources[name]

    def delay_steps(self, name: str) -> Array:
        """Return the delay of each element of a `Delay`, in whole steps, as int64."""
        return delay_steps(name, self.nodes[name], self.dt)


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
    step = _time_step("", graph, dt)
    dt = DEFAULT_DT if step is None else step
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    _flatten("", graph, dt, 0, nodes, edges)
    entry, sources = _wiring(graph, nodes, edges)
    nodes = {name: prepared(name, node) for name, node in nodes.items()}
    assumed = step is None and any(isinstance(node, TIMED) for node in nodes.values())
    delay_feedback(nodes, sources, dt)
    order = in_order(nodes, sources, dt)
    nodes, sources = ({name: part[name] for name in order} for part in (nodes, sources))
    return _with_shapes(CheckedGraph(nodes, sources, {}, dt, entry, assumed), shape)


def find_subtractive_resets(checked: CheckedGraph) -> dict[str, ResetBySubtraction]:
    """Return the neurons that are reset by subtraction, by membrane; NIR says one as a loop.

        M (I or LI) -> Threshold(theta) -> Scale(-theta / gain) -> Delay(one step) -> M

    The gain is what a current of 1 adds to `M` in a step: `dt r`, or `dt r / tau`. The three read
    nothing else, `M` reads more than them, and `M` has only one such loop. What other nodes read as
    the neuron's spikes is the `Threshold`'s output; whether they read `M`, the `Scale` or the
    `Delay` too is in `CheckedGraph.readers`.
    """
    resets: dict[str, ResetBySubtraction] = {}
    for membrane, node in checked.nodes.items():
        kind, sources = NODE_KINDS[type(node)], checked.sources[membrane]
        if kind.spikes or len(kind.integrators) != 1 or len(sources) < 2:
            continue
        loops = [loop for delay in sources if (loop := _loop(checked, membrane, delay))]
        if len(loops) == 1:
            resets[membrane] = loops[0]
    return resets


def find_recurrent_nodes(checked: CheckedGraph) -> frozenset[str]:
    """Return the nodes of recurrent connections.

    They lie on a cycle between the neuron whose past spikes are read and the next neuron. A loop
    that resets a neuron by subtraction is no such connection.
    """
    inside = {
        name for reset in checked.subtractive_resets.values() for name in (reset.scale, reset.delay)
    }
    recurrent: set[str] = set()
    for cycle in cycles(checked.sources):
        between = {
            name for name in cycle - inside if type(checked.nodes[name]) not in (*NEURONS, *SPIKING)
        }
        delays = [
            name
            for name in between
            if type(checked.nodes[name]) is nir.Delay and checked.delay_steps(name).min() > 0
        ]
        for following in (checked.sources, checked.readers):
            recurrent |= reached(delays, following, between)
    return frozenset(recurrent)


def _loop(checked: CheckedGraph, membrane: str, delay: str) -> ResetBySubtraction | None:
    """Return the loop through `delay` that subtracts the threshold of `membrane`, if it is one."""
    names = [delay]
    for kind in (nir.Delay, nir.Scale, nir.Threshold):
        if type(checked.nodes[names[-1]]) is not kind or len(checked.sources[names[-1]]) != 1:
            return None
        names.append(checked.sources[names[-1]][0])
    _, scale, threshold, read = names
    if read != membrane or (checked.delay_steps(delay) != 1).any():
        return None
    subtracted = _gain(checked, membrane) * checked.nodes[scale].scale.astype(np.float64)
    if not np.allclose(subtracted, -checked.nodes[threshold].threshold, rtol=1e-6, atol=0):
        return None
    return ResetBySubtraction(
        membrane,
        threshold,
        scale,
        delay,
        inputs=tuple(source for source in checked.sources[membrane] if source != delay),
        readers=tuple(reader for reader in checked.readers[threshold] if reader != scale),
    )


def _gain(checked: CheckedGraph, membrane: str) -> Array:
    """Return what a current of 1 adds to a neuron of one state in one step."""
    node = checked.nodes[membrane]
    (state,) = NODE_KINDS[type(node)].integrators
    rate: Any = checked.dt
    if state.tau:
        rate = checked.dt / np.asarray(getattr(node, state.tau), np.float64)
    return np.asarray(rate * getattr(node, state.gain), np.float64)


def _time_step(name: str, graph: nir.NIRGraph, dt: float | None) -> float | None:
    """Return the time step of a graph: what its metadata say, or else `dt`.

    Raises `InputError` where they say another than `dt`.
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
    step = dt if metadata.get("dt") is None else metadata["dt"]
    # The tolerance is for a file that has it in float32.
    if dt is not None and step is not None and not math.isclose(step, dt, rel_tol=1e-6):
        which = f"graph {shown(name)}" if name else "the graph"
        raise InputError(
            f"dt = {float(dt):g} contradicts {which}, whose metadata say dt = {float(step):g}: "
            "leave dt out"
        )
    return None if step is None else float(step)


def _flatten(
    prefix: str,
    graph: nir.NIRGraph,
    dt: float,
    depth: int,
    nodes: dict[str, Any],
    edges: list[tuple[str, str]],
) -> None:
    """Add the nodes and edges of `graph`, every nested graph in the place of its node."""
    ends: dict[str, tuple[str, str]] = {}  # where a node is entered and left
    inner, wires = (getattr(graph, part, None) for part in ("nodes", "edges"))
    if not isinstance(inner, Mapping) or not all(isinstance(key, str) for key in inner):
        raise ExportError(f"the nodes of graph {shown(prefix)} must be a dict with names as keys")
    if not isinstance(wires, list | tuple | set):
        raise ExportError(
            f"the edges of graph {shown(prefix)} are {shown(wires)}: they must be a list of pairs "
            "of names"
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
        a, b = _checked_edge(edge)
        if a not in ends or b not in ends:
            raise ExportError(
                f"the edge {shown(prefix + a)} -> {shown(prefix + b)} has an end that is no node"
            )
        edges.append((ends[a][1], ends[b][0]))


def _checked_edge(edge: Any) -> tuple[str, str]:
    """Return an edge, or raise `ExportError` if it is no pair of names."""
    pair = isinstance(edge, list | tuple) and len(edge) == 2
    if not pair or not all(isinstance(end, str) for end in edge):
        raise ExportError(f"the edge {shown(edge)} is no pair of names")
    return edge[0], edge[1]


def _ends(name: str, graph: nir.NIRGraph) -> tuple[str, str]:
    """Return the `Input` and the `Output` of a nested graph."""
    inner = getattr(graph, "nodes", None)
    inner = inner if isinstance(inner, Mapping) else {}
    entries, exits = (
        [key for key, node in inner.items() if type(node) is kind]
        for kind in (nir.Input, nir.Output)
    )
    if len(entries) != 1 or len(exits) != 1:
        raise refused(name, "is a graph with other than one Input and one Output")
    return f"{name}.{entries[0]}", f"{name}.{exits[0]}"


def _wiring(
    graph: nir.NIRGraph, nodes: dict[str, Any], edges: list[tuple[str, str]]
) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Return the node that takes the inputs, and every node's sources in order of the edges."""
    entries = [name for name, node in graph.nodes.items() if type(node) is nir.Input]
    if len(entries) != 1:
        named = f" ({first_few([*map(shown, entries)], 4)})" if entries else ""
        raise ExportError(
            f"the graph has {len(entries)} Input nodes{named}: exactly one can be used; let one "
            "Input feed all its readers"
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
            is_entry = "reads another node, but is the graph's Input"
            raise refused(name, is_entry if read else "reads no other node")
    return entries[0], {name: tuple(read) for name, read in sources.items()}


def _with_shapes(checked: CheckedGraph, shape: Shape | None) -> CheckedGraph:
    """Return the graph with all shapes, and with parameters of the shape of the input."""
    declared = declared_shape(checked.entry, checked.nodes[checked.entry])
    if shape is None:
        if declared is None:
            raise refused(checked.entry, "declares no shape: give it one, as in shape=(1, 28, 28)")
        return _with_declared_shapes(checked, declared)
    declared = shape if declared is None else declared
    ahead = len(declared) - len(shape)
    if declared[ahead:] != shape or ahead < 0:
        raise InputError(
            f"NIR node {shown(checked.entry)} reads {list(shape)}, but declares "
            f"{shown(list(declared))}: only first axes, of batch or time, may be left out"
        )
    return _find_shapes(checked, shape, declared[:ahead])


def _with_declared_shapes(checked: CheckedGraph, declared: Shape) -> CheckedGraph:
    """Return the graph with the shape that its `Input` declares, or with that less first ones.

    Raises `ExportError` that says which axes may be those of batch or time, where the graph could
    be read without them.
    """
    first: ExportError | None = None
    for skipped in range(max(1, min(3, len(declared)))):
        extra, shape = declared[:skipped], declared[skipped:]
        try:
            shaped = _find_shapes(checked, shape, extra)
        except ExportError as error:
            first = first or error
            continue
        if set(extra) <= {1}:
            return shaped
        axes = "axis is" if skipped == 1 else f"{skipped} axes are"
        raise ExportError(
            f"{first}; NIR node {shown(checked.entry)} declares {shown(list(declared))}: if the "
            f"first {axes} of batch or time, give shape={shape}"
        )
    assert first is not None
    raise first


def _find_shapes(checked: CheckedGraph, shape: Shape, extra: Shape) -> CheckedGraph:
    """Return the graph with shapes, found from the Input and the delays of known shape onwards.

    Parameters get the shape of the input. The Input reads `shape`, and declares the axes `extra`
    before it.
    """
    nodes = {name: copy(node) for name, node in checked.nodes.items()}
    checked = replace(checked, nodes=nodes, shapes={})
    reads = {checked.entry: shape} | {
        name: node.delay.shape
        for name, node in nodes.items()
        if type(node) is nir.Delay and node.delay.shape not in SCALAR
    }
    waiting = deque(reads)
    while waiting:
        name = waiting.popleft()
        checked.shapes[name] = gives = output_shape(name, nodes[name], reads[name], extra)
        if math.prod(gives) > MAX_ELEMENTS:
            raise refused(
                name,
                f"would take {math.prod(gives):.1e} numbers; at most {MAX_ELEMENTS:.1e} are "
                "allowed",
            )
        for reader in checked.readers[name]:
            if reader not in reads:
                reads[reader] = gives
                waiting.append(reader)
    for name in checked.sources:
        if name not in reads:
            raise refused(name, "is not reached from the graph's Input")
    for name, read in checked.sources.items():
        for source in read:
            if checked.shapes[source] != reads[name]:
                raise refused(
                    name,
                    f"reads {list(reads[name])}, but {shown(source)} gives "
                    f"{list(checked.shapes[source])}",
                )
    return checked
