"""Typed records of options, and the options that several commands have.

Every command has a subclass of `Options` with a field for each of its arguments, named as the
argument's destination. `Command` fills it from the namespace of argparse; nothing else reads that.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeAlias, TypeVar

from zoo import hub
from zoo.cli.parser import Assign, Parser, add_alias, licence, positive, seconds, sensor
from zoo.errors import InputError
from zoo.names import ModelSpec
from zoo.provenance import WEIGHT_FORMATS

__all__ = [
    "NETWORK",
    "NIR_DT",
    "RUNTIME_OPTIONS",
    "Command",
    "Commands",
    "Options",
    "RuntimeOptions",
    "add_assignments",
    "add_command",
    "add_data",
    "add_dt",
    "add_formats",
    "add_json",
    "add_licence",
    "add_network",
    "add_runtime",
    "add_sensor",
    "add_skip_bad",
    "add_weights",
]

Commands: TypeAlias = "argparse._SubParsersAction[Parser]"

NETWORK = "a name, a model folder, or hf:ORG/REPO"
NIR_DT = "a .nir file: a model and its exports know their own time step"  # what --dt is for
RUNTIME_OPTIONS = ("runtime", "precision", "threads", "workers")


@dataclass(frozen=True, kw_only=True)
class Options:
    """The arguments of a command line."""

    given: Mapping[str, str]  # field -> the option on the command line that set it
    command_line: str  # as a shell takes it

    @classmethod
    def from_namespace(cls, namespace: argparse.Namespace) -> Self:
        """Return the record of what argparse parsed."""
        return cls(**{field.name: getattr(namespace, field.name) for field in fields(cls)})

    def only_for(self, purpose: str, *names: str) -> None:
        """Raise `InputError` for the first given option of the fields `names`.

        Call it where such options would be ignored: each of them is for `purpose` alone.
        """
        for name in names:
            if name in self.given:
                raise InputError(f"{self.given[name]} is for {purpose}")


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions(Options):
    """The options of a command that runs `.onnx` files, as `add_runtime` declares them."""

    runtime: Literal["onnxruntime", "openvino"]
    precision: Literal["float32", "bfloat16"]
    threads: int  # in all; 0: one for each core
    workers: int  # parts of a batch that are computed at once


O = TypeVar("O", bound=Options)  # noqa: E741


@dataclass(frozen=True)
class Command(Generic[O]):
    """A command: its parser, the record of its options, and what it does with them."""

    parser: Parser
    options: type[O]
    run: Callable[[O], int]

    def __call__(self, arguments: argparse.Namespace) -> int:
        """Carry out a parsed command line and return the exit status."""
        return self.run(self.options.from_namespace(arguments))


def add_command(
    commands: Commands, name: str, summary: str, options: type[O], run: Callable[[O], int]
) -> Parser:
    """Add the command `name` and return its parser, which has no arguments yet."""
    description = f"{summary[0].upper()}{summary[1:]}."
    parser = commands.add_parser(name, help=summary, description=description)
    parser.set_defaults(command=Command(parser, options, run))
    return parser


def add_network(parser: Parser, dest: str, more: str = "", **options: Any) -> None:
    """Add the argument that names a network; `more` says what else it may be, or is without it."""
    text = f"{NETWORK}; {more}" if more else NETWORK
    parser.add_argument(dest, help=text, type=_network, **options)


def _network(name: str) -> str:
    """Return `name`. Raises `UnknownName` for a wrong name here, before torch is imported."""
    is_file = Path(name).suffix in (".onnx", ".nir")
    if not (is_file or hub.is_location(name)):
        ModelSpec.parse(name)
    return name


def add_data(parser: Parser, text: str = "source of the data set") -> None:
    """Add `--data`, where images lie; `text` says what they are for."""
    text = f"{text}: a folder, or a hub id ORG/NAME"
    parser.add_argument("--data", metavar="SOURCE", help=text)


def add_skip_bad(parser: Parser) -> None:
    """Add `--skip-bad`."""
    text = "leave out images that cannot be read, and say how many"
    parser.add_argument("--skip-bad", action="store_true", help=text)


def add_formats(parser: Parser, text: str, default: Sequence[str] = ()) -> None:
    """Add `--to`, the formats of exported files; `text` says what becomes of them."""
    choices = ("onnx", "nir")
    parser.add_argument(
        "--to", dest="formats", nargs="+", choices=choices, default=[*default], help=text
    )


def add_licence(parser: Parser, text: str, default: str | None = None) -> None:
    """Add `--licence`; `text` says what it is by default."""
    text = f"licence of the weights, as in mit or apache-2.0 (default: {text})"
    parser.add_argument("--licence", type=licence, default=default, metavar="ID", help=text)


def add_assignments(
    parser: Parser, word: str, text: str, *, dest: str, metavar: str = "KEY=VALUE"
) -> None:
    """Add an option of values `KEY=VALUE`."""
    parser.add_argument(
        word, dest=dest, nargs="+", action=Assign, default={}, metavar=metavar, help=text
    )


def add_json(parser: Parser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def add_weights(parser: Parser) -> None:
    """Add `--weights`, the number format of a model's weights."""
    text = (
        "float32: as they are (default); int8: rounded to 8 bits with a scale per output channel; "
        "int8-layer: with a scale per layer, as on Speck"
    )
    parser.add_argument("--weights", choices=WEIGHT_FORMATS, default="float32", help=text)


def add_dt(parser: Parser) -> None:
    """Add `--dt`, the time step of a `.nir` file."""
    text = "time step of a .nir file that does not give one (default: 1e-4, with a note)"
    parser.add_argument("--dt", type=seconds, metavar="SECONDS", help=text)


def add_sensor(parser: Parser) -> None:
    """Add the option that says the size of an event camera."""
    text = "the event camera's pixels, where a recording does not say them (default: the model's)"
    parser.add_argument("--sensor", type=sensor, metavar="WIDTHxHEIGHT", help=text)


def add_runtime(parser: Parser) -> None:
    """Add the options of `RuntimeOptions`."""
    group = parser.add_argument_group("runtime of an .onnx file")
    group.add_argument(
        "--runtime",
        choices=("onnxruntime", "openvino"),
        default="onnxruntime",
        help="onnxruntime (default), or openvino, which is an extra",
    )
    group.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="number format of the computation: float32 (default), or bfloat16, "
        "which changes spikes",
    )
    text = "threads in all (default: one for each core)"
    group.add_argument("--threads", type=positive, default=0, metavar="N", help=text)
    text = "divide each batch among N workers that compute at once (default: 1); for many images"
    workers = group.add_argument("--workers", type=positive, default=1, metavar="N", help=text)
    add_alias(group, "--streams", workers)
