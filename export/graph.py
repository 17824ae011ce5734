"""A NIR graph made ready to be used: read from a file, checked, flat, in order.

A NIR graph may be nested, cyclic or plainly wrong; a `Flow` is none of it. Whoever runs, imports or places a graph starts from it:

    nested      a graph `sub` inside is flattened into nodes `sub.name`; an `Input` or `Output` inside passes its value on
    edges       several edges into a node are a sum, in the order of the edges
    cycles      through a `Delay` of at least one step, which reads the past; to one without, a `Delay` of one step is added, so
                that its neuron reads the spikes of the step before, as every simulator does (`_delay_feedback` says where)
    scalars     a neuron's, Scale's, Threshold's or Delay's parameter of shape () or (1,) holds for every element of the input, and
                one with an axis of 1 where the input is longer, for all of that axis
    shapes      without time and batch; nothing is computed or allocated to find them. Axes of 1 that a declared shape has before
                the graph's own, as of a batch, are left out where the graph cannot be read with them
    biases      one that is missing is zero
"""

import math
import reprlib
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

import nir
import numpy as np

from export.read import read_graph
from zoo.errors import ExportError, InputError

__all__ = ["Flow", "Subtract", "cycles", "flow", "read_graph", "recurrent", "subtracting"]

MAX_DEPTH = 32  # of graphs in graphs
MAX_NODES = 100_000
MAX_AXES = 32
MAX_ELEMENTS = 1 << 31  # of one value
MAX_WINDOW = 1 << 20  # of a kernel, stride, padding or dilation
Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int, ...]

NEURONS: dict[type, tuple[str, ...]] = {
    nir.I: ("r",),
    nir.IF: ("r", "v_threshold", "v_reset"),
    nir.LI: ("tau", "r", "v_leak"),
    nir.LIF: ("tau", "r", "v_leak", "v_threshold", "v_reset"),
    nir.CubaLI: ("tau_syn", "tau_mem", "r", "v_leak", "w_in"),
    nir.CubaLIF: ("tau_syn", "tau_mem", "r", "v_leak", "v_threshold", "v_reset", "w_in"),
}
# Every parameter has the shape of the input.
ELEMENTWISE = NEURONS | {nir.Scale: ("scale",), nir.Threshold: ("threshold",), nir.Delay: ("delay",)}
WEIGHTS: dict[type, tuple[str, ...]] = dict.fromkeys((nir.Affine, nir.Conv1d, nir.Conv2d), ("weight", "bias"))
PARAMETERS = ELEMENTWISE | WEIGHTS | {nir.Linear: ("weight",)}
CONVS, POOLS = (nir.Conv1d, nir.Conv2d), (nir.SumPool2d, nir.AvgPool2d)
SCALAR: tuple[Shape, ...] = ((), (1,))  # one number for all elements of the input
VIRTUAL = (nir.Input, nir.Output, nir.Flatten)
SPIKING = (nir.IF, nir.LIF, nir.CubaLIF, nir.Threshold)

_brief = reprlib.Repr()  # a message stays short, whatever it is about
_brief.maxstring = _brief.maxother = 120


@dataclass(frozen=True)
class Flow:
    """A flat graph whose nodes fit each other. Every node is reached from the only `Input`, or from a `Delay` of known shape.

    Parameters are finite numbers: arrays of the input's shape for the elementwise nodes (read-only views where a scalar was
    given: copy before you write), and for convolutions and pools `stride`, `padding`, `dilation` and `kernel_size` are tuples with
    an integer for each axis, `groups` an integer; `padding` may be "same".
    """

    nodes: dict[str, nir.NIRNode]  # each after those that it reads, Delays of a step or more aside
    sources: dict[str, tuple[str, ...]]  # what each node reads, in the order of the edges; () for the Input
    shapes: dict[str, Shape]  # each node's output, without time and batch
    dt: float  # seconds a step
    entry: str  # the only Input

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
        return _delay_steps(name, self.nodes[name], self.dt)


@dataclass(frozen=True)
class Subtract:
    """The nodes that subtract a membrane's threshold from it one step after a spike."""

    threshold: str  # its output is the neuron's spikes
    scale: str
    delay: str


