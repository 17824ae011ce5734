"""Folders of images are read completely, with the right labels, or refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from picture_splits import numbers
from refusals import refused
from support.pictures import encoded, picture

from zoo.datasets import DatasetSpec
from zoo.training import data as module
from zoo.training.data import Images, load_split
from zoo.training.mapped import MapDataset
from zoo.training.sampler import BatchSampler

pytestmark = pytest.mark.usefixtures("offline")


def test_folders_of_classes(write_folders: Callable[..., Path], toy: DatasetSpec) -> None:
    folder = write_folders(train=range(20), test=range(20, 29))
    assert sorted(numbers(load_split(toy, "train", folder))) == list(range(20))
    assert sorted(numbers(load_split(toy, "test", str(folder)))) == list(range(20, 29))


@pytest.mark.parametrize("name", ["validation", "valid", "val"])
def test_a_validation_split_goes_before_the_test_split(
    name: str, write_folders: Callable[..., Path], toy: DatasetSpec
) -> None:
    folder = write_folders(train=range(3), test=range(3, 6), **{name: range(6, 9)})
    assert numbers(load_split(toy, "test", folder)) == [6, 7, 8]


def test_what_is_no_image_in_a_folder_does_not_matter(
    write_folders: Callable[..., Path], toy: DatasetSpec
) -> None:
    """A flat test split, notes, hidden files and folders, and images one folder deeper."""
    folder = write_folders(train=range(6))
    (folder / "test").mkdir()
    for path in (
        "test/0.png",
        "train/a/boxes.txt",
        "train/a/.1.png",
        "train/notes.txt",
        "train/.cache/x.png",
        "other/x/1.png",
    ):
        (folder / path).parent.mkdir(exist_ok=True, parents=True)
        (folder / path).write_bytes(b"")
    (folder / "train/a/images").mkdir()
    (folder / "train/a/000.png").rename(folder / "train/a/images/000.PNG")
    assert sorted(numbers(load_split(toy, "train", folder))) == list(range(6))
    refused(
        "has no split 'validation' or 'valid' or 'val' or 'test'; there are train",
        load_split,
        toy,
        "test",
        folder,
    )


def test_a_class_that_a_split_lacks_shifts_no_label(
    write_folders: Callable[..., Path], toy: DatasetSpec
) -> None:
    assert numbers(load_split(toy, "test", write_folders(train=range(3), val=[2, 5]))) == [2, 5]


def test_classes_lie_in_the_order_of_the_data_s_names(
    write_folders: Callable[..., Path], toy: DatasetSpec
) -> None:
    """Where folders are called as the classes are, whatever the alphabet says; a name that is none
    of them is refused.
    """
    folder = write_folders(train=range(6), val=range(6))
    for split in ("train", "val"):
        for old, new in (("a", "t-shirt Top"), ("b", "Été"), ("c", "dog 日本")):
            (folder / split / old).rename(folder / split / new)
    named = replace(toy, classes=("T-shirt/top", "été", "Dog日本"))
    for split in ("train", "test"):
        assert sorted(numbers(load_split(named, split, folder))) == list(range(6))
    refused(
        "folders: class 0 is 'dog 日本'; that of Toy is 'cat'",
        load_split,
        replace(toy, classes=("cat", "été", "Bag")),
        "train",
        folder,
    )


def test_classes_that_are_numbers_lie_in_their_order(
    write_folders: Callable[..., Path], toy: DatasetSpec
) -> None:
    folder = write_folders(train=range(6))
    for old, new in (("a", "2"), ("b", "10"), ("c", "101")):
        (folder / "train" / old).rename(folder / "train" / new)
    assert sorted(numbers(load_split(toy, "train", folder))) == list(range(6))


def test_links_are_followed_once(write_folders: Callable[..., Path], toy: DatasetSpec) -> None:
    folder = write_folders(train=range(6))
    (folder / "train" / "c").rename(folder / "elsewhere")
    (folder / "train" / "c").symlink_to(folder / "elsewhere")
    (folder / "train" / "a" / "loop").symlink_to("..")
    assert sorted(numbers(load_split(toy, "train", folder))) == list(range(6))
    (folder / "train" / "b" / "lost.png").symlink_to("nowhere.png")
    refused(
        "lost.png is not an image that can be read ([Errno 2] No such file",
        load_split,
        toy,
        "train",
        folder,
    )


def test_pictures_of_any_kind_in_one_folder(
    write_folders: Callable[..., Path], toy: DatasetSpec
) -> None:
    """Grey ones and large ones among others, and what operating systems leave behind."""
    folder = write_folders(train=range(6))
    (folder / "train" / "__MACOSX").mkdir()
    for name in ("__MACOSX/000.png", "a/.DS_Store", "a/Thumbs.db", "a/._000.png"):
        (folder / "train" / name).write_bytes(b"x")
    (folder / "train/a/000.png").unlink()
    (folder / "train/a/006 é.JPG").write_bytes(encoded(picture(6).convert("L"), "JPEG"))
    (folder / "train/b/007.webp").write_bytes(encoded(picture(7, 90, 20), "WEBP", lossless=True))
    split = load_split(toy, "train", folder)
    assert isinstance(split, Images) and split.labels.tolist() == [0, 0, 1, 1, 1, 2, 2]
    assert split.pixels[[0, 2, 3, 4, 5, 6], 0, 0, 0].tolist() == [3, 1, 4, 7, 2, 5]
    assert torch.equal(split.pixels[1, 0], split.pixels[1, 1])


def test_images_that_do_not_fit_into_memory_stay_files(
    write_folders: Callable[..., Path], toy: DatasetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folders(train=range(6), val=range(6))
    assert isinstance(load_split(toy, "train", folder, crop=(0.1, 1.0)), MapDataset)
    assert isinstance(load_split(toy, "test", folder, crop=(0.1, 1.0)), Images), (
        "there is no random crop in an evaluation"
    )
    monkeypatch.setattr(module, "MAX_MEMORY_BYTES", 6 * 3 * 8 * 8 - 1)
    files = load_split(toy, "test", folder, workers=0)
    assert isinstance(files, MapDataset)
    monkeypatch.undo()
    images = load_split(toy, "test", folder)
    assert isinstance(images, Images)
    assert torch.equal(next(files.evaluation(6))[0], images.pixels), (
        "evaluated alike, wherever the images are"
    )
    assert torch.equal(
        next(files.training(BatchSampler(6, 6), 0))[0],
        next(images.training(BatchSampler(6, 6), 0))[0],
    )
