"""A NIR graph against its model: the interpreter computes node by node, and each module is given
the graph's own values.

Neurons and sums are computed in float64 on both sides, where the order of a sum decides no spike.
What no spike may show, an edge from a silent layer or a parameter off by little, is found by
comparing the graph with that of the model.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor, nn

from export.metadata import Metadata
from export.nir.exporter import ExportedGraph, OutputMapping, export_model
from export.nir.graph import check_graph, find_subtractive_resets
from export.nir.interpreter import run
from export.nir.reader import read_nir
from export.prepare.fold import still_image
from export.prepare.quantize import PRECISIONS, as_precision, quantize_weights
from export.prepare.trace import INPUT, Call
from export.verification import LayerCheck, Verification
from zoo.blocks import Add, And, IAnd
from zoo.danet import DANet
from zoo.errors import ExportError, InputError, VerificationError, first_line
from zoo.neurons import Lif

__all__ = ["NirVerification", "verify_graph", "verify_nir"]

EXACT = Lif | nn.BatchNorm2d | Add | And | IAnd  # modules that are computed in float64
# nodes that are computed in float32
WEIGHTED = (nir.Conv1d, nir.Conv2d, nir.Affine, nir.Linear, nir.SumPool2d, nir.AvgPool2d)
NEURONS = (nir.LIF, nir.IF, nir.Threshold)
# relative, of parameters: machines differ in how they round the folding of a BatchNorm
CLOSE = 1e-6
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class NirVerification(Verification):
    """What was compared, on which images, and the spikes of the graph."""

    inputs: Array  # [B, C, H, W]
    trains: dict[str, Array]  # of every node of neurons, [T, B, ...], bool
    nodes: int
    edges: int

    def __str__(self) -> str:
        return f"{self.nodes} nodes, {self.edges} edges; {super().__str__()}"


def verify_nir(model: DANet, path: str | Path, images: Tensor | None = None) -> NirVerification:
    """Compare the NIR file at `path` with `model` on `images` (normalised `[B, C, H, W]`; two of
    noise if none are given).

    A file of rounded weights is compared with the model rounded likewise. Raises `InputError` for
    what is no NIR file, and `ExportError` for a graph that is not sound.
    """
    graph = read_nir(path)
    weight_format = Metadata.from_graph(graph).exported_weight_format(PRECISIONS)
    return verify_graph(quantize_weights(model, as_precision(weight_format)), graph, images)


def verify_graph(
    model: DANet, graph: nir.NIRGraph, images: Tensor | None = None
) -> NirVerification:
    """`verify_nir` of a graph in memory; `model` is what it has to be, rounded or not."""
    profile = Metadata.from_graph(graph).exported_profile()
    expected = export_model(model, "portable" if profile == "portable" else "native")
    x = (
        torch.randn(still_image(model, 2).shape, generator=torch.Generator().manual_seed(0))
        if images is None
        else images
    )
    values = _Values(
        graph,
        np.broadcast_to(x.numpy(), (model.config.steps, *x.shape)),
        wanted={"output", *(reading.node for reading in expected.readings.values())},
    )
    missing = tuple(
        path for path, reading in expected.readings.items() if reading.node not in values.flow.nodes
    )
    altered = tuple(_differences(expected.graph, graph))
    lines: tuple[LayerCheck, ...] = ()
    same = 0
    if not missing:
        try:
            lines = tuple(_compare(expected, values, x))
        except (ExportError, InputError, RuntimeError) as error:
            raise VerificationError(
                f"the graph cannot be run as this model: {first_line(error)}"
            ) from None
        with torch.inference_mode():
            same = int(
                (model.eval()(x).argmax(1).numpy() == values["output"].mean(0).argmax(-1)).sum()
            )
    size = {"nodes": len(graph.nodes), "edges": len(graph.edges)}
    return NirVerification(
        lines, missing, altered, (len(x),), same, len(x), x.numpy(), values.trains, **size
    )


def _differences(expected: nir.NIRGraph, found: nir.NIRGraph) -> Iterator[str]:
    """In words, what `found` has and should not have, or has not and should. The order of nodes and
    edges means nothing.
    """
    for edge in sorted({*map(tuple, expected.edges)} ^ {*map(tuple, found.edges)}):
        yield f"{'no' if edge in set(expected.edges) else 'an'} edge {edge[0]!r} -> {edge[1]!r}"
    for name in sorted(expected.nodes.keys() ^ found.nodes.keys()):
        yield f"{'no' if name in expected.nodes else 'a'} node {name!r}"
    for name in sorted(expected.nodes.keys() & found.nodes.keys()):
        ours, theirs = (vars(graph.nodes[name]) for graph in (expected, found))
        if type(expected.nodes[name]) is not type(found.nodes[name]):
            yield f"a {type(found.nodes[name]).__name__} as node {name!r}"
            continue
        for field in sorted(ours.keys() - {"metadata", "input_type", "output_type"}):
            if not _close(ours[field], theirs.get(field)):
                yield f"another {field} for {name}"
    for key in Metadata.from_graph(found).time_differences(Metadata.from_graph(expected)):
        yield f"another {key} in its metadata"


def _close(ours: Any, theirs: Any) -> bool:
    one, other = np.asarray(ours), np.asarray(theirs)
    if np.array_equal(one, other):
        return True
    numbers = one.dtype.kind in "fiu" and other.dtype.kind in "fiu" and one.shape == other.shape
    return numbers and bool(
        np.isclose(other, one, rtol=CLOSE, atol=CLOSE * np.abs(one).max(initial=0)).all()
    )


class _Values:
    """The outputs `[T, B, ...]` of a graph's nodes, each computed by the interpreter from those
    that it reads, when asked for.

    One that no reader of the graph and nobody of `wanted` still waits for is dropped.
    """

    def __init__(self, graph: nir.NIRGraph, inputs: Array, wanted: set[str]) -> None:
        self.flow = check_graph(graph, shape=inputs.shape[2:])
        self.loops = find_subtractive_resets(self.flow)
        self.membranes = {loop.threshold: membrane for membrane, loop in self.loops.items()}
        self.outputs: dict[str, Array] = {self.flow.entry: inputs}
        self.waiting = {name: len(readers) for name, readers in self.flow.readers.items()}
        self.wanted = wanted
        self.trains: dict[str, Array] = {}  # of every neuron computed so far

    def __getitem__(self, name: str) -> Array:
        # a node, one that it reads, ...; no recursion, as the graph of somebody else may be deep
        path = [name]
        while path:
            needed = next(
                (source for source in self._reads(path[-1]) if source not in self.outputs), None
            )
            if needed in path:
                raise ExportError(
                    f"NIR node {needed!r} lies on a loop that is no reset by subtraction"
                )
            if needed is None or path[-1] in self.outputs:
                self._compute(path.pop())
            else:
                path.append(needed)
        found = self.outputs[name]
        self.wanted.discard(name)
        self._drop(name)
        return found

    def _reads(self, name: str) -> tuple[str, ...]:
        """What a node, or the neuron whose spikes it gives, reads."""
        membrane = self.membranes.get(name)
        if membrane is None:
            return self.flow.sources[name]
        return tuple(
            source for source in self.flow.sources[membrane] if source != self.loops[membrane].delay
        )

    def _compute(self, name: str) -> None:
        if name in self.outputs:
            return
        sources, node = self._reads(name), self.flow.nodes[name]
        total = self.outputs[sources[0]]
        for source in sources[1:]:
            total = np.add(total, self.outputs[source], dtype=np.float64)
        found = run(
            self._alone(name), total, dtype=np.float32 if isinstance(node, WEIGHTED) else np.float64
        )[name]
        if isinstance(node, NEURONS):
            self.trains[name] = found.astype(bool)
            found = found.astype(np.float32)
        self.outputs[name] = found
        for source in sources:
            self.waiting[source] -= 1
            self._drop(source)

    def _drop(self, name: str) -> None:
        # The loop of a reset reads the spikes too, inside of the neuron.
        inside = sum(name == loop.threshold for loop in self.loops.values())
        if self.waiting[name] <= inside and name not in self.wanted:
            self.outputs.pop(name, None)

    def _alone(self, name: str) -> nir.NIRGraph:
        """A graph of this node between an `Input` and an `Output`, with the loop that resets it if
        it has one.
        """
        names: tuple[str, ...] = (name,)
        edges = [("in", name), (name, "out")]
        if membrane := self.membranes.get(name):
            loop = self.loops[membrane]
            names = (membrane, loop.threshold, loop.scale, loop.delay)
            edges = [
                ("in", membrane),
                *zip(names, (*names[1:], membrane), strict=True),
                (name, "out"),
            ]
        ends = {"in": nir.Input({"input": None}), "out": nir.Output({"output": None})}
        nodes = ends | {name: self.flow.nodes[name] for name in names}
        return nir.NIRGraph(nodes, edges, metadata={"dt": self.flow.dt}, type_check=False)


@torch.inference_mode()
def _compare(expected: ExportedGraph, values: _Values, images: Tensor) -> Iterator[LayerCheck]:
    # by path, [N, ...]: the graph's own value where it has one
    known: dict[str, Tensor] = {INPUT: images}
    last_use = {path: i for i, call in enumerate(expected.calls) for path in call.inputs}
    for i, call in enumerate(expected.calls):
        inputs = [known[path] for path in call.inputs]
        if isinstance(call.module, EXACT):
            output = _exact(call.module)(*(x.double() for x in inputs))
        else:
            output = call.module(*(x.float() for x in inputs))
        if reading := expected.readings.get(call.path):
            found = _read(values, reading, output.shape)
            yield _line(call, found, output, isinstance(values.flow.nodes[reading.node], NEURONS))
            output = found[: len(output)]
        known[call.path] = output
        known = {path: value for path, value in known.items() if last_use.get(path, -1) > i}


def _exact(module: nn.Module) -> nn.Module:
    module = copy.deepcopy(module).double()
    if isinstance(module, Lif):
        module.fused = False  # the fused path computes in float32
    return module


def _read(values: _Values, reading: OutputMapping, shape: torch.Size) -> Tensor:
    """`[T*B, ...]`, or `[B, ...]` where the reading is over time, in the module's shape."""
    value = values[reading.node]
    value = value.mean(0) if reading.over_time else value.reshape(-1, *value.shape[2:])
    if reading.factor != 1:
        value = value * value.dtype.type(reading.factor)
    if reading.shift is not None:
        value = value + reading.shift
    return torch.from_numpy(value).reshape(-1, *shape[1:])


def _line(call: Call, found: Tensor, expected: Tensor, neuron: bool) -> LayerCheck:
    """`expected` may be that of a single step, where it is the same at every step."""
    expected = expected.expand(len(found) // len(expected), *expected.shape).flatten(0, 1)
    wrong = int((found != expected).sum()) if neuron else 0
    deviation = (
        0.0 if neuron else float((found - expected).abs().max() / expected.std().clamp_min(1e-12))
    )
    return LayerCheck(
        call.path,
        neuron,
        len(expected),
        expected.numel(),
        wrong,
        deviation,
        int(found.count_nonzero()) if neuron else 0,
    )
