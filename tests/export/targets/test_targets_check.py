import json
from dataclasses import replace

import nir
import numpy as np
import pytest
from rich.console import Console
from support.networks import lively
from target_graphs import DT, Graph, speck8

from export.nir.exporter import to_nir
from export.nir.graph import check_graph
from export.targets.checker import check
from export.targets.find_layers import find_layers
from export.targets.limits import CoreKind, Cores, targets
from export.targets.output import html, terminal
from export.targets.placement import match, place
from export.targets.quantization import grid
from zoo.errors import ExportError, InputError


def one(f=4, shape=(1, 8, 8), k=3, **options):
    """One convolution and a neuron that resets by subtraction."""
    g = Graph(*shape)
    return g.done(g.subtract("a", g.conv("conv", "input", f=f, k=k, **options)))


def broken(graph, target="speck2e"):
    return {(finding.layer, finding.limit) for finding in check(graph, target).findings}


def finding(graph, limit, target="speck2e"):
    (found,) = [f for f in check(graph, target).findings if f.limit == limit]
    return found


def needs(graph, name="a"):
    return check(graph, "speck2e").placement.places[name].needs


# -- Speck: memory, by hand


@pytest.mark.parametrize(
    ("graph", "kernel", "neuron"),
    [
        (one(f=4, shape=(1, 8, 8)), 1 * 16 * 4, 4 * 64),  # 9 -> 16 words
        (one(f=5, shape=(3, 9, 8)), 3 * 16 * 8, 5 * 16 * 8),  # 5 -> 8 channels, 9 -> 16 rows
        (one(f=16, shape=(2, 28, 28)), 2 * 16 * 16, 16 * 32 * 32),
        (one(f=6, shape=(2, 8, 8), k=1), 2 * 1 * 8, 6 * 64),
        (one(f=6, shape=(2, 8, 8), k=2, stride=2), 2 * 4 * 8, 6 * 16),
        (one(f=1, shape=(7, 5, 5), k=5), 7 * 32 * 1, 1),
    ],
)
def test_speck_memory(graph, kernel, neuron):
    found = needs(graph)
    assert (found["kernel_words"], found["neuron_words"], found["biases"]) == (kernel, neuron, 0)


def test_speck_memory_to_the_last_word():
    exactly = one(f=64, shape=(64, 8, 8))  # 64 * 16 * 64 = 65536 words, all of a large core
    assert needs(exactly)["kernel_words"] == 65536 and check(exactly, "speck2e").fits
    above = finding(one(f=64, shape=(65, 8, 8)), "core")
    assert (
        "66,560 kernel words" in above.found
        and above.change == "at most 32 output channels, now 64"
    )
    assert check(one(f=16, shape=(1, 64, 64)), "speck2e").fits  # 16 * 64 * 64 = 65536 neurons
    above = finding(one(f=17, shape=(1, 64, 64)), "core")
    assert (
        "69,632 neuron words" in above.found
        and above.change == "at most 16 output channels, now 17"
    )
    assert (
        finding(one(f=1, shape=(1100, 8, 8), k=8), "core").change
        == "fewer input channels, or a smaller image"
    )
    assert needs(one(f=8, bias=1.0))["biases"] == 8


def test_a_layer_without_weights_passes_spikes_on_one_to_one():
    g = Graph(6, 8, 8)
    graph = g.done(g.subtract("a", g.pool("pool", "input")))
    assert (
        needs(graph) == {"kernel_words": 6 * 8, "neuron_words": 6 * 16, "biases": 0}
        and check(graph, "speck2e").fits
    )


# -- Speck: one rule after the other, at its limit and one above


@pytest.mark.parametrize(
    ("limit", "fits", "above"),
    [
        ("kernel_size", one(k=16, shape=(1, 16, 16)), one(k=17, shape=(1, 17, 17))),
        ("strides", one(stride=(8, 4), shape=(1, 16, 16)), one(stride=3, shape=(1, 16, 16))),
        ("padding", one(padding=7), one(padding=8)),
        ("dilations", one(), one(dilation=2)),
        ("square", one(k=2), one(k=(3, 5))),
        (
            "input_size",
            one(shape=(1, 128, 128), stride=2, f=1),
            one(shape=(1, 129, 129), stride=4, f=1),
        ),
        ("output_size", one(shape=(1, 64, 64), f=1), one(shape=(1, 65, 8), f=1)),
        ("features", one(f=1024, shape=(1, 1, 1), k=1), one(f=1025, shape=(1, 1, 1), k=1)),
    ],
)
def test_speck_convolutions(limit, fits, above):
    assert check(fits, "speck2e").fits
    assert ("a", limit) in broken(above)


