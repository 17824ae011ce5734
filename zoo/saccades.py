"""Events of simulated micro-saccades: what an event camera would see of a still image.

An eye that fixates an image still moves by about a pixel, and an event camera that moved so would
report the edges. Ma et al., "I2E: Real-Time Image-to-Event Conversion for High-Performance Spiking
Neural Networks", AAAI 2026 (arXiv:2511.08065), algorithm 1, simulates this: at each of eight steps
two copies of the image, shifted by a pixel at most, are compared, and where the brightness differs
by more than a share of the image's range there is an event. These are no recordings: an image that
does not move has neither noise nor a sense of time.

Shapes: `B` images, `C` channels, `H` and `W` pixels, `T` steps.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.datasets import DatasetSpec
from zoo.errors import InputError

__all__ = ["MOVES", "check_steps", "saccades", "with_saccades"]

# The shift (row, column) of the earlier and the later copy at each step (algorithm 1, line 2).
MOVES = (
    ((1, 1), (0, -1)),
    ((0, -1), (-1, 1)),
    ((-1, 1), (1, 0)),
    ((1, 0), (-1, -1)),
    ((0, 0), (0, 1)),
    ((0, 0), (-1, 0)),
    ((0, 0), (-1, 1)),
    ((0, 0), (-1, -1)),
)


def check_steps(steps: int) -> None:
    """Raise `InputError` for a number of steps T that the simulation does not have."""
    if not 1 <= steps <= len(MOVES):
        raise InputError(f"T = {steps}: there are simulated saccades for T = 1 to {len(MOVES)}")


def with_saccades(pixels: Tensor, data: DatasetSpec, steps: int) -> Tensor:
    """Return the events of still images `[B, C, H, W]` for a network of them; others stay."""
    return saccades(pixels, data.ratio, steps) if data.still else pixels


def saccades(images: Tensor, ratio: float, steps: int = len(MOVES)) -> Tensor:
    """Return events uint8 `[B, T, 2, H, W]`, 0 or 1, of brighter and of darker pixels.

    They are the same for the same images, on any device. Brightness is the greatest of the channels
    (equation 1); beyond its border an image is black. Raises `InputError` for what are no images,
    and for a ratio or a number of steps that cannot be.

    Args:
        images: Brightness `[B, C, H, W]`, of any type and scale.
        ratio: The share of the range of an image's brightness that a difference must exceed,
            from 0 to 1 (equation 4).
        steps: The first so many of the eight moves, T.
    """
    if images.dim() != 4 or not images.numel():
        raise InputError(f"images [B, C, H, W] are needed, these are {list(images.shape)}")
    if not 0 <= ratio < 1:
        raise InputError(f"ratio = {ratio} must be from 0 to below 1")
    check_steps(steps)
    brightness = images.amax(1).float()  # [B, H, W]
    darkest, brightest = brightness.amin((1, 2)), brightness.amax((1, 2))
    threshold = (ratio * (brightest - darkest))[:, None, None]
    padded = F.pad(brightness, (1, 1, 1, 1))

    def shifted(row: int, column: int) -> Tensor:
        height, width = brightness.shape[1:]
        return padded[:, 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    frames = []
    for before, after in MOVES[:steps]:
        change = shifted(*after) - shifted(*before)
        frames.append(torch.stack([change > threshold, -change > threshold], 1))  # [B, 2, H, W]
    return torch.stack(frames, 1).byte()
