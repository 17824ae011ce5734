import nir
import numpy as np
import pytest
import torch
from support.networks import lively
from torch.nn import functional as F

from export.energy import (
    COUNTS,
    Spikes,
    TorchExecutor,
    count,
    estimate,
    read_structure,
    trains_needed,
)
from export.energy.counting.windows import windows
from export.nir.exporter import to_nir
from export.nir.nodes import prepared
from zoo.errors import ExportError, InputError

STILL = {"input": "still image, every step"}


def lif(*shape):
    full = np.ones(shape, np.float32)
    return nir.LIF(tau=full, r=full, v_leak=0 * full, v_threshold=full, v_reset=0 * full)


def graph(nodes, edges, metadata=None):
    return nir.NIRGraph(nodes, edges, metadata or {}, type_check=False)


def chain(shape, *nodes, metadata=None):
    """Input, the nodes by their place, output."""
    named = {
        "input": nir.Input({"input": np.array(shape)}),
        **{str(i): n for i, n in enumerate(nodes)},
    }
    named["output"] = nir.Output({"output": None})
    return graph(named, list(zip(named, list(named)[1:], strict=False)), metadata)


def counted(network, trains, steps=1):
    """Rows of a graph whose neurons send these spikes, `[T, B, C, H, W]` of each node."""
    layers = read_structure(network)
    spikes = Spikes(len(next(iter(trains.values()))) if trains else steps)
    for name, train in trains.items():
        spikes.add(name, train.flatten(0, 1), keep=name in trains_needed(layers))
    return count(layers, spikes)


