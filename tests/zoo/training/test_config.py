"""Recipes: read from data, overridden by hand, validated once."""

import json
import math
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import zoo.training
from zoo.datasets import DATASETS
from zoo.errors import ConfigError
from zoo.training.config import Recipe, recipes

NUMBERS = [f.name for f in fields(Recipe) if isinstance(f.default, float)]
FILES = sorted(
    path.stem for path in (Path(zoo.training.__file__).parent / "recipes").glob("*.toml")
)
RECIPES = recipes()


def recipe(**values: Any) -> Recipe:
    return Recipe.from_dict({"dataset": "fmnist", "epochs": 3} | values)


def refusal(**values: Any) -> str:
    with pytest.raises(ConfigError) as error:
        recipe(**values)
    message = str(error.value)
    assert message.startswith("recipe: ") and len(message.splitlines()) == 1
    return message.removeprefix("recipe: ")


def test_the_recipes_are_the_files() -> None:
    assert set(FILES) - set(RECIPES) == {"fast", "own"} and {"fmnist", "cifar10", "in1k"} <= set(
        RECIPES
    ) <= set(FILES)


def test_a_recipe_inherits_what_it_does_not_say() -> None:
    fast = tomllib.loads(
        (Path(zoo.training.__file__).parent / "recipes" / "fast.toml").read_text(encoding="utf-8")
    )
    inherited = Recipe.load("cifar10").to_dict()
    assert {key: inherited[key] for key in fast} == fast and inherited["dataset"] == "cifar10"
    assert Recipe.load("in1k").whiten is False and Recipe.load("in1k").schedule == "cosine"


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("true", True), ("false", False)])
def test_bfloat16_may_be_left_to_the_device(text: str, value: Any) -> None:
    assert Recipe.load("fmnist").bf16 == "auto"
    assert Recipe.load("fmnist", {"bf16": text}).bf16 == value


@pytest.mark.parametrize("value", [1, "yes", ["auto"]], ids=str)
def test_bfloat16_is_a_switch_or_left_to_the_device(value: Any) -> None:
    assert refusal(bf16=value) == f"bf16 = {value!r} must be true or false, or 'auto'"


def test_one_flip_excludes_the_other() -> None:
    assert refusal(flip=True, flip_alternating=True) == (
        "flip and flip_alternating exclude each other: "
        "set one of them to false (of shards: the latter)"
    )


def test_sizes_are_a_schedule_too() -> None:
    scheduled = recipe(sizes=[[0, 16], [2, 24]])
    assert [scheduled.size_at(epoch, 32) for epoch in range(4)] == [16, 16, 24, 24]
    assert recipe().size_at(3, 32) == 32
    assert refusal(sizes=[[1, 16]]).startswith(
        "sizes = [[1, 16]] must be [[0, pixels], [epoch, pixels], ...], epochs rising"
    )


@pytest.mark.parametrize("dataset", RECIPES)
def test_every_recipe_is_valid_and_names_its_data_set(dataset: str) -> None:
    assert Recipe.load(dataset).dataset == dataset and dataset in DATASETS


@pytest.mark.parametrize("dataset", RECIPES)
def test_events_are_changed_in_no_way_that_is_for_images(dataset: str) -> None:
    loaded = Recipe.load(dataset)
    of_images = (
        loaded.resized_crop,
        loaded.auto_augment,
        loaded.rand_augment,
        loaded.flip,
        loaded.flip_alternating,
        loaded.sizes,
    )
    data = DATASETS[dataset]  # saccades see images that were changed before
    assert not data.events or data.still or not any(of_images)


@pytest.mark.parametrize("name", ["nothing", "../fmnist", "", "fmnist.toml"])
def test_a_data_set_without_recipe_is_answered_with_the_known(name: str) -> None:
    with pytest.raises(ConfigError, match=r"there are recipes for cifar10, .*tin200$"):
        Recipe.load(name)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("lr", "0.05", 0.05),
        ("lr", "1e-3", 1e-3),
        ("lr", "1", 1),
        ("epochs", "3", 3),
        ("flip", "false", False),
        ("bf16", "true", True),
        ("dataset", "cifar10", "cifar10"),
        ("dataset", '"cifar10"', "cifar10"),
        ("source", "/some/where", "/some/where"),
        ("source", "org/name", "org/name"),
        ("loss", "tet", "tet"),
        ("auto_augment", "imagenet", "imagenet"),
        ("auto_augment", "", ""),
        ("resized_crop", "[0.5, 1]", (0.5, 1)),
        ("resized_crop", "[]", ()),
        ("rand_augment", "[2, 9]", (2, 9)),
        ("t_schedule", "[[0, 2], [5, 4]]", ((0, 2), (5, 4))),
    ],
)
def test_overrides_are_toml_values(key: str, text: str, value: Any) -> None:
    changed, before = Recipe.load("fmnist", {key: text}).to_dict(), Recipe.load("fmnist").to_dict()
    assert changed.pop(key) == value
    before.pop(key)
    assert changed == before


