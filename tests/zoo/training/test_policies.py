"""AutoAugment and RandAugment: operations as Pillow's, drawn for each image, and the same for the
same generator.
"""

from collections.abc import Callable

import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from zoo.errors import InputError
from zoo.training import policies
from zoo.training.policies import (
    OPERATIONS,
    POLICIES,
    RANDOM_OPERATIONS,
    auto_augment,
    rand_augment,
)

SIZES = [(28, 28), (32, 32), (64, 64), (20, 33)]
LEVELS = [-1.0, -7 / 9, -1 / 30, 0.0, 0.25, 0.5, 1.0]
EXACT = ["identity", "invert", "posterize", "solarize", "equalize", "autocontrast"]
ENHANCED = ["brightness", "contrast", "color", "sharpness"]
MOVED = ["rotate", "shear_x", "shear_y", "translate_x", "translate_y"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int = 8, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    return torch.randint(
        0, 256, (n, channels, height, width), generator=generator(), dtype=torch.uint8
    )


def smooth(n: int = 8, channels: int = 3, height: int = 32, width: int = 32) -> Tensor:
    """Waves, each channel within its own range of bytes, so that contrast can be stretched."""
    phase = torch.rand(3, n, channels, 1, 1, generator=generator()) * 6
    waves = torch.sin(torch.arange(height)[:, None] / 5 + phase[0]) * torch.sin(
        torch.arange(width) / 7 + phase[1]
    )
    return (120 + (10 + 15 * phase[2]) * waves).to(torch.uint8)


def images(channels: int, height: int, width: int) -> Tensor:
    """Noise, waves, a few values only, and one value only."""
    rough = noise(2, channels, height, width)
    return torch.cat(
        [
            rough,
            smooth(2, channels, height, width),
            rough // 90 * 80 + 15,
            torch.full_like(rough[:1], 77),
        ]
    )


def levels(value: float, count: int) -> Tensor:
    return torch.full((count,), value, dtype=torch.float64)


def sheared(image: Image.Image, *matrix: float) -> Image.Image:
    grey = 128 if image.mode == "L" else (128, 128, 128)
    return image.transform(
        image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST, fillcolor=grey
    )


PILLOW: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, level: image,
    "autocontrast": lambda image, level: ImageOps.autocontrast(image),
    "equalize": lambda image, level: ImageOps.equalize(image),
    "invert": lambda image, level: ImageOps.invert(image),
    "solarize": lambda image, level: ImageOps.solarize(image, 256 - 256 * abs(level)),  # type: ignore[arg-type]  # Pillow takes floats too
    "posterize": lambda image, level: ImageOps.posterize(image, 8 - round(4 * abs(level))),
    "color": lambda image, level: ImageEnhance.Color(image).enhance(1 + 0.9 * level),
    "contrast": lambda image, level: ImageEnhance.Contrast(image).enhance(1 + 0.9 * level),
    "brightness": lambda image, level: ImageEnhance.Brightness(image).enhance(1 + 0.9 * level),
    "sharpness": lambda image, level: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * level),
    "rotate": lambda image, level: image.rotate(
        30 * level, fillcolor=128 if image.mode == "L" else (128, 128, 128)
    ),
    "shear_x": lambda image, level: sheared(image, 1, 0.3 * level, 0, 0, 1, 0),
    "shear_y": lambda image, level: sheared(image, 1, 0, 0, 0.3 * level, 1, 0),
    "translate_x": lambda image, level: sheared(
        image, 1, 0, int(level * 150 / 331 * image.width), 0, 1, 0
    ),
    "translate_y": lambda image, level: sheared(
        image, 1, 0, 0, 0, 1, int(level * 150 / 331 * image.height)
    ),
}


