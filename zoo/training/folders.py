"""Images in folders: `SPLIT/CLASS/.../IMAGE`, or `CLASS/.../IMAGE` as a split `train`.

They are listed here, as `datasets` needs a second for each thousand files.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from zoo.datasets import DatasetSpec
from zoo.errors import InputError
from zoo.training.class_labels import label_classes
from zoo.training.split_names import NAMES, pick_split

__all__ = ["open_class_folders"]

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
LAYOUTS = (
    "train/CLASS/IMAGE and val/CLASS/IMAGE, CLASS/IMAGE, train-*.parquet and test-*.parquet, "
    "or train-*.tar and val-*.tar"
)


def open_class_folders(
    datasets: Any, folder: Path, split: str, data: DatasetSpec | None
) -> tuple[Any, str]:
    """Return a split's rows of image and label, and its name.

    Raises `InputError` where there are no images, or the folders are not the classes of `data`;
    without `data`, where they lie so deep that other folders may be the classes.
    """
    top, name, class_names = _find_split(folder, split)
    images = {class_name: list(_images(top / class_name)) for class_name in class_names}
    if not any(images.values()):
        raise InputError(f"{top} holds no images: valid are {', '.join(EXTENSIONS)}")
    if not data:
        _check_depth(top, [class_name for class_name in class_names if images[class_name]])
    labels = label_classes(class_names, data, str(folder))
    order = sorted(labels, key=labels.__getitem__)
    columns = {
        "image": [path for class_name in order for path in images[class_name]],
        "label": [labels[class_name] for class_name in order for _ in images[class_name]],
    }
    kind = datasets.Value("int64") if data else datasets.ClassLabel(names=order)
    features = datasets.Features(image=datasets.Image(decode=False), label=kind)
    return datasets.Dataset.from_dict(columns, features=features), name


def _find_split(folder: Path, split: str) -> tuple[Path, str, set[str]]:
    """Return the folder of a split, its name, and the classes of all splits.

    With those of all, a class that is missing in one split shifts no label.
    """
    valid_names = sum(NAMES.values(), ())
    present = [name for name in _subfolders(folder) if name in valid_names]
    splits = {name: _subfolders(folder / name) for name in present}
    splits = {name: classes for name, classes in splits.items() if classes}
    if splits:
        name = pick_split(splits, split, folder)
        return folder / name, name, set().union(*splits.values())
    classes = _subfolders(folder)
    if not any(next(_images(folder / class_name), None) for class_name in classes):
        raise InputError(f"{folder} holds no images in a valid layout: {LAYOUTS}")
    return folder, pick_split(["train"], split, folder), set(classes)


def _check_depth(top: Path, classes: Sequence[str]) -> None:
    """Raise `InputError` where the folders of every class's folder may be the classes.

    They may if no class has images of its own, and each has several folders of images.
    """
    inner: list[str] = []
    for class_name in classes:
        folder = top / class_name
        inner = [name for name in _subfolders(folder) if next(_images(folder / name), None)]
        if len(inner) < 2 or any(Path(image).parent == folder for image in _images(folder)):
            return
    examples = f"{classes[-1]}/{inner[0]}, {classes[-1]}/{inner[1]}, ..."
    raise InputError(
        f"{top}: images lie in {examples}: name the folder whose folders are the classes, "
        "or put the images of each class into its own folder alone"
    )


def _images(folder: Path) -> Iterator[str]:
    """Yield the paths of the images in a folder and below it, each once, wherever links lead."""
    visited = {os.path.realpath(parent) for parent in folder.absolute().parents}
    for top, folders, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(top)) in visited:
            folders.clear()
            continue
        visited.add(real)
        folders.sort()
        for file in sorted(files):
            if file.lower().endswith(EXTENSIONS) and not file.startswith("."):
                yield f"{top}/{file}"


def _subfolders(folder: Path) -> list[str]:
    """Return the names of a folder's folders, without hidden ones and those that macOS adds."""
    return [
        entry.name
        for entry in os.scandir(folder)
        if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))
    ]