def test_an_override_may_undo_the_file() -> None:
    assert Recipe.load("in1k").auto_augment == "imagenet"
    assert Recipe.load("in1k", {"auto_augment": "", "resized_crop": "[]"}).auto_augment == ""


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"lr": "fast"}, "lr = 'fast' must be a number"),
        ({"lr": ""}, "lr = '' must be a number"),
        ({"lr": "true"}, "lr = true must be a number"),
        ({"lr": "two\nlines"}, r"lr = 'two\\nlines' must be a number"),
        ({"lr": "1979-05-27"}, "lr = .* must be a number"),
        ({"lr": "0"}, "lr = 0 must be above 0"),
        ({"lr": "nan"}, "lr = nan"),
        ({"epochs": "1.5"}, "epochs = 1.5 must be a whole number"),
        ({"epochs": "true"}, "epochs = true must be a whole number"),
        ({"epochs": "{a = 1}"}, "epochs = {'a': 1} must be a whole number"),
        ({"epochs": "0"}, "epochs = 0 must be at least 1"),
        ({"batch_size": "-8"}, "batch_size = -8 must be at least 1"),
        ({"flip": "1"}, "flip = 1 must be true or false"),
        ({"flip": "yes"}, "flip = 'yes' must be true or false"),
        ({"crop_padding": "[2]"}, r"crop_padding = \[2\] must be a whole number"),
        ({"dataset": "3"}, "dataset = 3 must be text"),
        ({"resized_crop": "[0.1, wide]"}, "resized_crop = "),
        ({"unheard\nof": "1"}, r"unknown key 'unheard\\nof'"),
    ],
    ids=str,
)
def test_a_wrong_override_is_refused(overrides: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^recipe: {said}") as error:
        Recipe.load("fmnist", overrides)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["epochs", "lr", "ema"])
def test_a_number_too_large_for_a_float_is_one_line_too(key: str) -> None:
    with pytest.raises(ConfigError, match=f"^recipe: {key} = "):
        Recipe.load("fmnist", {key: "1" + "0" * 400})