def by_pillow(name: str, batch: Tensor, level: float) -> Tensor:
    changed = []
    for image in batch:
        array = image.permute(1, 2, 0).numpy() if len(image) == 3 else image[0].numpy()
        result = torch.tensor(
            list(PILLOW[name](Image.fromarray(array), level).tobytes()), dtype=torch.uint8
        )
        changed.append(result.view(*image.shape[1:], len(image)).permute(2, 0, 1))
    return torch.stack(changed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_pillows(name: str, channels: int) -> None:
    for height, width in SIZES:
        batch = images(channels, height, width)
        for level in LEVELS:
            changed, expected = (
                OPERATIONS[name](batch, levels(level, len(batch))),
                by_pillow(name, batch, level),
            )
            assert changed.dtype == torch.uint8 and changed.shape == batch.shape
            difference = (changed.short() - expected.short()).abs()
            # a fused multiply-add of either side may truncate to the next value
            if name in ENHANCED:
                assert difference.max() <= 1 and (difference > 0).float().mean() < 0.001, (
                    level,
                    height,
                    width,
                )
            else:
                assert not difference.any(), (level, height, width)


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_image_has_its_own_level(name: str) -> None:
    batch, level = images(3, 32, 32), torch.linspace(-1, 1, 7, dtype=torch.float64)
    before = batch.clone()
    together = OPERATIONS[name](batch, level)
    assert torch.equal(batch, before)
    assert torch.equal(
        together, torch.cat([OPERATIONS[name](batch[[i]], level[[i]]) for i in range(7)])
    )


@pytest.mark.parametrize("name", [*ENHANCED, *MOVED, "posterize", "solarize"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_effect_grows_with_the_magnitude(name: str, sign: int) -> None:
    batch = smooth() if name in MOVED else noise()
    change = [
        (OPERATIONS[name](batch, levels(sign * i / 4, 8)).float() - batch).abs() for i in range(5)
    ]
    mean = [
        (c > 0).float().mean().item() if name == "solarize" else c.mean().item() for c in change
    ]
    assert mean[0] == 0
    assert mean == sorted(set(mean))  # strictly


@pytest.mark.parametrize("name", MOVED)
def test_what_comes_from_outside_is_grey(name: str) -> None:
    changed = OPERATIONS[name](
        torch.zeros(2, 3, 32, 32, dtype=torch.uint8), torch.tensor([1.0, -1.0], dtype=torch.float64)
    )
    assert set(changed.unique().tolist()) == {0, 128}
    assert not torch.equal(changed[0], changed[1])


def test_equalize_and_autocontrast_spread_the_values() -> None:
    for name in ("equalize", "autocontrast"):
        low, high = OPERATIONS[name](smooth(), levels(0, 8)).flatten(2).aminmax(dim=2)
        assert (low == 0).all() and (high >= 254).all()  # truncated


def test_colour_of_one_channel_stays() -> None:
    batch = noise(channels=1)
    assert torch.equal(OPERATIONS["color"](batch, levels(1, 8)), batch)


@pytest.mark.parametrize("name", POLICIES)
def test_policies_are_well_formed(name: str) -> None:
    assert len(POLICIES[name]) == 25
    for pair in POLICIES[name]:
        for operation, probability, magnitude in pair:
            assert operation in OPERATIONS
            assert 0 <= probability <= 1 and round(10 * probability) == pytest.approx(
                10 * probability
            )
            assert 0 <= magnitude <= 9


def test_the_random_operations_are_the_fourteen_of_the_paper() -> None:
    assert len(RANDOM_OPERATIONS) == 14
    assert {*RANDOM_OPERATIONS} | {"invert"} == {*OPERATIONS} == {*EXACT, *ENHANCED, *MOVED}


POLICY: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "imagenet": lambda x, g: auto_augment(x, "imagenet", g),
    "cifar10": lambda x, g: auto_augment(x, "cifar10", g),
    "random": lambda x, g: rand_augment(x, 2, 9, g),
}


@pytest.mark.parametrize("change", POLICY.values(), ids=POLICY.keys())
@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 20, 33)]
)
def test_policies_keep_shape_and_are_deterministic(
    change: Callable[[Tensor, torch.Generator], Tensor], channels: int, height: int, width: int
) -> None:
    batch, state = smooth(32, channels, height, width), torch.get_rng_state()
    before, changed = batch.clone(), change(batch, generator())
    assert (changed.shape, changed.dtype, changed.device) == (
        batch.shape,
        torch.uint8,
        batch.device,
    )
    assert torch.equal(batch, before) and torch.equal(torch.get_rng_state(), state)
    assert torch.equal(change(batch, generator()), changed)
    assert not torch.equal(change(batch, generator(1)), changed)


