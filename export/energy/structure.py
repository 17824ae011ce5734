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
largest sums that already exist (`LayerStructure.terms`), and a chain of residual blocks costs one
addition a block.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np

from export.energy.counting.fanout import FanOut, fan_out
from export.energy.counting.windows import windows
from export.metadata import BINARY_EVENTS, EVENTS, STILL_IMAGE, Metadata
from export.nir.cycles import cycles
from export.nir.graph import CheckedGraph, check_graph, find_recurrent_nodes
from export.nir.nodes import (
    LINEAR,
    NODE_KINDS,
    POOLS,
    SPIKING,
    SPIKING_NEURONS,
    kernel_size,
    nodes_of,
)
from zoo.arrays import Array, Shape
from zoo.errors import InputError

__all__ = ["MAX_EVENTS", "PASSING", "LayerStructure", "read_structure"]

WEIGHTED = tuple(node for node in LINEAR if NODE_KINDS[node].window_axes != 1)
PASSING = nodes_of("shape", "delay")
COUNTED = (*PASSING, *WEIGHTED, nir.Scale, *POOLS, *SPIKING_NEURONS)
# Neurons whose input is the current of their membrane.
MEMBRANES = tuple(node for node in SPIKING_NEURONS if len(NODE_KINDS[node].integrators) == 1)
INVISIBLE_LEAK = 2.0**-24  # share of a membrane whose loss a float32 does not show
MAX_EVENTS = 255  # of a pixel and step: frames of events are bytes
INPUT_BOUNDS = {EVENTS: MAX_EVENTS, BINARY_EVENTS: 1}
FLOAT_BYTES, INT8_BYTES = 4, 1

Terms = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class LayerStructure:
    """One node of the graph and what feeds it."""

    name: str
    node: nir.NIRNode  # of neurons that reset by subtraction, the membrane
    neuron: bool
    sources: tuple[str, ...]  # oldest first
    # What is added up here: nodes, and sums that exist already; fewer than two where there is
    # nothing to add.
    terms: Terms
    in_shape: Shape
    out_shape: Shape
    # The largest value of an input element at one step; None for real currents.
    in_bound: int | None
    out_bound: int | None
    static_input: bool
    static: bool  # the output depends on a still image alone
    fan: FanOut | None  # of a convolution, matrix or pool
    driven: bool  # a current reaches every element of the input at every step, event or not
    currents: bool  # a current leaves at every step
    recurrent: bool  # part of a recurrent connection
    delays: Array | None  # of a Delay: the steps of each element, in the shape of the input
    leaks: bool  # neurons whose membrane decays
    biases: int  # elements that a constant is added to, each time the node runs
    weight_bytes: int  # of weights and biases as the graph has them
    # The modules of the model that the graph was made of, where they are not the node's own kind.
    modules: tuple[str, ...]
    read_out: bool = False  # no neuron comes after it, so that the mean over time may come before

    @property
    def inputs(self) -> int:
        """The number of elements of the input."""
        return math.prod(self.in_shape)

    @property
    def outputs(self) -> int:
        """The number of elements of the output; of a neuron node, its neurons."""
        return math.prod(self.out_shape)

    @property
    def weighted(self) -> bool:
        """Whether this is a convolution or a matrix."""
        return isinstance(self.node, WEIGHTED)

    @property
    def spikes_in(self) -> bool:
        """Whether the input is spikes, or a sum of them."""
        return self.in_bound is not None


@dataclass(frozen=True)
class Signal:
    """The input of a layer: the sum of what its sources send."""

    bound: int | None  # the largest value of an element; None for real currents
    driven: bool  # a current reaches every element at every step


SILENT = Signal(bound=0, driven=False)


def read_structure(graph: nir.NIRGraph) -> list[LayerStructure]:
    """Return the graph's nodes in topological order, each with what feeds it.

    A neuron that resets by subtraction is one node, named by its spikes. Raises `ExportError` for a
    graph that is not sound, `InputError` for a node whose operations cannot be counted, and for
    loops without a neuron.
    """
    builder = _Builder(check_graph(graph), graph)
    # The sources of a Delay may come after it. They are taken as silent at first, then as what they
    # were found to send, until nothing changes.
    late: dict[str, Signal] = {}
    while True:
        layers = builder.layers(late)
        sums = {name: _sum(layers[source] for source in layers[name].sources) for name in late}
        if sums == late:
            return _mark_read_out(list(layers.values()))
        late = sums


