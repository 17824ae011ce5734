"""Sums over images, in constant memory but for a few integers an image, and what they cost.

Counts of a batch come in, are turned into each convention's operations, and are added up exactly:
for every layer over all images, and for every image over all layers. Energy is computed from these
integers afterwards.

Shapes: `N` images in all, `B` images of a batch.
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np

from export.energy.conventions import CONVENTIONS, Convention
from export.energy.counting.count import COUNTS, LayerCounts
from export.energy.counting.windows import Array
from export.energy.profiles import Band, Operation, Profile

__all__ = ["Energy", "Interval", "LayerTotals", "Tally", "Totals", "energy"]

Floats = np.ndarray[Any, np.dtype[np.float64]]
RESAMPLES = 2000  # of the bootstrap
CONFIDENCE = 0.95
NORMAL = 1.959964  # standard deviations that hold this share of a normal distribution


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


@dataclass(frozen=True)
class Tally:
    """The operations that one convention counts."""

    convention: Convention
    count: int  # of images, N
    layers: tuple[dict[Operation, int], ...]  # over all images
    images: dict[Operation, Array]  # of all layers, [N]

    @property
    def totals(self) -> dict[Operation, int]:
        """Over all layers and images."""
        return {operation: _exact(n) for operation, n in self.images.items()}


@dataclass(frozen=True)
class Interval:
    """In picojoules."""

    lo: float
    hi: float


@dataclass(frozen=True)
class Energy:
    """Of one image: the mean over all images. The band is the device's, the interval the sample's;
    they are never merged.
    """

    profile: Profile
    convention: Convention
    layers: tuple[Band | None, ...]  # None where a layer needs an operation that has no price
    total: Band | None
    images: Floats | None = field(compare=False)  # `typ` of each image, [N]; None without a total
    # operations that the network does and the profile has no price for
    unpriced: tuple[str, ...] = ()

    @cached_property
    def deviation(self) -> float | None:
        """Standard deviation of `typ` over images; None for fewer than two, or without a total."""
        return (
            None
            if self.images is None or len(self.images) < 2
            else float(np.std(self.images, ddof=1))
        )

    @cached_property
    def interval(self) -> Interval | None:
        """Of the mean of `typ`: the middle 95 % of bootstrap resamples of the images, always the
        same for the same images.
        """
        if self.images is None or len(self.images) < 2:
            return None
        random, n = np.random.default_rng(0), len(self.images)
        means = [self.images[random.integers(0, n, n)].mean() for _ in range(RESAMPLES)]
        lo, hi = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return Interval(float(lo), float(hi))

    def images_for(self, precision: float = 0.01) -> int | None:
        """How many images a 95 % interval of plus or minus `precision` of the mean needs; None
        where that is not known.
        """
        if self.total is None or self.deviation is None or not self.total.typ:
            return None
        return max(2, math.ceil((NORMAL * self.deviation / (precision * self.total.typ)) ** 2))


class Totals:
    """What is added up while images stream through."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.images = 0
        self.layers: list[LayerTotals] = []
        self._operations: dict[str, list[Counter[Operation]]] = {}  # convention -> of each layer
        # of all layers, [B]
        self._batches: dict[str, list[dict[Operation, Array]]] = {name: [] for name in CONVENTIONS}
        self._sizes: list[int] = []

    def add(self, rows: list[LayerCounts], step_spikes: dict[str, Array]) -> None:
        """A batch: its rows, and for every neuron layer its spikes at each step, `[T]`."""
        size = len(rows[0].acs)
        totals = [_totals(row, size, step_spikes.get(row.name, ())) for row in rows]
        self.layers = (
            [_both(*pair) for pair in zip(self.layers, totals, strict=True)]
            if self.layers
            else totals
        )
        for name, convention in CONVENTIONS.items():
            counted = [convention.operations(row, self.steps) for row in rows]
            sums = self._operations.setdefault(name, [Counter() for _ in rows])
            batch: dict[Operation, Array] = {}
            for layer, so_far in zip(counted, sums, strict=True):
                so_far.update({operation: _exact(n) for operation, n in layer.items()})
                for operation, n in layer.items():
                    batch[operation] = batch[operation] + n if operation in batch else n
            self._batches[name].append(batch)
        self._sizes.append(size)
        self.images += size

    def merge(self, other: "Totals") -> None:
        """Add another's images, which come after these."""
        if not other.images:
            return
        self.layers = (
            [_both(*pair) for pair in zip(self.layers, other.layers, strict=True)]
            if self.layers
            else other.layers
        )
        for name, theirs in other._operations.items():
            for so_far, layer in zip(
                self._operations.setdefault(name, [Counter() for _ in theirs]), theirs, strict=True
            ):
                so_far.update(layer)
            self._batches[name] += other._batches[name]
        self._sizes += other._sizes
        self.images += other.images

    def tallies(self) -> dict[str, Tally]:
        """By the name of the convention."""
        return {
            name: Tally(
                convention,
                self.images,
                tuple(map(dict, self._operations[name])),
                self._joined(self._batches[name]),
            )
            for name, convention in CONVENTIONS.items()
        }

    def _joined(self, batches: list[dict[Operation, Array]]) -> dict[Operation, Array]:
        kinds = dict.fromkeys(operation for batch in batches for operation in batch)
        return {
            kind: np.concatenate(
                [
                    batch.get(kind, np.zeros(size, np.int64))
                    for batch, size in zip(batches, self._sizes, strict=True)
                ]
            )
            for kind in kinds
        }


