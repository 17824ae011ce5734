"""Splits in memory are divided, trained on and evaluated in the right order."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.pictures import encoded, picture

from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError
from zoo.training import data as module
from zoo.training.data import Images, divide, load_split
from zoo.training.mapped import MapDataset
from zoo.training.sampler import BatchSampler

pytestmark = pytest.mark.usefixtures("offline")


def test_a_share_of_each_class_is_held_out() -> None:
    labels = torch.tensor([0] * 40 + [1] * 20 + [2] * 3 + [3])
    images = Images(torch.arange(64, dtype=torch.uint8).view(64, 1, 1, 1), labels)
    left, held = divide(images, 0.25)
    # a class of one image is trained on
    assert [int((held.labels == label).sum()) for label in range(4)] == [10, 5, 1, 0]
    assert sorted([*left.pixels.flatten().tolist(), *held.pixels.flatten().tolist()]) == list(
        range(64)
    )
    assert all(
        labels[int(pixel)] == label
        for pixel, label in zip(held.pixels.flatten(), held.labels, strict=True)
    )
    torch.rand(3)
    assert torch.equal(divide(images, 0.25)[1].pixels, held.pixels)


def test_files_are_divided_as_images_in_memory_are(
    write_folders: Callable[..., Path], toy: DatasetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_folders(train=range(30), val=range(3))
    in_memory = load_split(toy, "train", folder)
    monkeypatch.setattr(module, "MAX_MEMORY_BYTES", 0)
    files = load_split(toy, "train", folder)
    assert isinstance(files, MapDataset)
    for one, other in zip(divide(files, 0.2), divide(in_memory, 0.2), strict=True):
        assert one.images == other.images and torch.equal(one.labels, other.labels)
        ((pixels, labels),) = one.evaluation(100)
        assert torch.equal(pixels, other.pixels) and torch.equal(labels, other.labels)


def test_nothing_is_held_out_of_shards(write_shards: Callable[..., Path], toy: DatasetSpec) -> None:
    folder = write_shards({"train-0": [(n, encoded(picture(n)), n % 3) for n in range(6)]})
    with pytest.raises(
        ConfigError, match=r"no share \(0.2\) of shards can be held out, .* as val-0\.tar"
    ):
        load_split(toy, "train", folder, images=6, held_out=0.2)


def test_images_train_as_the_plan_says() -> None:
    images = Images(torch.arange(26, dtype=torch.uint8).view(26, 1, 1, 1), torch.arange(26))
    sampler = BatchSampler(26, 4, seed=1, rank=1, ranks=2)
    batches = images.training(sampler, 5)
    for step in range(5, 30):
        pixels, labels = next(batches)
        assert torch.equal(labels, sampler.indices(step)) and torch.equal(pixels.view(-1), labels)


@pytest.mark.parametrize("ranks", [1, 3, 30])
def test_images_are_evaluated_once(ranks: int) -> None:
    images = Images(torch.arange(26, dtype=torch.uint8).view(26, 1, 1, 1), torch.arange(26))
    batches = [batch for rank in range(ranks) for batch in images.evaluation(4, rank, ranks)]
    assert torch.cat([labels for _, labels in batches]).tolist() == list(range(26))
    assert all(
        torch.equal(pixels.view(-1), labels) and 1 <= len(labels) <= 4 for pixels, labels in batches
    )


def test_images_move_to_a_device() -> None:
    images = Images(
        torch.zeros(6, 1, 2, 2, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64), 3
    ).to("meta")
    assert (
        images.pixels.device.type,
        images.labels.device.type,
        images.images,
        images.skipped,
    ) == ("meta", "meta", 6, 3)
    assert next(images.training(BatchSampler(6, 2), 0))[0].device.type == "meta"
