"""The same images give the same integers from torch, onnxruntime and the NIR interpreter."""

import json

import nir
import numpy as np
import onnx
import pytest
import torch
from support.networks import exact, lively
from test_energy_counting import chain, graph, lif

from export.energy import COUNTS, count, estimate, executor
from export.energy.executors.onnx import OnnxExecutor
from export.nir.exporter import to_nir
from export.nir.writer import write_graph
from export.onnx.exporter import to_onnx
from zoo.errors import ConfigError, InputError

TINY = {"widths": (4, 6, 8)}
FAMILIES = [
    ("danet20-t2.fmnist", TINY),
    # a BatchNorm of a sum is a Scale in one dialect of NIR and a convolution in the other
    ("danet20b-t2.fmnist", TINY),
    ("danet20c-t2.fmnist", TINY),
    ("danet20d-t2.fmnist", TINY),
    ("sew-resnet18-t2.in1k", {"widths": (4, 6, 8, 8), "num_classes": 5}),
    ("sew-resnet20iand-t2.fmnist", TINY),
    ("ms-resnet20-t2.fmnist", TINY),
    ("spiking-resnet20-t2.fmnist", TINY),
    ("speck-danet8-t4.fmnist", TINY),
]


COUNTED = (
    "kind",
    "input_bound",
    "counts",
    "events",
    "step_spikes",
    "dense_macs_padded",
    "connections",
    "dense_adds",
    "weight_bytes",
    "state_bytes",
    "activation_bytes",
)


def integers(layers):
    """All that is counted of every layer, by its name."""
    return {layer.name: [getattr(layer, key) for key in COUNTED] for layer in layers}


@pytest.mark.parametrize(
    ("name", "config"),
    [FAMILIES[0], *(pytest.param(*family, marks=pytest.mark.slow) for family in FAMILIES[1:])],
)
def test_three_executors_and_both_dialects(tmp_path, name, config):
    """On dyadic weights, no sum is rounded, so that no spike depends on who computes it."""
    size = 32 if "in1k" in name else 16
    model = exact(name, size, **config)
    images = (
        torch.randint(
            -8,
            9,
            (3, model.config.in_channels, size, size),
            generator=torch.Generator().manual_seed(1),
        )
        / 8
    )
    onnx.save(to_onnx(model), tmp_path / "model.onnx")
    write_graph(to_nir(model, dialect="portable"), tmp_path / "portable.nir")
    reports = [
        estimate(what, images, batch=2)
        for what in (
            model,
            tmp_path / "model.onnx",
            to_nir(model, dialect="native"),
            tmp_path / "portable.nir",
        )
    ]
    first = integers(reports[0].layers)
    assert reports[0].total("acs") and reports[0].total("spikes")
    for report in reports[1:]:
        assert integers(report.layers) == first
        assert [e.total for e in report.energies] == [e.total for e in reports[0].energies]
        # which of modules does not depend on how a graph writes them
        for convention in ("exact", "syops"):
            ours, theirs = (r.operations[convention].by_image for r in (reports[0], report))
            assert {kind: n.tolist() for kind, n in ours.items()} == {
                kind: n.tolist() for kind, n in theirs.items()
            }
    assert [report.source.engine.split()[0] for report in reports] == [
        "torch",
        "onnxruntime",
        "NIR",
        "NIR",
    ]
    assert {report.source.name for report in reports} == {model.known_origin.name}


def test_teacher_forced_counts_are_equal_where_spikes_are_not(tmp_path):
    """Structures agree even where a borderline spike differs: the spikes of one executor count the
    same on another's graph.
    """
    model = lively("danet20-t2.fmnist", 20, **TINY)
    onnx.save(to_onnx(model), tmp_path / "model.onnx")
    runs = [executor(model), executor(tmp_path / "model.onnx"), executor(to_nir(model))]
    _, spikes = runs[0].run(torch.randn(2, 1, 20, 20, generator=torch.Generator().manual_seed(3)))
    rows = [count(run.layers, spikes) for run in runs]
    for ours, *theirs in zip(*rows, strict=True):
        for row in theirs:
            assert all(np.array_equal(getattr(ours, key), getattr(row, key)) for key in COUNTS), (
                row.name
            )


