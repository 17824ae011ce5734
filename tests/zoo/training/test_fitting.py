"""The recipe and the stem fit the number and size of a user's own images."""

import pytest
from own_images import own_data

from zoo.names import ModelSpec
from zoo.training.config import Recipe
from zoo.training.fitting import fitting_recipe

pytestmark = pytest.mark.usefixtures("offline")


@pytest.mark.parametrize(
    ("images", "size", "batch", "epochs"),
    [
        (10, 32, 4, 100),
        (120, 32, 8, 100),
        (1000, 32, 64, 100),
        (10_000, 32, 128, 51),
        (50_000, 64, 64, 10),
        (10**6, 224, 32, 10),
    ],
)
def test_the_recipe_fits_number_and_size(images: int, size: int, batch: int, epochs: int) -> None:
    recipe = Recipe.own(fitting_recipe(own_data(images, size)))
    assert (recipe.dataset, recipe.batch_size, recipe.epochs, recipe.validation) == (
        "pets",
        batch,
        epochs,
        0.2,
    )
    base = Recipe.own({"dataset": "pets", "epochs": 1})
    assert recipe.lr / recipe.batch_size == pytest.approx(base.lr / base.batch_size)
    assert bool(recipe.resized_crop) == (size > 96) != bool(recipe.crop_padding)


def test_nothing_is_held_out_where_there_is_a_split() -> None:
    assert Recipe.own(fitting_recipe(own_data(100, 32, splits=True))).validation == 0


def test_the_stem_follows_from_the_size() -> None:
    spec = ModelSpec.parse("danet18-t4.pets", own_data=True)
    stems = [spec.config(own_data(100, size).spec)["stem"] for size in (32, 40, 64, 96, 128, 224)]
    assert stems == ["small", "small", "medium", "medium", "imagenet", "imagenet"]