def flow(graph: nir.NIRGraph, *, dt: float = 1e-4, shape: Shape | None = None) -> Flow:
    """Check, flatten and order a graph; `graph.metadata["dt"]` overrules `dt`, in seconds.

    `shape` is that of the values to be given, without time and batch. An `Input` that declares no shape takes it; one that
    declares it behind further axes, of batch or time, loses these; any other raises `InputError`. Raises `ExportError` of one line
    for a graph that is not sound.
    """
    if not isinstance(graph, nir.NIRGraph):
        raise ExportError(f"a nir.NIRGraph is needed, but {_shown(graph)} was given")
    dt = _time_step("", graph, dt)
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    _flatten("", graph, dt, 0, nodes, edges)
    entry, sources = _wiring(graph, nodes, edges)
    nodes = {name: _prepared(name, node) for name, node in nodes.items()}
    _delay_feedback(nodes, sources, dt)
    order = _order(nodes, sources, dt)
    return _shaped(Flow({name: nodes[name] for name in order}, {name: sources[name] for name in order}, {}, dt, entry), shape)


def subtracting(flow: Flow) -> dict[str, Subtract]:
    """The membranes that are reset by subtraction, which NIR says as a loop, and the nodes of that loop.

        M (I or LI) -> Threshold(theta) -> Scale(-theta / gain) -> Delay(one step) -> M

    The gain is what a current of 1 adds to `M` in a step: `dt r`, or `dt r / tau`.
    The three read nothing else, `M` reads more than them, and `M` has only one such loop. What other nodes read as the neuron's
    spikes is the `Threshold`'s output; whether they read `M`, the `Scale` or the `Delay` too is in `flow.readers`.
    """
    found: dict[str, Subtract] = {}
    for membrane, node in flow.nodes.items():
        if type(node) not in (nir.I, nir.LI) or len(flow.sources[membrane]) < 2:
            continue
        loops = [loop for delay in flow.sources[membrane] if (loop := _loop(flow, membrane, delay))]
        if len(loops) == 1:
            found[membrane] = loops[0]
    return found


def recurrent(flow: Flow) -> frozenset[str]:
    """The nodes of recurrent connections: what lies on a cycle between the neuron whose past spikes are read and the next neuron.

    A loop that resets a neuron by subtraction is no such connection.
    """
    inside = {name for loop in subtracting(flow).values() for name in (loop.scale, loop.delay)}
    found: set[str] = set()
    for cycle in cycles(flow.sources):
        between = {name for name in cycle - inside if type(flow.nodes[name]) not in (*NEURONS, nir.Threshold)}
        delays = [name for name in between if type(flow.nodes[name]) is nir.Delay and flow.delay_steps(name).min() > 0]
        found |= _reached(delays, flow.sources, between) | _reached(delays, flow.readers, between)
    return frozenset(found)


def _loop(flow: Flow, membrane: str, delay: str) -> Subtract | None:
    """The loop through `delay` that subtracts the threshold of `membrane`, if it is one."""
    names = [delay]
    for kind in (nir.Delay, nir.Scale, nir.Threshold):
        if type(flow.nodes[names[-1]]) is not kind or len(flow.sources[names[-1]]) != 1:
            return None
        names.append(flow.sources[names[-1]][0])
    _, scale, threshold, read = names
    if read != membrane or (flow.delay_steps(delay) != 1).any():
        return None
    taken = _gain(flow, membrane) * flow.nodes[scale].scale.astype(np.float64)
    if not np.allclose(taken, -flow.nodes[threshold].threshold, rtol=1e-6, atol=0):
        return None
    return Subtract(threshold, scale, delay)


def _gain(flow: Flow, membrane: str) -> Array:
    """What a current of 1 adds to an `I` or `LI` in one step."""
    node = flow.nodes[membrane]
    rate = flow.dt if type(node) is nir.I else flow.dt / np.asarray(node.tau, np.float64)
    return np.asarray(rate * node.r, np.float64)


def _shown(value: object) -> str:
    return " ".join(_brief.repr(value).split())  # an array may have brought line breaks


def _refused(name: str, why: str) -> ExportError:
    return ExportError(f"NIR node {_shown(name)} {why}")


def _time_step(name: str, graph: nir.NIRGraph, dt: float) -> float:
    metadata = getattr(graph, "metadata", None)
    if not isinstance(metadata, dict):
        raise ExportError(f"the metadata of graph {_shown(name)} are {_shown(metadata)}: they must be a dict")
    given = metadata.get("dt", dt)
    if not (isinstance(given, int | float | np.integer | np.floating) and 0 < given < sys.float_info.max):
        raise ExportError(f"dt = {_shown(given)} is no time step: it must be a positive number of seconds")
    return float(given)


