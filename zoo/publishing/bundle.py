"""Take a model folder into `weights/` and the manifest, with what was measured of it.

    python -m zoo.publishing.bundle FOLDER [--energy REPORT.json] [--onnx EVALUATION.json]
        [--attack ATTACK.json]

For maintainers, in a checkout; `make adopt` exports, verifies and measures a model first.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo.datasets import DATASETS
from zoo.errors import WeightsError, ZooError
from zoo.files import read_json, write_text
from zoo.manifest import Manifest, WeightsSpec, read_manifest, weights_folder
from zoo.names import ModelSpec
from zoo.provenance import ENERGY_FILE, METRICS_FILE, UNKNOWN
from zoo.publishing import cards
from zoo.publishing.entry import describe, no_record
from zoo.publishing.figures import attacked_figures, energy_figures, exported_figures

__all__ = ["best_datasets", "bundle", "main"]

MAX_ZEROS_DIFFERENCE = 0.1  # weights of few bits have some zeros by rounding


def bundle(
    folder: Path,
    target: Path,
    report: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
    attacked: dict[str, Any] | None = None,
) -> WeightsSpec:
    """Copy the model in `folder` to `target/NAME` and return its manifest entry.

    The entry has the energy of `report`, the accuracy of the exported file in `evaluation` and that
    under attack in `attacked`, where there are such. Raises `WeightsError`, and copies nothing, for
    data that are not the zoo's, weights of unknown training, and figures that do not belong to the
    model.
    """
    entry = describe(folder)
    if entry.provenance == UNKNOWN:
        raise no_record(folder, METRICS_FILE)
    if entry.data.tag not in DATASETS:
        raise WeightsError(
            f"{entry.data.tag} is no data set of the zoo: publish {entry.name} with "
            f"`zoo push {folder} --repo ORG/NAME`"
        )
    _check_name(entry)
    figures = {}
    if report is not None:
        figures[ENERGY_FILE] = energy_figures(report)
    metrics = entry.metrics
    if evaluation is not None:
        metrics = figures[METRICS_FILE] = exported_figures(metrics, evaluation)
    if attacked is not None:
        figures[METRICS_FILE] = attacked_figures(entry, metrics, attacked)
    destination = target / entry.name
    destination.mkdir(parents=True, exist_ok=True)
    for file in entry.files:
        if (folder / file).resolve() != (destination / file).resolve():
            shutil.copyfile(folder / file, destination / file)
    for file, values in figures.items():
        write_text(destination / file, json.dumps(values, indent=2) + "\n")
    return describe(destination)


def _check_name(entry: WeightsSpec) -> None:
    """Raise `WeightsError` for a name that says of zeros or bits what its metrics do not."""
    spec = ModelSpec.parse(entry.name)
    zeros, bits = entry.metrics.get("zeros", 0.0), entry.metrics.get("weight_bits", 0)
    if abs(zeros - spec.zeros) > MAX_ZEROS_DIFFERENCE or bits != spec.weight_bits:
        raise WeightsError(
            f"{entry.name} has {zeros:.0%} zeros and {bits or 'all'} bits: give it the name that "
            "says so, as danet20-t4.fmnist-p90-w8"
        )


def best_datasets(weights: Mapping[str, WeightsSpec]) -> dict[str, str]:
    """Return the data set of each architecture's best weights, which a bare name means.

    The best are those with the highest top-1. Networks that were made smaller do not count.
    """
    best: dict[str, str] = {}
    for entry in sorted(weights.values(), key=lambda entry: float(entry.metrics.get("top1", 0))):
        spec = ModelSpec.parse(entry.name)
        if not spec.smaller:
            best[spec.architecture] = spec.dataset or ""  # a later one is better
    return best


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command: take the folder in, write the manifest, then every page that repeats it."""
    args = _parser().parse_args(arguments)
    report, evaluation, attacked = (
        None if path is None else read_json(path, WeightsError)
        for path in (args.energy, args.onnx, args.attack)
    )
    target = weights_folder()
    path = target / "manifest.json"
    before = Manifest.read(path)
    entry = bundle(args.folder, target, report, evaluation, attacked)
    weights = before.weights | {entry.name: entry}
    Manifest(weights, best_datasets(weights)).write(path)
    read_manifest.cache_clear()
    cards.write(target.parent)
    accuracy = f", top-1 {entry.metrics['top1']:.2%}" if "top1" in entry.metrics else ""
    print(f"{entry.name}: {entry.parameters:,} parameters{accuracy}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo.publishing.bundle",
        description=(
            "Take a model folder into weights/ and the manifest of this checkout, then write the "
            "model cards, the tables and the plot again. For maintainers; `make adopt` exports, "
            "verifies and measures a model first."
        ),
    )
    parser.add_argument(
        "folder",
        type=Path,
        metavar="FOLDER",
        help="the model: what `zoo train` (in its folder model/) or `zoo convert` leaves",
    )
    parser.add_argument(
        "--energy",
        type=Path,
        metavar="REPORT.json",
        help="its energy on one device: what `zoo energy NAME --device DEVICE --out` writes",
    )
    parser.add_argument(
        "--onnx",
        type=Path,
        metavar="EVALUATION.json",
        help="the accuracy and speed of its export: what `zoo evaluate FILE.onnx --json` prints",
    )
    parser.add_argument(
        "--attack",
        type=Path,
        metavar="ATTACK.json",
        help="its accuracy under attack: what `zoo attack NAME --json` prints",
    )
    return parser


if __name__ == "__main__":
    try:
        main()
    except (ZooError, OSError) as error:
        sys.exit(f"zoo.publishing.bundle: {error}")
