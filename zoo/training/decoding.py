"""Data sets whose images are decoded while they are used.

Workers of torch's `DataLoader` decode batches. What a batch holds follows from the sampler and the
step: neither the number of workers nor a resumption changes it.

Shapes: B batch, C channels, H and W height and width.
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from zoo.datasets import DatasetSpec
from zoo.decode import Encoded, Unreadable, View, centre, decode, random_box
from zoo.errors import InputError
from zoo.training.sources import Rows

__all__ = ["NO_IMAGE", "Batch", "DecodedDataset", "IterableLoader", "Loader"]

log = logging.getLogger(__name__)

NO_IMAGE: Encoded = {"bytes": None, "path": None}  # for a row whose image is missing


class Batch(NamedTuple):
    """A batch as a worker hands it over.

    An error is handed over too: raised in the worker, it would arrive with the worker's traceback.
    """

    pixels: Tensor  # uint8 [B, C, H, W]
    labels: Tensor  # int64 [B]
    unreadable: list[str]  # names of images
    error: str = ""


@dataclass(eq=False)
class DecodedDataset:
    """The common part of data sets that are decoded while they are used.

    It decodes images, collects them into batches, and brings the batches of the workers here.
    """

    rows: Rows
    data: DatasetSpec
    # least and greatest share of the area that a training step sees; None: the centre
    crop: tuple[float, float] | None = None
    skip_bad: bool = False
    workers: int | None = None  # processes; None: one for each core
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    unreadable: set[str] = field(default_factory=set)  # names of the images met so far

    @property
    def skipped(self) -> int:
        """Return how many unreadable images were met so far, each counted once.

        They are left out of an evaluation and replaced in training.
        """
        return len(self.unreadable)

    @property
    def encoding(self) -> str:
        """Return the encoding of the images, which is empty where it is not known."""
        return ""

    def to(self, device: torch.device | str) -> Self:
        """Return the same data set with its batches on `device`."""
        return replace(self, device=torch.device(device))

    def _decode(
        self, row: dict[str, Any], name: str, seed: str, unreadable: list[str]
    ) -> np.ndarray | None:
        """Return the pixels uint8 `[C, H, W]` of a random box, or without a seed of the centre.

        For an unreadable image, append its name to `unreadable` and return None; raise `InputError`
        unless such images are skipped.
        """
        box = random_box(self.crop, seed) if self.crop and seed else None
        view: View = box or centre(self.data)
        try:
            return decode(row["image"] or NO_IMAGE, self.data, view, draft=box is not None)
        except Unreadable as error:
            if not self.skip_bad:
                raise InputError(
                    f"{name} is not an image that can be read ({error}); "
                    "--skip-bad leaves such images out"
                ) from None
        unreadable.append(name)
        return None

    def _batch(
        self, images: Iterable[tuple[np.ndarray | None, int]], unreadable: list[str]
    ) -> Batch:
        """Collect the readable ones of pairs of pixels and label.

        `unreadable` may grow meanwhile, as `images` may be decoded while they are iterated over.
        """
        readable = [(pixels, label) for pixels, label in images if pixels is not None]
        shape = (len(readable), self.data.channels, self.data.size, self.data.size)
        batch = np.empty(shape, np.uint8)
        for target, (pixels, _) in zip(batch, readable, strict=True):
            target[:] = pixels
        labels = torch.tensor([label for _, label in readable], dtype=torch.int64)
        return Batch(torch.from_numpy(batch), labels, unreadable)

    def _load(
        self, dataset: "Dataset[Batch]", keys: Iterable[Any] | None, workers: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the pixels and labels that the workers load for `keys`, on the device.

        Raises `InputError` where a worker did, and warns of each unreadable image once.
        """
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=keys,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=self.device.type == "cuda",
            # Without one, the loader would draw from the generator that the model draws from.
            generator=torch.Generator(),
        )
        for pixels, labels, unreadable, error in loader:
            if error:
                raise InputError(error)
            for name in sorted(set(unreadable) - self.unreadable):
                log.warning("%s cannot be read: skipped", name)
            self.unreadable.update(unreadable)
            if len(labels):
                pixels = pixels.to(self.device, non_blocking=True)
                yield pixels, labels.to(self.device, non_blocking=True)

    def _worker_count(self) -> int:
        """Return the number of workers asked for, or this process's share of the cores.

        `torchrun` says how many processes it starts on this machine.
        """
        if self.workers is not None:
            return self.workers
        can_be_bound = hasattr(os, "sched_getaffinity")  # not on macOS
        cores = len(os.sched_getaffinity(0)) if can_be_bound else os.cpu_count() or 1
        return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class Loader(Dataset[Batch]):
    """Loads the batch of a key, in a worker."""

    def __init__(self, load: Callable[[Any], Batch]) -> None:
        self.load = load

    def __getitem__(self, key: Any) -> Batch:
        try:
            return self.load(key)
        except InputError as error:
            return _failed(error)


class IterableLoader(IterableDataset[Batch]):
    """Loads the batches of a worker in turn, given its number and the number of workers."""

    def __init__(self, load: Callable[[int, int], Iterator[Batch]]) -> None:
        self.load = load

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        try:
            yield from self.load(number, workers)
        except InputError as error:
            yield _failed(error)


def _failed(error: InputError) -> Batch:
    return Batch(torch.empty(0), torch.empty(0), [], str(error))


def _unchanged(batch: Any) -> Any:
    return batch
