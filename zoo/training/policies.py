"""AutoAugment and RandAugment for a whole batch at once, with other operations for every image.

The images are sorted by their operation, so that each operation runs once, over all of its images.
Operations are Pillow's to the pixel, as in the published policies (Cubuk et al. 2019, "AutoAugment:
Learning Augmentation Policies from Data"; Cubuk et al. 2020, "RandAugment: Practical Automated Data
Augmentation with a Reduced Search Space"); where a geometric one looks outside the image, it sees
grey.

Shapes: images are bytes `[N, C, H, W]` with one channel or three. Each operation takes a level
`[N]` of its magnitude from -1 to 1, float64 on the CPU; where the sign has no meaning, it is
ignored. All draws come from the CPU generator that is passed in, so a batch changes in the same way
on every device.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from zoo.errors import InputError

__all__ = ["OPERATIONS", "POLICIES", "RANDOM_OPERATIONS", "auto_augment", "rand_augment"]

GREY = 128
# The greatest change of each operation, at a level of 1.
MAX_SHEAR = 0.3  # pixels a pixel
MAX_SHIFT = 150 / 331  # of the side
MAX_ROTATION = 30.0  # degrees
MAX_ENHANCEMENT = 0.9  # added to, or taken from, the neutral factor 1
MAX_POSTERIZED_BITS = 4  # taken from 8
AUTO_LEVELS, RANDOM_LEVELS = 9, 30  # the highest magnitude of either policy


def auto_augment(images: Tensor, policy: str, generator: torch.Generator) -> Tensor:
    """Return images changed by AutoAugment.

    Each image draws one of the policy's 25 sub-policies, whose two operations happen in turn, each
    with its probability. Raises `InputError` for an unknown policy.
    """
    if policy not in POLICIES:
        raise InputError(f"{policy!r} is no AutoAugment policy: take one of {', '.join(POLICIES)}")
    names = list(OPERATIONS)
    table = torch.tensor(
        [[(names.index(name), *numbers) for name, *numbers in pair] for pair in POLICIES[policy]]
    )  # [25, 2, 3]
    steps = table[torch.randint(len(table), (len(images),), generator=generator)]  # [B, 2, 3]
    for operation, probability, magnitude in steps.permute(1, 2, 0):  # 2 x [3, B]
        happens = torch.rand(len(images), generator=generator) < probability
        operation = operation.long().where(happens, names.index("identity"))
        images = _apply(images, operation, _signs(len(images), generator) * magnitude / AUTO_LEVELS)
    return images


def rand_augment(
    images: Tensor, operations: int, magnitude: float, generator: torch.Generator
) -> Tensor:
    """Return images changed by RandAugment.

    Each image draws `operations` of the 14 operations, all of them at `magnitude` (0 to 30). Raises
    `InputError` for another magnitude.
    """
    if not 0 <= magnitude <= RANDOM_LEVELS:
        raise InputError(
            f"RandAugment's magnitude is {magnitude}: take one from 0 to {RANDOM_LEVELS}"
        )
    names = torch.tensor([list(OPERATIONS).index(name) for name in RANDOM_OPERATIONS])
    for _ in range(operations):
        operation = names[torch.randint(len(names), (len(images),), generator=generator)]
        images = _apply(
            images, operation, _signs(len(images), generator) * magnitude / RANDOM_LEVELS
        )
    return images


def _signs(count: int, generator: torch.Generator) -> Tensor:
    return torch.randint(2, (count,), generator=generator).double() * 2 - 1


def _apply(images: Tensor, operation: Tensor, level: Tensor) -> Tensor:
    """Apply to each image the operation of its number in `OPERATIONS`.

    Numbers and levels `[B]` are on the CPU, as the sizes of the groups are needed there.
    """
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
        raise InputError(
            f"images are {images.dtype} {list(images.shape)}: "
            "give bytes [B, C, H, W] with 1 or 3 channels"
        )
    order = operation.argsort(stable=True)
    sizes = operation.bincount(minlength=len(OPERATIONS)).tolist()
    groups = torch.split(images[_moved(order, images)], sizes)
    levels = torch.split(level[order], sizes)
    each = zip(OPERATIONS.values(), groups, levels, strict=True)
    changed = [
        operate(group, strength) if len(group) else group for operate, group, strength in each
    ]
    return torch.cat(changed)[_moved(order.argsort(), images)]


def _moved(values: Tensor, images: Tensor) -> Tensor:
    """Return values on the images' device, without waiting for it.

    Memory that is not pinned is read before the call returns.
    """
    return values.to(images.device, non_blocking=True)


def _each(values: Tensor, images: Tensor) -> Tensor:
    """Return a value for each image, shaped to be broadcast over its pixels."""
    return _moved(values, images)[:, None, None, None]


def _identity(images: Tensor, level: Tensor) -> Tensor:
    return images


def _invert(images: Tensor, level: Tensor) -> Tensor:
    return 255 - images


def _solarize(images: Tensor, level: Tensor) -> Tensor:
    """Invert the bytes from a threshold up: none of them at a level of 0, all of them at 1."""
    threshold = (256 * (1 - level.abs())).ceil().short()  # 256 is no byte
    return torch.where(images < _each(threshold, images), images, 255 - images)


def _posterize(images: Tensor, level: Tensor) -> Tensor:
    lost = (MAX_POSTERIZED_BITS * level.abs()).round()
    return images & _each(256 - 2**lost, images).to(torch.uint8)


def _autocontrast(images: Tensor, level: Tensor) -> Tensor:
    """Stretch each channel's values to 0 to 255.

    The arithmetic is float64, because Pillow truncates what it computes in it.
    """
    low, high = (
        bound[..., None].double() for bound in images.flatten(2).aminmax(dim=2)
    )  # [N, C, 1]
    # torch computes `255 / x` as `255 * (1 / x)`, which is rounded otherwise.
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)
    value = torch.arange(256, device=images.device)
    table = (value * scale - low * scale).clamp(0, 255)
    return _look_up(images, torch.where(high > low, table, value))


def _equalize(images: Tensor, level: Tensor) -> Tensor:
    """Make each channel's cumulative histogram straight.

    The step from one value to the next is rounded as Pillow's.
    """
    pixels = images.flatten(2).long()
    count = pixels.new_zeros(*pixels.shape[:2], 256)
    count.scatter_add_(2, pixels, torch.ones_like(pixels))  # [N, C, 256]
    highest = count.gather(2, pixels.amax(2, keepdim=True))
    step = (pixels.shape[2] - highest) // 255
    table = (step // 2 + count.cumsum(2) - count) // step.clamp(min=1)
    unchanged = torch.arange(256, device=images.device)
    return _look_up(images, torch.where(step > 0, table.clamp(max=255), unchanged))


def _look_up(images: Tensor, table: Tensor) -> Tensor:
    """Return each byte's entry in the table `[N, C, 256]` of its channel."""
    return table.to(torch.uint8).gather(2, images.flatten(2).long()).view(images.shape)