def _flatten(prefix: str, graph: nir.NIRGraph, dt: float, depth: int, nodes: dict[str, Any], edges: list[tuple[str, str]]) -> None:
    """Add the nodes and edges of `graph` to `nodes` and `edges`, every nested graph in the place of its node."""
    ends: dict[str, tuple[str, str]] = {}  # where a node is entered and left
    inner, wires = (getattr(graph, part, None) for part in ("nodes", "edges"))
    if not isinstance(inner, Mapping) or not all(isinstance(key, str) for key in inner):
        raise ExportError(f"the nodes of graph {_shown(prefix)} must be a dict with names as keys")
    if not isinstance(wires, list | tuple | set):
        raise ExportError(f"the edges of graph {_shown(prefix)} are {_shown(wires)}: they must be a list of pairs of names")
    for key, node in inner.items():
        name = prefix + key
        ends[key] = (name, name)
        if isinstance(node, nir.NIRGraph):
            ends[key] = _ends(name, node)
            if depth >= MAX_DEPTH or _time_step(name, node, dt) != dt:
                raise _refused(name, f"is a graph of another dt than {dt}, or lies deeper than {MAX_DEPTH} graphs")
            _flatten(name + ".", node, dt, depth + 1, nodes, edges)
        elif name in nodes:
            raise _refused(name, "has the name of another node")
        else:
            nodes[name] = node
        if len(nodes) > MAX_NODES:
            raise ExportError(f"the graph has more than {MAX_NODES} nodes: split it")
    for edge in wires:
        if not (isinstance(edge, list | tuple) and len(edge) == 2 and all(isinstance(end, str) for end in edge)):
            raise ExportError(f"the edge {_shown(edge)} is no pair of names")
        a, b = edge
        if a not in ends or b not in ends:
            raise ExportError(f"the edge {_shown(prefix + a)} -> {_shown(prefix + b)} has an end that is no node")
        edges.append((ends[a][1], ends[b][0]))


def _ends(name: str, graph: nir.NIRGraph) -> tuple[str, str]:
    """The `Input` and the `Output` of a nested graph."""
    inner = getattr(graph, "nodes", None)
    inner = inner if isinstance(inner, Mapping) else {}
    ways = [[key for key, node in inner.items() if type(node) is kind] for kind in (nir.Input, nir.Output)]
    if any(len(way) != 1 for way in ways):
        raise _refused(name, "is a graph with other than one Input and one Output")
    return f"{name}.{ways[0][0]}", f"{name}.{ways[1][0]}"


def _wiring(graph: nir.NIRGraph, nodes: dict[str, Any], edges: list[tuple[str, str]]) -> tuple[str, dict[str, tuple[str, ...]]]:
    """The node that takes the inputs, and for every node those that it reads, in the order of the edges."""
    entries = [name for name, node in graph.nodes.items() if type(node) is nir.Input]
    if len(entries) != 1:
        named = f" ({', '.join(map(_shown, entries[:4]))}{', ...' if len(entries) > 4 else ''})" if entries else ""
        raise ExportError(
            f"the graph has {len(entries)} Input nodes{named}: exactly one can be used; let one Input feed all its readers"
        )
    sources: dict[str, dict[str, None]] = {name: {} for name in nodes}
    for a, b in edges:
        if a in sources[b]:
            raise ExportError(f"the edge {_shown(a)} -> {_shown(b)} is there twice, which NIR does not allow")
        sources[b][a] = None
    for name, read in sources.items():
        if bool(read) == (name == entries[0]):
            raise _refused(name, "reads another node, but is the graph's Input" if read else "reads no other node")
    return entries[0], {name: tuple(read) for name, read in sources.items()}


def _prepared(name: str, node: Any) -> Any:
    """A copy of a node of a known type, whose parameters are finite numbers and whose windows are tuples of integers."""
    kind = type(node)
    if kind not in (*PARAMETERS, *POOLS, *VIRTUAL):
        raise _refused(name, f"is of the unknown type {kind.__name__}")
    node = copy(node)
    for field in PARAMETERS.get(kind, ()):
        value = getattr(node, field, None)
        if field == "bias" and value is None:
            rows = 1 if kind in CONVS else -1
            value = np.zeros(node.weight.shape[:rows], node.weight.dtype)
        setattr(node, field, _numbers(name, field, value))
    if kind in CONVS:
        axes = 1 if kind is nir.Conv1d else 2
        node.stride, node.dilation = (_ints(name, field, getattr(node, field, None), axes, 1) for field in ("stride", "dilation"))
        (node.groups,) = _ints(name, "groups", getattr(node, "groups", None), 1, 1)
        node.padding = _padding(name, getattr(node, "padding", None), axes)
    elif kind in POOLS:
        for field, least in (("kernel_size", 1), ("stride", 1), ("padding", 0)):
            setattr(node, field, _ints(name, field, getattr(node, field, None), 2, least))
    return node


