"""Recurrent networks as other tools write them, without a Delay: neurons read the spikes of the
step before, whoever runs them.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import onnxruntime
import pytest
import torch
from support.nir_graphs import DT, a

import zoo
from export.nir.graph import (
    ResetBySubtraction,
    check_graph,
    find_recurrent_nodes,
    find_subtractive_resets,
)
from export.nir.interpreter import run
from export.onnx.from_nir import nir_to_onnx, write_nir_onnx
from export.onnx.runtime import Runtime
from zoo.arrays import Array
from zoo.errors import ExportError

LOOP = a([0, 0.5], [0.75, -0.25])  # weights of recurrent connections
BACK = a([0.5, -1], [0.25, 0.5])
BIAS = a(0.25, 0.375)


def lif() -> Any:
    """`v[t] = v[t-1] / 2 + x[t]`, above 1 a spike and a reset to 0."""
    return nir.LIF(a(2 * DT, 2 * DT), a(2, 2), a(0, 0), a(1, 1))


def graph(nodes: dict[str, Any], *edges: tuple[str, str]) -> Any:
    """From `input` to `output`, of two elements."""
    ends = {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
    return nir.NIRGraph(ends | nodes, list(edges), {"dt": DT}, type_check=False)


class Lif:
    """The neuron that `lif` describes, in numbers."""

    def __init__(self) -> None:
        self.v = np.zeros(2)

    def __call__(self, x: Array) -> Array:
        self.v = self.v / 2 + x
        spikes = (self.v > 1).astype(float)
        self.v = self.v * (1 - spikes)
        return spikes


def weighted() -> tuple[Any, Callable[[Array], Array]]:
    net = graph(
        {"lif": lif(), "loop": nir.Affine(LOOP, BIAS)},
        ("input", "lif"),
        ("lif", "loop"),
        ("loop", "lif"),
        ("lif", "output"),
    )
    neuron, past = Lif(), [np.zeros(2)]

    def step(x: Array) -> Array:
        past.append(neuron(x + LOOP @ past[-1] + BIAS))  # the bias from the first step on
        return past[-1]

    return net, step


def itself() -> tuple[Any, Callable[[Array], Array]]:
    net = graph({"lif": lif()}, ("input", "lif"), ("lif", "lif"), ("lif", "output"))
    neuron, past = Lif(), [np.zeros(2)]

    def step(x: Array) -> Array:
        past.append(neuron(x + past[-1]))
        return past[-1]

    return net, step


def nested() -> tuple[Any, Callable[[Array], Array]]:
    inner, step = weighted()
    return graph({"rnn": inner}, ("input", "rnn"), ("rnn", "output")), step


def around_a_graph() -> tuple[Any, Callable[[Array], Array]]:
    """The connection goes back outside of the graph that holds the neuron, whose output the next
    layer reads at once.
    """
    inner = graph({"lif": lif()}, ("input", "lif"), ("lif", "output"))
    net = graph(
        {"sub": inner, "loop": nir.Affine(LOOP, BIAS)},
        ("input", "sub"),
        ("sub", "loop"),
        ("loop", "sub"),
        ("sub", "output"),
    )
    return net, weighted()[1]


def shared_weights() -> tuple[Any, Callable[[Array], Array]]:
    """The next layer reads this step's weighted spikes, the neuron those of the step before."""
    net = graph(
        {"lif": lif(), "loop": nir.Linear(LOOP)},
        ("input", "lif"),
        ("lif", "loop"),
        ("loop", "lif"),
        ("loop", "output"),
    )
    neuron, past = Lif(), [np.zeros(2)]

    def step(x: Array) -> Array:
        past.append(neuron(x + LOOP @ past[-1]))
        return LOOP @ past[-1]

    return net, step


def sum_before_the_neuron() -> tuple[Any, Callable[[Array], Array]]:
    """A node of the cycle reads the input too, and others read it: its input is of this step."""
    net = graph(
        {"sum": nir.Scale(a(1, 1)), "lif": lif(), "loop": nir.Linear(LOOP)},
        ("input", "sum"), ("sum", "lif"), ("lif", "loop"), ("loop", "sum"), ("sum", "output"),
    )  # fmt: skip
    neuron, past = Lif(), [np.zeros(2)]

    def step(x: Array) -> Array:
        current = x + LOOP @ past[-1]
        past.append(neuron(current))
        return current

    return net, step