@pytest.mark.parametrize(
    ("limit", "options"),
    [
        ("", {"size": 4}),
        ("pools", {"size": 3}),
        ("pools", {"size": 2, "stride": 1}),
        ("square", {"size": (2, 4)}),
        ("operations", {"average": True}),
    ],
)
def test_speck_pools(limit, options):
    g = Graph(2, 16, 16)
    spikes = g.subtract("a", g.conv("conv1", "input", f=2))
    graph = g.done(g.subtract("b", g.conv("conv2", g.pool("pool", spikes, **options), f=2)))
    assert broken(graph) == ({("b", limit)} if limit else set())
    if options == {"size": 3}:
        found = finding(graph, "pools")
        assert (found.found, found.allowed, found.change) == ("pool 3", "1 or 2 or 4", "pool 2")


def test_speck_fan_out():
    def fan(readers):
        g = Graph(1, 8, 8)
        spikes = g.subtract("a", g.conv("conv", "input", f=2))
        return g.done(
            *(g.subtract(f"b{i}", g.conv(f"conv{i}", spikes, f=2)) for i in range(readers))
        )

    assert check(fan(2), "speck2e").fits
    found = finding(fan(3), "fan_out")
    assert (found.layer, found.found) == (
        "a",
        "3 layers read its spikes: b0, b1, b2",
    ) and found.allowed == "at most 2"
    assert found.change == "1 reader fewer, or hold the layer 2 times"


def test_speck_neurons():
    g = Graph(2, 4, 4)
    a = g.leaky("a", g.conv("conv1", "input", f=2))
    b = g.zero("b", g.conv("conv2", a, f=2))  # return_to_zero
    c = g.zero("c", g.conv("conv3", b, f=2), v_reset=0.5)
    d = g.zero("d", g.conv("conv4", c, f=2), threshold=np.arange(1, 17).reshape(4, 4))
    assert broken(g.done(d)) == {("a", "neuron_models"), ("c", "resets"), ("d", "same_in_layer")}


def test_speck_takes_no_sums_of_currents():
    g = Graph(2, 4, 4)
    stem = g.conv("stem", "input", f=2)
    a = g.subtract("a", stem)
    b = g.subtract("b", g.conv("conv", a, f=2), stem)
    graph = g.done(b)
    found = finding(graph, "summed_currents")
    assert (
        found.layer == "b"
        and found.found == "2 currents summed before the neuron: conv, stem"
        and "a neuron behind" in found.change
    )
    assert (
        "Held once for each neuron that it reaches: stem 2 times." in check(graph, "speck2e").notes
    )


def test_speck_takes_convolutions_only_before_neurons_and_pools_only_behind():
    g = Graph(2, 8, 8)
    inner = g.conv("conv1", "input", f=2)
    scale = g.add("scale", nir.Scale(g.full(inner, 2)), (inner,), g.shapes[inner])
    graph = g.done(g.subtract("a", g.pool("pool", g.conv("conv2", scale, f=2))))
    found = check(graph, "speck2e").findings
    assert {(f.limit, f.found) for f in found} == {
        ("weights_in_series", "1 without a neuron behind it: conv1"),
        ("operations", "scale: scale"),
        ("operations", "pool: a pool of currents"),
    }


def test_dense_layers_are_convolutions_of_their_input():
    g = Graph(4, 4, 4)
    a = g.subtract("a", g.dense("fc1", "input", f=6))
    graph = g.done(g.subtract("b", g.dense("fc2", a, f=3)))
    assert check(graph, "speck2e").fits
    assert (
        needs(graph)["kernel_words"] == 4 * 16 * 8
        and needs(graph, "b")["kernel_words"] == 6 * 1 * 4
    )
    g = Graph(2, 4, 5)
    assert broken(g.done(g.subtract("a", g.dense("fc", "input", f=2)))) == {("a", "square")}


# -- weights