def _color(images: Tensor, level: Tensor) -> Tensor:
    return images if images.shape[1] == 1 else _enhance(images, _grey(images), level)


def _contrast(images: Tensor, level: Tensor) -> Tensor:
    grey = _grey(images).long()
    pixels = grey[0].numel()
    mean = (2 * grey.sum((1, 2, 3), keepdim=True) + pixels) // (2 * pixels)  # rounded, as Pillow's
    return _enhance(images, mean, level)


def _brightness(images: Tensor, level: Tensor) -> Tensor:
    return _enhance(images, torch.zeros_like(images), level)


def _sharpness(images: Tensor, level: Tensor) -> Tensor:
    """Move away from or towards Pillow's smooth image.

    Its kernel is 1/13 in every pixel and 5/13 in the middle.
    """
    wide = images.short()
    rows = wide[..., :-2, :] + wide[..., 1:-1, :] + wide[..., 2:, :]
    total = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * wide[..., 1:-1, 1:-1]
    wide[..., 1:-1, 1:-1] = (total + 6) // 13  # rounded; the border has no neighbours and stays
    return _enhance(images, wide, level)


def _grey(images: Tensor) -> Tensor:
    """Return the brightness of ITU-R 601, `[N, 1, H, W]`, in 16.16 fixed point as Pillow's "L"."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.int().unbind(1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16)[:, None]


def _enhance(images: Tensor, neutral: Tensor, level: Tensor) -> Tensor:
    """Return an image between the neutral one (factor 0) and `images` (1), or as far beyond.

    Values are truncated, as in Pillow's `ImageEnhance`.
    """
    neutral, factor = neutral.float(), _each(1 + MAX_ENHANCEMENT * level, images).float()
    return (neutral + factor * (images.float() - neutral)).clamp(0, 255).to(torch.uint8)


def _shear_x(images: Tensor, level: Tensor) -> Tensor:
    return _resample(images, xy=MAX_SHEAR * level)


def _shear_y(images: Tensor, level: Tensor) -> Tensor:
    return _resample(images, yx=MAX_SHEAR * level)


def _translate_x(images: Tensor, level: Tensor) -> Tensor:
    return _resample(images, x=(level * MAX_SHIFT * images.shape[3]).trunc())


def _translate_y(images: Tensor, level: Tensor) -> Tensor:
    return _resample(images, y=(level * MAX_SHIFT * images.shape[2]).trunc())


def _rotate(images: Tensor, level: Tensor) -> Tensor:
    angle = torch.deg2rad(MAX_ROTATION * level)
    cos, sin = angle.cos(), angle.sin()
    y, x = (side / 2 for side in images.shape[2:])  # the centre stays
    return _resample(
        images, xx=cos, xy=-sin, x=x - cos * x + sin * y, yx=sin, yy=cos, y=y - sin * x - cos * y
    )


def _resample(images: Tensor, **changed: Tensor) -> Tensor:
    """Return images whose pixel `(x, y)` is the nearest to `(xx x + xy y + x, yx x + yy y + y)`.

    A coefficient that is not given leaves the pixel there. Coordinates are 16.16 fixed point, which
    makes the choice of the nearest pixel Pillow's.
    """
    n, _, h, w = images.shape
    unit = {"xx": 1, "xy": 0, "x": 0, "yx": 0, "yy": 1, "y": 0}
    matrix = torch.stack(
        [changed.get(name, torch.full((n,), value)).double() for name, value in unit.items()], 1
    ).view(n, 2, 3)
    matrix[..., 2] += matrix[..., :2].sum(2) / 2  # a pixel is its centre
    fixed = _moved((matrix * 2**16 + 0.5).floor().long(), images)
    row, column = (torch.arange(side, device=images.device) for side in (h, w))
    by_column, by_row, start = fixed[..., None, None].unbind(2)  # [N, 2, 1, 1]
    x, y = ((by_column * column + by_row * row[:, None] + start) >> 16).unbind(1)  # [N, H, W]
    inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
    source = (y * w + x).where(inside, 0).view(n, 1, h * w).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, source).view(images.shape).where(inside[:, None], GREY)


OPERATIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "identity": _identity,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
    "rotate": _rotate,
    "solarize": _solarize,
    "color": _color,
    "posterize": _posterize,
    "contrast": _contrast,
    "brightness": _brightness,
    "sharpness": _sharpness,
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": _translate_x,
    "translate_y": _translate_y,
    "invert": _invert,
}
# RandAugment, section 3
RANDOM_OPERATIONS = tuple(name for name in OPERATIONS if name != "invert")

SubPolicyStep = tuple[str, float, int]  # operation, probability, magnitude from 0 to 9

POLICIES: dict[str, tuple[tuple[SubPolicyStep, SubPolicyStep], ...]] = {
    "imagenet": (  # AutoAugment, table 9
        (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
        (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
        (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
        (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
        (("equalize", 0.4, 4), ("rotate", 0.8, 8)),
        (("solarize", 0.6, 3), ("equalize", 0.6, 7)),
        (("posterize", 0.8, 5), ("equalize", 1.0, 2)),
        (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
        (("equalize", 0.6, 8), ("posterize", 0.4, 6)),
        (("rotate", 0.8, 8), ("color", 0.4, 0)),
        (("rotate", 0.4, 9), ("equalize", 0.6, 2)),
        (("equalize", 0.0, 7), ("equalize", 0.8, 8)),
        (("invert", 0.6, 4), ("equalize", 1.0, 8)),
        (("color", 0.6, 4), ("contrast", 1.0, 8)),
        (("rotate", 0.8, 8), ("color", 1.0, 2)),
        (("color", 0.8, 8), ("solarize", 0.8, 7)),
        (("sharpness", 0.4, 7), ("invert", 0.6, 8)),
        (("shear_x", 0.6, 5), ("equalize", 1.0, 9)),
        (("color", 0.4, 0), ("equalize", 0.6, 3)),
        (("equalize", 0.4, 7), ("solarize", 0.2, 4)),
        (("solarize", 0.6, 5), ("autocontrast", 0.6, 5)),
        (("invert", 0.6, 4), ("equalize", 1.0, 8)),
        (("color", 0.6, 4), ("contrast", 1.0, 8)),
        (("equalize", 0.8, 8), ("equalize", 0.6, 3)),
    ),
    "cifar10": (  # AutoAugment, table 7
        (("invert", 0.1, 7), ("contrast", 0.2, 6)),
        (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
        (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
        (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
        (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
        (("color", 0.4, 3), ("brightness", 0.6, 7)),
        (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
        (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
        (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
        (("color", 0.7, 7), ("translate_x", 0.5, 8)),
        (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
        (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
        (("brightness", 0.9, 6), ("color", 0.2, 8)),
        (("solarize", 0.5, 2), ("invert", 0.0, 3)),
        (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
        (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
        (("color", 0.9, 9), ("equalize", 0.6, 6)),
        (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
        (("brightness", 0.1, 3), ("color", 0.7, 0)),
        (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
        (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
        (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
        (("equalize", 0.8, 8), ("invert", 0.1, 3)),
        (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
    ),
}
