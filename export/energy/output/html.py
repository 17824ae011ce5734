"""Energy reports as one HTML page: no script, no font and no picture from elsewhere.

Plots are drawn in percent of their own width and height, and stretch with the page; what they show
stands in a table too.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, groupby
from pathlib import Path

from jinja2 import Template

from export import units
from export.energy.comparison import memory_inclusive_rate
from export.energy.conventions import EXACT
from export.energy.devices import Band, Device
from export.energy.output import text as words
from export.energy.results import EnergyResults
from export.energy.totals import Energy, LayerTotals, OperationCounts
from export.pages import read_template

__all__ = ["render"]

# The colour of a kind of row; all others are `sums`.
GROUPS = {"conv": "weights", "linear": "weights", "neuron": "neurons"}
OPERATION_WORDS = {
    "mac": "MAC",
    "ac": "AC",
    "add": "additions",
    "multiply": "products",
    "update": "updates",
    "idle_update": "idle updates",
    "access": "memory accesses",
}
# The columns of operations in the table of layers, and the counts that each of them adds up.
OPERATION_COLUMNS = {
    "MAC": ("macs",),
    "SynOps": ("acs",),
    "Adds": ("adds", "bias_adds"),
    "Multiplies": ("multiplies",),
    "Updates": ("updates",),
    "with input": ("updates_with_input",),
    "Spikes": ("spikes",),
}
DEVICE_COLUMNS = 4  # of the table of layers
# In percent of a plot: below this width there is no room for a label (on a phone, the template
# hides more), and below this height two labels overlap.
MIN_LABEL_WIDTH, MIN_LABEL_HEIGHT = 4, 7


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
class Column:
    """A column of the table of layers; a cell is empty where there is nothing to say."""

    title: str
    cells: list[str]
    number: bool = True


@dataclass(frozen=True)
class Difference:
    """A layer of several models: what it needs in each, and the second against the first."""

    layer: str
    cells: list[str]
    change: str
    same: bool


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


@dataclass(frozen=True)
class ConventionRow:
    """The energy by one convention, on the device of the model."""

    energy: Energy
    factor: str  # against the exact convention
    bar: Range | None
    operations: list[str]  # an image


@dataclass(frozen=True)
class Model:
    """A report with its plots."""

    anchor: str
    report: EnergyResults
    device: Device  # that plots and comparisons are on
    energy_plot: Plot | None
    rates: Map
    step_plot: Plot
    bands: list[Range]
    unpriced: list[Energy]
    conventions: list[ConventionRow]
    columns: list[Column]  # of the table of layers


def render(reports: Sequence[EnergyResults]) -> str:
    """Return the page as text."""
    return _template().render(
        models=[_model(i, report) for i, report in enumerate(reports)],
        plane=_plane(reports),
        shared=words.shared_device(reports),
        differences=_differences(reports),
        units=units,
        text=words,
        memory=memory_inclusive_rate,
    )


@cache
def _template() -> Template:
    return read_template(Path(__file__).with_name("report.html.j2"))


def _model(index: int, report: EnergyResults) -> Model:
    device = (report.priced or report.energies[0]).device
    priced = [(e, e.total) for e in report.energies if e.total]
    anchor = f"model-{index + 1}"
    steps = [(str(t), rate, "neurons", "") for t, rate in enumerate(report.mean_step_rates, 1)]
    return Model(
        anchor=anchor,
        report=report,
        device=device,
        energy_plot=_energy_plot(report, anchor),
        rates=_rates(report, anchor),
        step_plot=_plot("Firing rate by step", "share of all neurons", steps, units.percent),
        bands=_ranges((e.device.name, band, units.joules(band.typ)) for e, band in priced),
        unpriced=[e for e in report.energies if not e.total],
        conventions=_conventions(report, device),
        columns=_columns(report, [e for e, _ in priced[:DEVICE_COLUMNS]]),
    )


def _energy_plot(report: EnergyResults, anchor: str) -> Plot | None:
    """Return the energy of each layer on the first device that has a price for everything."""
    if report.priced is None:
        return None
    bars = [
        (layer.name, band.typ if band else 0.0, GROUPS.get(layer.kind, "sums"), f"{anchor}-{i}")
        for i, (layer, band) in enumerate(zip(report.layers, report.priced.layers, strict=True))
    ]
    caption = f"an image, on {report.priced.device.name}"
    return _plot("Energy by layer", caption, bars, units.joules)


def _plot(
    title: str,
    caption: str,
    values: list[tuple[str, float, str, str]],
    unit: Callable[[float], str],
) -> Plot:
    """Return a plot of `values`: name, value, group, and the anchor of a row of the table."""
    top, slot = max((value for _, value, *_ in values), default=0.0), 100 / max(1, len(values))
    bars = [
        Bar(
            slot * (i + 0.1),
            slot * 0.8,
            100 * value / (top or 1),
            group,
            f"{name}: {unit(value)}",
            row,
        )
        for i, (name, value, group, row) in enumerate(values)
    ]
    scale = (unit(top), unit(top / 2))
    return Plot(title, caption, scale, bars, _ticks([name for name, *_ in values]))


def _ticks(names: list[str]) -> list[Tick]:
    """Return the labels of columns; names that agree up to their first underscore share one."""
    ticks, x, slot = [], 0.0, 100 / max(1, len(names))
    for label, part in groupby(names, key=lambda name: name.partition("_")[0]):
        width = slot * len(list(part))
        ticks.append(Tick(x, width, label if width >= MIN_LABEL_WIDTH else ""))
        x += width
    return ticks


def _rates(report: EnergyResults, anchor: str) -> Map:
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


def _ranges(bands: Iterable[tuple[str, Band, str]]) -> list[Range]:
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


def _conventions(report: EnergyResults, device: Device) -> list[ConventionRow]:
    energies = {name: report.energy(device, name) for name in report.operations}
    ranges = _ranges((name, e.total, "") for name, e in energies.items() if e.total)
    bars = {bar.name: bar for bar in ranges}
    exact = energies[EXACT.name]
    return [
        ConventionRow(
            energy=e,
            factor=words.factor(e, exact),
            bar=bars.get(name),
            operations=_operation_words(report.operations[name]),
        )
        for name, e in energies.items()
    ]


def _operation_words(operations: OperationCounts) -> list[str]:
    """Return how many operations of each kind an image needs, in words."""
    sums = Counter[str]()
    for operation, n in operations.total.items():
        sums[operation.kind] += n
    return [
        f"{units.count(n / operations.images)} {OPERATION_WORDS.get(kind, kind.replace('_', ' '))}"
        for kind, n in sums.items()
    ]


def _shares(report: EnergyResults) -> list[str]:
    """Return the share of the energy of all layers up to each, in the order in which they run."""
    if report.priced is None or not report.priced.total or not report.priced.total.typ:
        return [""] * len(report.layers)
    so_far = accumulate(band.typ if band else 0.0 for band in report.priced.layers)
    total = report.priced.total.typ
    return [units.percent(value / total) for value in so_far]


def _plane(reports: Sequence[EnergyResults]) -> Plane | None:
    """Return accuracy against energy of several models.

    None for a single model, or where no device prices them all, or none has an accuracy.
    """
    device = words.shared_device(reports)
    if len(reports) < 2 or device is None:
        return None
    figures = [
        (report, band, report.accuracy)
        for report in reports
        if report.accuracy is not None and (band := report.energy(device).total)
    ]
    if not figures:
        return None
    at = _log_axis([value for _, band, _ in figures for value in (band.lo, band.hi)])
    accuracies = [accuracy for _, _, accuracy in figures]
    room = 0.1 * (max(accuracies) - min(accuracies) or 0.2)
    low, high = max(0.0, min(accuracies) - room), min(1.0, max(accuracies) + room)

    def height(accuracy: float) -> float:
        return 100 * (high - accuracy) / (high - low)

    points: list[Point] = []
    below = -math.inf
    for report, band, accuracy in sorted(figures, key=lambda item: -item[2]):
        x, y = at(band.typ), height(accuracy)
        text = below = max(y, below + MIN_LABEL_HEIGHT)
        label = f"{report.source.name} ({report.source.engine.split()[0]})"
        values = f"{units.percent(accuracy)}, {units.joules(band.typ)}"
        points.append(Point(x, y, at(band.lo), at(band.hi), text, x > 60, label, values))
    accuracy_ticks = [low + share * (high - low) for share in (0, 0.25, 0.5, 0.75, 1)]
    return Plane(
        device.name,
        points,
        xs=_energy_ticks([band for _, band, _ in figures], at),
        ys=[Tick(height(accuracy), 0, units.percent(accuracy)) for accuracy in accuracy_ticks],
        summary="; ".join(f"{point.label}: {point.figures}" for point in points),
    )


def _energy_ticks(bands: list[Band], at: Callable[[float], float]) -> list[Tick]:
    """Return the marks 1, 2 and 5 of every decade that the bands touch."""
    first = math.floor(math.log10(min(band.lo for band in bands)))
    last = math.ceil(math.log10(max(band.hi for band in bands)))
    marks = [m * 10.0**decade for decade in range(first, last + 1) for m in (1, 2, 5)]
    return [Tick(at(mark), 0, units.joules(mark)) for mark in marks if 2 < at(mark) < 95]


def _columns(report: EnergyResults, shown: list[Energy]) -> list[Column]:
    """Return the columns of the table of layers that say something of any; counts are means."""
    layers = report.layers
    rates = [report.rate(layer) for layer in layers]
    columns = [
        Column("Kind", [layer.kind for layer in layers], number=False),
        Column("Input", [_input(layer) for layer in layers], number=False),
        Column("Dense MAC", [_count(layer.dense_macs_valid or 0) for layer in layers]),
        *(
            Column(title, [_count(_total(layer, keys) / report.images) for layer in layers])
            for title, keys in OPERATION_COLUMNS.items()
        ),
        Column("Rate", ["" if rate is None else units.percent(rate) for rate in rates]),
        Column("Weights", [_bytes(layer.weight_bytes) for layer in layers]),
        Column("State", [_bytes(layer.state_bytes) for layer in layers]),
        *(
            Column(e.device.name, [units.joules(b.typ) if b else "no price" for b in e.layers])
            for e in shown
        ),
        Column("Share so far", _shares(report)),
    ]
    return [column for column in columns if any(column.cells)]


def _input(layer: LayerTotals) -> str:
    bound = f" ≤ {layer.input_bound}" if layer.input_bound and layer.input_bound > 1 else ""
    return f"{layer.input_kind}{bound}{', recurrent' if layer.recurrent else ''}"


def _total(layer: LayerTotals, keys: Iterable[str]) -> int:
    return sum(layer.counts[key] for key in keys)


def _count(n: float) -> str:
    return units.count(n) if n else ""


def _bytes(n: int) -> str:
    if n >= 1000:
        return f"{units.count(n)}B"
    return f"{n} B" if n else ""


def _differences(reports: Sequence[EnergyResults]) -> list[Difference]:
    """Return what the layers of several models need, those of the first one before the others'.

    It is energy where a device prices them all, else synaptic operations, a mean over images.
    """
    device = words.shared_device(reports)
    tables = [_by_layer(report, device) for report in reports]
    unit = units.joules if device else units.count
    rows = []
    for name in dict.fromkeys(name for table in tables for name in table):
        values = [table.get(name) for table in tables]
        cells = ["" if value is None else unit(value) for value in values]
        first, second = (*values, None)[:2]
        change = f"{100 * (second / first - 1):+.1f} %" if first and second is not None else ""
        rows.append(Difference(name, cells, change, same=len(set(values)) == 1))
    return rows


def _by_layer(report: EnergyResults, device: Device | None) -> dict[str, float]:
    """Return the energy of each layer on a device, or without one its synaptic operations."""
    if device is None:
        return {layer.name: layer.counts["acs"] / report.images for layer in report.layers}
    bands = zip(report.layers, report.energy(device).layers, strict=True)
    return {layer.name: band.typ for layer, band in bands if band}
