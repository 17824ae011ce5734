"""A user's own images are described, or refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import refusals
import torch
from own_images import CLASSES, own_data, write_classes
from PIL import Image
from support.pictures import encoded, picture

from zoo.danet import DANetConfig
from zoo.errors import InputError
from zoo.names import ModelSpec
from zoo.training import data
from zoo.training.config import Recipe
from zoo.training.data import load_split
from zoo.training.describe import ImageOptions, check_size, describe
from zoo.training.fitting import fitting_recipe
from zoo.training.run import load_for_evaluation

pytestmark = pytest.mark.usefixtures("offline")


def refused(text: str, source: Path | str, options: ImageOptions | None = None) -> None:
    """Check that `describe` raises one line that holds `text`."""
    refusals.refused(text, describe, "pets", source, options)


def test_folders_without_splits(tmp_path: Path) -> None:
    own = describe("pets", write_classes(tmp_path / "pets"))
    assert (own.images, own.splits, own.streamed) == (30, False, False)
    assert own.spec.classes == CLASSES and own.spec.num_classes == 3
    assert (own.spec.tag, own.spec.title, own.spec.size, own.spec.channels, own.spec.events) == (
        "pets",
        "pets",
        32,
        3,
        False,
    )


def test_rows_that_were_opened_are_not_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_classes(tmp_path / "pets", images=5)
    own = describe("pets", folder)
    fresh = load_split(own.spec, "train", folder)
    monkeypatch.setattr(data, "open_rows", None)
    opened = load_split(own.spec, "train", folder, opened=own.rows)
    for one, other in zip(opened.evaluation(15), fresh.evaluation(15), strict=True):
        assert all(map(torch.equal, one, other))


def test_mean_and_deviation_are_those_of_the_pixels(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "pets", width=16, height=16)
    spec = describe("pets", folder).spec
    assert spec.size == 16  # squares of one size stay as they are
    # [N, H, W, C]
    pixels = np.stack([np.asarray(Image.open(path)) for path in folder.glob("*/*.png")]) / 255
    np.testing.assert_allclose(spec.mean, pixels.mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(spec.std, pixels.std((0, 1, 2)), atol=1e-4)


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (28, 28, 28),
        (12, 12, 32),
        (40, 45, 32),
        (50, 60, 64),
        (90, 200, 96),
        (130, 120, 128),
        (500, 400, 224),
        (300, 300, 224),
    ],
)
def test_the_size_is_near_the_shorter_side(
    width: int, height: int, size: int, tmp_path: Path
) -> None:
    assert (
        describe(
            "pets", write_classes(tmp_path / "pets", images=4, width=width, height=height)
        ).spec.size
        == size
    )


def test_a_given_value_is_not_read(tmp_path: Path) -> None:
    options = ImageOptions(size=48, channels=1, mean=(0.5,), std=(0.25,))
    spec = describe("pets", write_classes(tmp_path / "pets"), options).spec
    assert (spec.size, spec.channels, spec.mean, spec.std) == (48, 1, (0.5,), (0.25,))


def test_grey_images_are_read_as_grey(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "pets")
    for path in folder.glob("*/*.png"):
        path.write_bytes(encoded(Image.open(path).convert("L")))
    assert describe("pets", folder).spec.channels == 1


def test_classes_of_a_split_are_those_of_training(tmp_path: Path) -> None:
    write_classes(tmp_path / "pets" / "train")
    write_classes(tmp_path / "pets" / "val", CLASSES[:2], 3)
    own = describe("pets", tmp_path / "pets")
    assert (own.images, own.splits, own.spec.classes) == (30, True, CLASSES)


def test_parquet_with_names_numbers_and_text(tmp_path: Path) -> None:
    import datasets

    images = [{"bytes": encoded(picture(n)), "path": None} for n in range(30)]
    label = datasets.ClassLabel(names=["b", "a", "c"])
    for kind, labels, classes in (
        (label, [n % 3 for n in range(30)], ("b", "a", "c")),
        (datasets.Value("int32"), [n % 3 for n in range(30)], ("0", "1", "2")),
        (
            datasets.Value("string"),
            ["dog cat cow".split()[n % 3] for n in range(30)],
            ("cat", "cow", "dog"),
        ),
    ):
        folder = tmp_path / "-".join(classes)
        folder.mkdir()
        features = datasets.Features(image=datasets.Image(), label=kind)
        table = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        table.to_parquet(folder / "train-0.parquet")
        own = describe("pets", folder)
        assert (own.spec.classes, own.images, own.splits) == (classes, 30, False)


def test_labels_of_a_split_mean_the_classes_of_training(tmp_path: Path) -> None:
    import datasets

    folder = tmp_path / "pets"
    folder.mkdir()

    def write_split(name: str, labels: list[Any], kind: Any) -> None:
        images = [{"bytes": encoded(picture(n)), "path": None} for n in range(len(labels))]
        features = datasets.Features(image=datasets.Image(), label=kind)
        datasets.Dataset.from_dict(
            {"image": images, "label": labels}, features=features
        ).to_parquet(folder / f"{name}.parquet")

    write_split("train", ["dog", "cat", "cow"] * 5, datasets.Value("string"))
    write_split("test", ["dog", "cow"], datasets.Value("string"))
    spec = describe("pets", folder).spec
    split = load_for_evaluation(spec, "test", 1, source=str(folder))
    assert torch.cat([labels for _, labels in split.evaluation(10)]).tolist() == [2, 1]
    write_split("train", [0, 1, 2] * 5, datasets.ClassLabel(names=["cat1", "cat2", "cat3"]))
    write_split("test", [0, 1, 2], datasets.ClassLabel(names=["cat2", "cat1", "cat3"]))
    spec = describe("pets", folder).spec
    with pytest.raises(InputError, match="class 0 is 'cat2'; that of pets is 'cat1'"):
        load_for_evaluation(spec, "test", 1, source=str(folder))


def test_names_in_shards_are_refused(write_shards: Callable[..., Path]) -> None:
    rows = [(0, encoded(picture(0)), "cat"), (1, encoded(picture(1)), "dog")]
    refused(
        "labels are names, which shards cannot have: make them integers",
        write_shards({"train-0": rows}),
    )


def test_shards_are_counted(write_shards: Callable[..., Path]) -> None:
    rows = [(n, encoded(picture(n)), n % 3) for n in range(30)]
    own = describe(
        "pets", write_shards({"train-0": rows[:20], "train-1": rows[20:], "val-0": rows[:5]})
    )
    assert (own.images, own.splits, own.streamed, own.spec.classes) == (
        30,
        True,
        True,
        ("0", "1", "2"),
    )
    recipe = Recipe.own(fitting_recipe(own))
    assert (recipe.images, recipe.validation, recipe.flip, recipe.flip_alternating) == (
        30,
        0,
        True,
        False,
    )


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its id is its title, so that cards and messages name it."""
    import datasets

    images = [{"bytes": encoded(picture(n)), "path": None} for n in range(30)]
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"])
    )
    rows = datasets.Dataset.from_dict(
        {"image": images, "label": [n % 2 for n in range(30)]}, features=features
    )
    monkeypatch.setattr(
        datasets,
        "load_dataset",
        lambda *args, **options: datasets.DatasetDict(train=rows, test=rows),
    )
    own = describe("pets", "somebody/pets")
    assert (own.spec.tag, own.spec.title, own.spec.classes, own.splits) == (
        "pets",
        "somebody/pets",
        ("cat", "dog"),
        True,
    )


