"""Counts of single layers against one that knows nothing of theirs: every event goes through a
convolution of ones and zeros.
"""

import nir
import numpy as np
import pytest
import torch
from test_energy_counting import chain, counted, graph, lif
from torch.nn import functional as F

from export.energy import read_structure, trains_needed

GEOMETRIES = 300


def random_case(seed):
    """A convolution of any geometry, with weights missing in two of three cases, and spikes `[T, B,
    C, H, W]` for it.
    """
    random = np.random.default_rng(seed)

    def pick(low, high):
        return int(random.integers(low, high + 1))

    groups = pick(1, 3) if seed % 2 else 1
    cin, cout = groups * pick(1, 3), groups * pick(1, 3)
    kernel, stride, dilation = (
        (pick(1, 4), pick(1, 4)),
        (pick(1, 3), pick(1, 3)),
        (pick(1, 2), pick(1, 2)),
    )
    size = tuple(d * (k - 1) + 1 + pick(0, 6) for k, d in zip(kernel, dilation, strict=True))
    padding = (pick(0, 3), pick(0, 3))
    weight = random.normal(size=(cout, cin // groups, *kernel)).astype(np.float32)
    weight *= random.random(weight.shape) > (0, 0.3, 0.9)[seed % 3]
    bias = random.normal(size=cout).astype(np.float32) * (random.random(cout) > 0.3)
    node = nir.Conv2d(None, weight, stride, padding, dilation, groups, bias)
    spikes = torch.from_numpy(
        (random.random((2, 2, cin, *size)) < random.choice([0.05, 0.5])).astype(np.float64)
    )
    return node, spikes


def connections(node, x):
    """How many products with a weight each output gets of every event, `[N, C, H, W]`."""
    ones = torch.from_numpy((node.weight != 0).astype(np.float64))
    stride, padding, dilation = (
        tuple(map(int, np.broadcast_to(v, 2))) for v in (node.stride, node.padding, node.dilation)
    )
    return F.conv2d(x, ones, None, stride, padding, dilation, node.groups)


@pytest.mark.parametrize("block", range(10))
def test_random_geometries(block):
    for seed in range(block * GEOMETRIES // 10, (block + 1) * GEOMETRIES // 10):
        node, spikes = random_case(seed)
        hits = connections(node, spikes.flatten(0, 1)).unflatten(0, (2, 2))  # [T, B, C, H, W]
        out = tuple(hits.shape[2:])
        rows = counted(
            chain(tuple(spikes.shape[2:]), lif(*spikes.shape[2:]), node, lif(*out)),
            {"0": spikes, "2": 0 * hits},
        )
        conv, reached = rows[1], rows[2]
        if conv.kind == "scale":  # a diagonal of 1x1 is one
            assert conv.acs.tolist() == hits.sum((0, 2, 3, 4)).tolist()
            continue
        assert conv.acs.tolist() == hits.sum((0, 2, 3, 4)).tolist(), seed
        assert conv.event_macs.tolist() == conv.acs.tolist()
        assert conv.event_sum.tolist() == spikes.sum((0, 2, 3, 4)).tolist()
        assert conv.events.shape[1] <= 1
        assert (
            conv.active_acs.tolist() == connections(node, spikes.amax(0)).sum((1, 2, 3)).tolist()
        ), seed
        assert conv.connections == connections(node, torch.ones_like(spikes[0, :1])).sum()
        assert conv.bias_adds == 2 * np.count_nonzero(node.bias) * out[1] * out[2]
        assert reached.updates_with_input.tolist() == (hits > 0).sum((0, 2, 3, 4)).tolist(), seed
        assert reached.updates == 2 * hits[0, 0].numel()


def test_real_input_works_with_the_weights_that_are_there():
    for seed in range(30):
        node, spikes = random_case(seed)
        (row,) = (
            r
            for r in counted(chain(tuple(spikes.shape[2:]), node), {}, steps=3)
            if r.kind in ("conv", "scale")
        )
        if row.kind == "conv":
            assert (
                row.macs
                == 3 * connections(node, torch.ones_like(spikes[0, :1])).sum()
                == 3 * row.connections
            )


def sums(*nodes):
    """Two neurons, whose sum is read by each of the nodes."""
    shape = (3, 5, 4)
    named = {"input": nir.Input({"input": np.array(shape)}), "one": lif(*shape), "two": lif(*shape)}
    edges = [("input", "one"), ("input", "two")]
    for i, node in enumerate(nodes):
        named[f"read{i}"] = node
        edges += [("one", f"read{i}"), ("two", f"read{i}")]
    named["output"] = nir.Output({"output": None})
    return graph(named, [*edges, *((f"read{i}", "output") for i in range(len(nodes)))])


def test_events_of_a_sum_by_their_value():
    random = [torch.Generator().manual_seed(i) for i in range(2)]
    one, two = ((torch.rand(4, 2, 3, 5, 4, generator=r) < 0.5).double() for r in random)
    trains = {"one": one, "two": two}
    total = trains["one"] + trains["two"]
    node = nir.Conv2d(None, np.ones((2, 3, 3, 3), np.float32), 1, 1, 1, 1, np.zeros(2, np.float32))
    row = next(r for r in counted(sums(node), trains) if r.kind == "conv")
    assert (row.input_kind, row.input_bound) == ("integer", 2)
    assert row.events.tolist() == [
        [(total[:, b] == v).sum().item() for v in (1, 2)] for b in range(2)
    ]
    assert row.event_sum.tolist() == total.sum((0, 2, 3, 4)).tolist()
    assert (
        row.acs.tolist()
        == connections(node, total.flatten(0, 1)).unflatten(0, (4, 2)).sum((0, 2, 3, 4)).tolist()
    )
    events = (total > 0).double()
    assert (
        row.event_macs.tolist()
        == connections(node, events.flatten(0, 1)).unflatten(0, (4, 2)).sum((0, 2, 3, 4)).tolist()
    )
    assert (
        row.active_acs.tolist()
        == connections(node, total.amax(0).gt(0).double()).sum((1, 2, 3)).tolist()
    )


def test_neurons_that_nothing_reaches_are_told_apart():
    """A neuron that reads spikes directly, and one behind a scale, a pool and a matrix."""
    shape, random = (3, 4, 4), torch.Generator().manual_seed(0)
    spikes = (torch.rand(5, 2, *shape, generator=random) < 0.05).double()
    half = np.full(shape, 0.5, np.float32)
    weight = np.zeros((6, 12), np.float32)
    weight[:4, :6] = 1
    nodes = {
        "input": nir.Input({"input": np.array(shape)}),
        "lif": lif(*shape),
        "direct": lif(*shape),
        "scale": nir.Scale(half),
        "scaled": lif(*shape),
        "pool": nir.AvgPool2d(2, 2, 0),
        "pooled": lif(3, 2, 2),
        "flat": nir.Flatten({"input": np.array([3, 2, 2])}, 0, -1),
        "matrix": nir.Linear(weight),
        "behind": lif(6),
        "output": nir.Output({"output": None}),
    }
    edges = [
        ("input", "lif"),
        ("lif", "direct"),
        ("lif", "scale"),
        ("scale", "scaled"),
        ("lif", "pool"),
        ("pool", "pooled"),
    ]
    edges += [("pool", "flat"), ("flat", "matrix"), ("matrix", "behind"), ("behind", "output")]
    network = graph(nodes, edges)
    assert trains_needed(read_structure(network)) == {"lif"}
    silent = {
        "direct": 0 * spikes,
        "scaled": 0 * spikes,
        "pooled": torch.zeros(5, 2, 3, 2, 2),
        "behind": torch.zeros(5, 2, 6, 1, 1),
    }
    rows = {row.name: row for row in counted(network, {"lif": spikes} | silent)}
    each = spikes.sum((0, 2, 3, 4)).tolist()
    # which reads the image
    assert rows["lif"].updates_with_input.tolist() == [rows["lif"].updates] * 2
    assert (
        rows["direct"].updates_with_input.tolist()
        == rows["scaled"].updates_with_input.tolist()
        == each
    )
    assert rows["scale"].acs.tolist() == each and rows["scale"].multiplies == 0
    pooled = F.max_pool2d(spikes.flatten(0, 1), 2).unflatten(0, (5, 2))
    assert rows["pooled"].updates_with_input.tolist() == pooled.sum((0, 2, 3, 4)).tolist()
    seen = pooled.flatten(2)[:, :, :6].amax(2)  # the inputs that have weights
    assert rows["behind"].updates_with_input.tolist() == (4 * seen.sum(0)).tolist()


def test_bytes():
    node = nir.Conv2d(None, np.ones((8, 3, 3, 3), np.float32), 1, 1, 1, 1, np.ones(8, np.float32))
    conv, neurons = counted(chain((3, 5, 5), node, lif(8, 5, 5)), {"1": torch.zeros(2, 1, 8, 5, 5)})
    assert (conv.weight_bytes, conv.activation_bytes, conv.state_bytes) == (
        4 * (8 * 27 + 8),
        4 * 200,
        0,
    )
    assert (neurons.weight_bytes, neurons.activation_bytes, neurons.state_bytes) == (0, 25, 800)
    rounded = chain((3, 5, 5), node, metadata={"precision": "int8"})
    assert counted(rounded, {})[0].weight_bytes == 8 * 27 + 4 * 8


def test_input_of_events():
    """A network of an event camera starts with accumulates, not with products."""
    frames = torch.randint(
        0, 4, (3, 2, 2, 6, 6), generator=torch.Generator().manual_seed(5)
    ).double()
    node = nir.Conv2d(None, np.ones((4, 2, 3, 3), np.float32), 1, 1, 1, 1, np.zeros(4, np.float32))
    network = chain((2, 6, 6), node, metadata={"input": "events"})
    assert trains_needed(read_structure(network)) == {"input"}
    (row,) = counted(network, {"input": frames})
    assert (row.input_kind, row.input_bound, row.macs) == ("integer", 255, 0)
    assert (
        row.acs.tolist()
        == connections(node, frames.flatten(0, 1)).unflatten(0, (3, 2)).sum((0, 2, 3, 4)).tolist()
    )
    assert row.events.shape == (2, 3)
