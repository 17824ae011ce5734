"""Splits by where they lie: read whole and right, or refused with what is wrong."""

import gzip
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import encoded, picture

from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import ConfigError, InputError
from zoo.training import data as module
from zoo.training import sources
from zoo.training.data import BatchSampler, Files, Images, Shards, divide, load_split

IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
FMNIST = DATASETS["fmnist"]


def refused(said: str, *args: Any, **options: Any) -> None:
    """`load_split` raises one line that holds `said`."""
    with pytest.raises(InputError) as error:
        load_split(*args, **options)
    assert said in str(error.value) and "\n" not in str(error.value)


def numbers(split: Any) -> list[int]:
    """Which pictures a split in memory holds, of which every label is checked."""
    assert isinstance(split, Images)
    assert (split.pixels.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
    assert split.pixels.shape == (split.images, 3, 8, 8)
    assert torch.equal(split.pixels[:, 0, 0, 0] % 3, split.labels)
    return [int(number) for number in split.pixels[:, 0, 0, 0]]


# --- in memory


def test_a_share_of_each_class_is_held_out() -> None:
    labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 3 + [3])
    images = Images(torch.arange(64, dtype=torch.uint8).view(64, 1, 1, 1), labels)
    left, held = divide(images, 0.25)
    # a class of one image is trained on
    assert [int((held.labels == label).sum()) for label in range(4)] == [10, 5, 1, 0]
    assert sorted([*left.pixels.flatten().tolist(), *held.pixels.flatten().tolist()]) == list(
        range(64)
    )
    assert all(
        labels[int(pixel)] == label
        for pixel, label in zip(held.pixels.flatten(), held.labels, strict=True)
    )
    torch.rand(3)
    assert torch.equal(divide(images, 0.25)[1].pixels, held.pixels)


def test_files_are_divided_as_images_in_memory_are(
    write_folders: Callable[..., Path], toy: DatasetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folders(train=range(30), val=range(3))
    in_memory = load_split(toy, "train", folder)
    monkeypatch.setattr(module, "MEMORY", 0)
    files = load_split(toy, "train", folder)
    assert isinstance(files, Files)
    for one, other in zip(divide(files, 0.2), divide(in_memory, 0.2), strict=True):
        assert one.images == other.images and torch.equal(one.labels, other.labels)
        ((pixels, labels),) = one.evaluation(100)
        assert torch.equal(pixels, other.pixels) and torch.equal(labels, other.labels)


def test_nothing_is_held_out_of_shards(write_shards: Callable[..., Path], toy: DatasetSpec) -> None:
    folder = write_shards({"train-0": [(n, encoded(picture(n)), n % 3) for n in range(6)]})
    with pytest.raises(
        ConfigError, match=r"no share \(0.2\) of shards can be held out, .* as val-0\.tar"
    ):
        load_split(toy, "train", folder, images=6, held_out=0.2)


def test_images_train_as_the_plan_says() -> None:
    images = Images(torch.arange(26, dtype=torch.uint8).view(26, 1, 1, 1), torch.arange(26))
    plan = BatchSampler(26, 4, seed=1, rank=1, ranks=2)
    batches = images.training(plan, 5)
    for step in range(5, 30):
        pixels, labels = next(batches)
        assert torch.equal(labels, plan.indexes(step)) and torch.equal(pixels.view(-1), labels)


@pytest.mark.parametrize("ranks", [1, 3, 30])
def test_images_are_evaluated_once(ranks: int) -> None:
    images = Images(torch.arange(26, dtype=torch.uint8).view(26, 1, 1, 1), torch.arange(26))
    batches = [batch for rank in range(ranks) for batch in images.evaluation(4, rank, ranks)]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(26))
    assert all(
        torch.equal(pixels.view(-1), labels) and 1 <= len(labels) <= 4 for pixels, labels in batches
    )


def test_images_move_to_a_device() -> None:
    images = Images(
        torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64), 3
    ).to("meta")
    assert (
        images.pixels.device.type,
        images.labels.device.type,
        images.images,
        images.skipped,
    ) == ("meta", "meta", 6, 3)
    assert next(images.training(BatchSampler(6, 2), 0))[0].device.type == "meta"


