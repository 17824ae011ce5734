"""What networks are given: a check that needs no torch, for runtimes as for models."""

from typing import Any

import numpy as np

from zoo.datasets import DatasetSpec
from zoo.errors import InputError

__all__ = ["check_normalised"]


def check_normalised(images: np.ndarray[Any, Any], data: DatasetSpec) -> None:
    """Raises `InputError` for images that are certainly bytes, `zoo.images.normalise` of which was forgotten: integers, or whole
    numbers of which one is larger than a pixel can become. Counts of events are whole numbers, and pass."""
    if data.events:
        return
    largest = max((1 - mean) / std for mean, std in zip(data.mean, data.std, strict=True))
    given = str(images.dtype)
    if images.dtype.kind == "f":
        if not images.size or images.max() <= max(largest, 1) or not (images == np.round(images)).all():
            return
        given = f"whole numbers up to {images.max():g}"
    raise InputError(
        f"images of {given} are bytes of pixels: networks of {data.title} take normalised ones, as `zoo.images.normalise(pixels, "
        "data)` makes of them, with the data of the network's origin"
    )
