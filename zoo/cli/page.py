"""`zoo page`: a folder for a browser that runs networks and shows their spikes."""

from dataclasses import dataclass
from pathlib import Path

import zoo
from zoo import terminal
from zoo.cli.networks import check_export_package, load_model
from zoo.cli.options import Commands, Options, add_command, add_network
from zoo.cli.output import check_output_folder
from zoo.errors import InputError
from zoo.provenance import WEIGHT_FORMATS, WeightFormat

__all__ = ["PageOptions", "add_parser", "run"]


@dataclass(frozen=True, kw_only=True)
class PageOptions(Options):
    """The options of `zoo page`."""

    models: list[str]
    all: bool
    weights: list[WeightFormat]
    images: list[Path]
    out: Path


def add_parser(commands: Commands) -> None:
    """Add `zoo page`."""
    summary = "write a page that runs networks in a browser and shows every spike"
    parser = add_command(commands, "page", summary, PageOptions, run)
    add_network(parser, "models", "or nothing, with --all", nargs="*", metavar="MODEL")
    text = "every trained network of this installation, as a gallery"
    parser.add_argument("--all", action="store_true", help=text)
    parser.add_argument(
        "--weights",
        nargs="+",
        choices=WEIGHT_FORMATS,
        default=["float32"],
        help="each network in each of these formats, side by side, as `zoo export` writes them "
        "(default: float32)",
    )
    text = "pictures that the page shows, and then holds (default: bundled ones of the data)"
    parser.add_argument("--images", nargs="+", type=Path, default=[], metavar="FILE", help=text)
    text = "the folder to write, which any static host serves"
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help=text)


def run(options: PageOptions) -> int:
    """Write the page, and say how to look at it."""
    check_export_package()
    from export.page import write_page
    from export.prepare.quantize import quantize_weights

    check_output_folder("--out", options.out)
    if options.all == bool(options.models):
        raise InputError("give the networks of the page or --all, not both and not neither")
    names = options.models or [n for n in zoo.list_models(pretrained=True) if _is_here(n)]
    loaded = [load_model(name)[0] for name in names]
    models = [quantize_weights(model, weights) for model in loaded for weights in options.weights]
    with terminal.status("exporting and verifying") as status:
        write_page(
            models,
            options.out,
            pictures=options.images,
            progress=lambda name: status.update(f"exporting {name}"),
        )
    print(f"written: {options.out}")
    print(f"look at it: python -m http.server --directory {options.out}, then localhost:8000")
    return 0


def _is_here(name: str) -> bool:
    """Return whether the weights of a name are part of this installation."""
    from zoo.manifest import weights_folder

    return (weights_folder() / name).is_dir()
