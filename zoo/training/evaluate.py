"""Accuracy on a whole split, every image once."""

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.datasets import DatasetSpec
from zoo.images import to_input
from zoo.training.data import Split

__all__ = ["count_correct"]

BATCH_IMAGES = 250


@torch.inference_mode()
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
    correct = total = 0
    for pixels, labels in split.evaluation(BATCH_IMAGES, rank, ranks):
        predictions = predict(to_input(pixels, data)).argmax(1)
        correct += int((predictions == labels).sum())
        total += len(labels)
        if progress:
            progress(total, split.images)
    return correct, total
