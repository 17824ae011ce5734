"""Numbers as a reader wants them: three or four digits and a unit."""

__all__ = ["count", "joules", "percent", "span"]

Scale = tuple[tuple[float, str], ...]
COUNT: Scale = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))
# of picojoules
JOULES: Scale = ((1e12, " J"), (1e9, " mJ"), (1e6, " µJ"), (1e3, " nJ"), (1, " pJ"))


def count(value: float) -> str:
    """`1814073344` -> `1.814 G`."""
    return _scaled(value, COUNT, 4)


def joules(picojoules: float) -> str:
    """`2808315.6` -> `2.81 µJ`."""
    return _scaled(picojoules, JOULES, 3)


def percent(value: float) -> str:
    """`0.241` -> `24.1 %`."""
    return f"{100 * value:.1f} %"


def span(lo: float, hi: float, word: str, digits: int = 3) -> str:
    """`2.81 to 2.93 µJ`; `digits`, where the ends may lie close together."""
    one, two = (_scaled(picojoules, JOULES, digits) for picojoules in (lo, hi))
    number, _, unit = one.rpartition(" ")
    return f"{number if two.endswith(f' {unit}') else one} {word} {two}"


def _scaled(value: float, scale: Scale, digits: int) -> str:
    factor, unit = next(
        ((f, u) for f, u in scale if abs(value) >= f), (1.0, " pJ" if scale is JOULES else "")
    )
    number = value / factor
    whole = len(str(int(abs(number))))
    text = f"{number:.{max(0, digits - whole)}f}"
    return ("0" if not value else text if unit or number % 1 else str(int(number))) + unit