def convolution(cin, cout, kernel, stride, padding, dilation, groups):
    weight = np.ones((cout, cin // groups, *kernel), np.float32)
    return nir.Conv2d(None, weight, stride, padding, dilation, groups, np.ones(cout, np.float32))


CONVOLUTIONS = [
    # size, kernel, stride, padding, dilation, groups
    ((7, 7), (3, 3), (1, 1), (1, 1), (1, 1), 1),
    ((9, 6), (3, 2), (2, 1), (1, 0), (1, 2), 2),
    ((8, 11), (1, 1), (2, 3), (0, 0), (1, 1), 1),
    ((5, 8), (5, 3), (3, 2), (4, 2), (1, 1), 4),
    ((10, 10), (2, 2), (4, 4), (1, 1), (3, 3), 1),
    ((6, 7), (7, 5), (1, 2), (3, 2), (1, 1), 2),
    ((12, 5), (4, 4), (4, 4), (2, 2), (1, 1), 1),
    ((7, 6), (5, 3), (1, 1), "same", (1, 2), 1),
    ((7, 6), (4, 3), (1, 1), "valid", (1, 1), 1),
]


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "dilation", "groups"), CONVOLUTIONS
)
def test_convolution_of_spikes(size, kernel, stride, padding, dilation, groups):
    spikes = (torch.rand(3, 2, 4, *size, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    node = convolution(4, 8, kernel, stride, padding, dilation, groups)
    _, row = counted(chain((4, *size), lif(4, *size), node), {"0": spikes})
    ones = torch.ones(8, 4 // groups, *kernel, dtype=torch.float64)

    def connections(x):
        return F.conv2d(x, ones, None, stride, padding, dilation, groups)

    hits = connections(spikes.flatten(0, 1))
    assert row.acs.tolist() == hits.unflatten(0, (3, 2)).sum((0, 2, 3, 4)).long().tolist()
    assert row.acs.dtype == np.int64
    assert (row.input_kind, row.input_bound, row.macs) == ("binary", 1, 0)
    assert row.outputs == hits[0].numel()
    assert row.bias_adds == 3 * row.outputs
    assert row.dense_macs_valid == connections(torch.ones(1, 4, *size, dtype=torch.float64)).sum()
    assert row.dense_macs_padded == row.outputs * ones[0].numel()


def test_same_padding_of_an_even_kernel_is_longer_at_the_end():
    vertical, horizontal = windows(prepared("conv", convolution(1, 1, (4, 3), 1, "same", 1, 1)))
    assert (vertical.begin, vertical.end, horizontal.begin, horizontal.end) == (1, 2, 1, 1)
    assert vertical.taps(5).tolist() == [2, 3, 4, 4, 3]  # outputs 0 to 4 read -1 to 2, ..., 3 to 6


@pytest.mark.parametrize(("metadata", "times"), [(STILL, 1), ({}, 3)])
def test_stem_runs_once_for_a_still_image(metadata, times):
    nodes = (
        convolution(2, 4, (3, 3), (2, 2), (1, 1), (1, 1), 1),
        nir.SumPool2d(3, 2, 1),
        lif(4, 2, 2),
    )
    conv, pool, neurons = counted(
        chain((2, 7, 7), *nodes, metadata=metadata), {"2": torch.zeros(3, 2, 4, 2, 2)}
    )
    assert (conv.macs, conv.input_kind, conv.bias_adds) == (
        times * conv.dense_macs_valid,
        "real",
        times * 4 * 4 * 4,
    )
    # windows of 3 pixels on 4, padded by 1, read 2 + 3 an axis
    assert pool.adds.tolist() == 2 * [times * 4 * (25 - 4)]
    assert neurons.updates == 3 * neurons.outputs


def test_pool_flatten_and_linear():
    spikes = (torch.rand(2, 3, 4, 6, 5) < 0.4).double()
    nodes = (
        lif(4, 6, 5),
        nir.SumPool2d((3, 2), (2, 1), (1, 0)),
        nir.Flatten({"input": np.array([4, 3, 4])}, 0, -1),
    )
    weight = np.ones((7, 48), np.float32)
    network = chain(
        (4, 6, 5), *nodes, nir.Affine(weight, np.zeros(7)), lif(7), nir.Linear(np.ones((2, 7)))
    )
    hidden = (torch.rand(2, 3, 7, 1, 1) < 0.5).double()
    _, pool, affine, _, linear = counted(network, {"0": spikes, "4": hidden})
    pooled = F.conv2d(
        spikes.flatten(0, 1), torch.ones(4, 1, 3, 2).double(), None, (2, 1), (1, 0), groups=4
    )
    events = pooled.unflatten(0, (2, 3)).sum((0, 2, 3, 4)).long()
    assert pool.adds.tolist() == events.tolist()
    assert affine.acs.tolist() == (7 * events).tolist()
    assert (affine.input_kind, affine.input_bound, affine.bias_adds) == ("integer", 6, 0)
    assert linear.acs.tolist() == (2 * hidden.sum((0, 2, 3, 4)).long()).tolist()


def residual(blocks, kind):
    """A stream `x0`, to which every block adds what it makes of it; two readers of the last sum."""
    make = {"real": lambda: convolution(2, 2, (1, 1), 1, 0, 1, 1), "spikes": lambda: lif(2, 3, 3)}[
        kind
    ]
    nodes = {
        "input": nir.Input({"input": np.array([2, 3, 3])}),
        "x0": make(),
        "output": nir.Output({"output": np.array([2, 3, 3])}),
    }
    edges = [("input", "x0")]
    stream = ["x0"]
    for i in range(blocks):
        nodes[f"read{i}"], nodes[f"branch{i}"] = (make(), make())
        edges += [
            *((source, f"read{i}") for source in reversed(stream)),
            (f"read{i}", f"branch{i}"),
        ]
        stream.append(f"branch{i}")
    nodes["twin"] = make()
    edges += [(source, target) for target in ("output", "twin") for source in stream]
    return graph(nodes, edges)


def test_running_sums_are_counted_once():
    layers = read_structure(residual(5, "real"))
    sums = [row for row in counted(residual(5, "real"), {}, steps=4) if row.kind == "sum"]
    assert len(sums) == 5  # one a block; the second reader of the last sum adds nothing
    assert all(
        layer.terms == () or len(layer.terms) == 2
        for layer in layers
        if layer.name != "x0" and len(layer.sources) > 1
    )


def test_running_sums_of_spikes():
    network = residual(3, "spikes")
    names = [name for name, node in network.nodes.items() if isinstance(node, nir.LIF)]
    spikes = {name: (torch.rand(4, 2, 2, 3, 3) < 0.5).double() for name in names}
    rows = {row.name: row for row in counted(network, spikes)}
    sums = [row for row in rows.values() if row.kind == "sum"]
    events = {name: value.sum((0, 2, 3, 4)).long().tolist() for name, value in spikes.items()}
    assert [row.adds.tolist() for row in sums] == [events[f"branch{i}"] for i in range(3)]
    assert [row.input_bound for row in sums] == [2, 3, 4]


def test_what_is_no_spikes():
    layers = read_structure(chain((2, 3, 3), lif(2, 3, 3)))

    def spikes(pixels, **more):
        return Spikes(4, {"0": pixels, **more}, {"0": pixels.max(0)} if pixels.size else {})

    good = np.full((4, 1, 3, 3), 2)
    count(layers, spikes(good))
    for bad, message in [
        (good + 1, "'0' at a pixel and step are 3 to 3: 2 channels of at most 1 give 0 to 2"),
        (good - 3, "-1 to -1"),
        (good[:, :, :2], "expected integers"),
        (good[:3], "expected integers"),
        (good / 2, "float64"),
    ]:
        with pytest.raises(InputError, match=message):
            count(layers, spikes(bad))
    with pytest.raises(InputError, match="'0' sends events, but has no spikes here"):
        count(layers, Spikes(4))
    with pytest.raises(InputError, match="'z' has spikes, but is no neuron node"):
        count(layers, spikes(good, z=good))
    half = Spikes(4)
    with pytest.raises(InputError, match="'0' emits values that are no spikes"):
        half.add("0", torch.full((4, 2, 3, 3), 0.25), keep=False)
    with pytest.raises(InputError, match="'0' emits values that are no spikes"):
        half.add("0", torch.tensor([[0.5, 0.5]] * 4), keep=True)


def test_counts_that_could_not_be_exact_are_refused():
    network = chain((2, 3, 3), lif(2, 3, 3), convolution(2, 4, (3, 3), 1, 1, 1, 1))
    layers = read_structure(network)
    # read, written, and the taps of all spikes without a border
    at_one_step = 18 + (18 + 18) + (18 + 36 + 18 * 4 * 9) + (36 + 36)
    for steps, message in (
        (2**53 // at_one_step, "'0' sends events, but has no spikes here"),
        (2**47, "operations: counts are exact"),
    ):
        with pytest.raises(InputError, match=message):
            count(layers, Spikes(steps))
    pools = chain(
        (1, 300, 300), nir.SumPool2d(300, 300, 0), lif(1, 1, 1), metadata={"input": "events"}
    )
    with pytest.raises(
        InputError,
        match=r"'0' has values of up to 22950000 at a step: counts are exact below 2\^24",
    ):
        count(read_structure(pools), Spikes(1))


def test_sums_over_very_many_channels():
    """255 events in each of 70,000 features are more than a float32 counts."""
    frames = torch.full((1, 70_000), 255.0)
    frames[0, 0] = 254.0
    spikes = Spikes(1)
    spikes.add("input", frames, keep=True)
    assert spikes.pixels["input"].item() == 255 * 70_000 - 1 > 2**24
    assert spikes.active["input"].item() == 70_000


def test_the_first_layer_of_simulated_saccades_reads_spikes():
    model = lively("danet20-t2.i2e-fmnist", 12, widths=(4, 6, 8))
    frames = (torch.rand(2, 3, 2, 12, 12) < 0.2).float()
    stem = estimate(model, frames).layers[0]
    assert (stem.input_kind, stem.input_bound) == ("binary", 1)
    with pytest.raises(InputError, match="2 channels of at most 1 give 0 to 2"):
        estimate(model, 2 * frames)
    counts = estimate(lively("danet20-t2.nmnist", 12, widths=(4, 6, 8)), 2 * frames).layers[0]
    assert (counts.input_kind, counts.input_bound) == ("integer", 255)


def test_half_precision_sums_are_exact():
    spikes = Spikes(1)
    spikes.add("lif", torch.ones(1, 2049, dtype=torch.float16), keep=False)
    assert spikes.pixels["lif"].item() == spikes.active["lif"].item() == 2049


def test_graphs_that_cannot_be_counted():
    ones = np.ones((2, 3, 3))
    with pytest.raises(
        InputError, match="'0' is a Threshold, whose operations cannot be counted; valid are Input"
    ):
        read_structure(chain((2, 3, 3), nir.Threshold(ones)))
    with pytest.raises(ExportError, match=r"'0' reads \[2, 3, 3\], but has weights \[4, 5\]"):
        read_structure(chain((2, 3, 3), nir.Linear(np.zeros((4, 5)))))
    with pytest.raises(ExportError, match="the edge 'nobody' -> '0' has an end that is no node"):
        read_structure(graph(chain((2, 3, 3), lif(2, 3, 3)).nodes, [("nobody", "0")]))


def rows_of(run, images):
    return count(run.layers, run.run(images)[1])


def test_batches_order_and_mode_do_not_matter(tiny):
    run, images = (
        TorchExecutor(tiny),
        torch.randn(5, 1, 20, 20, generator=torch.Generator().manual_seed(2)),
    )
    whole = rows_of(run, images)
    parts = [rows_of(run, images[i : i + 2]) for i in (0, 2, 4)]
    backwards = rows_of(run, images.flip(0))
    tiny.train()
    with torch.no_grad():
        training = rows_of(run, images)
    tiny.eval()
    nothing = rows_of(run, 0 * images)
    for i, row in enumerate(whole):
        for key in COUNTS:
            value = np.broadcast_to(getattr(row, key), 5).tolist()
            assert value == np.broadcast_to(getattr(training[i], key), 5).tolist()
            assert value == np.broadcast_to(getattr(backwards[i], key), 5)[::-1].tolist()
            assert value == [
                n
                for p, size in zip(parts, (2, 2, 1), strict=True)
                for n in np.broadcast_to(getattr(p[i], key), size)
            ]
        assert (row.input_kind, row.input_bound, row.macs) == (
            nothing[i].input_kind,
            nothing[i].input_bound,
            nothing[i].macs,
        )


def test_a_graph_from_a_file_counts_the_same(tiny, tmp_path):
    nir.write(tmp_path / "tiny.nir", to_nir(tiny, dialect="native"))
    _, spikes = TorchExecutor(tiny).run(torch.randn(2, 1, 20, 20))
    ours, read = (
        count(read_structure(g), spikes)
        for g in (to_nir(tiny, dialect="native"), nir.read(tmp_path / "tiny.nir"))
    )
    assert {r.name: (r.macs, *r.acs, *r.adds) for r in ours} == {
        r.name: (r.macs, *r.acs, *r.adds) for r in read
    }