def _padding(name: str, value: Any, axes: int) -> Shape | str:
    """A number of pixels for each axis, or "same"."""
    word = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    word = word.decode("ascii", "replace") if isinstance(word, bytes) else word
    if isinstance(word, str) and word.lower() in ("same", "valid"):
        return "same" if word.lower() == "same" else (0,) * axes
    return _ints(name, "padding", value, axes, 0)


def _numbers(name: str, field: str, value: Any) -> Array:
    """A parameter as an array in the machine's byte order; False and True are 0 and 1."""
    if isinstance(value, bool | np.bool_) or (isinstance(value, np.ndarray) and value.dtype.kind == "b"):
        value = np.asarray(value, np.float32)
    if not isinstance(value, np.ndarray | np.generic | int | float) or (array := np.asarray(value)).dtype.kind not in "fiu":
        raise _refused(name, f"has {_shown(value)} as its {field}, where an array of numbers is expected")
    if not 0 < array.size <= MAX_ELEMENTS or not np.isfinite([array.min(), array.max()]).all():
        raise _refused(name, f"has {field} that are not finite numbers, or none, or more than {MAX_ELEMENTS:.1e}")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _ints(name: str, field: str, value: Any, axes: int, least: int, most: int = MAX_WINDOW) -> Shape:
    """`value`, or as many of them as there are axes."""
    numbers = list(value.ravel()) if isinstance(value, np.ndarray) and value.size <= axes else value
    numbers = list(numbers) if isinstance(numbers, list | tuple) else [numbers]
    whole = [int(number) for number in numbers if _whole(number)]
    if len(whole) != len(numbers) or len(numbers) not in (1, axes) or not all(least <= number <= most for number in whole):
        raise _refused(name, f"has {_shown(value)} as its {field}, where {axes} integers from {least} to {most} are expected")
    return tuple(whole) * (axes // len(whole))


def _whole(number: Any) -> bool:
    """Whether a number is an integer, of whatever type."""
    if isinstance(number, float | np.floating):
        return bool(np.isfinite(number)) and number == int(number)
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _delay_feedback(nodes: dict[str, Any], sources: dict[str, tuple[str, ...]], dt: float) -> None:
    """Add a `Delay` of one step to each cycle that has none, behind its neuron.

        input -> neuron -> delay -> weights -> neuron          the next layer reads the neuron itself, and so this step's spikes

    What is late are the spikes, not the weighted current, so that a bias acts from the first step on. Only nodes that others
    outside of the cycle read too, and that the input reaches through the neuron alone, come before the `Delay`.
    Raises `ExportError` for a cycle that leaves open which edge is late.
    """
    now = _now(nodes, sources, dt)
    readers: dict[str, list[str]] = {name: [] for name in nodes}
    for name, read in sources.items():
        for source in read:
            readers[source].append(name)
    for cycle in cycles(now):
        entries = {name for name in cycle if not cycle.issuperset(sources[name])}
        if (neuron := _last_neuron(nodes, sources, readers, cycle, entries)) is None:
            continue
        others = cycle - {neuron}
        ahead = _reached(entries, readers, others)  # they read the input of this step
        exits = {name for name in others - ahead if not cycle.issuperset(readers[name])}
        behind = _reached(exits, sources, others) | {neuron}
        for name in [name for name in sources if name in behind]:
            late = [reader for reader in readers[name] if reader in cycle and (reader == neuron or reader not in behind)]
            if late:
                delay = f"{name}.delay"
                while delay in nodes:
                    delay += "_"
                nodes[delay], sources[delay] = nir.Delay(np.array(dt)), (name,)
                for reader in late:
                    sources[reader] = tuple(delay if source == name else source for source in sources[reader])


def _last_neuron(
    nodes: dict[str, Any], sources: dict[str, tuple[str, ...]], readers: dict[str, list[str]], cycle: set[str], entries: set[str]
) -> str | None:
    """The neuron of a cycle whose past spikes are read, or None for a cycle without one.

    That is the only neuron; or in a ring of several that is entered at one node, the last one before this entry, as nirtorch
    reads it. A membrane that a `Threshold` reads is one neuron with it, and its spikes are those of the `Threshold`.
    """
    neurons = {name for name in cycle if type(nodes[name]) in (*NEURONS, nir.Threshold)}
    neurons -= {name for name in neurons if _fires_elsewhere(nodes, name, cycle.intersection(readers[name]))}
    if len(neurons) < 2:
        return next(iter(neurons), None)
    before = {name: [source for source in sources[name] if source in cycle] for name in cycle}
    if len(entries) == 1 and all(len(read) == 1 for read in before.values()):
        (name,) = entries
        while (name := before[name][0]) not in neurons:
            pass
        return name
    one, other = [name for name in nodes if name in neurons][:2]
    path = _named([*_way(one, other, readers, cycle), *_way(other, one, readers, cycle)[1:]])
    raise ExportError(
        f"a cycle through several neurons, in which nothing says which edge is late: {path}; put a Delay of one step on that edge"
    )


def _way(start: str, end: str, readers: Mapping[str, Iterable[str]], within: set[str]) -> list[str]:
    """The nodes on a shortest way from `start` to `end` through those `within`, both ends included."""
    came = {start: start}
    waiting = deque([start])
    while end not in came:
        name = waiting.popleft()
        for reader in readers[name]:
            if reader in within and reader not in came:
                came[reader] = name
                waiting.append(reader)
    way = [end]
    while way[-1] != start:
        way.append(came[way[-1]])
    return way[::-1]


def _fires_elsewhere(nodes: dict[str, Any], name: str, readers: set[str]) -> bool:
    """Whether a membrane has its spikes in the `Threshold`s that read it."""
    return type(nodes[name]) not in SPIKING and all(type(nodes[reader]) is nir.Threshold for reader in readers)


def cycles(sources: Mapping[str, Iterable[str]]) -> list[set[str]]:
    """The largest sets of nodes that all reach each other (Kosaraju's strongly connected components of more than a lone node)."""
    finished: dict[str, None] = {}
    seen: set[str] = set()
    for start in sources:
        path = [] if start in seen else [(start, iter(sources[start]))]
        seen.add(start)
        while path:
            name, rest = path[-1]
            following = next((other for other in rest if other not in seen), None)
            if following is None:
                finished[path.pop()[0]] = None
            else:
                seen.add(following)
                path.append((following, iter(sources[following])))
    readers: dict[str, list[str]] = {name: [] for name in sources}
    for name, read in sources.items():
        for source in read:
            readers[source].append(name)
    found, left = [], set(sources)
    for name in reversed(finished):
        if name in left:
            component = _reached([name], readers, left)
            left -= component
            if len(component) > 1 or name in readers[name]:
                found.append(component)
    return found


def _reached(starts: Iterable[str], following: Mapping[str, Iterable[str]], within: set[str]) -> set[str]:
    """The nodes of `within` that are reached from those of `starts` that lie in it, and these."""
    found = {name for name in starts if name in within}
    waiting = [*found]
    while waiting:
        fresh = {name for name in following[waiting.pop()] if name in within} - found
        found |= fresh
        waiting += fresh
    return found


def _now(nodes: dict[str, Any], sources: dict[str, tuple[str, ...]], dt: float) -> dict[str, tuple[str, ...]]:
    """What each node reads of this step: a `Delay` of a step or more reads only the past."""
    delays = {name: _delay_steps(name, node, dt) for name, node in nodes.items() if type(node) is nir.Delay}
    late = {name for name, steps in delays.items() if steps.min() > 0}
    return {name: () if name in late else read for name, read in sources.items()}


def _order(nodes: dict[str, Any], sources: dict[str, tuple[str, ...]], dt: float) -> list[str]:
    """Every node after those that it reads; a `Delay` of a step or more reads only the past."""
    now = _now(nodes, sources, dt)
    try:
        return [*TopologicalSorter(now).static_order()]
    except CycleError as error:
        path = _named(error.args[1])
        raise ExportError(
            f"a cycle without a Delay of a step or more: {path}; as it has no neuron, put one on the edge that is late"
        ) from None


def _named(path: list[str]) -> str:
    names = [_shown(name) for name in path]
    return " -> ".join(names if len(names) <= 8 else [*names[:4], "...", *names[-3:]])


def _delay_steps(name: str, node: Any, dt: float) -> Array:
    with np.errstate(over="ignore"):
        steps = np.asarray(node.delay, np.float64) / dt
    if not (np.isfinite(steps).all() and (steps >= 0).all() and np.allclose(steps, np.rint(steps), rtol=1e-6, atol=1e-6)):
        raise _refused(name, f"delays by other than whole steps of {dt} seconds")
    return np.rint(np.minimum(steps, 2.0**53)).astype(np.int64)


def _shaped(flow: Flow, shape: Shape | None) -> Flow:
    """`flow` with all shapes, and with parameters of the shape of the input."""
    declared = _shape_of(flow.entry, flow.nodes[flow.entry])
    if declared is None and shape is None:
        raise _refused(flow.entry, "declares no shape: give it one, as in shape=(1, 28, 28)")
    if declared is None or shape is None:
        declared = shape if declared is None else declared
        assert declared is not None
        return _read_as_declared(flow, declared)
    if declared[len(declared) - len(shape) :] != shape or len(declared) < len(shape):
        name, wrong = _shown(flow.entry), _shown(list(declared))
        raise InputError(
            f"NIR node {name} reads {list(shape)}, but declares {wrong}: only first axes, of batch or time, may be left out"
        )
    return _find_shapes(flow, shape, declared[: len(declared) - len(shape)])


def _read_as_declared(flow: Flow, declared: Shape) -> Flow:
    """`flow` with the shape that its `Input` declares, or else with that without first axes of 1.

    Raises `ExportError` that says which axes may be those of batch or time, where the graph could be read without them.
    """
    first: ExportError | None = None
    for skipped in range(max(1, len(declared))):
        extra, shape = declared[:skipped], declared[skipped:]
        try:
            found = _find_shapes(flow, shape, extra)
        except ExportError as error:
            first = first or error
            continue
        if set(extra) <= {1}:
            return found
        axes = "axis is" if skipped == 1 else f"{skipped} axes are"
        raise ExportError(
            f"{first}; NIR node {_shown(flow.entry)} declares {_shown(list(declared))}: if the first {axes} of batch or time, "
            f"give shape={shape}"
        )
    assert first is not None
    raise first


def _shape_of(name: str, node: Any) -> Shape | None:
    """The shape that an `Input`, `Output` or `Flatten` declares."""
    declared = getattr(node, "input_type", None)
    declared = declared.get("input") if isinstance(declared, dict) else declared
    if declared is None or _nan(declared):
        return None
    axes = len(declared) if isinstance(declared, list | tuple) else np.asarray(declared).size
    if axes > MAX_AXES:
        raise _refused(name, f"declares {axes} axes: at most {MAX_AXES} are allowed")
    return _ints(name, "declared shape", declared, axes, 1, sys.maxsize) if axes else ()


def _nan(value: Any) -> bool:
    """Whether a shape is said to be unknown, as some tools say it."""
    array = np.asarray(value) if isinstance(value, float | np.floating | np.ndarray) else np.zeros(0)
    return array.size > 0 and array.dtype.kind == "f" and bool(np.isnan(array).all())


def _find_shapes(flow: Flow, given: Shape, extra: Shape) -> Flow:
    """`flow` with shapes, from the Input and the delays of known shape onwards, and with parameters of the input's shape.

    `extra` are the axes that the Input declares before those that are `given`.
    """
    flow = Flow({name: copy(node) for name, node in flow.nodes.items()}, flow.sources, {}, flow.dt, flow.entry)
    delays = {name: node.delay.shape for name, node in flow.nodes.items() if type(node) is nir.Delay}
    reads = {flow.entry: given} | {name: shape for name, shape in delays.items() if shape not in SCALAR}
    waiting = deque(reads)
    while waiting:
        name = waiting.popleft()
        flow.shapes[name] = shape = _output_shape(name, flow.nodes[name], reads[name], extra)
        if math.prod(shape) > MAX_ELEMENTS:
            raise _refused(name, f"would take {math.prod(shape):.1e} numbers; at most {MAX_ELEMENTS:.1e} are allowed")
        for reader in flow.readers[name]:
            if reader not in reads:
                reads[reader] = shape
                waiting.append(reader)
    for name, read in flow.sources.items():
        if name not in reads:
            raise _refused(name, "is not reached from the graph's Input")
        for source in read:
            if flow.shapes[source] != reads[name]:
                raise _refused(name, f"reads {list(reads[name])}, but {_shown(source)} gives {list(flow.shapes[source])}")
    return flow


def _output_shape(name: str, node: Any, takes: Shape, extra: Shape) -> Shape:
    """What a node gives for an input of the shape `takes`. Raises `ExportError` for a node that does not take it.

    A node may declare axes of 1, or those of `extra`, before the ones that it takes.
    """
    kind = type(node)
    if kind in ELEMENTWISE:
        for field in ELEMENTWISE[kind]:
            value = getattr(node, field)
            shape = () if value.size == 1 else _without_ones(value.shape, len(takes))
            if len(shape) not in (0, len(takes)) or any(size not in (1, n) for size, n in zip(shape, takes, strict=False)):
                raise _refused(name, f"reads {list(takes)}, but its {field} has the shape {list(value.shape)}")
            setattr(node, field, np.broadcast_to(value.reshape(shape), takes))
        return takes
    if kind in (nir.Affine, nir.Linear):
        *outer, rows, columns = node.weight.shape if node.weight.ndim > 1 else (0, 0)
        if (*outer, columns) != takes or (kind is nir.Affine and node.bias.shape != (*outer, rows)):
            raise _refused(name, f"reads {list(takes)}, but has weights {list(node.weight.shape)} or a bias that does not fit them")
        return (*outer, rows)
    if kind not in VIRTUAL:
        return _window_shape(name, node, takes)
    declared = takes if (found := _shape_of(name, node)) is None else found
    ahead = len(declared) - len(takes)
    if ahead < 0 or declared[ahead:] != takes or not (set(declared[:ahead]) <= {1} or declared[:ahead] == extra):
        raise _refused(name, f"reads {list(takes)}, but declares {_shown(list(declared))}")
    if kind is not nir.Flatten:
        return takes
    dims = [_ints(name, field, getattr(node, field, None), 1, -MAX_AXES, MAX_AXES)[0] for field in ("start_dim", "end_dim")]
    first, last = (d + len(declared) * (d < 0) - ahead for d in dims)  # dimensions count from the first axis that is declared
    alone = first >= 0 or set(declared[:ahead][first:]) <= {1}  # an axis of batch or time is not flattened
    if not (-ahead <= first <= last < len(takes) and last >= 0 and alone):
        raise _refused(name, f"flattens dimensions {dims[0]} to {dims[1]} of {list(declared)}")
    node.start_dim, node.end_dim = first, last = max(first, 0), last
    return (*takes[:first], math.prod(takes[first : last + 1]), *takes[last + 1 :])


def _without_ones(shape: Shape, axes: int) -> Shape:
    """`shape` without those first axes of 1 that are more than `axes`."""
    while len(shape) > axes and shape[0] == 1:
        shape = shape[1:]
    return shape


def _window_shape(name: str, node: Any, takes: Shape) -> Shape:
    """`[C, ...]` -> `[C_out, ...]` of a convolution or pool."""
    axes = 1 if type(node) is nir.Conv1d else 2
    if len(takes) != axes + 1:
        raise _refused(name, f"reads {list(takes)}, but needs channels and {axes} more axes")
    channels, size = takes[0], takes[1:]
    if type(node) in POOLS:
        kernel, dilation, out = node.kernel_size, (1,) * axes, channels
    else:
        out, cin, *kernel = node.weight.shape if node.weight.ndim == axes + 2 else (0, 0)
        declared = getattr(node, "input_shape", None)
        fits = channels == cin * node.groups and out % node.groups == 0 and node.bias.shape == (out,)
        known = declared is not None and not _nan(declared)
        if not fits or (known and _ints(name, "input_shape", declared, axes, 1) != size):
            raise _refused(name, f"reads {list(takes)}, which its weights, bias, groups or input_shape do not fit")
        dilation = node.dilation
    reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if node.padding == "same":
        if max(node.stride) > 1:
            raise _refused(name, "pads to the 'same' size with a stride, which has no meaning")
        return (out, *size)
    slid = tuple((n + 2 * p - r - 1) // s + 1 for n, p, r, s in zip(size, node.padding, reach, node.stride, strict=True))
    if min(slid) < 1:
        raise _refused(name, f"cannot slide over {list(takes)}: its window is larger")
    return (out, *slid)
