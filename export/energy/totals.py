"""Sums over images, in constant memory but for a few integers an image, and what they cost.

The counts of a batch come in, are turned into each convention's operations, and are added up
exactly: for every layer over all images, and for every image over all layers. Energy is computed
from these integers afterwards.

Shapes: `N` images in all, `B` images of a batch.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np

from export.energy.conventions import CONVENTIONS, Convention
from export.energy.counting.count import COUNTS, LayerCounts
from export.energy.devices import Band, Device
from export.energy.operations import Operation
from zoo.arrays import Array

__all__ = [
    "MIN_INTERVAL_IMAGES",
    "Energy",
    "Interval",
    "LayerTotals",
    "OperationCounts",
    "Totals",
    "price",
    "price_of_mean",
]

Floats = np.ndarray[Any, np.dtype[np.float64]]
MIN_INTERVAL_IMAGES = 10  # of fewer, resamples are too much alike
BOOTSTRAP_RESAMPLES = 2000
CONFIDENCE = 0.95
CONFIDENCE_DEVIATIONS = 1.959964  # standard deviations that hold this share of a normal one


@dataclass(frozen=True)
class LayerTotals:
    """One row of the report: what the structure says, and exact sums over all images."""

    name: str
    kind: str  # conv, linear, sum, pool, scale, neuron
    input_kind: str  # binary, integer, real
    input_bound: int | None
    runs: int
    outputs: int
    # part of a recurrent connection: it reads spikes of the step before, or is read at the next
    recurrent: bool
    counts: dict[str, int]  # every one of `COUNTS`
    events: tuple[int, ...]  # input elements of value 1, 2, ...
    step_spikes: tuple[int, ...]  # of neurons, at each step
    connections: int  # of one run: the dense MAC whose weight is not zero
    dense_adds: int  # of one run, as an artificial network's
    dense_macs_padded: int
    dense_macs_valid: int
    weight_bytes: int
    state_bytes: int
    activation_bytes: int


SUMMED = ("counts", "events", "step_spikes")  # all other fields are the same for every image


@dataclass(frozen=True)
class OperationCounts:
    """The operations that one convention counts."""

    convention: Convention
    images: int  # N
    by_layer: tuple[dict[Operation, int], ...]  # over all images
    by_image: dict[Operation, Array]  # of all layers, [N]

    @property
    def total(self) -> dict[Operation, int]:
        """The operations of all layers and images."""
        return {operation: _exact_sum(n) for operation, n in self.by_image.items()}


@dataclass(frozen=True)
class Interval:
    """A confidence interval in picojoules."""

    lo: float
    hi: float


@dataclass(frozen=True)
class Energy:
    """The energy of one image: the mean over all images.

    The band is the device's uncertainty, the interval the sample's; they are never merged.
    """

    device: Device
    convention: Convention
    layers: tuple[Band | None, ...]  # None where a layer needs an operation that has no price
    total: Band | None
    images: Floats | None = field(compare=False)  # `typ` of each image, [N]; None without a total
    # operations that the network does and the device has no price for
    unpriced: tuple[str, ...] = ()

    @cached_property
    def deviation(self) -> float | None:
        """The standard deviation of `typ` over images; None for fewer than two or no total."""
        if self.images is None or len(self.images) < 2:
            return None
        return float(np.std(self.images, ddof=1))

    @cached_property
    def interval(self) -> Interval | None:
        """The middle 95 % of the means of bootstrap resamples; the same for the same images.

        None without a total, and of fewer than 10 images.
        """
        if self.images is None or len(self.images) < MIN_INTERVAL_IMAGES:
            return None
        random, n = np.random.default_rng(0), len(self.images)
        means = [self.images[random.integers(0, n, n)].mean() for _ in range(BOOTSTRAP_RESAMPLES)]
        lo, hi = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return Interval(float(lo), float(hi))

    def images_for(self, precision: float = 0.01) -> int | None:
        """Return how many images a 95 % interval of plus or minus `precision` of the mean needs.

        None where that is not known: for fewer than two images, or without a total.
        """
        if self.total is None or self.deviation is None or not self.total.typ:
            return None
        deviations = CONFIDENCE_DEVIATIONS * self.deviation / (precision * self.total.typ)
        return max(2, math.ceil(deviations**2))


class Totals:
    """The sums that grow while images stream through."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.images = 0
        self.layers: list[LayerTotals] = []
        # By convention: the operations of each layer, and for each batch those of its images [B].
        self._by_layer: dict[str, list[Counter[Operation]]] = {}
        self._batches: dict[str, list[dict[Operation, Array]]] = {name: [] for name in CONVENTIONS}
        self._batch_sizes: list[int] = []

    def add(self, rows: list[LayerCounts], step_spikes: dict[str, Array]) -> None:
        """Add a batch: its rows, and for every layer of neurons its spikes at each step, `[T]`."""
        size = len(rows[0].acs)
        self._add_layers([_layer_totals(row, size, step_spikes.get(row.name, ())) for row in rows])
        for name, convention in CONVENTIONS.items():
            layers = [convention.operations(row, self.steps) for row in rows]
            sums = [{operation: _exact_sum(n) for operation, n in row.items()} for row in layers]
            self._add_operations(name, sums)
            batch: dict[Operation, Array] = {}
            for layer in layers:
                for operation, n in layer.items():
                    batch[operation] = batch[operation] + n if operation in batch else n
            self._batches[name].append(batch)
        self._batch_sizes.append(size)
        self.images += size

    def merge(self, other: "Totals") -> None:
        """Add the images of another process, which come after these."""
        if not other.images:
            return
        self._add_layers(other.layers)
        for name, layers in other._by_layer.items():
            self._add_operations(name, layers)
            self._batches[name] += other._batches[name]
        self._batch_sizes += other._batch_sizes
        self.images += other.images

    def operations(self) -> dict[str, OperationCounts]:
        """Return the operations of all images, by the name of the convention."""
        return {
            name: OperationCounts(
                convention,
                self.images,
                by_layer=tuple(map(dict, self._by_layer[name])),
                by_image=self._joined(self._batches[name]),
            )
            for name, convention in CONVENTIONS.items()
        }

    def _add_layers(self, layers: list[LayerTotals]) -> None:
        pairs = zip(self.layers, layers, strict=True)
        self.layers = [_sum_of(*pair) for pair in pairs] if self.layers else layers

    def _add_operations(self, convention: str, layers: Iterable[dict[Operation, int]]) -> None:
        layers = list(layers)
        sums = self._by_layer.setdefault(convention, [Counter() for _ in layers])
        for so_far, layer in zip(sums, layers, strict=True):
            so_far.update(layer)

    def _joined(self, batches: list[dict[Operation, Array]]) -> dict[Operation, Array]:
        """Return the operations of all images, `[N]`; a batch without an operation has none."""
        sizes = self._batch_sizes
        none = [np.zeros(size, np.int64) for size in sizes]
        operations = dict.fromkeys(operation for batch in batches for operation in batch)
        return {
            operation: np.concatenate(
                [batch.get(operation, zeros) for batch, zeros in zip(batches, none, strict=True)]
            )
            for operation in operations
        }


