"""Splits of the pictures that the tests of data sets write."""

from typing import Any

import torch
from support.pictures import encoded, picture

from zoo.training.data import Images

ROWS = [(encoded(picture(number)), number % 3) for number in range(20)]  # encoded image, label


def numbers(split: Any) -> list[int]:
    """Return which pictures a split in memory holds; check every label."""
    assert isinstance(split, Images)
    assert (split.pixels.dtype, split.labels.dtype) == (torch.uint8, torch.int64)
    assert split.pixels.shape == (split.images, 3, 8, 8)
    assert torch.equal(split.pixels[:, 0, 0, 0] % 3, split.labels)
    return [int(number) for number in split.pixels[:, 0, 0, 0]]
