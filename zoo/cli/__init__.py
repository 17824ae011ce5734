"""The `zoo` command.

Each command is a module of its own: a frozen dataclass of its options, `add_parser`, which declares
them, and `run`, which carries the command out and returns the exit status. What a command needs is
imported when it runs, so that `zoo list` never waits for torch.

Exit status: 0 if what was asked for is true or done, 1 if a check found otherwise, 2 if it could
not be asked, 130 if it was interrupted, 141 if nobody reads its output any more.
"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress

import zoo
from zoo import terminal
from zoo.cli import (
    attack,
    check,
    classify,
    convert,
    energy,
    evaluate,
    export,
    info,
    list_models,
    page,
    push,
    stages,
    train,
    verify,
)
from zoo.cli.interrupts import interruptible
from zoo.cli.parser import Parser
from zoo.errors import VerificationError, ZooError

__all__ = ["build_parser", "main", "parse"]

# in the order in which `zoo --help` lists them
COMMANDS = (
    list_models,
    info,
    classify,
    evaluate,
    export,
    verify,
    check,
    energy,
    attack,
    page,
    train,
    stages,
    convert,
    push,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; an error becomes one line on stderr."""
    terminal.accept_any_text()
    try:
        try:
            with interruptible():
                return _run(argv)
        finally:
            # a full disk or a closed pipe shows here, and not when Python ends
            sys.stdout.flush()
    except VerificationError as error:
        return _fail(error, 1)
    except ZooError as error:
        return _fail(error, 2)
    except BrokenPipeError:
        terminal.discard_output()
        return 141  # as of a process that the signal of a closed pipe ends
    except OSError as error:
        where = error.filename or "the file system or standard output"
        return _fail(f"{where} cannot be read or written: {error.strerror or error}", 2)
    except KeyboardInterrupt as interrupt:
        return _fail("; ".join(["interrupted", *map(str, interrupt.args)]), 130)


def _run(argv: Sequence[str] | None) -> int:
    arguments = parse(argv)
    if not sys.stderr.isatty():
        # the Hub's client reads it when it is imported
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    status: int = arguments.command(arguments)
    return status


def _fail(error: object, status: int) -> int:
    with suppress(OSError):  # nobody may be there to read it
        print(f"zoo: {error}", file=sys.stderr, flush=True)
    terminal.discard_output()
    return status


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; `command` of the result is the `Command` that it asks for.

    Raises `InputError` for a command line that cannot be understood, and `SystemExit` after
    `--help` and `--version`.
    """
    arguments: argparse.Namespace
    arguments, unknown = build_parser().parse_known_args(argv)
    if unknown:  # refused here and not by argparse, which would point to the help of `zoo` alone
        arguments.command.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    arguments.command_line = shlex.join(["zoo", *(sys.argv[1:] if argv is None else argv)])
    return arguments


def build_parser() -> Parser:
    """Return the parser of the `zoo` command with all of its subcommands."""
    parser = Parser(
        prog="zoo",
        description="Trained deep spiking residual networks: load, classify, export, verify, "
        "and count their energy.",
        epilog="`zoo COMMAND --help` shows the options of a command.",
    )
    parser.add_argument("--version", action="version", version=f"zoo {zoo.__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser
