"""Model and graph agree at every neuron, and whatever is changed in the graph is noticed."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from support.networks import lively

from export.nir.exporter import Dialect, to_nir
from export.nir.graph import check_graph
from export.nir.interpreter import run
from export.nir.verify import verify_graph, verify_nir
from export.nir.writer import write_graph
from export.prepare.quantize import WeightFormat, quantize_weights
from zoo.errors import ExportError, VerificationError, ZooError

SMALL = {"widths": (4, 6, 8)}
NAMES = [
    *("danet20", "danet20b", "danet20c", "danet20d", "speck-danet8"),
    *("sew-resnet20", "sew-resnet20and", "sew-resnet20iand", "spiking-resnet20", "ms-resnet20"),
]


@pytest.mark.parametrize(
    ("size", "steps"),
    [
        (13, 4),
        *(pytest.param(*other, marks=pytest.mark.slow) for other in ((12, 4), (12, 8), (13, 8))),
    ],
)
@pytest.mark.parametrize("dialect", ["portable", "native"])
@pytest.mark.parametrize("name", NAMES)
def test_every_neuron_spikes_as_in_the_model(
    name: str, dialect: Dialect, size: int, steps: int
) -> None:
    model = lively(f"{name}-t{steps}.fmnist", size, **SMALL)
    graph = to_nir(model, dialect=dialect)
    result = verify_graph(model, graph, torch.randn(3, 1, size, size))
    assert result.ok, result.worst()
    assert result.batches == (3,) and result.neuron_layers >= 9 and result.deviation < 1e-5
    spiking = [
        node for node in graph.nodes.values() if isinstance(node, nir.LIF | nir.IF | nir.Threshold)
    ]
    assert len(result.trains) == len(spiking) >= result.neuron_layers
    for name, train in result.trains.items():
        assert train.shape[:2] == (steps, 3) and train.any(), (
            f"{name} is silent: nothing was compared"
        )


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("danet18-t2", {"widths": (4, 6)}),  # an average pool of currents
        ("danet18-t2", {"widths": (8, 16), "bottleneck": True}),
        ("sew-resnet18-t2", {"widths": (4, 6)}),  # a max pool of spikes
        ("ms-resnet104-t2", {"widths": (4, 6)}),  # a stem of three convolutions
        ("danet18-t2.tin200", {"widths": (4, 6)}),
        (
            "danet18c-t2.tin200",
            {"widths": (4, 6), "beta": 0.75, "threshold": 0.5, "reset": "subtract"},
        ),
    ],
)
def test_stems_and_bottlenecks(name: str, config: dict[str, Any]) -> None:
    model = lively(name, 33, depths=(1, 2), **config)
    assert (result := verify_graph(model, to_nir(model))).ok, result.worst()


def test_the_loop_of_a_reset_is_run_as_it_stands() -> None:
    """From end to end in the interpreter, every step of the loop through its delay, against the
    model in float64.
    """
    model = lively("speck-danet8-t8.fmnist", 12, **SMALL)
    x = np.random.default_rng(0).standard_normal((2, 1, 12, 12))
    outputs = run(to_nir(model), np.broadcast_to(x, (8, *x.shape)), dtype=np.float64)
    found = outputs["output"].mean(0)
    with torch.inference_mode():
        np.testing.assert_allclose(found, model.double()(torch.from_numpy(x)).numpy(), atol=1e-5)


def without_each_edge(graph: nir.NIRGraph) -> Iterator[tuple[tuple[str, str], nir.NIRGraph]]:
    for edge in graph.edges:
        rest = [e for e in graph.edges if e != edge]
        yield edge, nir.NIRGraph(graph.nodes, rest, metadata=graph.metadata, type_check=False)


@pytest.mark.parametrize(
    "name",
    [
        "speck-danet8",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("danet20", "danet20b", "sew-resnet20iand", "ms-resnet20")
        ),
    ],
)
def test_no_edge_can_be_deleted_unnoticed(name: str) -> None:
    model = lively(f"{name}-t4.fmnist", 12, **SMALL)
    for edge, graph in without_each_edge(to_nir(model)):
        try:
            result = verify_graph(model, graph)
        except ZooError:  # a node that reads nothing, or is not reached
            continue
        assert not result.ok and f"no edge {edge[0]!r} -> {edge[1]!r}" in result.changed_parameters
        # Not only as a difference of the graphs: where the sum has other terms left, spikes differ
        # too.
        assert any(not check.ok for check in result.checks), edge


def other_weight(graph: nir.NIRGraph) -> None:
    weight = graph.nodes["stage1_block0_conv1"].weight.copy()
    weight[0, 0, 0, 0] *= 1.0001
    graph.nodes["stage1_block0_conv1"].weight = weight


def other_threshold(graph: nir.NIRGraph) -> None:
    node = graph.nodes["stage2_block0_lif1"]
    node.v_threshold = node.v_threshold * np.float32(1.00001)


def other_type(graph: nir.NIRGraph) -> None:
    node = graph.nodes["stage2_block0_lif1"]
    graph.nodes["stage2_block0_lif1"] = nir.IF(node.r * 1e4, node.v_threshold, node.v_reset)


def other_edge(graph: nir.NIRGraph) -> None:
    graph.edges.append(("stage1_block0_conv1", "stage1_block1_lif1"))


def other_steps(graph: nir.NIRGraph) -> None:
    graph.metadata["steps"] = 4


def rename(graph: nir.NIRGraph, name: str) -> None:
    graph.nodes["renamed"] = graph.nodes.pop(name)
    graph.edges[:] = [
        tuple("renamed" if end == name else end for end in edge) for edge in graph.edges
    ]


def array_as_steps(graph: nir.NIRGraph) -> None:
    graph.metadata["steps"] = np.array([2, 2])


def other_name(graph: nir.NIRGraph) -> None:
    rename(graph, "stage1_block0_lif2")


def other_readout(graph: nir.NIRGraph) -> None:
    rename(graph, "head_readout")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_weight, "it has another weight for stage1_block0_conv1"),
        (other_threshold, "it has another v_threshold for stage2_block0_lif1"),
        (other_type, "it has a IF as node 'stage2_block0_lif1'"),
        (other_edge, "it has an edge 'stage1_block0_conv1' -> 'stage1_block1_lif1'"),
        (other_steps, "it has another steps in its metadata"),
        (array_as_steps, "it has another steps in its metadata"),
        (other_name, "it has no value for stage1.block0.lif2"),
        (other_readout, "it has no value for head.readout"),
    ],
)
def test_what_was_changed_is_said(change: Callable[[nir.NIRGraph], None], message: str) -> None:
    model = lively("danet20-t2.fmnist", 12, **SMALL)
    graph = to_nir(model)
    change(graph)
    result = verify_graph(model, graph)
    assert not result.ok and result.worst() == message and f"NOT verified: {message}" in str(result)


def test_another_model_is_noticed() -> None:
    model, other = (
        lively("danet20-t2.fmnist", 12, widths=widths) for widths in ((4, 6, 8), (4, 6, 10))
    )
    with pytest.raises(VerificationError, match="cannot be run as this model"):
        verify_graph(other, to_nir(model))


@pytest.mark.parametrize("precision", ["int8", "int8-layer"])
def test_a_file_of_rounded_weights_is_compared_with_the_rounded_model(
    precision: WeightFormat, tmp_path: Path
) -> None:
    model = lively("speck-danet8-t2.fmnist", 12, **SMALL)
    write_graph(to_nir(quantize_weights(model, precision)), tmp_path / "model.nir")
    assert verify_nir(model, tmp_path / "model.nir").ok


@pytest.mark.parametrize(
    "said", [None, "small", np.array([1.0, 2.0])], ids=["none", "small", "array"]
)
def test_a_graph_of_somebody_else_is_no_export(said: Any) -> None:
    model = lively("danet20-t2.fmnist", 12, **SMALL)
    graph = to_nir(model)
    graph.metadata["dialect"] = said
    with pytest.raises(
        ExportError,
        match=r"say dialect = .*; an export of the zoo says one of portable, native, subtract",
    ):
        verify_graph(model, graph)


def test_values_are_dropped_when_nobody_needs_them() -> None:
    """Of a deep network, only what is still to be read is held."""
    from export.nir import verify as module

    held: list[int] = []
    compute = module._Values._compute

    def counting(self: Any, name: str) -> None:
        compute(self, name)
        held.append(len(self.outputs))

    model = lively("danet20-t2.fmnist", 12, **SMALL)
    graph = to_nir(model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module._Values, "_compute", counting)
        assert verify_graph(model, graph).ok
    assert len(held) >= len(check_graph(graph).nodes) - 1 and max(held) < 12 and held[-1] <= 2
