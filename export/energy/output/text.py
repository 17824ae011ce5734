"""An energy in words, the same in a terminal and on a page."""

from collections.abc import Sequence

from export.energy.devices import Device
from export.energy.results import EnergyResults
from export.energy.totals import Energy
from export.units import joules

__all__ = ["band", "factor", "shared_device", "summary"]


def band(e: Energy) -> str:
    """Return the band of the device; empty where it has a single price."""
    if e.total is None or e.total.lo == e.total.hi:
        return ""
    return f"{joules(e.total.lo)} to {joules(e.total.hi)}"


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


def shared_device(reports: Sequence[EnergyResults]) -> Device | None:
    """Return the first device on which all of them have a total."""
    priced = [[e.device for e in report.energies if e.total] for report in reports]
    return next((one for one in priced[0] if all(one in devices for devices in priced)), None)
