"""A sample of a user's images, and what is measured on it: size, channels, mean and deviation."""

import math
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from zoo.datasets import DatasetSpec
from zoo.decode import Encoded, Unreadable, centre, decode, extent
from zoo.errors import InputError
from zoo.training.sources import Rows, read_labels

__all__ = ["Sample", "common_channels", "fitting_size", "take_sample"]

MAX_IMAGES = 1000
SIZES = (32, 64, 96, 128, 224)  # pixels of height and width that images of many sizes are given
T = TypeVar("T")


@dataclass(frozen=True)
class Sample:
    """Some training images, each with its path or number."""

    images: list[tuple[str, Encoded]]
    skip_bad: bool  # leave out unreadable images

    def extents(self) -> list[tuple[int, int, int]]:
        """Return width, height and channels of each readable image."""
        return list(self._readable(extent))

    def mean_and_std(self, data: DatasetSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation of each channel of pixels in [0, 1].

        The pixels are those that an evaluation on `data` sees. Raises `InputError` if no image can
        be read.
        """
        sums, images = np.zeros((2, data.channels)), 0
        for pixels in self._readable(lambda image: decode(image, data, centre(data), draft=True)):
            values = pixels.reshape(data.channels, -1) / 255  # [C, H*W]
            sums += np.stack([values.mean(1), np.square(values).mean(1)])
            images += 1
        if not images:
            raise InputError(f"none of {len(self.images)} training images can be read")
        mean, mean_square = sums / images
        std = np.sqrt(np.maximum(mean_square - mean**2, 0))
        return _rounded(mean), _rounded(std)

    def _readable(self, read: Callable[[Encoded], T]) -> Iterator[T]:
        """Yield `read` of each readable image. Raises `InputError` unless others are skipped."""
        for name, image in self.images:
            try:
                yield read(image)
            except Unreadable as error:
                if not self.skip_bad:
                    raise InputError(
                        f"{name} is not an image that can be read ({error}); "
                        "--skip-bad leaves such images out"
                    ) from None


def take_sample(rows: Rows, *, skip_bad: bool) -> tuple[np.ndarray, Sample]:
    """Return all labels, int64 `[N]`, and a sample of the images, which is always the same."""
    draw = random.Random(0)
    if not rows.streamed:
        chosen = sorted(draw.sample(range(rows.images), min(rows.images, MAX_IMAGES)))
        images = [_named(rows, number, rows.data[number]["image"]) for number in chosen]
        return read_labels(rows.data), Sample(images, skip_bad)
    labels: list[int] = []
    images = []
    # Each image has an equal chance, though nobody knows how many there are (reservoir sampling).
    for number, row in enumerate(rows.data):
        labels.append(-1 if row["label"] is None else row["label"])
        place = number if number < MAX_IMAGES else draw.randrange(number + 1)
        if place < MAX_IMAGES:
            images[place : place + 1] = [_named(rows, number, row["image"])]
    return np.array(labels, np.int64), Sample(images, skip_bad)


def common_channels(channels: Sequence[int], source: str | Path) -> int:
    """Return the channels of all images. Raises `InputError` if only some are grey."""
    if len(set(channels)) > 1:
        grey = channels.count(1)
        raise InputError(
            f"{source}: {grey} of {len(channels)} images are grey, the others coloured: "
            "read all as colour with --channels 3, or as grey with --channels 1"
        )
    return channels[0]


def fitting_size(sizes: Sequence[tuple[int, int]]) -> int:
    """Return the side of the square to resize images of these widths and heights to, in pixels.

    It is that of the images where all are equal squares; else, of `SIZES`, the one nearest to the
    median of their shorter sides.
    """
    first = sizes[0][0]
    if set(sizes) == {(first, first)} and SIZES[0] // 2 <= first <= SIZES[-1]:
        return first
    median = statistics.median(map(min, sizes))
    return min(SIZES, key=lambda size: abs(math.log(size / median)))


def _named(rows: Rows, number: int, image: Encoded | None) -> tuple[str, Encoded]:
    """Return an image with its path or number."""
    image = image or {"bytes": None, "path": None}
    return str(image["path"] or f"row {number} of split {rows.split!r}"), image


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
