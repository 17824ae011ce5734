"""Accuracy counts every image once."""

import pytest
import torch
from torch import Tensor, nn

from zoo.datasets import DATASETS
from zoo.training.data import Images
from zoo.training.evaluate import accuracy, batches

FMNIST = DATASETS["fmnist"]


def coded(n: int) -> Images:
    """Images that show their own label: every pixel is twenty times it."""
    labels = torch.arange(n) % 10
    return Images((labels * 20).to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4), labels)


class Reader(nn.Module):
    """Reads the label off the image."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        self.sizes.append(len(x))
        label = ((x[:, 0, 0, 0] * FMNIST.std[0] + FMNIST.mean[0]) * 255 / 20).round().long()
        return nn.functional.one_hot(label, 10).float()


@pytest.mark.parametrize(("n", "sizes"), [(1, [1]), (250, [250]), (253, [250, 3]), (500, [250, 250])])
def test_every_image_counts_once(n: int, sizes: list[int]) -> None:
    images, reader = coded(n), Reader()
    wrong = n // 3
    images.labels[:wrong] = (images.labels[:wrong] + 1) % 10
    assert accuracy(reader, images, "fmnist") == (n - wrong) / n
    assert reader.sizes == sizes


def test_batches_are_in_order_and_normalised() -> None:
    images = coded(7)
    parts = list(batches(images, "fmnist", size=3))
    assert [len(x) for x, _ in parts] == [3, 3, 1]
    assert torch.cat([y for _, y in parts]).tolist() == images.labels.tolist()
    expected = (images.pixels / 255 - FMNIST.mean[0]) / FMNIST.std[0]
    torch.testing.assert_close(torch.cat([x for x, _ in parts]), expected)
