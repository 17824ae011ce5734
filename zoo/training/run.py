"""A whole run: from a name to a finished model folder."""

import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import torch

import zoo
from zoo.danet import DANetConfig
from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import ConfigError, InputError, UnknownName, first_few
from zoo.names import ModelSpec
from zoo.training import checkpoint, lineage, parallel
from zoo.training.config import Recipe, parse_value
from zoo.training.data import Split, load_split
from zoo.training.describe import ImageOptions, OwnData, check_size, check_unchanged, describe
from zoo.training.fitting import fitting_recipe
from zoo.training.result import write_result
from zoo.training.sources import NoSplit, Rows, has_split, open_rows
from zoo.training.teacher import load_teacher
from zoo.training.train import DEFAULT, RunOptions, TrainingRun, train

__all__ = ["held_out_share", "load_data", "load_for_evaluation", "train_name"]

log = logging.getLogger(__name__)

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")
MAX_SHOWN = 10  # names of classes in a message
# What is said of a recipe for data of one's own, where it is set.
ANNOUNCED = (
    *("epochs", "batch_size", "lr", "crop_padding", "resized_crop", "flip_alternating"),
    *("prune", "weight_bits", "synops_weight", "spikes_weight"),
)
# The fields of a network that --config cannot change, and what they follow from.
FIXED = {
    "steps": "T of the name",
    "in_channels": "images and classes of the data set",
    "num_classes": "images and classes of the data set",
}


def train_name(
    name: str,
    *,
    run: Path | None = None,
    data: str | None = None,
    image_options: ImageOptions | None = None,
    overrides: dict[str, str] | None = None,
    config: dict[str, str] | None = None,
    init: str | None = None,
    teacher: str | None = None,
    options: RunOptions = DEFAULT,
) -> str:
    """Train a network by its name, and write a model folder that `zoo.load` takes.

    Return one line on the result, which is empty in a process that is not the first of several.
    Raises `ZooError` for what does not exist, does not fit together, or cannot be trained.

    Args:
        name: The network and its data set, or a word of the user's own for the data.
        run: The folder of the run, by default `runs/NAME`; the model is in its folder `model`.
        data: The folder or hub id of the data. Images under a word of the user's own are described
            first.
        image_options: Values that are not read from a user's own images.
        overrides: Keys of the recipe, with values as TOML writes them.
        config: Fields of `DANetConfig`, likewise.
        init: A trained model to start from.
        teacher: A trained model, or `module:function`, to distil from.
        options: The options of the run.
    """
    accelerator = parallel.accelerator(shard=options.shard)
    with accelerator.main_process_first():  # the first fills the cache of a download for the others
        image_options = image_options or ImageOptions()
        spec, own = _resolve(name, data, image_options, skip_bad=options.skip_bad)
    recipe = _recipe(spec, own, data, overrides or {})
    folder = run or Path("runs") / spec.name
    torch.manual_seed(recipe.seed)
    model = zoo.create(spec.name, data=own.spec if own else None, **_config_fields(config or {}))
    if own:
        check_size(model.config, own.spec)
    record = None if init is None else lineage.start(model, init, folder)
    lineage.freeze(model, recipe.freeze, record)
    if record and not checkpoint.exists(folder):
        lineage.check_bits(record, recipe)
    dataset = model.known_origin.data
    distilled = load_teacher(teacher, dataset, accelerator.device) if teacher else None
    with accelerator.main_process_first():
        images, test = (
            load_data(
                dataset, recipe, split, spec.steps,
                skip_bad=options.skip_bad, opened=own.rows if own else None,
            )
            for split in SPLITS
        )  # fmt: skip
    if "images" in (overrides or {}) and images.images != recipe.images:
        raise ConfigError(
            f"recipe: images = {recipe.images}, but {recipe.source} holds {images.images} "
            "training images: leave it out"
        )
    if own:
        own = replace(own, rows=None)  # they are loaded now, and may hold gigabytes
        check_unchanged(folder / "recipe.json", own.spec, images.images)
        _announce(own.spec, recipe, images, test)
    own_spec = own.spec if own else None
    training = TrainingRun(recipe, images, test, folder, own_spec, record, distilled, options)
    train(model, training)
    if not accelerator.is_main_process:
        return ""
    trained_on = dataset.stored_as(test.encoding)
    if own and not own.splits:
        trained_on = replace(trained_on, held_out=recipe.validation, held_out_of=own.images)
    model.origin = replace(model.known_origin, name=spec.name, data=trained_on)
    result = write_result(model, training, accelerator)
    skipped = f" ({images.skipped} unreadable training images left out)" if images.skipped else ""
    return f"{result}{skipped}; load it with zoo.load({str(folder / 'model')!r})"


def _resolve(
    name: str, data: str | None, options: ImageOptions, *, skip_bad: bool
) -> tuple[ModelSpec, OwnData | None]:
    """Parse a name, and describe the user's own data where it names no data set of the zoo.

    Raises `ConfigError` for `options` where it does.
    """
    spec = ModelSpec.parse(name, own_data=data is not None)
    if spec.dataset is None:
        hint = f"append a word of your own, as {name}.pets" if data else f"try {name}.fmnist"
        raise UnknownName(f"{name!r} names no data set: {hint}")
    if spec.dataset not in DATASETS:
        assert data is not None  # otherwise the name was refused
        return spec, describe(spec.dataset, data, options, skip_bad=skip_bad)
    for key, value in vars(options).items():
        if value:
            own_value = getattr(DATASETS[spec.dataset], key)
            raise ConfigError(
                f"--{key} is for images under a word of your own: "
                f"that of {spec.dataset} is {own_value}"
            )
    return spec, None


