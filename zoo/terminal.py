"""Tables, progress bars and text of any encoding for a terminal.

Output that is piped is plain text; progress goes to stderr. rich is imported when a table or a bar
is shown, so that a plain list of names does not wait for it.
"""

import codecs
import io
import os
import shutil
import sys
import textwrap
import time
import unicodedata
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.status import Status
    from rich.table import Table

__all__ = [
    "accept_any_text",
    "add_row",
    "advance",
    "console",
    "discard_output",
    "progress",
    "show",
    "status",
    "table",
]

PIPED_COLUMNS = 120
MIN_COLUMNS = 40  # a narrower terminal wraps the text itself
MAX_TABLE_COLUMNS = 10_000
LINE_SECONDS = 20  # between two lines about progress where there is no bar
# Python's treatments of characters that an encoding lacks, if nobody chose another one
DEFAULT_ERRORS = ("strict", "surrogateescape", "backslashreplace")
# characters that Unicode does not decompose, by what a typewriter has for them
SPELLINGS = {
    "u": "\u00b5\u03bc",  # micro sign, mu
    "+-": "\u00b1",
    "x": "\u00d7",
    ".": "\u00b7",
    "*": "\u2022",
    "<=": "\u2264",
    ">=": "\u2265",
    "~": "\u2248",
    "->": "\u2192",
    "'": "\u2018\u2019",
    '"': "\u201c\u201d",
    "-": "\u2010\u2011\u2012\u2013\u2014\u2015\u2212\u2500\u2501",  # dashes, minus, rules
    "|": "\u2502",
}
TYPEWRITER = {character: text for text, chars in SPELLINGS.items() for character in chars}


def accept_any_text() -> None:
    """Make standard output and error take text that their encoding lacks, and exist if closed."""
    codecs.register_error("zoo.typewriter", _replace)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _reopen(descriptor))
        elif isinstance(stream, io.TextIOWrapper) and stream.errors in DEFAULT_ERRORS:
            stream.reconfigure(errors="zoo.typewriter")


def _reopen(descriptor: int) -> TextIO:
    """Open a standard stream that was closed by whoever started this process, as the null device.

    Otherwise the next file that is opened would get its number, and all that is printed.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    if null != descriptor:
        os.dup2(null, descriptor)
        os.close(null)
    return open(descriptor, "w", encoding="utf-8", closefd=False)


def discard_output() -> None:
    """Discard what is still to be written to a stream that nobody reads any more."""
    null = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(null, stream.fileno())
    os.close(null)


def _replace(error: UnicodeError) -> tuple[str, int]:
    """Handle an encoding error: return ASCII for the characters, and where they end."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_to_ascii, error.object[error.start : error.end])), error.end


def _to_ascii(character: str) -> str:
    """Return a character as ASCII letters and signs, or as the escape of its number."""
    if character in TYPEWRITER:
        return TYPEWRITER[character]
    letters = unicodedata.normalize("NFKD", character).encode("ascii", "ignore")
    return (letters or character.encode("ascii", "backslashreplace")).decode("ascii")


def console() -> "Console":
    """Return a console of standard output, as wide as the terminal."""
    from rich.console import Console

    width = PIPED_COLUMNS
    if _has_width():
        width = max(MIN_COLUMNS, shutil.get_terminal_size((PIPED_COLUMNS, 24)).columns)
    return Console(width=width, emoji=False)


def _has_width() -> bool:
    """Return whether someone looks at standard output, or said how wide it is."""
    return sys.stdout.isatty() or "COLUMNS" in os.environ


def table(*columns: str, title: str | None = None) -> "Table":
    """Return a table without rows."""
    from rich import box
    from rich.table import Table

    empty = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        empty.add_column(column)
    return empty


def add_row(table: "Table", *cells: str) -> None:
    """Add a row of plain text, in which nothing is taken for markup."""
    from rich.markup import escape

    table.add_row(*map(escape, cells))


