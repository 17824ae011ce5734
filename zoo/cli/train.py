"""`zoo train`: a training run."""

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from zoo import terminal
from zoo.cli.options import (
    NETWORK,
    Commands,
    Options,
    add_assignments,
    add_command,
    add_data,
    add_skip_bad,
)
from zoo.cli.parser import Parser, positive
from zoo.errors import InputError
from zoo.names import ModelSpec

__all__ = ["TrainOptions", "add_parser", "run"]


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Options):
    """The options of `zoo train`."""

    name: str
    data: str | None  # folder or hub id
    size: int  # pixels, height and width of own images; 0: read from them
    channels: int  # of own images; 0: read from them
    mean: list[float]  # of own images' pixels in [0, 1], per channel; empty: measured
    std: list[float]  # likewise
    run: Path | None  # folder of the run
    overrides: dict[str, str]  # keys of the recipe
    config: dict[str, str]  # fields of the network
    init: str | None  # model to start from
    freeze: list[str]  # parts of the network
    teacher: str | None  # model to distil from
    save_every: int  # steps
    evaluate_every: int  # epochs
    skip_bad: bool
    shard: bool


def add_parser(commands: Commands) -> None:
    """Add `zoo train`."""
    summary = "train a model by its data set's recipe, or resume a run that was stopped"
    parser = add_command(commands, "train", summary, TrainOptions, run)
    text = (
        "a name with a data set, as in danet20-t4.fmnist; "
        "for images of your own, with a word of yours in its place"
    )
    parser.add_argument("name", help=text)
    add_data(parser)
    _add_own_images(parser)
    text = "folder of checkpoints, metrics and weights (default: runs/NAME)"
    parser.add_argument("--run", type=Path, metavar="FOLDER", help=text)
    add_assignments(parser, "--set", "override values of the recipe", dest="overrides")
    text = (
        "override fields of the network, as in stem=medium; the model keeps its name, "
        "and config.json holds the fields"
    )
    add_assignments(parser, "--config", text, dest="config")
    text = f"start from trained weights: {NETWORK}"
    parser.add_argument("--init", metavar="MODEL", help=text)
    text = "parts of the network that do not train, as in stem or stage1"
    parser.add_argument("--freeze", nargs="+", default=[], metavar="PART", help=text)
    text = f"distil from {NETWORK}; or a Python module:function"
    parser.add_argument("--teacher", metavar="MODEL", help=text)
    text = "steps between two checkpoints (default: 500)"
    parser.add_argument("--save-every", type=positive, default=500, metavar="STEPS", help=text)
    text = "epochs between two evaluations on the test split (default: 1)"
    parser.add_argument("--evaluate-every", type=positive, default=1, metavar="EPOCHS", help=text)
    add_skip_bad(parser)
    text = "divide the weights among the processes that torchrun started (FSDP2)"
    parser.add_argument("--shard", action="store_true", help=text)


def _add_own_images(parser: Parser) -> None:
    group = parser.add_argument_group(
        "images of your own", "What is not given here is read from the images."
    )
    text = "height and width that the images are resized to"
    group.add_argument("--size", type=positive, default=0, metavar="PIXELS", help=text)
    text = "read all images as grey (1) or as colour (3)"
    group.add_argument("--channels", type=int, choices=(1, 3), default=0, help=text)
    text = "mean of the pixels, from 0 to 1, per channel"
    group.add_argument("--mean", type=float, nargs="+", default=[], metavar="X", help=text)
    text = "standard deviation of the pixels, likewise"
    group.add_argument("--std", type=float, nargs="+", default=[], metavar="X", help=text)


def run(options: TrainOptions) -> int:
    """Train a model by its recipe, or finish a run that was interrupted."""
    # of the processes that torchrun starts, only the first prints
    is_first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(format="%(message)s")
    logging.getLogger("zoo").setLevel(logging.INFO if is_first else logging.ERROR)
    ModelSpec.parse(options.name, own_data=True)  # before torch is imported
    overrides = _recipe_overrides(options)
    try:
        with terminal.progress() as bar:
            # Without a bar, the log of the run says enough.
            shown = is_first and not bar.disable
            progress = terminal.advance(bar, "steps") if shown else None
            result = _train(options, overrides, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from the last checkpoint") from None
    if is_first:
        print(result)
    return 0


def _recipe_overrides(options: TrainOptions) -> dict[str, str]:
    """Return the keys of the recipe that `--set` and `--freeze` override."""
    if not options.freeze:
        return options.overrides
    if "freeze" in options.overrides:
        raise InputError("freeze is given twice, by --freeze and by --set: give it once")
    # JSON writes a list of words as TOML does
    return options.overrides | {"freeze": json.dumps(options.freeze)}


def _train(
    options: TrainOptions, overrides: dict[str, str], progress: Callable[..., None] | None
) -> str:
    """Train as the options say, and return the line that the run ends with."""
    from zoo.training.describe import ImageOptions
    from zoo.training.run import train_name
    from zoo.training.train import RunOptions

    own_images = ImageOptions(
        size=options.size,
        channels=options.channels,
        mean=tuple(options.mean),
        std=tuple(options.std),
    )
    run_options = RunOptions(
        save_every=options.save_every,
        evaluate_every=options.evaluate_every,
        skip_bad=options.skip_bad,
        shard=options.shard,
        progress=progress,
    )
    return train_name(
        options.name,
        run=options.run,
        data=options.data,
        image_options=own_images,
        overrides=overrides,
        config=options.config,
        init=options.init,
        teacher=options.teacher,
        options=run_options,
    )
