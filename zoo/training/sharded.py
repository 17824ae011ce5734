"""Images that are read in order, shard by shard: tar files, or a data set that stays on the Hub.

The shards are dealt out to the readers of all ranks. A reader shuffles its images within a buffer;
both are done anew in each epoch. A step takes its batch from one reader; the readers take turns.
"""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any

from torch import Tensor

from zoo.errors import InputError
from zoo.training.decoding import NO_IMAGE, Batch, DecodedDataset, IterableLoader
from zoo.training.sampler import BatchSampler, mix_seed

__all__ = ["ShardedDataset"]

MAX_READERS = 16  # of a rank; a power of two, and the most workers that read shards
SHUFFLED_IMAGES = 4096  # encoded images in the buffers of a rank's readers: 450 MB of ImageNet
ROWS_AT_ONCE = 64  # rows that are read from a shard together


@dataclass(eq=False)
class ShardedDataset(DecodedDataset):
    """A split whose rows come shard by shard."""

    images: int = 0  # their number; 0: not known, which is enough for an evaluation

    def training(self, sampler: BatchSampler, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of steps `start`, `start` + 1, ... without end.

        Of the epoch of `start`, the images of earlier steps are read, not decoded. A reader whose
        shards hold less than its steps need begins again, one with more stops early. The box of an
        image follows from seed and step. An unreadable image is replaced by the next of its batch,
        so that a resumed run need not know of it.
        """
        readers = _power_of_two(min(MAX_READERS, self.rows.data.num_shards // sampler.ranks))
        workers = self._worker_count()
        load = partial(self._load_steps, sampler, start, readers)
        # The workers divide the readers evenly; without workers, this process reads for all.
        return self._load(
            IterableLoader(load), None, _power_of_two(min(workers, readers)) if workers else 0
        )

    def evaluation(
        self, batch: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield every readable image once over all ranks, its centre, at most `batch` at a time."""
        workers = min(self._worker_count(), max(1, self.rows.data.num_shards // ranks))
        load = partial(self._load_part, batch, rank, ranks)
        return self._load(IterableLoader(load), None, workers)

    def _load_steps(
        self, sampler: BatchSampler, start: int, readers: int, worker: int, workers: int
    ) -> Iterator[Batch]:
        """Yield the batches of a worker, from readers of its own: `workers` divides `readers`."""
        opened: dict[tuple[int, int], Iterator[dict[str, Any]]] = {}
        for step in count(start + worker, workers):
            epoch, position = divmod(step, sampler.per_epoch)
            reader = step % readers
            if (epoch, reader) not in opened:
                opened = {key: rows for key, rows in opened.items() if key[0] == epoch}
                done = position // readers * sampler.per_rank  # by this reader, in this epoch
                rows = self._read_shuffled(sampler, epoch, reader, readers)
                opened[epoch, reader] = islice(rows, done, None)
            batch = list(islice(opened[epoch, reader], sampler.per_rank))
            yield self._load_rows(batch, sampler, step)

    def _read_shuffled(
        self, sampler: BatchSampler, epoch: int, reader: int, readers: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of a reader in an epoch, again and again."""
        # The readers mix the shards already. To mix them within a reader would take threads, whose
        # end `datasets` waits for by sleeping.
        shuffled = self.rows.data.shuffle(
            seed=mix_seed(sampler.seed, epoch),
            buffer_size=SHUFFLED_IMAGES // readers,
            max_buffer_input_shards=1,
        )
        index, parts = sampler.rank * readers + reader, sampler.ranks * readers
        while True:
            empty = True
            for row in self._read_part(shuffled, index, parts):
                empty = False
                yield row
            if empty:
                raise InputError(f"a shard of split {self.rows.split!r} holds no images")

    def _read_part(self, rows: Any, index: int, parts: int) -> Iterator[dict[str, Any]]:
        """Yield one of `parts` disjoint parts of the rows.

        They are divided by shards if there are enough, else by rows. Raises `InputError` for a
        shard that cannot be read, or a label that is none of the classes.
        """
        from datasets.distributed import split_dataset_by_node

        if rows.num_shards >= parts:
            part = rows.shard(num_shards=parts, index=index)
        else:
            part = split_dataset_by_node(rows, rank=index, world_size=parts)
        try:
            # `__iter__` would divide the part among the workers once more; `iter` does not.
            for group in part.iter(ROWS_AT_ONCE):
                for image, label in zip(group["image"], group["label"], strict=True):
                    self._check_label(image, label)
                    yield {"image": image, "label": label}
        except (OSError, EOFError, tarfile.TarError) as error:
            raise InputError(
                f"a shard of split {self.rows.split!r} cannot be read: {error}"
            ) from None

    def _check_label(self, image: dict[str, Any] | None, label: int | None) -> None:
        if label is None or not 0 <= label < self.data.num_classes:
            valid = f"valid for {self.data.title} are 0 to {self.data.num_classes - 1}"
            raise InputError(f"{self._name(image)}: the label is {label}; {valid}")

    def _load_rows(self, rows: list[dict[str, Any]], sampler: BatchSampler, step: int) -> Batch:
        """Decode the batch of a step; the next readable image replaces an unreadable one."""
        unreadable: list[str] = []
        first = sampler.rank * sampler.per_rank
        decoded = [
            self._decode(
                row, self._name(row["image"]), f"{sampler.seed} {step} {first + i}", unreadable
            )
            for i, row in enumerate(rows)
        ]
        readable = [i for i, pixels in enumerate(decoded) if pixels is not None]
        if not readable:
            raise InputError(
                f"none of the {len(rows)} images of step {step} can be read: {unreadable[0]}, ..."
            )
        chosen = [next((j for j in readable if j >= i), readable[0]) for i in range(len(rows))]
        return self._batch(((decoded[i], rows[i]["label"]) for i in chosen), unreadable)

    def _load_part(
        self, batch: int, rank: int, ranks: int, worker: int, workers: int
    ) -> Iterator[Batch]:
        """Yield what a worker evaluates, in batches."""
        rows = self._read_part(self.rows.data, rank * workers + worker, ranks * workers)
        while group := list(islice(rows, batch)):
            unreadable: list[str] = []
            images = (
                (self._decode(row, self._name(row["image"]), "", unreadable), row["label"])
                for row in group
            )
            yield self._batch(images, unreadable)

    def _name(self, image: dict[str, Any] | None) -> str:
        return str((image or NO_IMAGE)["path"] or f"an image of split {self.rows.split!r}")


def _power_of_two(limit: int) -> int:
    """Return the greatest power of two that is at most `limit`, and at least 1."""
    return 1 << max(limit, 1).bit_length() - 1
