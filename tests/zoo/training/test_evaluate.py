"""Accuracy counts every image once."""

import pytest
import torch
from torch import Tensor, nn

from zoo.datasets import DATASETS
from zoo.training.data import Images
from zoo.training.evaluate import top1

FMNIST = DATASETS["fmnist"]


def coded(n: int) -> Images:
    """Images that show their own label: every pixel is twenty times it."""
    labels = torch.arange(n) % 10
    return Images((labels * 20).to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4), labels)


def read_label(x: Tensor) -> Tensor:
    """Logits from normalised images of `coded`."""
    label = ((x[:, 0, 0, 0] * FMNIST.std[0] + FMNIST.mean[0]) * 255 / 20).round().long()
    return nn.functional.one_hot(label, 10).float()


@pytest.mark.parametrize(("n", "sizes"), [(1, [1]), (250, [250]), (253, [250, 3]), (500, [250, 250])])
def test_every_image_counts_once(n: int, sizes: list[int]) -> None:
    images, seen, shown = coded(n), [], []

    def predict(x: Tensor) -> Tensor:
        seen.append(len(x))
        return read_label(x)

    wrong = n // 3
    images.labels[:wrong] = (images.labels[:wrong] + 1) % 10
    assert top1(predict, images, FMNIST, progress=lambda done, total: shown.append((done, total))) == (n - wrong) / n
    assert seen == sizes
    assert shown == [(min(250 * i, n), n) for i in range(1, len(sizes) + 1)]


def test_no_gradient_is_kept() -> None:
    weight = torch.ones((), requires_grad=True)
    outputs = []

    def predict(x: Tensor) -> Tensor:
        outputs.append(read_label(x) * weight)
        return outputs[-1]

    top1(predict, coded(3), FMNIST)
    assert not outputs[0].requires_grad
