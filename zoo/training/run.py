"""From a name to a finished model folder: the recipe, the data, the training, and the accuracy of
what came out.
"""

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
from zoo.danet import DANet, DANetConfig
from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import ConfigError, InputError, UnknownName
from zoo.files import write_text
from zoo.names import ModelSpec
from zoo.processor import processor
from zoo.training import lineage, parallel
from zoo.training.config import Recipe, parse_value
from zoo.training.data import Split, load_split
from zoo.training.describe import (
    Given,
    OwnData,
    check_size,
    check_unchanged,
    describe,
    fitting_recipe,
)
from zoo.training.evaluate import count_correct
from zoo.training.lineage import Init
from zoo.training.sources import NoSplit, has_split, open_rows
from zoo.training.train import DEFAULT, Options, Teacher, train
from zoo.weights import read_model, write_model

__all__ = [
    "ROUNDING",
    "held_out_share",
    "load_data",
    "load_for_evaluation",
    "load_teacher",
    "train_name",
]

log = logging.getLogger(__name__)

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
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
    options: Options = DEFAULT,
) -> str:
    """Train `name` in the folder `run` (default `runs/NAME`) and write `run/model`, ready for
    `zoo.load`; returns one line on it.

    `overrides` are keys of the recipe, `config` fields of `DANetConfig`, both as TOML writes their
    values. Where the name holds a word of the user's own instead of a data set, `data` is described
    first, but for what is `given` of it. `init` and `teacher` name trained models, to start from
    and to distil from. In a process that is not the first of several, the line is empty. Raises
    `ZooError` for what does not exist, does not fit together, or cannot be trained.
    """
    accelerator = parallel.accelerator(shard=options.shard)
    with accelerator.main_process_first():  # so that one of them fills the cache of a download
        spec, own = _resolve(name, data, given or Given(), skip_bad=options.skip_bad)
    recipe = _recipe(spec, own, data, overrides or {})
    run = run or Path("runs") / spec.name
    torch.manual_seed(recipe.seed)
    model = zoo.create(spec.name, data=own.spec if own else None, **_config_fields(config or {}))
    if own:
        check_size(model.config, own.spec)
    started = None if init is None else lineage.start(model, init, run)
    lineage.freeze(model, recipe.freeze, started)
    taught = load_teacher(teacher, model.known_origin.data, accelerator.device) if teacher else None
    with accelerator.main_process_first():  # likewise
        images, test = (
            load_data(model.known_origin.data, recipe, split, spec.steps, skip_bad=options.skip_bad)
            for split in SPLITS
        )
    if "images" in (overrides or {}) and images.images != recipe.images:
        raise ConfigError(
            f"recipe: images = {recipe.images}, but {recipe.source} holds {images.images} training images: leave it out"
        )
    if own:
        check_unchanged(run / "recipe.json", own.spec, images.images)
        _announce(own.spec, recipe, images, test)
    train(
        model, recipe, images, test, run,
        spec=own.spec if own else None, init=started, teacher=taught, options=options,
    )  # fmt: skip
    if not accelerator.is_main_process:
        return ""
    found = model.known_origin.data.stored_as(test.encoding)
    if own and not own.splits:
        found = replace(found, held_out=recipe.validation, held_out_of=own.images)
    model.origin = replace(model.known_origin, data=found)
    said = _write_result(model, recipe, run, test, started, accelerator)
    skipped = f" ({images.skipped} unreadable training images left out)" if images.skipped else ""
    return f"{said}{skipped}; load it with zoo.load({str(run / 'model')!r})"


def _resolve(
    name: str, data: str | None, given: Given, *, skip_bad: bool
) -> tuple[ModelSpec, OwnData | None]:
    """Parse a name, and describe the user's own data where it names no data set of the zoo, of
    which nothing may be given.
    """
    spec = ModelSpec.parse(name, own_data=data is not None)
    if spec.dataset is None:
        hint = f"append a word of your own, as {name}.pets" if data else f"try {name}.fmnist"
        raise UnknownName(f"{name!r} names no data set: {hint}")
    if spec.dataset not in DATASETS:
        assert data is not None  # or the name was refused
        return spec, describe(spec.dataset, data, given, skip_bad=skip_bad)
    for key, value in vars(given).items():
        if value:
            known = getattr(DATASETS[spec.dataset], key)
            raise ConfigError(
                f"--{key} is for images under a word of your own: that of {spec.dataset} is {known}"
            )
    return spec, None


