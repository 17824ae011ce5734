"""The energy report as one HTML page: no script, no font and no picture from elsewhere.

A plot is bars over the layers in the order in which they run, each as wide as the others, the tallest as tall as the plot.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from export.energy import units

if TYPE_CHECKING:
    from export.energy.report import EnergyReport

__all__ = ["render"]

GROUPS = {"conv": "weights", "linear": "weights", "neuron": "neurons"}  # kind of row -> colour; all others are `sums`
NARROW = 4  # percent of a plot, below which there is no room for a label; on a phone, the template hides more


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
    title: str
    caption: str
    top: str  # what the tallest bar stands for
    bars: list[Bar]
    ticks: list[Tick]


@dataclass(frozen=True)
class Row:
    """A row of the table, in words. An empty word: the layer has none of it."""

    name: str
    kind: str
    input: str
    dense: str
    counts: list[str]
    rate: str
    energies: list[str]


def render(report: "EnergyReport") -> str:
    """The page, as text."""
    return _template().render(
        report=report,
        units=units,
        energy_plot=_energy_plot(report),
        layer_plot=_layer_plot(report),
        step_plot=_step_plot(report),
        rows=_rows(report),
    )


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html.j2")


def _energy_plot(report: "EnergyReport") -> Plot | None:
    """On the first profile that has a price for everything."""
    priced = next((e for e in report.energies if e.total), None)
    if priced is None:
        return None
    bars = [
        (layer.name, band.typ if band else 0.0, GROUPS.get(layer.kind, "sums"))
        for layer, band in zip(report.layers, priced.layers, strict=True)
    ]
    return _plot("Energy by layer", f"per image, profile {priced.profile.name}", bars, units.joules)


def _layer_plot(report: "EnergyReport") -> Plot:
    rates = [(layer.name, report.rate(layer)) for layer in report.layers]
    bars = [(name, rate, "neurons") for name, rate in rates if rate is not None]
    return _plot("Firing rate by layer", "share of the neurons that fire at a step", bars, units.percent)


def _step_plot(report: "EnergyReport") -> Plot:
    bars = [(str(t), rate, "neurons") for t, rate in enumerate(report.step_rates, 1)]
    return _plot("Firing rate by step", "share of all neurons that fire", bars, units.percent)


def _plot(title: str, caption: str, values: list[tuple[str, float, str]], unit: Callable[[float], str]) -> Plot:
    """`values` are name, value and group; names that agree up to their first underscore share a tick."""
    top, slot = max((value for _, value, _ in values), default=0.0), 100 / max(1, len(values))
    bars = [
        Bar(slot * (i + 0.1), slot * 0.8, 100 * value / (top or 1), group, f"{name}: {unit(value)}")
        for i, (name, value, group) in enumerate(values)
    ]
    ticks, x = [], 0.0
    for label, part in groupby(values, key=lambda value: value[0].partition("_")[0]):
        width = slot * len(list(part))
        ticks.append(Tick(x, width, label if width >= NARROW else ""))
        x += width
    return Plot(title, caption, unit(top), bars, ticks)


def _rows(report: "EnergyReport") -> list[Row]:
    rows = []
    for i, layer in enumerate(report.layers):
        means = [report.layer_total(layer, key) / report.images for key in ("macs", "acs", "adds", "multiplies", "updates")]
        means[2] += layer.bias_adds
        rate = report.rate(layer)
        bands = [e.layers[i] for e in report.energies]
        bound = "" if layer.input_bound is None or layer.input_bound == 1 else f" ≤ {layer.input_bound}"
        rows.append(
            Row(
                name=layer.name,
                kind=layer.kind,
                input=layer.input_kind + bound,
                dense=units.count(layer.dense_macs_valid) if layer.dense_macs_valid else "",
                counts=[units.count(mean) if mean else "" for mean in means],
                rate="" if rate is None else units.percent(rate),
                energies=["no price" if band is None else units.joules(band.typ) for band in bands],
            )
        )
    return rows