def energy(tally: Tally, profile: Profile) -> Energy:
    """What the operations of a tally cost on the profile's device."""
    n = tally.count
    prices = {operation: profile.price(operation) for operation in tally.images}
    unpriced = tuple(
        dict.fromkeys(operation.kind for operation, price in prices.items() if price is None)
    )
    layers = tuple(
        _cost({operation: count / n for operation, count in layer.items()}, prices)
        for layer in tally.layers
    )
    if unpriced:
        return Energy(profile, tally.convention, layers, None, None, unpriced)
    typ = np.zeros(n)
    for operation, counts in tally.images.items():
        if price := prices[operation]:
            typ += counts * price.typ
    total = _cost({operation: count / n for operation, count in tally.totals.items()}, prices)
    return Energy(profile, tally.convention, layers, total, typ)


def _exact(counts: Array) -> int:
    """The sum over images as a Python integer: that of very many large ones would not fit into 64
    bits.
    """
    return sum(counts.tolist())


def _cost(operations: dict[Operation, float], prices: dict[Operation, Band | None]) -> Band | None:
    bands = [(count, prices[operation]) for operation, count in operations.items()]
    if any(band is None for _, band in bands):
        return None
    return Band(
        *(
            math.fsum(count * getattr(band, key) for count, band in bands)
            for key in ("lo", "typ", "hi")
        )
    )


def _totals(row: LayerCounts, images: int, step_spikes: Iterable[int]) -> LayerTotals:
    counts = {key: getattr(row, key) for key in COUNTS}
    same = (
        "name",
        "kind",
        "input_kind",
        "input_bound",
        "runs",
        "outputs",
        "recurrent",
        "connections",
        "dense_adds",
    )
    sizes = (
        "dense_macs_padded",
        "dense_macs_valid",
        "weight_bytes",
        "state_bytes",
        "activation_bytes",
    )
    return LayerTotals(
        **{key: getattr(row, key) for key in (*same, *sizes)},
        counts={key: n * images if isinstance(n, int) else _exact(n) for key, n in counts.items()},
        events=tuple(row.events.sum(0).tolist()),
        step_spikes=tuple(map(int, step_spikes)),
    )


def _both(one: LayerTotals, two: LayerTotals) -> LayerTotals:
    def added(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(x + y for x, y in zip_longest(a, b, fillvalue=0))

    counts = {key: n + two.counts[key] for key, n in one.counts.items()}
    return replace(
        one,
        counts=counts,
        events=added(one.events, two.events),
        step_spikes=added(one.step_spikes, two.step_spikes),
    )
