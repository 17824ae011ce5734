"""A check of what networks are given, which needs no torch: for runtimes as for models."""

from typing import Any

import numpy as np

from zoo.datasets import DatasetSpec
from zoo.errors import InputError

__all__ = ["check_normalised"]

LARGEST = 16  # normalised pixels of known data stay below 5


def check_normalised(images: np.ndarray[Any, Any], data: DatasetSpec) -> None:
    """Raises `InputError` for images that are bytes, `zoo.images.normalise` of which was forgotten:
    integers, or numbers from 0 to far beyond what a pixel can become. Counts of events pass.
    """
    if data.events:
        return
    given = str(images.dtype)
    if images.dtype.kind == "f":
        # nor where one is NaN
        if not (images.size and images.min() >= 0 and images.max() >= LARGEST):
            return
        given = f"numbers from {images.min():g} to {images.max():g}"
    raise InputError(
        f"images of {given} are bytes of pixels: networks of {data.title} take normalised ones, as `zoo.images.normalise(pixels, "
        "data)` makes of them, with the data of the network's origin"
    )
