"""Recipes: read from data, overridden by hand, validated once."""

from pathlib import Path
from typing import Any

import pytest

import zoo.training
from zoo.datasets import DATASETS
from zoo.errors import ConfigError
from zoo.training.config import Recipe

RECIPES = sorted(path.stem for path in (Path(zoo.training.__file__).parent / "recipes").glob("*.toml"))


@pytest.mark.parametrize("dataset", RECIPES)
def test_every_recipe_is_valid_and_names_its_data_set(dataset: str) -> None:
    assert Recipe.load(dataset).dataset == dataset and dataset in DATASETS


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
    ],
)
def test_overrides_are_toml_values(key: str, text: str, value: Any) -> None:
    recipe = Recipe.load("fmnist", {key: text})
    assert getattr(recipe, key) == value
    assert {k: v for k, v in recipe.to_dict().items() if k != key} == {
        k: v for k, v in Recipe.load("fmnist").to_dict().items() if k != key
    }


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"rate": "1"}, "unknown key 'rate'; valid are dataset, epochs, .*, seed"),
        ({"lr": "fast"}, "lr = 'fast' is not of type float"),
        ({"lr": "true"}, "lr = True is not of type float"),
        ({"lr": "0"}, "lr = 0 must be above 0"),
        ({"lr": "nan"}, "lr = nan"),
        ({"epochs": "1.5"}, "epochs = 1.5 is not of type int"),
        ({"epochs": "true"}, "epochs = True is not of type int"),
        ({"epochs": "0"}, "epochs = 0 must be above 0"),
        ({"batch_size": "-8"}, "batch_size = -8 must be above 0"),
        ({"flip": "1"}, "flip = 1 is not of type bool"),
        ({"flip": "yes"}, "flip = 'yes' is not of type bool"),
        ({"crop_padding": "[2]"}, r"crop_padding = \[2\] is not of type int"),
        ({"dataset": "3"}, "dataset = 3 is not of type str"),
    ],
    ids=str,
)
def test_a_wrong_override_is_refused(overrides: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=f"^recipe: {said}") as error:
        Recipe.load("fmnist", overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("dataset", ["in1k", "nothing", "../fmnist"])
def test_a_data_set_without_recipe_is_answered_with_the_known(dataset: str) -> None:
    with pytest.raises(ConfigError, match="there are recipes for fmnist"):
        Recipe.load(dataset)
