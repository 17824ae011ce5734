"""An energy in words, the same in a terminal and on a page."""

from collections.abc import Sequence

from export.energy.devices import Device
from export.energy.results import EnergyResults
from export.energy.totals import Energy
from export.units import joules, percent, span
from zoo.provenance import WEIGHT_FORMATS

__all__ = [
    "any_band",
    "as_if",
    "band",
    "counted",
    "factor",
    "quotation",
    "shared_device",
    "summary",
]


def band(e: Energy) -> str:
    """Return the band of the device; empty where it has a single price."""
    if e.total is None or e.total.lo == e.total.hi:
        return ""
    return f"{joules(e.total.lo)} to {joules(e.total.hi)}"


def any_band(reports: Sequence[EnergyResults], device: Device | None) -> bool:
    """Return whether the total of any report on `device` is a band, and no single price."""
    return device is not None and any(band(report.energy(device)) for report in reports)


def summary(e: Energy) -> str:
    """Return the total of an image, or why there is none."""
    if e.total is None:
        return f"no total: no price for {', '.join(e.unpriced)}"
    return joules(e.total.typ)


def factor(e: Energy, exact: Energy) -> str:
    """Return how many times the energy by the exact convention one is; empty without a price."""
    if not (e.total and exact.total and exact.total.typ):
        return ""
    return f"{e.total.typ / exact.total.typ:.2f}"


def counted(report: EnergyResults) -> str:
    """Return how many images of what were counted."""
    if report.images_from:
        return f"{report.images:,} of the {report.images_from}"
    return f"{report.images:,} image{'s' if report.images > 1 else ''}"


def as_if(report: EnergyResults, device: Device) -> str:
    """Return what the figure on a device assumes of the network's numbers; empty where they agree.

    Counts are those of the network as it is, whatever numbers a device has prices for.
    """
    weights, numbers = report.source.weight_format, device.arithmetic
    if not numbers or weights not in WEIGHT_FORMATS or weights.startswith(numbers):
        return ""
    return f"priced as if it computed in {numbers}"


def quotation(report: EnergyResults) -> str:
    """Return the figure on the first priced device with all that it stands on, for a paper.

    Raises `ValueError` where no device has a total.
    """
    e = report.priced
    if e is None or e.total is None:
        raise ValueError("no device has a total")
    sure = [f"device {band(e)}"] if band(e) else []
    if e.interval:
        sure.append(f"95 % over images {span(e.interval.lo, e.interval.hi, 'to', 4)}")
    if assumed := as_if(report, e.device):
        sure.append(f"{report.source.weight_format} weights, {assumed}")
    right = ""
    if report.accuracy is not None:
        right = f", of which {percent(report.accuracy)} are classified right"
    tested = ""
    if split := report.published:
        whole = f"{100 * split.top1:.2f} % of {split.images:,} {split.split} images"
        tested = f" (top-1 of the network: {whole})"
    made = f": {report.command}" if report.command else ""
    known = f" ({'; '.join(sure)})" if sure else ""
    sha256 = report.source.weights_sha256[:12]
    weights = f"{report.weights_in_words}, sha256 {sha256}" if sha256 else report.weights_in_words
    kinds = {operation.kind for operation in report.operations[report.convention.name].total}
    memory = "" if "access" in kinds else " for arithmetic alone, without memory accesses,"
    return (
        f"{report.source.name} with T = {report.steps} ({weights}) is estimated to need "
        f"{joules(e.total.typ)} an image{memory} on {e.device.title} (device {e.device.name}) by "
        f"the convention {report.convention.name}{known}, a mean of {counted(report)}"
        f"{right}{tested}; danet-zoo {report.versions['danet-zoo']}{made}."
    )


def shared_device(reports: Sequence[EnergyResults]) -> Device | None:
    """Return the first device on which all of them have a total."""
    priced = [[e.device for e in report.energies if e.total] for report in reports]
    return next((one for one in priced[0] if all(one in devices for devices in priced)), None)
