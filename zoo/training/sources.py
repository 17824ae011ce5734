"""Where images lie: folders of images, Parquet, WebDataset shards, the Hub, and the IDX files of
Fashion-MNIST.

All but the last end as a `datasets.Dataset` or, if streamed, a `datasets.IterableDataset` with two
columns: `image`, undecoded (`{"bytes", "path"}`), and `label`, an integer in the order of the
model's logits.
"""

import gzip
import os
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.datasets import DatasetSpec
from zoo.errors import InputError, first_line

__all__ = ["NoSplit", "Rows", "check_labels", "has_split", "open_rows", "read_idx", "read_labels"]

IDX = {"train": "train", "test": "t10k"}  # how the names of a split's IDX files begin
# ImageNet's own `test` has no labels
SPLITS = {"train": ("train",), "test": ("validation", "valid", "val", "test")}
EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# bytes of Parquet that are read as they are; of more, `datasets` makes a copy on disk that it maps
MEMORY = 2**32
NAMES_IN_SHARDS = (
    "labels are names, which shards cannot have: make them integers in the order of the logits"
)
LAYOUTS = "train/CLASS/IMAGE and val/CLASS/IMAGE, CLASS/IMAGE, train-*.parquet and test-*.parquet, or train-*.tar and val-*.tar"


class NoSplit(InputError):
    """The source has other splits than the one that was asked for."""


@dataclass(frozen=True)
class Rows:
    """A split whose images are not decoded yet."""

    # `datasets.Dataset`, or `datasets.IterableDataset` if streamed; columns `image` and `label`
    data: Any
    split: str  # its name at the source
    streamed: bool = False
    images: int = 0  # how many; 0 for a stream that does not say
    # their names at the source, in the order of the labels; none where labels are mere integers
    classes: tuple[str, ...] = ()


def open_rows(
    data: DatasetSpec | None, split: str, source: str | Path, *, stream: bool = False
) -> Rows:
    """Open a split (`train`; `test` means the held-out one) of a folder or a hub id, which `stream`
    leaves on the Hub.

    Without `data`, any classes are taken and no label is checked. Raises `NoSplit` if the source
    has other splits alone, and `InputError` if it does not exist, or is not the data set.
    """
    datasets = _library()
    folder, hub = Path(source), str(source).removeprefix("hf:")
    try:
        if folder.is_dir():
            rows, name = _open_folder(datasets, folder, split, data)
        elif isinstance(source, str) and re.fullmatch(r"\w[\w.-]*/[\w.-]+", hub):
            opened = datasets.load_dataset(hub, streaming=stream)
            name = _pick(opened, split, hub)
            rows = opened[name]
        else:
            raise InputError(
                f"{source} is no folder: name one, or a data set on the Hub as ORG/NAME"
            )
        image, label = _columns(datasets, rows.features or {}, data, f"{source}: split {name!r}")
        rows = rows.select_columns([image, label]).cast_column(image, datasets.Image(decode=False))
        rows = rows.rename_columns(
            {old: new for old, new in ((image, "image"), (label, "label")) if old != new}
        )
        classes = getattr(rows.features["label"], "names", ())
        if _is_text(rows.features["label"]):
            rows, classes = _numbered(datasets, rows, data, f"{source}: split {name!r}")
        labels = read_labels(rows) if isinstance(rows, datasets.Dataset) else np.empty(0, np.int64)
    except InputError:
        raise
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        where = f"{source}" if folder.is_dir() else f"{source} is no folder, and"
        reason = first_line(error)
        # what `datasets` says of a .cls file in a shard that holds a word
        if reason.startswith("invalid literal for int()"):
            reason = NAMES_IN_SHARDS
        raise InputError(f"{where} cannot be read as a data set: {reason}") from None
    if isinstance(rows, datasets.IterableDataset):
        known = (rows.info.splits or {}).get(name)
        return Rows(rows, name, True, known.num_examples or 0 if known else 0, tuple(classes))
    if not len(rows):
        raise InputError(f"{source}: split {name!r} holds no images")
    if data:
        check_labels(labels, data, f"{source}: split {name!r}")
    return Rows(rows, name, images=len(rows), classes=tuple(classes))


