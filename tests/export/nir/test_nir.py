"""What the exporter writes: names, shapes, encodings, metadata, and what it refuses. That it
computes the model is for `test_verify_nir.py`.
"""

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import nir
import numpy as np
import pytest
import torch
from support.networks import lively
from torch import nn

import zoo
from export.nir import exporter
from export.nir.exporter import DT, node_name, to_nir
from export.nir.interpreter import run
from export.prepare.fold import still_image
from export.prepare.trace import trace
from zoo.blocks import Add
from zoo.errors import ExportError
from zoo.neurons import Lif

SMALL = {"widths": (4, 6, 8)}
NAMES = [
    "danet20",
    "danet20b",
    "danet20c",
    "danet20d",
    "sew-resnet20",
    "spiking-resnet20",
    "ms-resnet20",
    "speck-danet8",
]


def kinds(graph: nir.NIRGraph) -> dict[str, int]:
    return Counter(type(node).__name__ for node in graph.nodes.values())


def test_stem_pools_are_part_of_the_graph() -> None:
    """ImageNet's average pool, and SEW's max pool of spikes as a pool and a neuron that fires for
    any spike.
    """
    for name, pool in (("danet18-t2", "stem_pool"), ("sew-resnet18-t2", "stem_pool_share")):
        graph = to_nir(lively(name, 33, depths=(1, 1), widths=(4, 6)))
        assert [n for n, v in graph.nodes.items() if isinstance(v, nir.AvgPool2d)] == [pool]


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
    graph = to_nir(lively("danet20-t2.fmnist", 12, depths=(3, 1, 1), **SMALL))
    into = {a for a, b in graph.edges if b == "stage1_block2_lif1"}
    assert into == {"stem_conv", "stage1_block0_conv2", "stage1_block1_conv2"}
    into = {a for a, b in graph.edges if b == "stage2_block0_lif1"}
    assert into == {
        "stem_conv",
        "stage1_block0_conv2",
        "stage1_block1_conv2",
        "stage1_block2_conv2",
        "stage1_link0_conv",
    }


def inhibited(model: nn.Module) -> None:
    model.get_submodule("stage1.block0.lif1").neuron.inhibition = True


def silenced(model: nn.Module) -> None:
    model.set_submodule("stage1.block0.lif2", nn.Identity())


def learnt(model: nn.Module) -> None:
    model.set_submodule("stage1.block0.conv1", nn.PReLU(4))


@pytest.mark.parametrize(
    ("name", "config", "change", "message"),
    [
        (
            "sew-resnet20and-t2.fmnist",
            {},
            silenced,
            r"stage1.block0.add: NIR has no And but .*use the additive join",
        ),
        (
            "sew-resnet20iand-t2.fmnist",
            {},
            silenced,
            r"stage1.block0.add: NIR has no IAnd but .*use the additive join",
        ),
        (
            "danet20-t2.fmnist",
            {"stem": "sew"},
            None,
            r"stem.pool: NIR has no MaxPool2d but .*use an average pool",
        ),
        ("danet20b-t2.fmnist", {"beta": 1.0}, None, "a decay of 1 has no LIF in NIR"),
        ("danet20-t2.fmnist", {}, inhibited, "snn.Leaky with inhibition=True has no exact export"),
        ("danet20-t2.fmnist", {}, learnt, "torch.PReLU has no export"),
    ],
)
def test_what_nir_cannot_say_is_refused_by_name(
    name: str, config: dict[str, Any], change: Callable[[nn.Module], None] | None, message: str
) -> None:
    model = lively(name, 12, **SMALL, **config)
    if change:
        change(model)
    with pytest.raises(ExportError, match=message):
        to_nir(model, dialect="native")


@pytest.mark.parametrize("name", NAMES[:-1])
def test_the_portable_dialect_has_what_importers_take(name: str) -> None:
    """Neither an IF, which snnTorch refuses with a gain, nor a Scale; and the neurons fire as in
    the native one.
    """
    model = lively(f"{name}-t2.fmnist", 12, **SMALL)
    portable, native = to_nir(model), to_nir(model, dialect="native")
    assert portable.metadata["dialect"] == "portable" and native.metadata["dialect"] == "native"
    assert {"Input", "Conv2d", "LIF", "SumPool2d", "Flatten", "Affine", "Output"} == kinds(
        portable
    ).keys()
    assert portable.edges == native.edges and portable.nodes.keys() == native.nodes.keys()
    other = {"danet20b": "Scale", "sew-resnet20": "IF", "spiking-resnet20": "IF"}.get(name, "LIF")
    assert other in kinds(native)
    x = np.random.default_rng(0).standard_normal((2, 3, 1, 12, 12))
    one, another = (run(graph, x, dtype=np.float64) for graph in (portable, native))
    for key, node in native.nodes.items():
        if isinstance(node, nir.LIF | nir.IF):
            assert np.array_equal(one[key], another[key]) and one[key].any(), key


@pytest.mark.parametrize(("beta", "membrane"), [(1.0, nir.I), (0.5, nir.LI)])
def test_reset_by_subtraction_is_a_current_one_step_later(beta: float, membrane: type) -> None:
    model = lively("danet20c-t2.fmnist", 12, **SMALL, beta=beta, threshold=0.75, reset="subtract")
    graph = to_nir(model)
    assert graph.metadata["dialect"] == "subtract" and not {"LIF", "IF"} & kinds(graph).keys()
    name = "stage1_block0_lif2"
    parts = {part: graph.nodes[f"{name}_{part}"] for part in ("membrane", "reset", "delay")}
    assert type(parts["membrane"]) is membrane and parts["membrane"].metadata == {
        "beta": beta,
        "threshold": 0.75,
    }
    assert (graph.nodes[name].threshold == 0.75 * (1 if beta == 1 else 1 - beta)).all()
    assert (parts["reset"].scale == -0.75).all() and (parts["delay"].delay == DT).all()
    loop = [f"{name}_membrane", name, f"{name}_reset", f"{name}_delay", f"{name}_membrane"]
    assert {*pairwise(loop)} <= set(graph.edges)
    assert {b for a, b in graph.edges if a == f"{name}_membrane"} == {name}