def test_events(tmp_path):
    """A network of an event camera, in torch and the interpreter; its first layer reads counts."""
    model = exact("speck-danet8-t4.nmnist", 12, **TINY)
    frames = torch.randint(
        0, 3, (4, 3, 2, 12, 12), generator=torch.Generator().manual_seed(1)
    ).float()
    one, two = (estimate(what, frames, [0, 1, 2], batch=2) for what in (model, to_nir(model)))
    assert integers(one.layers) == integers(two.layers)
    stem = one.layers[0]
    assert (stem.input_kind, stem.input_bound, stem.counts["macs"]) == ("integer", 255, 0)
    assert sum(v * n for v, n in enumerate(stem.events, 1)) == int(frames.sum())
    with pytest.raises(InputError, match=r"takes \[4, B, 2, 12, 12\]"):
        estimate(model, frames[:3])
    with pytest.raises(InputError, match="emits values that are no spikes"):
        estimate(model, frames / 2)


def test_a_graph_of_somebody_else():
    """Without a word about T or its input: whole numbers are events, others currents, and one more
    axis is time.
    """
    node = nir.Conv2d(None, np.ones((4, 2, 3, 3), np.float32), 1, 1, 1, 1, np.zeros(4, np.float32))
    network = chain((2, 6, 6), node, lif(4, 6, 6))
    still = estimate(network, torch.rand(3, 2, 6, 6), steps=5)
    assert (still.steps, still.images, still.accuracy, still.source.data) == (5, 3, None, None)
    assert still.layers[0].counts["macs"] == 3 * still.layers[0].connections
    assert "input" not in network.metadata  # which is nobody's but the caller's
    frames = estimate(network, torch.rand(5, 3, 2, 6, 6), steps=5)
    assert frames.layers[0].counts["macs"] == 3 * 5 * frames.layers[0].connections
    events = estimate(network, torch.randint(0, 3, (5, 3, 2, 6, 6)), steps=5)
    assert events.layers[0].counts["macs"] == 0 and events.layers[0].counts["acs"]
    with pytest.raises(ConfigError, match="for how many time steps it runs: give their number"):
        estimate(network, torch.rand(3, 2, 6, 6))


def test_what_would_be_ignored_or_is_no_tensor_is_refused():
    model, images = lively("danet20-t2.fmnist", 16, **TINY), torch.rand(1, 1, 16, 16)
    with pytest.raises(InputError, match="steps = 5 is for a NIR graph: a model and"):
        estimate(model, images, steps=5)
    with pytest.raises(InputError, match="images are a ndarray: give a tensor, as"):
        estimate(model, images.numpy())


def test_graphs_that_cannot_be_counted(tmp_path):
    ones = np.ones((2, 3, 3), np.float32)
    ends = {
        "input": nir.Input({"input": np.array([2, 3, 3])}),
        "output": nir.Output({"output": np.array([2, 3, 3])}),
    }
    membrane = graph(
        ends | {"m": nir.LI(*[ones] * 3)}, [("input", "m"), ("m", "output")], {"steps": 2}
    )
    write_graph(membrane, tmp_path / "membrane.nir")
    with pytest.raises(
        InputError, match="'m' is a LI, whose operations cannot be counted; valid are Input"
    ):
        estimate(tmp_path / "membrane.nir", torch.rand(1, 2, 3, 3))
    odd = chain((2, 3, 3), lif(2, 3, 3), metadata={"steps": 2, "data": json.dumps({"tag": "x"})})
    with pytest.raises(InputError, match="metadata name no data set that can be used"):
        estimate(odd, torch.rand(1, 2, 3, 3))
    with pytest.raises(ConfigError, match="time steps"):
        estimate(chain((2, 3, 3), lif(2, 3, 3), metadata={"steps": "many"}), torch.rand(1, 2, 3, 3))


def test_onnxruntime_hands_over_whole_trains_only_where_they_are_needed(tmp_path):
    for name, needed in (("danet20-t2.fmnist", {"head_lif"}), ("sew-resnet20-t2.fmnist", None)):
        model = lively(name, 20, **TINY)
        onnx.save(to_onnx(model), tmp_path / "model.onnx")
        run = OnnxExecutor(tmp_path / "model.onnx")
        assert run.keep == needed or (needed is None and len(run.keep) > 3)
        _, spikes = run.run(torch.randn(2, 1, 20, 20))
        assert spikes.trains.keys() == run.keep and spikes.pixels.keys() == set(run.neurons)


def test_a_network_without_spikes_is_refused():
    nodes = {
        "input": nir.Input({"input": np.array([5])}),
        "matrix": nir.Linear(np.ones((3, 5), np.float32)),
    }
    graph = nir.NIRGraph(
        nodes | {"output": nir.Output({"output": np.array([3])})},
        [("input", "matrix"), ("matrix", "output")],
    )
    with pytest.raises(
        InputError, match="has neither neurons nor events: there are no spikes to count"
    ):
        estimate(graph, torch.ones(2, 1, 5))
