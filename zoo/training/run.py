"""From a name to a finished model folder: the recipe, the data, the training, and the accuracy of what came out."""

import importlib
import json
import logging
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
from zoo.training.data import Split, load_split
from zoo.training.describe import Given, OwnData, check_size, check_unchanged, describe, fitting_recipe
from zoo.training.evaluate import correct
from zoo.training.sources import has_split
from zoo.training.train import Progress, Teacher, train
from zoo.weights import read_model, write_model

__all__ = ["ROUNDING", "load_data", "load_for_evaluation", "load_teacher", "train_name"]

log = logging.getLogger(__name__)

ROUNDING = 0.0005  # the accuracy that storing weights as float16 may cost


def train_name(
    name: str,
    *,
    run: Path | None = None,
    data: str | None = None,
    given: Given | None = None,
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

    `overrides` are keys of the recipe, `config` fields of `DANetConfig`, both as TOML writes their values. Where the name holds a
    word of the user's own instead of a data set, `data` is described first, but for what is `given` of it. The accuracy is that of
    the stored weights of the last step on the test split, or on what the recipe's `validation` held out of the training images;
    weights are float16 if that costs less than `ROUNDING`. In a process that is not the first of several, the line is empty.
    """
    spec = ModelSpec.parse(name, own_data=data is not None)
    if spec.dataset is None:
        hint = f"append a word of your own, as {name}.pets" if data else f"try {name}.fmnist"
        raise UnknownName(f"{name!r} names no data set: {hint}")
    accelerator = parallel.accelerator(shard=shard)
    with accelerator.main_process_first():  # so that one of them fills the cache of a download
        own = _describe(spec.dataset, data, given, skip_bad=skip_bad)
    recipe = Recipe.own(fitting_recipe(own), overrides) if own else Recipe.load(spec.dataset, overrides)
    recipe = replace(recipe, source=data or recipe.source)
    if recipe.dataset != spec.dataset:
        raise ConfigError(f"recipe: dataset = {recipe.dataset!r}, but {name} is trained on {spec.dataset!r}")
    run = run or Path("runs") / spec.name
    torch.manual_seed(recipe.seed)
    model = zoo.create(spec.name, data=own.spec if own else None, **_config_fields(config or {}))
    assert model.origin is not None
    origin = model.origin
    if own:
        check_size(model.config, own.spec)
    started = None if init is None else lineage.start(model, init, run)
    lineage.freeze(model, recipe.freeze, started)
    taught = load_teacher(teacher, origin.data, accelerator.device) if teacher else None
    with accelerator.main_process_first():  # likewise
        images = load_data(origin.data, recipe, "train", spec.steps, skip_bad=skip_bad)
        test = load_data(origin.data, recipe, "test", spec.steps, skip_bad=skip_bad)
    if own:
        check_unchanged(run / "recipe.json", origin.data, images.images)
        _announce(origin.data, recipe, images, test)
    train(
        model, recipe, images, test, run,
        spec=own.spec if own else None, init=started, teacher=taught,
        save_every=save_every, evaluate_every=evaluate_every, shard=shard, progress=progress,
    )  # fmt: skip
    if not accelerator.is_main_process:
        return ""

    split, found = "validation" if recipe.validation else "test", origin.data.found(test.encoding)
    if own and not own.splits:
        found = replace(found, held_out=recipe.validation)
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
        **lineage.cost(log, started),
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


def _describe(tag: str, source: str | None, given: Given | None, *, skip_bad: bool) -> OwnData | None:
    """The user's own data of that tag; None for a data set of the zoo, of which nothing may be given."""
    if tag not in DATASETS:
        assert source is not None  # or the tag was refused
        return describe(tag, source, given or Given(), skip_bad=skip_bad)
    for key, value in vars(given or Given()).items():
        if value:
            raise ConfigError(f"--{key} is for images under a word of your own: that of {tag} is {getattr(DATASETS[tag], key)}")
    return None


def _announce(data: DatasetSpec, recipe: Recipe, images: Split, test: Split) -> None:
    """Log what was read of a user's own data, and the recipe that follows."""
    held_out = f", {recipe.validation:.0%} of each class held out" if recipe.validation else ""
    names = f"{', '.join(data.classes[:10])}{', ...' if len(data.classes) > 10 else ''}"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (data.mean, data.std))
    log.info("%s: %d training and %d test images%s", data.title, images.images, test.images, held_out)
    log.info("%d classes: %s", data.num_classes, names)
    log.info("%d x %d pixels, %s, mean %s, std %s", data.size, data.size, "RGB" if data.channels == 3 else "grey", mean, std)
    chosen = ("epochs", "batch_size", "lr", "crop_padding", "resized_crop", "flip_alternating")
    log.info("recipe: %s; --set changes it", ", ".join(f"{key} = {getattr(recipe, key)}" for key in chosen if getattr(recipe, key)))


def load_data(data: DatasetSpec, recipe: Recipe, split: Literal["train", "test"], steps: int, *, skip_bad: bool = False) -> Split:
    """The recipe's `train` or `test` split of `data`, or what its `validation` leaves or holds out of `train`; T = `steps` frames,
    where they are events."""
    if not recipe.source:
        raise ConfigError(f"{data.title} has no default place: name its folder or hub id with --data")
    crop = (recipe.resized_crop[0], recipe.resized_crop[1]) if recipe.resized_crop else None
    return load_split(
        data, split, recipe.source,
        steps=steps, crop=crop, skip_bad=skip_bad, images=recipe.images, held_out=recipe.validation,
    )  # fmt: skip


def load_for_evaluation(
    data: DatasetSpec, split: Literal["train", "test"], steps: int, *, source: str | None, skip_bad: bool = False
) -> Split:
    """A split for a model of `data`, from `source` or the place that the data's recipe names; T = `steps` frames of events.

    Of a user's own data without a held-out split, `test` is the share that training held out.
    """
    if data.tag in DATASETS:
        recipe = Recipe.load(data.tag)
        return load_data(data, replace(recipe, source=source or recipe.source), split, steps, skip_bad=skip_bad)
    if not source:
        raise ConfigError(f"{data.title} are images of your own: name their folder or hub id with --data")
    held_out = data.held_out if data.held_out and not has_split("test", source) else 0.0
    return load_split(data, split, source, steps=steps, skip_bad=skip_bad, held_out=held_out)


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