@pytest.mark.parametrize(
    ("word", "operator"), [("and", torch.mul), ("iand", lambda a, b: (1 - a) * b)]
)
def test_a_product_of_spikes_is_a_neuron_without_memory(
    word: str, operator: Callable[..., torch.Tensor]
) -> None:
    """Every pair of spikes, after every other: nothing of a step is left for the next."""
    graph = to_nir(lively(f"sew-resnet20{word}-t2.fmnist", 12, **SMALL))
    node = graph.nodes["stage1_block0_add"]
    once = nir.LIF(
        **{
            key: np.asarray(getattr(node, key)).flat[:1]
            for key in ("tau", "r", "v_leak", "v_reset", "v_threshold")
        }
    )
    # [all sequences, T, operand]
    pairs = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6).view(-1, 3, 2)
    branch, shortcut = pairs.unbind(2)
    x = branch + shortcut if word == "and" else shortcut - branch
    alone = nir.NIRGraph.from_list(
        nir.Input({"input": np.array([1])}), once, nir.Output({"output": np.array([1])})
    )
    found = run(alone, x.T[:, :, None].numpy())["output"][:, :, 0]
    assert np.array_equal(found, operator(branch, shortcut).T.numpy())


def test_a_sum_of_very_many_terms_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = lively("danet20-t2.fmnist", 12, **SMALL, depths=(6, 2, 2))
    direct = to_nir(model)
    monkeypatch.setattr(exporter, "MAX_TERMS", 3)
    graph = to_nir(model)
    assert direct.metadata["sums"] == "edges" and kinds(direct)["Flatten"] == 1
    assert graph.metadata["sums"] == "edges; of more than 3 terms through a Flatten of one axis"
    gathered = {
        name
        for name, node in graph.nodes.items()
        if isinstance(node, nir.Flatten) and name != "head_readout"
    }
    assert {"stage1_block2_add", "stage1_block5_add"} < gathered and len(graph.edges) < len(
        direct.edges
    )
    fan_in = Counter(b for _, b in graph.edges)
    assert max(fan_in[name] for name, node in graph.nodes.items() if isinstance(node, nir.LIF)) == 3
    x = np.random.default_rng(0).standard_normal((2, 3, 1, 12, 12))
    assert np.array_equal(
        run(graph, x, dtype=np.float64)["output"], run(direct, x, dtype=np.float64)["output"]
    )


def test_metadata_say_what_a_receiver_has_to_know() -> None:
    model = zoo.load("danet20-t4.fmnist")
    graph = to_nir(model)
    assert model.origin is not None
    assert graph.metadata | {"data": 0, "modules": 0} == {
        "name": "danet20-t4.fmnist",
        "data": 0,
        "weights_sha256": zoo.info("danet20-t4.fmnist").weights.files["model.safetensors"].sha256,
        "precision": "float32",
        "zoo_version": zoo.__version__,
        "dt": DT,
        "steps": 4,
        "dialect": "portable",
        "sums": "edges",
        "input": "still image, every step",
        "readout": "mean over steps",
        "modules": 0,
    }
    modules = json.loads(graph.metadata["modules"])
    assert (
        modules["stem_conv"] == "Conv2d BatchNorm2d"
        and modules["stage2_block0_shortcut_conv"] == "SamePool Conv2d BatchNorm2d"
    )
    assert json.loads(graph.metadata["data"]) == json.loads(json.dumps(model.origin.data.to_dict()))
    neurons = [node for node in graph.nodes.values() if isinstance(node, nir.LIF)]
    assert len(neurons) == 19 and all(
        node.metadata == {"beta": 0.5, "threshold": 1.0} for node in neurons
    )


def test_metadata_of_neurons_that_differ_are_arrays() -> None:
    model = lively("danet20-t2.fmnist", 12, **SMALL)
    beta = torch.linspace(0.25, 0.75, 4)[:, None, None]
    model.get_submodule("stage1.block0.lif1").neuron.beta = beta
    node = to_nir(model).nodes["stage1_block0_lif1"]
    assert (
        np.array_equal(node.metadata["beta"], np.broadcast_to(beta.numpy(), (4, 12, 12)))
        and node.metadata["threshold"] == 1
    )


def test_every_sum_of_the_model_reaches_the_graph() -> None:
    """Fan-in of the graph = terms of the model's sums: no skip connection is lost."""
    model = lively("danet20-t2.fmnist", 12, **SMALL)
    calls = trace(model, still_image(model))
    terms: dict[str, int] = {}
    for call in calls:
        terms[call.path] = (
            sum(terms.get(p, 1) for p in call.inputs) if isinstance(call.module, Add) else 1
        )
        if type(call.module).__name__ in ("Repeat", "BatchNorm2d"):
            terms[call.path] = 1
    graph = to_nir(model)
    for call in calls:
        if isinstance(call.module, Lif):
            assert (
                sum(b == node_name(call.path) for _, b in graph.edges) == terms[call.inputs[0]]
            ), call.path
