"""The names of the classes of a user's own images."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from zoo.errors import InputError
from zoo.training.sources import Rows

__all__ = ["class_names"]

MIN_IMAGES = 10  # that anything can be learnt from


def class_names(rows: Rows, labels: np.ndarray, source: str) -> Sequence[str]:
    """Return the names of the classes in the order of the labels.

    Raises `InputError` for classes that cannot be told apart or learnt.
    """
    where = f"{source}: split {rows.split!r}"
    if len(labels) and labels.min() < 0:
        raise InputError(f"{where} has no labels: that of row {int(labels.argmin())} is missing")
    if not rows.classes:
        _check_numbers(labels, where)
    names = rows.classes or tuple(map(str, range(int(labels.max(initial=-1)) + 1)))
    _check_names(names, where)
    counts = np.bincount(labels, minlength=len(names))
    for name, count in zip(names, counts, strict=True):
        if not count:
            raise InputError(
                f"{where} holds no images of class {name!r}: add some, or take the class out"
            )
    if len(labels) < MIN_IMAGES:
        raise InputError(f"{where} holds {len(labels)} images: give {MIN_IMAGES} or more")
    return names


def _check_names(names: Sequence[str], where: str) -> None:
    """Raise `InputError` for too few names, or names that nobody can read or tell apart."""
    if len(names) < 2:
        raise InputError(
            f"{where} has one class ({', '.join(names)}): "
            "a classifier needs two or more, each a folder of its own"
        )
    for name in names:
        if not name.strip() or not name.isprintable():
            raise InputError(
                f"{where} has a class named {name!r}: give it a name of printable characters"
            )
    spellings: dict[str, str] = {}
    for name in names:
        if (other := spellings.setdefault(_normalised(name), name)) != name:
            raise InputError(
                f"{where} has one class in two spellings, {other!r} and {name!r}: "
                "give them one name, or two"
            )


def _check_numbers(labels: np.ndarray, where: str) -> None:
    """Raise `InputError` for numbers of classes without names that leave one out."""
    used = np.unique(labels)
    missing = next((number for number, label in enumerate(used.tolist()) if number != label), None)
    if missing is None:
        return
    if missing == 0 and used[-1] == len(used):
        hint = "they begin with 1: subtract 1 of each"
    else:
        hint = "number the classes from 0 without a gap, or give them names"
    raise InputError(
        f"{where} holds no images of class '{missing}', and labels up to {used[-1]}: {hint}"
    )


def _normalised(name: str) -> str:
    """Return what all spellings of a name share, whatever their case and what parts their words."""
    folded = unicodedata.normalize("NFKC", name).casefold().strip()
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", "", folded)
