"""Accuracy on a whole split, every image once."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from zoo.datasets import DATASETS
from zoo.training.data import Images, normalise

__all__ = ["accuracy", "batches"]


def batches(images: Images, dataset: str, size: int = 250) -> Iterator[tuple[Tensor, Tensor]]:
    """Normalised images `[B, C, H, W]` and their labels `[B]`, in order; the last batch may be smaller."""
    spec = DATASETS[dataset]
    for start in range(0, len(images.labels), size):
        part = slice(start, start + size)
        yield normalise(images.pixels[part], spec.mean, spec.std), images.labels[part]


@torch.inference_mode()
def accuracy(model: nn.Module, images: Images, dataset: str) -> float:
    """Top-1 of `model` (put into eval mode) in [0, 1]."""
    model.eval()
    correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in batches(images, dataset))
    return correct / len(images.labels)
