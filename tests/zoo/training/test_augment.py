"""Random changes of images: of the right kind, of the right share, and the same for the same generator."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zoo.training.augment import crop, erase, flip

Change = Callable[[Tensor, torch.Generator], Tensor]
CHANGES: dict[str, Change] = {
    "crop": lambda x, g: crop(x, 2, g),
    "flip": flip,
    "erase": lambda x, g: erase(x, 3, g),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int = 64, height: int = 6, width: int = 5) -> Tensor:
    """Images whose pixels are all different, and none zero."""
    return torch.arange(1.0, n * 2 * height * width + 1).view(n, 2, height, width)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_shape_and_determinism(change: Change) -> None:
    x = numbered()
    before, changed = x.clone(), change(x, generator())
    assert changed.shape == x.shape and not torch.equal(changed, x)
    assert torch.equal(x, before)
    assert torch.equal(change(x, generator()), changed)
    assert not torch.equal(change(x, generator(1)), changed)


def test_flip_mirrors_half_of_the_images() -> None:
    x = numbered(400)
    changed = flip(x, generator())
    mirrored = (changed == x.flip(-1)).flatten(1).all(1)
    assert torch.equal(mirrored, ~(changed == x).flatten(1).all(1))
    assert 150 < mirrored.sum() < 250


def test_crop_without_padding_is_the_image() -> None:
    assert torch.equal(crop(numbered(), 0, generator()), numbered())


def test_crop_is_a_window_of_the_padded_image() -> None:
    x, padding = numbered(400), 2
    padded = torch.nn.functional.pad(x, (padding,) * 4)
    windows = {(i, j): padded[:, :, i : i + 6, j : j + 5] for i in range(5) for j in range(5)}
    changed = crop(x, padding, generator())
    matches = {at: (window == changed).flatten(1).all(1).sum().item() for at, window in windows.items()}
    assert sum(matches.values()) == 400  # each image is one of the windows
    assert all(matches.values())  # and every window occurs


@pytest.mark.parametrize("side", [1, 2, 3, 4])
def test_erase_sets_one_square_to_zero(side: int) -> None:
    x = numbered(900, 8, 8)
    changed = erase(x, side, generator())
    erased = changed == 0
    assert torch.equal(changed[~erased], x[~erased])
    assert torch.equal(erased[:, 0], erased[:, 1])  # the same in every channel
    rows, columns = erased[:, 0].any(2).sum(1), erased[:, 0].any(1).sum(1)
    assert torch.equal(erased[:, 0].sum((1, 2)), rows * columns)  # a filled rectangle
    assert rows.max() == columns.max() == side and rows.min() >= 1
    assert erased.any(0).all()  # which may lie anywhere