# --- folders of images


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
        "lost.png is not an image that can be read ([Errno 2] No such file", toy, "train", folder
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
    assert isinstance(load_split(toy, "train", folder, crop=(0.1, 1.0)), Files)
    assert isinstance(load_split(toy, "test", folder, crop=(0.1, 1.0)), Images), (
        "there is no random crop in an evaluation"
    )
    monkeypatch.setattr(module, "MEMORY", 6 * 3 * 8 * 8 - 1)
    files = load_split(toy, "test", folder, workers=0)
    assert isinstance(files, Files)
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


# --- Parquet


ROWS = [(encoded(picture(number)), number % 3) for number in range(20)]


def test_parquet(write_parquet: Callable[..., Path], toy: DatasetSpec) -> None:
    """As the Hub has it: any names of columns, any number of files, and more labels than are asked
    for.
    """
    folder = write_parquet(
        {
            "train-00000-of-00002": ROWS[:11],
            "train-00001-of-00002": ROWS[11:],
            "valid-00000-of-00001": ROWS[:4],
        }
    )
    assert numbers(load_split(toy, "train", folder)) == list(range(20))
    assert numbers(load_split(toy, "test", folder)) == [0, 1, 2, 3]


def test_parquet_that_does_not_fit_into_memory(
    write_parquet: Callable[..., Path], toy: DatasetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_parquet({"train": ROWS, "test": ROWS[:3]})
    small = load_split(toy, "train", folder, crop=(0.5, 1.0), workers=0)
    monkeypatch.setattr(sources, "MEMORY", 0)
    large = load_split(toy, "train", folder, crop=(0.5, 1.0), workers=0)
    for one, other in zip(
        next(small.training(BatchSampler(20, 5), 3)),
        next(large.training(BatchSampler(20, 5), 3)),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_parquet_that_names_neither_images_nor_classes(tmp_path: Path, toy: DatasetSpec) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "id": list(range(20)),
        "picture": [{"bytes": image, "path": None} for image, _ in ROWS],
        "cls": [y for _, y in ROWS],
    }
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    assert numbers(load_split(toy, "train", tmp_path)) == list(range(20))


@pytest.mark.parametrize(
    "kind",
    [
        "binary",
        "large_binary",
        "struct<bytes: binary>",
        "struct<bytes: binary, path: string, width: int32>",
    ],
)
@pytest.mark.parametrize(
    "labels",
    ["int32", "uint8", "string", "large_string", "dictionary<values=string, indices=int32>"],
)
def test_parquet_columns_of_any_type(
    kind: str, labels: str, tmp_path: Path, toy: DatasetSpec
) -> None:
    images = [image if "struct" not in kind else {"bytes": image} for image, _ in ROWS]
    values = [
        label if "int" in labels[:5] else ("kiwi", "lime", "plum")[label] for _, label in ROWS
    ]
    write_table(tmp_path, image=(images, kind), label=(values, labels))
    assert numbers(load_split(toy, "train", tmp_path)) == list(range(20))


def write_table(folder: Path, **columns: tuple[list[Any], str]) -> None:
    """`train.parquet` with columns of values and the name of their Arrow type."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string()), ("width", pa.int32())])
    types = {
        "struct<bytes: binary>": pa.struct([("bytes", pa.binary())]),
        "struct<bytes: binary, path: string, width: int32>": struct,
        "dictionary<values=string, indices=int32>": pa.dictionary(pa.int32(), pa.string()),
    }
    arrays = {
        name: pa.array(values, types.get(kind) or pa.type_for_alias(kind))
        for name, (values, kind) in columns.items()
    }
    pq.write_table(pa.table(arrays), folder / "train.parquet")


def test_labels_that_are_the_data_s_names(tmp_path: Path, toy: DatasetSpec) -> None:
    """Any number of them, as each says which label it is; others have to be all of the classes."""
    images, named = (
        ([image for image, _ in ROWS], "binary"),
        replace(toy, classes=("plum", "kiwi", "lime")),
    )
    write_table(
        tmp_path,
        image=images,
        label=([("PLUM", "Kiwi", "lime")[label % 2] for _, label in ROWS], "string"),
    )
    split = load_split(named, "train", tmp_path)
    assert isinstance(split, Images) and split.labels.tolist() == [label % 2 for _, label in ROWS]
    refused("split 'train' has 2 classes (Kiwi, PLUM); Toy has 3", toy, "train", tmp_path)
    write_table(tmp_path, image=images, label=(["plum", None] * 10, "string"))
    refused("split 'train' has no labels: that of row 1 is -1", named, "train", tmp_path)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"label": ([label + 1 for _, label in ROWS], "int64")},
            "are 0 to 2 (they begin with 1: subtract 1 of each)",
        ),
        (
            {"id": ([0] * 20, "int64"), "kind": ([1] * 20, "int64")},
            "several columns of labels, integers or names: id, kind; name",
        ),
        (
            {"label": ([0.0] * 20, "float64")},
            "no column of labels, integers or names; there are image (binary), label (float64)",
        ),
        ({"label": ([2**63] * 20, "uint64")}, "cannot be read as a data set"),
        (
            {
                "image": ([1] * 20, "int64"),
                "a": ([b""] * 20, "binary"),
                "b": ([b""] * 20, "binary"),
            },
            "several columns of images: a, b",
        ),
    ],
)
def test_columns_that_may_mean_anything_are_refused(
    columns: dict[str, Any], said: str, tmp_path: Path, toy: DatasetSpec
) -> None:
    write_table(tmp_path, **{"image": ([image for image, _ in ROWS], "binary")} | columns)
    refused(said, toy, "train", tmp_path)


def test_a_split_without_rows_is_refused(tmp_path: Path, toy: DatasetSpec) -> None:
    write_table(tmp_path, image=([], "binary"), label=([], "int64"))
    for options in ({}, {"crop": (0.5, 1.0)}):
        refused("split 'train' holds no images", toy, "train", tmp_path, **options)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("t - shirt / top", "Trouser"), None),
        (("T-shirt/top", "TROUSER"), None),
        (("n00000001", "n00000002"), None),
        (("0", "1"), None),
        (
            ("Trouser", "T-shirt/top"),
            "split 'train': class 0 is 'Trouser'; that of Toy is 'T-shirt/top'",
        ),
        (
            ("T-shirt/top", "Trouser", "Bag"),
            "split 'train' has 3 classes (T-shirt/top, Trouser, Bag); Toy has 2",
        ),
    ],
)
def test_classes_have_to_be_those_of_the_data(
    names: tuple[str, ...], said: str | None, write_parquet: Callable[..., Path]
) -> None:
    data = DatasetSpec("toy", "Toy", 8, 3, 2, (0.5,) * 3, (0.5,) * 3, ("T-shirt/top", "Trouser"))
    folder = write_parquet(
        {"train": [(ROWS[0][0], 0), (ROWS[1][0], 1)]}, names=names, columns=("image", "label")
    )
    if said:
        refused(said, data, "train", folder)
    else:
        assert load_split(data, "train", folder).images == 2


def test_the_labels_with_the_right_number_of_classes_are_taken(
    write_parquet: Callable[..., Path],
) -> None:
    """Of 3 fine and 7 coarse classes."""
    data = DatasetSpec("toy", "Toy", 8, 3, 7, (0.5,) * 3, (0.5,) * 3)
    images = load_split(data, "train", write_parquet({"train": ROWS}))
    assert isinstance(images, Images) and images.labels.tolist() == [6] * 20


@pytest.mark.parametrize(
    ("label", "said"),
    [(-1, "has no labels: that of row 4 is -1"), (None, "has no labels: that of row 4 is -1")],
)
def test_a_split_without_labels_is_refused(
    label: int | None, said: str, write_parquet: Callable[..., Path], toy: DatasetSpec
) -> None:
    refused(
        f"split 'test' {said}",
        toy,
        "test",
        write_parquet({"test": [*ROWS[:4], (ROWS[4][0], label)]}),
    )


def test_a_label_outside_the_classes_is_refused(tmp_path: Path, toy: DatasetSpec) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"image": [{"bytes": ROWS[0][0], "path": None}] * 4, "label": [0, 1, 3, 2]}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    refused(
        "split 'train': the label of row 2 is 3; valid for Toy are 0 to 2", toy, "train", tmp_path
    )


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"text": ["a"], "label": [1]},
            "has no column of images; there are text (string), label (int64)",
        ),
        (
            {"image": [{"bytes": b"", "path": ""}]},
            "has no column of labels, integers or names; there are image",
        ),
    ],
)
def test_a_missing_column_is_named(
    columns: dict[str, list[Any]], said: str, tmp_path: Path, toy: DatasetSpec
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    refused(f"{tmp_path}: split 'train' {said}", toy, "train", tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 and PAR1"])
def test_a_damaged_parquet_file_is_refused(
    content: bytes, tmp_path: Path, toy: DatasetSpec
) -> None:
    (tmp_path / "train.parquet").write_bytes(content)
    refused(f"{tmp_path} cannot be read as a data set", toy, "train", tmp_path)


# --- unreadable images


def test_an_unreadable_image_is_named_or_left_out(
    write_folders: Callable[..., Path], write_parquet: Callable[..., Path], toy: DatasetSpec
) -> None:
    folder = write_folders(train=range(7))
    (path := folder / "train/b/004.png").write_bytes(encoded(picture(4))[:60])
    rows = [*ROWS[:4], (path.read_bytes(), 1), *ROWS[5:7], (None, 2)]
    parquet = write_parquet({"train": rows})
    refused(f"{path} is not an image that can be read (", toy, "train", folder)
    refused("row 4 of split 'train' is not an image that can be read (", toy, "train", parquet)
    for source, bad in ((folder, 1), (parquet, 2)):
        split = load_split(toy, "train", source, skip_bad=True)
        assert sorted(numbers(split)) == [0, 1, 2, 3, 5, 6] and split.skipped == bad


def test_a_split_of_unreadable_images_is_refused(
    write_parquet: Callable[..., Path], toy: DatasetSpec
) -> None:
    refused(
        "none of the 2 images of split 'train'",
        toy,
        "train",
        write_parquet({"train": [(b"", 0)] * 2}),
        skip_bad=True,
    )


# --- shards


def test_shards_have_to_be_counted(write_shards: Callable[..., Path], toy: DatasetSpec) -> None:
    """Only to train on them: an evaluation ends where they end."""
    rows = [(number, image, label) for number, (image, label) in enumerate(ROWS)]
    folder = write_shards({"train-0": rows[:9], "train-1": rows[9:16], "val-0": rows[16:]})
    refused(
        f"{folder}: shards cannot be counted: say how many training images they hold",
        toy,
        "train",
        folder,
    )
    train, test = (
        load_split(toy, "train", folder, images=16),
        load_split(toy, "test", folder, workers=0),
    )
    assert isinstance(train, Shards) and isinstance(test, Shards)
    assert (train.images, test.images) == (16, 0)
    assert sum(len(labels) for _, labels in test.evaluation(3)) == 4


# --- the Hub


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
        assert isinstance(split, Shards)
        whole = [
            labels.tolist() for _, labels in islice(split.training(BatchSampler(20, 4), 0), 12)
        ]
        assert [
            labels.tolist() for _, labels in islice(split.training(BatchSampler(20, 4), 7), 5)
        ] == whole[7:]
    else:
        assert numbers(split) == list(range(20))


def test_a_hub_id_that_cannot_be_reached_is_one_line(toy: DatasetSpec) -> None:
    refused("org/name is no folder, and cannot be read as a data set: ", toy, "train", "org/name")


# --- what is no data set


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path, toy: DatasetSpec) -> None:
    for source in (tmp_path / "no", str(tmp_path / "no"), "no", "../no", "a/b/c"):
        refused(
            f"{source} is no folder: name one, or a data set on the Hub as ORG/NAME",
            toy,
            "train",
            source,
        )


def test_a_folder_without_images_is_answered_with_the_layouts(
    tmp_path: Path, toy: DatasetSpec
) -> None:
    refused(
        f"{tmp_path} holds no images in a valid layout: train/CLASS/IMAGE", toy, "train", tmp_path
    )
    (tmp_path / "train" / "a").mkdir(parents=True)
    refused(f"{tmp_path / 'train'} holds no images: valid are .jpg", toy, "train", tmp_path)


def test_folders_of_other_classes_are_refused(
    write_folders: Callable[..., Path], toy: DatasetSpec
) -> None:
    refused("folders has 2 classes (a, b); Toy has 3", toy, "train", write_folders(train=[0, 1]))


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
        f"read by the package {package}: pip install 'danet-zoo[{extra}]'", toy, "train", folder
    )


def test_images_of_two_channels_are_refused(write_folders: Callable[..., Path]) -> None:
    data = DatasetSpec("toy", "Toy", 8, 2, 3, (0.5,) * 2, (0.25,) * 2)
    refused(
        "Toy has 2 channels; image files have 1 or 3", data, "train", write_folders(train=range(3))
    )


# --- the IDX files of Fashion-MNIST


def idx(array: np.ndarray) -> bytes:
    return (
        bytes((0, 0, 8, array.ndim))
        + np.array(array.shape, ">u4").tobytes()
        + array.astype(np.uint8).tobytes()
    )


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 28, 28))


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    (tmp_path / IMAGES).write_bytes(gzip.compress(idx(pixels)))
    (tmp_path / LABELS).write_bytes(gzip.compress(idx(np.arange(7))))
    return tmp_path


def test_pixels_and_labels(folder: Path, pixels: np.ndarray) -> None:
    images = load_split(FMNIST, "test", folder)
    assert isinstance(images, Images)
    assert (images.pixels.dtype, images.labels.dtype) == (torch.uint8, torch.int64)
    assert np.array_equal(images.pixels.squeeze(1).numpy(), pixels)
    assert images.labels.tolist() == list(range(7))


@pytest.mark.parametrize("file", [IMAGES, LABELS])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    refused(
        f"{file} does not exist: install Debian's dataset-fashion-mnist, or name the folder with --data",
        FMNIST,
        "test",
        folder,
    )


@pytest.mark.parametrize("file", [IMAGES, LABELS])
@pytest.mark.parametrize("keep", [0, 5, 20, -1])
def test_a_truncated_download_is_refused(folder: Path, file: str, keep: int) -> None:
    path = folder / file
    path.write_bytes(path.read_bytes()[:keep])
    refused(file, FMNIST, "test", folder)


@pytest.mark.parametrize("position", range(12, 60, 7))
def test_edited_bytes_are_refused(folder: Path, position: int) -> None:
    """gzip's own checksum, or its decoder, notices."""
    raw = bytearray((folder / IMAGES).read_bytes())
    raw[position] ^= 0xFF
    (folder / IMAGES).write_bytes(raw)
    refused(IMAGES, FMNIST, "test", folder)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\0\x08",
        idx(np.zeros((7, 28, 28)))[:-1],
        idx(np.zeros((7, 28, 28))) + b"\0",
        idx(np.zeros((7, 28, 28))).replace(b"\x08", b"\x0d", 1),
        idx(np.zeros(7)),
        b"\0\0\x08\x03" + b"\xff" * 12,
    ],
    ids=["empty", "short header", "short", "long", "floats", "one dimension", "huge"],
)
def test_a_file_that_is_not_idx_images_is_refused(folder: Path, raw: bytes) -> None:
    (folder / IMAGES).write_bytes(gzip.compress(raw))
    refused(
        f"{IMAGES} is not a complete IDX file of bytes with 3 dimensions", FMNIST, "test", folder
    )


@pytest.mark.parametrize("shape", [(6, 28, 28), (7, 28, 27), (7, 32, 32)])
def test_images_that_are_not_the_data_set_are_refused(folder: Path, shape: tuple[int, ...]) -> None:
    (folder / IMAGES).write_bytes(gzip.compress(idx(np.zeros(shape))))
    refused(f"{folder}: {shape} images and 7 labels are not Fashion-MNIST", FMNIST, "test", folder)


def test_a_label_that_is_no_class_of_fashion_is_refused(folder: Path) -> None:
    (folder / LABELS).write_bytes(gzip.compress(idx(np.array([0, 1, 10, 3, 4, 5, 6]))))
    refused(
        f"{folder}: the label of row 2 is 10; valid for Fashion-MNIST are 0 to 9",
        FMNIST,
        "test",
        folder,
    )


def test_fashion_needs_no_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert load_split(FMNIST, "test", folder).images == 7


def test_where_debian_installs_fashion_is_said_if_nothing_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.FOLDERS, "fmnist", tmp_path)
    refused("install Debian's dataset-fashion-mnist", FMNIST, "train", tmp_path)
