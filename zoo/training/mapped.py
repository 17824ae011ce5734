"""Images that can be read in any order: files in folders, or rows of Parquet."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from zoo.decode import encoding
from zoo.errors import InputError
from zoo.training.decoding import NO_IMAGE, Batch, DecodedDataset, Loader
from zoo.training.sampler import BatchSampler, rank_range

__all__ = ["MapDataset"]


class MapDataset(DecodedDataset):
    """A split whose rows can be read in any order."""

    @property
    def images(self) -> int:
        """Return the number of images, unreadable ones too."""
        return len(self.rows.data)

    @property
    def labels(self) -> Tensor:
        """Return the label of each image, int64 `[N]`."""
        return torch.tensor(self.rows.data["label"][:], dtype=torch.int64)

    @property
    def encoding(self) -> str:
        """Return the encoding of the first image."""
        return encoding(self.rows.data[0]["image"] or NO_IMAGE) if self.images else ""

    def select(self, indices: Tensor) -> Self:
        """Return the split of these images alone."""
        selected = self.rows.data.select(indices.tolist())
        return replace(self, rows=replace(self.rows, data=selected, images=len(indices)))

    def training(self, sampler: BatchSampler, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of steps `start`, `start` + 1, ... without end.

        Nothing of earlier steps is read. The box of an image follows from seed, epoch and row. An
        unreadable image is replaced by that of the next row.
        """
        load = partial(self._load_step, sampler)
        return self._load(Loader(load), count(start), self._worker_count())

    def evaluation(
        self, batch: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every readable image once over all ranks, its centre, at most `batch` at a time."""
        part = rank_range(self.images, rank, ranks)
        ranges = [part[i : i + batch] for i in range(0, len(part), batch)]
        # A worker takes 0.1 s to start, which is lost for a single batch.
        workers = min(self._worker_count(), len(ranges) // 2)
        return self._load(Loader(self._load_range), ranges, workers)

    def _load_step(self, sampler: BatchSampler, step: int) -> Batch:
        unreadable: list[str] = []
        seed = f"{sampler.seed} {step // sampler.per_epoch}"
        indices = sampler.indices(step).tolist()
        return self._batch((self._readable(i, seed, unreadable) for i in indices), unreadable)

    def _readable(self, index: int, seed: str, unreadable: list[str]) -> tuple[np.ndarray, int]:
        """Return pixels and label of the first readable row from `index` on."""
        following = (*range(index, self.images), *range(index)) if self.skip_bad else (index,)
        for number in following:
            row = self.rows.data[number]
            pixels = self._decode(row, self._name(row, number), f"{seed} {number}", unreadable)
            if pixels is not None:
                return pixels, row["label"]
        raise InputError(
            f"none of the {self.images} images of split {self.rows.split!r} can be read"
        )

    def _load_range(self, part: range) -> Batch:
        unreadable: list[str] = []
        columns = self.rows.data[part.start : part.stop]  # much quicker than row by row
        rows = [
            {"image": image, "label": label}
            for image, label in zip(columns["image"], columns["label"], strict=True)
        ]
        images = (
            (self._decode(row, self._name(row, number), "", unreadable), row["label"])
            for number, row in zip(part, rows, strict=True)
        )
        return self._batch(images, unreadable)

    def _name(self, row: dict[str, Any], number: int) -> str:
        """Return the path of an image, or its row with what it was called."""
        image = row["image"] or NO_IMAGE
        if image["bytes"] is None and image["path"]:
            return str(image["path"])
        former_name = f" ({image['path']})" if image["path"] else ""
        return f"row {number} of split {self.rows.split!r}{former_name}"
