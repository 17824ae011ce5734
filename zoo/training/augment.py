"""Random changes of a batch of images, on the device where the batch lies.

Every image has its own draw, and every draw comes from the CPU generator that is passed in: a batch
changes in the same way on every device.

Shapes: images `[B, C, H, W]`, normalised, so that zero is the mean colour; event tensors `[B, T, C,
H, W]` change alike at every time step.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["crop", "erase", "flip", "flip_alternating", "mix", "random_erase", "resize"]

ERASED_AREA = (0.02, 0.33)  # of the image, and
ERASED_ASPECT = (0.3, 3.3)  # height to width: Random Erasing, Zhong et al. 2017, section 4.2

P = ParamSpec("P")


def _at_all_steps(
    change: Callable[Concatenate[Tensor, P], Tensor],
) -> Callable[Concatenate[Tensor, P], Tensor]:
    """A change of images takes events too: it treats all channels of an image alike, so time steps
    can pass for channels.
    """

    @wraps(change)
    def changed(images: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        # [B, T*C, H, W] and back
        return change(images.flatten(1, -3), *args, **kwargs).reshape(images.shape)

    return changed


def resize(images: Tensor, size: int) -> Tensor:
    """Resample images to `size` x `size` pixels, each of which averages all that it covers."""
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


@_at_all_steps
def crop(
    images: Tensor, padding: int, generator: torch.Generator, *, reflect: bool = False
) -> Tensor:
    """Cut an `H` x `W` window of its own out of each image, padded by `padding` zeros, or by its
    mirror image if `reflect`.
    """
    b, c, h, w = images.shape
    padded = F.pad(images, (padding,) * 4, mode="reflect" if reflect else "constant")
    top, left = torch.randint(0, 2 * padding + 1, (2, b), generator=generator).to(images.device)
    rows = (top[:, None] + torch.arange(h, device=images.device))[:, None, :, None]  # [B, 1, H, 1]
    # [B, 1, 1, W]
    columns = (left[:, None] + torch.arange(w, device=images.device))[:, None, None, :]
    batch = torch.arange(b, device=images.device)[:, None, None, None]
    channel = torch.arange(c, device=images.device)[None, :, None, None]
    return padded[batch, channel, rows, columns]


@_at_all_steps
def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images mirrored left to right."""
    mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


@_at_all_steps
def flip_alternating(images: Tensor, index: Tensor, epoch: int, seed: int) -> Tensor:
    """Mirror each image left to right in every other epoch; `index` `[B]`, its number in the split,
    and the seed say in which.

    Two epochs show every image both ways, where independent draws would repeat half of them (Jordan
    2024, section 3.6).
    """
    # bits that do not follow the order of the images
    first = (index * 2_654_435_761 + seed * 40_503) >> 16
    mirrored = ((first + epoch) % 2 == 1).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


@_at_all_steps
def erase(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """One square of `side` pixels in each image set to zero; it may lie partly outside (Cutout,
    DeVries and Taylor 2017).
    """
    b, _, h, w = images.shape
    y = torch.randint(0, h, (b, 1, 1, 1), generator=generator).to(images.device)
    x = torch.randint(0, w, (b, 1, 1, 1), generator=generator).to(images.device)
    rows = torch.arange(h, device=images.device)[None, None, :, None]
    columns = torch.arange(w, device=images.device)[None, None, None, :]
    inside = ((rows - y + side // 2) // side == 0) & ((columns - x + side // 2) // side == 0)
    return images.masked_fill(inside, 0)


@_at_all_steps
def random_erase(images: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """A rectangle of random area and shape set to zero in a share `probability` of the images
    (Zhong et al. 2017).

    A rectangle longer than the image is cut to it, where the paper draws another one.
    """
    b, _, h, w = images.shape
    chosen, area, aspect, y, x = torch.rand(5, b, generator=generator)
    (smallest, largest), (flattest, steepest) = ERASED_AREA, ERASED_ASPECT
    area = (smallest + (largest - smallest) * area) * h * w
    aspect = flattest * (steepest / flattest) ** aspect  # as often 1/2 as 2
    # no row: nothing to erase
    height = (area * aspect).sqrt().round().clamp(1, h) * (chosen < probability)
    width = (area / aspect).sqrt().round().clamp(1, w)
    top, left = (y * (h - height + 1)).floor(), (x * (w - width + 1)).floor()
    top, bottom, left, right = torch.stack([top, top + height, left, left + width]).to(
        images.device
    )[..., None, None, None]
    rows = torch.arange(h, device=images.device)[:, None]
    columns = torch.arange(w, device=images.device)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)  # [B, 1, H, W]
    return images.masked_fill(inside, 0)


def mix(
    images: Tensor, targets: Tensor, mixup: float, cutmix: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Each image and its target `[B, K]` mixed with another of the batch, in a share drawn from
    Beta(alpha, alpha).

    mixup: alpha of the weighted mean of two images (Zhang et al. 2018), 0 for none
    cutmix: alpha of a rectangle pasted from the other image (Yun et al. 2019), 0 for none
    With both, the batch gets one or the other with equal chance.
    """
    if not mixup and not cutmix:
        return images, targets
    pastes = not mixup or (cutmix > 0 and torch.rand((), generator=generator).item() < 0.5)
    kept = _beta(cutmix if pastes else mixup, generator)
    partner = torch.randperm(len(images), generator=generator).to(images.device)
    if pastes:
        mixed, kept = _paste(images, images[partner], kept, generator)
    else:
        mixed = torch.lerp(images[partner], images, kept)
    return mixed, torch.lerp(targets[partner], targets, kept)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """torch's Beta takes no generator: numpy's is seeded by a number of torch's."""
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def _paste(
    images: Tensor, others: Tensor, kept: float, generator: torch.Generator
) -> tuple[Tensor, float]:
    """A rectangle of the share `1 - kept` from the other images, and the share that is left: its
    centre may lie at the border.
    """
    h, w = images.shape[-2:]
    y, x = (int(torch.randint(side, (), generator=generator)) for side in (h, w))
    height, width = (int(side * math.sqrt(1 - kept)) for side in (h, w))
    top, left = y - height // 2, x - width // 2
    rows = slice(max(top, 0), min(top + height, h))
    columns = slice(max(left, 0), min(left + width, w))
    mixed = images.clone()
    mixed[..., rows, columns] = others[..., rows, columns]
    return mixed, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (h * w)
