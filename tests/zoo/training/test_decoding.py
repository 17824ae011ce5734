"""Files and shards: what a batch holds follows from the sampler and the step alone."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from support.pictures import encoded, picture
from torch import Tensor

from zoo.datasets import DatasetSpec
from zoo.errors import InputError
from zoo.training.data import load_split
from zoo.training.mapped import MapDataset
from zoo.training.sampler import BatchSampler
from zoo.training.sharded import ShardedDataset
from zoo.training.sources import Rows

pytestmark = pytest.mark.usefixtures("offline")
slow = pytest.mark.slow  # processes have to be started
WORKERS = [0, pytest.param(2, marks=slow)]
CROP = (0.3, 1.0)
UNKNOWN = "unknown format; valid are JPEG, PNG, WEBP, GIF, BMP, TIFF, PPM, AVIF, JPEG2000"
Batches = list[tuple[Tensor, Tensor]]


def take(batches: Iterator[tuple[Tensor, Tensor]], count: int) -> Batches:
    return list(islice(batches, count))


def same(one: Batches, other: Batches) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def numbers(batches: Batches) -> list[int]:
    """Which pictures they hold."""
    assert all(
        (pixels.dtype, labels.dtype) == (torch.uint8, torch.int64) for pixels, labels in batches
    )
    assert all(torch.equal(pixels[:, 0, 0, 0] % 3, labels) for pixels, labels in batches), (
        "a label is another image's"
    )
    return [int(number) for pixels, _ in batches for number in pixels[:, 0, 0, 0]]


@pytest.fixture
def files(write_folders: Callable[..., Path], toy: DatasetSpec) -> Callable[..., MapDataset]:
    """`files(**options)`: 26 pictures in folders; row and number differ, as folders are sorted by
    class.
    """
    folder = write_folders(train=range(26))

    def load(workers: int = 0, skip_bad: bool = False) -> MapDataset:
        split = load_split(toy, "train", folder, crop=CROP, workers=workers, skip_bad=skip_bad)
        assert isinstance(split, MapDataset) and split.images == 26
        return split

    return load


# the pictures in the order of their classes
ROWS = [*range(0, 26, 3), *range(1, 26, 3), *range(2, 26, 3)]


def test_files_train_in_the_order_of_the_plan(files: Callable[..., MapDataset]) -> None:
    sampler = BatchSampler(26, 4)
    batches = take(files().training(sampler, 0), 14)
    assert [numbers([batch]) for batch in batches] == [
        [ROWS[i] for i in sampler.indices(step)] for step in range(14)
    ]
    assert {tuple(pixels.shape) for pixels, _ in batches} == {(4, 3, 8, 8)}


def test_files_see_another_box_in_each_epoch(files: Callable[..., MapDataset]) -> None:
    def boxes(epoch: int, seed: int = 0) -> dict[int, Tensor]:
        batches = take(files().training(BatchSampler(26, 13, seed), 2 * epoch), 2)
        return dict(
            zip(numbers(batches), torch.cat([pixels for pixels, _ in batches]), strict=True)
        )

    first = boxes(0)
    for other in (boxes(1), boxes(0, seed=1)):
        assert all(not torch.equal(first[number], other[number]) for number in range(26))


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("start", [0, 5, 6, 20])
def test_files_resume_exactly(workers: int, start: int, files: Callable[..., MapDataset]) -> None:
    sampler = BatchSampler(26, 4, seed=2)
    assert same(
        take(files(workers).training(sampler, start), 9),
        take(files().training(sampler, 0), start + 9)[start:],
    )


def test_files_read_nothing_that_came_before(files: Callable[..., MapDataset]) -> None:
    split = files()
    read: list[int] = []

    class Spy:
        def __len__(self) -> int:
            return 26

        def __getitem__(self, row: int) -> dict[str, object]:
            read.append(row)
            return dict(split.rows.data[row])

    sampler = BatchSampler(26, 4)
    take(replace(split, rows=Rows(Spy(), "train")).training(sampler, 5), 2)
    assert read == [*sampler.indices(5).tolist(), *sampler.indices(6).tolist()]


def test_ranks_of_files_share_the_batch_of_one(files: Callable[..., MapDataset]) -> None:
    """The same pixels, too: a crop does not depend on the rank that makes it."""
    whole = take(files().training(BatchSampler(26, 6), 3), 3)
    parts = [
        take(files().training(BatchSampler(26, 6, rank=rank, ranks=3), 3), 3) for rank in range(3)
    ]
    assert same(
        [
            tuple(torch.cat(both) for both in zip(*step, strict=True))
            for step in zip(*parts, strict=True)
        ],
        whole,
    )


@pytest.mark.parametrize("workers", WORKERS)
def test_files_evaluate_every_image_once(workers: int, files: Callable[..., MapDataset]) -> None:
    parts = [list(files(workers).evaluation(2, rank, 3)) for rank in range(3)]
    assert [len(numbers(part)) for part in parts] == [8, 9, 9]
    assert numbers([batch for part in parts for batch in part]) == ROWS
    assert same([batch for part in parts for batch in part][:4], list(files().evaluation(2, 0, 3)))


def test_loading_draws_nothing_from_the_model_s_generator(files: Callable[..., MapDataset]) -> None:
    before = torch.get_rng_state()
    take(files().training(BatchSampler(26, 4), 0), 2)
    assert torch.equal(torch.get_rng_state(), before)


def break_one(files: MapDataset, number: int) -> Path:
    path = Path(files.rows.data[ROWS.index(number)]["image"]["path"])
    path.write_bytes(b"broken")
    return path


@pytest.mark.parametrize("workers", WORKERS)
def test_a_bad_file_is_one_line_wherever_it_is_met(
    workers: int, files: Callable[..., MapDataset]
) -> None:
    path = break_one(split := files(workers), 7)
    message = (
        f"{path} is not an image that can be read ({UNKNOWN}); --skip-bad leaves such images out"
    )
    for batches in (split.training(BatchSampler(26, 4), 0), split.evaluation(4)):
        with pytest.raises(InputError) as error:
            take(batches, 7)
        assert str(error.value) == message


@pytest.mark.parametrize("workers", WORKERS)
def test_a_bad_file_is_replaced_by_the_next_row(
    workers: int, files: Callable[..., MapDataset], caplog: pytest.LogCaptureFixture
) -> None:
    split = files(workers, skip_bad=True)
    for number in (25, 2):  # the last of its class, and the first of the next
        break_one(split, number)
    sampler = BatchSampler(26, 26)
    with caplog.at_level(logging.WARNING):
        batches = take(split.training(sampler, 0), 3)
    replaced = {25: 5, 2: 5}
    assert numbers(batches) == [
        replaced.get(ROWS[i], ROWS[i]) for step in range(3) for i in sampler.indices(step).tolist()
    ]
    assert (split.skipped, len(caplog.records)) == (2, 2), "each is counted and told once"
    assert sorted(numbers(list(split.evaluation(4)))) == sorted(set(ROWS) - {25, 2})


def test_nothing_but_bad_files_is_an_error(files: Callable[..., MapDataset]) -> None:
    split = files(skip_bad=True)
    for number in range(26):
        break_one(split, number)
    with pytest.raises(InputError, match="none of the 26 images of split 'train' can be read"):
        next(split.training(BatchSampler(26, 4), 0))


SIZES = (9, 3, 14, 6, 11, 7)  # of shards: 50 pictures
TOTAL = sum(SIZES)


@pytest.fixture
def shards(write_shards: Callable[..., Path], toy: DatasetSpec) -> Callable[..., ShardedDataset]:
    """`shards(**options)`: 50 pictures in the first `count` of six tar files of different sizes."""

    def load(
        workers: int = 0, skip_bad: bool = False, bad: tuple[int, ...] = (), count: int = 6
    ) -> ShardedDataset:
        rows = iter(
            (n, b"broken" if n in bad else encoded(picture(n)), n % 3) for n in range(TOTAL)
        )
        folder = write_shards(
            {f"train-{i}": list(islice(rows, size)) for i, size in enumerate(SIZES[:count])}
        )
        split = load_split(
            toy,
            "train",
            folder,
            crop=CROP,
            workers=workers,
            skip_bad=skip_bad,
            images=sum(SIZES[:count]),
        )
        assert isinstance(split, ShardedDataset) and split.images == sum(SIZES[:count])
        return split

    return load


def test_shards_are_shuffled_anew_in_each_epoch(shards: Callable[..., ShardedDataset]) -> None:
    sampler = BatchSampler(TOTAL, 5)
    epochs = [
        numbers(take(shards().training(sampler, epoch * sampler.per_epoch), sampler.per_epoch))
        for epoch in range(3)
    ]
    assert all(set(epoch) <= set(range(TOTAL)) and epoch != sorted(epoch) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != numbers(
        take(shards().training(replace(sampler, seed=1), 0), sampler.per_epoch)
    )


@pytest.mark.parametrize("rank", [0, 1])
def test_shards_resume_exactly_at_any_step(
    rank: int, shards: Callable[..., ShardedDataset]
) -> None:
    # eight steps an epoch, lanes of which two wrap around
    sampler = BatchSampler(TOTAL, 6, seed=5, rank=rank, ranks=2)
    split = shards()
    whole = take(split.training(sampler, 0), 26)
    for start in range(1, 23):
        assert same(take(split.training(sampler, start), 3), whole[start : start + 3])


@slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("start", [0, 11])
def test_shards_are_the_same_for_any_number_of_workers(
    workers: int, start: int, shards: Callable[..., ShardedDataset]
) -> None:
    sampler = BatchSampler(TOTAL, 6)
    assert same(
        take(shards(workers).training(sampler, start), 12),
        take(shards().training(sampler, start), 12),
    )


def test_resuming_decodes_nothing_that_came_before(
    shards: Callable[..., ShardedDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    from zoo.training import decoding

    decoded: list[object] = []
    decode = decoding.decode
    monkeypatch.setattr(
        decoding, "decode", lambda *args, **kwargs: decoded.append(args) or decode(*args, **kwargs)
    )
    take(shards().training(BatchSampler(TOTAL, 5), 7), 2)
    assert len(decoded) == 10


@pytest.mark.parametrize(("ranks", "count"), [(2, 6), (3, 6), (6, 6), (4, 3)], ids=str)
def test_ranks_of_shards_are_disjoint_and_equally_long(
    ranks: int, count: int, shards: Callable[..., ShardedDataset]
) -> None:
    """With fewer shards than ranks, too. Where a rank's part is shorter than its epoch, it sees
    some images again.
    """
    split = shards(count=count)
    sampler = BatchSampler(split.images, 2 * ranks)
    for epoch in range(2):
        seen = []
        for rank in range(ranks):
            batches = take(
                split.training(replace(sampler, rank=rank, ranks=ranks), epoch * sampler.per_epoch),
                sampler.per_epoch,
            )
            assert len(batches) == sampler.per_epoch and all(
                len(labels) == 2 for _, labels in batches
            )
            seen.append(set(numbers(batches)))
        assert sum(map(len, seen)) == len(set().union(*seen))


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("count", [6, 2])
def test_shards_evaluate_every_image_once(
    workers: int, count: int, shards: Callable[..., ShardedDataset]
) -> None:
    split = shards(workers, count=count)
    parts = [list(split.evaluation(4, rank, 3)) for rank in range(3)]
    assert sorted(numbers([batch for part in parts for batch in part])) == list(range(split.images))
    assert all(numbers(part) for part in parts)


@pytest.mark.parametrize("workers", WORKERS)
def test_a_bad_image_in_a_shard_is_one_line(
    workers: int, shards: Callable[..., ShardedDataset]
) -> None:
    split = shards(workers, bad=(7,))
    for batches in (split.training(BatchSampler(TOTAL, 5), 0), split.evaluation(4)):
        with pytest.raises(
            InputError,
            match=rf"^0007\.png is not an image that can be read \({UNKNOWN}\); --skip-bad leaves",
        ):
            take(batches, 30)


def test_a_bad_image_in_a_shard_is_replaced_within_its_batch(
    shards: Callable[..., ShardedDataset],
) -> None:
    sampler = BatchSampler(TOTAL, 5)
    whole = take(shards().training(sampler, 0), 20)
    split = shards(skip_bad=True, bad=(7, 33))
    batches = take(split.training(sampler, 0), 20)
    for before, after in zip(whole, batches, strict=True):
        old, new = numbers([before]), numbers([after])
        assert len(new) == 5 and not {7, 33} & set(new) and set(new) == set(old) - {7, 33}
        assert all(a == b for a, b in zip(old, new, strict=True) if a not in (7, 33))
    assert same(take(split.training(sampler, 13), 4), batches[13:17])
    assert split.skipped == len({7, 33} & set(numbers(whole))) > 0
    assert sorted(numbers(list(split.evaluation(4)))) == sorted({*range(TOTAL)} - {7, 33})
    assert split.skipped == 2


def test_a_batch_of_bad_images_is_an_error(shards: Callable[..., ShardedDataset]) -> None:
    split = shards(skip_bad=True, bad=tuple(range(TOTAL)))
    with pytest.raises(
        InputError, match=r"none of the 5 images of step 0 can be read: \d{4}\.png, \.\.\."
    ):
        next(split.training(BatchSampler(TOTAL, 5), 0))


def test_a_label_outside_the_classes_is_named(
    write_shards: Callable[..., Path], toy: DatasetSpec
) -> None:
    folder = write_shards(
        {"train-0": [(n, encoded(picture(n)), 3 if n == 4 else 0) for n in range(6)]}
    )
    split = load_split(toy, "train", folder, images=6, workers=0)
    with pytest.raises(InputError, match=r"^0004\.png: the label is 3; valid for Toy are 0 to 2$"):
        list(split.evaluation(4))


def test_a_cut_shard_is_one_line(shards: Callable[..., ShardedDataset], tmp_path: Path) -> None:
    split = shards()
    path = tmp_path / "shards" / "train-2.tar"
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(InputError, match=r"^a shard of split 'train' cannot be read: .*") as error:
        take(split.training(BatchSampler(TOTAL, 5), 0), 10)
    assert "\n" not in str(error.value)
