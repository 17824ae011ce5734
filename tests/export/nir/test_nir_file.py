"""Files of graphs and spike trains: whole, verified, and no larger than they have to be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from support.networks import lively

from export.nir import writer as nir_file
from export.nir.exporter import DT, to_nir
from export.nir.interpreter import run
from export.nir.writer import trains_path, write_graph, write_nir
from zoo.errors import ExportError, VerificationError

SMALL = {"widths": (4, 6, 8)}


@pytest.mark.parametrize(
    "name", ["danet20b-t2.fmnist", "sew-resnet20iand-t2.fmnist", "speck-danet8-t2.fmnist"]
)
def test_the_file_is_what_nir_itself_would_write(name: str, tmp_path: Path) -> None:
    graph = to_nir(lively(name, 12, **SMALL))
    write_graph(graph, tmp_path / "ours.nir")
    nir.write(tmp_path / "theirs.nir", graph)
    ours, theirs = (nir.read(tmp_path / f"{who}.nir") for who in ("ours", "theirs"))
    assert ours.edges == theirs.edges == graph.edges and ours.metadata == theirs.metadata
    assert nir.serialization.read_version(tmp_path / "ours.nir") == nir.version
    assert set(ours.nodes) == set(theirs.nodes) == set(graph.nodes)
    for key, node in theirs.nodes.items():
        expected, found = (n.to_dict() for n in (node, ours.nodes[key]))
        assert expected.keys() == found.keys() and type(node) is type(ours.nodes[key])
        for field, value in expected.items():
            assert np.array_equal(np.asarray(value), np.asarray(found[field])), f"{key}.{field}"


def test_a_file_is_hardly_larger_than_the_weights(tmp_path: Path) -> None:
    """Neurons have five full-sized parameters, and a pool repeats the weights of its convolution up
    to 64 times.
    """
    model = lively("danet18-t2", 64, widths=(32, 64, 128, 256))
    write_graph(to_nir(model), tmp_path / "model.nir")
    assert (tmp_path / "model.nir").stat().st_size < 1.2 * sum(
        4 * p.numel() for p in model.parameters()
    )


def test_trains_are_the_spikes_of_the_graph(tmp_path: Path) -> None:
    model, path = lively("danet20-t4.fmnist", 12, **SMALL), tmp_path / "model.nir"
    images = torch.randn(3, 1, 12, 12)
    result = write_nir(model, path, images)
    assert (
        result.ok
        and result.images == 3
        and "35 nodes, 47 edges; verified at batch 3" in str(result)
    )
    data = nir.read_data(trains_path(path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.nir", "model.trains.nir"]
    given = data.nodes.pop("input").observables["input"]
    assert given.dt == DT and given.shape == (3, 4, 144)  # [B, T, elements]
    x = given.data.swapaxes(0, 1).reshape(4, 3, 1, 12, 12)
    assert np.array_equal(x, np.broadcast_to(images.numpy(), x.shape))
    graph = nir.read(path)
    assert set(data.nodes) == {
        name for name, node in graph.nodes.items() if isinstance(node, nir.LIF)
    }
    outputs = run(graph, x, dtype=np.float64)
    for name, node in data.nodes.items():
        spikes = node.observables["spikes"].data
        assert spikes.dtype == bool and spikes.any()
        # From end to end, a borderline spike may fall to the other side, as here weights are
        # float32 and there float64.
        assert (spikes != outputs[name].swapaxes(0, 1).reshape(3, 4, -1)).mean() < 1e-3, name


def test_what_is_refused_leaves_no_file(tmp_path: Path) -> None:
    model = lively("danet20-t2.fmnist", 12, **SMALL)
    model.get_submodule("stage1.block0.lif1").neuron.inhibition = True
    with pytest.raises(ExportError, match=r"inhibition=True has no exact export"):
        write_nir(model, tmp_path / "model.nir")
    assert not list(tmp_path.iterdir())


def weights(graph: nir.NIRGraph) -> None:
    graph.nodes["head_fc"].weight = graph.nodes["head_fc"].weight * 1.001


def edge(graph: nir.NIRGraph) -> None:
    graph.edges.remove(("stage1_link0_conv", "stage2_block0_lif1"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (weights, "another weight for head_fc"),
        (edge, "no edge 'stage1_link0_conv' -> 'stage2_block0_lif1'"),
    ],
)
def test_a_damaged_file_is_noticed_before_it_has_its_name(
    damage: Callable[[nir.NIRGraph], None],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def damaged(graph: nir.NIRGraph, path: Any) -> None:
        damage(graph)
        write_graph(graph, path)

    monkeypatch.setattr(nir_file, "write_graph", damaged)
    (tmp_path / "model.nir").write_text("an older one")
    with pytest.raises(VerificationError, match=message):
        write_nir(lively("danet20-t2.fmnist", 12, **SMALL), tmp_path / "model.nir")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["an older one"]
