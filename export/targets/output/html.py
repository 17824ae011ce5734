"""Checks as one HTML page: no script, no font and no picture from elsewhere."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Template

from export import units
from export.pages import read_template
from export.targets.output import text as words
from export.targets.placement import Placement
from export.targets.result import Check

__all__ = ["render"]

MAX_SQUARES = 160  # of a floor plan; of more cores, several share a square


@dataclass(frozen=True)
class Square:
    """A square of a floor plan: one core or several, free or with a layer."""

    name: str = ""  # of the core, as in "core 3"; empty where several share the square
    layer: str = ""  # empty where it is free
    use: float = 0.0  # of the scarcest resource, up to 1
    odd: bool = False  # whether the layer is an odd one, to tell it from its neighbours
    over: bool = False  # whether the chip has no such core

    @property
    def label(self) -> str:
        """Words that say what lies here and how full it is."""
        name = f"{self.name}: " if self.name else ""
        if self.over:
            return f"{self.layer}: no core is left for it"
        return f"{name}{self.layer}, {100 * self.use:.0f} % used" if self.layer else f"{name}free"


@dataclass(frozen=True)
class Floor:
    """The floor plan of a chip."""

    squares: list[Square]
    cores: int  # of a square


def render(checks: Sequence[Check], name: str, notes: Sequence[str] = ()) -> str:
    """Return the page of checks of the network `name`; `notes` are lines on where it comes from."""
    return _template().render(
        checks=checks,
        floors=[_floor(check) for check in checks],
        name=name,
        notes=notes,
        units=units,
        words=words,
    )


@cache
def _template() -> Template:
    return read_template(Path(__file__).with_name("report.html.j2"))


def _floor(check: Check) -> Floor | None:
    """Return the floor plan with the layers on it; None of a chip without a formula for cores."""
    placement, cores = check.placement, check.target.cores
    if placement is None or cores is None:
        return None
    if cores.placement == "split":
        return _split_floor(placement)
    squares = [Square(f"core {number}") for number in range(placement.present)]
    outside = []
    for i, (layer, spot) in enumerate(placement.places.items()):
        if spot.core is None:
            outside.append(Square("no core", layer, spot.use, odd=i % 2 == 1, over=True))
        else:
            squares[spot.core] = Square(f"core {spot.core}", layer, spot.use, odd=i % 2 == 1)
    return Floor(squares + outside, 1)


def _split_floor(placement: Placement) -> Floor:
    """Return the floor plan of a chip whose layers take as many cores as they need, in a row."""
    each = math.ceil(max(placement.needed, placement.present) / MAX_SQUARES)
    squares, begun = [], 0
    for i, (layer, spot) in enumerate(placement.places.items()):
        for first in range(begun, begun + spot.cores, each):  # one at least
            over = first >= placement.present
            squares.append(Square("", layer, spot.use, odd=i % 2 == 1, over=over))
        begun += spot.cores
    free = math.ceil(placement.present / each) - len(squares)
    return Floor(squares + [Square()] * max(0, free), each)
