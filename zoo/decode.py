"""An encoded image becomes the bytes that a model takes: one square view of it, resized.

Training, evaluation and `zoo classify` decode with it alone, so that they see the same pixels.

A view is a function of the image's width and height: the box (left, upper, right, lower) of it, in
pixels, that is resized to the model's size. Evaluation sees the centre. Training may see random
boxes (Szegedy et al. 2015, arXiv:1409.4842, section 6).

A picture is read as a person sees it: upright where EXIF says how it was held, transparency on
white, the first frame of several. Of 16 bits a channel the upper 8 are kept. Colour profiles (ICC)
are ignored, as training has always done.
"""

import io
import math
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from zoo.datasets import DatasetSpec
from zoo.errors import first_line

__all__ = ["Encoded", "Unreadable", "View", "centre", "decode", "encoding", "extent", "random_box"]

# An image as the library `datasets` holds it: {"bytes": ..., "path": ...}, the path being where it
# lies if bytes is None, else what it was called.
Encoded = dict[str, Any]
Box = tuple[float, float, float, float]  # left, upper, right, lower
View = Callable[[int, int], Box]

# Pillow knows more formats; one of them (EPS) is a program, which Ghostscript would run.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
# Pillow's modes of at most 8 bits a channel, of 16 bits of grey, and of grey.
MODES_8_BIT = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
MODES_16_BIT = {"I;16", "I;16L", "I;16B", "I;16N"}
MODES_GREY = {"1", "L", "LA", "La", "I", *MODES_16_BIT}

# Networks for images of this size or larger are evaluated on the central 7/8 of the shorter side
# (224 of 256 pixels), small ones on all of it.
MIN_CROPPED_SIZE, CENTRAL_SHARE = 128, 0.875
# A JPEG is decoded at a fraction of its size where this many times the model's size still remain.
DRAFT_FACTOR = 2
MAX_LOG_RATIO = math.log(4 / 3)  # width / height of a random box is 3/4 to 4/3
RANDOM_TRIES = 10  # before the middle of an image stands for a random box

# EXIF orientation -> what makes the image upright.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MIN_SIDEWAYS = 5  # orientations from here on exchange width and height
# Tags of TIFF, and the value for grey whose zero is black.
BITS_PER_SAMPLE, PHOTOMETRIC, BLACK_IS_ZERO = 258, 262, 1


class Unreadable(Exception):
    """Raised for what is no image that can be decoded, in one line that does not name it."""


def decode(
    source: Encoded | Image.Image,
    data: DatasetSpec,
    view: View,
    *,
    draft: bool = False,
    changes: list[str] | None = None,
) -> np.ndarray:
    """Return the view of an image as uint8 `[C, H, W]`, grey or RGB as `data` has it.

    `draft` is quicker, and not quite as exact. `changes` is extended by what was done to the image,
    as "resized from 1024x683". Raises `Unreadable` for what cannot be decoded, or whose range of
    values is not known.
    """
    with _opened(source) as image:
        orientation = _orientation(image)
        box = view(*_upright_size(image.size, orientation))
        if changes is not None:
            changes.extend(_changes(image, orientation, box, data))
        if draft:
            box = _decode_smaller(image, orientation, box, data.size)
        upright = _convert(image, data.channels)
        if orientation:
            upright = upright.transpose(TURNS[orientation])
        reducing_gap = DRAFT_FACTOR if draft else None
        size = data.size, data.size
        pixels = upright.resize(size, Image.Resampling.BICUBIC, box, reducing_gap)
    array = np.asarray(pixels)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)  # [H, W, C] -> [C, H, W]


def encoding(encoded: Encoded) -> str:
    """Return Pillow's name of an image's format, as `JPEG`; "" if it is no image."""
    try:
        with warnings.catch_warnings(action="ignore"), _open(encoded) as image:
            return image.format or ""
    except Exception:  # as in `_opened`
        return ""


def extent(encoded: Encoded) -> tuple[int, int, int]:
    """Return width, height and channels (1 grey, 3 colour) of the upright image.

    No pixel is decoded. Raises `Unreadable`.
    """
    with _opened(encoded) as image:
        width, height = _upright_size(image.size, _orientation(image))
        return width, height, 1 if image.mode in MODES_GREY else 3


def centre(data: DatasetSpec) -> View:
    """Return the view of an evaluation: the largest central square, or 7/8 of it for large models.

    An image that has the model's size is seen whole.
    """
    return partial(_centre, data.size)


def random_box(scale: tuple[float, float], seed: str) -> View:
    """Return the view of a box of a random share of the image's area, which `seed` determines.

    `scale` is the range of that share.
    """
    return partial(_random, scale, seed)


def _centre(size: int, width: int, height: int) -> Box:
    if (width, height) == (size, size):
        return 0, 0, width, height
    # The shorter side is resized to so many pixels, of which `size` are kept.
    resized = round(size / CENTRAL_SHARE) if size >= MIN_CROPPED_SIZE else size
    side = min(width, height) * size / resized
    left, upper = (width - side) / 2, (height - side) / 2
    return left, upper, left + side, upper + side


