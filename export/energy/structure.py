"""What a NIR graph says about counting, before any image is seen: shapes, kinds of input, sums.

Whether a layer is fed by spikes follows from where its input comes from, never from the values of a
batch:

    neuron                     {0, 1}                      bound 1
    input of events            counts of events            bound 255
    sum of spike trains        integers                    the sum of the sources' bounds
    sum pool of spikes         integers                    k_h k_w times the bound of its input
    flatten, delay             as its input
    image, anything weighted   real currents               no bound

An average pool counts as a sum pool whose divisor belongs in the next layer's weights. A value is
*static* if it depends on a still image alone: it is computed once, not at every step. A convolution
of 1x1 with a diagonal is a Scale, and its bias a constant current of the neurons that read it, so
that both ways to say it (`export.nir.exporter`) count the same.

A recurrent connection reads the spikes of the step before, through a Delay (`export.nir.graph`): at
the first step none.

Several edges into one node are a sum. NIR lists all sources of a residual stream at each of its
readers, `{x0, F1, ..., Fl}`, where a network keeps a running sum; so a sum here is built from the
largest sums that already exist (`Layer.terms`), and a chain of residual blocks costs one addition a
block.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import nir
import numpy as np

from export.energy.counting.fanout import FanOut, fan_out
from export.energy.counting.windows import Array, windows
from export.metadata import EVENTS, STILL_IMAGE, Metadata
from export.nir.cycles import cycles
from export.nir.graph import (
    CheckedGraph,
    ResetBySubtraction,
    check_graph,
    find_recurrent_nodes,
    find_subtractive_resets,
)
from zoo.errors import InputError

__all__ = ["MOST_EVENTS", "POOLS", "Layer", "structure"]

POOLS = (nir.SumPool2d, nir.AvgPool2d)
WEIGHTED = (nir.Conv2d, nir.Affine, nir.Linear)
NEURONS = (nir.LIF, nir.IF, nir.CubaLIF)
COUNTED = (
    nir.Input,
    nir.Output,
    nir.Conv2d,
    nir.Affine,
    nir.Linear,
    nir.Scale,
    *POOLS,
    nir.Flatten,
    nir.Delay,
    *NEURONS,
)
UNSEEN = 2.0**-24  # share of a membrane whose loss a float32 does not show
MOST_EVENTS = 255  # of a pixel and step: frames of events are bytes

Shape = tuple[int, ...]
Terms = tuple[tuple[str, ...], ...]
# the largest value of an element, None for real currents; whether a current leaves at every step
Sent = tuple[int | None, bool]


@dataclass(frozen=True)
class Layer:
    """One node of the graph and what feeds it."""

    name: str
    node: nir.NIRNode  # of neurons that reset by subtraction, the membrane
    neuron: bool
    sources: tuple[str, ...]  # oldest first
    # what is added up here: nodes, and sums that exist already; fewer than two where there is
    # nothing to add
    terms: Terms
    in_shape: Shape
    out_shape: Shape
    # the largest value of an input element at one step; None for real currents
    in_bound: int | None
    out_bound: int | None
    static_input: bool
    static: bool  # the output depends on a still image alone
    fan: FanOut | None  # of a convolution, matrix or pool
    driven: bool  # a current reaches every element of the input at every step, event or not
    currents: bool  # and so it leaves
    recurrent: bool  # part of a recurrent connection
    delays: Array | None  # of a Delay: the steps of each element, in the shape of the input
    leaks: bool  # neurons that forget
    biases: int  # elements that a constant is added to, each time the node runs
    weight_bytes: int  # of weights and biases as the graph has them
    # of the model that the graph was made of, where they are not the node's own kind
    modules: tuple[str, ...]
    read_out: bool = False  # no neuron comes after it, so that the mean over time may come before

    @property
    def inputs(self) -> int:
        """Elements of the input."""
        return math.prod(self.in_shape)

    @property
    def outputs(self) -> int:
        """Elements of the output; of a neuron node, its neurons."""
        return math.prod(self.out_shape)

    @property
    def weighted(self) -> bool:
        """Whether this is a convolution or a matrix."""
        return isinstance(self.node, WEIGHTED)

    @property
    def spikes_in(self) -> bool:
        """Whether the input is spikes, or a sum of them."""
        return self.in_bound is not None


def structure(graph: nir.NIRGraph) -> list[Layer]:
    """The graph's nodes in topological order; a neuron that resets by subtraction is one, named by
    its spikes.

    Raises `ExportError` for a graph that is not sound, `InputError` for a node whose operations
    cannot be counted, and for loops without a neuron.
    """
    ready = check_graph(graph)
    late: dict[str, Sent] = {}
    while True:
        layers = _layers(ready, graph, late)
        before, late = (
            late,
            {name: _sum([layers[s] for s in layers[name].sources]) for name in late},
        )
        if late == before:
            return _read_out(list(layers.values()))


def _sum(feeds: list[Layer]) -> Sent:
    """The bound of a sum, and whether a current is among its terms."""
    bounds = [feed.out_bound for feed in feeds if feed.out_bound is not None]
    return sum(bounds) if feeds and len(bounds) == len(feeds) else None, any(
        feed.currents for feed in feeds
    )


def _layers(ready: CheckedGraph, graph: nir.NIRGraph, late: dict[str, Sent]) -> dict[str, Layer]:
    """The layers, given what the Delays that come before their sources send. Those that `late`
    lacks are entered as silent.
    """
    metadata = Metadata.from_graph(graph)
    kind = metadata.input_kind
    width = 1 if metadata.get_weight_format("").startswith("int8") else 4
    membranes = {
        loop.threshold: membrane for membrane, loop in find_subtractive_resets(ready).items()
    }
    constants, modules, again = _constants(ready), metadata.modules, find_recurrent_nodes(ready)
    layers: dict[str, Layer] = {}
    sums: list[frozenset[str]] = []
    for name, sources in _ordered(ready, [*graph.nodes], membranes):
        node = ready.nodes[membranes.get(name, name)]
        in_shape, out_shape = ready.inputs(name), ready.shapes[name]
        neuron = name in membranes or isinstance(node, NEURONS)
        delays = ready.delay_steps(name) if isinstance(node, nir.Delay) else None
        _check(name, node, neuron, out_shape)
        feeds = [layers[source] for source in sources if source in layers]
        in_bound, driven = (
            _sum(feeds) if len(feeds) == len(sources) else late.setdefault(name, (0, False))
        )
        static_input = delays is None and (
            all(feed.static for feed in feeds) if feeds else kind == STILL_IMAGE
        )
        constant = constants[name]
        if (scale := _diagonal(node)) is not None:
            node = nir.Scale(np.broadcast_to(scale[:, None, None], in_shape))
        layers[name] = layer = Layer(
            name=name,
            node=node,
            neuron=neuron,
            sources=sources,
            terms=_terms(sources, sums),
            in_shape=in_shape,
            out_shape=out_shape,
            in_bound=in_bound,
            out_bound=1 if neuron else _out_bound(node, in_bound),
            static_input=static_input,
            static=static_input and not neuron,
            fan=fan_out(node, in_shape),
            driven=driven,
            currents=driven and not neuron,
            recurrent=name in again,
            delays=delays,
            leaks=_leaks(node, ready.dt),
            biases=int(np.count_nonzero(np.broadcast_to(constant, out_shape))),
            weight_bytes=width * _weights(node) + 4 * int(np.count_nonzero(constant)),
            modules=modules.get(name, ()),
        )
        if isinstance(node, nir.Input):
            layers[name] = replace(
                layer, out_bound=MOST_EVENTS if kind == EVENTS else None, currents=kind != EVENTS
            )
    return layers


def _read_out(layers: list[Layer]) -> list[Layer]:
    """Given in topological order, but for the Delays of recurrent connections, for which it is gone
    through again.
    """
    before: set[str] = set()  # a neuron
    known = -1
    while len(before) > known:
        known = len(before)
        for layer in reversed(layers):
            if layer.neuron or layer.name in before:
                before.update(layer.sources)
    return [
        replace(layer, read_out=not layer.neuron and layer.name not in before) for layer in layers
    ]


def _leaks(node: nir.NIRNode, dt: float) -> bool:
    """Whether neurons forget."""
    tau = getattr(node, "tau_mem", getattr(node, "tau", None))
    return tau is not None and bool((dt / tau > UNSEEN).any())


def _constants(ready: CheckedGraph) -> dict[str, Array]:
    """What each node adds to its output every time, in a shape that spreads to it; a Scale's is its
    readers' if all are neurons.
    """
    found: dict[str, Array] = {}
    moved: list[tuple[str, Array]] = []
    for name, node in ready.nodes.items():
        found[name] = constant = _constant(node)
        readers = ready.readers[name]
        if _diagonal(node) is not None and all(
            isinstance(ready.nodes[reader], nir.LIF | nir.IF) for reader in readers
        ):
            found[name] = np.zeros((), constant.dtype)
            moved += [(reader, constant) for reader in readers]
    for reader, constant in moved:
        found[reader] = found[reader] + constant
    return found


def _constant(node: nir.NIRNode) -> Array:
    match node:
        case nir.Conv2d():
            return np.asarray(node.bias)[:, None, None]
        case nir.Affine():
            return np.asarray(node.bias)
        case nir.LIF() | nir.LI() | nir.CubaLIF():
            leak = np.asarray(node.v_leak)
            return leak[:, :1, :1] if leak.ndim == 3 and (leak == leak[:, :1, :1]).all() else leak
    return np.zeros((), np.float32)


def _diagonal(node: nir.NIRNode) -> Array | None:
    """The factor of each channel, `[C]`, of a convolution that does no more than to scale."""
    if not isinstance(node, nir.Conv2d) or len(node.weight) != node.weight.shape[1] * node.groups:
        return None
    if any((w.kernel, w.stride, w.begin, w.end) != (1, 1, 0, 0) for w in windows(node)):
        return None
    square: Array = node.weight[:, :, 0, 0]
    diagonal = square[:, 0] if node.groups == len(square) else square.diagonal()
    return diagonal if np.count_nonzero(square) == np.count_nonzero(diagonal) else None


def _weights(node: nir.NIRNode) -> int:
    """How many weights the graph stores; a Scale that is the same for all pixels stores one for
    each channel.
    """
    if isinstance(node, WEIGHTED):
        return int(node.weight.size)
    if not isinstance(node, nir.Scale):
        return 0
    same = node.scale.ndim == 3 and (node.scale == node.scale[:, :1, :1]).all()
    return len(node.scale) if same else int(node.scale.size)


def _ordered(
    ready: CheckedGraph, order: list[str], membranes: dict[str, str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every node after its sources, otherwise in the graph's own order; of a reset's loop only the
    node of its spikes.

    Where a recurrent connection leaves no other choice, a Delay comes before its sources.
    """
    loops: dict[str, ResetBySubtraction] = find_subtractive_resets(ready)
    inside = {
        name for membrane, loop in loops.items() for name in (membrane, loop.scale, loop.delay)
    }
    silent = {
        name: [s for s in read if not isinstance(ready.nodes[s], (*NEURONS, nir.Threshold))]
        for name, read in ready.sources.items()
    }
    if alone := cycles(silent):
        raise InputError(
            f"the graph has a loop through {min(alone[0])!r} without a neuron, whose operations cannot be counted"
        )
    rank = {name: i for i, name in enumerate(order)}
    waiting = sorted(ready.nodes.keys() - inside, key=lambda name: rank.get(name, len(rank)))
    done: dict[str, int] = {}
    while waiting:
        for name in waiting:
            membrane = membranes.get(name, name)
            sources = [
                s for s in ready.sources[membrane] if membrane == name or s != loops[membrane].delay
            ]
            if all(source in done for source in sources):
                break
        else:
            name = next(
                name
                for name in ready.nodes
                if name in waiting and isinstance(ready.nodes[name], nir.Delay)
            )
            sources = list(ready.sources[name])
        yield name, tuple(sorted(sources, key=lambda source: done.get(source, len(ready.nodes))))
        done[name] = len(done)
        waiting.remove(name)