def test_grid():
    def fits(*weights, bits=8):
        return bool(grid(np.array([weights]), bits)[0] > 0)

    assert fits(127, 1, -3) and fits(-12.7, 0.1) and fits(0, 0) and fits(0.3)
    assert fits(100 / 64, 3 / 64) and not fits(1, 0.5 / 127)
    assert not fits(1, 1 / 128) and fits(1, 1 / 127)
    assert fits(127, 1.0005, 5) and not fits(127, 1.002, 5)
    assert fits(7, 1, bits=4) and not fits(8, 1, bits=4)
    assert grid(np.array([[1, 1 / 7], [1, np.pi], [0, 0], [-6, 3]]), 4).tolist() == [
        pytest.approx(1 / 7),
        0,
        np.inf,
        3,
    ]


def test_weights_must_be_integers():
    weight = np.random.default_rng(0).normal(size=(4, 1, 3, 3)).astype(np.float32)
    found = finding(one(weight=weight), "weight_bits")
    assert (found.found, found.change) == ("weights of other values", "`--weights int8-layer`")
    largest = np.abs(weight).max((1, 2, 3), keepdims=True)
    channels = (np.rint(weight / largest * 127) * largest / 127).astype(np.float32)
    assert finding(one(weight=channels), "weight_bits").found == "a scale for each channel"
    assert ("a", "weight_bits") not in broken(one(weight=channels), "loihi1")
    layer = (np.rint(weight / largest.max() * 127) * largest.max() / 127).astype(np.float32)
    # a threshold of 1 is no whole number of such steps
    assert broken(one(weight=layer)) == {("a", "state_bits")}


def test_a_finer_step_that_suits_the_threshold_is_found():
    g = Graph(1, 4, 4)
    weight = np.full((1, 1, 3, 3), 6 / 64, np.float32)  # 6, or 1 step of 6
    assert check(
        g.done(
            g.subtract(
                "a", g.conv("conv", "input", f=1, weight=weight, bias=4 / 64), threshold=9 / 64
            )
        ),
        "speck2e",
    ).fits


def test_biases_take_the_scale_of_the_weights():
    assert check(one(bias=127 / 64), "speck2e").fits
    for bias in (128 / 64, 0.5 / 64):
        assert broken(one(bias=bias)) == {("a", "bias_bits")}


def test_what_meets_in_a_neuron_shares_its_scale():
    def total(scale):
        g = Graph(1, 4, 4)
        weight = g.weights(2, 1, 3, 3)
        sources = [
            g.conv(f"conv{i}", "input", f=2, weight=(weight * s).astype(np.float32))
            for i, s in enumerate((1, scale))
        ]
        return g.done(g.zero("a", *sources))

    assert check(total(1), "loihi1").fits and check(total(-0.5), "spinnaker2").findings
    assert finding(total(0.3), "weight_bits", "loihi1").found == "a scale for each term of a sum"


def test_the_membrane_has_16_bits():
    def threshold(steps):
        g = Graph(1, 4, 4)
        weight = np.full((1, 1, 3, 3), 1 / 64, np.float32)
        weight[0, 0, 0, 0] = 2 / 64 if steps > 100 else 50 / 64
        return g.done(
            g.subtract("a", g.conv("conv", "input", f=1, weight=weight), threshold=steps / 64)
        )

    assert check(threshold(32767), "speck2e").fits
    assert check(threshold(3), "speck2e").fits
    found = finding(threshold(3.25), "state_bits")
    assert (found.found, found.allowed) == (
        "a threshold of 3.250 steps of the weights",
        "a whole number",
    )
    assert (
        finding(threshold(32768), "state_bits").found
        == "a threshold of 32,768 steps of the weights"
    )


# -- placement


def test_match_moves_what_is_in_the_way():
    assert match({"a": [0, 1], "b": [0]}) == {"b": 0, "a": 1}
    assert match({"a": [0, 1], "b": [0, 2], "c": [0]}) == {"c": 0, "a": 1, "b": 2}
    assert len(match({"a": [0], "b": [0], "c": []})) == 1


def test_speck_placement_that_a_greedy_choice_gets_wrong():
    """`a` fills a core of each kind as well; the first that it takes is the only one that takes
    `b`.
    """
    g = Graph(1, 8, 8)
    spikes = g.subtract("a", g.conv("conv1", "input", f=4))
    found = find_layers(check_graph(g.done(g.subtract("b", g.conv("conv2", spikes, f=4)))))
    kinds = tuple(CoreKind(1, {"kernel_words": words, "neuron_words": 256}) for words in (256, 128))
    placement = place(found, Cores("whole", kinds, "", ""))
    assert [spot.core for spot in placement.places.values()] == [1, 0]
    assert not placement.left_out and placement.places["b"].use == 1.0


