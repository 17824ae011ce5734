"""The description of a user's own images: a `DatasetSpec` read from them."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo.danet import DANetConfig, Stem
from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, InputError, first_few
from zoo.files import read_json_if_whole
from zoo.training.class_names import class_names
from zoo.training.sample import Sample, common_channels, fitting_size, take_sample
from zoo.training.sources import NoSplit, Rows, check_labels, open_rows, read_labels

__all__ = ["ImageOptions", "OwnData", "check_size", "check_unchanged", "describe"]

log = logging.getLogger(__name__)

MAX_SIZE = 1024  # pixels of height and width
MAX_SHOWN = 10  # values of a list in a message


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """Values that a user gives instead of having them read from the images; zero or empty: read."""

    size: int = 0  # pixels, height and width
    channels: int = 0
    mean: tuple[float, ...] = ()  # of pixels in [0, 1], per channel
    std: tuple[float, ...] = ()


@dataclass(frozen=True)
class OwnData:
    """A user's data set, as far as it was read."""

    spec: DatasetSpec
    images: int  # of the split `train`
    splits: bool  # whether it comes with a held-out split
    streamed: bool  # whether its images can only be read in order
    rows: Rows | None = field(default=None, compare=False, repr=False)  # of the split `train`


def describe(
    tag: str, source: str | Path, options: ImageOptions | None = None, *, skip_bad: bool = False
) -> OwnData:
    """Read classes, size, channels, mean and deviation from a folder or hub id.

    Size and colours are those of some training images, which are always the same; what `options`
    give is not read. Raises `InputError` for images that no network can be trained on, and for
    values that cannot be.
    """
    options = options or ImageOptions()
    rows = open_rows(None, "train", source)
    log.info("reading what %s holds", source)
    labels, sample = take_sample(rows, skip_bad=skip_bad)
    names = class_names(rows, labels, str(source))
    extents = sample.extents()
    if not extents:
        raise InputError(f"{source}: none of {len(sample.images)} training images can be read")
    channels = options.channels or common_channels([depth for *_, depth in extents], source)
    size = options.size or fitting_size([(width, height) for width, height, _ in extents])
    if size > MAX_SIZE:
        raise InputError(f"--size {size}: valid are up to {MAX_SIZE} pixels")
    title = str(source).removeprefix("hf:") if not Path(source).exists() else tag
    neutral = (0.0,) * channels, (1.0,) * channels
    spec = DatasetSpec(tag, title, size, channels, len(names), *neutral, tuple(names))
    spec = _with_colours(spec, sample, options)
    return OwnData(spec, len(labels), _has_test_split(spec, source), rows.streamed, rows)


def _with_colours(spec: DatasetSpec, sample: Sample, options: ImageOptions) -> DatasetSpec:
    """Return `spec` with mean and deviation as given, or as measured."""
    mean, std = options.mean, options.std
    if not mean or not std:
        measured = sample.mean_and_std(spec)
        mean, std = mean or measured[0], std or measured[1]
    fits = len(mean) == len(std) == spec.channels
    if not (fits and all(map(math.isfinite, mean)) and all(0 < s < math.inf for s in std)):
        cause = " (all images have one colour)" if not options.std and not all(std) else ""
        raise InputError(
            f"mean {_shown(mean)} and std {_shown(std)}{cause} are not, "
            f"for each of {spec.channels} channels, a number and one above 0"
        )
    return replace(spec, mean=mean, std=std)


def _has_test_split(spec: DatasetSpec, source: str | Path) -> bool:
    """Return whether there is a held-out split.

    Raises `InputError` if its classes are not those of the training images.
    """
    try:
        rows = open_rows(None, "test", source)
    except NoSplit:
        return False
    unknown = [name for name in rows.classes if name not in spec.classes]
    if unknown:
        raise InputError(
            f"{source}: class {unknown[0]!r} is in split {rows.split!r} alone: "
            "add training images, or take it out"
        )
    if not rows.streamed:
        check_labels(read_labels(rows.data), spec, f"{source}: split {rows.split!r}")
    return True


def check_size(config: DANetConfig, data: DatasetSpec) -> None:
    """Raise `InputError` for images whose maps are below 2 x 2 in the network's last stage."""
    convolutions, pool = Stem.LAYOUTS[config.stem]
    halvings = len(config.depths) - (not config.stem.startswith("ms"))
    stride = math.prod(stride for _, stride in convolutions) * (2 if pool else 1) * 2**halvings
    least = 2 * stride
    if data.size < least:
        raise InputError(
            f"images of {data.size} x {data.size} pixels are too small for {len(config.depths)} "
            f"stages and a stem {config.stem!r}: valid are {least} to {MAX_SIZE}, as --size {least}"
        )


def check_unchanged(recorded: Path, data: DatasetSpec, images: int) -> None:
    """Raise `ConfigError` if a run was begun on other data, or on another number of images.

    `recorded` is the run's `recipe.json`. Where it is missing there is no run yet; where it tells
    of no data, `checkpoint.check_same_recipe` refuses it.
    """
    record = read_json_if_whole(recorded)
    if not isinstance(record.get("data"), dict) or "images" not in record:
        return
    before = record["data"] | {"images": record["images"]}
    now = data.to_dict() | {"images": images}
    for key in ("classes", *now):
        if key in before and before[key] != json.loads(json.dumps(now[key])):
            raise ConfigError(
                f"{recorded.parent} holds a run whose data had {key} {_listed(before[key])}, "
                f"and now have {_listed(now[key])}: "
                "give it the same images, or name a new folder with --run"
            )


def _listed(value: Any) -> str:
    """Return some values of a list, or a single value."""
    return first_few(value, MAX_SHOWN) if isinstance(value, list | tuple) else str(value)


def _shown(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)
