"""What a model folder says of itself, and `python -m zoo.bundle FOLDER [REPORT.json]`: take it into `weights/` and the manifest.

For maintainers, in a checkout. The folder is what `zoo train` or `zoo convert` leaves; the report is what `zoo energy NAME --out`
writes, priced on one profile.
"""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo import cards
from zoo.convert import PROVENANCE
from zoo.errors import WeightsError, ZooError
from zoo.integrity import remembered_sha256, write_whole
from zoo.names import FileSpec, Manifest, ModelSpec, WeightsSpec, manifest, weights_folder
from zoo.weights import CONFIG, INDEX, read_model

__all__ = ["bundle", "describe", "energy_figures", "write_manifest"]

TRAINED = ("metrics.json", "metrics.jsonl", "recipe.json")  # what `zoo train` leaves beside the weights
ENERGY = "energy.json"


def describe(folder: Path) -> WeightsSpec:
    """The manifest entry of a model folder: every file that belongs to it, and what they say.

    Raises `WeightsError` for one that does not say how its weights came to be, or holds a link out of the folder.
    """
    converted = (folder / PROVENANCE).is_file()
    record = [PROVENANCE, "metrics.json"] if converted else list(TRAINED)
    missing = [file for file in record if not (folder / file).is_file() and not (converted and file == "metrics.json")]
    if missing:
        raise WeightsError(f"{folder} lacks {missing[0]}: it is neither what a finished `zoo train` leaves nor `zoo convert`")
    model = read_model(folder)
    assert model.origin is not None
    weights = [path.name for path in model.origin.weights]
    names = sorted({CONFIG, ENERGY, INDEX, *record, *weights})
    files = {name: folder / name for name in names if (folder / name).is_file()}
    for path in files.values():
        if path.resolve().parent != folder.resolve():
            raise WeightsError(f"{path} is a link to {path.resolve()}, outside of the folder: put the file itself there")
    said = _read(folder / PROVENANCE) if converted else {}
    return WeightsSpec(
        name=model.origin.name,
        files={name: FileSpec(remembered_sha256(path), path.stat().st_size) for name, path in files.items()},
        data=model.origin.data,
        metrics=_read(folder / "metrics.json") if "metrics.json" in files else {},
        licence=said.get("licence", "Apache-2.0"),
        provenance="converted" if converted else "trained",
        recipe="" if converted else "recipe.json",
        source=said.get("source", ""),
        energy=_read(folder / ENERGY) if ENERGY in files else None,
        parameters=sum(p.numel() for p in model.parameters()),
    )


def energy_figures(report: dict[str, Any]) -> dict[str, Any]:
    """What the manifest keeps of an energy report: an image's energy on the report's only profile, and what it was counted on."""
    priced = [profile for profile in report["profiles"] if profile["total_pj"]]
    if len(priced) != 1 or report["accuracy"] is None:
        raise WeightsError("an entry's energy is that of one priced profile on labelled images: `zoo energy ... --profile NAME`")
    (profile,) = priced
    images, counts = report["images"], report["counts"]
    return {
        "profile": profile["name"],
        "convention": report["convention"],
        "images": images,
        "split": "test",
        "accuracy": report["accuracy"],
        "microjoules": {key: profile["total_pj"][key] / 1e6 for key in ("lo", "typ", "hi")},
        "synops": counts["acs"] / images,
        "macs": counts["macs"] / images,
        "firing_rate": report["firing_rate"],
    }


def bundle(folder: Path, target: Path, report: dict[str, Any] | None = None) -> WeightsSpec:
    """Copy the model in `folder` to `target/NAME` and return its manifest entry, with the energy of `report` if there is one."""
    entry = describe(folder)
    destination = target / entry.name
    destination.mkdir(parents=True, exist_ok=True)
    for file in entry.files:
        if (folder / file).resolve() != (destination / file).resolve():
            shutil.copyfile(folder / file, destination / file)
    if report is not None:
        (destination / ENERGY).write_text(json.dumps(energy_figures(report), indent=2) + "\n", encoding="utf-8")
    return describe(destination)


def write_manifest(path: Path, known: Manifest) -> None:
    """As `Manifest.read` takes it, entries sorted by name; the whole file or none of it."""
    weights = {name: {k: v for k, v in asdict(entry).items() if k != "name"} for name, entry in sorted(known.weights.items())}
    write_whole(path, json.dumps({"version": 1, "defaults": known.defaults, "weights": weights}, indent=2) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds no JSON object")
    return values


def main(folder: str, report: str | None = None) -> None:
    target = weights_folder()
    before = Manifest.read(target / "manifest.json")
    entry = bundle(Path(folder), target, _read(Path(report)) if report else None)
    spec = ModelSpec.parse(entry.name)
    assert spec.dataset is not None
    defaults = {spec.architecture: spec.dataset} | before.defaults
    write_manifest(target / "manifest.json", Manifest(before.weights | {entry.name: entry}, defaults))
    manifest.cache_clear()
    cards.write(target.parent)
    accuracy = f", top-1 {entry.metrics['top1']:.2%}" if "top1" in entry.metrics else ""
    print(f"{entry.name}: {entry.parameters:,} parameters{accuracy}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (ZooError, OSError, TypeError) as error:
        sys.exit(f"zoo.bundle: {error}")
