"""Numbers on the levels that integers of a few bits give."""

import torch
from torch import Tensor

__all__ = ["LEVELS", "round_to_levels"]

LEVELS = 127  # of 8 bits, on either side of zero


@torch.no_grad()
def round_to_levels(numbers: Tensor, largest: Tensor) -> Tensor:
    """Round to whole multiples of `largest / LEVELS`, in place, and return that scale.

    `largest` is one number, or one for each row.
    """
    scale = largest.clamp_min(torch.finfo(largest.dtype).tiny) / LEVELS
    step = scale.view(-1, *[1] * (numbers.dim() - 1))
    numbers.copy_(((numbers / step).round() * step).view_as(numbers))
    return scale