def _recipe(
    spec: ModelSpec, own: OwnData | None, data: str | None, overrides: dict[str, str]
) -> Recipe:
    """Return the recipe of a data set, or the one that fits a user's own data, with overrides."""
    assert spec.dataset is not None  # otherwise the name was refused
    if data and "source" in overrides:
        raise ConfigError(
            f"source is given twice, by --data as {data!r} and by --set as "
            f"{overrides['source']!r}: give it once"
        )
    overrides = overrides | _smaller(spec, overrides)
    if own:
        recipe = Recipe.own(fitting_recipe(own), overrides)
    else:
        recipe = Recipe.load(spec.dataset, overrides)
    if recipe.dataset != spec.dataset:
        raise ConfigError(
            f"recipe: dataset = {recipe.dataset!r}, but {spec.name} is trained on {spec.dataset!r}"
        )
    if spec.fewer_synops and not recipe.synops_weight:
        raise ConfigError(
            f"{spec.name} says fewer SynOps: give them a price, --set synops_weight=1"
        )
    return replace(recipe, source=data or recipe.source)


def _smaller(spec: ModelSpec, overrides: dict[str, str]) -> dict[str, str]:
    """Return what a name says of a recipe. Raises `ConfigError` where `overrides` contradict it."""
    said = {"prune": spec.zeros, "weight_bits": spec.weight_bits}
    for key, value in said.items():
        if value and key in overrides and parse_value(overrides[key]) != value:
            raise ConfigError(
                f"{spec.name} says {key} = {value:g}, and --set {key}={overrides[key]}: "
                "leave it out, or give the run another name"
            )
    return {key: f"{value:g}" for key, value in said.items() if value}


def _config_fields(values: dict[str, str]) -> dict[str, Any]:
    """Return fields of `DANetConfig` read from text.

    Raises `ConfigError` for unknown ones, and for those that follow from name or data set.
    """
    valid = [field.name for field in fields(DANetConfig) if field.name not in FIXED]
    for key, text in values.items():
        if key in FIXED:
            raise ConfigError(f"--config {key}={text}: it follows from the {FIXED[key]}")
        if key not in valid:
            raise ConfigError(f"--config: unknown key {key!r}; valid are {', '.join(valid)}")
    return {key: parse_value(text) for key, text in values.items()}


def _announce(data: DatasetSpec, recipe: Recipe, images: Split, test: Split) -> None:
    """Log what was read of a user's own data, and the recipe that follows."""
    held_out = f", {recipe.validation:.0%} of each class held out" if recipe.validation else ""
    numbers = f"{images.images} training and {test.images} test images"
    log.info("%s: %s%s", data.title, numbers, held_out)
    log.info("%d classes: %s", data.num_classes, first_few(data.classes, MAX_SHOWN))
    colours = "RGB" if data.channels == 3 else "grey"
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (data.mean, data.std))
    size = f"{data.size} x {data.size}"
    log.info("%s pixels, %s, mean %s, std %s", size, colours, mean, std)
    values = {key: getattr(recipe, key) for key in ANNOUNCED}
    chosen = ", ".join(f"{key} = {value}" for key, value in values.items() if value)
    log.info("recipe: %s; --set changes it", chosen)


def load_data(
    data: DatasetSpec,
    recipe: Recipe,
    split: Literal["train", "test"],
    steps: int,
    *,
    skip_bad: bool = False,
    opened: Rows | None = None,
) -> Split:
    """Return the recipe's `train` or `test` split of `data`, with T = `steps` frames of events.

    Where the recipe has a `validation` share, they are what it leaves of the training images, and
    what it holds out. `opened` are the rows of the training images, if they were opened before.
    """
    if not recipe.source:
        raise ConfigError(
            f"{data.title} has no default place: name its folder or hub id with --data"
        )
    crop = (recipe.resized_crop[0], recipe.resized_crop[1]) if recipe.resized_crop else None
    try:
        return load_split(
            data, split, recipe.source,
            steps=steps, crop=crop, skip_bad=skip_bad,
            images=recipe.images, held_out=recipe.validation, opened=opened,
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
    """Return a split for a model of `data`, with T = `steps` frames of events.

    It comes from `source`, or from the place that the data's recipe names. Of a user's own data
    without a held-out split, `test` is the share that training held out.
    """
    if data.tag in DATASETS:
        recipe = Recipe.load(data.tag)
        recipe = replace(recipe, source=source or recipe.source)
        return load_data(data, recipe, split, steps, skip_bad=skip_bad)
    if not source:
        raise ConfigError(
            f"{data.title} are images of your own: name their folder or hub id with --data"
        )
    return load_split(
        data, split, source, steps=steps, skip_bad=skip_bad, held_out=held_out_share(data, source)
    )


def held_out_share(data: DatasetSpec, source: str) -> float:
    """Return the share of the training images of `source` that is `test` to an evaluation.

    It is 0 where there is a split for it. Raises `InputError` for more or fewer images than the
    training had, as the same share of them would hold some that it saw.
    """
    if not data.held_out or has_split("test", source):
        return 0.0
    images = open_rows(None, "train", source).images
    if images != data.held_out_of:
        raise InputError(
            f"{source} holds {images} images, and {data.held_out:.0%} of {data.held_out_of} were "
            "held out: give those alone, or put what to evaluate on into test/CLASS"
        )
    return data.held_out
