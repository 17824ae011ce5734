"""The energy report in a terminal."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from export.energy import units
from zoo import terminal

if TYPE_CHECKING:
    from export.energy.report import EnergyReport

__all__ = ["render"]

TOP = 12  # layers shown


def render(report: "EnergyReport", console: Console) -> None:
    """Print the costliest layers, the totals of every profile, and what the figures stand on."""
    console.print(_layers(report))
    console.print(_totals(report))
    accuracy = "no labels" if report.accuracy is None else f"accuracy {units.percent(report.accuracy)}"
    console.print(
        f"{accuracy} on {report.images} images of {escape(report.data)}; "
        f"firing rate {units.percent(report.mean_rate)}; {units.count(report.total('acs') / report.images)} SynOps an image"
    )
    console.print(f"Convention {report.convention.name}: {report.convention.explanation}")


def _layers(report: "EnergyReport") -> Table:
    """The costliest layers on the first profile that can price them all."""
    priced = next((e for e in report.energies if e.total), report.energies[0])
    energies = [0.0 if band is None else band.typ for band in priced.layers]
    order = sorted(range(len(energies)), key=energies.__getitem__, reverse=True)[:TOP]
    title = f"{escape(report.model)}: energy of an image, {len(order)} costliest of {len(energies)} rows"
    table = terminal.table(title=title)
    table.add_column("layer", no_wrap=True)
    table.add_column("input")
    for column in ("MAC", "SynOps", "adds", "updates", "rate", priced.profile.name):
        table.add_column(column, justify="right", no_wrap=True)
    for i in order:
        layer, per = report.layers[i], report.images
        rate, band = report.rate(layer), priced.layers[i]
        counts = [report.layer_total(layer, key) / per for key in ("macs", "acs", "adds", "updates")]
        counts[2] += layer.bias_adds
        table.add_row(
            escape(layer.name),
            layer.input_kind,
            *(units.count(n) if n else "" for n in counts),
            "" if rate is None else units.percent(rate),
            "" if band is None else units.joules(band.typ),
        )
    return table


def _totals(report: "EnergyReport") -> Table:
    title = f"energy of an image, convention {report.convention.name}"
    table = terminal.table("profile", "typ", "lo to hi", "standard error", title=title)
    for e in report.energies:
        table.add_row(e.profile.name, units.summary(e), units.band(e), units.standard_error(e))
    return table
