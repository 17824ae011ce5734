"""From an encoded image to the bytes that a model takes: one square view of it, resized.

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

__all__ = ["Encoded", "Unreadable", "View", "centre", "decode", "encoding", "extent", "random_box"]

# "bytes": the file's bytes, or None; "path": where it lies if bytes is None, else what it was
# called
Encoded = dict[str, Any]
Box = tuple[float, float, float, float]
View = Callable[[int, int], Box]

# Pillow knows more formats; one of them (EPS) is a program, which Ghostscript would run.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000")
# 8 bits a channel, at most
MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
SIXTEEN = {"I;16", "I;16L", "I;16B", "I;16N"}
GREY = {"1", "L", "LA", "La", "I", *SIXTEEN}
# networks for large images are evaluated on the central 224 of 256 pixels, small ones on the whole
LARGE, CENTRAL = 128, 0.875
# a JPEG is decoded at a fraction of its size where this many times the model's size still remain
DRAFT = 2
RATIO = math.log(4 / 3)  # width / height of a random box is 3/4 to 4/3
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF orientation -> what makes the image upright
BITS_PER_SAMPLE, PHOTOMETRIC, BLACK_IS_ZERO = 258, 262, 1  # tags of TIFF


class Unreadable(Exception):
    """Not an image that can be decoded; the message is one line, and does not name it."""


def decode(
    source: Encoded | Image.Image,
    data: DatasetSpec,
    view: View,
    *,
    draft: bool = False,
    changes: list[str] | None = None,
) -> np.ndarray:
    """The view of an image as uint8 `[C, H, W]`, grey or RGB as `data` has it.

    `draft` is quicker, and not quite as exact. `changes` is extended by what was done to the image,
    as "resized from 1024x683". Raises `Unreadable` for what cannot be decoded, or whose range of
    values is not known.
    """
    with _reading(source) as image:
        turn = _turn(image)
        size = _turned(image.size, turn)
        box = view(*size)
        if changes is not None:
            changes.extend(_changes(image, turn, box, data))
        if draft:
            box = _draft(image, turn, box, data.size)
        upright = _convert(image, data.channels)
        upright = upright.transpose(TURNS[turn]) if turn else upright
        pixels = upright.resize(
            (data.size, data.size), Image.Resampling.BICUBIC, box, DRAFT if draft else None
        )
    array = np.asarray(pixels)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)  # [H, W, C] -> [C, H, W]


def encoding(encoded: Encoded) -> str:
    """How an image is stored, as Pillow calls it: `JPEG`, `PNG`; empty if it is none."""
    try:
        with warnings.catch_warnings(action="ignore"), _open(encoded) as image:
            return image.format or ""
    except Exception:  # as in `_reading`
        return ""


def extent(encoded: Encoded) -> tuple[int, int, int]:
    """Width, height and channels (1 grey, 3 colour) of the upright image, of which no pixel is
    decoded; raises `Unreadable`.
    """
    with _reading(encoded) as image:
        return *_turned(image.size, _turn(image)), 1 if image.mode in GREY else 3


def centre(data: DatasetSpec) -> View:
    """The whole of an image that has the model's size, else the largest central square, or 7/8 of
    it for large models.
    """
    return partial(_centre, data.size)


def random_box(scale: tuple[float, float], seed: str) -> View:
    """A box of a random share (`scale`: from, to) of the image's area, which `seed` determines."""
    return partial(_random, scale, seed)


def _centre(size: int, width: int, height: int) -> Box:
    if (width, height) == (size, size):
        return 0, 0, width, height
    # the shorter side, of which `size` pixels are kept
    resized = round(size / CENTRAL) if size >= LARGE else size
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


