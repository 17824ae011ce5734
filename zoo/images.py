"""Image files as the tensors that a model takes."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from zoo.datasets import DatasetSpec
from zoo.errors import InputError

__all__ = ["check_normalised", "normalise", "read_image"]


def normalise(pixels: Tensor, data: DatasetSpec) -> Tensor:
    """Bytes `[B, C, H, W]` to float32 of zero mean and unit deviation over the training split."""
    shape = (1, -1, 1, 1)
    mean, std = (torch.tensor(values, device=pixels.device).view(shape) for values in (data.mean, data.std))
    return (pixels.float() / 255 - mean) / std


def check_normalised(images: Tensor, data: DatasetSpec) -> None:
    """Raises `InputError` for images that are certainly bytes, `normalise` of which was forgotten: integers, or whole numbers of
    which one is larger than a pixel can become. Counts of events are whole numbers, and pass."""
    if data.events:
        return
    largest = max((1 - mean) / std for mean, std in zip(data.mean, data.std, strict=True))
    given = str(images.dtype).removeprefix("torch.")
    if images.is_floating_point():
        if not images.numel() or float(images.max()) <= max(largest, 1) or not torch.equal(images, images.round()):
            return
        given = f"whole numbers up to {float(images.max()):g}"
    raise InputError(
        f"images of {given} are bytes of pixels: networks of {data.title} take normalised ones, as `zoo.images.normalise(pixels, "
        "data)` makes of them, with the data of the network's origin"
    )


def read_image(path: Path, data: DatasetSpec) -> Tensor:
    """One image file as bytes `[C, H, W]`. Raises `InputError` if it is no image, or not of the model's size and channels."""
    try:
        with Image.open(path) as image:
            _check(path, image, data)  # before a pixel is decoded
            array = np.array(image)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except InputError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path} is not an image that can be read: {str(error).splitlines()[0]}") from None
    array = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def _check(path: Path, image: Image.Image, data: DatasetSpec) -> None:
    width, height = image.size
    channels = len(image.getbands())
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        raise InputError(f"{path} has mode {image.mode}: convert it to 8 bits a channel, grey or RGB")
    if (channels, height, width) != (data.channels, data.size, data.size):
        expected = f"{data.size}x{data.size} with {data.channels} channel{'s' if data.channels > 1 else ''}"
        raise InputError(
            f"{path} is {width}x{height} with {channels} channels ({image.mode}); the model takes {expected}: convert it"
        )
