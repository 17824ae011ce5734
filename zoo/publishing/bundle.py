"""What a model folder says of itself, and how it comes into `weights/` and the manifest, with what
was measured of it.

    python -m zoo.publishing.bundle FOLDER [--energy REPORT.json] [--onnx EVALUATION.json]

For maintainers, in a checkout; `make adopt` runs all of it. The folder is what `zoo train` or `zoo
convert` leaves, the report what `zoo energy NAME --out` writes, priced on one profile, the
evaluation what `zoo evaluate FILE.onnx --json` prints.
"""

import argparse
import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.datasets import DATASETS
from zoo.errors import WeightsError, ZooError
from zoo.files import write_text
from zoo.integrity import remembered_sha256
from zoo.manifest import FileSpec, Manifest, WeightsSpec, read_manifest, weights_folder
from zoo.names import ModelSpec
from zoo.provenance import CONVERTED, CONVERTED_FILE, ENERGY_FILE, TRAINED, TRAINED_FILES, UNKNOWN
from zoo.publishing import cards
from zoo.weights import CONFIG, INDEX, read_model

__all__ = ["best", "bundle", "describe", "energy_figures", "exported_figures", "write_manifest"]

AGREEMENT = 0.001  # between the accuracies of the weights and of the exported file


def describe(folder: Path) -> WeightsSpec:
    """The manifest entry of a model folder: every file that belongs to it, and what they say.

    A folder without any record, as `DANet.save` leaves it, holds weights of unknown training.
    Raises `WeightsError` for one that lacks a part of its record, or holds a link out of the
    folder.
    """
    converted = (folder / CONVERTED_FILE).is_file()
    record = [CONVERTED_FILE, "metrics.json"] if converted else list(TRAINED_FILES)
    missing = [
        file
        for file in record
        if not (folder / file).is_file() and not (converted and file == "metrics.json")
    ]
    unknown = missing == record and (folder / CONFIG).is_file()
    if missing and not unknown:
        raise WeightsError(
            f"{folder} lacks {missing[0]}: it is neither what a finished `zoo train` leaves nor `zoo convert`"
        )
    model = read_model(folder)
    weights = [path.name for path in model.known_origin.weights]
    names = sorted({CONFIG, ENERGY_FILE, INDEX, *record, *weights})
    files = {name: folder / name for name in names if (folder / name).is_file()}
    for path in files.values():
        if path.resolve().parent != folder.resolve():
            raise WeightsError(
                f"{path} is a link to {path.resolve()}, outside of the folder: put the file itself there"
            )
    said = _read(folder / CONVERTED_FILE) if converted else {}
    return WeightsSpec(
        name=model.known_origin.name,
        files={
            name: FileSpec(remembered_sha256(path), path.stat().st_size)
            for name, path in files.items()
        },
        data=model.known_origin.data,
        metrics=_read(folder / "metrics.json") if "metrics.json" in files else {},
        licence=said.get(
            "licence",
            "unknown" if unknown or model.known_origin.data.tag not in DATASETS else "Apache-2.0",
        ),
        provenance=CONVERTED if converted else UNKNOWN if unknown else TRAINED,
        recipe="" if converted or unknown else "recipe.json",
        source=said.get("source", ""),
        energy=_read(folder / ENERGY_FILE) if ENERGY_FILE in files else None,
        parameters=sum(p.numel() for p in model.parameters()),
    )


def energy_figures(report: dict[str, Any]) -> dict[str, Any]:
    """What the manifest keeps of an energy report: an image's energy on the report's only profile,
    and what it was counted on.
    """
    missing = {
        "profiles",
        "images",
        "accuracy",
        "convention",
        "counts",
        "firing_rate",
    } - report.keys()
    if missing:
        raise WeightsError(
            f"the report lacks {min(missing)}: it is what `zoo energy ... --out` writes"
        )
    priced = [profile for profile in report["profiles"] if profile["total_pj"]]
    if len(priced) != 1 or report["accuracy"] is None:
        raise WeightsError(
            "an entry's energy is that of one priced profile on labelled images: `zoo energy ... --profile NAME`"
        )
    (profile,) = priced
    images, counts = report["images"], report["counts"]
    return {
        "profile": profile["name"],
        "convention": report["convention"],
        "images": images,
        "split": "test",
        "accuracy": report["accuracy"],
        # the device's band
        "microjoules": {key: profile["total_pj"][key] / 1e6 for key in ("lo", "typ", "hi")},
        # the images'
        "interval": profile["interval_pj"]
        and {key: profile["interval_pj"][key] / 1e6 for key in ("lo", "hi")},
        "synops": counts["acs"] / images,
        "macs": counts["macs"] / images,
        "firing_rate": report["firing_rate"],
    }


