"""Sums over images: exact, whatever the batches; and what is made of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from export.energy import (
    Band,
    Device,
    Operation,
    OperationCounts,
    Term,
    TorchExecutor,
    Totals,
    count,
    price,
)
from export.energy.conventions import EXACT

AC, UPDATE = Operation("ac"), Operation("update")


def priced(**prices):
    terms = {name: Term(p / 2, p, 2 * p, "measured", "a paper") for name, p in prices.items()}
    return Device("device", "a device", "per term", "", terms)


def counted(layers, images):
    count = len(next(iter(images.values()), ()))
    return OperationCounts(
        EXACT, count, tuple(layers), {operation: np.array(n) for operation, n in images.items()}
    )


def test_energy_of_operations():
    e = price(
        counted([{AC: 6}, {UPDATE: 30}], {AC: [1, 2, 3], UPDATE: [10, 10, 10]}),
        priced(ac=1.0, update=1000.0),
    )
    assert e.layers == (Band(1.0, 2.0, 4.0), Band(5000.0, 10000.0, 20000.0))
    assert e.total == Band(5001.0, 10002.0, 20004.0)
    assert e.images.tolist() == [10001.0, 10002.0, 10003.0]
    assert e.deviation == 1.0 and e.unpriced == ()


def test_an_operation_without_a_price_leaves_the_total_empty():
    e = price(
        counted([{AC: 6}, {UPDATE: 30}], {AC: [1, 2, 3], UPDATE: [10, 10, 10]}), priced(ac=1.0)
    )
    assert (e.total, e.images, e.deviation, e.interval, e.unpriced) == (
        None,
        None,
        None,
        None,
        ("update",),
    )
    assert e.layers == (Band(1.0, 2.0, 4.0), None)
    assert e.images_for() is None


def test_sums_beyond_64_bits():
    """Of many images that each need almost 2^63 operations."""
    many = counted([{AC: 4 * (2**62 + 1)}], {AC: [2**62 + 1] * 4})
    assert many.total == {AC: 2**64 + 4}
    assert price(many, priced(ac=1.0)).total.typ == pytest.approx(2.0**62)


def test_totals_beyond_64_bits(tiny):
    run = TorchExecutor(tiny)
    rows = [
        replace(row, acs=row.acs + 2**61)
        for row in count(run.layers, run.run(torch.zeros(8, 1, 20, 20))[1])
    ]
    totals = Totals(2)
    totals.add(rows, {})
    exact = sum(int(n) for row in rows for n in row.acs)
    assert sum(layer.counts["acs"] for layer in totals.layers) == exact > 2**64
    assert sum(layer[AC] for layer in totals.operations()["exact"].by_layer if AC in layer) > 2**64


def test_images_without_any_operation_cost_nothing_each():
    e = price(OperationCounts(EXACT, 10, ({},), {}), priced(ac=1.0))
    assert e.total == Band(0.0, 0.0, 0.0) and e.images.tolist() == [0.0] * 10
    assert (e.deviation, e.interval.lo, e.interval.hi, e.images_for()) == (0.0, 0.0, 0.0, None)


def test_one_image_has_no_interval():
    e = price(counted([{AC: 7}], {AC: [7]}), priced(ac=1.0))
    assert e.total == Band(3.5, 7.0, 14.0) and (e.deviation, e.interval, e.images_for()) == (
        None,
        None,
        None,
    )


@pytest.mark.parametrize(("images", "known"), [(2, False), (9, False), (10, True)])
def test_an_interval_needs_ten_images(images, known):
    e = price(counted([{AC: 3}], {AC: range(images)}), priced(ac=1.0))
    assert (e.interval is not None, e.deviation is not None) == (known, True)


def test_the_bootstrap_interval_covers_the_mean():
    """Of 200 samples of 40 images, about 95 % have the true mean inside of their interval."""
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        images = random.integers(900, 1100, 40)
        interval = price(counted([{AC: int(images.sum())}], {AC: images}), priced(ac=1.0)).interval
        inside += interval.lo <= 999.5 <= interval.hi
    assert 180 <= inside <= 199


def test_images_for_an_interval():
    random = np.random.default_rng(1)
    images = random.normal(1000, 100, 10_000).astype(np.int64)
    e = price(counted([{AC: int(images.sum())}], {AC: images}), priced(ac=1.0))
    assert e.images_for(0.01) == pytest.approx(1.96**2 * 100, rel=0.05)  # a deviation of a tenth
    few = price(counted([{AC: 0}], {AC: images[: e.images_for(0.01)]}), priced(ac=1.0))
    assert (few.interval.hi - few.interval.lo) / 2 == pytest.approx(10, rel=0.15)


def test_parts_make_the_whole(tiny):
    """Batches of one, and sums merged in order, are the sums over one batch."""
    run = TorchExecutor(tiny)
    images = torch.randn(5, 1, 20, 20, generator=torch.Generator().manual_seed(2))

    def totals(*parts):
        found = Totals(2)
        for x in parts:
            _, spikes = run.run(x)
            found.add(
                count(run.layers, spikes),
                {name: spikes.pixels[name].sum((1, 2, 3)) for name in run.neurons},
            )
        return found

    whole, parts, merged = totals(images), totals(*images.split(1)), totals(images[:2])
    merged.merge(totals(images[2:]))
    merged.merge(Totals(2))  # of a process that had nothing to do
    late = Totals(2)
    late.merge(whole)
    for other in (parts, merged, late):
        assert other.images == 5 and other.layers == whole.layers
        for name, one in whole.operations().items():
            two = other.operations()[name]
            assert two.by_layer == one.by_layer
            assert {k: n.tolist() for k, n in two.by_image.items()} == {
                k: n.tolist() for k, n in one.by_image.items()
            }