def test_speck_has_nine_cores_and_two_of_the_largest():
    def chain(count, **options):
        g = Graph(64, 8, 8)
        spikes = "input"
        for i in range(count):
            spikes = g.subtract(f"n{i}", g.conv(f"conv{i}", spikes, **options))
        return g.done(spikes)

    assert check(chain(9, f=64, k=1), "speck2e").fits
    found = finding(chain(10, f=64, k=1), "cores")
    assert (found.layer, found.found, found.allowed, found.change) == (
        "chip",
        "10 cores",
        "9 cores",
        "1 layer fewer",
    )
    assert check(chain(2, f=64), "speck2e").fits
    assert "n2: every core that is large enough is taken" in finding(chain(3, f=64), "cores").found


# -- the network planned for Speck: which layer takes what is worked out by hand


@pytest.mark.parametrize(
    ("shape", "stem", "widest"),
    [((1, 28, 28), 1, 16384), ((3, 32, 32), 1, 16384), ((2, 34, 34), 2, 16384)],
)
def test_a_network_for_speck(shape, stem, widest):
    result = check(speck8(shape, stem=stem), "speck2e")
    assert result.fits and (result.placement.needed, result.placement.present) == (9, 9)
    assert sorted(spot.core for spot in result.placement.places.values()) == list(range(9))
    kernel = {name: spot.needs["kernel_words"] for name, spot in result.placement.places.items()}
    assert kernel == {
        "stem_if": shape[0] * 256,
        "stage1_if1": 4096,
        "stage1_if2": 4096,
        "stage2_if1": 8192,
        "stage2_if2": 16384,
        "stage3_if1": 32768,
        "stage3_if2": 65536,
        "link2_if": 2048,
        "link3_if": 8192,
    }
    neuron = [spot.needs["neuron_words"] for spot in result.placement.places.values()]
    assert sorted(set(neuron)) == [4096, 8192, widest]
    assert max(map(len, result.network.readers.values())) == 2
    assert (
        result.network.host.nodes == ("readout", "fc_flat", "fc")
        and result.network.host.macs == 640
    )


def test_how_wide_the_network_for_speck_can_be():
    assert check(speck8((1, 28, 28), (32, 32, 64)), "speck2e").fits
    for widths in ((34, 34, 64), (16, 36, 64), (16, 32, 66)):
        assert (
            {limit for _, limit in broken(speck8((1, 28, 28), widths))}
            <= {"core", "cores"}
            != set()
        )


# -- other chips


def test_loihi_1_cores():
    def cores(graph):
        return check(graph, "loihi1").placement.needed

    def dense(inputs, f):
        g = Graph(inputs)
        return g.done(g.zero("a", g.dense("fc", "input", f=f)))

    assert cores(dense(4, 1024)) == 1 and cores(dense(4, 1025)) == 2  # neurons
    # 1820 blocks of 576 bits in 1048576
    assert cores(dense(1820, 64)) == 1 and cores(dense(1821, 64)) == 2
    assert check(dense(4096, 2), "loihi1").fits
    assert finding(dense(4097, 2), "dense_inputs", "loihi1").found == "4,097 inputs of fc"
    g = Graph(4)
    spikes = g.zero("a", g.dense("fc", "input", f=1024))
    graph = g.done(*(g.zero(f"b{i}", g.dense(f"fc{i}", spikes, f=1)) for i in range(5)))
    # 5 axons for each of 1024 neurons, 4096 a core
    assert check(graph, "loihi1").placement.places["a"].cores == 2
    assert broken(one(), "loihi1") == {("a", "resets")}


def test_spinnaker_2_counts_bytes():
    graph = one(f=64, shape=(256, 2, 2))  # 64 * 256 * 9 = 147456 bytes
    assert check(graph, "spinnaker2").placement.needed == 2 and check(graph, "spinnaker2").fits


def test_xylo_counts_neurons_and_synapses():
    def chain(hidden, out, inputs=16):
        g = Graph(inputs)
        a = g.leaky("a", g.dense("fc1", "input", f=hidden))
        return g.done(g.leaky("b", g.dense("fc2", a, f=out)))

    assert broken(chain(1000, 8), "xylo") == {("a", "resets"), ("b", "resets")}
    assert broken(chain(1001, 9, 17), "xylo") >= {
        ("chip", "hidden_neurons"),
        ("chip", "output_neurons"),
        ("chip", "inputs"),
    }
    g = Graph(2, 8, 8)
    a = g.leaky("a", g.conv("conv1", "input", f=2))
    graph = g.done(g.leaky("b", g.conv("conv2", a, f=8)))
    # 8 channels, 3 x 3
    assert finding(graph, "fan_out_neurons", "xylo").found == "72 neurons are reached by one"


