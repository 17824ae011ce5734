"""What the images of a user are: a `DatasetSpec` read from them, and the recipe that fits their
number and size.
"""

import json
import logging
import math
import random
import re
import statistics
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.danet import DANetConfig, Stem
from zoo.datasets import DatasetSpec
from zoo.decode import Encoded, Unreadable, centre, decode, extent
from zoo.errors import ConfigError, InputError
from zoo.training.config import Recipe
from zoo.training.sources import NoSplit, Rows, check_labels, open_rows, read_labels

__all__ = ["Given", "OwnData", "check_size", "check_unchanged", "describe", "fitting_recipe"]

log = logging.getLogger(__name__)

SAMPLE = 1000  # training images from which size, channels, mean and deviation are read
SIZES = (32, 64, 96, 128, 224)  # pixels of height and width that images of many sizes are given
LARGEST = 1024  # likewise
FEWEST = 10  # images that anything can be learnt from
STEPS = 4000  # of the optimiser in all,
EPOCHS = (10, 100)  # unless these are too few or too many epochs
# the largest batch for images of up to so many pixels of height and width
BATCHES = ((40, 128), (96, 64), (math.inf, 32))
BATCHES_PER_EPOCH = 8  # at least
SMALLEST_BATCH = 4


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a user says of the images, so that it is not read from them; zero or empty is not said."""

    size: int = 0  # pixels, height and width
    channels: int = 0
    mean: tuple[float, ...] = ()  # of pixels in [0, 1], per channel
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class OwnData:
    """A user's data set, as far as it was read."""

    spec: DatasetSpec
    images: int  # those of the split `train`
    splits: bool  # whether it comes with a held-out split
    streamed: bool  # whether its images can only be read in order


def describe(
    tag: str, source: str | Path, given: Given | None = None, *, skip_bad: bool = False
) -> OwnData:
    """Read classes, size, channels, mean and deviation from a folder or hub id; what is `given` is
    not read.

    Size and colours are those of at most `SAMPLE` training images, which are always the same.
    Raises `InputError` for images that no network can be trained on, and for a value that cannot
    be.
    """
    given = given or Given()
    rows = open_rows(None, "train", source)
    log.info("reading what %s holds", source)
    labels, sample = _read(rows)
    names = _class_names(rows, labels, str(source))
    extents = list(_extents(sample, skip_bad))
    if not extents:
        raise InputError(f"{source}: none of {len(sample)} training images can be read")
    channels = given.channels or _channels([depth for *_, depth in extents], source)
    size = given.size or _size([(width, height) for width, height, _ in extents])
    if size > LARGEST:
        raise InputError(f"--size {size}: valid are up to {LARGEST} pixels")
    title = str(source).removeprefix("hf:") if not Path(source).exists() else tag
    spec = DatasetSpec(
        tag, title, size, channels, len(names), (0.0,) * channels, (1.0,) * channels, tuple(names)
    )
    mean, std = given.mean, given.std
    if not mean or not std:
        measured = _statistics(sample, spec, skip_bad)
        mean, std = mean or measured[0], std or measured[1]
    if not (
        len(mean) == len(std) == channels
        and all(map(math.isfinite, mean))
        and all(0 < s < math.inf for s in std)
    ):
        few = " (all images have one colour)" if not given.std and not all(std) else ""
        raise InputError(
            f"mean {_shown(mean)} and std {_shown(std)}{few} are not, for each of {channels} channels, a number and one above 0"
        )
    spec = replace(spec, mean=mean, std=std)
    return OwnData(spec, len(labels), _has_split(spec, source), rows.streamed)


def check_size(config: DANetConfig, data: DatasetSpec) -> None:
    """Raises `InputError` for images so small that the network's last stage sees less than 2 x 2
    places of them.
    """
    convolutions, pool = Stem.LAYOUTS[config.stem]
    halvings = len(config.depths) - (not config.stem.startswith("ms"))
    stride = math.prod(stride for _, stride in convolutions) * (2 if pool else 1) * 2**halvings
    if data.size < 2 * stride:
        raise InputError(
            f"images of {data.size} x {data.size} pixels are too small for {len(config.depths)} stages and a stem "
            f"{config.stem!r}: valid are {2 * stride} to {LARGEST}, as --size {2 * stride}"
        )


