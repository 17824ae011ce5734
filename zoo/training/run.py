"""From a name to a finished model folder: the recipe, the data, the training, and the accuracy of what came out."""

import json
import shutil
from pathlib import Path

import torch

import zoo
from zoo.errors import UnknownName
from zoo.names import ModelSpec
from zoo.training.config import Recipe
from zoo.training.data import load_images
from zoo.training.evaluate import top1
from zoo.training.train import Progress, train
from zoo.weights import read_model, write_model

__all__ = ["train_name"]


def train_name(
    name: str,
    *,
    run: Path | None = None,
    data: Path | None = None,
    overrides: dict[str, str] | None = None,
    progress: Progress | None = None,
) -> str:
    """Train `name` in the folder `run` (default `runs/NAME`) and write `run/model`, ready for `zoo.load`; returns one line on it.

    The accuracy is that of the stored (float16) weights of the last step on the test split.
    """
    spec = ModelSpec.parse(name)
    if spec.dataset is None:
        raise UnknownName(f"{name!r} names no data set: try {name}.fmnist")
    recipe = Recipe.load(spec.dataset, overrides)
    run = run or Path("runs") / spec.name
    images, test = load_images(spec.dataset, "train", data), load_images(spec.dataset, "test", data)
    torch.manual_seed(recipe.seed)
    model = zoo.create(spec.name)
    assert model.origin is not None
    train(model, recipe, images, test, run, progress=progress)

    folder = run / "model"
    write_model(folder, model, name=spec.name, data=model.origin.data)
    stored = read_model(folder)
    accuracy = top1(stored, test, model.origin.data)
    metrics = {"top1": accuracy, "split": "test", "images": len(test.labels), "weights": "last step, stored as float16"}
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    for file in ("recipe.json", "metrics.jsonl"):
        shutil.copyfile(run / file, folder / file)
    return f"{spec.name}: top-1 {accuracy:.2%} on {len(test.labels):,} test images; load it with zoo.load({str(folder)!r})"