@contextmanager
def _reading(source: Encoded | Image.Image) -> Iterator[Image.Image]:
    """The image, of which no pixel is decoded yet; raises `Unreadable` for whatever goes wrong
    while it is read.
    """
    try:
        # what Pillow warns of is seen to here
        with warnings.catch_warnings(action="ignore"), _open(source) as image:
            yield image
    except Unreadable:
        raise
    except UnidentifiedImageError:
        raise Unreadable(f"unknown format; valid are {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise Unreadable("too many pixels") from None
    # Pillow's readers raise whatever a damaged file makes them stumble over
    except Exception as error:
        raise Unreadable(
            str(error).splitlines()[0] if str(error) else type(error).__name__
        ) from None


def _open(source: Encoded | Image.Image) -> AbstractContextManager[Image.Image]:
    """The image, of which no pixel is decoded yet."""
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
    """Those of `FORMATS` that this version of Pillow reads."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _turn(image: Image.Image) -> int:
    """The image's orientation, a key of `TURNS`; 0 if it is upright."""
    if image.format == "TIFF":
        return 0  # whose reader turns it itself
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    return orientation if orientation in TURNS else 0


def _turned(size: tuple[int, int], turn: int) -> tuple[int, int]:
    """Width and height of the upright image."""
    return size if turn < 5 else (size[1], size[0])


def _changes(image: Image.Image, turn: int, box: Box, data: DatasetSpec) -> list[str]:
    """What decoding will do to the image, for people."""
    changes, (width, height) = [], _turned(image.size, turn)
    if getattr(image, "is_animated", False):
        changes.append("first of several frames")
    if turn:
        changes.append("turned as its EXIF orientation says")
    if image.has_transparency_data:
        changes.append("transparency laid on white")
    if image.mode != _mode(data.channels):
        changes.append(f"converted from {image.mode} to {_mode(data.channels)}")
    if (width, height) != (data.size, data.size):
        part = "" if box == (0, 0, width, height) else "its centre "
        work = "cut" if (box[2] - box[0], box[3] - box[1]) == (data.size, data.size) else "resized"
        changes.append(f"{part}{work} from {width}x{height}")
    return changes


def _draft(image: Image.Image, turn: int, box: Box, size: int) -> Box:
    """Have a JPEG decoded at a half, quarter or eighth of its size where `box` needs no more;
    returns the box at that size.
    """
    before = image.size
    needed = DRAFT * size / min(box[2] - box[0], box[3] - box[1])
    if needed < 1:
        image.draft(None, (math.ceil(image.width * needed), math.ceil(image.height * needed)))
    (old_width, old_height), (width, height) = _turned(before, turn), _turned(image.size, turn)
    x, y = width / old_width, height / old_height
    return box[0] * x, box[1] * y, min(box[2] * x, width), min(box[3] * y, height)


def _convert(image: Image.Image, channels: int) -> Image.Image:
    """8 bits a channel, grey or RGB, without transparency."""
    # Pillow gives PPM the range of 16 bits
    if image.mode in SIXTEEN or (image.mode == "I" and image.format == "PPM"):
        image = _upper_bits(image)
    if image.mode not in MODES:
        raise Unreadable(
            f"mode {image.mode}, whose range of values is not known: convert it to 8 bits a channel, grey or RGB"
        )
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours)
    mode = _mode(channels)
    return image if image.mode == mode else image.convert(mode)


def _mode(channels: int) -> str:
    return "L" if channels == 1 else "RGB"


def _upper_bits(image: Image.Image) -> Image.Image:
    """The upper 8 of 16 bits of grey, as Pillow itself does it for 16 bits of red, green and blue."""
    if image.format == "TIFF":
        tags: Any = image
        bits, zero = tags.tag_v2.get(BITS_PER_SAMPLE), tags.tag_v2.get(PHOTOMETRIC)
        # Pillow neither scales 12 bits nor inverts where 0 is white
        if bits != (16,) or zero != BLACK_IS_ZERO:
            raise Unreadable(
                "grey of another range than 16 bits from black to white: convert it to 8 bits a channel"
            )
    values = np.array(image)
    transparent = image.info.get("transparency")  # a value of PNG
    if transparent is not None:
        values[values == transparent] = 65535
    return Image.fromarray((values >> 8).astype(np.uint8))