def check_unchanged(recorded: Path, data: DatasetSpec, images: int) -> None:
    """Raises `ConfigError` if the run whose `recipe.json` this is was begun on other data, or
    another number of images.
    """
    try:
        resolved = json.loads(recorded.read_text(encoding="utf-8"))
        before = resolved["data"] | {"images": resolved["images"]}
    except (OSError, ValueError, KeyError, TypeError):
        return  # no run yet, or none on a user's own data, which `checkpoint.claim` refuses
    now = data.to_dict() | {"images": images}
    for key in ("classes", *now):
        if key in before and before[key] != json.loads(json.dumps(now[key])):
            raise ConfigError(
                f"{recorded.parent} holds a run whose data had {key} {_listed(before[key])}, and now have {_listed(now[key])}: "
                "give it the same images, or name a new folder with --run"
            )


def fitting_recipe(own: OwnData) -> dict[str, Any]:
    """The values of a recipe that depend on the number and size of the images; `docs/training.md`
    says why.
    """
    images, size = own.images, own.spec.size
    base = Recipe.own({"dataset": own.spec.tag, "epochs": 1})
    largest = next(batch for limit, batch in BATCHES if size <= limit)
    batch = 1 << (images // BATCHES_PER_EPOCH).bit_length() - 1  # a power of two
    batch = min(max(batch, SMALLEST_BATCH), largest)
    epochs = min(max(round(STEPS * batch / images), EPOCHS[0]), EPOCHS[1])
    values = {
        "dataset": own.spec.tag,
        "epochs": epochs,
        "batch_size": batch,
        "lr": base.lr * batch / base.batch_size,
    }
    values |= (
        {"resized_crop": [0.35, 1.0], "crop_padding": 0}
        if size > 96
        else {"crop_padding": size // 16}
    )
    if own.splits:
        values["validation"] = 0.0
    if own.streamed:
        values |= {"images": images, "flip_alternating": False, "flip": base.flip_alternating}
    return values


def _read(rows: Rows) -> tuple[np.ndarray, list[tuple[str, Encoded]]]:
    """All labels, and a sample of the images with what they are called."""
    draw = random.Random(0)
    if not rows.streamed:
        chosen = sorted(draw.sample(range(rows.images), min(rows.images, SAMPLE)))
        images = ((number, rows.data[number]["image"]) for number in chosen)
        return read_labels(rows.data), [_named(rows, number, image) for number, image in images]
    labels: list[int] = []
    sample: list[tuple[str, Encoded]] = []
    # each with equal chance, though nobody knows how many there are
    for number, row in enumerate(rows.data):
        labels.append(-1 if row["label"] is None else row["label"])
        place = number if number < SAMPLE else draw.randrange(number + 1)
        if place < SAMPLE:
            sample[place : place + 1] = [_named(rows, number, row["image"])]
    return np.array(labels, np.int64), sample


def _named(rows: Rows, number: int, image: Encoded | None) -> tuple[str, Encoded]:
    image = image or {"bytes": None, "path": None}
    return str(image["path"] or f"row {number} of split {rows.split!r}"), image


def _class_names(rows: Rows, labels: np.ndarray, source: str) -> Sequence[str]:
    """The names of the classes in the order of the labels. Raises `InputError` for classes that
    cannot be told or learnt.
    """
    where = f"{source}: split {rows.split!r}"
    if len(labels) and labels.min() < 0:
        raise InputError(f"{where} has no labels: that of row {int(labels.argmin())} is missing")
    if not rows.classes:
        _check_numbers(labels, where)
    names = rows.classes or tuple(map(str, range(int(labels.max(initial=-1)) + 1)))
    if len(names) < 2:
        raise InputError(
            f"{where} has one class ({', '.join(names)}): a classifier needs two or more, each a folder of its own"
        )
    for name in names:
        if not name.strip() or not name.isprintable():
            raise InputError(
                f"{where} has a class named {name!r}: give it a name of printable characters"
            )
    spellings: dict[str, str] = {}
    for name in names:
        if (other := spellings.setdefault(_spelling(name), name)) != name:
            raise InputError(
                f"{where} has one class in two spellings, {other!r} and {name!r}: give them one name, or two"
            )
    counts = np.bincount(labels, minlength=len(names))
    for name, count in zip(names, counts, strict=True):
        if not count:
            raise InputError(
                f"{where} holds no images of class {name!r}: add some, or take the class out"
            )
    if len(labels) < FEWEST:
        raise InputError(f"{where} holds {len(labels)} images: give {FEWEST} or more")
    return names


def _check_numbers(labels: np.ndarray, where: str) -> None:
    """Raises `InputError` for labels of classes without names that leave out a number below the
    greatest of them.
    """
    used = np.unique(labels)
    missing = next((number for number, label in enumerate(used.tolist()) if number != label), None)
    if missing is not None:
        shifted = missing == 0 and used[-1] == len(used)
        hint = (
            "they begin with 1: subtract 1 of each"
            if shifted
            else "number the classes from 0 without a gap, or give them names"
        )
        raise InputError(
            f"{where} holds no images of class '{missing}', and labels up to {used[-1]}: {hint}"
        )


def _spelling(name: str) -> str:
    """What the spellings of one name have in common: upper and lower case, and what parts its
    words.
    """
    return re.sub(
        r"(?<=\w)[\s_-]+(?=\w)", "", unicodedata.normalize("NFKC", name).casefold().strip()
    )


def _extents(sample: list[tuple[str, Encoded]], skip_bad: bool) -> Iterator[tuple[int, int, int]]:
    for name, image in sample:
        try:
            yield extent(image)
        except Unreadable as error:
            _refuse(name, error, skip_bad)


def _channels(depths: Sequence[int], source: str | Path) -> int:
    if len(set(depths)) > 1:
        grey = depths.count(1)
        raise InputError(
            f"{source}: {grey} of {len(depths)} images are grey, the others coloured: "
            "read all as colour with --channels 3, or as grey with --channels 1"
        )
    return depths[0]


def _size(sizes: Sequence[tuple[int, int]]) -> int:
    """That of the images where all are equal squares; else of `SIZES` the one nearest to the median
    of their shorter sides.
    """
    first = sizes[0][0]
    if set(sizes) == {(first, first)} and SIZES[0] // 2 <= first <= SIZES[-1]:
        return first
    median = statistics.median(map(min, sizes))
    return min(SIZES, key=lambda size: abs(math.log(size / median)))


def _statistics(
    sample: list[tuple[str, Encoded]], spec: DatasetSpec, skip_bad: bool
) -> tuple[tuple[float, ...], ...]:
    """Mean and standard deviation of each channel of pixels in [0, 1], as an evaluation sees the
    images.
    """
    sums = np.zeros((2, spec.channels))
    seen = 0
    for pixels in _decoded(sample, spec, skip_bad):
        values = pixels.reshape(spec.channels, -1) / 255  # [C, H*W]
        sums += np.stack([values.mean(1), np.square(values).mean(1)])
        seen += 1
    if not seen:
        raise InputError(f"none of {len(sample)} training images can be read")
    mean, square = sums / seen
    std = np.sqrt(np.maximum(square - mean**2, 0))
    return tuple(round(float(value), 4) for value in mean), tuple(
        round(float(value), 4) for value in std
    )


def _decoded(
    sample: list[tuple[str, Encoded]], spec: DatasetSpec, skip_bad: bool
) -> Iterator[np.ndarray]:
    for name, image in sample:
        try:
            yield decode(image, spec, centre(spec), draft=True)
        except Unreadable as error:
            _refuse(name, error, skip_bad)


def _refuse(name: str, error: Unreadable, skip_bad: bool) -> None:
    if not skip_bad:
        raise InputError(
            f"{name} is not an image that can be read ({error}); --skip-bad leaves such images out"
        )


def _has_split(spec: DatasetSpec, source: str | Path) -> bool:
    """Whether a held-out split is there. Raises `InputError` if its classes are not those of the
    training images.
    """
    try:
        rows = open_rows(None, "test", source)
    except NoSplit:
        return False
    unknown = [name for name in rows.classes if name not in spec.classes]
    if unknown:
        raise InputError(
            f"{source}: class {unknown[0]!r} is in split {rows.split!r} alone: add training images, or take it out"
        )
    if not rows.streamed:
        check_labels(read_labels(rows.data), spec, f"{source}: split {rows.split!r}")
    return True


def _listed(value: Any) -> str:
    """Some of a list, or a value."""
    if not isinstance(value, list | tuple):
        return str(value)
    return ", ".join(map(str, value[:10])) + (", ..." if len(value) > 10 else "")


def _shown(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
