"""Accuracy on a whole split, every image once."""

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.datasets import DatasetSpec
from zoo.images import to_input
from zoo.training.data import Split

__all__ = ["count_correct", "count_correct_by_step"]

BATCH_IMAGES = 250


def count_correct(
    predict: Callable[[Tensor], Tensor],
    split: Split,
    data: DatasetSpec,
    *,
    rank: int = 0,
    ranks: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[int, int]:
    """Return how many images of this rank's part are classified correctly, and how many there are.

    `predict` takes normalised images `[B, C, H, W]` or events `[T, B, C, H, W]` and returns logits
    `[B, K]`. `progress` is called after each batch, with the images done and the images in all.
    """
    (correct,), images = _count(lambda x: predict(x)[None], split, data, rank, ranks, progress)
    return correct, images


def count_correct_by_step(
    per_step: Callable[[Tensor], Tensor],
    split: Split,
    data: DatasetSpec,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[int], int]:
    """Return how many images are classified correctly after 1, 2, ... T steps, and how many in all.

    `per_step` returns the logits of each step, `[T, B, K]`, as `DANet.per_step` does; the answer
    after some steps is their mean, so the last number is that of `count_correct`.
    """

    def predict(x: Tensor) -> Tensor:
        return per_step(x).cumsum(0)  # a sum is greatest where a mean is

    return _count(predict, split, data, 0, 1, progress)


@torch.inference_mode()
def _count(
    predict: Callable[[Tensor], Tensor],
    split: Split,
    data: DatasetSpec,
    rank: int,
    ranks: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[int], int]:
    """Count the images that each of S answers has right; `predict` returns logits `[S, B, K]`."""
    correct: list[Tensor] = []
    total = 0
    for pixels, labels in split.evaluation(BATCH_IMAGES, rank, ranks):
        predictions = predict(to_input(pixels, data)).argmax(2)  # [S, B]
        correct.append((predictions == labels).sum(1))
        total += len(labels)
        if progress:
            progress(total, split.images)
    return torch.stack(correct).sum(0).tolist() if correct else [0], total