@pytest.mark.parametrize("change", POLICY.values(), ids=POLICY.keys())
def test_different_images_get_different_operations(
    change: Callable[[Tensor, torch.Generator], Tensor],
) -> None:
    changed = change(smooth(1).expand(256, -1, -1, -1), generator())
    assert len(changed.flatten(1).unique(dim=0)) > 20


@pytest.mark.parametrize("change", POLICY.values(), ids=POLICY.keys())
def test_an_empty_batch_stays_empty(change: Callable[[Tensor, torch.Generator], Tensor]) -> None:
    assert change(noise(0), generator()).shape == (0, 3, 32, 32)


def test_nothing_changes_with_probability_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(POLICIES, "never", ((("invert", 0.0, 9), ("rotate", 0.0, 9)),))
    assert torch.equal(auto_augment(noise(), "never", generator()), noise())


def test_a_sub_policy_changes_its_share_of_the_images_in_their_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(POLICIES, "some", ((("invert", 0.7, 9), ("rotate", 0.0, 9)),))
    batch = noise(400, 1, 8, 8)
    changed = auto_augment(batch, "some", generator())
    inverted = (changed == 255 - batch).flatten(1).all(1)
    assert torch.equal(inverted, ~(changed == batch).flatten(1).all(1))
    assert 250 < inverted.sum() < 310


def test_a_sub_policy_is_two_operations_in_turn_of_either_sign(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(POLICIES, "both", ((("translate_x", 1.0, 6), ("solarize", 1.0, 9)),))
    batch = noise(200, 3, 33, 33)
    shifted = [OPERATIONS["translate_x"](batch, levels(sign * 6 / 9, 200)) for sign in (-1, 1)]
    signs = [
        (auto_augment(batch, "both", generator()) == 255 - x).flatten(1).all(1) for x in shifted
    ]
    assert torch.equal(signs[0], ~signs[1])
    assert 70 < signs[0].sum() < 130


def test_each_sub_policy_is_as_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [
        (("posterize", 0.0, 0), (name, 1.0, 0))
        for name in ("identity", "invert", "identity", "invert", "invert")
    ]
    monkeypatch.setitem(POLICIES, "five", tuple(pairs))
    batch = noise(500, 1, 8, 8)
    assert 260 < (auto_augment(batch, "five", generator()) != batch).flatten(1).any(1).sum() < 340


def test_random_operations_are_drawn_alike_and_at_the_magnitude() -> None:
    count, batch = 700, smooth(1).expand(700, -1, -1, -1)
    changed = rand_augment(batch, 1, 12, generator())
    seen = torch.zeros(count, dtype=torch.bool)
    for name in RANDOM_OPERATIONS:
        results = [OPERATIONS[name](batch, levels(sign * 12 / 30, count)) for sign in (-1, 1)]
        matches = [(changed == result).flatten(1).all(1) for result in results]
        # 50 are expected of each, 25 of each sign
        assert all(match.sum() > 10 for match in matches)
        assert 25 < (matches[0] | matches[1]).sum() < 85
        seen |= matches[0] | matches[1]
    assert seen.all()


def test_no_random_operation_changes_nothing() -> None:
    assert torch.equal(rand_augment(noise(), 0, 9, generator()), noise())


def test_more_random_operations_change_more_images() -> None:
    batch = smooth(200)
    same = [
        (rand_augment(batch, n, 9, generator()) == batch).flatten(1).all(1).sum() for n in (1, 3)
    ]
    assert same[0] > same[1]


@pytest.mark.parametrize(
    "batch",
    [noise().float(), noise()[0], noise(channels=2)],
    ids=["float", "one image", "two channels"],
)
def test_other_images_are_refused(batch: Tensor) -> None:
    with pytest.raises(InputError, match="give bytes"):
        auto_augment(batch, "imagenet", generator())


def test_unknown_policies_and_magnitudes_are_refused() -> None:
    with pytest.raises(
        InputError, match="'svhn' is no AutoAugment policy: take one of imagenet, cifar10"
    ):
        auto_augment(noise(), "svhn", generator())
    for magnitude in (-1, 31):
        with pytest.raises(InputError, match=f"is {magnitude}: take one from 0 to 30"):
            rand_augment(noise(), 2, magnitude, generator())


def test_exported_names_exist() -> None:
    assert all(hasattr(policies, name) for name in policies.__all__)
