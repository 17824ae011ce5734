import nir
import numpy as np
import pytest
from target_graphs import DT, Graph, speck8

from export.nir.graph import check_graph
from export.targets.find_layers import find_layers


def layers(graph):
    return find_layers(check_graph(graph))


def test_a_chain():
    g = Graph(2, 8, 8)
    a = g.zero("a", g.conv("conv1", "input", f=4, bias=0.5))
    b = g.zero("b", g.conv("conv2", g.pool("pool", a), f=6))
    found = layers(g.done(g.dense("fc", b, f=10)))
    assert list(found.layers) == ["a", "b"] and found.input == (2, 8, 8)
    assert found.readers == {"input": ("a",), "a": ("b",), "b": ()}
    first, second = found.layers.values()
    (conv1,), (conv2,) = first.weights, second.weights
    assert (conv1.node, conv1.channels, conv1.features, conv1.input, conv1.output) == (
        "conv1",
        2,
        4,
        (8, 8),
        (8, 8),
    )
    assert conv1.biased and not conv2.biased
    assert (first.neurons, second.neurons) == (4 * 8 * 8, 6 * 4 * 4)
    assert [(p.node, p.kernel) for p in second.branches[0].pools] == [("pool", (2, 2))]
    assert second.branches[0].operations == (("sum pool", "pool"),)
    assert found.host.reads == ("b",) and found.host.nodes == ("fc_flat", "fc")
    assert (found.host.macs, found.host.parameters) == (96 * 10, 96 * 10)


def test_a_subtracting_neuron_is_one_neuron():
    g = Graph(1, 4, 4)
    spikes = g.subtract("a", g.conv("conv1", "input", f=2), threshold=1.5)
    found = layers(g.done(g.subtract("b", g.conv("conv2", spikes, f=2))))
    assert list(found.layers) == ["a", "b"]
    neuron = found.layers["a"].neuron
    assert (neuron.model, neuron.reset, neuron.threshold, neuron.varying) == (
        "IF",
        "subtract",
        1.5,
        frozenset(),
    )
    assert found.layers["b"].reads == ("a",)
    assert found.layers["a"].branches[0].operations == ()
    assert found.host.reads == ("b",) and not found.host.nodes


def test_neuron_models():
    g = Graph(3)
    g.leaky("lif", "input", beta=0.5, threshold=0.25)
    g.leaky("forgets", "lif", beta=0.001)
    g.zero("resets", "forgets", v_reset=0.25)
    one = g.full("input", 1)
    cuba = nir.CubaLIF(one * DT * 2, one * DT * 4, one, 0 * one, one, 0 * one, one)
    g.add("cuba", cuba, ("resets",), (3,))
    g.zero("varies", "cuba", threshold=np.array([1, 2, 3]))
    found = layers(g.done("varies")).layers
    models = [(layer.neuron.model, layer.neuron.reset) for layer in found.values()]
    assert models == [
        ("LIF", "zero"),
        ("memoryless", "zero"),
        ("IF", "value"),
        ("CubaLIF", "zero"),
        ("IF", "zero"),
    ]
    # half of a step's current reaches the membrane
    assert found["lif"].neuron.threshold == pytest.approx(0.5)
    assert found["varies"].neuron.varying == {"threshold"} and found[
        "varies"
    ].neuron.threshold == pytest.approx(3)


def test_residual_sums_are_branches_and_shared_weights_are_held_again():
    g = Graph(2, 4, 4)
    stem = g.conv("stem", "input", f=2)
    a = g.zero("a", stem)
    inner = g.conv("conv1", a, f=2)
    b = g.zero("b", inner, stem)  # the stream of currents
    c = g.zero("c", g.conv("conv2", b, f=2), inner, stem, a)
    found = layers(g.done(c))
    assert [[w.node for w in layer.weights] for layer in found.layers.values()] == [
        ["stem"],
        ["conv1", "stem"],
        ["conv2", "conv1", "stem"],
    ]
    assert len(found.layers["c"].branches) == 4 and found.layers["c"].branches[3].reads == ("a",)
    assert found.layers["c"].reads == ("b", "a", "input")
    assert found.shared == {"stem": ("a", "b", "c"), "conv1": ("b", "c")}
    assert found.readers == {"input": ("a", "b", "c"), "a": ("b", "c"), "b": ("c",), "c": ()}


