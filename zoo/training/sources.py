"""The rows of a data set: folders of images, Parquet, WebDataset shards, or the Hub.

All end as a `datasets.Dataset` or, if streamed, a `datasets.IterableDataset` with two columns:
`image`, undecoded (`{"bytes", "path"}`), and `label`, an integer in the order of the logits.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.datasets import DatasetSpec
from zoo.errors import InputError, first_line
from zoo.training.class_labels import label_classes
from zoo.training.columns import find_columns, is_text
from zoo.training.folders import open_class_folders
from zoo.training.split_names import NoSplit, pick_split

__all__ = ["NoSplit", "Rows", "check_labels", "has_split", "open_rows", "read_labels"]

# Smaller Parquet files are read as they are; of larger ones, `datasets` makes a copy on disk that
# it maps into memory.
MAX_MEMORY_BYTES = 2**32
NAMES_IN_SHARDS = (
    "labels are names, which shards cannot have: make them integers in the order of the logits"
)


@dataclass(frozen=True)
class Rows:
    """A split whose images are not decoded yet."""

    # `datasets.Dataset`, or `datasets.IterableDataset` if streamed; columns `image` and `label`
    data: Any
    split: str  # its name at the source
    streamed: bool = False
    images: int = 0  # their number; 0 for a stream that does not say
    # their names at the source, in the order of the labels; none where labels are mere integers
    classes: tuple[str, ...] = ()


def open_rows(
    data: DatasetSpec | None, split: str, source: str | Path, *, stream: bool = False
) -> Rows:
    """Return a split of a folder or a hub id, which `stream` leaves on the Hub.

    `split` is `train`, or `test` for the held-out one. Without `data`, any classes are taken and no
    label is checked. Raises `NoSplit` if the source has other splits alone, and `InputError` if it
    does not exist, or is not the data set.
    """
    datasets = _import_datasets()
    try:
        rows, name = _open(datasets, source, split, data, stream)
        where = f"{source}: split {name!r}"
        rows, classes = _with_labels(datasets, rows, data, where)
        streamed = isinstance(rows, datasets.IterableDataset)
        labels = np.empty(0, np.int64) if streamed else read_labels(rows)
    except InputError:
        raise
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        subject = f"{source}" if Path(source).is_dir() else f"{source} is no folder, and"
        reason = first_line(error)
        # This is what `datasets` says of a .cls file in a shard that holds a word.
        if reason.startswith("invalid literal for int()"):
            reason = NAMES_IN_SHARDS
        raise InputError(f"{subject} cannot be read as a data set: {reason}") from None
    if streamed:
        info = (rows.info.splits or {}).get(name)
        images = info.num_examples or 0 if info else 0
        return Rows(rows, name, streamed=True, images=images, classes=tuple(classes))
    if not len(rows):
        raise InputError(f"{where} holds no images")
    if data:
        check_labels(labels, data, where)
    return Rows(rows, name, images=len(rows), classes=tuple(classes))


def has_split(split: str, source: str | Path) -> bool:
    """Return whether a folder or hub id has that split.

    Raises `InputError` if it cannot be read.
    """
    try:
        open_rows(None, split, source)
    except NoSplit:
        return False
    return True


def read_labels(rows: Any) -> np.ndarray:
    """Return all labels of a `datasets.Dataset` as int64, -1 for one that is missing."""
    column = rows.select_columns(["label"]).with_format("arrow")[:]["label"]
    labels: np.ndarray = column.cast("int64").fill_null(-1).to_numpy()
    return labels


def check_labels(labels: np.ndarray, data: DatasetSpec, where: str) -> None:
    """Raise `InputError` if a label is missing, or none of the data's classes."""
    if not len(labels):
        return
    lowest, highest = labels.min(), labels.max()
    if lowest < 0:
        row = int(labels.argmin())
        raise InputError(f"{where} has no labels: that of row {row} is {lowest}")
    if highest >= data.num_classes:
        from_one = (lowest, highest) == (1, data.num_classes)
        hint = " (they begin with 1: subtract 1 of each)" if from_one else ""
        raise InputError(
            f"{where}: the label of row {int(labels.argmax())} is {highest}; "
            f"valid for {data.title} are 0 to {data.num_classes - 1}{hint}"
        )


def _import_datasets() -> Any:
    """Return the module `datasets`, which is slow to import and comes with an extra."""
    try:
        import datasets
    except ImportError:
        raise InputError(
            "this data set is read by the package datasets: pip install 'danet-zoo[train]'"
        ) from None
    return datasets


def _open(
    datasets: Any, source: str | Path, split: str, data: DatasetSpec | None, stream: bool
) -> tuple[Any, str]:
    """Return the rows of a split with all their columns, and its name at the source."""
    if Path(source).is_dir():
        return _open_folder(datasets, Path(source), split, data)
    hub_id = str(source).removeprefix("hf:")
    if not isinstance(source, str) or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", hub_id):
        raise InputError(f"{source} is no folder: name one, or a data set on the Hub as ORG/NAME")
    splits = datasets.load_dataset(hub_id, streaming=stream)
    name = pick_split(splits, split, hub_id)
    return splits[name], name


def _open_folder(
    datasets: Any, folder: Path, split: str, data: DatasetSpec | None
) -> tuple[Any, str]:
    """Return the rows of a folder's split, and its name.

    `datasets` tells splits by the names of files and folders.
    """

    def holds(ending: str) -> bool:
        return any(any(folder.glob(pattern + ending)) for pattern in ("*", "*/*"))

    if holds(".tar"):
        splits = datasets.load_dataset("webdataset", data_dir=str(folder), streaming=True)
        name = pick_split(splits, split, folder)
        return splits[name], name
    if holds(".parquet"):
        return _open_parquet(datasets, folder, split)
    return open_class_folders(datasets, folder, split, data)


def _open_parquet(datasets: Any, folder: Path, split: str) -> tuple[Any, str]:
    files = datasets.load_dataset_builder("parquet", data_dir=str(folder)).config.data_files
    name = pick_split(files, split, folder)
    if sum(Path(file).stat().st_size for file in files[name]) > MAX_MEMORY_BYTES:
        return datasets.load_dataset("parquet", data_dir=str(folder), split=name), name
    import pyarrow as pa
    import pyarrow.parquet as pq

    return datasets.Dataset(pa.concat_tables([pq.read_table(file) for file in files[name]])), name


def _with_labels(
    datasets: Any, rows: Any, data: DatasetSpec | None, where: str
) -> tuple[Any, Sequence[str]]:
    """Return the rows with the columns `image` and `label` alone, and the names of the classes."""
    image, label = find_columns(datasets, rows.features or {}, data, where)
    rows = rows.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
    renamed = {old: new for old, new in ((image, "image"), (label, "label")) if old != new}
    rows = rows.rename_columns(renamed)
    if is_text(rows.features["label"]):
        return _numbered(datasets, rows, data, where)
    return rows, getattr(rows.features["label"], "names", ())


def _numbered(
    datasets: Any, rows: Any, data: DatasetSpec | None, where: str
) -> tuple[Any, list[str]]:
    """Return rows with integers for the names of classes, and these names in their order."""
    if isinstance(rows, datasets.IterableDataset):
        raise InputError(f"{where}: {NAMES_IN_SHARDS}")
    names = rows.select_columns(["label"]).with_format("arrow")[:]["label"].to_pylist()
    positions = label_classes({name for name in names if name is not None}, data, where)
    labels = [-1 if name is None else positions[name] for name in names]
    numbered = rows.remove_columns("label").add_column("label", labels)
    return numbered, sorted(positions, key=positions.__getitem__)
