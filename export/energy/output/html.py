"""Energy reports as one HTML page: no script, no font and no picture from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Template

from export import units
from export.energy.comparison import memory_inclusive_rate
from export.energy.devices import Device
from export.energy.output import charts, tables
from export.energy.output import text as words
from export.energy.results import EnergyResults
from export.energy.totals import Energy
from export.pages import read_template

__all__ = ["render"]

MAX_DEVICES = 4  # columns of the table of layers


@dataclass(frozen=True)
class Model:
    """A report with its plots."""

    anchor: str
    report: EnergyResults
    device: Device  # that plots and comparisons are on
    energy_plot: charts.Plot | None
    rates: charts.Map
    step_plot: charts.Plot
    bands: list[charts.Range]
    unpriced: list[Energy]
    conventions: list[tables.ConventionRow]
    columns: list[tables.Column]  # of the table of layers


def render(reports: Sequence[EnergyResults]) -> str:
    """Return the page as text."""
    return _template().render(
        models=[_model(i, report) for i, report in enumerate(reports)],
        plane=charts.plane(reports),
        shared=words.shared_device(reports),
        differences=tables.differences(reports),
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
    return Model(
        anchor=anchor,
        report=report,
        device=device,
        energy_plot=charts.energy_plot(report, anchor),
        rates=charts.firing_rates(report, anchor),
        step_plot=charts.step_plot(report),
        bands=charts.ranges((e.device.name, band, units.joules(band.typ)) for e, band in priced),
        unpriced=[e for e in report.energies if not e.total],
        conventions=tables.conventions(report, device),
        columns=tables.layer_columns(report, [e for e, _ in priced[:MAX_DEVICES]]),
    )