def has_split(split: str, source: str | Path) -> bool:
    """Whether a folder or hub id comes with that split. Raises `InputError` if it cannot be read."""
    try:
        open_rows(None, split, source)
    except NoSplit:
        return False
    return True


def read_labels(rows: Any) -> np.ndarray:
    """Read all labels of a `datasets.Dataset` as int64; -1 for one that is missing."""
    labels = rows.select_columns(["label"]).with_format("arrow")[:]["label"]
    found: np.ndarray = labels.cast("int64").fill_null(-1).to_numpy()
    return found


def read_idx(data: DatasetSpec, split: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 `[N, C, H, W]` and labels uint8 `[N]` of Fashion-MNIST (Xiao et al. 2017) as
    Debian installs it.
    """
    pixels = _read_idx(folder / f"{IDX[split]}-images-idx3-ubyte.gz", 3)
    labels = _read_idx(folder / f"{IDX[split]}-labels-idx1-ubyte.gz", 1)
    if (
        len(pixels) != len(labels)
        or pixels.shape[1:] != (data.size, data.size)
        or data.channels != 1
    ):
        raise InputError(
            f"{folder}: {tuple(pixels.shape)} images and {len(labels)} labels are not {data.title}"
        )
    check_labels(labels, data, str(folder))
    return pixels[:, None], labels


def check_labels(labels: np.ndarray, data: DatasetSpec, where: str) -> None:
    """Raises `InputError` if a label is missing, or none of the data's classes."""
    if len(labels) and labels.min() < 0:
        row = int(labels.argmin())
        raise InputError(f"{where} has no labels: that of row {row} is {labels[row]}")
    if len(labels) and labels.max() >= data.num_classes:
        row = int(labels.argmax())
        hint = (
            " (they begin with 1: subtract 1 of each)"
            if (labels.min(), labels.max()) == (1, data.num_classes)
            else ""
        )
        raise InputError(
            f"{where}: the label of row {row} is {labels[row]}; valid for {data.title} are 0 to {data.num_classes - 1}{hint}"
        )


def _read_idx(path: Path, dims: int) -> np.ndarray:
    """A gzipped IDX file of bytes: magic 0x0000_08dd, `dd` sizes as big-endian uint32, the bytes."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist: install Debian's dataset-fashion-mnist, or name the folder with --data"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    sizes = np.frombuffer(raw, ">u4", dims, 4) if len(raw) >= 4 + 4 * dims else np.zeros(dims, int)
    if raw[:4] != bytes((0, 0, 8, dims)) or len(raw) != 4 + 4 * dims + int(
        np.prod(sizes.astype(np.int64))
    ):
        raise InputError(f"{path} is not a complete IDX file of bytes with {dims} dimensions")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(sizes).copy()


def _library() -> Any:
    """The module `datasets`, which is slow to import and comes with an extra."""
    try:
        import datasets
    except ImportError:
        raise InputError(
            "this data set is read by the package datasets: pip install 'danet-zoo[train]'"
        ) from None
    return datasets


def _open_folder(
    datasets: Any, folder: Path, split: str, data: DatasetSpec | None
) -> tuple[Any, str]:
    """The rows of a split, as they are, and its name; `datasets` tells splits by the names of files
    and folders.
    """

    def holds(ending: str) -> bool:
        return any(True for pattern in ("*", "*/*") for _ in folder.glob(pattern + ending))

    if holds(".tar"):
        opened = datasets.load_dataset("webdataset", data_dir=str(folder), streaming=True)
        name = _pick(opened, split, folder)
        return opened[name], name
    if not holds(".parquet"):
        return _open_class_folders(datasets, folder, split, data)
    files = datasets.load_dataset_builder("parquet", data_dir=str(folder)).config.data_files
    name = _pick(files, split, folder)
    if sum(Path(file).stat().st_size for file in files[name]) > MEMORY:
        return datasets.load_dataset("parquet", data_dir=str(folder), split=name), name
    import pyarrow as pa
    import pyarrow.parquet as pq

    return datasets.Dataset(pa.concat_tables([pq.read_table(file) for file in files[name]])), name


def _open_class_folders(
    datasets: Any, folder: Path, split: str, data: DatasetSpec | None
) -> tuple[Any, str]:
    """`SPLIT/CLASS/.../IMAGE`, or `CLASS/.../IMAGE` as a split `train`. Listed here, as `datasets`
    needs a second for each thousand files.
    """
    splits = {
        name: _folders(folder / name)
        for name in _folders(folder)
        if name in sum(SPLITS.values(), ())
    }
    splits = {name: classes for name, classes in splits.items() if classes}
    top = folder
    if splits:
        name = _pick(splits, split, folder)
        top = folder / name
    else:
        splits = {"train": _folders(folder)}
        if not any(next(_images(folder / class_name), None) for class_name in splits["train"]):
            raise InputError(f"{folder} holds no images in a valid layout: {LAYOUTS}")
        name = _pick(splits, split, folder)
    # of all splits, so that a class missing in one shifts no label
    found = set().union(*splits.values())
    images = {class_name: list(_images(top / class_name)) for class_name in found}
    if not any(images.values()):
        raise InputError(f"{top} holds no images: valid are {', '.join(EXTENSIONS)}")
    if not data:
        _check_depth(top, [class_name for class_name in found if images[class_name]])
    classes = _positions(found, data, str(folder))
    order = sorted(classes, key=classes.__getitem__)
    paths = [path for class_name in order for path in images[class_name]]
    labels = [classes[class_name] for class_name in order for _ in images[class_name]]
    kind = datasets.Value("int64") if data else datasets.ClassLabel(names=order)
    features = datasets.Features(image=datasets.Image(decode=False), label=kind)
    return datasets.Dataset.from_dict({"image": paths, "label": labels}, features=features), name


def _check_depth(top: Path, classes: Sequence[str]) -> None:
    """Raises `InputError` where every class has no images of its own, and several folders of them:
    these may be the classes.
    """
    below: list[str] = []
    for class_name in classes:
        folder = top / class_name
        below = [name for name in _folders(folder) if next(_images(folder / name), None)]
        if len(below) < 2 or any(Path(image).parent == folder for image in _images(folder)):
            return
    raise InputError(
        f"{top}: images lie in {classes[-1]}/{below[0]}, {classes[-1]}/{below[1]}, ...: name the folder whose folders are the "
        "classes, or put the images of each class into its own folder alone"
    )


def _images(folder: Path) -> Iterator[str]:
    """The paths of the images in a folder and those below it, each of them once, wherever links
    lead.
    """
    seen = {os.path.realpath(parent) for parent in folder.absolute().parents}
    for top, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(top)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (
            f"{top}/{file}"
            for file in sorted(files)
            if file.lower().endswith(EXTENSIONS) and not file.startswith(".")
        )


def _folders(folder: Path) -> list[str]:
    return [
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))
    ]


def _pick(splits: Iterable[str], split: str, where: str | Path) -> str:
    names = [str(name) for name in splits]
    for name in SPLITS[split]:
        if name in names:
            return name
    raise NoSplit(
        f"{where} has no split {' or '.join(map(repr, SPLITS[split]))}; there are {', '.join(sorted(names))}"
    )


def _columns(
    datasets: Any, features: dict[str, Any], data: DatasetSpec | None, where: str
) -> tuple[str, str]:
    """The names of the column of images and of that of labels, found by type, as every data set
    calls them otherwise.
    """
    images = [
        name
        for name, kind in features.items()
        if isinstance(kind, datasets.Image) or _is_encoded(kind)
    ]
    classes = {
        name: kind for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)
    }
    fitting = [
        name for name, kind in classes.items() if data and kind.num_classes == data.num_classes
    ]
    integers = [
        name
        for name, kind in features.items()
        if re.match("u?int", str(getattr(kind, "dtype", "")))
    ]
    texts = [name for name, kind in features.items() if _is_text(kind)]
    likely = [name for name in (*integers, *texts) if re.search("label|cls|class|target", name)]
    image = _only(images, ("image", "img"), "images", features, where)
    label = _only(
        fitting or list(classes) or likely or integers,
        ("label",),
        "labels, integers or names",
        features,
        where,
    )
    if data and label in classes:
        _check_classes(classes[label].names, data, where)
    return image, label


def _only(
    candidates: list[str],
    preferred: tuple[str, ...],
    what: str,
    features: dict[str, Any],
    where: str,
) -> str:
    """The one column that can be meant."""
    chosen = [name for name in candidates if name in preferred] or candidates
    if not chosen:
        kinds = (
            f"{name} ({getattr(kind, 'dtype', None) or type(kind).__name__})"
            for name, kind in features.items()
        )
        raise InputError(f"{where} has no column of {what}; there are {', '.join(kinds) or 'none'}")
    if len(chosen) > 1:
        raise InputError(
            f"{where} has several columns of {what}: {', '.join(chosen)}; name the right one {preferred[0]!r}"
        )
    return chosen[0]


def _is_encoded(kind: Any) -> bool:
    """Encoded images in a file that does not call them so."""
    return (
        "bytes" in kind
        if isinstance(kind, dict)
        else getattr(kind, "dtype", "") in ("binary", "large_binary")
    )


def _is_text(kind: Any) -> bool:
    return getattr(kind, "dtype", "") in ("string", "large_string")


def _numbered(
    datasets: Any, rows: Any, data: DatasetSpec | None, where: str
) -> tuple[Any, list[str]]:
    """The same rows with integers for the names of classes, and these names in their order."""
    if isinstance(rows, datasets.IterableDataset):
        raise InputError(f"{where}: {NAMES_IN_SHARDS}")
    names = rows.select_columns(["label"]).with_format("arrow")[:]["label"].to_pylist()
    positions = _positions({name for name in names if name is not None}, data, where)
    labels = [-1 if name is None else positions[name] for name in names]
    return rows.remove_columns("label").add_column("label", labels), sorted(
        positions, key=positions.__getitem__
    )


def _positions(names: Collection[str], data: DatasetSpec | None, where: str) -> dict[str, int]:
    """The label that each name of a class means: by the data's own names where all are among them,
    else in the order of numbers or of the alphabet. Raises `InputError` if these are not the data's
    classes.
    """
    for spelling in (str, _letters) if data else ():
        spelt = {name: spelling(name) for name in names}
        known = {spelling(name): label for label, name in enumerate(data.classes if data else ())}
        if (
            known.keys() >= set(spelt.values())
            and len(set(spelt.values())) == len(names)
            and "" not in known
        ):
            return {name: known[spelt[name]] for name in names}
    ordered = (
        sorted(names, key=lambda name: (int(name), name))
        if all(map(str.isdecimal, names))
        else sorted(names)
    )
    if data:
        _check_classes(ordered, data, where)
    return {name: label for label, name in enumerate(ordered)}


def _letters(name: str) -> str:
    """Of the name of a class, whose spelling varies."""
    return re.sub(r"[\W\d_]", "", name).lower()


def _check_classes(names: Sequence[str], data: DatasetSpec, where: str) -> None:
    """Raises `InputError` if these are not the data's classes. Names are compared by their letters."""
    if len(names) != data.num_classes:
        some = f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        raise InputError(
            f"{where} has {len(names)} classes ({some}); {data.title} has {data.num_classes}"
        )
    # as not in `cat1`, `cat2`
    told_by_letters = len(set(map(_letters, data.classes))) == len(data.classes)
    for index, (name, known) in enumerate(zip(names, data.classes, strict=False)):
        letters, expected = (_letters(name), _letters(known)) if told_by_letters else (name, known)
        # a WordNet id says nothing
        if letters and expected and letters != expected and not re.fullmatch(r"n\d{8}", name):
            raise InputError(
                f"{where}: class {index} is {name!r}; that of {data.title} is {known!r}"
            )
