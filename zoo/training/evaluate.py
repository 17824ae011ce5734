"""Accuracy on a whole split, every image once."""

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.datasets import DatasetSpec
from zoo.images import normalise
from zoo.training.data import Images

__all__ = ["top1"]

BATCH = 250


@torch.inference_mode()
def top1(
    predict: Callable[[Tensor], Tensor], images: Images, data: DatasetSpec, *, progress: Callable[[int, int], None] | None = None
) -> float:
    """The share of images in [0, 1] whose largest logit is their label's. `predict`: normalised `[B, C, H, W]` -> `[B, K]`."""
    correct, total = 0, len(images.labels)
    for start in range(0, total, BATCH):
        part = slice(start, start + BATCH)
        correct += int((predict(normalise(images.pixels[part], data)).argmax(1) == images.labels[part]).sum())
        if progress:
            progress(min(start + BATCH, total), total)
    return correct / total
