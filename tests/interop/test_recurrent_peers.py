"""Recurrent networks of snnTorch, written by snnTorch: our reading gives the spikes of its modules,
and of other importers.
"""

import warnings
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import snntorch as snn
import torch
from interop.importers import read_by_nirtorch, read_by_spikingjelly
from snntorch.export_nir import _extract_snntorch_module, export_to_nir
from snntorch.import_nir import import_from_nir
from snntorch.utils import reset
from torch import Tensor, nn

import zoo
from export.nir.interpreter import run
from export.nir.reader import read_nir
from export.onnx.from_nir import write_nir_onnx

THRESHOLD = 1.001  # on which no membrane comes to lie: simulators differ there
OPTIONS: Any = {"reset_mechanism": "zero", "reset_delay": False, "init_hidden": True}
LATER: Any = {"reset_mechanism": "none", "reset_delay": True}
X = torch.randint(-2, 13, (16, 1, 3), generator=torch.Generator().manual_seed(0)) / 8


def eighths(*shape: int, seed: int) -> nn.Parameter:
    """Numbers that no sum rounds."""
    return nn.Parameter(
        torch.randint(-6, 9, shape, generator=torch.Generator().manual_seed(seed)) / 8
    )


def recurrent(kind: type, *, bias: bool, all_to_all: bool = True) -> Any:
    # RSynaptic refers to a state that it was not given where it resets at once, so `modules` resets
    # it.
    options = OPTIONS | (
        {"beta": 0.5} if kind is snn.RLeaky else {"alpha": 0.5, "beta": 0.5} | LATER
    )
    if not all_to_all:
        return kind(V=eighths(4, seed=1).data, all_to_all=False, threshold=THRESHOLD, **options)
    neuron = kind(linear_features=4, threshold=THRESHOLD, **options)
    neuron.recurrent.weight = eighths(4, 4, seed=1)
    neuron.recurrent.bias = (
        nn.Parameter(eighths(4, seed=2).data + 1) if bias else nn.Parameter(torch.zeros(4))
    )
    return neuron


def network(neuron: Any) -> nn.Sequential:
    net = nn.Sequential(
        nn.Linear(3, 4),
        neuron,
        nn.Linear(4, 2),
        snn.Leaky(torch.full((2,), 0.5), threshold=torch.full((2,), THRESHOLD), **OPTIONS),
    )
    for place, seed in ((0, 3), (2, 4)):
        layer: Any = net[place]
        layer.weight, layer.bias = (
            eighths(*layer.weight.shape, seed=seed),
            eighths(*layer.bias.shape, seed=seed + 5),
        )
    return net


def modules(net: nn.Sequential) -> Tensor:
    """The spikes of snnTorch's own modules."""
    reset(net)
    outputs = []
    with torch.inference_mode():
        for x in X:
            for module in net:
                x = module(x)
                if isinstance(module, snn.RSynaptic):
                    module.mem = module.mem * (1 - x)
            outputs.append(x)
    return torch.stack(outputs)


def imported(module: nn.Module) -> Tensor:
    state, outputs = None, []
    with torch.inference_mode():
        for x in X:
            out, state = module(x, state)
            outputs.append(out)
    return torch.stack(outputs)