class _Builder:
    """Builds the layers of one graph."""

    def __init__(self, checked: CheckedGraph, graph: nir.NIRGraph) -> None:
        self.graph = checked
        metadata = Metadata.from_graph(graph)
        self.input = metadata.input_kind
        int8 = metadata.get_weight_format("").startswith("int8")
        self.weight_bytes = INT8_BYTES if int8 else FLOAT_BYTES
        self.modules = metadata.modules
        self.recurrent = find_recurrent_nodes(checked)
        self.constants = _constants(checked)
        self.order = list(_ordered(checked, [*graph.nodes]))

    def layers(self, late: dict[str, Signal]) -> dict[str, LayerStructure]:
        """Return the layers, given what reaches the Delays that come before their sources.

        Delays that `late` lacks are entered into it as silent.
        """
        layers: dict[str, LayerStructure] = {}
        sums: list[frozenset[str]] = []
        for name, sources in self.order:
            feeds = [layers[source] for source in sources if source in layers]
            complete = len(feeds) == len(sources)
            signal = _sum(feeds) if complete else late.setdefault(name, SILENT)
            layers[name] = self._layer(name, sources, feeds, signal, _terms(sources, sums))
        return layers

    def _layer(
        self,
        name: str,
        sources: tuple[str, ...],
        feeds: list[LayerStructure],
        signal: Signal,
        terms: Terms,
    ) -> LayerStructure:
        reset = self.graph.resets_by_spikes.get(name)
        node = self.graph.nodes[reset.membrane if reset else name]
        in_shape, out_shape = self.graph.inputs(name), self.graph.shapes[name]
        neuron = reset is not None or isinstance(node, SPIKING_NEURONS)
        _check(name, node, neuron, out_shape)
        delays = self.graph.delay_steps(name) if isinstance(node, nir.Delay) else None
        still = all(feed.static for feed in feeds) if feeds else self.input == STILL_IMAGE
        static_input = delays is None and still
        constant = self.constants[name]
        if (scale := _diagonal(node)) is not None:
            node = nir.Scale(np.broadcast_to(scale[:, None, None], in_shape))
        constant_bytes = FLOAT_BYTES * int(np.count_nonzero(constant))
        layer = LayerStructure(
            name=name,
            node=node,
            neuron=neuron,
            sources=sources,
            terms=terms,
            in_shape=in_shape,
            out_shape=out_shape,
            in_bound=signal.bound,
            out_bound=1 if neuron else _out_bound(node, signal.bound),
            static_input=static_input,
            static=static_input and not neuron,
            fan=fan_out(node, in_shape),
            driven=signal.driven,
            currents=signal.driven and not neuron,
            recurrent=name in self.recurrent,
            delays=delays,
            leaks=_leaks(node, self.graph.dt),
            biases=int(np.count_nonzero(np.broadcast_to(constant, out_shape))),
            weight_bytes=self.weight_bytes * _weights(node) + constant_bytes,
            modules=self.modules.get(name, ()),
        )
        if isinstance(node, nir.Input):
            bound = INPUT_BOUNDS.get(self.input or "")
            return replace(layer, out_bound=bound, currents=bound is None)
        return layer


def _sum(feeds: Iterable[LayerStructure]) -> Signal:
    """Return the bound of a sum, and whether a current is among its terms."""
    feeds = list(feeds)
    bounds = [feed.out_bound for feed in feeds if feed.out_bound is not None]
    bound = sum(bounds) if feeds and len(bounds) == len(feeds) else None
    return Signal(bound, driven=any(feed.currents for feed in feeds))


def _mark_read_out(layers: list[LayerStructure]) -> list[LayerStructure]:
    """Return the layers with those marked after which no neuron comes.

    The layers are in topological order, except for the Delays of recurrent connections, for which
    they are gone through again.
    """
    before_neuron: set[str] = set()
    size = -1
    while len(before_neuron) > size:
        size = len(before_neuron)
        for layer in reversed(layers):
            if layer.neuron or layer.name in before_neuron:
                before_neuron.update(layer.sources)
    return [
        replace(layer, read_out=not layer.neuron and layer.name not in before_neuron)
        for layer in layers
    ]


def _leaks(node: nir.NIRNode, dt: float) -> bool:
    """Return whether the membrane of neurons decays."""
    states = NODE_KINDS[type(node)].integrators
    tau = states[-1].tau if states else None
    return tau is not None and bool((dt / getattr(node, tau) > INVISIBLE_LEAK).any())


def _constants(graph: CheckedGraph) -> dict[str, Array]:
    """Return what each node adds to its output every time, in a shape that broadcasts to it.

    The constant of a Scale is that of its readers if all of these are neurons.
    """
    constants: dict[str, Array] = {}
    moved: list[tuple[str, Array]] = []
    for name, node in graph.nodes.items():
        constants[name] = constant = _constant(node)
        readers = graph.readers[name]
        moves = all(isinstance(graph.nodes[reader], MEMBRANES) for reader in readers)
        if moves and _diagonal(node) is not None:
            constants[name] = np.zeros((), constant.dtype)
            moved += [(reader, constant) for reader in readers]
    for reader, constant in moved:
        constants[reader] = constants[reader] + constant
    return constants


