"""Networks read from NIR: against the interpreter node by node, against the zoo's models gradient
by gradient, and trained.
"""

import copy
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import snntorch as snn
import torch
from snntorch import surrogate
from support.networks import exact, lively
from support.nir_graphs import DT, KINDS, a, chain, grown, kinds, neuron
from torch import nn

import zoo
from export.nir.exporter import node_name, to_nir
from export.nir.interpreter import run
from export.nir.network import NirNetwork
from export.prepare.fold import fold
from zoo.arrays import Array
from zoo.errors import ExportError, InputError
from zoo.neurons import Lif
from zoo.surrogates import ATan, Rectangle

SMALL = {"widths": (4, 6, 8)}
DANETS = ["danet20", "danet20b", "danet20c", "danet20d", "speck-danet8"]
BASELINES = ["sew-resnet20", "spiking-resnet20", "ms-resnet20"]
NAMES = [*DANETS, *BASELINES, "sew-resnet20and", "sew-resnet20iand"]
SPIKING = (nir.IF, nir.LIF, nir.CubaLIF, nir.Threshold)


def assert_as_interpreted(graph: nir.NIRGraph, x: Array, **options: Any) -> NirNetwork:
    """Equal spikes of every neuron, equal values of every other node but for the order of a
    convolution's sum.
    """
    expected = run(graph, x, **{key: value for key, value in options.items() if key == "dt"})
    network = zoo.from_nir(graph, **options)
    found = network.run(torch.from_numpy(np.ascontiguousarray(x, np.float32)))
    assert found.keys() == expected.keys() == network.names.keys()
    for name, values in expected.items():
        value = found[name].detach().numpy()
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, values, rtol=1e-5, atol=1e-5, err_msg=name)
        if isinstance(graph.nodes.get(name), SPIKING):
            assert np.array_equal(value, values), name
    return network


# Node by node


SHAPES: list[tuple[int, ...]] = [(4,), (2, 6), (2, 5, 6)]


@pytest.mark.parametrize("steps", [4, 8])
@pytest.mark.parametrize("loops", [0, 2])
def test_random_graphs(loops: int, steps: int) -> None:
    seen: set[type] = set()
    late = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        graph = grown(rng, SHAPES[seed % 3], 6, loops=loops)
        seen |= kinds(graph)
        x = rng.integers(-4, 9, (steps, 3, *SHAPES[seed % 3])) / 4
        late += bool(assert_as_interpreted(graph, x)._late)
    assert seen == {*KINDS, nir.Input, nir.Output}
    assert (late > 20) == (loops > 0)


@pytest.mark.parametrize("kind", KINDS[:6])
def test_a_neuron_alone_fires_as_interpreted(kind: type) -> None:
    rng = np.random.default_rng(0)
    graph = chain(neuron(kind, rng, (5, 40)), shape=(5, 40))
    values = assert_as_interpreted(graph, rng.normal(size=(8, 3, 5, 40)).astype(np.float32)).run(
        torch.ones(4, 1, 5, 40)
    )
    assert values["n0"].std() > 0


def test_what_reads_a_delay_of_many_steps_reads_zeros() -> None:
    delay = np.array([0, DT, 2.0**40])
    assert_as_interpreted(chain(nir.Delay(delay), shape=(3,)), np.ones((3, 1, 3)))


def test_dt_scalars_and_an_input_without_a_shape() -> None:
    graph = chain(nir.LI(a(1), a(2), a(0.5)), nir.Scale(np.float32(2)), shape=None)
    graph.metadata = {}
    network = assert_as_interpreted(graph, np.ones((3, 1, 2)), dt=0.5, shape=(2,))
    assert network.dt == 0.5 and network.input_shape == (2,)
    with pytest.raises(ExportError, match="declares no shape"):
        zoo.from_nir(graph)


# Reset by subtraction


