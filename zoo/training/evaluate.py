"""Accuracy on a whole split, every image once."""

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.datasets import DatasetSpec
from zoo.images import normalise
from zoo.training.data import Split

__all__ = ["count_correct", "time_first"]

BATCH = 250


def time_first(pixels: Tensor) -> Tensor:
    """Events of a batch, `[B, T, C, H, W]`, as a network takes them: `[T, B, C, H, W]`. Images stay
    as they are.
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
    """How many images of this rank's part have their largest logit at their label, and how many
    there are.

    `predict`: normalised `[B, C, H, W]` or `[T, B, C, H, W]` -> `[B, K]`.
    """
    right = seen = 0
    for pixels, labels in split.evaluation(BATCH, rank, ranks):
        right += int((predict(time_first(normalise(pixels, data))).argmax(1) == labels).sum())
        seen += len(labels)
        if progress:
            progress(seen, split.images)
    return right, seen
