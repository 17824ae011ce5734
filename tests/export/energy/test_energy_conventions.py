"""Each convention against its formula, written down once more; and the networks without spikes
beside it.
"""

import math
from dataclasses import replace
from fractions import Fraction

import nir
import numpy as np
import pytest
import torch
from brute_force import by_module
from support.networks import lively

from export.energy import (
    CONVENTIONS,
    Operation,
    Spikes,
    TorchExecutor,
    compare,
    count,
    estimate,
    find_devices,
    read_structure,
)
from export.energy.comparison import memory_inclusive_rate
from export.nir.exporter import to_nir
from zoo.errors import InputError

T = 3
TINY = {"widths": (4, 6, 8)}
SMALL = {"widths": (4, 6, 8, 8), "num_classes": 5}
MAC, AC, ADD, MULTIPLY, UPDATE, IDLE = map(
    Operation, ("mac", "ac", "add", "multiply", "update", "idle_update")
)


@pytest.fixture(scope="module", params=["danet20", "danet20c"])
def rows(request):
    """Layers of a network whose first layer reads the image, and others binary events, or integers
    (order c).
    """
    run = TorchExecutor(lively(f"{request.param}-t{T}.fmnist", 20, widths=(4, 6, 8)))
    return count(
        run.layers,
        run.run(torch.randn(2, 1, 20, 20, generator=torch.Generator().manual_seed(5)))[1],
    )


def total(name, rows, steps=T):
    """Operation -> [B], of all layers."""
    found = {}
    for row in rows:
        for operation, n in CONVENTIONS[name].operations(row, steps).items():
            assert n.dtype == np.int64
            found[operation] = found.get(operation, 0) + n
    return found


def test_exact(rows):
    found = total("exact", rows)
    assert found[AC].tolist() == sum(row.acs for row in rows).tolist()
    assert found[MAC].tolist() == [sum(row.macs for row in rows)] * 2
    assert found[ADD].tolist() == sum(row.adds + row.bias_adds for row in rows).tolist()
    assert (found[UPDATE] + found.get(IDLE, 0)).tolist() == [sum(row.updates for row in rows)] * 2
    assert not any(operation.kind == "access" for operation in found)


@pytest.mark.parametrize(("name", "runs"), [("spikformer", T), ("sew", 1)])
def test_rates(rows, name, runs):
    found = total(name, rows)
    stem = next(row for row in rows if row.name == "stem_conv")
    assert found.keys() == {MAC, AC}
    assert found[MAC].tolist() == [runs * stem.dense_macs_padded] * 2
    fed = [row for row in rows if row.kind in ("conv", "linear") and row is not stem]
    rates = [row.event_sum / (T * row.inputs) for row in fed]
    expected = sum(rate * T * row.dense_macs_padded for rate, row in zip(rates, fed, strict=True))
    # each layer is rounded to whole operations
    assert np.abs(found[AC] - expected).max() <= 0.5 * len(fed)


@pytest.mark.parametrize(
    ("name", "size", "config"),
    [
        ("danet20-t3.fmnist", 20, TINY),  # average pools before the shortcuts, of spikes
        ("danet20c-t3.fmnist", 20, TINY),  # and of sums of spikes
        ("sew-resnet18-t2.in1k", 32, SMALL | {"depths": (2, 2, 2, 2)}),  # a max pool
        ("sew-resnet20iand-t2.fmnist", 20, TINY),
        ("spiking-resnet20-t1.fmnist", 20, TINY),
        ("speck-danet8-t4.fmnist", 20, TINY),  # a reset by subtraction
    ],
)
def test_syops(name, size, config):
    """Module by module, of the model before any BatchNorm was folded; tests/interop asks
    syops-counter itself.
    """
    model = lively(name, size, **config)
    run, images = (
        TorchExecutor(model),
        torch.randn(
            2, model.config.in_channels, size, size, generator=torch.Generator().manual_seed(5)
        ),
    )
    rows = count(run.layers, run.run(images)[1])
    found = total("syops", rows, model.config.steps)
    for i in range(2):
        accumulates, macs = by_module(model, images[i : i + 1])
        # each is rounded to whole operations
        assert found[MAC][i] == macs and abs(found[AC][i] - accumulates) <= len(rows)
        assert accumulates > macs / 100 > 100


