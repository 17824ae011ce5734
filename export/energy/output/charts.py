"""The plots of a page about energy, as numbers that its template draws.

They are in percent of their own width and height, and stretch with the page; what they show stands
in a table too.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from export import units
from export.energy.devices import Band
from export.energy.output.text import shared_device
from export.energy.results import EnergyResults

__all__ = [
    "Map",
    "Plane",
    "Plot",
    "Range",
    "energy_plot",
    "firing_rates",
    "plane",
    "ranges",
    "step_plot",
]

# The colour of a kind of row; all others are `sums`.
GROUPS = {"conv": "weights", "linear": "weights", "neuron": "neurons"}
# In percent of a plot: below this width there is no room for a label (on a phone, the template
# hides more), and below this height two labels of two lines overlap.
MIN_LABEL_WIDTH, MIN_LABEL_HEIGHT = 4, 11


@dataclass(frozen=True)
class Bar:
    """A bar, in percent of the plot."""

    x: float
    width: float
    height: float
    group: str
    label: str
    row: str  # where the numbers stand: the anchor of a row of the table of layers, or empty


@dataclass(frozen=True)
class Tick:
    """A label of what begins at `x`, in percent of the plot."""

    x: float
    width: float
    label: str


@dataclass(frozen=True)
class Value:
    """A value that a bar shows; `group` is its colour, `row` the anchor of a row of the table."""

    name: str
    value: float
    group: str
    row: str = ""


@dataclass(frozen=True)
class Plot:
    """Bars over the layers in the order in which they run, or over the steps.

    The tallest is as tall as the plot.
    """

    title: str
    caption: str
    scale: tuple[str, str]  # what the whole height stands for, and half of it
    bars: list[Bar]
    ticks: list[Tick]


@dataclass(frozen=True)
class Rates:
    """The firing rates of a layer: a column of the map, whose shares are those of the darkest."""

    x: float
    shares: list[float]  # at each step
    label: str
    row: str


@dataclass(frozen=True)
class Map:
    """Firing rates: a column for each layer of neurons, a row for each step."""

    top: str
    steps: range  # from 1
    width: float  # of a column, in percent
    layers: list[Rates]
    ticks: list[Tick]


@dataclass(frozen=True)
class Range:
    """A band on an axis shared with others, in percent."""

    name: str
    lo: float
    typ: float
    hi: float
    text: str


@dataclass(frozen=True)
class Point:
    """A model in the plane of energy and accuracy, in percent; its label stands at `text`."""

    x: float
    y: float
    lo: float
    hi: float
    text: float
    left: bool  # the label is left of the point
    label: str
    figures: str


@dataclass(frozen=True)
class Plane:
    """Accuracy against energy, whose axis is logarithmic."""

    device: str
    points: list[Point]
    xs: list[Tick]
    ys: list[Tick]
    summary: str


def energy_plot(report: EnergyResults, anchor: str) -> Plot | None:
    """Return the energy of each layer on the first device that has a price for everything."""
    if report.priced is None:
        return None
    values = [
        Value(
            layer.name, band.typ if band else 0.0, GROUPS.get(layer.kind, "sums"), f"{anchor}-{i}"
        )
        for i, (layer, band) in enumerate(zip(report.layers, report.priced.layers, strict=True))
    ]
    caption = f"an image, on {report.priced.device.name}"
    return _plot("Energy by layer", caption, values, units.joules)


def step_plot(report: EnergyResults) -> Plot:
    """Return the firing rate of all neurons at each step."""
    values = [
        Value(str(step), rate, "neurons") for step, rate in enumerate(report.mean_step_rates, 1)
    ]
    caption = "share of all neurons"
    return _plot("Firing rate by step", caption, values, lambda rate, _: units.percent(rate))


def _plot(
    title: str, caption: str, values: list[Value], unit: Callable[[float, float], str]
) -> Plot:
    """Return a plot of `values`; `unit` says the first of two numbers in the unit of the second."""
    top, slot = max((one.value for one in values), default=0.0), 100 / max(1, len(values))
    bars = [
        Bar(
            x=slot * (i + 0.1),
            width=slot * 0.8,
            height=100 * one.value / (top or 1),
            group=one.group,
            label=f"{one.name}: {unit(one.value, one.value)}",
            row=one.row,
        )
        for i, one in enumerate(values)
    ]
    scale = (unit(top, top), unit(top / 2, top))
    return Plot(title, caption, scale, bars, _ticks([one.name for one in values]))


def _ticks(names: list[str]) -> list[Tick]:
    """Return the labels of columns; names that agree up to their first underscore share one."""
    ticks, x, slot = [], 0.0, 100 / max(1, len(names))
    for label, part in groupby(names, key=lambda name: name.partition("_")[0]):
        width = slot * len(list(part))
        ticks.append(Tick(x, width, label if width >= MIN_LABEL_WIDTH else ""))
        x += width
    return ticks


def firing_rates(report: EnergyResults, anchor: str) -> Map:
    """Return the firing rate of each layer of neurons at each step."""
    neurons = [(i, layer) for i, layer in enumerate(report.layers) if layer.kind == "neuron"]
    rates = {layer.name: report.step_rates(layer) for _, layer in neurons}
    top = max((rate for steps in rates.values() for rate in steps), default=0.0)
    width = 100 / max(1, len(neurons))
    layers = [
        Rates(
            width * column,
            [rate / (top or 1) for rate in rates[layer.name]],
            f"{layer.name}, step by step: {', '.join(map(units.percent, rates[layer.name]))}",
            f"{anchor}-{i}",
        )
        for column, (i, layer) in enumerate(neurons)
    ]
    steps = range(1, report.steps + 1)
    return Map(units.percent(top), steps, width, layers, _ticks(list(rates)))


def ranges(bands: Iterable[tuple[str, Band, str]]) -> list[Range]:
    """Return bands on one logarithmic axis."""
    bands = list(bands)
    at = _log_axis([value for _, band, _ in bands for value in (band.lo, band.hi)])
    return [Range(name, at(band.lo), at(band.typ), at(band.hi), text) for name, band, text in bands]


def _log_axis(values: Sequence[float]) -> Callable[[float], float]:
    """Return a function of a value, in percent.

    Zero, which has no logarithm, lies at the left end.
    """
    positive = [math.log10(value) for value in values if value > 0]
    low, high = min(positive, default=0.0), max(positive, default=1.0)
    room = 0.08 * (high - low) or 0.5

    def at(value: float) -> float:
        if value <= 0:
            return 0.0
        return 100 * (math.log10(value) - low + room) / (high - low + 2 * room)

    return at


def plane(reports: Sequence[EnergyResults]) -> Plane | None:
    """Return accuracy against energy of several models; those that agree in both share a point.

    None where no device prices them all, or fewer than two points have an accuracy.
    """
    device = shared_device(reports)
    if device is None:
        return None
    labels: dict[tuple[Band, float], list[str]] = {}
    for report in reports:
        band = report.energy(device).total
        if band is not None and report.accuracy is not None:
            label = f"{report.source.name} ({report.source.engine.split()[0]})"
            labels.setdefault((band, report.accuracy), []).append(label)
    if len(labels) < 2:
        return None
    at = _log_axis([value for band, _ in labels for value in (band.lo, band.hi)])
    accuracies = [accuracy for _, accuracy in labels]
    room = 0.1 * (max(accuracies) - min(accuracies) or 0.2)
    low, high = max(0.0, min(accuracies) - room), min(1.0, max(accuracies) + room)

    def height(accuracy: float) -> float:
        return 100 * (high - accuracy) / (high - low)

    points: list[Point] = []
    below = -math.inf
    for (band, accuracy), names in sorted(labels.items(), key=lambda item: -item[0][1]):
        x, y = at(band.typ), height(accuracy)
        text = below = max(y, below + MIN_LABEL_HEIGHT)
        values = f"{units.percent(accuracy)}, {units.joules(band.typ)}"
        label = ", ".join(names)
        points.append(Point(x, y, at(band.lo), at(band.hi), text, x > 60, label, values))
    accuracy_ticks = [low + share * (high - low) for share in (0, 0.25, 0.5, 0.75, 1)]
    return Plane(
        device.name,
        points,
        xs=_energy_ticks([band for band, _ in labels], at),
        ys=[Tick(height(accuracy), 0, units.percent(accuracy)) for accuracy in accuracy_ticks],
        summary="; ".join(f"{point.label}: {point.figures}" for point in points),
    )


def _energy_ticks(bands: list[Band], at: Callable[[float], float]) -> list[Tick]:
    """Return the marks 1, 2 and 5 of every decade that the bands touch."""
    first = math.floor(math.log10(min(band.lo for band in bands)))
    last = math.ceil(math.log10(max(band.hi for band in bands)))
    marks = [m * 10.0**decade for decade in range(first, last + 1) for m in (1, 2, 5)]
    return [Tick(at(mark), 0, units.joules(mark)) for mark in marks if 2 < at(mark) < 95]