def _terms(sources: tuple[str, ...], sums: list[frozenset[str]]) -> Terms:
    """What to add up for the sum of `sources`, the largest existing sums first. The new sum joins
    `sums`.
    """
    rest = frozenset(sources)
    if len(rest) < 2 or rest in sums:
        return ()
    terms: list[tuple[str, ...]] = []
    while found := max((s for s in sums if s <= rest), key=len, default=None):
        terms.append(tuple(s for s in sources if s in found))
        rest -= found
    sums.append(frozenset(sources))
    return (*terms, *((s,) for s in sources if s in rest))


def _check(name: str, node: nir.NIRNode, neuron: bool, shape: Shape) -> None:
    if not neuron and not isinstance(node, COUNTED):
        known = ", ".join(kind.__name__ for kind in COUNTED)
        raise InputError(
            f"node {name!r} is a {type(node).__name__}, whose operations cannot be counted; valid are {known}"
        )
    if (neuron or isinstance(node, nir.Delay)) and len(shape) not in (1, 3):
        raise InputError(
            f"neurons {name!r} have shape {list(shape)}: valid are [features] and [C, H, W]"
        )
    if isinstance(node, nir.Affine | nir.Linear) and node.weight.ndim != 2:
        raise InputError(
            f"node {name!r} has weights {list(node.weight.shape)}: only matrices can be counted"
        )


def _out_bound(node: nir.NIRNode, in_bound: int | None) -> int | None:
    if isinstance(node, POOLS) and in_bound is not None:
        return math.prod(window.kernel for window in windows(node)) * in_bound
    return in_bound if isinstance(node, nir.Flatten | nir.Delay | nir.Input | nir.Output) else None