def test_syops_of_a_model_without_a_batch_norm():
    """An `nn.Identity` in its place is no operation."""
    model, image = (
        lively("danet20-t2.fmnist", 20, **TINY),
        torch.randn(1, 1, 20, 20, generator=torch.Generator().manual_seed(5)),
    )
    model.set_submodule("stage1.block0.bn1", torch.nn.Identity())
    model.set_submodule(
        "stage1.block0.lif2", torch.nn.Sequential(model.stage1.block0.lif2, torch.nn.Identity())
    )
    run = TorchExecutor(model)
    found = total("syops", count(run.layers, run.run(image)[1]), 2)
    accumulates, macs = by_module(model, image)
    assert found[MAC].tolist() == [macs] and abs(found[AC][0] - accumulates) <= 60


def test_syops_of_a_graph_that_names_no_modules(tiny):
    """A graph of anybody has nothing but its nodes: a convolution has a bias and no BatchNorm."""
    graph = to_nir(tiny, dialect="native")
    stem = next(layer for layer in read_structure(graph) if layer.name == "stem_conv")
    assert stem.modules == ("Conv2d", "BatchNorm2d") and not stem.read_out
    executor = TorchExecutor(tiny)
    _, spikes = executor.run(torch.zeros(1, 1, 20, 20))
    counts = []
    for modules in (graph.metadata["modules"], "{}"):
        graph.metadata["modules"] = modules
        row = count(read_structure(graph), spikes)[0]
        counts.append(CONVENTIONS["syops"].operations(row, 2)[MAC].tolist())
    taps, outputs = 9, 4 * 20 * 20
    assert counts == [[(taps + 2) * outputs], [(taps + 1) * outputs]]
    for bad in ("[]", "{", 3):
        graph.metadata["modules"] = bad
        with pytest.raises(InputError, match="`modules` must be JSON of an object"):
            read_structure(graph)


def test_lemaire(rows):
    """Equations 1.3 to 17 of Lemaire et al. 2022, layer by layer."""
    for row in rows:
        found = CONVENTIONS["lemaire"].operations(row, T)
        accesses = sum(n for operation, n in found.items() if operation.kind == "access")
        theta, area, cout = row.event_sum, math.prod(row.kernel), row.fan_out
        if row.kind == "conv" and row.input_kind != "real":
            folds = math.prod(math.ceil(k / s) for k, s in zip(row.kernel, row.stride, strict=True))
            assert found[AC].tolist() == (theta * folds * cout).tolist()
            assert found[MAC].tolist() == (2 * theta).tolist()
            assert found[ADD].tolist() == (theta * cout * area + row.bias_adds).tolist()
            assert accesses.tolist() == (theta + 3 * theta * cout * area + row.bias_adds).tolist()
            assert (
                Operation("access", row.weight_bytes) in found
                and Operation("access", 4 * row.outputs) in found
            )
        elif row.kind == "conv":  # equations 1.1, 3, 6.1, 11: the stem
            assert found[MAC].tolist() == [row.dense_macs_padded] * 2
            assert (
                accesses.tolist() == [2 * row.dense_macs_padded + row.bias_adds + row.outputs] * 2
            )
        elif row.kind == "neuron":
            assert found[MAC].tolist() == [row.updates] * 2
            assert found[ADD].tolist() == (row.spikes + row.bias_adds).tolist()
            assert accesses.tolist() == (2 * row.updates + row.spikes).tolist()


def test_lemaire_of_a_matrix_that_reads_currents():
    """Equations 2.1, 4, 6.2 and 12: it reads each input once, and not once for each weight."""
    full = np.ones(3, np.float32)
    nodes = {
        "input": nir.Input({"input": np.array([5])}),
        "matrix": nir.Linear(np.ones((3, 5), np.float32)),
        "lif": nir.LIF(2e-4 * full, full, 0 * full, full, 0 * full),
        "output": nir.Output({"output": np.array([3])}),
    }
    edges = list(zip(nodes, list(nodes)[1:], strict=False))
    spikes = Spikes(2)
    spikes.add("lif", torch.zeros(2, 3), keep=False)
    row = count(
        read_structure(nir.NIRGraph(nodes, edges, {"input": "currents"}, type_check=False)), spikes
    )[0]
    inputs, weights, outputs = (Operation("access", 4 * n) for n in (5, 15, 3))
    found = {
        operation: n.tolist() for operation, n in CONVENTIONS["lemaire"].operations(row, 2).items()
    }
    assert found == {
        MAC: [2 * 15],
        ADD: [2 * 15],
        inputs: [2 * 5],
        weights: [2 * 15],
        outputs: [2 * 3],
    }


