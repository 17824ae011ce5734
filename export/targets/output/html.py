"""Checks as one HTML page: no script, no font and no picture from elsewhere."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Template

from export import units
from export.pages import read_template
from export.targets.output import text as words
from export.targets.result import Check

__all__ = ["render"]


def render(checks: Sequence[Check], name: str, notes: Sequence[str] = ()) -> str:
    """Return the page of checks of the network `name`; `notes` are lines on where it comes from."""
    return _template().render(checks=checks, name=name, notes=notes, units=units, words=words)


@cache
def _template() -> Template:
    return read_template(Path(__file__).with_name("report.html.j2"))
