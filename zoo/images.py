"""Pictures, from files, Pillow or arrays, and recordings, as the tensors that a model takes."""

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
from zoo.recordings import SUFFIXES, is_recording, read_recording
from zoo.saccades import with_saccades

__all__ = ["Picture", "Transform", "normalise", "read_image", "read_pixels", "to_input"]

# A file, Pillow's image, or bytes [H, W], [H, W, C] or [C, H, W].
Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor

ARRAY_CHANNELS = (1, 3, 4)  # grey, RGB, RGB with transparency


@dataclass(frozen=True)
class Transform:
    """Turns pictures, or recordings of events, into the input of a model of `data`.

    The input is float32 `[B, C, H, W]` on the CPU, resized, cropped and normalised. A picture is a
    file, Pillow's image, or uint8 `[H, W]`, `[H, W, C]` or `[C, H, W]` of numpy or torch, and
    stands for a batch of one; a list, tuple or array `[B, ...]` of pictures is a batch. The pixels
    are those that an evaluation and `zoo classify` see.

    For a model of events with T = `steps` it is `[T, B, 2, H, W]`, of files that
    `zoo.recordings.read_recording` reads; one of simulated saccades makes it of pictures too.
    Raises `InputError` for what is neither, or does not fit the model.
    """

    data: DatasetSpec
    steps: int = 1

    def __call__(
        self,
        pictures: Picture | list[Picture] | tuple[Picture, ...],
        *,
        sensor: tuple[int, int] | None = None,
    ) -> Tensor:
        """Return the input for a picture or a batch of pictures.

        `sensor` is the width and height of the camera of recordings that do not say it.
        """
        if isinstance(pictures, np.ndarray | Tensor) and pictures.ndim == 4:
            pictures = list(pictures)
        batch = pictures if isinstance(pictures, list | tuple) else [pictures]
        files = [Path(one) for one in batch if isinstance(one, str | os.PathLike)]
        if sensor and not any(map(is_recording, files)):
            raise InputError("a sensor is of a recording of events, and none is given")
        pixels = [read_pixels(picture, self.data, self.steps, sensor=sensor) for picture in batch]
        if not pixels:
            raise InputError("there are no pictures to transform: give at least one")
        return to_input(torch.stack(pixels), self.data)


def normalise(pixels: Tensor, data: DatasetSpec) -> Tensor:
    """Return bytes `[B, C, H, W]` as float32 of the same shape, on the same device.

    Over the training split its mean is zero and its deviation one.
    """
    shape = (1, -1, 1, 1)
    mean = torch.tensor(data.mean, device=pixels.device).view(shape)
    std = torch.tensor(data.std, device=pixels.device).view(shape)
    return (pixels.float() / 255 - mean) / std


def to_input(pixels: Tensor, data: DatasetSpec) -> Tensor:
    """Return bytes as a network takes them: normalised, with time first.

    Images `[B, C, H, W]` keep their shape; events `[B, T, C, H, W]` become `[T, B, C, H, W]`.
    """
    x = normalise(pixels, data)
    return x.transpose(0, 1) if x.dim() == 5 else x


def read_pixels(
    source: Picture,
    data: DatasetSpec,
    steps: int,
    *,
    sensor: tuple[int, int] | None = None,
    changes: list[str] | None = None,
) -> Tensor:
    """Return one picture as bytes `[C, H, W]`, or one recording of events as `[T, 2, H, W]`.

    For a model of simulated saccades a picture becomes its events. `sensor` is the size of the
    camera of a recording that does not say it; `changes` is extended by what was done. Raises
    `InputError` as `read_image` and `read_recording` do.
    """
    if isinstance(source, str | os.PathLike) and is_recording(Path(source)):
        frames = read_recording(Path(source), data, steps, sensor=sensor, changes=changes)
        return torch.from_numpy(frames)
    pixels = read_image(source, data.images, changes=changes)
    return with_saccades(pixels[None], data, steps)[0]


def read_image(image: Picture, data: DatasetSpec, *, changes: list[str] | None = None) -> Tensor:
    """Return one picture as bytes `[C, H, W]` of the model's size, as an evaluation sees it.

    `changes` is extended by what was done to it, as "resized from 1024x683". Raises `InputError` if
    it cannot be read as an image.
    """
    if data.events or data.channels not in (1, 3):
        takes = f"images of {data.channels} channels, and no image files"
        if data.events:
            takes = f"recordings of events, files {', '.join(SUFFIXES)}, and no images"
        raise InputError(f"a model of {data.title} takes {takes}")
    title, source = _source(image)
    try:
        return torch.from_numpy(decode(source, data, centre(data), changes=changes).copy())
    except Unreadable as error:
        raise InputError(f"{title} is not an image that can be read ({error})") from None


def _source(image: Picture) -> tuple[str, Encoded | Image.Image]:
    """Return what a picture is called in messages, and what `decode` reads of it."""
    match image:
        case Image.Image():
            return "the image", image
        case Tensor():
            return "the image", _from_array(image.numpy(force=True))
        case np.ndarray():
            return "the image", _from_array(image)
        case str() | os.PathLike():
            path = os.fspath(image)
            _check_file(path)
            return path, {"bytes": None, "path": path}
    raise InputError(
        f"a {type(image).__name__} is no picture: give a file, Pillow's image, or an array of "
        "bytes (uint8)"
    )


def _check_file(path: str) -> None:
    """Raise `InputError` for what is no file."""
    if Path(path).is_file():
        return
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder: name image files")
    if Path(path).exists():
        raise InputError(f"{path} is no file: name image files")
    hint = "; images are read from files alone" if path == "-" else ""
    raise InputError(f"{path} does not exist{hint}")


def _from_array(array: np.ndarray) -> Image.Image:
    """Return bytes `[H, W]`, `[H, W, C]` or `[C, H, W]` as Pillow's image."""
    title = f"an array of {array.dtype} {list(array.shape)}"
    if array.dtype != np.uint8:
        raise InputError(
            f"{title} is no picture: give bytes, uint8 from 0 to 255, which the transform itself "
            "normalises"
        )
    if array.ndim == 3:
        first, last = array.shape[0] in ARRAY_CHANNELS, array.shape[2] in ARRAY_CHANNELS
        if first and last:
            raise InputError(
                f"{title} may be [C, H, W] or [H, W, C]: give Pillow's Image.fromarray of it"
            )
        array = array.transpose(1, 2, 0) if first else array
        array = array[:, :, 0] if array.shape[2] == 1 else array
    flat = array.ndim == 2
    if not array.size or not (flat or (array.ndim == 3 and array.shape[2] in ARRAY_CHANNELS)):
        raise InputError(
            f"{title} is no picture: expected [H, W], [H, W, C] or [C, H, W] with 1, 3 or 4 "
            "channels"
        )
    return Image.fromarray(np.ascontiguousarray(array))