def exported_figures(metrics: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    """`metrics` with what the exported file reached, and in what time. Raises `WeightsError` if
    that is another accuracy.
    """
    for values, missing in (
        (metrics, {"top1", "images"} - metrics.keys()),
        (
            evaluation,
            {"model", "images", "top1", "images_per_second", "processor"} - evaluation.keys(),
        ),
    ):
        if missing:
            what = "the folder's metrics.json" if values is metrics else "the evaluation"
            raise WeightsError(
                f"{what} lacks {min(missing)}: it is what `zoo evaluate ... --json` prints, or `zoo train` leaves"
            )
    if (
        evaluation["images"] != metrics["images"]
        or abs(evaluation["top1"] - metrics["top1"]) > AGREEMENT
    ):
        raise WeightsError(
            f"{evaluation['model']} has {evaluation['top1']:.2%} on {evaluation['images']:,} images, the weights "
            f"{metrics['top1']:.2%} on {metrics['images']:,}: these are not the same network"
        )
    return metrics | {
        "onnx_top1": evaluation["top1"],
        "onnx_milliseconds": round(1000 / evaluation["images_per_second"], 3),
        "onnx_on": f"{evaluation['model'].partition('(')[2].rstrip(')')}, {evaluation['processor']}",
    }


def bundle(
    folder: Path,
    target: Path,
    report: dict[str, Any] | None = None,
    evaluation: dict[str, Any] | None = None,
) -> WeightsSpec:
    """Copy the model in `folder` to `target/NAME` and return its manifest entry, with the energy of
    `report` and the accuracy of the exported file in `evaluation`, where there are such. Raises
    `WeightsError` for data that are not the zoo's, or weights of unknown training.
    """
    entry = describe(folder)
    if entry.provenance == UNKNOWN:
        raise WeightsError(
            f"{folder} lacks metrics.json: it is neither what a finished `zoo train` leaves nor `zoo convert`"
        )
    if entry.data.tag not in DATASETS:
        raise WeightsError(
            f"{entry.data.tag} is no data set of the zoo: publish {entry.name} with `zoo push {folder} --repo ORG/NAME`"
        )
    metrics = exported_figures(entry.metrics, evaluation) if evaluation is not None else None
    destination = target / entry.name
    destination.mkdir(parents=True, exist_ok=True)
    for file in entry.files:
        if (folder / file).resolve() != (destination / file).resolve():
            shutil.copyfile(folder / file, destination / file)
    if report is not None:
        (destination / ENERGY_FILE).write_text(
            json.dumps(energy_figures(report), indent=2) + "\n", encoding="utf-8"
        )
    if metrics is not None:
        (destination / "metrics.json").write_text(
            json.dumps(metrics, indent=2) + "\n", encoding="utf-8"
        )
    return describe(destination)


def best(known: dict[str, WeightsSpec]) -> dict[str, str]:
    """Of each architecture, the data set of the weights with the highest top-1, which a bare name
    means.
    """
    found: dict[str, str] = {}
    for entry in sorted(known.values(), key=lambda entry: float(entry.metrics.get("top1", 0))):
        spec = ModelSpec.parse(entry.name)
        found[spec.architecture] = spec.dataset or ""
    return found


def write_manifest(path: Path, known: Manifest) -> None:
    """As `Manifest.read` takes it, entries sorted by name; the whole file or none of it."""
    weights = {
        name: {k: v for k, v in asdict(entry).items() if k != "name"}
        for name, entry in sorted(known.weights.items())
    }
    write_text(
        path,
        json.dumps({"version": 1, "defaults": known.defaults, "weights": weights}, indent=2) + "\n",
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds no JSON object")
    return values


def main(folder: Path, report: Path | None = None, evaluation: Path | None = None) -> None:
    target = weights_folder()
    before = Manifest.read(target / "manifest.json")
    read = [None if path is None else _read(path) for path in (report, evaluation)]
    entry = bundle(folder, target, *read)
    weights = before.weights | {entry.name: entry}
    write_manifest(target / "manifest.json", Manifest(weights, best(weights)))
    read_manifest.cache_clear()
    cards.write(target.parent)
    accuracy = f", top-1 {entry.metrics['top1']:.2%}" if "top1" in entry.metrics else ""
    print(f"{entry.name}: {entry.parameters:,} parameters{accuracy}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m zoo.publishing.bundle",
        description="Take a model folder into weights/ and the manifest.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="what `zoo train` or `zoo convert` leaves"
    )
    parser.add_argument(
        "--energy", type=Path, metavar="REPORT.json", help="of `zoo energy --profile NAME --out`"
    )
    parser.add_argument(
        "--onnx", type=Path, metavar="EVALUATION.json", help="of `zoo evaluate FILE.onnx --json`"
    )
    given = parser.parse_args()
    try:
        main(given.folder, given.energy, given.onnx)
    except (ZooError, OSError) as error:
        sys.exit(f"zoo.publishing.bundle: {error}")
