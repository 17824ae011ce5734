"""The names of splits at a source."""

from collections.abc import Iterable
from pathlib import Path

from zoo.errors import InputError

__all__ = ["NAMES", "NoSplit", "pick_split"]

# By precedence: a held-out split is `validation` where there is one, as ImageNet's own `test` has
# no labels.
NAMES = {"train": ("train",), "test": ("validation", "valid", "val", "test")}


class NoSplit(InputError):
    """The source has other splits than the one that was asked for."""


def pick_split(splits: Iterable[str], split: str, source: str | Path) -> str:
    """Return the name of a split among those of the source. Raises `NoSplit` if it is not there."""
    names = [str(name) for name in splits]
    for name in NAMES[split]:
        if name in names:
            return name
    raise NoSplit(
        f"{source} has no split {' or '.join(map(repr, NAMES[split]))}; "
        f"there are {', '.join(sorted(names))}"
    )