def subtracts(*, theta: Any = (1.0, 1.5), scale: Any = (-1.0, -1.5), r: Any = (2.0, 2.0)) -> Any:
    graph = chain(nir.LI(a(0.5, 0.5), a(*r), a(0.25, 0)), nir.Threshold(a(*theta)))
    graph.nodes |= {"minus": nir.Scale(a(*scale)), "late": nir.Delay(a(DT, DT))}
    graph.edges += [("n1", "minus"), ("minus", "late"), ("late", "n0")]
    return graph


@pytest.mark.parametrize(
    ("graph", "fused"),
    [
        (subtracts(), True),
        (subtracts(r=(1, 1)), False),
        (subtracts(theta=(1, -1.5), scale=(-1, 1.5)), False),
    ],
    ids=["the threshold", "another current", "fires before it starts"],
)
def test_a_loop_that_subtracts_the_threshold_is_one_neuron(graph: Any, fused: bool) -> None:
    x = np.random.default_rng(0).integers(-2, 6, (8, 3, 2)) / 4
    network = assert_as_interpreted(graph, x)
    leaky: Any = network.nodes["n0"].leaky
    assert (
        leaky.reset_mechanism == ("subtract" if fused else "none") and bool(network._late) != fused
    )


# Exported networks


@pytest.mark.parametrize("steps", [4, 8])
@pytest.mark.parametrize("name", NAMES)
def test_exported_networks(name: str, steps: int, tmp_path: Path) -> None:
    model = exact(f"{name}-t{steps}.fmnist", **SMALL)
    graph = to_nir(model)
    x = torch.randint(-8, 9, (3, 1, 8, 8)) / 4
    network = assert_as_interpreted(graph, np.broadcast_to(x.numpy(), (steps, *x.shape)))
    assert not network._late, "the loops of a reset are neurons"
    assert network.names == {key: key for key in graph.nodes} and network.metadata["steps"] == steps
    with torch.inference_mode():
        torch.testing.assert_close(network(x), model(x), rtol=0, atol=1e-5)
        torch.testing.assert_close(
            network(x.expand(steps, *x.shape)).mean(0), model(x), rtol=0, atol=1e-5
        )
    nir.write(tmp_path / "model.nir", graph)
    for path in (tmp_path / "model.nir", str(tmp_path / "model.nir")):
        assert torch.equal(zoo.from_nir(path)(x), network(x))


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        *((name, {}) for name in (*DANETS, *BASELINES)),
        ("danet20c", {"reset": "subtract", "beta": 0.75, "threshold": 0.5}),
    ],
)
def test_the_gradients_are_those_of_the_model(name: str, overrides: Any) -> None:
    model = lively(f"{name}-t4.fmnist", 12, **SMALL, **overrides)
    spike_grad = Rectangle() if name.startswith("ms") else ATan()
    folded, network = (
        fold(model).double(),
        zoo.from_nir(to_nir(model), spike_grad=spike_grad).double(),
    )
    assert not network._late
    for module in folded.requires_grad_().modules():
        if isinstance(module, Lif):
            module.fused = False  # which computes in float32
    x, labels = torch.randn(4, 1, 12, 12, dtype=torch.double), torch.arange(4)
    for net in (folded, network):
        nn.functional.cross_entropy(net(x), labels).backward()
    for path, module in folded.named_modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        ours: Any = network.nodes[node_name(path)]
        assert ours.weight.grad.any() and isinstance(ours, type(module)), path
        expected: Any = module.weight.grad
        found = ours.weight.grad
        if isinstance(module, nn.Linear):  # the area of the readout is in its weights
            found = found / (3 * 3)
        # and that of a pool in those of the convolution behind it
        elif found.shape != expected.shape:
            found = found.mean((2, 3), keepdim=True)
        for one, other in (
            (found, expected),
            (ours.bias.grad, None if module.bias is None else module.bias.grad),
        ):
            if other is not None:
                torch.testing.assert_close(
                    one, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()), msg=path
                )


# Training


