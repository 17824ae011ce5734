"""Whole networks against counts by torch, and against published integers."""

import numpy as np
import pytest
import torch
from brute_force import brute_force, brute_force_adds
from support.networks import lively

import zoo
from export.energy import COUNTS, TorchExecutor, count, dense_macs, read_structure
from export.nir.exporter import to_nir

TINY = {"widths": (4, 6, 8)}
SMALL = {"widths": (4, 6, 8, 8), "num_classes": 5}


def rows_of(model, images):
    """By name."""
    run = TorchExecutor(model)
    return {row.name: row for row in count(run.layers, run.run(images)[1])}


MODELS = [
    ("danet20-t2.fmnist", 28, TINY),
    ("danet20-t3.fmnist", 21, TINY),  # sizes that no pool divides
    ("danet20b-t2.fmnist", 20, TINY),
    ("danet20c-t2.fmnist", 20, TINY),
    ("danet20d-t2.fmnist", 20, TINY),
    ("danet18-t2.in1k", 32, SMALL),
    ("danet50c-t2.cifar10", 21, {"widths": (8, 8, 16, 16)}),
    ("sew-resnet18-t2.in1k", 32, SMALL),
    ("spiking-resnet20-t2.fmnist", 20, TINY),
]


@pytest.mark.parametrize(("name", "size", "config"), MODELS)
def test_report_agrees_with_torch(name, size, config):
    model = lively(name, size, **config)
    images = torch.randn(
        3, model.config.in_channels, size, size, generator=torch.Generator().manual_seed(3)
    )
    rows = rows_of(model, images)
    expected = brute_force(model, images)
    assert {
        name
        for name, row in rows.items()
        if row.kind in ("conv", "linear") and row.input_kind != "real"
    } == set(expected)
    assert {name: rows[name].acs.tolist() for name in expected} == {
        name: acs.tolist() for name, acs in expected.items()
    }
    assert sum(acs.sum() for acs in expected.values()) > 0
    if model.config.order != "post":  # whose sums mix currents and spikes
        sums = [row.adds for row in rows.values() if row.kind == "sum"]
        assert sum(sums).tolist() == brute_force_adds(model, images).tolist()


def test_kinds_of_input():
    model = lively("danet20c-t2.fmnist", 20, depths=(3, 1, 1), **TINY)
    rows = rows_of(model, torch.randn(1, 1, 20, 20))
    kinds = {
        name: (rows[name].input_kind, rows[name].input_bound)
        for name in ("stem_conv", "stage1_block0_conv1", "stage1_block2_conv1")
    }
    assert kinds == {
        "stem_conv": ("real", None),
        "stage1_block0_conv1": ("binary", 1),
        "stage1_block2_conv1": ("integer", 3),
    }
    assert rows["head_fc"].input_bound == 25 * len(
        [e for e in to_nir(model).edges if e[1] == "head_readout_pool"]
    )


def test_a_shortcut_of_currents_is_dense_at_every_step():
    model = lively("ms-resnet20-t3.fmnist", 20, **TINY)
    rows = rows_of(model, torch.randn(1, 1, 20, 20))
    shortcut = rows["stage2_block0_shortcut_conv"]
    assert (shortcut.input_kind, shortcut.macs, shortcut.acs.tolist()) == (
        "real",
        3 * 4 * 6 * 10 * 10,
        [0],
    )
    assert rows["stem_conv"].macs == rows["stem_conv"].dense_macs_valid


def test_max_pool_is_a_layer_of_neurons():
    model = lively("sew-resnet18-t2.in1k", 32, **SMALL)
    rows = rows_of(model, torch.randn(2, 3, 32, 32))
    assert (rows["stem_pool"].kind, rows["stem_pool_share"].kind) == ("neuron", "pool")
    assert rows["stem_pool"].outputs == 4 * 8 * 8
    assert (rows["stem_pool_share"].adds >= rows["stem_pool"].spikes).all()


def test_reset_by_subtraction_is_one_layer_of_neurons():
    """Its membrane, reset and delay are no layers of their own, and its synaptic operations are
    those of any neuron's spikes.
    """
    model = lively("speck-danet8-t4.fmnist", 20, **TINY)
    images = torch.randn(2, 1, 20, 20, generator=torch.Generator().manual_seed(3))
    rows = rows_of(model, images)
    assert not [name for name in rows if name.endswith(("_membrane", "_reset", "_delay"))]
    lif = rows["stage2_block0_lif1"]
    assert (lif.kind, lif.outputs, lif.updates) == (
        "neuron",
        6 * 10 * 10,
        4 * 6 * 10 * 10,
    ) and lif.spikes.any()
    expected = brute_force(model, images)
    assert {name: rows[name].acs.tolist() for name in expected} == {
        name: acs.tolist() for name, acs in expected.items()
    }


@pytest.mark.parametrize("word", ["and", "iand"])
def test_products_of_spikes_are_layers_of_neurons(word):
    model = lively(f"sew-resnet20{word}-t2.fmnist", 20, **TINY)
    rows = rows_of(model, torch.randn(2, 1, 20, 20))
    joined = rows["stage1_block0_add"]
    assert (joined.kind, joined.outputs, joined.updates) == (
        "neuron",
        4 * 20 * 20,
        2 * 4 * 20 * 20,
    ) and joined.spikes.any()
    # what the next block reads are spikes, and no counts
    assert rows["stage1_block1_conv1"].input_bound == 1
    fewer = rows["stage1_block0_lif2"] if word == "and" else rows["stem_lif"]
    assert (joined.spikes <= fewer.spikes).all()


def test_a_gathered_sum_costs_what_its_edges_cost(monkeypatch):
    """The node through which a sum of many terms goes is no operation, for currents (a) as for
    spikes (c).
    """
    for name in ("danet20-t2.fmnist", "danet20c-t2.fmnist"):
        model, images = (
            lively(name, 20, **TINY),
            torch.randn(2, 1, 20, 20, generator=torch.Generator().manual_seed(0)),
        )
        direct = rows_of(model, images)
        with monkeypatch.context() as patch:
            patch.setattr("export.nir.exporter.MAX_TERMS", 2)
            assert any(node.endswith("_add") for node in to_nir(model, dialect="native").nodes)
            gathered = rows_of(model, images)

        def totals(rows):
            return {key: sum(getattr(row, key) for row in rows.values()) for key in COUNTS}

        for key, value in totals(direct).items():
            assert np.array_equal(value, totals(gathered)[key]), (name, key)


def test_graded_neurons_are_refused(tiny):
    handle = tiny.get_submodule("head.lif").register_forward_hook(
        lambda module, args, spikes: spikes / 2
    )
    with pytest.raises(zoo.InputError, match="'head_lif' emits values that are no spikes"):
        TorchExecutor(tiny).run(torch.randn(1, 1, 20, 20))
    handle.remove()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "padded", "valid"),
    [
        (18, 1_814_073_344, 1_680_390_912),
        (50, 4_089_184_256, 3_948_251_904),
        (152, 11_513_626_624, 11_028_499_200),
    ],
)
def test_published_macs(depth, padded, valid):
    layers = read_structure(to_nir(zoo.create(f"spiking-resnet{depth}-t1.in1k"), dialect="native"))
    macs = [dense_macs(layer) for layer in layers]
    assert (sum(m[0] for m in macs), sum(m[1] for m in macs)) == (padded, valid)
