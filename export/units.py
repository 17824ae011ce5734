"""Numbers for people: three or four digits and a unit."""

__all__ = ["count", "joules", "percent", "span"]

Scale = tuple[tuple[float, str], ...]
COUNT: Scale = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))
# The units of a number of picojoules.
JOULES: Scale = ((1e12, " J"), (1e9, " mJ"), (1e6, " µJ"), (1e3, " nJ"), (1, " pJ"))


def count(value: float) -> str:
    """Return `1.814 G` for `1814073344`."""
    return _scaled(value, COUNT, 4)


def joules(picojoules: float, like: float | None = None) -> str:
    """Return `2.81 µJ` for `2808315.6`, in the unit of the number `like` if there is one."""
    return _scaled(picojoules, JOULES, 3, like)


def percent(value: float) -> str:
    """Return `24.1 %` for `0.241`."""
    return f"{100 * value:.1f} %"


def span(lo: float, hi: float, word: str, digits: int = 3) -> str:
    """Return `2.81 to 2.93 µJ`; more `digits` where the ends may lie close together."""
    one, two = (_scaled(picojoules, JOULES, digits) for picojoules in (lo, hi))
    number, _, unit = one.rpartition(" ")
    return f"{number if two.endswith(f' {unit}') else one} {word} {two}"


def _scaled(value: float, scale: Scale, digits: int, like: float | None = None) -> str:
    """Return a number in the largest unit that it, or `like`, reaches, with so many digits."""
    smallest, reach = (1.0, " pJ" if scale is JOULES else ""), abs(value if like is None else like)
    factor, unit = next(((f, u) for f, u in scale if reach >= f), smallest)
    number = value / factor
    if not value:
        return f"0{unit}"
    if not unit and number % 1 == 0:
        return str(int(number))
    integer_digits = len(str(int(abs(number))))
    return f"{number:.{max(0, digits - integer_digits)}f}{unit}"
