"""Training on a user's own images, and every command that takes the model."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from own_images import CLASSES, own_data, write_classes

import zoo
from zoo.cli import main
from zoo.datasets import DATASETS
from zoo.errors import ConfigError, InputError, UnknownName, ZooError
from zoo.training.describe import ImageOptions
from zoo.training.run import load_for_evaluation, train_name

pytestmark = pytest.mark.usefixtures("offline")
QUICK = {"epochs": "1", "batch_size": "8"}


def test_names_that_mean_no_images_of_ones_own(tmp_path: Path) -> None:
    folder = str(write_classes(tmp_path / "pets"))
    with pytest.raises(
        UnknownName,
        match=r"unknown data set 'pets'; valid are in1k, .* with `zoo train NAME --data FOLDER`",
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
        train_name(
            "danet20-t1.cifar10",
            run=tmp_path / "run",
            data=folder,
            image_options=ImageOptions(size=64),
        )
    with pytest.raises(
        InputError, match=r"has 3 classes \(circle, square, triangle\); CIFAR-10 has 10"
    ):
        train_name("danet20-t1.cifar10", run=tmp_path / "run", data=folder)
    with pytest.raises(InputError, match=r"images of 7 x 7 pixels are too small .* as --size 8"):
        train_name(
            "danet20-t1.pets", run=tmp_path / "run", data=folder, image_options=ImageOptions(size=7)
        )
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `pets`, images without splits, and `run`, trained on them."""
    folder = tmp_path_factory.mktemp("own")
    data = write_classes(folder / "pets")
    said = train_name(
        "danet20-t1.pets",
        run=folder / "run",
        data=str(data),
        image_options=ImageOptions(size=8),
        overrides=QUICK,
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
    write_classes(tmp_path / "train", images=3)
    write_classes(tmp_path / "test", images=2)
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
        "holds 31 images, and 20% of 30 were held out: "
        "give those alone, or put what to evaluate on into test/CLASS\n"
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
        "no bundled test images of 'pets', only of fmnist: give image files, or a data set "
        "(--images FILE ... or --data SOURCE)\n"
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
    assert run("energy", model, "--data", pets, "--device", "45nm-fp32", "--json") == 0
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
    train_name(
        "danet20-t1.pets", image_options=ImageOptions(size=8), **again
    )  # the same images elsewhere
    with pytest.raises(
        ConfigError,
        match="a run whose data had size 8, and now have 16: give it the same images, or name",
    ):
        train_name("danet20-t1.pets", image_options=ImageOptions(size=16), **again)
    (copy / "pets" / "circle").rename(copy / "pets" / "disc")
    with pytest.raises(
        ConfigError,
        match="had classes circle, square, triangle, and now have disc, square, triangle: give it",
    ):
        train_name("danet20-t1.pets", image_options=ImageOptions(size=8), **again)
    (copy / "pets" / "disc").rename(copy / "pets" / "circle")
    shutil.copyfile(copy / "pets" / "circle" / "00.png", copy / "pets" / "circle" / "99.png")
    with pytest.raises(ConfigError, match="holds a run whose data had "):
        train_name("danet20-t1.pets", image_options=ImageOptions(size=8), **again)
    for text, said in (
        ("{", "is not a recipe that a run wrote"),
        ("{}", "holds a run of another recipe"),
    ):
        (copy / "run" / "recipe.json").write_text(text)
        with pytest.raises(ConfigError, match=said):
            train_name("danet20-t1.pets", image_options=ImageOptions(size=8), **again)


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
