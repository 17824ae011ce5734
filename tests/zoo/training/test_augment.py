"""Random changes of images: of the right kind, of the right share, and the same for the same
generator.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from zoo.training.augment import crop, erase, flip, flip_alternating, mix, random_erase, resize

Change = Callable[[Tensor, torch.Generator], Tensor]
CHANGES: dict[str, Change] = {
    "crop": lambda x, g: crop(x, 2, g),
    "crop, reflected": lambda x, g: crop(x, 2, g, reflect=True),
    "flip": flip,
    "erase": lambda x, g: erase(x, 3, g),
    "random_erase": lambda x, g: random_erase(x, 0.5, g),
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(n: int = 64, height: int = 6, width: int = 5) -> Tensor:
    """Images whose pixels are all different, and none zero."""
    return torch.arange(1.0, n * 2 * height * width + 1).view(n, 2, height, width)


def one_hot(classes: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(classes).float()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_shape_and_determinism(change: Change) -> None:
    x, state = numbered(), torch.get_rng_state()
    before, changed = x.clone(), change(x, generator())
    assert torch.equal(torch.get_rng_state(), state)
    assert changed.shape == x.shape and not torch.equal(changed, x)
    assert torch.equal(x, before)
    assert torch.equal(change(x, generator()), changed)
    assert not torch.equal(change(x, generator(1)), changed)


@pytest.mark.parametrize(
    ("name", "golden"), [("crop", 10835789054), ("flip", 18874358320), ("erase", 14805157192)]
)
def test_the_draws_of_trained_weights_stay(name: str, golden: int) -> None:
    x = numbered()
    assert (
        CHANGES[name](x, generator()).long().flatten() * torch.arange(x.numel())
    ).sum() == golden


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_events_change_alike_at_every_time_step(change: Change) -> None:
    # [B, T, C, H, W]
    events = torch.stack([numbered(), numbered() + 9000, numbered() + 20000], dim=1)
    changed = change(events, generator())
    assert changed.shape == events.shape
    for step in range(3):
        assert torch.equal(changed[:, step], change(events[:, step], generator()))
    transposed = events.transpose(0, 1).contiguous().transpose(0, 1)  # as a view of [T, B, C, H, W]
    assert torch.equal(change(transposed, generator()), changed)


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
    matches = {
        at: (window == changed).flatten(1).all(1).sum().item() for at, window in windows.items()
    }
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


def test_random_erase_keeps_or_erases_all_at_the_ends_of_probability() -> None:
    x = numbered(200)
    assert torch.equal(random_erase(x, 0.0, generator()), x)
    assert (random_erase(x, 1.0, generator()) == 0).flatten(1).any(1).all()
    share = (random_erase(x, 0.25, generator()) == 0).flatten(1).any(1).float().mean()
    assert 0.15 < share < 0.35


@pytest.mark.parametrize(("height", "width"), [(28, 28), (64, 48)])
def test_random_erase_sets_a_rectangle_of_the_published_size_to_zero(
    height: int, width: int
) -> None:
    x = torch.ones(600, 2, height, width)
    erased = random_erase(x, 1.0, generator()) == 0
    assert torch.equal(erased[:, 0], erased[:, 1])
    rows, columns = erased[:, 0].any(2).sum(1), erased[:, 0].any(1).sum(1)
    assert torch.equal(erased[:, 0].sum((1, 2)), rows * columns)  # a filled rectangle
    inner = (rows < height) & (columns < width)  # not cut
    area, aspect = (rows * columns)[inner] / (height * width), (rows / columns)[inner]
    assert 0.013 < area.min() < 0.03 and 0.3 < area.max() < 0.36  # sides are rounded
    assert 0.24 < aspect.min() < 0.4 and 2.7 < aspect.max() < 4.2
    assert 0.4 < (aspect < 1).float().mean() < 0.6  # as often wide as high
    # which may lie anywhere, though few reach into a corner
    assert erased.any(0).float().mean() > 0.98


def test_mix_of_nothing_draws_nothing() -> None:
    x, targets, g = numbered(), torch.eye(64), generator()
    state = g.get_state()
    images, mixed = mix(x, targets, 0.0, 0.0, g)
    assert images is x and mixed is targets
    assert torch.equal(g.get_state(), state)


@pytest.mark.parametrize("alphas", [(0.2, 0.0), (0.0, 1.0), (0.8, 1.0)])
def test_mix_is_deterministic_and_leaves_its_inputs(alphas: tuple[float, float]) -> None:
    x, targets, state = numbered(), one_hot(torch.arange(64) % 5), torch.get_rng_state()
    first, again, other = (mix(x, targets, *alphas, generator(seed)) for seed in (3, 3, 4))
    assert torch.equal(x, numbered()) and torch.equal(torch.get_rng_state(), state)
    assert first[0].shape == x.shape and first[1].shape == targets.shape
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0]) and not torch.equal(first[1], other[1])
    assert torch.allclose(first[1].sum(1), torch.ones(64))


@pytest.mark.parametrize("shape", [(64, 2, 6, 5), (64, 3, 2, 6, 5)], ids=["images", "events"])
def test_mixup_mixes_pixels_as_targets(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, generator=generator())
    shares = []
    for seed in range(50):
        mixed, targets = mix(x, torch.eye(64), 0.5, 0.0, generator(seed))
        assert torch.allclose(mixed, torch.einsum("bk,k...->b...", targets, x), atol=1e-5)
        own = targets.diagonal()
        shares.append(own[own < 1].mean().item())
    assert 0.35 < sum(shares) / 50 < 0.65
    assert min(shares) < 0.05 and max(shares) > 0.95  # Beta(1/2, 1/2) prefers the ends


@pytest.mark.parametrize("shape", [(32, 2, 12, 9), (32, 3, 2, 12, 9)], ids=["images", "events"])
def test_cutmix_pastes_one_rectangle_of_the_share_of_the_targets(shape: tuple[int, ...]) -> None:
    number = torch.arange(32)
    # every pixel says whose it is
    x = number.float().view(-1, *[1] * (len(shape) - 1)).expand(shape)
    areas = []
    for seed in range(50):
        mixed, targets = mix(x, torch.eye(32), 0.0, 1.0, generator(seed))
        planes = mixed.flatten(1, -3)
        pasted = planes[:, 0] != x.flatten(1, -3)[:, 0]
        assert (planes == planes[:, :1]).all()  # the same in every channel and time step
        # a filled rectangle
        assert torch.equal(pasted.sum((1, 2)), pasted.any(2).sum(1) * pasted.any(1).sum(1))
        assert torch.allclose(planes[:, 0].mean((1, 2)), targets @ number.float(), atol=1e-4)
        areas.append(pasted.float().mean((1, 2)).max().item())
    assert min(areas) < 0.1 and max(areas) > 0.6


def test_mix_takes_one_of_both_with_equal_chance() -> None:
    x = torch.arange(16.0).view(16, 1, 1, 1).expand(16, 1, 8, 8)
    pasted = 0
    for seed in range(200):
        mixed, _ = mix(x, torch.eye(16), 1.0, 1.0, generator(seed))
        pasted += bool((mixed == mixed.round()).all())
    assert 75 < pasted < 125


@pytest.mark.parametrize("kind", [0, 1], ids=["mixup", "cutmix"])
def test_a_greater_alpha_mixes_more_evenly(kind: int) -> None:
    uneven = {}
    for alpha in (0.1, 20.0):
        alphas = (alpha, 0.0) if kind == 0 else (0.0, alpha)
        kept = [
            mix(numbered(), torch.eye(64), *alphas, generator(seed))[1].diagonal().min()
            for seed in range(100)
        ]
        uneven[alpha] = ((torch.stack(kept) - 0.5).abs() > 0.4).float().mean()
    assert uneven[0.1] > 0.4 and uneven[20.0] < 0.1


def test_a_reflected_crop_shows_the_image_alone() -> None:
    images = numbered(16)
    cut = crop(images, 2, generator(), reflect=True)
    assert all(
        set(seen.flatten().tolist()) <= set(image.flatten().tolist())
        for seen, image in zip(cut, images, strict=True)
    )


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_flips_alternate_by_epoch(seed: int) -> None:
    images, index = numbered(512), torch.arange(512)
    epochs = [flip_alternating(images, index, epoch, seed) for epoch in range(3)]
    mirrored = (epochs[0] != images).flatten(1).any(1)
    assert 200 < int(mirrored.sum()) < 312
    assert torch.equal(
        epochs[1], torch.where(mirrored[:, None, None, None], images, images.flip(-1))
    )
    assert torch.equal(epochs[2], epochs[0])
    one = flip_alternating(images[9:10], index[9:10], 0, seed)  # whatever batch an image is in
    assert torch.equal(one, epochs[0][9:10])


def test_the_seed_says_which_images_are_mirrored_first() -> None:
    images, index = numbered(64), torch.arange(64)
    assert not torch.equal(
        flip_alternating(images, index, 0, 0), flip_alternating(images, index, 0, 1)
    )


def test_resizing_averages() -> None:
    images = numbered(3, 8, 8)
    small = resize(images, 4)
    assert small.shape == (3, 2, 4, 4)
    assert torch.allclose(small[:, :, 1:3, 1:3].mean((2, 3)), images.mean((2, 3)))
    assert torch.equal(resize(torch.full((1, 3, 8, 8), 0.5), 5), torch.full((1, 3, 5, 5), 0.5))