def show(table: "Table", console: "Console") -> None:
    """Print a table without cutting a word or a column; a column without a word is left out.

    Where the console is too narrow for the longest words, a terminal gets a paragraph for each row,
    and a file or another program the table with long lines.
    """
    from rich.measure import Measurement
    from rich.segment import Segments

    if table.row_count:
        table.columns = [column for column in table.columns if any(column.cells)]
        for index, column in enumerate(table.columns):
            column._index = index  # by which rich finds the padding of the last one
    options = console.options.update(max_width=MAX_TABLE_COLUMNS)
    narrowest: list[int] = []  # width of each column whose longest word fits on a line
    widest: list[int] = []  # width of each column whose longest cell fits on a line
    for column in table.columns:
        cells = [Measurement.get(console, options, c) for c in (column.header, *column.cells)]
        widest.append(max(cell.maximum for cell in cells))
        longest_word = max(cell.minimum for cell in cells)
        narrowest.append(widest[-1] if column.no_wrap else longest_word)
    _set_widths(table, narrowest)
    table_width = Measurement.get(console, options, table).maximum
    if table_width > console.width and _has_width():
        _show_rows(table, console)
        return
    padding = table_width - sum(narrowest)
    _set_widths(table, _fit(narrowest, widest, console.width - padding))
    console.print(Segments(console.render(table, options)), end="", crop=False)


def _show_rows(table: "Table", console: "Console") -> None:
    """Print a paragraph for each row: its first cell, and below it the others with their titles."""
    from rich.text import Text

    def write(text: str, indent: int, style: str = "") -> None:
        lines = textwrap.wrap(
            Text.from_markup(text).plain,
            console.width,
            initial_indent=" " * indent,
            subsequent_indent=" " * 2 * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        console.print(Text("\n".join(lines), style), overflow="ignore", crop=False)

    if table.title:
        write(str(table.title), 0, "italic")
    titles = [str(column.header) for column in table.columns]
    for head, *cells in zip(*(column.cells for column in table.columns), strict=True):
        write(str(head), 0, "bold")
        for title, cell in zip(titles[1:], cells, strict=True):
            if cell:
                write(f"{title}: {cell}", 2)
    console.print()


def _set_widths(table: "Table", widths: Sequence[int]) -> None:
    for column, width in zip(table.columns, widths, strict=True):
        column.width = width


def _fit(narrowest: Sequence[int], widest: Sequence[int], space: int) -> list[int]:
    """Return the widths of columns that share `space`, with the wide columns cut to one width.

    If even the `narrowest` widths need more, return these.
    """
    for limit in range(max(widest), 0, -1):
        pairs = zip(narrowest, widest, strict=True)
        widths = [max(low, min(high, limit)) for low, high in pairs]
        if sum(widths) <= space:
            return widths
    return list(narrowest)


def progress() -> "Progress":
    """Return a progress bar, which disappears when its work is done.

    Where stderr is no terminal, `advance` prints a line now and then instead.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    stderr = Console(stderr=True)
    name, note = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
    columns = (name, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
    return Progress(*columns, console=stderr, transient=True, disable=not stderr.is_terminal)


def advance(bar: "Progress", unit: str) -> Callable[..., None]:
    """Return a function of `done, total[, values]` that moves the bar, which counts in `unit`.

    `values`, a dict of numbers, is shown beside the bar.
    """
    task, last_line = bar.add_task(unit, total=None, note=""), time.monotonic()

    def move(done: int, total: int, values: dict[str, float] | None = None) -> None:
        nonlocal last_line
        note = "  ".join(
            f"{key} {value:.3f}" if value < 10 else f"{key} {value:,.0f}"
            for key, value in (values or {}).items()
        )
        bar.update(task, completed=done, total=total, note=note)
        if bar.disable and time.monotonic() - last_line >= LINE_SECONDS:
            last_line = time.monotonic()
            print(f"{unit}: {done:,} of {total:,}  {note}".rstrip(), file=sys.stderr, flush=True)

    return move


def status(text: str) -> "Status":
    """Return a spinner beside `text`, for work of unknown length."""
    from rich.console import Console
    from rich.markup import escape

    # every encoding has the characters of this spinner
    return Console(stderr=True).status(escape(text), spinner="line")
