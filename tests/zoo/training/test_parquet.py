"""Parquet files are read with any columns and types, or refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from picture_splits import ROWS, numbers
from refusals import refused

from zoo.datasets import DatasetSpec
from zoo.training import sources
from zoo.training.data import Images, load_split
from zoo.training.sampler import BatchSampler

pytestmark = pytest.mark.usefixtures("offline")


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
    monkeypatch.setattr(sources, "MAX_MEMORY_BYTES", 0)
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
    refused(
        "split 'train' has 2 classes (Kiwi, PLUM); Toy has 3", load_split, toy, "train", tmp_path
    )
    write_table(tmp_path, image=images, label=(["plum", None] * 10, "string"))
    refused(
        "split 'train' has no labels: that of row 1 is -1", load_split, named, "train", tmp_path
    )


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
    refused(said, load_split, toy, "train", tmp_path)


def test_a_split_without_rows_is_refused(tmp_path: Path, toy: DatasetSpec) -> None:
    write_table(tmp_path, image=([], "binary"), label=([], "int64"))
    for options in ({}, {"crop": (0.5, 1.0)}):
        refused("split 'train' holds no images", load_split, toy, "train", tmp_path, **options)


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
        refused(said, load_split, data, "train", folder)
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
        load_split,
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
        "split 'train': the label of row 2 is 3; valid for Toy are 0 to 2",
        load_split,
        toy,
        "train",
        tmp_path,
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
    refused(f"{tmp_path}: split 'train' {said}", load_split, toy, "train", tmp_path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 and PAR1"])
def test_a_damaged_parquet_file_is_refused(
    content: bytes, tmp_path: Path, toy: DatasetSpec
) -> None:
    (tmp_path / "train.parquet").write_bytes(content)
    refused(f"{tmp_path} cannot be read as a data set", load_split, toy, "train", tmp_path)