def price(operations: OperationCounts, device: Device) -> Energy:
    """Return what the operations of a convention cost on a device."""
    n = operations.images
    prices = {operation: device.price(operation) for operation in operations.by_image}
    kinds = [operation.kind for operation, band in prices.items() if band is None]
    unpriced = tuple(dict.fromkeys(kinds))
    layers = tuple(price_of_mean(_mean(layer, n), device) for layer in operations.by_layer)
    if unpriced:
        return Energy(device, operations.convention, layers, None, None, unpriced)
    typ = np.zeros(n)
    for operation, counts in operations.by_image.items():
        if band := prices[operation]:
            typ += counts * band.typ
    total = price_of_mean(_mean(operations.total, n), device)
    return Energy(device, operations.convention, layers, total, typ)


def price_of_mean(operations: dict[Operation, float], device: Device) -> Band | None:
    """Return the band of a number of operations; None where one of them has no price."""
    bands = [(n, device.price(operation)) for operation, n in operations.items()]
    priced = [(n, band) for n, band in bands if band]
    if len(priced) < len(bands):
        return None
    return Band(
        lo=math.fsum(n * band.lo for n, band in priced),
        typ=math.fsum(n * band.typ for n, band in priced),
        hi=math.fsum(n * band.hi for n, band in priced),
    )


def _mean(operations: dict[Operation, int], images: int) -> dict[Operation, float]:
    return {operation: n / images for operation, n in operations.items()}


def _exact_sum(counts: Array) -> int:
    """Return the sum as a Python integer: 64 bits may not hold that of many large ones."""
    return sum(counts.tolist())


def _layer_totals(row: LayerCounts, images: int, step_spikes: Iterable[int]) -> LayerTotals:
    """Return the sums over a batch of one row, of `images` images."""
    counts = {key: getattr(row, key) for key in COUNTS}
    same = [one.name for one in fields(LayerTotals) if one.name not in SUMMED]
    return LayerTotals(
        **{name: getattr(row, name) for name in same},
        counts={
            key: n * images if isinstance(n, int) else _exact_sum(n) for key, n in counts.items()
        },
        events=tuple(row.events.sum(0).tolist()),
        step_spikes=tuple(map(int, step_spikes)),
    )


def _sum_of(one: LayerTotals, two: LayerTotals) -> LayerTotals:
    """Return the sums of the same layer over two sets of images."""

    def added(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(x + y for x, y in zip_longest(a, b, fillvalue=0))

    return replace(
        one,
        counts={key: n + two.counts[key] for key, n in one.counts.items()},
        events=added(one.events, two.events),
        step_spikes=added(one.step_spikes, two.step_spikes),
    )