def _random(scale: tuple[float, float], seed: str, width: int, height: int) -> Box:
    rng = random.Random(seed)  # hashes the whole string, and does so alike everywhere
    for _ in range(RANDOM_TRIES):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(-MAX_LOG_RATIO, MAX_LOG_RATIO))
        w, h = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if w <= width and h <= height:
            left, upper = rng.uniform(0, width - w), rng.uniform(0, height - h)
            return left, upper, min(left + w, width), min(upper + h, height)
    w, h = min(width, height * 4 / 3), min(height, width * 4 / 3)  # a long strip: its middle
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


@contextmanager
def _opened(source: Encoded | Image.Image) -> Iterator[Image.Image]:
    """Yield the image, of which no pixel is decoded yet.

    Raises `Unreadable` for whatever goes wrong while it is read, also by the caller.
    """
    try:
        # What Pillow warns of is either handled here or refused.
        with warnings.catch_warnings(action="ignore"), _open(source) as image:
            yield image
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable(f"unknown format; valid are {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise Unreadable("too many pixels") from None
    except Exception as error:  # Pillow raises whatever a damaged file makes it stumble over
        raise Unreadable(first_line(error)) from None


def _open(source: Encoded | Image.Image) -> AbstractContextManager[Image.Image]:
    """Open an image, of which no pixel is decoded yet."""
    if isinstance(source, Image.Image):
        return nullcontext(source)
    raw, path = source["bytes"], source["path"]
    if raw is None and path is None:
        raise Unreadable("no image")
    raw = Path(path).read_bytes() if raw is None else raw
    if not raw:
        raise Unreadable("the file is empty")
    return Image.open(io.BytesIO(raw), formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Return those of `FORMATS` that this version of Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation(image: Image.Image) -> int:
    """Return the image's orientation, a key of `TURNS`; 0 if it is upright."""
    if image.format == "TIFF":
        return 0  # Pillow's reader of TIFF turns the image itself
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    return orientation if orientation in TURNS else 0


def _upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Return width and height of the upright image."""
    return size if orientation < MIN_SIDEWAYS else (size[1], size[0])


def _changes(image: Image.Image, orientation: int, box: Box, data: DatasetSpec) -> list[str]:
    """Say for people what decoding will do to the image."""
    changes, (width, height) = [], _upright_size(image.size, orientation)
    mode = _mode(data.channels)
    if getattr(image, "is_animated", False):
        changes.append("first of several frames")
    if orientation:
        changes.append("turned as its EXIF orientation says")
    if image.has_transparency_data:
        changes.append("transparency laid on white")
    if image.mode != mode:
        changes.append(f"converted from {image.mode} to {mode}")
    if (width, height) != (data.size, data.size):
        left, upper, right, lower = box
        part = "" if box == (0, 0, width, height) else "its centre "
        work = "cut" if (right - left, lower - upper) == (data.size, data.size) else "resized"
        changes.append(f"{part}{work} from {width}x{height}")
    return changes


def _decode_smaller(image: Image.Image, orientation: int, box: Box, size: int) -> Box:
    """Have a JPEG decoded at a half, quarter or eighth of its size where `box` needs no more.

    Returns the box at that size.
    """
    full_width, full_height = _upright_size(image.size, orientation)
    left, upper, right, lower = box
    needed = DRAFT_FACTOR * size / min(right - left, lower - upper)
    if needed < 1:
        image.draft(None, (math.ceil(image.width * needed), math.ceil(image.height * needed)))
    width, height = _upright_size(image.size, orientation)
    x, y = width / full_width, height / full_height
    return left * x, upper * y, min(right * x, width), min(lower * y, height)


def _convert(image: Image.Image, channels: int) -> Image.Image:
    """Return the image with 8 bits a channel, grey or RGB, and without transparency."""
    # Pillow gives grey PPM the range of 16 bits.
    if image.mode in MODES_16_BIT or (image.mode == "I" and image.format == "PPM"):
        image = _upper_bits(image)
    if image.mode not in MODES_8_BIT:
        raise Unreadable(
            f"mode {image.mode}, whose range of values is not known: convert it to 8 bits a "
            "channel, grey or RGB"
        )
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    mode = _mode(channels)
    return image if image.mode == mode else image.convert(mode)


def _mode(channels: int) -> str:
    return "L" if channels == 1 else "RGB"


def _upper_bits(image: Image.Image) -> Image.Image:
    """Return the upper 8 of 16 bits of grey, as Pillow itself does it for 16 bits of colour."""
    if image.format == "TIFF":
        tags: Any = image
        bits, zero = tags.tag_v2.get(BITS_PER_SAMPLE), tags.tag_v2.get(PHOTOMETRIC)
        # Pillow neither scales 12 bits nor inverts where 0 is white.
        if bits != (16,) or zero != BLACK_IS_ZERO:
            raise Unreadable(
                "grey of another range than 16 bits from black to white: convert it to 8 bits a "
                "channel"
            )
    values = np.array(image)
    transparent = image.info.get("transparency")  # a value of PNG
    if transparent is not None:
        values[values == transparent] = 65535  # white
    return Image.fromarray((values >> 8).astype(np.uint8))
