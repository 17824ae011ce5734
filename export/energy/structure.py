"""What a NIR graph says about counting, before any image is seen: shapes, kinds of input, sums.

Whether a layer is fed by spikes follows from where its input comes from, never from the values of a batch:

    neuron                     {0, 1}                      bound 1
    sum of spike trains        integers                    the sum of the sources' bounds
    sum pool of spikes         integers                    k_h k_w times the bound of its input
    flatten                    as its input
    input, anything weighted   real currents               no bound

An average pool counts as a sum pool whose divisor belongs in the next layer's weights. A value is *static* if it depends on a still
image alone: it is computed once, not at every step.

Several edges into one node are a sum. NIR lists all sources of a residual stream at each of its readers, `{x0, F1, ..., Fl}`, where
a network keeps a running sum; so a sum here is built from the largest sums that already exist (`Layer.terms`), and a chain of
residual blocks costs one addition a block.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import nir

from export.energy.windows import windows
from zoo.errors import InputError

__all__ = ["NEURONS", "POOLS", "Layer", "structure"]

NEURONS = (nir.LIF, nir.IF)
POOLS = (nir.SumPool2d, nir.AvgPool2d)
STILL_IMAGE = "still image, every step"  # metadata "input" of a graph whose input does not change

Shape = tuple[int, ...]
Terms = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Layer:
    """One node of the graph and what feeds it."""

    name: str
    node: nir.NIRNode
    sources: tuple[str, ...]  # oldest first
    terms: Terms  # what is added up here: nodes, and sums that exist already; fewer than two where there is nothing to add
    in_shape: Shape
    out_shape: Shape
    in_bound: int | None  # the largest value of an input element at one step; None for real currents
    out_bound: int | None
    static_input: bool
    static: bool  # the output depends on a still image alone

    @property
    def inputs(self) -> int:
        """Elements of the input."""
        return math.prod(self.in_shape)

    @property
    def outputs(self) -> int:
        """Elements of the output; of a neuron node, its neurons."""
        return math.prod(self.out_shape)


def structure(graph: nir.NIRGraph) -> list[Layer]:
    """The graph's nodes in topological order. Raises `InputError` for a node whose operations cannot be counted, and for loops."""
    still = graph.metadata.get("input") == STILL_IMAGE
    layers: dict[str, Layer] = {}
    sums: list[frozenset[str]] = []
    for name, sources in _ordered(graph):
        node = graph.nodes[name]
        feeds = [layers[source] for source in sources]
        in_shape = _in_shape(name, node, feeds)
        bounds = [feed.out_bound for feed in feeds if feed.out_bound is not None]
        in_bound = sum(bounds) if feeds and len(bounds) == len(feeds) else None
        static_input = all(feed.static for feed in feeds) if feeds else still
        layers[name] = Layer(
            name=name,
            node=node,
            sources=sources,
            terms=_terms(sources, sums),
            in_shape=in_shape,
            out_shape=_out_shape(name, node, in_shape),
            in_bound=in_bound,
            out_bound=_out_bound(node, in_bound),
            static_input=static_input,
            static=static_input and not isinstance(node, NEURONS),
        )
    return list(layers.values())


def _ordered(graph: nir.NIRGraph) -> Iterable[tuple[str, tuple[str, ...]]]:
    """Every node after its sources, otherwise in the graph's own order."""
    sources: dict[str, set[str]] = {name: set() for name in graph.nodes}
    for source, target in graph.edges:
        if source not in sources or target not in sources:
            raise InputError(
                f"the graph has an edge {source!r} -> {target!r} between nodes that it does not have: repair the graph"
            )
        sources[target].add(source)
    done: dict[str, int] = {}
    waiting = list(graph.nodes)
    while waiting:
        name = next((n for n in waiting if sources[n] <= done.keys()), None)
        if name is None:
            raise InputError(f"the graph has a loop through {waiting[0]!r}: only feed-forward graphs can be counted")
        yield name, tuple(sorted(sources[name], key=done.__getitem__))
        done[name] = len(done)
        waiting.remove(name)


def _terms(sources: tuple[str, ...], sums: list[frozenset[str]]) -> Terms:
    """What to add up for the sum of `sources`, the largest existing sums first. The new sum joins `sums`."""
    rest = frozenset(sources)
    if len(rest) < 2 or rest in sums:
        return ()
    terms: list[tuple[str, ...]] = []
    while found := max((s for s in sums if s <= rest), key=len, default=None):
        terms.append(tuple(s for s in sources if s in found))
        rest -= found
    sums.append(frozenset(sources))
    return (*terms, *((s,) for s in sources if s in rest))


def _in_shape(name: str, node: nir.NIRNode, feeds: list[Layer]) -> Shape:
    if isinstance(node, nir.Input):
        return tuple(int(n) for n in node.input_type["input"])
    shapes = {feed.out_shape for feed in feeds}
    if len(shapes) != 1:
        raise InputError(
            f"node {name!r} is fed by {len(feeds)} values of shapes {sorted(shapes)}: a node needs inputs of one shape"
        )
    return shapes.pop()


def _out_shape(name: str, node: nir.NIRNode, shape: Shape) -> Shape:
    match node:
        case nir.Conv2d() if len(shape) == 3 and shape[0] == node.weight.shape[1] * node.groups:
            return (node.weight.shape[0], *(w.outputs(n) for w, n in zip(windows(node), shape[1:], strict=True)))
        case nir.SumPool2d() | nir.AvgPool2d() if len(shape) == 3:
            return (shape[0], *(w.outputs(n) for w, n in zip(windows(node), shape[1:], strict=True)))
        case nir.Affine() | nir.Linear() if shape == node.weight.shape[1:]:
            return (node.weight.shape[0],)
        case nir.Conv2d() | nir.SumPool2d() | nir.AvgPool2d() | nir.Affine() | nir.Linear():
            raise InputError(f"node {name!r} ({type(node).__name__}) cannot take an input of shape {list(shape)}: repair the graph")
        case nir.Flatten():
            first, last = (int(d) % len(shape) for d in (node.start_dim, node.end_dim))
            return (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :])
        case nir.LIF() | nir.IF() if len(shape) not in (1, 3):
            raise InputError(f"neurons {name!r} have shape {list(shape)}: valid are [features] and [C, H, W]")
        case nir.LIF() | nir.IF() | nir.Scale() | nir.Input() | nir.Output():
            return shape
        case _:
            known = "Input, Output, Conv2d, Affine, Linear, Scale, SumPool2d, AvgPool2d, Flatten, LIF, IF"
            raise InputError(f"node {name!r} is a {type(node).__name__}, whose operations cannot be counted; valid are {known}")


def _out_bound(node: nir.NIRNode, in_bound: int | None) -> int | None:
    if isinstance(node, NEURONS):
        return 1
    if isinstance(node, POOLS) and in_bound is not None:
        return math.prod(window.kernel for window in windows(node)) * in_bound
    return in_bound if isinstance(node, nir.Flatten | nir.Output) else None