def test_classes_that_cannot_be_learnt(tmp_path: Path) -> None:
    refused(
        "split 'train' has one class (cat): a classifier needs two or more",
        write_classes(tmp_path / "one", ["cat"]),
    )
    refused(
        "split 'train' holds 3 images: give 10 or more", write_classes(tmp_path / "few", images=1)
    )
    for k, pair in enumerate(
        (["Cat", "cat"], ["guinea pig", "guinea_pig"], ["cafe\u0301", "caf\u00e9"])
    ):
        refused(
            f"one class in two spellings, {pair[0]!r} and {pair[1]!r}",
            write_classes(tmp_path / f"twice{k}", [*pair, "cow"]),
        )
    (write_classes(tmp_path / "empty") / "hexagon").mkdir()
    refused(
        "split 'train' holds no images of class 'hexagon': add some, or take the class out",
        tmp_path / "empty",
    )
    write_classes(tmp_path / "late" / "train")
    write_classes(tmp_path / "late" / "val", ["hexagon"])
    refused("split 'train' holds no images of class 'hexagon'", tmp_path / "late")


@pytest.mark.parametrize("name", ["a\nb", " ", "\x1b[31mred"], ids=repr)
def test_a_class_has_a_name_that_can_be_printed(name: str, tmp_path: Path) -> None:
    refused(
        f"has a class named {name!r}: give it a name of printable characters",
        write_classes(tmp_path, ["dog", name]),
    )


