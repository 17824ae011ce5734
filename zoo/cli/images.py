"""The images that commands run a model on.

Shapes: `N` images, `C` channels, `H` and `W` pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.danet import DANet
    from zoo.datasets import DatasetSpec
    from zoo.recordings import Sensor

__all__ = ["Images", "bundled_pair", "read_images"]


@dataclass(frozen=True)
class Images:
    """Images of the size and channels that a model takes."""

    pixels: "Tensor"  # bytes [N, C, H, W], or events [N, T, 2, H, W]
    labels: list[int]  # empty for image files
    source: str  # "bundled Fashion-MNIST images"; empty for image files
    titles: list[str]
    # for each image, how it was changed to fit the model, as "resized from 56x56"
    changes: list[list[str]]


def read_images(
    paths: Sequence[Path],
    data: "DatasetSpec",
    steps: int,
    *,
    sensor: "Sensor | None" = None,
    allow_drawings: bool = False,
) -> Images:
    """Read files for a model of `data` with T = `steps`, or its bundled images without `paths`.

    They are images, or for a model of events recordings of a camera of `sensor` pixels; one of
    simulated saccades takes the events of images too. With `allow_drawings`, bundled drawings stand
    in for images that may not be shipped. Raises `InputError` for a file that is neither or does
    not fit, for a `sensor` without a recording, or where nothing is bundled.
    """
    import torch

    from zoo.images import read_pixels
    from zoo.recordings import is_recording
    from zoo.saccades import with_saccades
    from zoo.samples import drawings, samples

    if sensor and not any(map(is_recording, paths)):
        raise InputError(
            "--sensor is the camera's size of a recording of events, and none is given"
        )
    if not paths:
        drawn = drawings(data.images.tag) if allow_drawings else None
        pixels, labels = drawn or samples(data.images.tag)
        source = f"bundled {data.title} images"
        if drawn:
            source = "bundled drawings (no test images)"
        titles = [f"#{i}" for i in range(len(labels))]
        events = with_saccades(pixels, data, steps)
        return Images(events, labels.tolist(), source, titles, [[] for _ in titles])
    changes: list[list[str]] = [[] for _ in paths]
    pixels = torch.stack(
        [
            read_pixels(path, data, steps, sensor=sensor, changes=made)
            for path, made in zip(paths, changes, strict=True)
        ]
    )
    return Images(pixels, [], "", [str(path) for path in paths], changes)


def bundled_pair(model: "DANet") -> "Tensor | None":
    """Return two bundled pictures for the model's data, as it takes them.

    Return None where none are bundled, or they are of another size.
    """
    from zoo.images import to_input
    from zoo.saccades import with_saccades
    from zoo.samples import drawings, samples

    data = model.known_origin.data
    try:
        pixels, _ = drawings(data.images.tag) or samples(data.images.tag)
    except InputError:
        return None
    if pixels.shape[1:] != (data.images.channels, data.size, data.size):
        return None
    return to_input(with_saccades(pixels[:2], data, model.config.steps), data)
