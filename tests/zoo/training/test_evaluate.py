"""Accuracy counts every image once."""

import pytest
import torch
from torch import Tensor, nn

from zoo.datasets import DATASETS
from zoo.training.data import Images
from zoo.training.evaluate import count_correct, count_correct_by_step

FMNIST = DATASETS["fmnist"]


def coded(n: int) -> Images:
    """Images that show their own label: every pixel is twenty times it."""
    labels = torch.arange(n) % 10
    return Images((labels * 20).to(torch.uint8)[:, None, None, None].expand(-1, 1, 4, 4), labels)


def read_label(x: Tensor) -> Tensor:
    """Logits from normalised images of `coded`."""
    label = ((x[:, 0, 0, 0] * FMNIST.std[0] + FMNIST.mean[0]) * 255 / 20).round().long()
    return nn.functional.one_hot(label, 10).float()


@pytest.mark.parametrize(
    ("n", "sizes"), [(1, [1]), (250, [250]), (253, [250, 3]), (500, [250, 250])]
)
def test_every_image_counts_once(n: int, sizes: list[int]) -> None:
    images, seen, shown = coded(n), [], []

    def predict(x: Tensor) -> Tensor:
        seen.append(len(x))
        return read_label(x)

    wrong = n // 3
    images.labels[:wrong] = (images.labels[:wrong] + 1) % 10
    assert count_correct(
        predict, images, FMNIST, progress=lambda done, total: shown.append((done, total))
    ) == (n - wrong, n)
    assert seen == sizes
    assert shown == [(min(250 * i, n), n) for i in range(1, len(sizes) + 1)]


def test_every_step_is_counted_by_the_mean_of_the_logits_so_far() -> None:
    images = coded(253)

    def per_step(x: Tensor) -> Tensor:
        right = read_label(x)
        return torch.stack([-right, 3 * right, -right])  # the mean is wrong, right, right

    assert count_correct_by_step(per_step, images, FMNIST) == ([0, 253, 253], 253)
    assert count_correct_by_step(lambda x: per_step(x)[1:2], images, FMNIST) == ([253], 253)


def test_no_gradient_is_kept() -> None:
    weight = torch.ones((), requires_grad=True)
    outputs = []

    def predict(x: Tensor) -> Tensor:
        outputs.append(read_label(x) * weight)
        return outputs[-1]

    count_correct(predict, coded(3), FMNIST)
    assert not outputs[0].requires_grad


@pytest.mark.parametrize("n", [1, 2, 3, 251, 1000])
def test_every_image_counts_once_over_all_ranks(n: int) -> None:
    images = coded(n)
    images.labels[::3] = (images.labels[::3] + 1) % 10
    parts = [count_correct(read_label, images, FMNIST, rank=rank, ranks=3) for rank in range(3)]
    right, seen = (sum(part) for part in zip(*parts, strict=True))
    assert (
        (right, seen)
        == count_correct(read_label, images, FMNIST)
        == (n - len(images.labels[::3]), n)
    )


def test_events_come_with_time_first() -> None:
    events = Images(
        torch.randint(0, 3, (7, 4, 2, 5, 6), dtype=torch.uint8), torch.zeros(7, dtype=torch.int64)
    )
    shapes = []

    def predict(x: Tensor) -> Tensor:
        shapes.append(tuple(x.shape))
        assert torch.equal(x, events.pixels.transpose(0, 1).float())  # counts, not shares of 255
        return torch.zeros(7, 10)

    assert count_correct(predict, events, DATASETS["nmnist"]) == (7, 7)
    assert shapes == [(4, 7, 2, 5, 6)]