def test_a_share_of_very_many_operations_is_exact(rows):
    """Its product has more than 64 bits, but its result has not."""
    row = next(row for row in rows if row.kind == "conv" and row.input_kind == "binary")
    events, inputs, dense = 3 * 2**40 + 1, 2**42, 2**43 + 3
    large = replace(row, events=np.array([[events]] * 2), inputs=inputs, dense_macs_padded=dense)
    exact = Fraction(events * dense, inputs)
    assert CONVENTIONS["sew"].operations(large, T)[AC].tolist() == [int(exact + Fraction(1, 2))] * 2


def test_integers():
    """In order c, layers read sums of spikes: as many accumulates as their value, or one product,
    or a dense layer.
    """
    run = TorchExecutor(lively("danet20c-t3.fmnist", 20, widths=(4, 6, 8)))
    rows = count(
        run.layers,
        run.run(torch.randn(2, 1, 20, 20, generator=torch.Generator().manual_seed(5)))[1],
    )
    row = next(row for row in rows if row.input_kind == "integer" and row.kind == "conv")
    exact = CONVENTIONS["exact"]
    assert exact.operations(row, T)[AC].tolist() == row.acs.tolist()
    graded = replace(exact, integers="event_mac").operations(row, T)
    assert graded[MAC].tolist() == row.event_macs.tolist() and AC not in graded
    assert (row.event_macs < row.acs).all()
    dense = replace(exact, integers="mac").operations(row, T)
    assert dense[MAC].tolist() == [T * row.connections] * 2


def test_every_convention_says_what_it_is():
    assert list(CONVENTIONS) == ["exact", "spikformer", "sew", "syops", "lemaire"]
    assert all(c.explanation.endswith(".") and c.reference for c in CONVENTIONS.values())


def test_without_spikes(tiny):
    images = torch.randn(4, 1, 20, 20, generator=torch.Generator().manual_seed(5))
    report = estimate(tiny, images, device="45nm-fp32")
    device, spiking = report.devices[0], report.energies[0].total
    dense, skipping, bits = report.comparison(device)
    connections = {
        layer.name: layer.connections for layer in report.layers if layer.kind in ("conv", "linear")
    }
    stem = connections.pop("stem_conv")
    assert dense.operations["mac"] == stem + sum(connections.values())
    assert stem < skipping.operations["mac"] < dense.operations["mac"]
    assert (bits.name, bits.operations["mac"], bits.operations["ac"]) == (
        "2-bit ANN",
        stem,
        2 * sum(connections.values()),
    )
    assert [a.accuracy for a in (dense, skipping, bits)] == [None] * 3
    for other in (dense, skipping, bits):
        # At the break-even rate, the event-driven part has grown so much that both cost the same.
        driven = (
            0.9
            * sum(
                layer.counts["acs"] + layer.counts["adds"]
                for layer in report.layers
                if layer.input_kind != "real"
            )
            / 4
        )
        grown = spiking.typ + driven * (other.break_even / report.mean_rate - 1)
        assert grown == pytest.approx(other.energy.typ)
    assert memory_inclusive_rate(4) == 3 / 32


def test_a_device_without_a_price_for_products(tiny):
    report = estimate(tiny, torch.zeros(1, 1, 20, 20), device="loihi1")
    assert [(a.energy, a.break_even) for a in report.comparison(report.devices[0])] == [
        (None, None)
    ] * 3
    assert report.priced is None
    gpu = find_devices(["gpu"])["gpu"]
    assert all(a.energy is None for a in compare(report.layers, 1, 2, 0.1, None, gpu))