def toy() -> Any:
    rng = np.random.default_rng(0)
    lif = nir.LIF(*(np.full((4, 3, 3), value, np.float32) for value in (0.5, 1, 0, 0.25)))
    conv = nir.Conv2d(
        (5, 5),
        rng.normal(size=(4, 1, 3, 3)).astype(np.float32) / 2,
        1,
        0,
        1,
        1,
        np.full(4, 0.25, np.float32),
    )
    again = nir.Conv2d(
        (3, 3),
        rng.normal(size=(4, 4, 3, 3)).astype(np.float32) / 6,
        1,
        1,
        1,
        1,
        np.full(4, 0.1, np.float32),
    )
    nodes = (
        conv,
        lif,
        again,
        lif,
        nir.Flatten(None, 0, -1),
        nir.Affine(rng.normal(size=(2, 36)) / 6, np.zeros(2)),
    )
    graph = chain(
        *nodes,
        nir.CubaLI(*(np.full(2, value, np.float32) for value in (0.5, 0.5, 1, 0))),
        shape=(1, 5, 5),
    )
    graph.edges.append(("n1", "n3"))
    return graph


@pytest.mark.parametrize("spike_grad", [None, ATan(1.0), surrogate.fast_sigmoid(slope=5)])
def test_a_few_steps_of_training_lower_the_loss(spike_grad: Any) -> None:
    torch.manual_seed(0)
    network = zoo.from_nir(toy(), spike_grad=spike_grad)
    x = torch.randn(4, 16, 1, 5, 5)
    labels = (x.mean((0, 2, 3, 4)) > 0).long()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(15):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(x).mean(0), labels)
        loss.backward()
        assert all(p.grad is not None and p.grad.any() for p in network.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert len([*network.parameters()]) == 6


def test_gradients_go_round_a_loop() -> None:
    graph = chain(
        nir.Affine(a([1, 0.5], [0.5, 1]), a(0.1, 0.2)), nir.LIF(*[a(0.5, 0.5)] * 3, a(0.4, 0.4))
    )
    graph.nodes |= {"late": nir.Delay(a(DT, DT)), "back": nir.Linear(a([0, -0.5], [0.5, 0]))}
    graph.edges += [("n1", "late"), ("late", "back"), ("back", "n1")]
    network = zoo.from_nir(graph)
    network(torch.rand(6, 3, 2)).sum().backward()
    assert network._late and all(p.grad is not None and p.grad.any() for p in network.parameters())


# As a module


def test_state_and_random_numbers_are_left_alone() -> None:
    before, instances = torch.random.get_rng_state(), len(snn.SpikingNeuron.instances)
    network = zoo.from_nir(toy())
    assert (
        torch.equal(torch.random.get_rng_state(), before)
        and len(snn.SpikingNeuron.instances) == instances
    )
    x = torch.randn(4, 2, 1, 5, 5)
    first = network(x)
    assert torch.equal(network(x), first) and torch.equal(network(x[:, :1]), first[:, :1])
    assert torch.equal(copy.deepcopy(network)(x), first)


def test_the_state_dict_holds_everything() -> None:
    network, other = zoo.from_nir(toy()), zoo.from_nir(toy())
    with torch.no_grad():
        for tensor in [*network.parameters(), network.nodes["n1"].leaky.threshold]:  # type: ignore[union-attr]  # a Leaky
            tensor.mul_(1.5)
    x = torch.randn(4, 2, 1, 5, 5)
    assert not torch.equal(other(x), network(x))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other(x), network(x))
    assert {
        "nodes.n0.weight",
        "nodes.n0.bias",
        "nodes.n1.leaky.beta",
        "nodes.n1.input_gain",
    } <= network.state_dict().keys()


def test_no_two_tensors_share_memory_which_safetensors_refuse() -> None:
    for graph in (subtracts(), toy()):
        state = zoo.from_nir(graph).state_dict()
        assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


def test_other_types_and_devices() -> None:
    graph = grown(np.random.default_rng(3), (2, 5, 6), 8, loops=1)
    x = np.random.default_rng(0).integers(-4, 9, (4, 3, 2, 5, 6)) / 4
    network = zoo.from_nir(graph).double()
    found = network.run(torch.from_numpy(x))
    for name, values in run(graph, x, dtype=np.float64).items():
        np.testing.assert_allclose(found[name].detach().numpy(), values, rtol=1e-9)
    with torch.device("meta"):
        assert torch.equal(zoo.from_nir(graph).double()(torch.from_numpy(x)), found["output"])
    assert network.to("meta")(torch.from_numpy(x).to("meta")).shape == found["output"].shape


