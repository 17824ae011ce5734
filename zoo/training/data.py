"""A split to train or evaluate on: in memory, in files, or in shards.

Shapes: N images, T time bins of events, B batch, C channels, H and W height and width.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Literal, Protocol, Self, TypeVar

import torch
from torch import Tensor

from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, InputError
from zoo.saccades import check_steps, saccades
from zoo.training.events import read_events
from zoo.training.idx import read_idx
from zoo.training.mapped import MapDataset
from zoo.training.sampler import BatchSampler, rank_range
from zoo.training.sharded import ShardedDataset
from zoo.training.sources import Rows, check_labels, open_rows, read_labels

__all__ = ["FOLDERS", "Images", "SaccadeSplit", "Split", "divide", "load_split"]

# The folder of a data set unless another is named: that of Debian's `dataset-fashion-mnist`.
FOLDERS = {"fmnist": Path("/usr/share/datasets/fashion-mnist")}
MAX_MEMORY_BYTES = 2**32  # of decoded pixels; images that need more are decoded at every use
DECODED_AT_ONCE = 512  # images that a worker decodes where a split is read into memory


class Split(Protocol):
    """A labelled set of images or events, in memory or not."""

    @property
    def images(self) -> int:
        """Return the number of images, 0 for shards of unknown length."""

    @property
    def skipped(self) -> int:
        """Return how many unreadable images were left out or replaced so far."""

    @property
    def encoding(self) -> str:
        """Return the encoding of the first image's file, as `JPEG`; empty where it is not known."""

    def to(self, device: torch.device | str) -> Self:
        """Return the same split with its batches on `device`."""

    def training(self, sampler: BatchSampler, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a rank's part of the batches of steps `start`, `start` + 1, ... without end.

        Pixels are uint8 `[B, C, H, W]`, or events `[B, T, C, H, W]`; labels are int64 `[B]`.
        """

    def evaluation(
        self, batch: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once over all ranks, in batches of at most `batch`.

        Ranks may get different numbers of images.
        """


@dataclass(frozen=True)
class Images:
    """A split in memory."""

    pixels: Tensor  # uint8 [N, C, H, W], or events [N, T, C, H, W]
    labels: Tensor  # int64 [N]
    skipped: int = 0
    encoding: str = ""

    @property
    def images(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Images":
        """Return the same images on `device`, where they are indexed too."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def select(self, indices: Tensor) -> "Images":
        """Return the split of these images alone."""
        return replace(self, pixels=self.pixels[indices], labels=self.labels[indices])

    def training(self, sampler: BatchSampler, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of steps `start`, `start` + 1, ... without end."""
        for step in count(start):
            indices = sampler.indices(step).to(self.labels.device)
            yield self.pixels[indices], self.labels[indices]

    def evaluation(
        self, batch: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every image once over all ranks, in batches of at most `batch`."""
        part = rank_range(self.images, rank, ranks)
        for start in range(part.start, part.stop, batch):
            stop = min(start + batch, part.stop)
            yield self.pixels[start:stop], self.labels[start:stop]


@dataclass(frozen=True)
class SaccadeSplit:
    """Still images of which simulated saccades make the events of `data`.

    An evaluation sees the events. A training sees the images, which are augmented first.
    """

    stills: Split
    data: DatasetSpec
    steps: int  # T

    @property
    def images(self) -> int:
        """Return the number of images, 0 for shards of unknown length."""
        return self.stills.images

    @property
    def skipped(self) -> int:
        """Return how many unreadable images were left out or replaced so far."""
        return self.stills.skipped

    @property
    def encoding(self) -> str:
        """Return the encoding of the first image's file; empty where it is not known."""
        return self.stills.encoding

    def to(self, device: torch.device | str) -> "SaccadeSplit":
        """Return the same split with its batches on `device`."""
        return replace(self, stills=self.stills.to(device))

    def training(self, sampler: BatchSampler, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a rank's part of the still images of steps `start`, `start` + 1, ..."""
        return self.stills.training(sampler, start)

    def evaluation(
        self, batch: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the events `[B, T, 2, H, W]` of every image once over all ranks."""
        for pixels, labels in self.stills.evaluation(batch, rank, ranks):
            yield saccades(pixels, self.data.ratio, self.steps), labels


Divisible = TypeVar("Divisible", Images, MapDataset)


def divide(split: Divisible, share: float) -> tuple[Divisible, Divisible]:
    """Return what is left of a split, and the share of each class's images that is held out.

    They are always the same images. At least one of a class is held out, and at least one is left.
    """
    labels = split.labels.cpu()
    # A seed of its own: a run with another seed holds out the same images.
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in set(labels.tolist()):
        of_class = order[labels[order] == label]
        number = min(len(of_class) - 1, max(1, round(share * len(of_class))))
        held_out[of_class[:number]] = True
    left, held = (mask.nonzero().flatten() for mask in (~held_out, held_out))
    return split.select(left), split.select(held)


def load_split(
    data: DatasetSpec,
    split: Literal["train", "test"],
    source: str | Path,
    *,
    steps: int = 1,
    crop: tuple[float, float] | None = None,
    skip_bad: bool = False,
    images: int = 0,
    held_out: float = 0.0,
    workers: int | None = None,
    opened: Rows | None = None,
) -> Split:
    """Return a split of a local folder or a hub id (`ORG/NAME`).

    `test` is the held-out split, `validation` if there is one. Raises `InputError` if the data
    cannot be read or are not the data set, `ConfigError` for a share of shards.

    Args:
        data: The data set that the source holds.
        split: Which of its splits to return.
        source: The folder or hub id.
        steps: Time bins of events.
        crop: Least and greatest share of the area of the random boxes to train on.
        skip_bad: Leave out unreadable images.
        images: The number of training images, which shards do not say. If given, a hub id is
            streamed, for either split.
        held_out: The share of the training images that is `test` instead.
        workers: Processes that decode; None for one on each core.
        opened: The rows of the training split of `source`, if they were opened before.
    """
    if data.still:
        check_steps(steps)
        stills = load_split(
            data.images,
            split,
            source,
            crop=crop,
            skip_bad=skip_bad,
            images=images,
            held_out=held_out,
            workers=workers,
            opened=opened,
        )
        return SaccadeSplit(stills, data, steps)
    folder, crop = Path(source), crop if split == "train" else None
    stored = "train" if held_out else split
    if data.events:
        frames, classes, skipped = read_events(data, stored, folder, steps, skip_bad=skip_bad)
        events = Images(torch.from_numpy(frames), torch.from_numpy(classes), skipped)
        return _part(events, split, held_out)
    if folder == FOLDERS.get(data.tag) or any(folder.glob("*-idx[13]-ubyte.gz")):
        pixels, classes = read_idx(data, stored, folder)
        in_memory = Images(torch.from_numpy(pixels), torch.from_numpy(classes).long())
        return _part(in_memory, split, held_out)
    if data.channels not in (1, 3):
        raise InputError(f"{data.title} has {data.channels} channels; image files have 1 or 3")
    if opened and stored == "train" and (opened.streamed or not images):
        rows = _checked(opened, data, source)
    else:
        rows = open_rows(data, stored, source, stream=images > 0)
    if rows.streamed:
        _check_shards(rows, split, source, images, held_out)
        total = images if split == "train" and images else rows.images
        return ShardedDataset(rows, data, crop, skip_bad, workers, images=total)
    files = _part(MapDataset(rows, data, crop, skip_bad, workers), split, held_out)
    fits = files.images * data.channels * data.size**2 <= MAX_MEMORY_BYTES
    return _decoded(files) if fits and not crop else files


def _checked(rows: Rows, data: DatasetSpec, source: str | Path) -> Rows:
    """Return rows that were opened before their data set was known; their labels fit it."""
    if not rows.streamed:
        check_labels(read_labels(rows.data), data, f"{source}: split {rows.split!r}")
    return rows


def _check_shards(rows: Rows, split: str, source: str | Path, images: int, held_out: float) -> None:
    """Raise an error for what shards cannot do: be divided, or be trained on without a number."""
    if held_out:
        raise ConfigError(
            f"{source}: no share ({held_out:g}) of shards can be held out, which are read in "
            "order: make one of them the held-out split by its name, as val-0.tar"
        )
    if split == "train" and not images and not rows.images:
        raise InputError(
            f"{source}: shards cannot be counted: "
            "say how many training images they hold with --set images=..."
        )


def _part(split: Divisible, name: str, held_out: float) -> Divisible:
    """Return the part of the training images that is held out (`test`) or left (`train`).

    Without a share to hold out, it is all of them.
    """
    return divide(split, held_out)[name == "test"] if held_out else split


def _decoded(files: MapDataset) -> Images:
    """Return the split decoded into memory, without the unreadable images."""
    data, done = files.data, 0
    pixels = torch.empty((files.images, data.channels, data.size, data.size), dtype=torch.uint8)
    labels = torch.empty(files.images, dtype=torch.int64)
    for batch_pixels, batch_labels in files.evaluation(DECODED_AT_ONCE):
        stop = done + len(batch_labels)
        pixels[done:stop], labels[done:stop] = batch_pixels, batch_labels
        done = stop
    if not done:
        raise InputError(
            f"none of the {files.images} images of split {files.rows.split!r} can be read"
        )
    return Images(pixels[:done], labels[:done], files.skipped, files.encoding)
