"""`python -m zoo.bundle runs/NAME/model`: take a trained model folder into `weights/` and its entry into the manifest.

For maintainers, in a checkout. The folder is what `zoo train` leaves; it is copied, given a model card, and described.
"""

import json
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

from zoo.errors import WeightsError, ZooError
from zoo.integrity import sha256
from zoo.names import FileSpec, Manifest, ModelSpec, WeightsSpec, weights_folder
from zoo.weights import read_model

__all__ = ["bundle", "write_manifest"]

FILES = ("config.json", "metrics.json", "metrics.jsonl", "model.safetensors", "recipe.json")

CARD = """---
license: apache-2.0
library_name: danet-zoo
pipeline_tag: image-classification
tags: [spiking-neural-network, snntorch, neuromorphic]
---
# {name}

A spiking residual network, {parameters:,} parameters, T = {steps} time steps, trained from random weights on {title}
({licence}) with the recipe in `recipe.json`; its log is `metrics.jsonl`.
Top-1 on the {images:,} images of the {split} split: **{top1:.2%}**.

    import zoo
    model = zoo.load("{name}")

What of its architecture is established and what is reconstruction is told in the project's MODEL_CARD.md.
"""


def bundle(folder: Path, target: Path) -> WeightsSpec:
    """Copy the trained model in `folder` to `target/NAME` and return its manifest entry.

    Raises `WeightsError` for an unfinished one.
    """
    missing = [file for file in FILES if not (folder / file).is_file()]
    if missing:
        raise WeightsError(f"{folder} lacks {missing[0]}: it is not what a finished `zoo train` leaves")
    model = read_model(folder)
    assert model.origin is not None
    name, data = model.origin.name, model.origin.data
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    parameters = sum(p.numel() for p in model.parameters())
    destination = target / name
    destination.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        shutil.copyfile(folder / file, destination / file)
    card = CARD.format(
        name=name, parameters=parameters, steps=model.config.steps, title=data.title, licence=data.licence,
        images=metrics["images"], split=metrics["split"], top1=metrics["top1"],
    )  # fmt: skip
    (destination / "README.md").write_text(card, encoding="utf-8")
    files = {file.name: FileSpec(sha256(file), file.stat().st_size) for file in sorted(destination.iterdir())}
    return WeightsSpec(
        name=name,
        files=files,
        data=data,
        metrics=metrics,
        licence="Apache-2.0",
        provenance="trained",
        recipe="recipe.json",
        parameters=parameters,
    )


def write_manifest(path: Path, manifest: Manifest) -> None:
    """As `Manifest.read` takes it, entries sorted by name."""
    weights = {name: {k: v for k, v in asdict(spec).items() if k != "name"} for name, spec in sorted(manifest.weights.items())}
    path.write_text(
        json.dumps({"version": 1, "defaults": manifest.defaults, "weights": weights}, indent=2) + "\n", encoding="utf-8"
    )


def main(folder: str) -> None:
    target = weights_folder()
    before = Manifest.read(target / "manifest.json")
    entry = bundle(Path(folder), target)
    spec = ModelSpec.parse(entry.name)
    assert spec.dataset is not None
    defaults = {spec.architecture: spec.dataset} | before.defaults
    write_manifest(target / "manifest.json", Manifest(before.weights | {entry.name: entry}, defaults))
    print(f"{entry.name}: {entry.parameters:,} parameters, top-1 {entry.metrics['top1']:.2%}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (ZooError, OSError, TypeError) as error:
        sys.exit(f"zoo.bundle: {error}")