@pytest.mark.parametrize(
    ("typo", "near"),
    [
        ("epoch", "epochs"),
        ("flips", "flip"),
        ("batchsize", "batch_size"),
        ("batch", "batch_size"),
        ("weight-decay", "weight_decay"),
        ("smoothing", "label_smoothing"),
        ("autoaugment", "auto_augment"),
        ("mix_up", "mixup"),
        ("warmup", "warmup_epochs"),
        ("t_shedule", "t_schedule"),
        ("distil", "distill"),
        ("Seed", "seed"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_key(typo: str, near: str) -> None:
    message = refusal(**{typo: 1})
    assert message.startswith(
        f"unknown key {typo!r}; did you mean {near}? valid are dataset, epochs, "
    )
    assert all(field.name in message for field in fields(Recipe))


@pytest.mark.parametrize("key", ["x", "", "LR", "learning_rate"])
def test_a_key_near_to_none_is_answered_with_all(key: str) -> None:
    assert refusal(**{key: 1}).startswith(f"unknown key {key!r}; valid are dataset, epochs, ")


@pytest.mark.parametrize("missing", ["dataset", "epochs"])
def test_what_has_no_default_is_asked_for(missing: str) -> None:
    values = {"dataset": "fmnist", "epochs": 3}
    del values[missing]
    with pytest.raises(
        ConfigError, match=f"^recipe: {missing} is missing; needed are dataset, epochs$"
    ):
        Recipe.from_dict(values)


@pytest.mark.parametrize(
    "values",
    [
        {"lr": 1},
        {"momentum": 1},
        {"ema": 1.0},
        {"clip": 0},
        {"warmup_epochs": 0},
        {"erase": 4096},
        {"mixup": 100},
        {"temperature": math.ulp(0)},
        {"images": 0},
        {"seed": -1},
        {"resized_crop": [1, 1]},
        {"resized_crop": [0.08, 1.0]},
        {"rand_augment": [1, 0]},
        {"rand_augment": [3, 30]},
        {"t_schedule": [[0, 1]]},
        {"loss": "tet"},
        {"auto_augment": "cifar10"},
        {"checkpointing": True},
    ],
    ids=str,
)
def test_the_last_value_within_bounds_is_accepted(values: dict[str, Any]) -> None:
    ((key, value),) = values.items()
    expected = (
        tuple(tuple(v) if isinstance(v, list) else v for v in value)
        if isinstance(value, list)
        else value
    )
    assert getattr(recipe(**values), key) == expected


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"images": -1}, "images = -1 must be at least 0"),
        ({"epochs": -1}, "epochs = -1 must be at least 1"),
        ({"warmup_epochs": -0.1}, "warmup_epochs = -0.1 must be at least 0"),
        ({"momentum": 1.01}, "momentum = 1.01 must be from 0 to 1"),
        ({"momentum": 0.0}, "momentum = 0.0 must be above 0"),  # Nesterov's needs some
        ({"weight_decay": -1e-4}, "weight_decay = -0.0001 must be at least 0"),
        ({"clip": -1.0}, "clip = -1.0 must be at least 0"),
        ({"ema": 1.1}, "ema = 1.1 must be from 0 to 1"),
        ({"crop_padding": 4097}, "crop_padding = 4097 must be from 0 to 4096"),
        ({"erase": -1}, "erase = -1 must be from 0 to 4096"),
        ({"random_erase": 2}, "random_erase = 2 must be from 0 to 1"),
        ({"mixup": 101.0}, "mixup = 101.0 must be from 0 to 100"),
        ({"cutmix": -1.0}, "cutmix = -1.0 must be from 0 to 100"),
        ({"label_smoothing": 1.5}, "label_smoothing = 1.5 must be from 0 to 1"),
        ({"tet_weight": -0.5}, "tet_weight = -0.5 must be from 0 to 1"),
        ({"distill": 1.5}, "distill = 1.5 must be from 0 to 1"),
        ({"temperature": 0.0}, "temperature = 0.0 must be above 0"),
        ({"temperature": -1}, "temperature = -1 must be above 0"),
        ({"lr": -0.1}, "lr = -0.1 must be above 0"),
        ({"source": None}, "source = None must be text"),
        ({"seed": 1.0}, "seed = 1.0 must be a whole number"),
        ({"ema": "0.9"}, "ema = '0.9' must be a number"),
        ({"ema": False}, "ema = false must be a number"),
        ({"checkpointing": 0}, "checkpointing = 0 must be true or false"),
        ({"loss": "sum"}, "loss = 'sum' must be one of 'mean', 'tet'"),
        ({"loss": ""}, "loss = '' must be one of 'mean', 'tet'"),
        ({"loss": ["tet"]}, "loss = ['tet'] must be one of 'mean', 'tet'"),
        (
            {"auto_augment": "svhn"},
            "auto_augment = 'svhn' must be one of '', 'imagenet', 'cifar10'",
        ),
        ({"auto_augment": False}, "auto_augment = false must be one of '', 'imagenet', 'cifar10'"),
        ({"resized_crop": 0.08}, "resized_crop = 0.08 must be a list of numbers"),
        ({"resized_crop": [True, 1]}, "entry 1 of resized_crop = true must be a number"),
        ({"resized_crop": ["0.1", 1]}, "entry 1 of resized_crop = '0.1' must be a number"),
        ({"resized_crop": [0.5]}, "resized_crop = [0.5] must be [least, greatest] share"),
        ({"resized_crop": [0.5, 0.4]}, "resized_crop = [0.5, 0.4] must be"),
        ({"resized_crop": [0.0, 1]}, "resized_crop = [0.0, 1.0] must be"),
        ({"resized_crop": [0.5, 1.1]}, "entry 2 of resized_crop = 1.1 must be from 0 to 1"),
        ({"resized_crop": [0.1, 0.5, 1]}, "resized_crop = [0.1, 0.5, 1.0] must be"),
        ({"rand_augment": [2, 9.0]}, "entry 2 of rand_augment = 9.0 must be a whole number"),
        ({"rand_augment": [2]}, "rand_augment = [2] must be [operations, magnitude"),
        ({"rand_augment": [0, 9]}, "rand_augment = [0, 9] must be"),
        ({"rand_augment": [2, 31]}, "rand_augment = [2, 31] must be"),
        ({"rand_augment": [2, -1]}, "rand_augment = [2, -1] must be"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_refused(values: dict[str, Any], said: str) -> None:
    assert refusal(**values).startswith(said)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("key", NUMBERS)
def test_a_number_that_is_not_finite_is_refused(key: str, value: float) -> None:
    assert refusal(**{key: value}).startswith(f"{key} = {value} must be ")


@pytest.mark.parametrize("crop", [[math.nan, 1.0], [0.1, math.nan], [0.1, math.inf]], ids=str)
def test_a_list_with_a_number_that_is_not_finite_is_refused(crop: list[float]) -> None:
    assert refusal(resized_crop=crop).endswith(" must be finite and from 0 to 1")


@pytest.mark.parametrize(
    "schedule",
    [
        [[1, 2]],
        [[-1, 2]],
        [[0, 0]],
        [[0, -2]],
        [[0, 2], [0, 4]],
        [[0, 2], [5, 4], [3, 6]],
    ],
    ids=str,
)
def test_a_schedule_that_is_none_is_refused(schedule: list[list[int]]) -> None:
    assert refusal(t_schedule=schedule).startswith(
        f"t_schedule = {schedule} must be [[0, T], [epoch, T], ...], epochs rising"
    )


@pytest.mark.parametrize(
    ("schedule", "said"),
    [
        (4, "t_schedule = 4 must be a list of lists of 2 whole numbers"),
        ("linear", "t_schedule = 'linear' must be a list of lists of 2 whole numbers"),
        ([0, 2], "entry 1 of t_schedule = 0 must be a list of 2 whole numbers"),
        ([[0, 2.0]], "entry 2 of entry 1 of t_schedule = 2.0 must be a whole number"),
        ([[False, 2]], "entry 1 of entry 1 of t_schedule = false must be a whole number"),
        ([["0", 2]], "entry 1 of entry 1 of t_schedule = '0' must be a whole number"),
        ([[0, [2]]], "entry 2 of entry 1 of t_schedule = [2] must be a whole number"),
        ([[0, 2], [5]], "entry 2 of t_schedule = [5] must be a list of 2 whole numbers"),
        ([[0, 2], [5, 4, 6]], "entry 2 of t_schedule = [5, 4, 6] must be a list of 2 whole"),
        ([[0, 2], []], "entry 2 of t_schedule = [] must be a list of 2 whole numbers"),
    ],
    ids=str,
)
def test_a_schedule_of_another_type_is_refused(schedule: Any, said: str) -> None:
    assert refusal(t_schedule=schedule).startswith(said)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ([], [6, 6, 6, 6, 6]),
        ([[0, 2]], [2, 2, 2, 2, 2]),
        ([[0, 2], [1, 3], [3, 8]], [2, 3, 3, 8, 8]),
        ([[0, 4], [2, 1]], [4, 4, 1, 1, 1]),
        ([[0, 4], [9, 1]], [4, 4, 4, 4, 4]),
    ],
    ids=str,
)
def test_the_schedule_says_how_many_steps_an_epoch_has(
    schedule: list[list[int]], expected: list[int]
) -> None:
    scheduled = recipe(t_schedule=schedule)
    assert [scheduled.steps_at(epoch, 6) for epoch in range(5)] == expected


@pytest.mark.parametrize(
    "original",
    [
        *map(Recipe.load, RECIPES),
        Recipe("fmnist", 1),
        recipe(
            resized_crop=[0.25, 1],
            rand_augment=[2, 9],
            t_schedule=[[0, 2], [4, 8]],
            lr=1,
            seed=2**40,
            loss="tet",
            source='"\n',
        ),
    ],
    ids=lambda r: f"{r.dataset}-{r.epochs}-{r.loss}",
)
def test_a_recipe_survives_json(original: Recipe) -> None:
    values = json.loads(json.dumps(original.to_dict()))
    assert Recipe.from_dict(values) == original
    assert json.loads(json.dumps(Recipe.from_dict(values).to_dict())) == values
    assert list(values) == [field.name for field in fields(Recipe)]
