"""A user's own images: described, trained on, and taken by every command; or refused in one line."""

import json
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import encoded, picture
from PIL import Image

import zoo
from zoo.cli import main
from zoo.danet import DANetConfig
from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import ConfigError, InputError, UnknownName, ZooError
from zoo.names import ModelSpec
from zoo.training.config import Recipe
from zoo.training.describe import Given, OwnData, check_size, describe, fitting_recipe
from zoo.training.run import load_for_evaluation, train_name

CLASSES = ("circle", "square", "triangle")
QUICK = {"epochs": "1", "batch_size": "8"}


def write(folder: Path, classes: Iterable[str] = CLASSES, images: int = 10, **options: Any) -> Path:
    """`FOLDER/CLASS/NUMBER.png`, every picture another."""
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(images):
            (folder / name / f"{number:02}.png").write_bytes(
                encoded(picture(20 * k + number, **options))
            )
    return folder


def refused(said: str, source: Path | str, given: Given | None = None, **options: Any) -> None:
    """`describe` raises one line that holds `said`."""
    with pytest.raises(ZooError) as error:
        describe("pets", source, given, **options)
    assert said in str(error.value) and "\n" not in str(error.value)


pytestmark = pytest.mark.usefixtures("offline")


# --- what is read


def test_folders_without_splits(tmp_path: Path) -> None:
    own = describe("pets", write(tmp_path / "pets"))
    assert (own.images, own.splits, own.streamed) == (30, False, False)
    assert own.spec.classes == CLASSES and own.spec.num_classes == 3
    assert (own.spec.tag, own.spec.title, own.spec.size, own.spec.channels, own.spec.events) == (
        "pets",
        "pets",
        32,
        3,
        False,
    )


def test_mean_and_deviation_are_those_of_the_pixels(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets", width=16, height=16)
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
        describe("pets", write(tmp_path / "pets", images=4, width=width, height=height)).spec.size
        == size
    )


def test_what_is_given_is_not_read(tmp_path: Path) -> None:
    given = Given(size=48, channels=1, mean=(0.5,), std=(0.25,))
    spec = describe("pets", write(tmp_path / "pets"), given).spec
    assert (spec.size, spec.channels, spec.mean, spec.std) == (48, 1, (0.5,), (0.25,))