def written(net: nn.Sequential, path: Path) -> Path:
    """By snnTorch's exporter, which gives the neuron and its weights as two nodes that read each
    other.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "nirtorch.extract_nir_graph is being deprecated", DeprecationWarning
        )
        nir.write(path, export_to_nir(net, X[0, 0]))
    return path


@pytest.mark.parametrize("all_to_all", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_rleaky(bias: bool, all_to_all: bool, tmp_path: Path) -> None:
    net = network(recurrent(snn.RLeaky, bias=bias, all_to_all=all_to_all))
    expected, path = modules(net), written(net, tmp_path / "x.nir")
    assert 0.2 < expected.mean() < 0.8
    graph = read_nir(path)
    assert ("1.lif", "1.w_rec") in graph.edges and ("1.w_rec", "1.lif") in graph.edges
    assert torch.equal(zoo.from_nir(path)(X), expected)
    assert np.array_equal(run(graph, X.numpy())["output"], expected)
    assert write_nir_onnx(graph, tmp_path / "x.onnx", name="x").ok
    with pytest.raises(AttributeError, match="no attribute 'items'"):
        # snnTorch wraps the cycle in a graph, which nirtorch 2.6 does not take
        import_from_nir(nir.read(path))
    # nirtorch delays the weighted current instead of the spikes: the bias comes a step later than
    # in snnTorch.
    others = [imported(read(path)) for read in (read_by_nirtorch, read_by_spikingjelly)]
    assert torch.equal(others[0], others[1])
    assert torch.equal(others[0], expected) == (not (bias and all_to_all))


@pytest.mark.parametrize("all_to_all", [True, False])
@pytest.mark.parametrize("kind", [snn.RLeaky, snn.RSynaptic])
def test_nested_graphs(kind: type, all_to_all: bool, tmp_path: Path) -> None:
    """As snnTorch gives one neuron module: a graph of its own."""
    net = network(recurrent(kind, bias=True, all_to_all=all_to_all))
    nodes = {"input": nir.Input(np.array([3])), "output": nir.Output(np.array([2]))}
    nodes |= {f"n{i}": _extract_snntorch_module(module) for i, module in enumerate(net)}
    assert isinstance(nodes["n1"], nir.NIRGraph)
    way = ["input", "n0", "n1", "n2", "n3", "output"]
    nir.write(tmp_path / "x.nir", nir.NIRGraph(nodes, [*pairwise(way)]))
    expected = modules(net)
    assert 0.2 < expected.mean() < 0.8
    assert torch.equal(zoo.from_nir(tmp_path / "x.nir")(X), expected)
    assert np.array_equal(run(read_nir(tmp_path / "x.nir"), X.numpy())["output"], expected)
    assert write_nir_onnx(read_nir(tmp_path / "x.nir"), tmp_path / "x.onnx", name="x").ok


@pytest.mark.parametrize("kind", [snn.Leaky, snn.Synaptic])
def test_scalars_of_snntorch_hold_for_a_whole_layer(kind: type, tmp_path: Path) -> None:
    """What its exporter writes of one beta for a layer, and nir's own type check refuses."""
    neuron: Any = kind(
        **({"beta": 0.5} if kind is snn.Leaky else {"alpha": 0.5, "beta": 0.5}), **OPTIONS
    )
    net = nn.Sequential(nn.Linear(3, 2), neuron)
    layer: Any = net[0]
    layer.weight, layer.bias = eighths(2, 3, seed=3), eighths(2, seed=8)
    # with an axis of the batch
    nodes = {"input": nir.Input(np.array([1, 3])), "output": nir.Output(np.array([1, 2]))}
    nodes |= {f"n{i}": _extract_snntorch_module(module) for i, module in enumerate(net)}
    way = ["input", "n0", "n1", "output"]
    nir.write(
        tmp_path / "x.nir",
        nir.NIRGraph(nodes, [*pairwise(way)], type_check=False),
        compression=None,
    )
    with pytest.raises(ValueError, match="type mismatch"):
        nir.read(tmp_path / "x.nir")
    expected = modules(net)
    assert expected.any() and torch.equal(zoo.from_nir(tmp_path / "x.nir")(X), expected)


RING = {
    "first": [
        ("input", "first"),
        ("first", "on"),
        ("on", "second"),
        ("second", "back"),
        ("back", "first"),
        ("second", "output"),
    ],
    "itself": [("input", "first"), ("first", "first"), ("first", "output")],
    "a shared sum": [
        ("input", "on"),
        ("on", "first"),
        ("first", "back"),
        ("back", "on"),
        ("first", "output"),
    ],
}


@pytest.mark.parametrize("which", RING)
@pytest.mark.parametrize(
    "names", [("a", "b", "c", "d"), ("d", "c", "b", "a"), ("b", "d", "a", "c")]
)
def test_the_late_edge_of_a_ring_is_that_of_nirtorch(
    which: str, names: tuple[str, ...], tmp_path: Path
) -> None:
    """Whatever the nodes are called, which decides the order in which nirtorch visits them."""
    named = dict(zip(("first", "on", "second", "back"), names, strict=True))
    ones = np.ones(3, np.float32)
    lif = [
        nir.LIF(2e-4 * ones, 2 * ones, 0 * ones, np.float32(THRESHOLD) * ones, 0 * ones)
        for _ in range(2)
    ]
    weights = [nir.Linear(eighths(3, 3, seed=seed).detach().numpy()) for seed in (1, 6)]
    kinds = dict(zip(("first", "second", "on", "back"), (*lif, *weights), strict=True))
    edges = [tuple(named.get(end, end) for end in edge) for edge in RING[which]]
    used = {end for edge in RING[which] for end in edge}
    nodes = {named[key]: node for key, node in kinds.items() if key in used}
    nodes |= {"input": nir.Input(np.array([3])), "output": nir.Output(np.array([3]))}
    nir.write(tmp_path / "x.nir", nir.NIRGraph(nodes, edges, type_check=False))
    expected = imported(read_by_nirtorch(tmp_path / "x.nir"))
    assert expected.any() and not expected.all()
    assert torch.equal(imported(read_by_spikingjelly(tmp_path / "x.nir")), expected)
    assert torch.equal(zoo.from_nir(tmp_path / "x.nir")(X), expected)
