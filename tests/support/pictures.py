"""Images in which every pixel shows the image's number and its own position."""

import io
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["encoded", "picture"]


def picture(number: int, width: int = 12, height: int = 10) -> Image.Image:
    """Return an image whose red is its number and whose green and blue are the pixel's position.

    No crop and no resizing changes the red.
    """
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = number
    pixels[..., 1] = np.linspace(0, 255, width)
    pixels[..., 2] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(pixels)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Return the bytes of an image file, by default a PNG."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()