def _constant(node: Any) -> Array:
    """Return a node's bias, or the leak of its membrane, or zero."""
    kind = NODE_KINDS[type(node)]
    if "bias" in kind.parameters:
        bias: Array = node.bias.reshape(-1, 1, 1) if kind.window_axes == 2 else node.bias
        return bias
    field = kind.integrators[-1].leak if kind.integrators else None
    leak = getattr(node, field) if field else np.zeros((), np.float32)
    return leak[:, :1, :1] if leak.ndim == 3 and (leak == leak[:, :1, :1]).all() else leak


def _diagonal(node: nir.NIRNode) -> Array | None:
    """Return the factor of each channel, `[C]`, of a convolution that only scales; else None."""
    if not isinstance(node, nir.Conv2d) or len(node.weight) != node.weight.shape[1] * node.groups:
        return None
    if any((w.kernel, w.stride, w.begin, w.end) != (1, 1, 0, 0) for w in windows(node)):
        return None
    square: Array = node.weight[:, :, 0, 0]
    diagonal = square[:, 0] if node.groups == len(square) else square.diagonal()
    return diagonal if np.count_nonzero(square) == np.count_nonzero(diagonal) else None


def _weights(node: Any) -> int:
    """Return how many weights the graph stores.

    A Scale that is the same for all pixels stores one for each channel.
    """
    if type(node) in WEIGHTED:
        return int(node.weight.size)
    if not isinstance(node, nir.Scale):
        return 0
    same = node.scale.ndim == 3 and (node.scale == node.scale[:, :1, :1]).all()
    return len(node.scale) if same else int(node.scale.size)


def _ordered(graph: CheckedGraph, order: list[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield every node and its sources, after these, otherwise in the graph's own order.

    Of the loop of a reset there is only the node of its spikes. Where a recurrent connection leaves
    no other choice, a Delay comes before its sources.
    """
    _check_loops(graph)
    resets = graph.subtractive_resets.values()
    inside = {name for loop in resets for name in (loop.membrane, loop.scale, loop.delay)}
    rank = {name: i for i, name in enumerate(order)}
    waiting = sorted(graph.nodes.keys() - inside, key=lambda name: rank.get(name, len(rank)))
    done: dict[str, int] = {}
    while waiting:
        ready = (name for name in waiting if done.keys() >= set(graph.neuron_sources(name)))
        name = next(ready, "") or _first_delay(graph, waiting)
        sources = sorted(
            graph.neuron_sources(name), key=lambda source: done.get(source, len(graph.nodes))
        )
        yield name, tuple(sources)
        done[name] = len(done)
        waiting.remove(name)


def _first_delay(graph: CheckedGraph, waiting: list[str]) -> str:
    delays = (n for n in graph.nodes if n in waiting and isinstance(graph.nodes[n], nir.Delay))
    return next(delays)


def _check_loops(graph: CheckedGraph) -> None:
    """Raise `InputError` for a loop through which no neuron passes spikes."""
    without_spikes = {
        name: [source for source in sources if not isinstance(graph.nodes[source], SPIKING)]
        for name, sources in graph.sources.items()
    }
    if loops := cycles(without_spikes):
        what = f"a loop through {min(loops[0])!r} without a neuron"
        raise InputError(f"the graph has {what}, whose operations cannot be counted")


def _terms(sources: tuple[str, ...], sums: list[frozenset[str]]) -> Terms:
    """Return what to add up for the sum of `sources`, the largest existing sums first.

    The new sum joins `sums`.
    """
    rest = frozenset(sources)
    if len(rest) < 2 or rest in sums:
        return ()
    terms: list[tuple[str, ...]] = []
    while largest := max((s for s in sums if s <= rest), key=len, default=None):
        terms.append(tuple(s for s in sources if s in largest))
        rest -= largest
    sums.append(frozenset(sources))
    return (*terms, *((s,) for s in sources if s in rest))


def _check(name: str, node: nir.NIRNode, neuron: bool, shape: Shape) -> None:
    """Raise `InputError` for a node that cannot be counted."""
    if not neuron and not isinstance(node, COUNTED):
        valid = ", ".join(kind.__name__ for kind in COUNTED)
        what = f"is a {type(node).__name__}, whose operations cannot be counted"
        raise InputError(f"node {name!r} {what}; valid are {valid}")
    if (neuron or isinstance(node, nir.Delay)) and len(shape) not in (1, 3):
        valid = "valid are [features] and [C, H, W]"
        raise InputError(f"neurons {name!r} have shape {list(shape)}: {valid}")
    if isinstance(node, nir.Affine | nir.Linear) and node.weight.ndim != 2:
        shape = node.weight.shape
        raise InputError(f"node {name!r} has weights {list(shape)}: only matrices can be counted")


def _out_bound(node: nir.NIRNode, in_bound: int | None) -> int | None:
    """Return the largest value that leaves a node; None for real currents."""
    if isinstance(node, POOLS) and in_bound is not None:
        return math.prod(kernel_size(node)) * in_bound
    return in_bound if isinstance(node, PASSING) else None