def two_layers() -> tuple[Any, Callable[[Array], Array]]:
    """A ring of two neurons that is entered at one: what comes back to it is late."""
    net = graph(
        {"first": lif(), "on": nir.Affine(LOOP, BIAS),
         "second": lif(), "back": nir.Affine(BACK, BIAS)},
        ("input", "first"), ("first", "on"), ("on", "second"),
        ("second", "back"), ("back", "first"), ("second", "output"),
    )  # fmt: skip
    first, second, past = Lif(), Lif(), [np.zeros(2)]

    def step(x: Array) -> Array:
        past.append(second(LOOP @ first(x + BACK @ past[-1] + BIAS) + BIAS))
        return past[-1]

    return net, step


NETWORKS = [
    weighted,
    itself,
    nested,
    around_a_graph,
    shared_weights,
    sum_before_the_neuron,
    two_layers,
]
X = np.random.default_rng(0).integers(0, 12, (12, 1, 2)) / 8


@pytest.mark.parametrize("make", NETWORKS)
def test_neurons_read_the_spikes_of_the_step_before(make: Any, tmp_path: Path) -> None:
    net, step = make()
    expected = np.array([step(x[0]) for x in X])
    assert len(np.unique(expected, axis=0)) > 2
    assert np.array_equal(run(net, X)["output"][:, 0], expected)
    assert np.array_equal(run(net, X, dtype=np.float64)["output"][:, 0], expected)
    assert np.array_equal(zoo.from_nir(net)(torch.from_numpy(X).float()).detach()[:, 0], expected)
    for form in ("sequence", "step"):
        result = write_nir_onnx(net, tmp_path / "x.onnx", name="x", form=form)  # type: ignore[arg-type]  # a str
        assert result.ok
    proto = nir_to_onnx(net).SerializeToString()
    session = onnxruntime.InferenceSession(proto, providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"input.in": X.astype(np.float32)})[0][:, 0], expected)
    engine = Runtime().load((tmp_path / "x.onnx").read_bytes())
    stream = engine.start(1, {name: f"{name}.next" for name in engine.inputs if name != "input.in"})
    found = [stream.step({"input.in": frame})["output"][0] for frame in X.astype(np.float32)]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("make", NETWORKS)
def test_names_and_orders_of_nodes_and_edges_mean_nothing(make: Any) -> None:
    net, _ = make()
    expected = run(net, X)["output"]
    for seed in range(4):
        rng = np.random.default_rng(seed)
        names = dict(
            zip(net.nodes, rng.permutation([f"n{i}" for i in range(len(net.nodes))]), strict=True)
        )
        nodes = {str(names[key]): net.nodes[key] for key in rng.permutation([*net.nodes])}
        edges = [(str(names[s]), str(names[t])) for s, t in rng.permutation(net.edges)]
        other = nir.NIRGraph(nodes, edges, net.metadata, type_check=False)
        assert np.array_equal(run(other, X)[str(names["output"])], expected)


def test_a_delay_of_one_step_says_the_same() -> None:
    net = graph(
        {"lif": lif(), "loop": nir.Linear(LOOP), "late": nir.Delay(a(DT, DT))},
        ("input", "lif"), ("lif", "loop"), ("loop", "late"), ("late", "lif"), ("lif", "output"),
    )  # fmt: skip
    short = graph(
        {"lif": lif(), "loop": nir.Linear(LOOP)},
        ("input", "lif"),
        ("lif", "loop"),
        ("loop", "lif"),
        ("lif", "output"),
    )
    assert np.array_equal(run(net, X)["output"], run(short, X)["output"])
    assert find_recurrent_nodes(check_graph(net)) == {"loop", "late"} and find_recurrent_nodes(
        check_graph(short)
    ) == {
        "loop",
        "lif.delay",
    }