def test_any_name_is_a_key() -> None:
    names = [
        "type",
        "train",
        "a.b",
        "a_b",
        "a/b",
        "a b",
        "forward",
        "keys",
        "_modules",
        "é",
        "0",
        "training",
        "",
        "a_b_3",
        "nodes",
    ]
    random.Random(0).shuffle(names)
    graph = chain()
    graph.nodes |= {name: nir.Scale(a(1, i)) for i, name in enumerate(names)}
    way = ["input", *names, "output"]
    graph.edges = list(pairwise(way))
    network = assert_as_interpreted(graph, np.ones((2, 1, 2)))
    assert len(set(network.names.values())) == len(network.nodes) == len(way)
    assert all(network.names[name] == name for name in ("a_b", "a_b_3", "0", "é", "nodes"))
    copied = zoo.from_nir(graph)
    copied.load_state_dict(network.state_dict())


# Refusals


REFUSED: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: zoo.from_nir("no/such.nir"), InputError, "is no file"),
    (lambda: zoo.from_nir(chain(nir.Delay(a(0.1, 0.1)))), ExportError, "whole steps"),
    (
        lambda: zoo.from_nir(chain(nir.LI(a(0.1, 1), a(1, 1), a(0, 0)))),
        ExportError,
        "'n0' has a time constant below the time step",
    ),
    (lambda: zoo.from_nir(toy(), shape=(1, 5, 6)), InputError, "declares"),
    (
        lambda: zoo.from_nir(toy())(torch.zeros(4, 2, 1, 5, 6)),
        InputError,
        r"\[4, 2, 1, 5, 6\].*expected floats \[T, B, 1, 5, 5\]",
    ),
    (
        lambda: zoo.from_nir(toy())(torch.zeros(2, 1, 5, 5)),
        InputError,
        r"expected floats \[T, B, 1, 5, 5\], none",
    ),
    (lambda: zoo.from_nir(toy())(torch.zeros(0, 2, 1, 5, 5)), InputError, r"\[0, 2, 1, 5, 5\]"),
    (
        lambda: zoo.from_nir(toy())(torch.zeros(2, 2, 1, 5, 5, dtype=torch.int)),
        InputError,
        r"torch\.int32",
    ),
    (lambda: zoo.from_nir(toy())(torch.tensor(1.0)), InputError, r"shape \[\]"),
]


@pytest.mark.parametrize(
    ("refused", "kind", "message"), REFUSED, ids=[message for _, _, message in REFUSED]
)
def test_what_cannot_be_is_refused_in_one_line(
    refused: Callable[[], Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as raised:
        refused()
    assert "\n" not in str(raised.value)


def test_a_still_image_is_for_graphs_that_say_so() -> None:
    graph = toy()
    graph.metadata |= {
        "input": "still image, every step",
        "readout": "mean over steps",
        "steps": np.int64(3),
    }
    network, x = zoo.from_nir(graph), torch.randn(2, 1, 5, 5)
    assert torch.equal(network(x), network(x.expand(3, *x.shape)).mean(0))
    with pytest.raises(InputError, match=r"or a still image \[B, 1, 5, 5\]"):
        network(torch.zeros(1, 5, 5))
    for steps in ("three", None, 0, 2.5):
        graph.metadata["steps"] = steps
        with pytest.raises(InputError):
            zoo.from_nir(graph)(x)


def test_a_graph_without_one_output_can_be_run() -> None:
    graph = chain(nir.Scale(a(1, 1)))
    graph.nodes["more"] = nir.Output(None)
    graph.edges.append(("input", "more"))
    network = assert_as_interpreted(graph, np.ones((2, 1, 2)))
    with pytest.raises(ExportError, match="2 Output nodes"):
        network(torch.ones(2, 1, 2))
