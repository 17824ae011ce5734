"""From an encoded image to the bytes that a model takes: one square view of it, resized.

A view is a function of the image's width and height: the box (left, upper, right, lower) of it, in pixels, that is resized to the
model's size. Evaluation sees the centre. Training may see random boxes (Szegedy et al. 2015, arXiv:1409.4842, section 6).
Orientation in EXIF is ignored, as the published accuracies on ImageNet do.
"""

import io
import math
import random
import struct
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from zoo.datasets import DatasetSpec

__all__ = ["Encoded", "Unreadable", "View", "centre", "decode", "encoding", "random_box"]

Encoded = dict[str, Any]  # "bytes": the file's bytes, or None; "path": where it lies if bytes is None, else what it was called
Box = tuple[float, float, float, float]
View = Callable[[int, int], Box]

MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr"}  # 8 bits a channel, at most
LARGE, CENTRAL = 128, 0.875  # networks for large images are evaluated on the central 224 of 256 pixels, small ones on the whole
DRAFT = 2  # a JPEG is decoded at a fraction of its size where this many times the model's size still remain
RATIO = math.log(4 / 3)  # width / height of a random box is 3/4 to 4/3


class Unreadable(Exception):
    """Not an image that can be decoded; the message is one line, and does not name it."""


def decode(encoded: Encoded, data: DatasetSpec, view: View, *, draft: bool = False) -> np.ndarray:
    """The view of an image as uint8 `[C, H, W]`, grey or RGB as `data` has it. `draft` is quicker, and not quite as exact."""
    try:
        with Image.open(_file(encoded)) as image:
            box = view(*image.size)
            if draft:
                box = _draft(image, box, data.size)
            pixels = _convert(image, data.channels).resize(
                (data.size, data.size), Image.Resampling.BICUBIC, box, DRAFT if draft else None
            )
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise Unreadable("unknown format" if isinstance(error, UnidentifiedImageError) else "too many pixels") from None
    except (OSError, ValueError, SyntaxError, EOFError, struct.error) as error:  # what Pillow's readers raise on damage
        raise Unreadable(str(error).splitlines()[0] if str(error) else type(error).__name__) from None
    array = np.asarray(pixels)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)  # [H, W, C] -> [C, H, W]


def encoding(encoded: Encoded) -> str:
    """How an image is stored, as Pillow calls it: `JPEG`, `PNG`; empty if it is none."""
    try:
        with Image.open(_file(encoded)) as image:
            return image.format or ""
    except (OSError, ValueError):  # UnidentifiedImageError is an OSError
        return ""


def centre(data: DatasetSpec) -> View:
    """The whole of an image that has the model's size, else the largest central square, or 7/8 of it for large models."""
    return partial(_centre, data.size)


def random_box(scale: tuple[float, float], seed: str) -> View:
    """A box of a random share (`scale`: from, to) of the image's area, which `seed` determines."""
    return partial(_random, scale, seed)


def _centre(size: int, width: int, height: int) -> Box:
    if (width, height) == (size, size):
        return 0, 0, width, height
    resized = round(size / CENTRAL) if size >= LARGE else size  # the shorter side, of which `size` pixels are kept
    side = min(width, height) * size / resized
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def _random(scale: tuple[float, float], seed: str, width: int, height: int) -> Box:
    rng = random.Random(seed)  # hashes the whole string, and does so alike everywhere
    for _ in range(10):
        area, ratio = width * height * rng.uniform(*scale), math.exp(rng.uniform(-RATIO, RATIO))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, upper = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, upper, min(left + w, width), min(upper + h, height)
    w, h = min(width, height * 4 / 3), min(height, width * 4 / 3)  # a long strip: its middle
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def _file(encoded: Encoded) -> io.BytesIO | str:
    if encoded["bytes"] is not None:
        return io.BytesIO(encoded["bytes"])
    if encoded["path"] is None:
        raise ValueError("no image")
    return str(encoded["path"])


def _draft(image: Image.Image, box: Box, size: int) -> Box:
    """Have a JPEG decoded at a half, quarter or eighth of its size where `box` needs no more; returns the box at that size."""
    width, height = image.size
    needed = DRAFT * size / min(box[2] - box[0], box[3] - box[1])
    if needed < 1:
        image.draft(None, (math.ceil(width * needed), math.ceil(height * needed)))
    x, y = image.width / width, image.height / height
    return box[0] * x, box[1] * y, min(box[2] * x, image.width), min(box[3] * y, image.height)


def _convert(image: Image.Image, channels: int) -> Image.Image:
    if image.mode not in MODES:
        raise ValueError(f"mode {image.mode}: convert it to 8 bits a channel, grey or RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # else Pillow warns that it drops the transparency
    mode = "L" if channels == 1 else "RGB"
    return image if image.mode == mode else image.convert(mode)
