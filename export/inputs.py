"""Checks of the images that a network is given; they need no torch, for runtimes as for models."""

import numpy as np

from zoo.arrays import Array
from zoo.datasets import DatasetSpec
from zoo.errors import InputError

__all__ = ["as_network_input", "check_normalised"]

MAX_NORMALISED = 16  # normalised pixels of the data sets in `zoo.datasets` stay below 5


def as_network_input(
    images: Array, *, name: str, data: DatasetSpec, batch: int | None = None, steps: int = 0
) -> Array:
    """Return `images` as float32, to which numbers of any other type are rounded.

    `name` is the network's, for messages. Raises `InputError` for anything but a numpy array
    `[B, C, H, W]` of finite real numbers, normalised, of the size of `data`, and with `batch` of
    so many images; or with `steps` for anything but events of so many, `[T, B, C, H, W]`.
    """
    if not isinstance(images, np.ndarray) or images.dtype.kind not in "fiub":
        is_array = isinstance(images, np.ndarray)
        kind = f"an array of {images.dtype}" if is_array else f"a {type(images).__name__}"
        raise InputError(
            f"input is {kind}: {name} takes a numpy array of float32, "
            "or of numbers to be rounded to it"
        )
    size = (data.channels, data.size, data.size)
    axes = (steps,) if steps else ()
    fits = images.ndim == len(axes) + 4 and images.shape[-3:] == size
    if not fits or images.shape[:-4] != axes or images.shape[-4] != (batch or images.shape[-4]):
        shape = ", ".join(map(str, [*axes, batch or "B", *size]))
        raise InputError(f"input of shape {list(images.shape)}: {name} takes [{shape}]")
    check_normalised(images, data)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, found below
        images = images.astype(np.float32)
    if not np.isfinite(images).all():
        raise InputError("input holds NaN, or values that are infinite in float32")
    return images


def check_normalised(images: Array, data: DatasetSpec) -> None:
    """Raise `InputError` for images that `zoo.images.normalise` was not applied to.

    Those are integers, or numbers from 0 to far beyond what a pixel can become. Counts of events
    pass.
    """
    if data.events:
        return
    pixels = str(images.dtype)
    if images.dtype.kind == "f":
        # both comparisons are false where a pixel is NaN
        if not (images.size and images.min() >= 0 and images.max() >= MAX_NORMALISED):
            return
        pixels = f"numbers from {images.min():g} to {images.max():g}"
    raise InputError(
        f"images of {pixels} are bytes of pixels: networks of {data.title} take normalised ones, "
        "as `zoo.images.normalise(pixels, data)` makes of them, with the data of the network's "
        "origin"
    )