def test_akida_1():
    def forgets(k=3, stride=1, padding=1, at="b", extra=False, groups=1):
        g = Graph(1, 8, 8)
        first = {"k": k, "stride": stride, "padding": padding} if at == "a" else {}
        second = (
            {"k": k, "stride": stride, "padding": padding, "groups": groups} if at == "b" else {}
        )
        w = np.ones((2, 1, *(2 * [first.get("k", 3)])), np.float32)
        a = g.leaky("a", g.conv("conv1", "input", f=2, weight=w, **first), beta=0.001)
        w = np.ones((2, 2 // groups, *(2 * [second.get("k", 3)])), np.float32)
        sources = (
            (
                a,
                g.leaky(
                    "a2",
                    g.conv("conv3", a, f=2, weight=np.ones((2, 2, 3, 3), np.float32)),
                    beta=0.001,
                ),
            )
            if extra
            else (a,)
        )
        return g.done(g.leaky("b", g.conv("conv2", *sources, f=2, weight=w, **second), beta=0.001))

    assert broken(forgets(), "akida1") == set()
    assert broken(forgets(stride=2), "akida1") == set()
    assert broken(forgets(k=5, padding=2), "akida1") == set()
    assert broken(forgets(k=5, padding=2, stride=2), "akida1") == {("b", "strided_kernels")}
    assert broken(forgets(k=5, padding=2, stride=2, at="a"), "akida1") == set()
    assert broken(forgets(padding=0), "akida1") == {("b", "paddings")}
    assert broken(forgets(padding=0, at="a"), "akida1") == set()
    assert broken(forgets(k=2, padding=0, stride=2), "akida1") == {
        ("b", "kernel_sizes"),
        ("b", "strided_kernels"),
    }
    assert broken(forgets(stride=3), "akida1") == {("b", "strides")}
    assert broken(forgets(groups=2), "akida1") == {("b", "groups")}
    assert broken(forgets(extra=True), "akida1") == {("b", "sources")}
    assert ("a", "neuron_models") in broken(one(), "akida1")
    assert ("a", "channels") in broken(one(shape=(2, 8, 8)), "akida1")


def test_a_max_pool_of_spikes_is_known():
    g = Graph(1, 8, 8)
    a = g.leaky(
        "a", g.conv("conv", "input", f=2, weight=np.ones((2, 1, 3, 3), np.float32)), beta=0.001
    )
    graph = g.done(g.leaky("b", g.pool("pool", a), beta=0.001, threshold=0.5))
    assert check(graph, "akida1").fits
    assert finding(graph, "operations").found == "pool: max pool"


def test_truenorth_fan_in():
    assert check(one(shape=(28, 8, 8)), "truenorth").fits  # 28 * 9 = 252
    found = finding(one(shape=(29, 8, 8)), "fan_in", "truenorth")
    assert (found.found, found.allowed, found.change) == (
        "261 inputs of one neuron",
        "at most 256",
        "at least 2 groups, or fewer channels",
    )
    assert check(one(f=5, shape=(1, 16, 16)), "truenorth").placement.needed == 5  # 1280 neurons


# -- the whole


@pytest.fixture(scope="module")
def danet20():
    return to_nir(lively("danet20-t2.fmnist", 28, depths=(3, 3, 3)))


def test_danet20_on_all_targets(danet20):
    results = {name: check(danet20, name) for name in targets()}
    assert {name for name, result in results.items() if result.fits} == {"loihi2"}
    speck = results["speck2e"]
    assert (len(speck.network.layers), speck.placement.needed) == (19, 19)
    limits = {finding.limit for finding in speck.findings}
    assert limits >= {"neuron_models", "summed_currents", "fan_out", "weight_bits", "cores", "core"}
    assert results["loihi1"].placement.needed == 160
    assert speck.network.host.nodes == ("head_readout_pool", "head_readout", "head_fc")


def test_json(danet20):
    result = check(danet20, "speck2e")
    values = json.loads(json.dumps(result.to_json()))
    assert list(values) == [
        *(
            "schema",
            "target",
            "title",
            "fits",
            "assumed_dt",
            "validated",
            "cores",
            "layers",
            "host",
            "findings",
            "notes",
            "limits",
        ),
    ]
    assert (
        values["schema"] == 1
        and values["fits"] is False
        and values["cores"] == {"needed": 19, "present": 9}
    )
    assert list(values["findings"][0]) == ["layer", "limit", "found", "allowed", "change"]
    assert (
        values["layers"][0]["name"] == "stage1_block0_lif1"
        and values["layers"][0]["needs"]["neuron_words"] == 16384
    )
    assert all(entry["source"] for entry in values["limits"])
    assert "not validated on the chip" in values["notes"][0]
    assert check(danet20, "loihi2").to_json()["cores"] is None


@pytest.mark.parametrize("target", list(targets()))
def test_print(danet20, target):
    console = Console(width=120, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        terminal.render(check(danet20, target), console)
    text = capture.get()
    assert (
        "not validated on the chip" in text
        and "on the host" in text
        and "stage1_block0_lif1" in text
    )


def test_html_is_one_page_and_escapes_names(danet20):
    g = Graph(1, 4, 4)
    graph = g.done(g.leaky("<script>", g.conv("[bold]", "input", f=2)))
    page = html.render([check(graph, name) for name in targets()], "<b>name</b>")
    assert "<script" not in page and "&lt;script&gt;" in page and "<b>name" not in page
    assert "http" not in page and "src=" not in page
    console = Console(width=200)
    with console.capture() as capture:
        terminal.render(check(graph, "speck2e"), console)
    assert "[bold]" in capture.get() and "<script>" in capture.get()
    page = html.render([check(danet20, "speck2e")], "danet20-t4.fmnist")
    assert (
        "not validated on any chip" in page and "19 of 9 cores" in page and page.endswith("</html>")
    )


def test_what_cannot_be_checked():
    with pytest.raises(InputError, match="target 'speck3' is not known; valid are speck2e, loihi1"):
        check(one(), "speck3")
    g = Graph(4)
    with pytest.raises(ExportError, match="no spiking neuron"):
        check(g.done(g.dense("fc", "input", f=2)), "speck2e")
    g = Graph(4)
    graph = g.done(g.zero("a", g.dense("fc", "input", f=2)))
    graph.edges.append(("nowhere", "a"))
    with pytest.raises(ExportError, match="no node"):
        check(graph, "speck2e")


def test_limits_that_are_absent_are_not_checked(monkeypatch):
    graph = one(stride=3)
    speck = targets()["speck2e"]
    without = {name: limit for name, limit in speck.limits.items() if name != "strides"}
    monkeypatch.setattr(
        "export.targets.checker.targets",
        lambda: {"speck2e": replace(speck, limits=without, cores=None)},
    )
    result = check(graph, "speck2e")
    assert result.fits and result.placement is None


def test_dt_of_the_graph_counts():
    g = Graph(3)
    g.leaky("a", "input", beta=0.5)
    graph = g.done("a")
    graph.metadata["dt"] = 2 * DT  # tau is now one step
    assert check(graph, "akida1").network.layers["a"].neuron.model == "memoryless"


def looped(inputs, neurons):
    """Dense neurons that read themselves through dense weights."""
    g = Graph(inputs)
    spikes = g.zero("n", g.dense("in", "input", f=neurons))
    g.dense("loop", spikes, f=neurons)
    g.edges.append(("loop", "n"))
    return g.done(spikes)


def test_a_layer_that_reads_itself_is_one_of_its_readers_and_inputs():
    assert check(looped(16, 8), "loihi1").fits
    assert check(looped(16, 8), "loihi1").placement.places["n"].needs["out_axons"] == 8
    both = finding(looped(4000, 100), "dense_inputs", "loihi1")
    assert both.found == "4,100 inputs of in, loop" and both.layer == "n"
    assert finding(looped(16, 70), "fan_out_neurons", "xylo").found.startswith(
        "70 neurons are reached by one"
    )
    assert finding(looped(200, 60), "fan_in", "truenorth").found == "260 inputs of one neuron"
    assert (
        finding(looped(16, 8), "summed_currents", "speck2e").found
        == "2 currents summed before the neuron: in, loop"
    )
    assert finding(looped(16, 8), "sources", "akida1").found == "2 layers are read: input, n"


def test_recurrence_is_said():
    note = (
        "Recurrent: n. Each is checked as one more reader; "
        "whether spikes can go back to it is not checked."
    )
    assert note in check(looped(16, 8), "loihi2").notes
    assert not any("Recurrent" in text for text in check(speck8((1, 28, 28)), "loihi2").notes)
