"""The labels that the names of classes mean."""

import re
from collections.abc import Callable, Collection, Sequence

from zoo.datasets import DatasetSpec
from zoo.errors import InputError, first_few

__all__ = ["check_classes", "label_classes"]

MAX_SHOWN = 5  # names in a message
WORDNET_ID = re.compile(r"n\d{8}")  # of ImageNet's classes, whose names it does not tell


def label_classes(names: Collection[str], data: DatasetSpec | None, where: str) -> dict[str, int]:
    """Return the label of each name of a class.

    It is the data's own where all names are among the data's classes; else the names are numbered
    in the order of numbers or of the alphabet. Raises `InputError` if they are not the data's.
    """
    if data:
        for spelling in (str, _letters):
            labels = _labels_by_name(names, data.classes, spelling)
            if labels is not None:
                return labels
    if all(map(str.isdecimal, names)):
        ordered = sorted(names, key=lambda name: (int(name), name))
    else:
        ordered = sorted(names)
    if data:
        check_classes(ordered, data, where)
    return {name: label for label, name in enumerate(ordered)}


def _labels_by_name(
    names: Collection[str], classes: Sequence[str], spelling: Callable[[str], str]
) -> dict[str, int] | None:
    """Return the label of each name by its spelling, None unless every name has one of its own."""
    spelt = {name: spelling(name) for name in names}
    labels = {spelling(name): label for label, name in enumerate(classes)}
    distinct = len(set(spelt.values())) == len(names)
    if not distinct or "" in labels or not labels.keys() >= set(spelt.values()):
        return None
    return {name: labels[spelt[name]] for name in names}


def check_classes(names: Sequence[str], data: DatasetSpec, where: str) -> None:
    """Raise `InputError` if these are not the data's classes in their order.

    Names are compared by their letters, as their spelling varies.
    """
    if len(names) != data.num_classes:
        some = first_few(names, MAX_SHOWN)
        raise InputError(
            f"{where} has {len(names)} classes ({some}); {data.title} has {data.num_classes}"
        )
    # The letters of `cat1` and `cat2` are the same.
    letters_differ = len(set(map(_letters, data.classes))) == len(data.classes)
    spelling: Callable[[str], str] = _letters if letters_differ else str
    for index, (name, own_name) in enumerate(zip(names, data.classes, strict=False)):
        one, other = spelling(name), spelling(own_name)
        if one and other and one != other and not WORDNET_ID.fullmatch(name):
            raise InputError(
                f"{where}: class {index} is {name!r}; that of {data.title} is {own_name!r}"
            )


def _letters(name: str) -> str:
    """Return the letters of a name alone, in lower case."""
    return re.sub(r"[\W\d_]", "", name).lower()
