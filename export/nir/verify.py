"""A NIR graph compared with its model: each module is given the graph's own values.

The interpreter computes the graph node by node. Neurons and sums are computed in float64 on both
sides, where the order of a sum decides no spike. What no spike may show, an edge from a silent
layer or a parameter off by little, is found by comparing the graph with that of the model.
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
from export.nir.graph import check_graph
from export.nir.interpreter import run
from export.nir.nodes import SPIKING, nodes_of
from export.nir.reader import read_nir
from export.prepare.fold import noise
from export.prepare.quantize import as_weight_format, quantize_weights
from export.prepare.trace import INPUT, Call
from export.verification import LayerCheck, Verification
from zoo.activity import eval_mode
from zoo.arrays import Array
from zoo.blocks import Add, And, IAnd
from zoo.danet import DANet, Repeat
from zoo.errors import ExportError, InputError, VerificationError, first_line
from zoo.neurons import Lif

__all__ = ["NirVerification", "verify_graph", "verify_nir"]

EXACT = Lif | nn.BatchNorm2d | Add | And | IAnd  # modules that are computed in float64
FLOAT32 = nodes_of("linear", "pool")  # nodes that are computed in float32
# Relative, of parameters: machines differ in how they round the folding of a BatchNorm.
PARAMETER_TOLERANCE = 1e-6


@dataclass(frozen=True)
class NirVerification(Verification):
    """The result of a comparison, on which images, and the spikes of the graph."""

    inputs: Array  # [B, C, H, W]
    trains: dict[str, Array]  # of every node of neurons, [T, B, ...], bool
    nodes: int
    edges: int

    def __str__(self) -> str:
        return f"{self.nodes} nodes, {self.edges} edges; {super().__str__()}"


def verify_nir(model: DANet, path: str | Path, images: Tensor | None = None) -> NirVerification:
    """Compare the NIR file at `path` with `model` on `images`.

    `images` are normalised `[B, C, H, W]`, or events `[T, B, C, H, W]`; two images of noise if none
    are given. A file of rounded
    weights is compared with the model rounded likewise. Raises `InputError` for what is no NIR
    file, and `ExportError` for a graph that is not sound.
    """
    graph = read_nir(path)
    weight_format = Metadata.from_graph(graph).exported_weight_format()
    return verify_graph(quantize_weights(model, as_weight_format(weight_format)), graph, images)


def verify_graph(
    model: DANet, graph: nir.NIRGraph, images: Tensor | None = None
) -> NirVerification:
    """Compare a graph in memory with `model`, which is what it has to be, rounded or not.

    `images` are as in `verify_nir`. Raises `ExportError` for a graph that is not sound, and
    `VerificationError` for one that cannot be run as this model.
    """
    dialect = Metadata.from_graph(graph).exported_dialect()
    expected = export_model(model, "portable" if dialect == "portable" else "native")
    x = noise(model, 2) if images is None else images
    batch = x.shape[-4]
    values = _Values(
        graph,
        np.broadcast_to(x.numpy(), (model.config.steps, *x.shape[-4:])),
        needed={"output", *(mapping.node for mapping in expected.readings.values())},
    )
    missing = tuple(
        path
        for path, mapping in expected.readings.items()
        if mapping.node not in values.checked.nodes
    )
    changed = tuple(_differences(expected.graph, graph))
    checks: tuple[LayerCheck, ...] = ()
    same = 0
    if not missing:
        try:
            checks = tuple(_compare(expected, values, x))
        except (ExportError, InputError, RuntimeError) as error:
            raise VerificationError(
                f"the graph cannot be run as this model: {first_line(error)}"
            ) from None
        with eval_mode(model), torch.inference_mode():
            predicted = model(x).argmax(1).numpy()
        same = int((predicted == values["output"].mean(0).argmax(-1)).sum())
    size = {"nodes": len(graph.nodes), "edges": len(graph.edges)}
    return NirVerification(
        checks, missing, changed, (batch,), same, batch, x.numpy(), values.trains, **size
    )


def _differences(expected: nir.NIRGraph, graph: nir.NIRGraph) -> Iterator[str]:
    """Name what `graph` has and should not have, or has not and should.

    The order of nodes and edges means nothing.
    """
    for edge in sorted({*map(tuple, expected.edges)} ^ {*map(tuple, graph.edges)}):
        yield f"{'no' if edge in set(expected.edges) else 'an'} edge {edge[0]!r} -> {edge[1]!r}"
    for name in sorted(expected.nodes.keys() ^ graph.nodes.keys()):
        yield f"{'no' if name in expected.nodes else 'a'} node {name!r}"
    for name in sorted(expected.nodes.keys() & graph.nodes.keys()):
        ours, theirs = (vars(either.nodes[name]) for either in (expected, graph))
        if type(expected.nodes[name]) is not type(graph.nodes[name]):
            yield f"a {type(graph.nodes[name]).__name__} as node {name!r}"
            continue
        for field in sorted(ours.keys() - {"metadata", "input_type", "output_type"}):
            if not _close(ours[field], theirs.get(field)):
                yield f"another {field} for {name}"
    for key in Metadata.from_graph(graph).time_differences(Metadata.from_graph(expected)):
        yield f"another {key} in its metadata"


def _close(ours: Any, theirs: Any) -> bool:
    """Return whether two fields of a node differ by no more than rounding."""
    one, other = np.asarray(ours), np.asarray(theirs)
    if np.array_equal(one, other):
        return True
    numbers = one.dtype.kind in "fiu" and other.dtype.kind in "fiu"
    if not numbers or one.shape != other.shape:
        return False
    atol = PARAMETER_TOLERANCE * np.abs(one).max(initial=0)
    return bool(np.isclose(other, one, rtol=PARAMETER_TOLERANCE, atol=atol).all())


class _Values:
    """The outputs `[T, B, ...]` of a graph's nodes, computed when they are asked for.

    The interpreter computes each node from those that it reads. An output that no reader in the
    graph still waits for, and that is not `needed`, is dropped.
    """

    def __init__(self, graph: nir.NIRGraph, inputs: Array, needed: set[str]) -> None:
        self.checked = check_graph(graph, shape=inputs.shape[2:])
        self.resets = self.checked.resets_by_spikes
        self.outputs: dict[str, Array] = {self.checked.entry: inputs}
        self.waiting = {name: len(readers) for name, readers in self.checked.readers.items()}
        for name, reset in self.resets.items():
            self.waiting[name] = len(reset.readers)  # The loop is inside of the neuron.
        self.needed = needed
        self.trains: dict[str, Array] = {}  # of every neuron computed so far

    def __getitem__(self, name: str) -> Array:
        # A node, one that it reads, ...; no recursion, as the graph of somebody else may be deep.
        path = [name]
        while path:
            source = next(
                (s for s in self.checked.neuron_sources(path[-1]) if s not in self.outputs), None
            )
            if source in path:
                raise ExportError(
                    f"NIR node {source!r} lies on a loop that is no reset by subtraction"
                )
            if source is None or path[-1] in self.outputs:
                self._compute(path.pop())
            else:
                path.append(source)
        output = self.outputs[name]
        self.needed.discard(name)
        self._drop(name)
        return output

    def _compute(self, name: str) -> None:
        if name in self.outputs:
            return
        sources, kind = self.checked.neuron_sources(name), type(self.checked.nodes[name])
        total = self.outputs[sources[0]]
        for source in sources[1:]:
            total = np.add(total, self.outputs[source], dtype=np.float64)
        dtype = np.float32 if kind in FLOAT32 else np.float64
        output = run(self._alone(name), total, dtype=dtype)[name]
        if kind in SPIKING:
            self.trains[name] = output.astype(bool)
            output = output.astype(np.float32)
        self.outputs[name] = output
        for source in sources:
            self.waiting[source] -= 1
            self._drop(source)

    def _drop(self, name: str) -> None:
        if self.waiting[name] <= 0 and name not in self.needed:
            self.outputs.pop(name, None)

    def _alone(self, name: str) -> nir.NIRGraph:
        """Return a graph of this node, with the loop that resets it, between Input and Output."""
        names: tuple[str, ...] = (name,)
        edges = [("in", name), (name, "out")]
        if reset := self.resets.get(name):
            names = (reset.membrane, reset.threshold, reset.scale, reset.delay)
            loop = zip(names, (*names[1:], reset.membrane), strict=True)
            edges = [("in", reset.membrane), *loop, (name, "out")]
        ends = {"in": nir.Input({"input": None}), "out": nir.Output({"output": None})}
        nodes = ends | {name: self.checked.nodes[name] for name in names}
        return nir.NIRGraph(nodes, edges, metadata={"dt": self.checked.dt}, type_check=False)


@torch.inference_mode()
def _compare(expected: ExportedGraph, values: _Values, images: Tensor) -> Iterator[LayerCheck]:
    """Compare the output of each module that is in the graph, in the order of the calls.

    These are of a still image `[B, C, H, W]`; events `[T, B, C, H, W]` are not repeated.
    """
    # By path, [N, ...]: the graph's own value where it has one.
    outputs: dict[str, Tensor] = {INPUT: images.flatten(0, -4)}
    last_use = {path: i for i, call in enumerate(expected.calls) for path in call.inputs}
    for i, call in enumerate(expected.calls):
        inputs = [outputs[path] for path in call.inputs]
        if isinstance(call.module, Repeat) and images.dim() == 5:
            (output,) = inputs
        elif isinstance(call.module, EXACT):
            output = _exact(call.module)(*(x.double() for x in inputs))
        else:
            output = call.module(*(x.float() for x in inputs))
        if mapping := expected.readings.get(call.path):
            value = _mapped(values, mapping, output.shape)
            spikes = type(values.checked.nodes[mapping.node]) in SPIKING
            yield _layer_check(call, value, output, spikes=spikes)
            output = value[: len(output)]
        outputs[call.path] = output
        outputs = {path: value for path, value in outputs.items() if last_use.get(path, -1) > i}


def _exact(module: nn.Module) -> nn.Module:
    """Return a copy that computes in float64."""
    module = copy.deepcopy(module).double()
    if isinstance(module, Lif):
        module.fused = False  # the fused path computes in float32
    return module


def _mapped(values: _Values, mapping: OutputMapping, shape: torch.Size) -> Tensor:
    """Return a module's output as the graph has it: `[T*B, ...]`, or `[B, ...]` if over time."""
    value = values[mapping.node]
    value = value.mean(0) if mapping.over_time else value.reshape(-1, *value.shape[2:])
    if mapping.factor != 1:
        value = value * value.dtype.type(mapping.factor)
    if mapping.shift is not None:
        value = value + mapping.shift
    return torch.from_numpy(value).reshape(-1, *shape[1:])


def _layer_check(call: Call, value: Tensor, expected: Tensor, *, spikes: bool) -> LayerCheck:
    """Compare two outputs; `expected` may be of one step, if it is the same at every step."""
    steps = len(value) // len(expected)
    expected = expected.expand(steps, *expected.shape).flatten(0, 1)
    return LayerCheck.compare(
        call.path, value.numpy(), expected.numpy(), batch=len(expected), is_neuron=spikes
    )
