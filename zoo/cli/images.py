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

__all__ = ["Images", "bundled_pair", "read_images"]


@dataclass(frozen=True)
class Images:
    """Images of the size and channels that a model takes."""

    pixels: "Tensor"  # bytes [N, C, H, W]
    labels: list[int]  # empty for image files
    source: str  # "bundled Fashion-MNIST images"; empty for image files
    titles: list[str]
    # for each image, how it was changed to fit the model, as "resized from 56x56"
    changes: list[list[str]]


def read_images(
    paths: Sequence[Path], data: "DatasetSpec", *, allow_drawings: bool = False
) -> Images:
    """Read image files for a model of `data`, or its bundled images if there are no `paths`.

    With `allow_drawings`, bundled drawings stand in for images that may not be shipped. Raises
    `InputError` for a file that is not an image, or where nothing is bundled.
    """
    import torch

    from zoo.images import read_image
    from zoo.samples import drawings, samples

    if not paths:
        drawn = drawings(data.tag) if allow_drawings else None
        pixels, labels = drawn or samples(data.tag)
        source = f"bundled {data.title} images"
        if drawn:
            source = "bundled drawings (no test images)"
        titles = [f"#{i}" for i in range(len(labels))]
        return Images(pixels, labels.tolist(), source, titles, [[] for _ in titles])
    changes: list[list[str]] = [[] for _ in paths]
    pixels = torch.stack(
        [read_image(path, data, changes=made) for path, made in zip(paths, changes, strict=True)]
    )
    return Images(pixels, [], "", [str(path) for path in paths], changes)


def bundled_pair(model: "DANet") -> "Tensor | None":
    """Return two bundled pictures for the model's data, normalised `[2, C, H, W]`.

    Return None where none are bundled, or they are of another size.
    """
    from zoo.images import normalise
    from zoo.samples import drawings, samples

    data = model.known_origin.data
    try:
        pixels, _ = drawings(data.tag) or samples(data.tag)
    except InputError:
        return None
    if pixels.shape[1:] != (data.channels, data.size, data.size):
        return None
    return normalise(pixels[:2], data)
