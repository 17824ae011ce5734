"""Image files as the tensors that a model takes."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from zoo.datasets import DatasetSpec
from zoo.decode import Unreadable, centre, decode
from zoo.errors import InputError

__all__ = ["normalise", "read_image"]


def normalise(pixels: Tensor, data: DatasetSpec) -> Tensor:
    """Bytes `[B, C, H, W]` to float32 of zero mean and unit deviation over the training split."""
    shape = (1, -1, 1, 1)
    mean, std = (torch.tensor(values, device=pixels.device).view(shape) for values in (data.mean, data.std))
    return (pixels.float() / 255 - mean) / std


def read_image(image: str | Path | Image.Image, data: DatasetSpec, *, changes: list[str] | None = None) -> Tensor:
    """One image, a file or Pillow's, as bytes `[C, H, W]` of the model's size and channels, seen as an evaluation sees it.

    `changes` is extended by what was done to it, as "resized from 1024x683". Raises `InputError` if it cannot be read as an image.
    """
    if data.events or data.channels not in (1, 3):
        raise InputError(f"a model of {data.title} takes {data.channels} channels{' of events' if data.events else ''}, not images")
    named = "the image"
    if not isinstance(image, Image.Image):
        named, path = str(image), Path(image)
        if not path.exists():
            raise InputError(f"{image} does not exist" + ("; images are read from files alone" if named == "-" else ""))
        if not path.is_file():
            raise InputError(f"{image} is {'a folder' if path.is_dir() else 'no file'}: name image files")
    source = image if isinstance(image, Image.Image) else {"bytes": None, "path": named}
    try:
        return torch.from_numpy(decode(source, data, centre(data), changes=changes).copy())
    except Unreadable as error:
        raise InputError(f"{named} is not an image that can be read ({error})") from None