@pytest.mark.parametrize(
    ("node", "equations"),
    [
        (nir.CubaLIF(*[a(2 * DT, 4 * DT)] * 2, a(2, 4), a(0, 0), a(2, 3), w_in=a(2, 4)), True),
        (nir.LI(a(2 * DT, 2 * DT), a(2, 2), a(0, 0)), False),
    ],
    ids=["a synaptic current", "a membrane that does not fire"],
)
def test_other_neurons_are_late_likewise(node: Any, equations: bool) -> None:
    net = graph(
        {"n": node, "loop": nir.Linear(LOOP)},
        ("input", "n"),
        ("n", "loop"),
        ("loop", "n"),
        ("n", "output"),
    )
    keep = 1 - DT / np.array(node.tau_mem if equations else node.tau)
    i, v, past, expected = np.zeros(2), np.zeros(2), np.zeros(2), []
    for x in X[:, 0]:
        i = keep * i + x + LOOP @ past if equations else x + LOOP @ past
        v = keep * v + i
        past = (v > [2, 3]).astype(float) if equations else v
        v = np.where(past, 0, v) if equations else v
        expected.append(past)
    np.testing.assert_allclose(run(net, X)["output"][:, 0], expected, rtol=1e-5, atol=1e-6)
    assert np.std(expected) > 0


def test_a_reset_by_subtraction_stays_one_neuron_in_a_recurrent_network() -> None:
    membrane, theta = nir.LI(a(2 * DT, 2 * DT), a(2, 2), a(0, 0)), a(1, 1)
    parts = {
        "m": membrane,
        "fires": nir.Threshold(theta),
        "minus": nir.Scale(-theta),
        "late": nir.Delay(a(DT, DT)),
    }
    loop = [("m", "fires"), ("fires", "minus"), ("minus", "late"), ("late", "m")]
    nodes = parts | {"loop": nir.Linear(LOOP), "more": nir.Linear(BACK)}
    ways = [("fires", "loop"), ("loop", "m"), ("fires", "more"), ("more", "m")]
    net = graph(nodes, ("input", "m"), ("fires", "output"), *loop, *ways)
    checked = check_graph(net)
    inputs, readers = ("input", "loop", "more"), ("fires.delay", "output")
    reset = ResetBySubtraction("m", "fires", "minus", "late", inputs, readers)
    assert find_subtractive_resets(checked) == {"m": reset}
    assert find_recurrent_nodes(checked) == {"loop", "more", "fires.delay"}
    v, past, expected = np.zeros(2), np.zeros(2), []
    for x in X[:, 0]:
        v = v / 2 + x + (LOOP + BACK) @ past - past
        past = (v > 1).astype(float)
        expected.append(past)
    assert np.array_equal(run(net, X)["output"][:, 0], expected) and 0 < np.mean(expected) < 1
    found = zoo.from_nir(net)(torch.from_numpy(X).float())
    assert np.array_equal(found.detach()[:, 0], expected)


def test_recurrent_weights_are_trained() -> None:
    network = zoo.from_nir(two_layers()[0])
    network(torch.from_numpy(X).float()).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_a_name_that_is_taken_is_left_alone() -> None:
    net, step = weighted()
    net.nodes["lif.delay"] = net.nodes.pop("loop")
    net.edges = [tuple("lif.delay" if end == "loop" else end for end in edge) for edge in net.edges]
    assert {"lif.delay", "lif.delay_"} <= check_graph(net).nodes.keys()
    assert np.array_equal(run(net, X)["output"][:, 0], [step(x[0]) for x in X])


def entered_twice() -> Any:
    net, _ = two_layers()
    net.edges.append(("input", "second"))
    return net


def both_with_loops() -> Any:
    net, _ = two_layers()
    net.nodes["own"] = nir.Linear(LOOP)
    net.edges += [("second", "own"), ("own", "second")]
    return net


@pytest.mark.parametrize("make", [entered_twice, both_with_loops])
def test_a_cycle_that_leaves_open_which_edge_is_late_is_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(
        ExportError, match="late: 'first' -> 'on' -> 'second' -> 'back' -> 'first'; put a Delay of"
    ) as raised:
        check_graph(make())
    assert "\n" not in str(raised.value)
    net = make()
    net.nodes["late"] = nir.Delay(a(DT, DT))
    net.edges = [edge for edge in net.edges if edge != ("back", "first")] + [
        ("back", "late"),
        ("late", "first"),
    ]
    assert run(net, X)["output"].any()


def test_a_cycle_without_a_neuron_is_refused() -> None:
    net = graph({"n": nir.Linear(LOOP)}, ("input", "n"), ("n", "n"), ("n", "output"))
    with pytest.raises(
        ExportError,
        match="a cycle without a Delay of a step or more: 'n' -> 'n'; as it has no neuron, put one",
    ):
        check_graph(net)
