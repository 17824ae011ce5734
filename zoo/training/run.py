"""From a name to a finished model folder: the recipe, the data, the training, and the accuracy of what came out."""

import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

import zoo
from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import ConfigError, UnknownName
from zoo.integrity import write_whole
from zoo.names import ModelSpec
from zoo.processor import processor
from zoo.training import lineage, parallel
from zoo.training.config import Recipe, parse_value
from zoo.training.data import Split, divide, load_split
from zoo.training.evaluate import correct
from zoo.training.train import Progress, Teacher, train
from zoo.weights import read_model, write_model

__all__ = ["ROUNDING", "load_data", "load_teacher", "train_name"]

ROUNDING = 0.0005  # the accuracy that storing weights as float16 may cost


def train_name(
    name: str,
    *,
    run: Path | None = None,
    data: str | None = None,
    overrides: dict[str, str] | None = None,
    config: dict[str, str] | None = None,
    init: str | None = None,
    teacher: str | None = None,
    save_every: int = 500,
    evaluate_every: int = 1,
    skip_bad: bool = False,
    shard: bool = False,
    progress: Progress | None = None,
) -> str:
    """Train `name` in the folder `run` (default `runs/NAME`) and write `run/model`, ready for `zoo.load`; returns one line on it.

    `overrides` are keys of the recipe, `config` fields of `DANetConfig`, both as TOML writes their values. The accuracy is that of
    the stored weights of the last step on the test split, or on what the recipe's `validation` held out of the training images;
    weights are float16 if that costs less than `ROUNDING`. In a process that is not the first of several, the line is empty.
    """
    spec = ModelSpec.parse(name)
    if spec.dataset is None:
        raise UnknownName(f"{name!r} names no data set: try {name}.fmnist")
    recipe = Recipe.load(spec.dataset, overrides)
    recipe = replace(recipe, source=data or recipe.source)
    if recipe.dataset != spec.dataset:
        raise ConfigError(f"recipe: dataset = {recipe.dataset!r}, but {name} is trained on {spec.dataset!r}")
    run = run or Path("runs") / spec.name
    accelerator = parallel.accelerator(shard=shard)
    torch.manual_seed(recipe.seed)
    model = zoo.create(spec.name, **_config_fields(config or {}))
    assert model.origin is not None
    origin = model.origin
    started = lineage.start(model, init, run) if init else None
    taught = load_teacher(teacher, origin.data, accelerator.device) if teacher else None
    with accelerator.main_process_first():  # so that one of them fills the cache of a download
        images = load_data(recipe, "train", spec.steps, skip_bad=skip_bad)
        if recipe.validation:
            images, test = divide(images, recipe.validation)
        else:
            test = load_data(recipe, "test", spec.steps, skip_bad=skip_bad)
    train(
        model, recipe, images, test, run,
        init=started, teacher=taught, save_every=save_every, evaluate_every=evaluate_every, shard=shard, progress=progress,
    )  # fmt: skip
    if not accelerator.is_main_process:
        return ""

    split, found = "validation" if recipe.validation else "test", origin.data.found(test.encoding)
    folder, test = run / "model", test.to(accelerator.device)
    whole, seen = correct(model, test, found)
    for half in (True, False):
        write_model(folder, model.cpu(), name=spec.name, data=found, half=half)
        right, _ = correct(read_model(folder).to(accelerator.device), test, found)
        if whole - right <= ROUNDING * seen:
            break
    resolved = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    log = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    metrics = {
        "top1": right / seen,
        "split": split,
        "images": seen,
        "weights": f"{'average' if recipe.ema else 'weights'} of the last step, stored as {'float16' if half else 'float32'}",
        "top1_float32": whole / seen,
        **lineage.hours(sum(line["seconds"] for line in log), resolved.get("init")),
        "trained_on": device(accelerator),
    }
    write_whole(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    shutil.copyfile(run / "metrics.jsonl", folder / "metrics.jsonl")
    for part in (resolved["recipe"], resolved.get("init", {})):
        if part and Path(part["source"]).exists():  # a folder of this machine says nothing elsewhere
            part["source"] = ""
    write_whole(folder / "recipe.json", json.dumps(resolved, indent=2) + "\n")
    skipped = f" ({images.skipped} unreadable training images left out)" if images.skipped else ""
    return f"{spec.name}: top-1 {right / seen:.2%} on {seen:,} {split} images{skipped}; load it with zoo.load({str(folder)!r})"


def _config_fields(given: dict[str, str]) -> dict[str, Any]:
    """Fields of `DANetConfig` from text. Raises `ConfigError` for those that the name or the data set decides."""
    for key in ("steps", "in_channels", "num_classes"):
        if key in given:
            what = "T of the name" if key == "steps" else "images and classes of the data set"
            raise ConfigError(f"--config {key}={given[key]}: it follows from the {what}")
    return {key: parse_value(text) for key, text in given.items()}


def device(accelerator: Any) -> str:
    """What trained: as in `AMD EPYC, 2 cores`, or `8 x NVIDIA H100`."""
    if accelerator.device.type != "cuda":
        return processor()
    return f"{accelerator.num_processes} x {torch.cuda.get_device_name(accelerator.device)}"


def load_data(recipe: Recipe, split: Literal["train", "test"], steps: int, *, skip_bad: bool = False) -> Split:
    """The recipe's `train` or `test` split; T = `steps` frames, where the data are events."""
    if not recipe.source:
        raise ConfigError(f"{DATASETS[recipe.dataset].title} has no default place: name its folder or hub id with --data")
    crop = (recipe.resized_crop[0], recipe.resized_crop[1]) if recipe.resized_crop else None
    return load_split(
        DATASETS[recipe.dataset], split, recipe.source,
        steps=steps, crop=crop, skip_bad=skip_bad, images=recipe.images,
    )  # fmt: skip


def load_teacher(word: str, data: DatasetSpec, device: torch.device) -> Teacher:
    """A teacher of networks on `data`: a model of the zoo (name or folder), or what the function `module:function` returns.

    The latter is any `nn.Module` from normalised images to logits `[B, K]`.
    """
    module, _, function = word.partition(":")
    if function and not Path(word).exists():
        try:
            build: Callable[[], Any] = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"teacher {word!r} cannot be imported: {error}") from None
        teacher = build()
        if not isinstance(teacher, nn.Module):
            raise ConfigError(f"teacher {word!r} returned {type(teacher).__name__}, not a torch.nn.Module")
    else:
        teacher = zoo.load(word)
        classes = teacher.config.num_classes
        if classes != data.num_classes:
            raise ConfigError(f"teacher {word!r} tells {classes} classes; {data.title} has {data.num_classes}")
    ready: nn.Module = teacher.to(device).eval().requires_grad_(False)
    return ready