def _recipe(
    spec: ModelSpec, own: OwnData | None, data: str | None, overrides: dict[str, str]
) -> Recipe:
    """The recipe of a data set, or the one that fits a user's own data, with what is overridden."""
    assert spec.dataset is not None  # or the name was refused
    if data and "source" in overrides:
        raise ConfigError(
            f"source is given twice, by --data as {data!r} and by --set as {overrides['source']!r}: give it once"
        )
    recipe = (
        Recipe.own(fitting_recipe(own), overrides) if own else Recipe.load(spec.dataset, overrides)
    )
    if recipe.dataset != spec.dataset:
        raise ConfigError(
            f"recipe: dataset = {recipe.dataset!r}, but {spec.name} is trained on {spec.dataset!r}"
        )
    return replace(recipe, source=data or recipe.source)


def _write_result(
    model: DANet, recipe: Recipe, run: Path, test: Split, started: Init | None, accelerator: Any
) -> str:
    """Write `run/model` with its record; returns name and accuracy in words.

    The accuracy is that of the weights as they are stored: float16, or float32 where that costs
    more than `ROUNDING`.
    """
    name, data = model.known_origin.name, model.known_origin.data
    folder, split = run / "model", recipe.evaluated
    test = test.to(accelerator.device)
    whole, seen = count_correct(model, test, data)
    for half in (True, False):
        write_model(folder, model.cpu(), name=name, data=data, half=half)
        right, _ = count_correct(read_model(folder).to(accelerator.device), test, data)
        if whole - right <= ROUNDING * seen:
            break
    lines = [
        json.loads(line)
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    metrics = {
        "top1": right / seen,
        "split": split,
        "images": seen,
        "weights": f"{'average' if recipe.ema else 'weights'} of the last step, stored as {'float16' if half else 'float32'}",
        "top1_float32": whole / seen,
        **lineage.cost(lines, started),
        "trained_on": device(accelerator),
    }
    write_text(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    shutil.copyfile(run / "metrics.jsonl", folder / "metrics.jsonl")
    resolved = json.loads((run / "recipe.json").read_text(encoding="utf-8"))
    for part in (resolved["recipe"], resolved.get("init", {})):
        # a folder of this machine says nothing elsewhere
        if part and Path(part["source"]).exists():
            part["source"] = ""
    # the last: it says that the folder is whole
    write_text(folder / "recipe.json", json.dumps(resolved, indent=2) + "\n")
    return f"{name}: top-1 {right / seen:.2%} on {seen:,} {split} images"


def _config_fields(given: dict[str, str]) -> dict[str, Any]:
    """Read fields of `DANetConfig` from text. Raises `ConfigError` for unknown ones, and for those
    that name or data set decide.
    """
    DANetConfig.check_names(given)  # `zoo.create` has words of its own
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


def _announce(data: DatasetSpec, recipe: Recipe, images: Split, test: Split) -> None:
    """Log what was read of a user's own data, and the recipe that follows."""
    held_out = f", {recipe.validation:.0%} of each class held out" if recipe.validation else ""
    names = f"{', '.join(data.classes[:10])}{', ...' if len(data.classes) > 10 else ''}"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (data.mean, data.std))
    log.info(
        "%s: %d training and %d test images%s", data.title, images.images, test.images, held_out
    )
    log.info("%d classes: %s", data.num_classes, names)
    log.info(
        "%d x %d pixels, %s, mean %s, std %s",
        data.size,
        data.size,
        "RGB" if data.channels == 3 else "grey",
        mean,
        std,
    )
    chosen = ("epochs", "batch_size", "lr", "crop_padding", "resized_crop", "flip_alternating")
    log.info(
        "recipe: %s; --set changes it",
        ", ".join(f"{key} = {getattr(recipe, key)}" for key in chosen if getattr(recipe, key)),
    )


def load_data(
    data: DatasetSpec,
    recipe: Recipe,
    split: Literal["train", "test"],
    steps: int,
    *,
    skip_bad: bool = False,
) -> Split:
    """The recipe's `train` or `test` split of `data`, or what its `validation` leaves or holds out
    of `train`; T = `steps` frames, where they are events.
    """
    if not recipe.source:
        raise ConfigError(
            f"{data.title} has no default place: name its folder or hub id with --data"
        )
    crop = (recipe.resized_crop[0], recipe.resized_crop[1]) if recipe.resized_crop else None
    try:
        return load_split(
            data, split, recipe.source,
            steps=steps, crop=crop, skip_bad=skip_bad, images=recipe.images, held_out=recipe.validation,
        )  # fmt: skip
    except NoSplit as error:
        hint = "; --set validation=0.1 holds out training images" if split == "test" else ""
        raise InputError(f"{error}{hint}") from None


def load_for_evaluation(
    data: DatasetSpec,
    split: Literal["train", "test"],
    steps: int,
    *,
    source: str | None,
    skip_bad: bool = False,
) -> Split:
    """A split for a model of `data`, from `source` or the place that the data's recipe names; T =
    `steps` frames of events.

    Of a user's own data without a held-out split, `test` is the share that training held out.
    """
    if data.tag in DATASETS:
        recipe = Recipe.load(data.tag)
        return load_data(
            data, replace(recipe, source=source or recipe.source), split, steps, skip_bad=skip_bad
        )
    if not source:
        raise ConfigError(
            f"{data.title} are images of your own: name their folder or hub id with --data"
        )
    return load_split(
        data, split, source, steps=steps, skip_bad=skip_bad, held_out=held_out_share(data, source)
    )


def held_out_share(data: DatasetSpec, source: str) -> float:
    """The share of the training images of `source` that is `test` to an evaluation; 0 where there
    is a split for it.

    Raises `InputError` for more or fewer images than the training had, whose share would hold some
    that it saw.
    """
    if not data.held_out or has_split("test", source):
        return 0.0
    images = open_rows(None, "train", source).images
    if images != data.held_out_of:
        raise InputError(
            f"{source} holds {images} images, and {data.held_out:.0%} of {data.held_out_of} were held out: "
            "give those alone, or put what to evaluate on into test/CLASS"
        )
    return data.held_out


def load_teacher(word: str, data: DatasetSpec, device: torch.device) -> Teacher:
    """A teacher of networks on `data`: a model of the zoo (name or folder), or what the function
    `module:function` returns.

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
            raise ConfigError(
                f"teacher {word!r} returned {type(teacher).__name__}, not a torch.nn.Module"
            )
    else:
        teacher = zoo.load(word)
        classes = teacher.config.num_classes
        if classes != data.num_classes:
            raise ConfigError(
                f"teacher {word!r} tells {classes} classes; {data.title} has {data.num_classes}"
            )
        if teacher.config.in_channels != data.channels:
            raise ConfigError(
                f"teacher {word!r} takes {teacher.config.in_channels} channels; {data.title} has {data.channels}"
            )
        trained_on = teacher.origin.data if teacher.origin else data
        for number, (theirs, ours) in enumerate(
            zip(trained_on.classes, data.classes, strict=False)
        ):
            if theirs != ours:
                raise ConfigError(
                    f"teacher {word!r} calls class {number} {theirs!r}; {data.title} calls it {ours!r}"
                )
        if (trained_on.mean, trained_on.std) != (data.mean, data.std):
            raise ConfigError(
                f"teacher {word!r} takes images of mean {list(trained_on.mean)} and std {list(trained_on.std)}; "
                f"those of {data.title} have {list(data.mean)} and {list(data.std)}"
            )
    ready: nn.Module = teacher.to(device).eval().requires_grad_(False)
    return ready
