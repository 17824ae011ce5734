"""An energy in words, the same in a terminal and on a page."""

from export.energy.totals import Energy
from export.units import joules

__all__ = ["band", "interval", "summary"]


def band(e: Energy) -> str:
    """The profile's band, where it has one."""
    if e.total is None or e.total.lo == e.total.hi:
        return ""
    return f"{joules(e.total.lo)} to {joules(e.total.hi)}"


def interval(e: Energy) -> str:
    """Where the mean over more images would lie, where that is known."""
    return "" if e.interval is None else f"{joules(e.interval.lo)} to {joules(e.interval.hi)}"


def summary(e: Energy) -> str:
    """The total of an image, or why there is none."""
    return (
        f"no total: no price for {', '.join(e.unpriced)}"
        if e.total is None
        else joules(e.total.typ)
    )
