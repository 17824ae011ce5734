"""The columns of a table that hold images and labels, recognised by type and name."""

import re
from typing import Any

from zoo.datasets import DatasetSpec
from zoo.errors import InputError
from zoo.training.class_labels import check_classes

__all__ = ["find_columns", "is_text"]

IMAGE_NAMES, LABEL_NAMES = ("image", "img"), ("label",)  # preferred where several columns fit
Features = dict[str, Any]  # name of a column -> its type, as `datasets` describes it


def find_columns(
    datasets: Any, features: Features, data: DatasetSpec | None, where: str
) -> tuple[str, str]:
    """Return the names of the columns of images and of labels.

    Every data set calls them otherwise. Raises `InputError` where no column fits, several do, or
    the classes are not those of `data`.
    """
    images = [
        name
        for name, kind in features.items()
        if isinstance(kind, datasets.Image) or _holds_encoded_images(kind)
    ]
    classes = {
        name: kind for name, kind in features.items() if isinstance(kind, datasets.ClassLabel)
    }
    fitting = [
        name for name, kind in classes.items() if data and kind.num_classes == data.num_classes
    ]
    integers = [name for name, kind in features.items() if re.match("u?int", _type_name(kind))]
    texts = [name for name, kind in features.items() if is_text(kind)]
    likely = [name for name in (*integers, *texts) if re.search("label|cls|class|target", name)]
    labels = fitting or list(classes) or likely or integers
    image = _only(images, IMAGE_NAMES, "images", features, where)
    label = _only(labels, LABEL_NAMES, "labels, integers or names", features, where)
    if data and label in classes:
        check_classes(classes[label].names, data, where)
    return image, label


def _only(
    candidates: list[str], preferred: tuple[str, ...], what: str, features: Features, where: str
) -> str:
    """Return the one column that can be meant. Raises `InputError` if there is none, or several."""
    chosen = [name for name in candidates if name in preferred] or candidates
    if not chosen:
        kinds = (
            f"{name} ({_type_name(kind) or type(kind).__name__})" for name, kind in features.items()
        )
        raise InputError(f"{where} has no column of {what}; there are {', '.join(kinds) or 'none'}")
    if len(chosen) > 1:
        raise InputError(
            f"{where} has several columns of {what}: {', '.join(chosen)}; "
            f"name the right one {preferred[0]!r}"
        )
    return chosen[0]


def _holds_encoded_images(kind: Any) -> bool:
    """Return whether a column may hold encoded images that its file does not call so."""
    if isinstance(kind, dict):
        return "bytes" in kind
    return _type_name(kind) in ("binary", "large_binary")


def is_text(kind: Any) -> bool:
    """Return whether a column holds text."""
    return _type_name(kind) in ("string", "large_string")


def _type_name(kind: Any) -> str:
    """Return the name of a column's type, empty for one that is composed of others."""
    return str(getattr(kind, "dtype", None) or "")
