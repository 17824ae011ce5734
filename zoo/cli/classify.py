"""`zoo classify`: predictions for images."""

from dataclasses import dataclass
from operator import eq
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import terminal
from zoo.cli.images import Images, read_images
from zoo.cli.networks import load_predictor
from zoo.cli.options import (
    Commands,
    RuntimeOptions,
    add_command,
    add_json,
    add_network,
    add_runtime,
    add_sensor,
)
from zoo.cli.output import print_json

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.datasets import DatasetSpec
    from zoo.recordings import Sensor

__all__ = ["ClassifyOptions", "add_parser", "run"]

MAX_BUNDLED_ROWS = 10  # bundled images in the table


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(RuntimeOptions):
    """The options of `zoo classify`."""

    model: str
    images: list[Path]
    sensor: "Sensor | None"
    json: bool


def add_parser(commands: Commands) -> None:
    """Add `zoo classify`."""
    summary = "classify images (the bundled ones if none are given)"
    parser = add_command(commands, "classify", summary, ClassifyOptions, run)
    add_json(parser)
    add_network(parser, "model", "or an exported .onnx file")
    text = (
        "image files of any size, which are resized and cropped as in an evaluation; for a model "
        "of events, recordings (docs/events.md)"
    )
    parser.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help=text)
    add_sensor(parser)
    add_runtime(parser)


def run(options: ClassifyOptions) -> int:
    """Print the predictions for image files, or for the bundled images of the model's data."""
    from zoo.images import to_input

    network = load_predictor(options.model, options)
    images = read_images(
        options.images,
        network.data,
        network.steps,
        sensor=options.sensor,
        allow_drawings=True,
    )
    logits = network.predict(to_input(images.pixels, network.data))
    silent = network.warn_if_silent()
    predictions = _predictions(logits, images, network.data)
    count = len(predictions)
    right = map(eq, logits.argmax(1).tolist(), images.labels)
    correct = sum(right) if images.labels else None
    if options.json:
        return print_json(
            {
                "model": network.name,
                "images": count,
                "correct": correct,
                "silent": silent,
                "predictions": predictions,
            }
        )
    _print_table(predictions)
    if correct is not None:
        print(
            f"{network.name}: {correct} of {count} {images.source} right "
            f"({correct / count:.1%}); the first {min(count, MAX_BUNDLED_ROWS)} above"
        )
    return 0


def _predictions(logits: "Tensor", images: Images, data: "DatasetSpec") -> list[dict[str, Any]]:
    """Return a record for each image: with its label, or for a file with how it was changed."""
    classes, confidences = logits.argmax(1).tolist(), logits.softmax(1).amax(1).tolist()
    records: list[dict[str, Any]] = []
    for i, title in enumerate(images.titles):
        record = {
            "image": title,
            "prediction": data.label(classes[i]),
            "confidence": round(confidences[i], 4),
        }
        if images.labels:
            records.append(record | {"label": data.label(images.labels[i])})
        else:
            records.append(record | {"changes": images.changes[i]})
    return records


def _print_table(predictions: list[dict[str, Any]]) -> None:
    """Print the predictions, with a third column for labels or changes if there are any."""
    labelled = "label" in predictions[0]
    changed = not labelled and any(p["changes"] for p in predictions)
    extra = ["label"] if labelled else ["image changed"] if changed else []
    table = terminal.table("image", "prediction", "confidence", *extra)
    for p in predictions[:MAX_BUNDLED_ROWS] if labelled else predictions:
        last = [p["label"]] if labelled else [", ".join(p["changes"])] if changed else []
        terminal.add_row(table, p["image"], p["prediction"], f"{p['confidence']:.0%}", *last)
    terminal.show(table, terminal.console())
