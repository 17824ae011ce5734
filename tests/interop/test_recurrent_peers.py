"""Recurrent networks that snnTorch writes give the spikes of its own modules when we read them.

Other importers give the same spikes, where they read such files.
"""

import re
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

THRESHOLD = 1.001  # no membrane comes to lie on it, where simulators differ
OPTIONS: Any = {"reset_mechanism": "zero", "reset_delay": False, "init_hidden": True}
LATER: Any = {"reset_mechanism": "none", "reset_delay": True}
X = torch.randint(-2, 13, (16, 1, 3), generator=torch.Generator().manual_seed(0)) / 8


def eighths(*shape: int, seed: int) -> nn.Parameter:
    """Return random multiples of an eighth, whose sums are exact."""
    return nn.Parameter(
        torch.randint(-6, 9, shape, generator=torch.Generator().manual_seed(seed)) / 8
    )


def recurrent(kind: type, *, bias: bool, all_to_all: bool = True) -> Any:
    """Return a recurrent neuron of snnTorch, with a matrix or one weight for each of four."""
    # RSynaptic refers to a state that it was not given where it resets at once, so `modules` resets
    # it.
    decays = {"beta": 0.5} if kind is snn.RLeaky else {"alpha": 0.5, "beta": 0.5} | LATER
    options = OPTIONS | {"threshold": THRESHOLD} | decays
    if not all_to_all:
        return kind(V=eighths(4, seed=1).data, all_to_all=False, **options)
    neuron = kind(linear_features=4, **options)
    neuron.recurrent.weight = eighths(4, 4, seed=1)
    neuron.recurrent.bias = nn.Parameter(eighths(4, seed=2).data + 1 if bias else torch.zeros(4))
    return neuron


def linear(inputs: int, outputs: int, seed: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    layer.weight = eighths(outputs, inputs, seed=seed)
    layer.bias = eighths(outputs, seed=seed + 5)
    return layer


def network(neuron: Any) -> nn.Sequential:
    threshold = torch.full((2,), THRESHOLD)
    readout = snn.Leaky(torch.full((2,), 0.5), threshold=threshold, **OPTIONS)
    return nn.Sequential(linear(3, 4, seed=3), neuron, linear(4, 2, seed=4), readout)


def modules(net: nn.Sequential) -> Tensor:
    """Return the spikes of snnTorch's own modules."""
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
    """Return the spikes of a network that another simulator has read."""
    state, outputs = None, []
    with torch.inference_mode():
        for x in X:
            out, state = module(x, state)
            outputs.append(out)
    return torch.stack(outputs)


def written(net: nn.Sequential, path: Path) -> Path:
    """Write a network by snnTorch's exporter.

    A recurrent neuron and its weights become two nodes that read each other.
    """
    deprecated = "nirtorch.extract_nir_graph is being deprecated"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", deprecated, DeprecationWarning)
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
    """A neuron may be a graph of its own, as snnTorch exports a single module."""
    net = network(recurrent(kind, bias=True, all_to_all=all_to_all))
    nodes = {"input": nir.Input(np.array([3])), "output": nir.Output(np.array([2]))}
    nodes |= {f"n{i}": _extract_snntorch_module(module) for i, module in enumerate(net)}
    assert isinstance(nodes["n1"], nir.NIRGraph)
    edges = [*pairwise(["input", "n0", "n1", "n2", "n3", "output"])]
    nir.write(tmp_path / "x.nir", nir.NIRGraph(nodes, edges))
    expected = modules(net)
    assert 0.2 < expected.mean() < 0.8
    assert torch.equal(zoo.from_nir(tmp_path / "x.nir")(X), expected)
    assert np.array_equal(run(read_nir(tmp_path / "x.nir"), X.numpy())["output"], expected)
    assert write_nir_onnx(read_nir(tmp_path / "x.nir"), tmp_path / "x.onnx", name="x").ok


@pytest.mark.parametrize("kind", [snn.Leaky, snn.Synaptic])
def test_scalars_of_snntorch_hold_for_a_whole_layer(kind: type, tmp_path: Path) -> None:
    """A layer with one beta is read, although nir's own type check refuses what snnTorch writes."""
    decays = {"beta": 0.5} if kind is snn.Leaky else {"alpha": 0.5, "beta": 0.5}
    net = nn.Sequential(linear(3, 2, seed=3), kind(**decays, **OPTIONS))
    # the shapes have an axis for the batch
    nodes = {"input": nir.Input(np.array([1, 3])), "output": nir.Output(np.array([1, 2]))}
    nodes |= {f"n{i}": _extract_snntorch_module(module) for i, module in enumerate(net)}
    edges = [*pairwise(["input", "n0", "n1", "output"])]
    graph = nir.NIRGraph(nodes, edges, type_check=False)
    nir.write(tmp_path / "x.nir", graph, compression=None)
    with pytest.raises(ValueError, match="type mismatch"):
        nir.read(tmp_path / "x.nir")
    expected = modules(net)
    assert expected.any() and torch.equal(zoo.from_nir(tmp_path / "x.nir")(X), expected)


RINGS = {
    "first": "input>first first>on on>second second>back back>first second>output",
    "itself": "input>first first>first first>output",
    "a shared sum": "input>on on>first first>back back>on first>output",
}


@pytest.mark.parametrize("ring", RINGS.values(), ids=RINGS)
@pytest.mark.parametrize("letters", ["abcd", "dcba", "bdac"])
def test_the_delayed_edge_of_a_ring_is_that_of_nirtorch(
    ring: str, letters: str, tmp_path: Path
) -> None:
    """It is so whatever the nodes are called, which decides in which order nirtorch visits them."""
    name_of = dict(zip(("first", "on", "second", "back"), letters, strict=True))
    ones = np.ones(3, np.float32)
    first, second = (
        nir.LIF(2e-4 * ones, 2 * ones, 0 * ones, np.float32(THRESHOLD) * ones, 0 * ones)
        for _ in range(2)
    )
    on, back = (nir.Linear(eighths(3, 3, seed=seed).detach().numpy()) for seed in (1, 6))
    edges = [tuple(name_of.get(end, end) for end in edge.split(">")) for edge in ring.split()]
    kinds = {"first": first, "second": second, "on": on, "back": back}
    used = re.split("[> ]", ring)
    nodes = {name_of[key]: node for key, node in kinds.items() if key in used}
    nodes |= {"input": nir.Input(np.array([3])), "output": nir.Output(np.array([3]))}
    nir.write(tmp_path / "x.nir", nir.NIRGraph(nodes, edges, type_check=False))
    expected = imported(read_by_nirtorch(tmp_path / "x.nir"))
    assert expected.any() and not expected.all()
    assert torch.equal(imported(read_by_spikingjelly(tmp_path / "x.nir")), expected)
    assert torch.equal(zoo.from_nir(tmp_path / "x.nir")(X), expected)
