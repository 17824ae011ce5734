"""Random changes of a batch of small images, on the device where the batch lies.

Shapes: images `[B, C, H, W]`, normalised, so that zero is the mean colour.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["crop", "erase", "flip"]


def crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """For each image its own `H` x `W` window of the image padded by `padding` zeros."""
    b, c, h, w = images.shape
    padded = F.pad(images, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, b), generator=generator).to(images.device)
    rows = (top[:, None] + torch.arange(h, device=images.device))[:, None, :, None]  # [B, 1, H, 1]
    columns = (left[:, None] + torch.arange(w, device=images.device))[:, None, None, :]  # [B, 1, 1, W]
    batch = torch.arange(b, device=images.device)[:, None, None, None]
    channel = torch.arange(c, device=images.device)[None, :, None, None]
    return padded[batch, channel, rows, columns]


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images mirrored left to right."""
    mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def erase(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """One square of `side` pixels in each image set to zero; it may lie partly outside (Cutout, DeVries and Taylor 2017)."""
    b, _, h, w = images.shape
    y = torch.randint(0, h, (b, 1, 1, 1), generator=generator).to(images.device)
    x = torch.randint(0, w, (b, 1, 1, 1), generator=generator).to(images.device)
    rows = torch.arange(h, device=images.device)[None, None, :, None]
    columns = torch.arange(w, device=images.device)[None, None, None, :]
    inside = ((rows - y + side // 2) // side == 0) & ((columns - x + side // 2) // side == 0)
    return images.masked_fill(inside, 0)
