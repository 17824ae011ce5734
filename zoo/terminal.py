"""What a person at a terminal sees: tables, and bars where they wait. Plain text when piped; bars
go to stderr.

rich is imported when something is shown, which a plain list of names is not.
"""

import codecs
import io
import os
import shutil
import sys
import unicodedata
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.status import Status
    from rich.table import Table

__all__ = [
    "add_row",
    "advance",
    "console",
    "progress",
    "quiet",
    "readable",
    "show",
    "status",
    "table",
]

PIPED_WIDTH = 120  # columns
NARROWEST = 40  # columns of text; what a narrower terminal does with them is its own affair
LIMIT = 10_000  # columns of the widest table
# how Python treats what an encoding lacks if nobody chose otherwise
STRICT = ("strict", "surrogateescape", "backslashreplace")
# Micro, plus or minus, times, dots, relations, an arrow, quotes, rules and dashes as they are
# written on a typewriter.
ASCII = {
    0xB5: "u", 0x3BC: "u", 0xB1: "+-", 0xD7: "x", 0xB7: ".", 0x2022: "*", 0x2264: "<=", 0x2265: ">=", 0x2248: "~", 0x2192: "->",
    0x2018: "'", 0x2019: "'", 0x201C: '"', 0x201D: '"', 0x2212: "-", 0x2500: "-", 0x2501: "-", 0x2502: "|",
} | dict.fromkeys(range(0x2010, 0x2016), "-")  # fmt: skip


def readable() -> None:
    """Have standard output and error take any text whatever their encoding, and be there even if
    they were closed.
    """
    codecs.register_error("zoo.readable", _replace)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        # closed by who started this: a file that is opened would get its number, and all that is
        # printed
        if stream is None:
            null = os.open(os.devnull, os.O_WRONLY)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            setattr(sys, name, open(descriptor, "w", encoding="utf-8", closefd=False))
        elif isinstance(stream, io.TextIOWrapper) and stream.errors in STRICT:
            stream.reconfigure(errors="zoo.readable")


def quiet() -> None:
    """Drop what is still to be written: whoever read it has gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(null, stream.fileno())
    os.close(null)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """What an encoding lacks in letters of ASCII, or as its number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_plain, error.object[error.start : error.end])), error.end


def _plain(character: str) -> str:
    plain = ASCII.get(ord(character)) or unicodedata.normalize("NFKD", character).encode(
        "ascii", "ignore"
    ).decode("ascii")
    return plain or character.encode("ascii", "backslashreplace").decode("ascii")


def console() -> "Console":
    """Standard output."""
    from rich.console import Console

    width = PIPED_WIDTH
    if sys.stdout.isatty() or "COLUMNS" in os.environ:
        width = max(NARROWEST, shutil.get_terminal_size((PIPED_WIDTH, 24)).columns)
    return Console(width=width, emoji=False)


def table(*columns: str, title: str | None = None) -> "Table":
    """A table without rows yet."""
    from rich import box
    from rich.table import Table

    empty = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        empty.add_column(column)
    return empty


def add_row(table: "Table", *cells: str) -> None:
    """Add a row of plain text: nothing in it is taken for markup."""
    from rich.markup import escape

    table.add_row(*map(escape, cells))


def show(table: "Table", console: "Console") -> None:
    """Print a table. Where a console is too narrow for its words it is wider than the console: no
    word and no column is cut.
    """
    from rich.measure import Measurement
    from rich.segment import Segments

    options = console.options.update(max_width=LIMIT)
    cells = [
        [Measurement.get(console, options, cell) for cell in (c.header, *c.cells)]
        for c in table.columns
    ]
    most = [max(cell.maximum for cell in column) for column in cells]
    least = [
        hi if c.no_wrap else max(m.minimum for m in column)
        for c, column, hi in zip(table.columns, cells, most, strict=True)
    ]
    for column, width in zip(table.columns, least, strict=True):
        column.width = width
    spare = console.width - Measurement.get(console, options, table).maximum + sum(least)

    def within(cap: int) -> list[int]:
        """The widths if no column is wider than `cap` without need."""
        return [max(lo, min(hi, cap)) for lo, hi in zip(least, most, strict=True)]

    cap = next((cap for cap in range(max(most), 0, -1) if sum(within(cap)) <= spare), 0)
    for column, width in zip(table.columns, within(cap), strict=True):
        column.width = width
    console.print(Segments(console.render(table, options)), end="", crop=False)


def progress() -> "Progress":
    """A bar, gone when its work is done; nothing where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    stderr = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(
        *columns,
        TextColumn("{task.fields[note]}"),
        console=stderr,
        transient=True,
        disable=not stderr.is_terminal,
    )


def advance(bar: "Progress", unit: str) -> Callable[..., None]:
    """A function of `done, total[, values]` that moves the bar, which counts in `unit`."""
    task = bar.add_task(unit, total=None, note="")

    def move(done: int, total: int, values: dict[str, float] | None = None) -> None:
        note = "  ".join(
            f"{key} {value:.3f}" if value < 10 else f"{key} {value:,.0f}"
            for key, value in (values or {}).items()
        )
        bar.update(task, completed=done, total=total, note=note)

    return move


def status(text: str) -> "Status":
    """A spinner beside `text`, where the length of the work is not known."""
    from rich.console import Console
    from rich.markup import escape

    # whose characters every encoding has
    return Console(stderr=True).status(escape(text), spinner="line")