def test_weights_in_series_and_other_nodes():
    g = Graph(2, 4, 4)
    scaled = g.add(
        "scale", nir.Scale(g.full("input", 2)), (g.conv("conv1", "input", f=2),), (2, 4, 4)
    )
    g.shapes["scale"] = (2, 4, 4)
    a = g.zero("a", g.pool("behind", g.conv("conv2", scaled, f=3)))
    branch = layers(g.done(a)).layers["a"].branches[0]
    assert branch.weights.node == "conv2" and branch.series == ("conv1",)
    assert branch.behind == ("behind",) and set(branch.operations) == {
        ("scale", "scale"),
        ("sum pool", "behind"),
    }


def test_merged_spikes_are_one_branch():
    found = layers(speck8((1, 8, 8), (2, 3, 4)))
    assert found.layers["stage3_if1"].reads == ("stage2_if2", "link2_if")
    assert all(len(layer.branches) == 1 for layer in found.layers.values())
    assert max(map(len, found.readers.values())) == 2
    assert found.host.reads == ("stage3_if2", "link3_if")


def test_dense_and_one_dimensional_weights():
    g = Graph(3, 4, 5)
    a = g.zero("a", g.dense("fc1", "input", f=7))
    found = layers(g.done(g.zero("b", g.dense("fc2", a, f=2)))).layers
    fc1, fc2 = found["a"].weights[0], found["b"].weights[0]
    assert (fc1.kernel, fc1.channels, fc1.features, fc1.fan_in, fc1.macs) == ((4, 5), 3, 7, 60, 420)
    assert (fc2.kernel, fc2.channels, fc2.fan_in) == ((1, 1), 7, 7)
    g = Graph(2, 9)
    conv = nir.Conv1d(9, np.ones((4, 2, 3), np.float32), 2, 1, 1, 1, np.zeros(4, np.float32))
    g.add("conv", conv, ("input",), (4, 5))
    w = layers(g.done(g.zero("a", "conv"))).layers["a"].weights[0]
    assert (w.kernel, w.stride, w.padding, w.input, w.output, w.fan_in) == (
        (1, 3),
        (1, 2),
        (0, 1),
        (1, 9),
        (1, 5),
        6,
    )


def test_a_graph_in_a_graph():
    g = Graph(1, 4, 4)
    inner = g.done(g.zero("a", g.conv("conv", "input", f=2)))
    outer = Graph(1, 4, 4)
    outer.add("sub", inner, ("input",), (2, 4, 4))
    found = layers(outer.done(outer.zero("b", outer.conv("conv", "sub", f=3))))
    assert list(found.layers) == ["sub.a", "b"] and found.layers["b"].reads == ("sub.a",)
    assert found.layers["b"].branches[0].operations == () and found.host.nodes == ()


def test_merged_spikes_before_a_dense_layer():
    g = Graph(2, 4, 4)
    flat = nir.Flatten({"input": np.array([2, 4, 4])}, 0, -1)
    ends = [g.zero(name, g.conv(f"{name}_conv", "input", f=2)) for name in ("a", "b")]
    flats = [g.add(f"{name}_flat", flat, (name,), (32,)) for name in ends]
    fc = layers(g.done(g.zero("c", g.dense("fc", *flats, f=3)))).layers["c"].weights[0]
    assert (fc.kernel, fc.channels, fc.fan_in) == ((4, 4), 2, 32)


@pytest.mark.parametrize("r", [0.0, 1e30, 1e-40])
def test_strange_numbers_are_no_error(r):
    g = Graph(3)
    node = nir.LIF(
        g.full("input", DT),
        g.full("input", r),
        g.full("input", 0),
        g.full("input", 1e38),
        g.full("input", 0),
    )
    g.add("a", node, ("input",), (3,))
    assert layers(g.done("a")).layers["a"].neuron.threshold >= 0


def recurrent(late):
    """Four neurons that read themselves, with an explicit Delay or without."""
    g = Graph(8)
    spikes = g.zero("n", g.dense("in", "input", f=4))
    g.dense("loop", spikes, f=4)
    source = g.add("late", nir.Delay(g.full("loop", DT)), ("loop",), (4,)) if late else "loop"
    g.edges.append((source, "n"))
    return g.done(g.zero("last", g.dense("out", spikes, f=3)))


@pytest.mark.parametrize("late", [False, True])
def test_a_recurrent_connection_is_a_branch_that_reads_its_own_layer(late):
    found = layers(recurrent(late))
    layer = found.layers["n"]
    assert [
        (branch.weights.node, branch.reads, branch.operations)
        for branch in layer.branches
        if branch.weights
    ] == [
        ("in", ("input",), ()),
        ("loop", ("n",), ()),
    ]
    assert found.readers["n"] == ("n", "last") and found.recurrent == ("n",)
