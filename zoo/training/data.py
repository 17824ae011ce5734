"""What is trained and evaluated on: a split of a data set, in memory, in files, or in shards.

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
from zoo.training.events import read_events
from zoo.training.sampler import BatchSampler, generator, rank_range
from zoo.training.sources import open_rows, read_idx
from zoo.training.streams import Files, Shards

__all__ = ["FOLDERS", "BatchSampler", "Images", "Split", "divide", "generator", "load_split"]

# Where a data set lies if nobody says otherwise: Debian's package `dataset-fashion-mnist`.
FOLDERS = {"fmnist": Path("/usr/share/datasets/fashion-mnist")}
MEMORY = 2**32  # bytes of decoded pixels that are held in memory; more are decoded at every use
BATCH = 512  # images that a worker decodes at once where a split is read into memory


class Split(Protocol):
    """A labelled set of images, wherever they are."""

    @property
    def images(self) -> int:
        """How many; 0 for shards of which nobody said."""

    @property
    def skipped(self) -> int:
        """Unreadable ones that were left out or replaced so far."""

    @property
    def encoding(self) -> str:
        """Of its first image's file, as `JPEG`; empty where that is not known."""

    def to(self, device: torch.device | str) -> Self:
        """The same, with its batches on `device`."""

    def training(self, plan: BatchSampler, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """A rank's part of the batches of steps `start`, `start` + 1, ... without end: pixels uint8
        `[B, C, H, W]` or events `[B, T, C, H, W]`, labels int64 `[B]`.
        """

    def evaluation(
        self, batch: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once over all ranks, in batches of at most `batch`; ranks may get different
        numbers.
        """


@dataclass(frozen=True)
class Images:
    """A split in memory: pixels uint8 `[N, C, H, W]` or events `[N, T, C, H, W]`, labels int64
    `[N]`.
    """

    pixels: Tensor
    labels: Tensor
    skipped: int = 0
    encoding: str = ""

    @property
    def images(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> "Images":
        """The same on `device`, where it is indexed too."""
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device))

    def select(self, index: Tensor) -> "Images":
        """The images of these numbers alone."""
        return replace(self, pixels=self.pixels[index], labels=self.labels[index])

    def training(self, plan: BatchSampler, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step in count(start):
            index = plan.indexes(step).to(self.labels.device)
            yield self.pixels[index], self.labels[index]

    def evaluation(
        self, batch: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        mine = rank_range(self.images, rank, ranks)
        for start in range(mine.start, mine.stop, batch):
            part = slice(start, min(start + batch, mine.stop))
            yield self.pixels[part], self.labels[part]


Divisible = TypeVar("Divisible", Images, Files)


def divide(split: Divisible, share: float) -> tuple[Divisible, Divisible]:
    """Hold out a share of the images of each class, always the same ones: what is left, and what is
    held out.
    """
    labels = split.labels.cpu()
    # whatever the seed of the recipe is
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held = torch.zeros(len(labels), dtype=torch.bool)
    for label in set(labels.tolist()):
        of_class = order[labels[order] == label]
        held[of_class[: min(len(of_class) - 1, max(1, round(share * len(of_class))))]] = True
    return split.select((~held).nonzero().flatten()), split.select(held.nonzero().flatten())


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
) -> Split:
    """A split of a local folder or hub id (`ORG/NAME`); `test` is the held-out one, `validation` if
    there is one.

    `steps`: time bins of events. `crop`: train on random boxes with this share of the area, from
    and to. `skip_bad`: leave out what is unreadable. `images`: how many training images there are,
    which shards do not say; if given, a hub id is streamed, whichever the split. `held_out`: the
    share of the training images that is `test` instead. `workers`: processes that decode. Raises
    `InputError` if the data cannot be read, or is not the data set.
    """
    folder, crop = Path(source), crop if split == "train" else None
    stored = "train" if held_out else split
    if data.events:
        frames, labels, skipped = read_events(data, stored, folder, steps, skip_bad=skip_bad)
        return _part(
            Images(torch.from_numpy(frames), torch.from_numpy(labels), skipped), split, held_out
        )
    if folder == FOLDERS.get(data.tag) or any(folder.glob("*-idx[13]-ubyte.gz")):
        pixels, classes = read_idx(data, stored, folder)
        return _part(
            Images(torch.from_numpy(pixels), torch.from_numpy(classes).long()), split, held_out
        )
    if data.channels not in (1, 3):
        raise InputError(f"{data.title} has {data.channels} channels; image files have 1 or 3")
    rows = open_rows(data, stored, source, stream=images > 0)
    if rows.streamed and held_out:
        raise ConfigError(
            f"{source}: no share ({held_out:g}) of shards can be held out, which are read in order: "
            "make one of them the held-out split by its name, as val-0.tar"
        )
    if rows.streamed:
        known = images if split == "train" and images else rows.images
        if split == "train" and not known:
            raise InputError(
                f"{source}: shards cannot be counted: say how many training images they hold with --set images=..."
            )
        return Shards(rows, data, crop, skip_bad, workers, images=known)
    files = _part(Files(rows, data, crop, skip_bad, workers), split, held_out)
    return (
        files if crop or files.images * data.channels * data.size**2 > MEMORY else _decoded(files)
    )


def _part(split: Divisible, name: str, held_out: float) -> Divisible:
    """What is left of the training images for a share that is held out, or as `test` that share;
    all of them if it is zero.
    """
    return divide(split, held_out)[name == "test"] if held_out else split


def _decoded(files: Files) -> Images:
    """All of it in memory."""
    data, kept = files.data, 0
    pixels = torch.empty((files.images, data.channels, data.size, data.size), dtype=torch.uint8)
    labels = torch.empty(files.images, dtype=torch.int64)
    for part, said in files.evaluation(BATCH):
        pixels[kept : kept + len(said)], labels[kept : kept + len(said)] = part, said
        kept += len(said)
    if not kept:
        raise InputError(
            f"none of the {files.images} images of split {files.rows.split!r} can be read"
        )
    return Images(pixels[:kept], labels[:kept], files.skipped, files.encoding)
