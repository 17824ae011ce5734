"""`zoo convert`: a model folder from a published checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from zoo import terminal
from zoo.cli.options import Commands, Options, add_command, add_json, add_licence
from zoo.cli.output import print_json

__all__ = ["ConvertOptions", "add_parser", "run"]


@dataclass(frozen=True, kw_only=True)
class ConvertOptions(Options):
    """The options of `zoo convert`."""

    checkpoint: Path
    arch: str
    out: Path
    source: str | None  # who trained it; None: the authors of the architecture
    licence: str  # identifier of SPDX
    json: bool


def add_parser(commands: Commands) -> None:
    """Add `zoo convert`."""
    summary = "make a model folder of a published SEW-, Spiking- or MS-ResNet checkpoint"
    parser = add_command(commands, "convert", summary, ConvertOptions, run)
    add_json(parser)
    text = "file written by torch.save; no code of it is run"
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help=text)
    text = "architecture, as in sew-resnet18-t4 (data: in1k) or ms-resnet34-t6.in1k"
    parser.add_argument("--arch", required=True, metavar="NAME", help=text)
    text = "the model folder to write; it must not exist"
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help=text)
    text = "who trained the weights (default: the authors of the architecture)"
    parser.add_argument("--source", metavar="TEXT", help=text)
    add_licence(parser, "unknown", default="unknown")


def run(options: ConvertOptions) -> int:
    """Write the model folder of a published checkpoint."""
    from zoo.convert import convert

    with terminal.status(f"reading {options.checkpoint}"):
        model = convert(
            options.checkpoint,
            options.arch,
            options.out,
            source=options.source,
            licence=options.licence,
        )
    name, folder = model.known_origin.name, str(options.out)
    parameters = sum(p.numel() for p in model.parameters())
    if options.json:
        return print_json({"name": name, "parameters": parameters, "folder": folder})
    print(
        f"{folder}: {name}, {parameters:,} parameters, converted; "
        f"`zoo evaluate {folder}` measures it"
    )
    return 0
