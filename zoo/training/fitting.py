"""The recipe that fits a user's own images; `docs/training.md` gives the reasons."""

import math
from typing import Any

from zoo.training.config import Recipe
from zoo.training.describe import OwnData

__all__ = ["fitting_recipe"]

STEPS = 4000  # of the optimiser in all, ...
MIN_EPOCHS, MAX_EPOCHS = 10, 100  # ... unless these are too few or too many epochs
# The largest batch for images of up to so many pixels of height and width.
LARGEST_BATCHES = ((40, 128), (96, 64), (math.inf, 32))
MIN_BATCHES_PER_EPOCH = 8
MIN_BATCH = 4
MAX_SIZE_WITHOUT_BOXES = 96  # pixels; larger images are trained on in random boxes
BOX_AREA = [0.35, 1.0]  # least and greatest share


def fitting_recipe(own: OwnData) -> dict[str, Any]:
    """Return the values of a recipe that depend on the number and size of the images."""
    images, size = own.images, own.spec.size
    base = Recipe.own({"dataset": own.spec.tag, "epochs": 1})
    batch = _batch_size(images, size)
    epochs = round(STEPS * batch / images)
    values: dict[str, Any] = {
        "dataset": own.spec.tag,
        "epochs": min(max(epochs, MIN_EPOCHS), MAX_EPOCHS),
        "batch_size": batch,
        "lr": base.lr * batch / base.batch_size,
    }
    if size > MAX_SIZE_WITHOUT_BOXES:
        values |= {"resized_crop": BOX_AREA, "crop_padding": 0}
    else:
        values |= {"crop_padding": size // 16}
    if own.splits:
        values["validation"] = 0.0
    if own.streamed:
        values |= {"images": images, "flip_alternating": False, "flip": base.flip_alternating}
    return values


def _batch_size(images: int, size: int) -> int:
    """Return the largest power of two that leaves enough batches an epoch and fits into memory."""
    largest = next(batch for limit, batch in LARGEST_BATCHES if size <= limit)
    power = 1 << (images // MIN_BATCHES_PER_EPOCH).bit_length() - 1
    return min(max(power, MIN_BATCH), largest)