def test_numbers_of_which_one_is_missing(tmp_path: Path) -> None:
    import datasets

    images = [{"bytes": encoded(picture(n)), "path": None} for n in range(20)]
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    for labels, said in (
        ((1, 2), "class '0', and labels up to 2: they begin with 1: subtract 1 of each"),
        (
            (0, 2),
            "class '1', and labels up to 2: "
            "number the classes from 0 without a gap, or give them names",
        ),
        # as many names would not fit into memory
        ((0, 10**12), f"class '1', and labels up to {10**12}: number"),
    ):
        table = datasets.Dataset.from_dict(
            {"image": images, "label": [labels[n % 2] for n in range(20)]}, features=features
        )
        table.to_parquet(tmp_path / "train-0.parquet")
        refused(f"holds no images of {said}", tmp_path)


def test_numbers_of_one_value_have_an_order(tmp_path: Path) -> None:
    """Every process that reads the folder has to find the same, though sets of names have another
    order in each.
    """
    assert describe("pets", write_classes(tmp_path, ["10", "2", "02", "002"])).spec.classes == (
        "002",
        "02",
        "2",
        "10",
    )


def test_grey_among_coloured_images(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "pets")
    path = folder / "circle" / "00.png"
    path.write_bytes(encoded(Image.open(path).convert("L")))
    refused(
        "1 of 30 images are grey, the others coloured: "
        "read all as colour with --channels 3, or as grey",
        folder,
    )
    assert describe("pets", folder, ImageOptions(channels=3)).spec.channels == 3


def test_unreadable_images_are_named_or_left_out(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "pets")
    (folder / "circle" / "00.png").write_bytes(b"no image")
    refused("circle/00.png is not an image that can be read (unknown format", folder)
    assert describe("pets", folder, skip_bad=True).images == 30
    whole = (folder / "square" / "00.png").read_bytes()
    # the head of the file is well
    (folder / "circle" / "00.png").write_bytes(whole[: len(whole) // 2])
    refused("circle/00.png is not an image that can be read", folder)


def test_folders_that_lie_too_deep(tmp_path: Path) -> None:
    write_classes(tmp_path / "deep" / "animals", ["cat", "dog"])
    write_classes(tmp_path / "deep" / "cars", ["new", "old"])
    refused(
        "name the folder whose folders are the classes, "
        "or put the images of each class into its own",
        tmp_path / "deep",
    )
    refused("images lie in ", tmp_path)
    for name in ("cat", "dog"):  # as Tiny-ImageNet has it
        write_classes(tmp_path / "shallow" / name, ["images"])
    assert describe("pets", tmp_path / "shallow").spec.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (ImageOptions(size=100_000), "--size 100000: valid are up to 1024 pixels"),
        (ImageOptions(mean=(0.5,)), "mean 0.5 and std "),
        (
            ImageOptions(std=(0.0, 1.0, 1.0)),
            "std 0 1 1 are not, for each of 3 channels, a number and one above 0",
        ),
        (ImageOptions(mean=(float("nan"),) * 3), "mean nan nan nan"),
    ],
)
def test_values_that_cannot_be_given(options: ImageOptions, said: str, tmp_path: Path) -> None:
    refused(said, write_classes(tmp_path / "pets"), options)


def test_images_of_one_colour(tmp_path: Path) -> None:
    folder = write_classes(tmp_path / "pets")
    for path in folder.glob("*/*.png"):
        path.write_bytes(encoded(Image.new("RGB", (20, 20))))
    refused("std 0 0 0 (all images have one colour)", folder)


def test_a_place_that_holds_nothing(tmp_path: Path) -> None:
    refused("holds no images in a valid layout", tmp_path)
    refused("is no folder: name one, or a data set on the Hub as ORG/NAME", tmp_path / "nowhere")


def test_images_too_small_for_the_network() -> None:
    for name, size, least in (
        ("danet20-t1.pets", 7, 8),
        ("danet18-t1.pets", 15, 16),
        ("ms-resnet18-t1.pets", 15, 16),
    ):
        data = own_data(100, size).spec
        config = DANetConfig.from_dict(ModelSpec.parse(name, own_data=True).config(data))
        with pytest.raises(
            InputError,
            match=f"images of {size} x {size} pixels are too small .* valid are {least} to 1024",
        ):
            check_size(config, data)
        data = own_data(100, least).spec
        check_size(DANetConfig.from_dict(ModelSpec.parse(name, own_data=True).config(data)), data)
