"""Data sets that are decoded while they are used: `Files`, of which any row can be read, and
`Shards`, which are read in order.

Workers of torch's `DataLoader` decode whole batches. What a batch holds follows from the plan and
the step: neither the number of workers nor a resumption changes it. Shapes: B batch, C channels, H
and W height and width.
"""

import logging
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, islice
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from zoo.datasets import DatasetSpec
from zoo.decode import Unreadable, View, centre, decode, encoding, random_box
from zoo.errors import InputError
from zoo.training.sampler import BatchSampler, mix, rank_range
from zoo.training.sources import Rows

__all__ = ["Files", "Shards"]

log = logging.getLogger(__name__)
# streams that a process reads in turn, a batch of each; a power of two, and the most workers that
# read shards
LANES = 16
BUFFER = 4096  # encoded images that all lanes of a process hold to shuffle: 450 MB of ImageNet
NOTHING = {"bytes": None, "path": None}


class Batch(NamedTuple):
    """What a worker hands over. An error is handed over too: raised there, it would arrive with the
    worker's traceback.
    """

    pixels: Tensor  # uint8 [B, C, H, W]
    labels: Tensor  # int64 [B]
    bad: list[str]  # names of unreadable images
    error: str = ""


@dataclass(eq=False)
class Stream:
    """What `Files` and `Shards` share: how an image is decoded, and how batches come out of the
    workers.
    """

    rows: Rows
    data: DatasetSpec
    # least and greatest share of the area that a training step sees; None: the centre
    crop: tuple[float, float] | None = None
    skip_bad: bool = False
    workers: int | None = None  # None: a core each
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    bad: set[str] = field(default_factory=set)  # names of the unreadable images met so far

    @property
    def skipped(self) -> int:
        """Unreadable images met so far, each counted once: left out of the evaluation, replaced in
        training.
        """
        return len(self.bad)

    @property
    def encoding(self) -> str:
        """Shards are not opened for it."""
        return ""

    def to(self, device: torch.device | str) -> Self:
        """The same, with its batches on `device`."""
        return replace(self, device=torch.device(device))

    def _decode(
        self, row: dict[str, Any], name: str, seed: str, bad: list[str]
    ) -> np.ndarray | None:
        """The pixels uint8 `[C, H, W]`: a random box if there is a seed and crops are wanted, else
        the centre. An unreadable image is None and a name more in `bad`, or an `InputError` unless
        such are skipped.
        """
        cropped = random_box(self.crop, seed) if self.crop and seed else None
        view: View = cropped or centre(self.data)
        try:
            return decode(row["image"] or NOTHING, self.data, view, draft=cropped is not None)
        except Unreadable as error:
            if not self.skip_bad:
                raise InputError(
                    f"{name} is not an image that can be read ({error}); --skip-bad leaves such images out"
                ) from None
        bad.append(name)
        return None

    def _batch(self, images: Iterable[tuple[np.ndarray | None, int]], bad: list[str]) -> Batch:
        """The readable ones of pairs of pixels and label. `bad` may grow while they are decoded
        here.
        """
        readable = [(pixels, label) for pixels, label in images if pixels is not None]
        batch = np.empty(
            (len(readable), self.data.channels, self.data.size, self.data.size), np.uint8
        )
        for target, (pixels, _) in zip(batch, readable, strict=True):
            target[:] = pixels
        return Batch(
            torch.from_numpy(batch),
            torch.tensor([label for _, label in readable], dtype=torch.int64),
            bad,
        )

    def _deliver(
        self, dataset: "Dataset[Batch]", sampler: Iterable[Any] | None, workers: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the workers, on the device."""
        loader = DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=self.device.type == "cuda",
            # else the loader would draw from the generator that the model draws from
            generator=torch.Generator(),
        )
        for pixels, labels, bad, error in loader:
            if error:
                raise InputError(error)
            for name in sorted(set(bad) - self.bad):
                log.warning("%s cannot be read: skipped", name)
            self.bad.update(bad)
            if len(labels):
                yield (
                    pixels.to(self.device, non_blocking=True),
                    labels.to(self.device, non_blocking=True),
                )

    def _processes(self) -> int:
        """The number of workers: as asked for, or this process's share of the cores (`torchrun`
        says how many it starts).
        """
        if self.workers is not None:
            return self.workers
        cores = (
            len(os.sched_getaffinity(0))
            if hasattr(os, "sched_getaffinity")
            else os.cpu_count() or 1
        )
        return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


class Files(Stream):
    """Rows that can be read in any order: files in folders, or Parquet."""

    @property
    def images(self) -> int:
        return len(self.rows.data)

    @property
    def labels(self) -> Tensor:
        """The label of each image, int64 `[N]`."""
        return torch.tensor(self.rows.data["label"][:], dtype=torch.int64)

    def select(self, index: Tensor) -> Self:
        """The images of these numbers alone."""
        return replace(
            self,
            rows=replace(self.rows, data=self.rows.data.select(index.tolist()), images=len(index)),
        )

    @property
    def encoding(self) -> str:
        """Of the first image."""
        return encoding(self.rows.data[0]["image"] or NOTHING) if self.images else ""

    def training(self, plan: BatchSampler, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of steps `start`, `start` + 1, ... without end; nothing before is read.

        The box of an image follows from seed, epoch and row. An unreadable image is replaced by
        that of the next row.
        """
        return self._deliver(_Calls(partial(self._step, plan)), count(start), self._processes())

    def evaluation(
        self, batch: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Every readable image once over all ranks, its centre, in batches of at most `batch`."""
        mine = rank_range(self.images, rank, ranks)
        parts = [mine[i : i + batch] for i in range(0, len(mine), batch)]
        # to start one takes 0.1 s
        return self._deliver(_Calls(self._whole), parts, min(self._processes(), len(parts) // 2))

    def _step(self, plan: BatchSampler, step: int) -> Batch:
        bad: list[str] = []
        seed = f"{plan.seed} {step // plan.per_epoch}"
        return self._batch(
            (self._readable(index, seed, bad) for index in plan.indexes(step).tolist()), bad
        )

    def _readable(self, index: int, seed: str, bad: list[str]) -> tuple[np.ndarray, int]:
        for number in (*range(index, self.images), *range(index)) if self.skip_bad else (index,):
            row = self.rows.data[number]
            pixels = self._decode(row, self._name(row, number), f"{seed} {number}", bad)
            if pixels is not None:
                return pixels, row["label"]
        raise InputError(
            f"none of the {self.images} images of split {self.rows.split!r} can be read"
        )

    def _whole(self, part: range) -> Batch:
        bad: list[str] = []
        columns = self.rows.data[part.start : part.stop]  # much quicker than row by row
        rows = [
            {"image": image, "label": label}
            for image, label in zip(columns["image"], columns["label"], strict=True)
        ]
        numbered = zip(part, rows, strict=True)
        return self._batch(
            ((self._decode(row, self._name(row, n), "", bad), row["label"]) for n, row in numbered),
            bad,
        )

    def _name(self, row: dict[str, Any], number: int) -> str:
        image = row["image"] or NOTHING
        if image["bytes"] is None and image["path"]:
            return str(image["path"])
        return f"row {number} of split {self.rows.split!r}" + (
            f" ({image['path']})" if image["path"] else ""
        )


@dataclass(eq=False)
class Shards(Stream):
    """Rows that come shard by shard: tar files, or a data set that stays on the Hub. The shards are
    dealt out to the lanes of all ranks, and a lane's images are shuffled within a buffer, both anew
    in each epoch; the step says whose turn it is.
    """

    images: int = 0  # how many; 0: not known, which is enough for an evaluation

    def training(self, plan: BatchSampler, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of steps `start`, `start` + 1, ... without end; of its epoch, what earlier
        steps saw is read, not decoded.

        A lane whose shards hold less than its steps need begins again, one with more stops early.
        The box of an image follows from seed and step. An unreadable image is replaced by the next
        of its batch, so that resuming need not know of it.
        """
        lanes = _power_of_two(min(LANES, self.rows.data.num_shards // plan.ranks))
        workers = self._processes()
        steps = partial(self._steps, plan, start, lanes)
        return self._deliver(
            _Iterates(steps), None, _power_of_two(min(workers, lanes)) if workers else 0
        )

    def evaluation(
        self, batch: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Every readable image once over all ranks, its centre, in batches of at most `batch`."""
        workers = min(self._processes(), max(1, self.rows.data.num_shards // ranks))
        return self._deliver(_Iterates(partial(self._whole, batch, rank, ranks)), None, workers)

    def _steps(
        self, plan: BatchSampler, start: int, lanes: int, worker: int, workers: int
    ) -> Iterator[Batch]:
        """The batches of a worker. Its lanes are its own, as `workers` divides `lanes`."""
        opened: dict[tuple[int, int], Iterator[dict[str, Any]]] = {}
        for step in count(start + worker, workers):
            epoch, position = divmod(step, plan.per_epoch)
            lane = step % lanes
            if (epoch, lane) not in opened:
                opened = {key: rows for key, rows in opened.items() if key[0] == epoch}
                seen = position // lanes * plan.part  # of this lane, in this epoch
                opened[epoch, lane] = islice(self._lane(plan, epoch, lane, lanes), seen, None)
            yield self._replaced(list(islice(opened[epoch, lane], plan.part)), plan, step)

    def _lane(
        self, plan: BatchSampler, epoch: int, lane: int, lanes: int
    ) -> Iterator[dict[str, Any]]:
        # The lanes mix shards already: to do so within each would take threads, whose end
        # `datasets` waits for by sleeping.
        shuffled = self.rows.data.shuffle(
            seed=mix(plan.seed, epoch), buffer_size=BUFFER // lanes, max_buffer_input_shards=1
        )
        while True:
            empty = True
            for row in self._part(shuffled, plan.rank * lanes + lane, plan.ranks * lanes):
                empty = False
                yield row
            if empty:
                raise InputError(f"a shard of split {self.rows.split!r} holds no images")

    def _part(self, rows: Any, index: int, parts: int) -> Iterator[dict[str, Any]]:
        """One of disjoint parts: of the shards if there are enough, else of the rows. It is read
        with `iter`, as `__iter__` would split it among the workers once more.
        """
        from datasets.distributed import split_dataset_by_node

        enough = rows.num_shards >= parts
        part = (
            rows.shard(num_shards=parts, index=index)
            if enough
            else split_dataset_by_node(rows, rank=index, world_size=parts)
        )
        try:
            for group in part.iter(64):
                for image, label in zip(group["image"], group["label"], strict=True):
                    if label is None or not 0 <= label < self.data.num_classes:
                        valid = f"valid for {self.data.title} are 0 to {self.data.num_classes - 1}"
                        raise InputError(f"{self._name(image)}: the label is {label}; {valid}")
                    yield {"image": image, "label": label}
        except (OSError, EOFError, tarfile.TarError) as error:
            raise InputError(
                f"a shard of split {self.rows.split!r} cannot be read: {error}"
            ) from None

    def _replaced(self, rows: list[dict[str, Any]], plan: BatchSampler, step: int) -> Batch:
        bad: list[str] = []
        first = plan.rank * plan.part
        seeds = [f"{plan.seed} {step} {first + i}" for i in range(len(rows))]
        decoded = [
            self._decode(row, self._name(row["image"]), seed, bad)
            for row, seed in zip(rows, seeds, strict=True)
        ]
        readable = [i for i, pixels in enumerate(decoded) if pixels is not None]
        if not readable:
            raise InputError(
                f"none of the {len(rows)} images of step {step} can be read: {bad[0]}, ..."
            )
        chosen = [next((j for j in readable if j >= i), readable[0]) for i in range(len(rows))]
        return self._batch(((decoded[i], rows[i]["label"]) for i in chosen), bad)

    def _whole(
        self, batch: int, rank: int, ranks: int, worker: int, workers: int
    ) -> Iterator[Batch]:
        rows = self._part(self.rows.data, rank * workers + worker, ranks * workers)
        while group := list(islice(rows, batch)):
            bad: list[str] = []
            yield self._batch(
                (
                    (self._decode(row, self._name(row["image"]), "", bad), row["label"])
                    for row in group
                ),
                bad,
            )

    def _name(self, image: dict[str, Any] | None) -> str:
        return str((image or NOTHING)["path"] or f"an image of split {self.rows.split!r}")


class _Calls(Dataset[Batch]):
    """A function as what a loader's workers index."""

    def __init__(self, function: Callable[[Any], Batch]) -> None:
        self.function = function

    def __getitem__(self, key: Any) -> Batch:
        try:
            return self.function(key)
        except InputError as error:
            return _failed(error)


class _Iterates(IterableDataset[Batch]):
    """A function of worker and number of workers as what they iterate over."""

    def __init__(self, function: Callable[[int, int], Iterator[Batch]]) -> None:
        self.function = function

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        try:
            yield from (
                self.function(worker.id, worker.num_workers) if worker else self.function(0, 1)
            )
        except InputError as error:
            yield _failed(error)


def _failed(error: InputError) -> Batch:
    return Batch(torch.empty(0), torch.empty(0), [], str(error))


def _as_it_is(batch: Any) -> Any:
    return batch


def _power_of_two(limit: int) -> int:
    """The greatest power of two that is at most `limit`, and at least 1."""
    return 1 << max(limit, 1).bit_length() - 1
