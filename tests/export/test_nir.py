"""The graph is run by a second, independent reading of NIR's equations, in float64, and must give the model's logits and spikes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from networks import lively
from torch import Tensor
from torch.nn import functional as F

from export.fold import still_image
from export.nir import DT, node_name, to_nir, write_nir
from export.trace import trace
from zoo.blocks import Add
from zoo.errors import ExportError, VerificationError
from zoo.neurons import Lif

SMALL = {"widths": (4, 6, 8)}
NAMES = ["danet20", "danet20b", "danet20c", "danet20d", "sew-resnet20", "spiking-resnet20", "ms-resnet20"]


def run(graph: nir.NIRGraph, x: Tensor, steps: int) -> tuple[Tensor, dict[str, Tensor]]:
    """`x` `[B, C, H, W]` at every step -> mean output `[B, K]`, and each neuron's spikes `[T, B, C, H, W]`."""
    order, waiting = ["input"], set(graph.nodes) - {"input"}
    sources = {name: [a for a, b in graph.edges if b == name] for name in graph.nodes}
    while waiting:
        ready = {n for n in waiting if set(sources[n]) <= set(order)}
        assert ready, "the graph has a cycle"
        order += sorted(ready)
        waiting -= ready
    state: dict[str, Tensor] = {}
    spikes: dict[str, list[Tensor]] = {}
    outputs = []
    for _ in range(steps):
        values = {"input": x}
        for name in order[1:]:
            current = torch.stack([values[s] for s in sources[name]]).sum(0)
            values[name] = node(name, graph.nodes[name], current, state)
            if isinstance(graph.nodes[name], nir.LIF | nir.IF):
                spikes.setdefault(name, []).append(values[name])
        outputs.append(values["output"])
    return torch.stack(outputs).mean(0), {name: torch.stack(s) for name, s in spikes.items()}


def node(name: str, n: Any, x: Tensor, state: dict[str, Tensor]) -> Tensor:
    def p(value: Any) -> Tensor:
        return torch.from_numpy(np.asarray(value, np.float64))

    match n:
        case nir.LIF():
            v = state.get(name, torch.zeros_like(x))
            v = v + DT / p(n.tau) * (p(n.v_leak) - v + p(n.r) * x)
        case nir.IF():
            v = state.get(name, torch.zeros_like(x)) + DT * p(n.r) * x
        case nir.Conv2d():
            return F.conv2d(x, p(n.weight), p(n.bias), n.stride, n.padding, n.dilation, n.groups)
        case nir.SumPool2d():
            kernel = [int(k) for k in n.kernel_size]
            return F.avg_pool2d(x, kernel, n.stride.tolist(), n.padding.tolist()) * kernel[0] * kernel[1]
        case nir.Scale():
            return x * p(n.scale)
        case nir.Flatten():
            return x.flatten(1)
        case nir.Affine():
            return F.linear(x, p(n.weight), p(n.bias))
        case nir.Output():
            return x
        case _:
            raise AssertionError(type(n))
    z = (v > p(n.v_threshold)).double()
    state[name] = torch.where(z > 0, p(n.v_reset).expand_as(v), v)
    return z


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [12, 13])
def test_the_graph_computes_the_model(name: str, size: int) -> None:
    model = lively(f"{name}-t4.fmnist", size, **SMALL)
    graph = to_nir(model)
    x = torch.randn(3, 1, size, size, dtype=torch.float64)
    expected: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if isinstance(module, Lif):
            module.fused = False  # the fused path computes in float32
            module.register_forward_hook(lambda m, a, out, path=path: expected.update({node_name(path): out.unflatten(0, (4, -1))}))
    model.double()
    with torch.inference_mode():
        logits, spikes = run(graph, x, steps=4)
        torch.testing.assert_close(logits, model(x), atol=1e-5, rtol=0)
    assert set(spikes) == set(expected)
    for path, train in expected.items():
        assert train.sum() > 0, f"{path} is silent: nothing was compared"
        assert torch.equal(spikes[path], train), path


