"""Random augmentation of a batch of images, on the device of the batch.

Every image has its own draw, and every draw comes from the CPU generator that is passed in, so a
batch changes in the same way on every device.

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

# Random Erasing, Zhong et al. 2017, section 4.2
ERASED_AREA = (0.02, 0.33)  # share of the image
ERASED_ASPECT = (0.3, 3.3)  # height to width

P = ParamSpec("P")


def _at_all_steps(
    change: Callable[Concatenate[Tensor, P], Tensor],
) -> Callable[Concatenate[Tensor, P], Tensor]:
    """Return a change of images that takes events too.

    It treats all channels of an image alike, so that time steps can pass for channels.
    """

    @wraps(change)
    def changed(images: Tensor, /, *args: P.args, **kwargs: P.kwargs) -> Tensor:
        # [B, T*C, H, W] and back
        return change(images.flatten(1, -3), *args, **kwargs).reshape(images.shape)

    return changed


def resize(images: Tensor, size: int) -> Tensor:
    """Return images of `size` x `size` pixels, each of which averages all that it covers."""
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


@_at_all_steps
def crop(
    images: Tensor, padding: int, generator: torch.Generator, *, reflect: bool = False
) -> Tensor:
    """Return an `H` x `W` window of its own out of each image, padded by `padding` pixels.

    They are zero, or mirror the image if `reflect`.
    """
    b, c, h, w = images.shape
    padded = F.pad(images, (padding,) * 4, mode="reflect" if reflect else "constant")
    top, left = torch.randint(0, 2 * padding + 1, (2, b), generator=generator).to(images.device)
    rows = top[:, None] + torch.arange(h, device=images.device)  # [B, H]
    columns = left[:, None] + torch.arange(w, device=images.device)  # [B, W]
    batch = torch.arange(b, device=images.device)[:, None, None, None]
    channel = torch.arange(c, device=images.device)[None, :, None, None]
    return padded[batch, channel, rows[:, None, :, None], columns[:, None, None, :]]


@_at_all_steps
def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images, each mirrored left to right with a probability of one half."""
    mirrored = (torch.rand(len(images), generator=generator) < 0.5).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


@_at_all_steps
def flip_alternating(images: Tensor, index: Tensor, epoch: int, seed: int) -> Tensor:
    """Return the images, each mirrored left to right in every other epoch.

    The number of an image in the split, `index` `[B]`, and the seed decide in which. Two epochs
    show every image both ways, where independent draws would repeat half of them (Jordan 2024,
    section 3.6).
    """
    # A multiplicative hash, so that the halves do not follow the order of the images.
    first = (index * 2_654_435_761 + seed * 40_503) >> 16
    mirrored = ((first + epoch) % 2 == 1).to(images.device)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


@_at_all_steps
def erase(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Return the images with one random square of `side` pixels in each set to zero.

    It may lie partly outside (Cutout, DeVries and Taylor 2017).
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
    """Return the images, some with a rectangle of random area and shape set to zero.

    An image is chosen with `probability` (Random Erasing, Zhong et al. 2017). A rectangle longer
    than the image is cut to it, where the paper draws another one.
    """
    b, _, h, w = images.shape
    chosen, area, aspect, y, x = torch.rand(5, b, generator=generator)
    (smallest, largest), (flattest, steepest) = ERASED_AREA, ERASED_ASPECT
    area = (smallest + (largest - smallest) * area) * h * w
    aspect = flattest * (steepest / flattest) ** aspect  # as often 1/2 as 2
    height = (area * aspect).sqrt().round().clamp(1, h)
    height = height * (chosen < probability)  # no rows in an image that is not chosen
    width = (area / aspect).sqrt().round().clamp(1, w)
    top, left = (y * (h - height + 1)).floor(), (x * (w - width + 1)).floor()
    edges = torch.stack([top, top + height, left, left + width]).to(images.device)
    top, bottom, left, right = edges[..., None, None, None]
    rows = torch.arange(h, device=images.device)[:, None]
    columns = torch.arange(w, device=images.device)
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)  # [B, 1, H, W]
    return images.masked_fill(inside, 0)


def mix(
    images: Tensor, targets: Tensor, mixup: float, cutmix: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return each image and its target `[B, K]` mixed with another of the batch.

    The share of each is drawn from Beta(alpha, alpha). With alphas of both methods, the batch gets
    one or the other with equal chance.

    Args:
        images: `[B, C, H, W]`, or events `[B, T, C, H, W]`.
        targets: Shares of the classes, `[B, K]`.
        mixup: Alpha of the weighted mean of two images (Zhang et al. 2018), 0 for none.
        cutmix: Alpha of a rectangle pasted from the other image (Yun et al. 2019), 0 for none.
        generator: The source of all draws, on the CPU.
    """
    if not mixup and not cutmix:
        return images, targets
    pastes = not mixup or (cutmix > 0 and torch.rand((), generator=generator).item() < 0.5)
    share = _beta(cutmix if pastes else mixup, generator)
    partner = torch.randperm(len(images), generator=generator).to(images.device)
    if pastes:
        mixed, share = _paste(images, images[partner], share, generator)
    else:
        mixed = torch.lerp(images[partner], images, share)
    return mixed, torch.lerp(targets[partner], targets, share)


def _beta(alpha: float, generator: torch.Generator) -> float:
    """Return a draw from Beta(alpha, alpha).

    As torch's own takes no generator, numpy's is seeded by a number of torch's.
    """
    seed = int(torch.randint(2**62, (), generator=generator))
    return float(np.random.default_rng(seed).beta(alpha, alpha))


def _paste(
    images: Tensor, others: Tensor, share: float, generator: torch.Generator
) -> tuple[Tensor, float]:
    """Return images with a rectangle of the area `1 - share` from others, and the share left.

    That may be more than `share`, as the centre of the rectangle may lie at the border.
    """
    h, w = images.shape[-2:]
    y, x = (int(torch.randint(side, (), generator=generator)) for side in (h, w))
    height, width = (int(side * math.sqrt(1 - share)) for side in (h, w))
    top, left = y - height // 2, x - width // 2
    rows = slice(max(top, 0), min(top + height, h))
    columns = slice(max(left, 0), min(left + width, w))
    mixed = images.clone()
    mixed[..., rows, columns] = others[..., rows, columns]
    return mixed, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / (h * w)
