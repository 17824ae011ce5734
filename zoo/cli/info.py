"""`zoo info`: what a name stands for."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import zoo
from zoo import terminal
from zoo.cli.networks import refuse_file
from zoo.cli.options import Commands, Options, add_command, add_json, add_network
from zoo.cli.output import print_json

__all__ = ["InfoOptions", "add_parser", "run"]


@dataclass(frozen=True, kw_only=True)
class InfoOptions(Options):
    """The options of `zoo info`."""

    name: str
    json: bool


def add_parser(commands: Commands) -> None:
    """Add `zoo info`."""
    summary = "show a model's configuration, data, accuracy and files"
    parser = add_command(commands, "info", summary, InfoOptions, run)
    add_json(parser)
    add_network(parser, "name")


def run(options: InfoOptions) -> int:
    """Print configuration, data, metrics and files of a model."""
    refuse_file(options.name)
    values = _describe(options.name)
    if options.json:
        return print_json(values)
    table = terminal.table("", "")
    table.show_header = False
    for key, value in values.items():
        for i, line in enumerate(_lines(value)):
            terminal.add_row(table, key if i == 0 else "", line)
    terminal.show(table, terminal.console())
    return 0


def _describe(name: str) -> dict[str, Any]:
    from zoo.provenance import UNKNOWN

    info = zoo.info(name)
    values: dict[str, Any] = {
        "name": info.name,
        "model": info.config,
        "data": info.data.to_dict(),
        "trained": None if info.provenance == UNKNOWN else info.weights is not None,
        "provenance": info.provenance,
    }
    entry = info.weights
    if entry is None:
        return values
    files = {name: {"sha256": f.sha256, "bytes": f.bytes} for name, f in entry.files.items()}
    return values | {
        "parameters": entry.parameters,
        "metrics": entry.metrics,
        "licence": entry.licence,
        "recipe": entry.recipe,
        "source": entry.source,
        "energy": entry.energy or "not measured",
        "repo": entry.repo,
        "revision": entry.revision,
        "files": files,
    }


def _lines(value: Any) -> list[str]:
    """Return a value as lines of text, one for each field of a dict; empty fields have none."""
    if isinstance(value, Mapping):
        return [f"{field}: {_text(v)}" for field, v in value.items() if not _is_empty(v)]
    return [] if _is_empty(value) else [_text(value)]


def _is_empty(value: Any) -> bool:
    return value in (None, "", (), [])


def _text(value: Any) -> str:
    """Return a value as a person reads it; `--json` has every digit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(v)}" for key, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    if isinstance(value, str):
        is_digest = re.fullmatch("[0-9a-f]{64}", value)
        return f"{value[:12]}..." if is_digest else value
    if isinstance(value, float) and abs(value) < 1e5:
        return f"{value:,.6g}"
    return f"{value:,.0f}"
