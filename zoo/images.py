"""Pictures, from files, Pillow or arrays, as the tensors that a model takes."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.datasets import DatasetSpec
from zoo.decode import Encoded, Unreadable, centre, decode
from zoo.errors import InputError

__all__ = ["Picture", "Transform", "normalise", "read_image"]

# A file, Pillow's image, or bytes [H, W], [H, W, C] or [C, H, W].
Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor

CHANNELS = (1, 3, 4)  # of an array: grey, RGB, RGB with transparency


@dataclass(frozen=True)
class Transform:
    """Turns pictures into the input of a model of `data`: float32 `[B, C, H, W]` on the CPU,
    resized, cropped and normalised.

    A picture is a file, Pillow's image, or uint8 `[H, W]`, `[H, W, C]` or `[C, H, W]` of numpy or
    torch, and stands for a batch of one; a list, tuple or array `[B, ...]` of pictures is a batch.
    The pixels are those that an evaluation and `zoo classify` see. Raises `InputError` for what is
    no picture, and where the model takes events.
    """

    data: DatasetSpec

    def __call__(self, pictures: Picture | list[Picture] | tuple[Picture, ...]) -> Tensor:
        if isinstance(pictures, np.ndarray | Tensor) and pictures.ndim == 4:
            pictures = list(pictures)
        batch = pictures if isinstance(pictures, list | tuple) else [pictures]
        pixels = [read_image(picture, self.data) for picture in batch]
        if not pixels:
            raise InputError("there are no pictures to transform: give at least one")
        return normalise(torch.stack(pixels), self.data)


def normalise(pixels: Tensor, data: DatasetSpec) -> Tensor:
    """Bytes `[B, C, H, W]` to float32 of zero mean and unit deviation over the training split."""
    shape = (1, -1, 1, 1)
    mean, std = (
        torch.tensor(values, device=pixels.device).view(shape) for values in (data.mean, data.std)
    )
    return (pixels.float() / 255 - mean) / std


def read_image(image: Picture, data: DatasetSpec, *, changes: list[str] | None = None) -> Tensor:
    """One picture as bytes `[C, H, W]` of the model's size and channels, seen as an evaluation sees
    it.

    `changes` is extended by what was done to it, as "resized from 1024x683". Raises `InputError` if
    it cannot be read as an image.
    """
    if data.events or data.channels not in (1, 3):
        raise InputError(
            f"a model of {data.title} takes {data.channels} channels{' of events' if data.events else ''}, not images"
        )
    named, source = _opened(image)
    try:
        return torch.from_numpy(decode(source, data, centre(data), changes=changes).copy())
    except Unreadable as error:
        raise InputError(f"{named} is not an image that can be read ({error})") from None


def _opened(image: Picture) -> tuple[str, Encoded | Image.Image]:
    """Find what a picture is called in messages, and what `decode` reads of it."""
    match image:
        case Image.Image():
            return "the image", image
        case Tensor():
            return "the image", _from_array(image.numpy(force=True))
        case np.ndarray():
            return "the image", _from_array(image)
        case str() | os.PathLike():
            path = Path(image)
            if not path.exists():
                raise InputError(
                    f"{image} does not exist"
                    + ("; images are read from files alone" if str(image) == "-" else "")
                )
            if not path.is_file():
                raise InputError(
                    f"{image} is {'a folder' if path.is_dir() else 'no file'}: name image files"
                )
            return str(image), {"bytes": None, "path": str(image)}
    raise InputError(
        f"a {type(image).__name__} is no picture: give a file, Pillow's image, or an array of bytes (uint8)"
    )


def _from_array(array: np.ndarray) -> Image.Image:
    """Bytes `[H, W]`, `[H, W, C]` or `[C, H, W]` as Pillow's image."""
    given = f"an array of {array.dtype} {list(array.shape)}"
    if array.dtype != np.uint8:
        raise InputError(
            f"{given} is no picture: give bytes, uint8 from 0 to 255, which the transform itself normalises"
        )
    if array.ndim == 3:
        first, last = array.shape[0] in CHANNELS, array.shape[2] in CHANNELS
        if first and last:
            raise InputError(
                f"{given} may be [C, H, W] or [H, W, C]: give Pillow's Image.fromarray of it"
            )
        array = array.transpose(1, 2, 0) if first else array
        array = array[:, :, 0] if array.shape[2] == 1 else array
    if (
        not array.size
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in CHANNELS)
    ):
        raise InputError(
            f"{given} is no picture: expected [H, W], [H, W, C] or [C, H, W] with 1, 3 or 4 channels"
        )
    return Image.fromarray(np.ascontiguousarray(array))
