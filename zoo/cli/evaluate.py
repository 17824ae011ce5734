"""`zoo evaluate`: top-1 accuracy."""

import time
from dataclasses import dataclass
from typing import Literal

from zoo import terminal
from zoo.cli.networks import load_predictor
from zoo.cli.options import (
    Commands,
    RuntimeOptions,
    add_command,
    add_data,
    add_json,
    add_network,
    add_runtime,
    add_skip_bad,
)
from zoo.cli.output import print_json

__all__ = ["EvaluateOptions", "add_parser", "run"]


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(RuntimeOptions):
    """The options of `zoo evaluate`."""

    model: str
    data: str | None  # folder or hub id; None: the source that the data set's recipe names
    split: Literal["train", "test"]
    skip_bad: bool
    json: bool


def add_parser(commands: Commands) -> None:
    """Add `zoo evaluate`."""
    summary = "measure top-1 accuracy on a whole split"
    parser = add_command(commands, "evaluate", summary, EvaluateOptions, run)
    add_json(parser)
    add_network(parser, "model", "or an exported .onnx file")
    add_data(parser)
    text = "test: the held-out images (default); train: those of the training"
    parser.add_argument("--split", choices=("train", "test"), default="test", help=text)
    add_runtime(parser)
    add_skip_bad(parser)


def run(options: EvaluateOptions) -> int:
    """Print the top-1 accuracy on a whole split, after each step too, and how fast it was."""
    from zoo.processor import processor
    from zoo.training.evaluate import count_correct, count_correct_by_step
    from zoo.training.run import held_out_share, load_for_evaluation

    network = load_predictor(options.model, options)
    split = load_for_evaluation(
        network.data,
        options.split,
        network.steps,
        source=options.data,
        skip_bad=options.skip_bad,
    )
    data = network.data.stored_as(split.encoding)
    start = time.perf_counter()
    with terminal.progress() as bar:
        advance = terminal.advance(bar, "images")
        if network.per_step:
            by_step, images = count_correct_by_step(network.per_step, split, data, progress=advance)
            correct = by_step[-1]
        else:
            correct, images = count_correct(network.predict, split, data, progress=advance)
            by_step = []
    images_per_second = images / (time.perf_counter() - start)
    silent = network.warn_if_silent()
    held_out = options.split == "test" and options.data and held_out_share(data, options.data)
    split_name = "validation" if held_out else options.split
    if options.json:
        return print_json(
            {
                "model": network.name,
                "data": data.title,
                "split": split_name,
                "images": images,
                "top1": correct / images,
                "top1_by_step": [right / images for right in by_step] or None,
                "silent": silent,
                "skipped": split.skipped,
                "images_per_second": images_per_second,
                "processor": processor(),
            }
        )
    skipped = f" ({split.skipped} unreadable ones left out)" if split.skipped else ""
    print(
        f"{network.name}: top-1 {correct / images:.2%} on the {images:,} {split_name} images of "
        f"{data.title}{skipped}, {images_per_second:,.0f} a second"
    )
    if len(by_step) > 1:
        shares = ", ".join(f"{100 * right / images:.2f}" for right in by_step)
        print(f"after 1 to {len(by_step)} steps: {shares} %")
    return 0
