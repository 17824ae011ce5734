"""Energy reports as one HTML page: no script, no font and no picture from elsewhere.

Plots are drawn in percent of their own width and height, and stretch with the page; what they show
stands in a table too.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from export import units
from export.energy.comparison import memory_inclusive_rate
from export.energy.output import text as words
from export.energy.profiles import Band, Profile
from export.energy.report import EnergyCounts
from export.energy.totals import Energy, LayerTotals

__all__ = ["render"]

# kind of row -> colour; all others are `sums`
GROUPS = {"conv": "weights", "linear": "weights", "neuron": "neurons"}
KINDS = {"mac": "MAC", "ac": "AC", "add": "additions", "multiply": "products", "update": "updates", "idle_update": "idle updates",
         "access": "memory accesses"}  # fmt: skip
# percent of a plot, below which there is no room for a label; on a phone, the template hides more
NARROW = 4
COLUMNS = 4  # profiles in the table of layers
NEAR = 7  # percent of a plot's height, below which two labels overlap


@dataclass(frozen=True)
class Bar:
    """In percent of the plot."""

    x: float
    width: float
    height: float
    group: str
    label: str


@dataclass(frozen=True)
class Tick:
    """What begins at `x`, in percent of the plot."""

    x: float
    width: float
    label: str


@dataclass(frozen=True)
class Plot:
    """Bars over the layers in the order in which they run, or over the steps; the tallest is as
    tall as the plot.
    """

    title: str
    caption: str
    top: str  # what the tallest bar stands for
    bars: list[Bar]
    ticks: list[Tick]


@dataclass(frozen=True)
class Cell:
    """Of a heat map; `share` of the darkest."""

    x: float
    y: float
    width: float
    height: float
    share: float
    label: str


@dataclass(frozen=True)
class Map:
    """Firing rates: a column for each layer of neurons, a row for each step."""

    top: str
    steps: int
    cells: list[Cell]
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

    profile: str
    points: list[Point]
    xs: list[Tick]
    ys: list[Tick]
    summary: str


@dataclass(frozen=True)
class Model:
    """A report with its plots."""

    anchor: str
    report: EnergyCounts
    profile: Profile  # that plots and comparisons are on
    energy_plot: Plot | None
    rates: Map
    step_plot: Plot
    bands: list[Range]
    unpriced: list["Energy"]
    conventions: list[tuple[Energy, str, Range | None, list[str]]]
    shown: tuple[Energy, ...]  # in the table of layers
    shares: list[str]


def render(reports: Sequence[EnergyCounts]) -> str:
    """The page, as text."""
    models = [_model(i, report) for i, report in enumerate(reports)]
    return _template().render(
        models=models,
        plane=_plane(reports),
        shared=_shared(reports),
        units=units,
        text=words,
        operations=_operations,
        memory=memory_inclusive_rate,
    )


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2")


def _model(index: int, report: EnergyCounts) -> Model:
    totals = [e for e in report.energies if e.total]
    main = report.priced or report.energies[0]
    return Model(
        anchor=f"model-{index + 1}",
        report=report,
        profile=main.profile,
        energy_plot=_energy_plot(report),
        rates=_rates(report),
        step_plot=_plot(
            "Firing rate by step",
            "share of all neurons",
            [(str(t), r, "neurons") for t, r in enumerate(report.mean_step_rates, 1)],
            units.percent,
        ),
        bands=_ranges(
            (e.profile.name, e.total, units.joules(e.total.typ)) for e in totals if e.total
        ),
        unpriced=[e for e in report.energies if not e.total],
        conventions=_conventions(report, main.profile),
        shown=tuple(totals[:COLUMNS]),
        shares=_shares(report),
    )


def _energy_plot(report: EnergyCounts) -> Plot | None:
    """On the first profile that has a price for everything."""
    if report.priced is None:
        return None
    bars = [
        (layer.name, band.typ if band else 0.0, GROUPS.get(layer.kind, "sums"))
        for layer, band in zip(report.layers, report.priced.layers, strict=True)
    ]
    return _plot(
        "Energy by layer", f"an image, on {report.priced.profile.name}", bars, units.joules
    )


def _plot(
    title: str, caption: str, values: list[tuple[str, float, str]], unit: Callable[[float], str]
) -> Plot:
    """`values` are name, value and group."""
    top, slot = max((value for _, value, _ in values), default=0.0), 100 / max(1, len(values))
    bars = [
        Bar(slot * (i + 0.1), slot * 0.8, 100 * value / (top or 1), group, f"{name}: {unit(value)}")
        for i, (name, value, group) in enumerate(values)
    ]
    return Plot(title, caption, unit(top), bars, _ticks([name for name, _, _ in values]))


def _ticks(names: list[str]) -> list[Tick]:
    """Names that agree up to their first underscore share one."""
    ticks, x, slot = [], 0.0, 100 / max(1, len(names))
    for label, part in groupby(names, key=lambda name: name.partition("_")[0]):
        width = slot * len(list(part))
        ticks.append(Tick(x, width, label if width >= NARROW else ""))
        x += width
    return ticks


def _rates(report: EnergyCounts) -> Map:
    neurons = [
        (layer.name, report.step_rates(layer)) for layer in report.layers if layer.kind == "neuron"
    ]
    top = max((rate for _, rates in neurons for rate in rates), default=0.0)
    width, height = 100 / max(1, len(neurons)), 100 / report.steps
    cells = [
        Cell(
            width * i,
            height * t,
            width,
            height,
            rate / (top or 1),
            f"{name}, step {t + 1}: {units.percent(rate)}",
        )
        for i, (name, rates) in enumerate(neurons)
        for t, rate in enumerate(rates)
    ]
    return Map(units.percent(top), report.steps, cells, _ticks([name for name, _ in neurons]))


def _ranges(bands: "Iterable[tuple[str, Band, str]]") -> list[Range]:
    """On one logarithmic axis."""
    found = list(bands)
    at = _log_axis([value for _, band, _ in found for value in (band.lo, band.hi)])
    return [Range(name, at(band.lo), at(band.typ), at(band.hi), text) for name, band, text in found]


def _log_axis(values: Sequence[float]) -> Callable[[float], float]:
    """A function of a value, in percent; zero, which has no logarithm, lies at the left end."""
    positive = [math.log10(value) for value in values if value > 0]
    low, high = min(positive, default=0.0), max(positive, default=1.0)
    room = 0.08 * (high - low) or 0.5

    def at(value: float) -> float:
        return (
            100 * (math.log10(value) - low + room) / (high - low + 2 * room) if value > 0 else 0.0
        )

    return at


def _conventions(
    report: EnergyCounts, profile: Profile
) -> list[tuple[Energy, str, Range | None, list[str]]]:
    """Each with its factor against `exact`, its bar, and its operations an image."""
    energies = [report.energy(profile, name) for name in report.tallies]
    exact = energies[0].total
    bars = {
        r.name: r for r in _ranges((e.convention.name, e.total, "") for e in energies if e.total)
    }
    rows = []
    for e, tally in zip(energies, report.tallies.values(), strict=True):
        factor = f"{e.total.typ / exact.typ:.2f}" if e.total and exact and exact.typ else ""
        sums: dict[str, int] = {}
        for operation, n in tally.totals.items():
            sums[operation.kind] = sums.get(operation.kind, 0) + n
        counts = [
            f"{units.count(n / report.images)} {KINDS.get(kind, kind.replace('_', ' '))}"
            for kind, n in sums.items()
        ]
        rows.append((e, factor, bars.get(e.convention.name), counts))
    return rows


def _shares(report: EnergyCounts) -> list[str]:
    """Of the energy of all layers up to each, in the order in which they run."""
    if report.priced is None or not report.priced.total or not report.priced.total.typ:
        return [""] * len(report.layers)
    so_far = accumulate(band.typ if band else 0.0 for band in report.priced.layers)
    total = report.priced.total.typ
    return [units.percent(value / total) for value in so_far]


def _shared(reports: Sequence[EnergyCounts]) -> Profile | None:
    """The first profile that prices all of them."""
    priced = [{e.profile.name for e in report.energies if e.total} for report in reports]
    return next((p for p in reports[0].profiles if all(p.name in names for names in priced)), None)


def _plane(reports: Sequence[EnergyCounts]) -> Plane | None:
    """None for a single model, or where no profile prices them all, or none has an accuracy."""
    profile = _shared(reports)
    if len(reports) < 2 or profile is None:
        return None
    known = [
        (report, band, report.accuracy)
        for report in reports
        if report.accuracy is not None and (band := report.energy(profile).total)
    ]
    if not known:
        return None
    at = _log_axis([value for _, band, _ in known for value in (band.lo, band.hi)])
    low, high = min(a for _, _, a in known), max(a for _, _, a in known)
    low, high = (
        max(0.0, low - 0.1 * (high - low or 0.2)),
        min(1.0, high + 0.1 * (high - low or 0.2)),
    )

    def height(accuracy: float) -> float:
        return 100 * (high - accuracy) / (high - low)

    points: list[Point] = []
    below = -math.inf
    for report, band, accuracy in sorted(known, key=lambda item: -item[2]):
        y = height(accuracy)
        text = below = max(y, below + NEAR)
        label = f"{report.source.name} ({report.source.engine.split()[0]})"
        figures = f"{units.percent(accuracy)}, {units.joules(band.typ)}"
        points.append(
            Point(
                at(band.typ), y, at(band.lo), at(band.hi), text, at(band.typ) > 60, label, figures
            )
        )
    decades = range(
        math.floor(math.log10(min(b.lo for _, b, _ in known))),
        math.ceil(math.log10(max(b.hi for _, b, _ in known))) + 1,
    )
    marks = [m * 10.0**d for d in decades for m in (1, 2, 5)]
    xs = [Tick(at(mark), 0, units.joules(mark)) for mark in marks if 2 < at(mark) < 95]
    ys = [
        Tick(height(low + share * (high - low)), 0, units.percent(low + share * (high - low)))
        for share in (0, 0.25, 0.5, 0.75, 1)
    ]
    return Plane(
        profile.name,
        points,
        xs,
        ys,
        "; ".join(f"{point.label}: {point.figures}" for point in points),
    )


def _operations(report: EnergyCounts, layer: LayerTotals) -> list[str]:
    """The counts of a row of the table, means an image; nothing where there is none."""
    keys = (
        ("macs",),
        ("acs",),
        ("adds", "bias_adds"),
        ("multiplies",),
        ("updates",),
        ("updates_with_input",),
        ("spikes",),
    )
    means = (sum(layer.counts[key] for key in group) / report.images for group in keys)
    return [units.count(mean) if mean else "" for mean in means]
