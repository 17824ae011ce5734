"""Images of a user's own, as the tests of them write and describe them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from support.pictures import encoded, picture

from zoo.datasets import DatasetSpec
from zoo.training.describe import OwnData

CLASSES = ("circle", "square", "triangle")


def write_classes(
    folder: Path, classes: Iterable[str] = CLASSES, images: int = 10, **options: Any
) -> Path:
    """Write `FOLDER/CLASS/NUMBER.png`, every picture another."""
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for number in range(images):
            (folder / name / f"{number:02}.png").write_bytes(
                encoded(picture(20 * k + number, **options))
            )
    return folder


def own_data(images: int, size: int, *, splits: bool = False) -> OwnData:
    return OwnData(
        DatasetSpec("pets", "pets", size, 3, 2, (0.5,) * 3, (0.25,) * 3), images, splits, False
    )