def test_grey_images_are_read_as_grey(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets")
    for path in folder.glob("*/*.png"):
        path.write_bytes(encoded(Image.open(path).convert("L")))
    assert describe("pets", folder).spec.channels == 1


def test_classes_of_a_split_are_those_of_training(tmp_path: Path) -> None:
    write(tmp_path / "pets" / "train")
    write(tmp_path / "pets" / "val", CLASSES[:2], 3)
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


# --- the recipe


def own_data(images: int, size: int, *, splits: bool = False) -> OwnData:
    return OwnData(
        DatasetSpec("pets", "pets", size, 3, 2, (0.5,) * 3, (0.25,) * 3), images, splits, False
    )


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


# --- what is refused


def test_classes_that_cannot_be_learnt(tmp_path: Path) -> None:
    refused(
        "split 'train' has one class (cat): a classifier needs two or more",
        write(tmp_path / "one", ["cat"]),
    )
    refused("split 'train' holds 3 images: give 10 or more", write(tmp_path / "few", images=1))
    for k, pair in enumerate(
        (["Cat", "cat"], ["guinea pig", "guinea_pig"], ["cafe\u0301", "caf\u00e9"])
    ):
        refused(
            f"one class in two spellings, {pair[0]!r} and {pair[1]!r}",
            write(tmp_path / f"twice{k}", [*pair, "cow"]),
        )
    (write(tmp_path / "empty") / "hexagon").mkdir()
    refused(
        "split 'train' holds no images of class 'hexagon': add some, or take the class out",
        tmp_path / "empty",
    )
    write(tmp_path / "late" / "train")
    write(tmp_path / "late" / "val", ["hexagon"])
    refused("split 'train' holds no images of class 'hexagon'", tmp_path / "late")


@pytest.mark.parametrize("name", ["a\nb", " ", "\x1b[31mred"], ids=repr)
def test_a_class_has_a_name_that_can_be_printed(name: str, tmp_path: Path) -> None:
    refused(
        f"has a class named {name!r}: give it a name of printable characters",
        write(tmp_path, ["dog", name]),
    )


def test_numbers_of_which_one_is_missing(tmp_path: Path) -> None:
    import datasets

    images = [{"bytes": encoded(picture(n)), "path": None} for n in range(20)]
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    for labels, said in (
        ((1, 2), "class '0', and labels up to 2: they begin with 1: subtract 1 of each"),
        (
            (0, 2),
            "class '1', and labels up to 2: number the classes from 0 without a gap, or give them names",
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
    assert describe("pets", write(tmp_path, ["10", "2", "02", "002"])).spec.classes == (
        "002",
        "02",
        "2",
        "10",
    )


def test_grey_among_coloured_images(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets")
    path = folder / "circle" / "00.png"
    path.write_bytes(encoded(Image.open(path).convert("L")))
    refused(
        "1 of 30 images are grey, the others coloured: read all as colour with --channels 3, or as grey",
        folder,
    )
    assert describe("pets", folder, Given(channels=3)).spec.channels == 3


def test_unreadable_images_are_named_or_left_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets")
    (folder / "circle" / "00.png").write_bytes(b"no image")
    refused("circle/00.png is not an image that can be read (unknown format", folder)
    assert describe("pets", folder, skip_bad=True).images == 30
    whole = (folder / "square" / "00.png").read_bytes()
    # the head of the file is well
    (folder / "circle" / "00.png").write_bytes(whole[: len(whole) // 2])
    refused("circle/00.png is not an image that can be read", folder)


def test_folders_that_lie_too_deep(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "animals", ["cat", "dog"])
    write(tmp_path / "deep" / "cars", ["new", "old"])
    refused(
        "name the folder whose folders are the classes, or put the images of each class into its own",
        tmp_path / "deep",
    )
    refused("images lie in ", tmp_path)
    for name in ("cat", "dog"):  # as Tiny-ImageNet has it
        write(tmp_path / "shallow" / name, ["images"])
    assert describe("pets", tmp_path / "shallow").spec.classes == ("cat", "dog")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Given(size=100_000), "--size 100000: valid are up to 1024 pixels"),
        (Given(mean=(0.5,)), "mean 0.5 and std "),
        (
            Given(std=(0.0, 1.0, 1.0)),
            "std 0 1 1 are not, for each of 3 channels, a number and one above 0",
        ),
        (Given(mean=(float("nan"),) * 3), "mean nan nan nan"),
    ],
)
def test_values_that_cannot_be_given(given: Given, said: str, tmp_path: Path) -> None:
    refused(said, write(tmp_path / "pets"), given)


def test_images_of_one_colour(tmp_path: Path) -> None:
    folder = write(tmp_path / "pets")
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


def test_names_that_mean_no_images_of_ones_own(tmp_path: Path) -> None:
    folder = str(write(tmp_path / "pets"))
    with pytest.raises(
        UnknownName,
        match=r"unknown data set 'pets'; valid are in1k, .* trained with `zoo train NAME --data FOLDER`",
    ):
        train_name("danet20-t1.pets", run=tmp_path / "run")
    with pytest.raises(UnknownName, match="unknown data set 'pets'"):
        zoo.load("danet20-t1.pets")
    with pytest.raises(
        UnknownName, match=r"names no data set: append a word of your own, as danet20-t1\.pets"
    ):
        train_name("danet20-t1", run=tmp_path / "run", data=folder)
    with pytest.raises(UnknownName, match=r"of letters a to z and digits, as danet20-t1\.pets"):
        train_name("danet20-t1.My-Pets", run=tmp_path / "run", data=folder)
    with pytest.raises(
        ConfigError, match="--size is for images under a word of your own: that of cifar10 is 32"
    ):
        train_name("danet20-t1.cifar10", run=tmp_path / "run", data=folder, given=Given(size=64))
    with pytest.raises(
        InputError, match=r"has 3 classes \(circle, square, triangle\); CIFAR-10 has 10"
    ):
        train_name("danet20-t1.cifar10", run=tmp_path / "run", data=folder)
    with pytest.raises(InputError, match=r"images of 7 x 7 pixels are too small .* as --size 8"):
        train_name("danet20-t1.pets", run=tmp_path / "run", data=folder, given=Given(size=7))
    assert not (tmp_path / "run").exists()


# --- a run, and what takes it


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pets`, images without splits, and `run`, trained on them."""
    folder = tmp_path_factory.mktemp("own")
    data = write(folder / "pets")
    said = train_name(
        "danet20-t1.pets", run=folder / "run", data=str(data), given=Given(size=8), overrides=QUICK
    )
    assert said.startswith("danet20-t1.pets: top-1 ") and "on 6 validation images" in said
    return folder


def run(*words: str | Path) -> int:
    return main([str(word) for word in words])


def test_a_run_stores_what_it_read(trained: Path) -> None:
    recorded = json.loads((trained / "run" / "recipe.json").read_text())
    assert recorded["data"]["classes"] == list(CLASSES) and recorded["images"] == 24
    metrics = json.loads((trained / "run" / "model" / "metrics.json").read_text())
    assert (metrics["split"], metrics["images"]) == ("validation", 6)
    origin = zoo.load(trained / "run" / "model").origin
    assert origin is not None and origin.data.classes == CLASSES and origin.data.held_out == 0.2


def test_a_model_is_evaluated_on_what_its_training_held_out(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("evaluate", trained / "run" / "model", "--data", trained / "pets", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    metrics = json.loads((trained / "run" / "model" / "metrics.json").read_text())
    assert (found["images"], found["top1"]) == (6, metrics["top1"])
    assert run("evaluate", trained / "run" / "model", "--data", trained / "pets") == 0
    assert "on the 6 validation images of pets" in capsys.readouterr().out
    origin = zoo.load(trained / "run" / "model").origin
    assert origin is not None
    parts = [
        load_for_evaluation(origin.data, split, 1, source=str(trained / "pets"))
        for split in ("train", "test")
    ]
    seen = [
        torch.cat([pixels for pixels, _ in part.evaluation(100)]).flatten(1).tolist()
        for part in parts
    ]
    assert [len(pixels) for pixels in seen] == [24, 6] and not set(map(tuple, seen[0])) & set(
        map(tuple, seen[1])
    )


def test_a_model_is_evaluated_on_a_test_split_where_there_is_one(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "train", images=3)
    write(tmp_path / "test", images=2)
    origin = zoo.load(trained / "run" / "model").origin
    assert origin is not None
    parts = [
        load_for_evaluation(origin.data, split, 1, source=str(tmp_path)).images
        for split in ("train", "test")
    ]
    assert parts == [9, 6]
    assert run("evaluate", trained / "run" / "model", "--data", tmp_path) == 0
    assert "on the 6 test images of pets" in capsys.readouterr().out


def test_images_that_were_added_are_not_taken_for_held_out(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They move others, which the training saw, into the share."""
    pets = shutil.copytree(trained / "pets", tmp_path / "pets")
    shutil.copyfile(pets / "circle" / "00.png", pets / "circle" / "99.png")
    assert run("evaluate", trained / "run" / "model", "--data", pets) == 2
    assert capsys.readouterr().err.endswith(
        "holds 31 images, and 20% of 30 were held out: give those alone, or put what to evaluate on into test/CLASS\n"
    )


def test_a_model_is_classified_with_by_class_names(
    trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        run("classify", trained / "run" / "model", trained / "pets" / "circle" / "00.png", "--json")
        == 0
    )
    (row,) = json.loads(capsys.readouterr().out)["predictions"]
    assert row["prediction"] in CLASSES
    assert run("classify", trained / "run" / "model") == 2
    assert capsys.readouterr().err.endswith(
        "no bundled images of 'pets'; there are some of fmnist: name images of your own\n"
    )
    assert run("evaluate", trained / "run" / "model") == 2
    assert (
        "pets are images of your own: name their folder or hub id with --data"
        in capsys.readouterr().err
    )


def test_a_model_s_folder_is_told_about(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("info", trained / "run" / "model", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["data"]["classes"]) == ("danet20-t1.pets", list(CLASSES))
    assert (told["trained"], told["provenance"], told["model"]["stem"]) == (
        True,
        "trained",
        "small",
    )
    bare = shutil.copytree(
        trained / "run" / "model", tmp_path / "bare", ignore=shutil.ignore_patterns("metrics*")
    )
    assert run("info", bare, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["trained"], told["provenance"]) == (None, "unknown")


@pytest.mark.slow
def test_a_model_is_exported_checked_priced_and_published(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, pets = trained / "run" / "model", trained / "pets"
    assert run("export", model, "--to", "onnx", "nir", "--out", tmp_path) == 0
    onnx = tmp_path / "danet20-t1.pets.onnx"
    capsys.readouterr()
    assert run("evaluate", onnx, "--data", pets, "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 6
    assert run("classify", onnx, pets / "circle" / "00.png") == 0
    assert run("verify", model, "--export", onnx) == 0
    assert run("check", model, "--target", "xylo") == 1
    capsys.readouterr()
    assert run("energy", model, "--data", pets, "--profile", "45nm-fp32", "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 6
    assert run("export", model, "--weights", "int8", "--data", pets, "--out", tmp_path) == 0
    assert "on 6 test images of pets" in capsys.readouterr().out
    assert run("push", model, "--repo", "somebody/pets", "--dry-run") == 0
    card = capsys.readouterr().out
    assert (
        "validation split, 6 images" in card
        and "license: unknown" in card
        and "20% of the images of each class" in card
    )
    assert "Classes: circle, square, triangle." in card
    assert run("push", model, "--repo", "somebody/pets", "--dry-run", "--licence", "cc-by-4.0") == 0
    assert "license: cc-by-4.0" in capsys.readouterr().out


def test_a_changed_folder_is_refused(trained: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(trained, tmp_path / "copy")
    again: dict[str, Any] = {"run": copy / "run", "data": str(copy / "pets"), "overrides": QUICK}
    train_name("danet20-t1.pets", given=Given(size=8), **again)  # the same images elsewhere
    with pytest.raises(
        ConfigError,
        match="holds a run whose data had size 8, and now have 16: give it the same images, or name",
    ):
        train_name("danet20-t1.pets", given=Given(size=16), **again)
    (copy / "pets" / "circle").rename(copy / "pets" / "disc")
    with pytest.raises(
        ConfigError,
        match="had classes circle, square, triangle, and now have disc, square, triangle: give it",
    ):
        train_name("danet20-t1.pets", given=Given(size=8), **again)
    (copy / "pets" / "disc").rename(copy / "pets" / "circle")
    shutil.copyfile(copy / "pets" / "circle" / "00.png", copy / "pets" / "circle" / "99.png")
    with pytest.raises(ConfigError, match="holds a run whose data had "):
        train_name("danet20-t1.pets", given=Given(size=8), **again)
    for text, said in (
        ("{", "is not a recipe that a run wrote"),
        ("{}", "holds a run of another recipe"),
    ):
        (copy / "run" / "recipe.json").write_text(text)
        with pytest.raises(ConfigError, match=said):
            train_name("danet20-t1.pets", given=Given(size=8), **again)


def test_a_model_of_own_data_stays_out_of_the_manifest(trained: Path, tmp_path: Path) -> None:
    from zoo.publishing.bundle import bundle

    with pytest.raises(
        ZooError, match=r"pets is no data set of the zoo: publish danet20-t1\.pets with `zoo push "
    ):
        bundle(trained / "run" / "model", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_network_is_created_for_data_of_ones_own() -> None:
    data = own_data(100, 64).spec
    model = zoo.create("danet20-t1", data=data, steps=2)
    assert (
        model.origin is not None
        and model.origin.name == "danet20-t2.pets"
        and model.config.stem == "medium"
    )
    assert DATASETS.keys().isdisjoint({data.tag})
    with pytest.raises(UnknownName, match=r"names the data 'dogs', and the data given are 'pets'"):
        zoo.create("danet20-t1.dogs", data=data)