def test_stem_pools_are_part_of_the_graph() -> None:
    """ImageNet's average pool, and SEW's max pool of spikes as a sum pool and a neuron that fires for any spike."""
    for name, pools in (("danet18-t2", {"stem_pool"}), ("sew-resnet18-t2", {"stem_pool_sum"})):
        model = lively(name, 33, depths=(1, 1), widths=(4, 6))
        graph = to_nir(model)
        assert pools <= {n for n, v in graph.nodes.items() if isinstance(v, nir.SumPool2d)}
        x = torch.randn(2, 3, 33, 33, dtype=torch.float64)
        for module in model.modules():
            if isinstance(module, Lif):
                module.fused = False
        with torch.inference_mode():
            torch.testing.assert_close(run(graph, x, steps=2)[0], model.double()(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_names_and_shapes_are_what_importers_accept(name: str) -> None:
    model = lively(f"{name}-t2.fmnist", 12, **SMALL)
    graph = to_nir(model)
    for key, value in graph.nodes.items():
        assert key.isidentifier() and key == key.lower()
        if isinstance(value, nir.LIF | nir.IF):
            assert value.v_threshold.shape == value.r.shape and len(value.r.shape) == 3
        if isinstance(value, nir.Conv2d):
            assert value.input_shape is not None and value.bias.shape == value.weight.shape[:1]
    assert len(set(graph.edges)) == len(graph.edges)


def test_a_sum_is_edges() -> None:
    """In order a, the neuron after a block reads everything that the stream has gathered so far."""
    graph = to_nir(lively("danet20-t2.fmnist", 12, **SMALL))
    into = {a for a, b in graph.edges if b == "stage1_block2_lif1"}
    assert into == {"stem_conv", "stage1_block0_conv2", "stage1_block1_conv2"}
    into = {a for a, b in graph.edges if b == "stage2_block0_lif1"}
    assert into == {"stem_conv", "stage1_block0_conv2", "stage1_block1_conv2", "stage1_block2_conv2", "stage1_link0_conv"}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("sew-resnet20and-t2.fmnist", None, "NIR has no product of spikes"),
        ("sew-resnet20iand-t2.fmnist", None, "NIR has no product of spikes"),
        ("danet20-t2.fmnist", lambda m: setattr(m.stage1.block0.lif1.neuron, "inhibition", True), "only snn.Leaky with zero reset"),
        ("danet20-t2.fmnist", lambda m: setattr(m.stage1.block0, "conv1", torch.nn.PReLU(4)), "PReLU has no NIR form"),
    ],
)
def test_what_nir_cannot_say_is_refused_by_name(
    name: str, change: Callable[..., None] | None, message: str, tmp_path: Path
) -> None:
    model = lively(name, 12, **SMALL)
    if change:
        change(model)
    with pytest.raises(ExportError, match=message):
        write_nir(model, tmp_path / "model.nir")
    assert not list(tmp_path.iterdir())


def test_the_written_file_is_the_graph(tmp_path: Path) -> None:
    model = lively("danet20b-t2.fmnist", 12, **SMALL)
    graph = write_nir(model, tmp_path / "model.nir")
    again = nir.read(tmp_path / "model.nir")
    assert set(again.nodes) == set(graph.nodes) and set(again.edges) == set(graph.edges)
    assert again.metadata["steps"] == 2 and again.metadata["dt"] == DT
    assert [p.name for p in tmp_path.iterdir()] == ["model.nir"]


def test_a_damaged_file_is_noticed_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = nir.read

    def damaged(path: Path) -> nir.NIRGraph:
        graph = read(path)
        graph.nodes["head_fc"].weight = graph.nodes["head_fc"].weight * 1.0000001
        return graph

    monkeypatch.setattr(nir, "read", damaged)
    with pytest.raises(VerificationError, match=r"head_fc\.weight"):
        write_nir(lively("danet20-t2.fmnist", 12, **SMALL), tmp_path / "model.nir")
    assert not list(tmp_path.iterdir())


def test_every_sum_of_the_model_reaches_the_graph() -> None:
    """Fan-in of the graph = terms of the model's sums: no skip connection is lost."""
    model = lively("danet20-t2.fmnist", 12, **SMALL)
    calls = trace(model, still_image(model))
    terms: dict[str, int] = {}
    for call in calls:
        terms[call.path] = sum(terms.get(p, 1) for p in call.inputs) if isinstance(call.module, Add) else 1
        if type(call.module).__name__ in ("Repeat", "BatchNorm2d"):
            terms[call.path] = 1
    graph = to_nir(model)
    for call in calls:
        if isinstance(call.module, Lif):
            assert sum(b == node_name(call.path) for _, b in graph.edges) == terms[call.inputs[0]], call.path
