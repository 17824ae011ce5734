"""Accuracy on a whole split, every image once."""

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.datasets import DatasetSpec
from zoo.images import normalise
from zoo.training.data import Split

__all__ = ["count_correct", "time_first"]

BATCH_IMAGES = 250


def time_first(pixels: Tensor) -> Tensor:
    """Return events `[B, T, C, H, W]` as a network takes them, `[T, B, C, H, W]`.

    Images `[B, C, H, W]` stay as they are.
    """
    return pixels.transpose(0, 1) if pixels.dim() == 5 else pixels


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
        predictions = predict(time_first(normalise(pixels, data))).argmax(1)
        correct += int((predictions == labels).sum())
        total += len(labels)
        if progress:
            progress(total, split.images)
    return correct, total
