"""Unreadable images, shards, the Hub, and sources that hold no data set."""

import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from picture_splits import ROWS, numbers
from refusals import refused
from support.pictures import encoded, picture

from zoo.datasets import DatasetSpec
from zoo.training.data import load_split
from zoo.training.sampler import BatchSampler
from zoo.training.sharded import ShardedDataset

pytestmark = pytest.mark.usefixtures("offline")


def test_an_unreadable_image_is_named_or_left_out(
    write_folders: Callable[..., Path], write_parquet: Callable[..., Path], toy: DatasetSpec
) -> None:
    folder = write_folders(train=range(7))
    (path := folder / "train/b/004.png").write_bytes(encoded(picture(4))[:60])
    rows = [*ROWS[:4], (path.read_bytes(), 1), *ROWS[5:7], (None, 2)]
    parquet = write_parquet({"train": rows})
    refused(f"{path} is not an image that can be read (", load_split, toy, "train", folder)
    refused(
        "row 4 of split 'train' is not an image that can be read (",
        load_split,
        toy,
        "train",
        parquet,
    )
    for source, bad in ((folder, 1), (parquet, 2)):
        split = load_split(toy, "train", source, skip_bad=True)
        assert sorted(numbers(split)) == [0, 1, 2, 3, 5, 6] and split.skipped == bad


def test_a_split_of_unreadable_images_is_refused(
    write_parquet: Callable[..., Path], toy: DatasetSpec
) -> None:
    refused(
        "none of the 2 images of split 'train'",
        load_split,
        toy,
        "train",
        write_parquet({"train": [(b"", 0)] * 2}),
        skip_bad=True,
    )


def test_shards_have_to_be_counted(write_shards: Callable[..., Path], toy: DatasetSpec) -> None:
    """Only to train on them: an evaluation ends where they end."""
    rows = [(number, image, label) for number, (image, label) in enumerate(ROWS)]
    folder = write_shards({"train-0": rows[:9], "train-1": rows[9:16], "val-0": rows[16:]})
    refused(
        f"{folder}: shards cannot be counted: say how many training images they hold",
        load_split,
        toy,
        "train",
        folder,
    )
    train, test = (
        load_split(toy, "train", folder, images=16),
        load_split(toy, "test", folder, workers=0),
    )
    assert isinstance(train, ShardedDataset) and isinstance(test, ShardedDataset)
    assert (train.images, test.images) == (16, 0)
    assert sum(len(labels) for _, labels in test.evaluation(3)) == 4


@pytest.mark.parametrize("source", ["org/name", "hf:org/name"])
@pytest.mark.parametrize("images", [0, 20])
def test_a_hub_id_is_loaded_or_streamed(
    source: str,
    images: int,
    write_parquet: Callable[..., Path],
    toy: DatasetSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import datasets

    folder, load = str(write_parquet({"train": ROWS, "test": ROWS[:5]})), datasets.load_dataset
    asked: list[tuple[Any, ...]] = []

    def fake(name: str, *, streaming: bool) -> Any:
        asked.append((name, streaming))
        return load("parquet", data_dir=folder, streaming=streaming)

    monkeypatch.setattr(datasets, "load_dataset", fake)
    split = load_split(toy, "train", source, images=images, workers=0)
    assert asked == [("org/name", images > 0)]
    if images:
        assert isinstance(split, ShardedDataset)
        whole = [
            labels.tolist() for _, labels in islice(split.training(BatchSampler(20, 4), 0), 12)
        ]
        assert [
            labels.tolist() for _, labels in islice(split.training(BatchSampler(20, 4), 7), 5)
        ] == whole[7:]
    else:
        assert numbers(split) == list(range(20))


def test_a_hub_id_that_cannot_be_reached_is_one_line(toy: DatasetSpec) -> None:
    refused(
        "org/name is no folder, and cannot be read as a data set: ",
        load_split,
        toy,
        "train",
        "org/name",
    )


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path, toy: DatasetSpec) -> None:
    for source in (tmp_path / "no", str(tmp_path / "no"), "no", "../no", "a/b/c"):
        refused(
            f"{source} is no folder: name one, or a data set on the Hub as ORG/NAME",
            load_split,
            toy,
            "train",
            source,
        )


def test_a_folder_without_images_is_answered_with_the_layouts(
    tmp_path: Path, toy: DatasetSpec
) -> None:
    refused(
        f"{tmp_path} holds no images in a valid layout: train/CLASS/IMAGE",
        load_split,
        toy,
        "train",
        tmp_path,
    )
    (tmp_path / "train" / "a").mkdir(parents=True)
    refused(
        f"{tmp_path / 'train'} holds no images: valid are .jpg", load_split, toy, "train", tmp_path
    )


def test_folders_of_other_classes_are_refused(
    write_folders: Callable[..., Path], toy: DatasetSpec
) -> None:
    refused(
        "folders has 2 classes (a, b); Toy has 3",
        load_split,
        toy,
        "train",
        write_folders(train=[0, 1]),
    )


@pytest.mark.parametrize(("package", "extra"), [("datasets", "train")])
def test_a_missing_extra_is_named(
    package: str,
    extra: str,
    write_folders: Callable[..., Path],
    toy: DatasetSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = write_folders(train=range(3))
    monkeypatch.setitem(sys.modules, package, None)
    refused(
        f"read by the package {package}: pip install 'danet-zoo[{extra}]'",
        load_split,
        toy,
        "train",
        folder,
    )


def test_images_of_two_channels_are_refused(write_folders: Callable[..., Path]) -> None:
    data = DatasetSpec("toy", "Toy", 8, 2, 3, (0.5,) * 2, (0.25,) * 2)
    refused(
        "Toy has 2 channels; image files have 1 or 3",
        load_split,
        data,
        "train",
        write_folders(train=range(3)),
    )
