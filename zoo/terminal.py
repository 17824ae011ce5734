"""What a person at a terminal sees: tables, and bars where they wait. Plain text when piped; bars go to stderr.

rich is imported when something is shown, which a plain list of names is not.
"""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.status import Status
    from rich.table import Table

__all__ = ["advance", "console", "progress", "status", "table"]

PIPED_WIDTH = 120  # columns


def console() -> "Console":
    """Standard output."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)


def table(*columns: str, title: str | None = None) -> "Table":
    """A table without rows yet."""
    from rich import box
    from rich.table import Table

    empty = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        empty.add_column(column)
    return empty


def progress() -> "Progress":
    """A bar, gone when its work is done; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    stderr = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=stderr, transient=True, disable=not stderr.is_terminal)


def advance(bar: "Progress", unit: str) -> Callable[..., None]:
    """A function of `done, total[, values]` that moves the bar, which counts in `unit`."""
    task = bar.add_task(unit, total=None, note="")

    def move(done: int, total: int, values: dict[str, float] | None = None) -> None:
        note = "  ".join(f"{key} {value:.3f}" if value < 10 else f"{key} {value:,.0f}" for key, value in (values or {}).items())
        bar.update(task, completed=done, total=total, note=note)

    return move


def status(text: str) -> "Status":
    """A spinner beside `text`, where the length of the work is not known."""
    from rich.console import Console

    return Console(stderr=True).status(text)
