"""The tables of a page about energy, as the words of their cells."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from export import units
from export.energy.conventions import EXACT
from export.energy.devices import Device
from export.energy.output.charts import Range, ranges
from export.energy.output.text import factor, shared_device
from export.energy.results import EnergyResults
from export.energy.totals import Energy, LayerTotals, OperationCounts

__all__ = ["Column", "ConventionRow", "Difference", "conventions", "differences", "layer_columns"]

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


@dataclass(frozen=True)
class Column:
    """A column of the table of layers; a cell is empty where there is nothing to say."""

    title: str
    cells: list[str]
    number: bool = True


@dataclass(frozen=True)
class ConventionRow:
    """The energy by one convention, on the device of the model."""

    energy: Energy
    factor: str  # against the exact convention
    bar: Range | None
    operations: list[str]  # an image


@dataclass(frozen=True)
class Difference:
    """A layer of several models: what it needs in each, and the second against the first."""

    layer: str
    cells: list[str]
    change: str
    same: bool


def conventions(report: EnergyResults, device: Device) -> list[ConventionRow]:
    """Return the energy by every convention, beside the exact one."""
    energies = {name: report.energy(device, name) for name in report.operations}
    bands = ((name, e.total, "") for name, e in energies.items() if e.total)
    bars = {bar.name: bar for bar in ranges(bands)}
    exact = energies[EXACT.name]
    return [
        ConventionRow(
            energy=e,
            factor=factor(e, exact),
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


def layer_columns(report: EnergyResults, shown: list[Energy]) -> list[Column]:
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


def _shares(report: EnergyResults) -> list[str]:
    """Return the share of the energy of all layers up to each, in the order in which they run."""
    if report.priced is None or not report.priced.total or not report.priced.total.typ:
        return [""] * len(report.layers)
    so_far = accumulate(band.typ if band else 0.0 for band in report.priced.layers)
    total = report.priced.total.typ
    return [units.percent(value / total) for value in so_far]


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


def differences(reports: Sequence[EnergyResults]) -> list[Difference]:
    """Return what the layers of several models need, those of the first one before the others'.

    It is energy where a device prices them all, else synaptic operations, a mean over images.
    """
    device = shared_device(reports)
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
