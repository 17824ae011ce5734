"""`zoo list`: the trained models, or every architecture."""

from dataclasses import dataclass

import zoo
from zoo import terminal
from zoo.cli.options import Commands, Options, add_command, add_json
from zoo.cli.output import note, print_json

__all__ = ["ListOptions", "add_parser", "run"]


@dataclass(frozen=True, kw_only=True)
class ListOptions(Options):
    """The options of `zoo list`."""

    pattern: str  # shell wildcard
    all: bool  # untrained architectures too
    json: bool


def add_parser(commands: Commands) -> None:
    """Add `zoo list`."""
    summary = "list trained models, or every architecture"
    parser = add_command(commands, "list", summary, ListOptions, run)
    add_json(parser)
    text = "names to list, as a shell wildcard: 'danet50*' (default: all)"
    parser.add_argument("pattern", nargs="?", default="*", help=text)
    text = "every architecture that can be created, trained or not"
    parser.add_argument("--all", action="store_true", help=text)


def run(options: ListOptions) -> int:
    """Print the trained models with their accuracy, or every name there is."""
    from zoo.manifest import read_manifest

    names = zoo.list_models(options.pattern, pretrained=not options.all)
    if not names:
        kind = "architecture" if options.all else "trained model"
        hint = "" if options.all else "; --all lists untrained ones too"
        note(f"no {kind} matches {options.pattern!r}: leave it out to see all{hint}")
        if options.json:
            print_json([])
        return 1
    weights = read_manifest().weights
    if options.json:
        return print_json(
            [
                {
                    "name": name,
                    "trained": name in weights,
                    "metrics": weights[name].metrics if name in weights else {},
                }
                for name in names
            ]
        )
    if options.all:
        print("\n".join(names))
        return 0
    table = terminal.table("model", "data", "top-1", "parameters", "provenance")
    for name in names:
        entry = weights[name]
        top1 = f"{entry.metrics['top1']:.2%}" if "top1" in entry.metrics else "not measured"
        parameters = f"{entry.parameters:,}"
        terminal.add_row(table, name, entry.data.title, top1, parameters, entry.provenance)
    terminal.show(table, terminal.console())
    return 0
