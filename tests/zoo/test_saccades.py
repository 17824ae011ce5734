"""Simulated micro-saccades: the paper's kernels and event rates."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import zoo
from zoo.errors import InputError
from zoo.saccades import saccades
from zoo.samples import samples

# Algorithm 1, line 2: on a 3x3 grid counted from 1, row by row, where a copy was and where it goes.
GRID = ((9, 4), (4, 3), (3, 8), (8, 1), (5, 6), (5, 2), (5, 3), (5, 1))


def by_convolution(images: Tensor, ratio: float) -> Tensor:
    """The paper's own way: one convolution with a -1 and a +1 for each step."""
    kernels = torch.zeros(len(GRID), 1, 9)
    for kernel, (before, after) in zip(kernels, GRID, strict=True):
        kernel[0, before - 1], kernel[0, after - 1] = -1, 1
    brightness = images.amax(1, keepdim=True)
    change = F.conv2d(F.pad(brightness, (1, 1, 1, 1)), kernels.view(-1, 1, 3, 3))
    spread = brightness.amax((2, 3), keepdim=True) - brightness.amin((2, 3), keepdim=True)
    events = torch.stack([change > ratio * spread, -change > ratio * spread], 2)
    return events.byte()  # [B, T, 2, H, W]


def test_events_are_those_of_the_paper_s_convolution() -> None:
    images = torch.randint(0, 256, (5, 3, 9, 7), generator=torch.Generator().manual_seed(0)).float()
    events = saccades(images, 0.2)
    assert events.shape == (5, 8, 2, 9, 7) and set(events.unique().tolist()) == {0, 1}
    assert torch.equal(events, by_convolution(images, 0.2))
    assert torch.equal(saccades(images, 0.2, 3), events[:, :3])


def test_the_published_rate_of_events() -> None:
    """The paper has 10.76 % of Fashion-MNIST at 32 pixels and the ratio .15."""
    images = F.interpolate(samples("fmnist")[0].float(), size=32, mode="bilinear")
    assert saccades(images, 0.15).float().mean().item() == pytest.approx(0.1076, abs=0.002)


def test_bytes_and_shares_of_brightness_have_the_same_events() -> None:
    pixels = samples("fmnist")[0][:20]
    assert torch.equal(saccades(pixels, 0.15), saccades(pixels.float() / 256, 0.15))


def test_an_edge_is_an_event_where_a_move_crosses_it() -> None:
    """Step 5 compares each pixel with its right neighbour, which is black beyond the border."""
    image = torch.tensor([[0.0, 1.0, 1.0]]).view(1, 1, 1, 3)
    brighter, darker = saccades(image, 0.5)[0, 4]
    assert (brighter.tolist(), darker.tolist()) == ([[1, 0, 0]], [[0, 0, 1]])


def test_a_picture_of_one_colour_has_events_at_its_border_at_most() -> None:
    events = saccades(torch.full((1, 3, 5, 5), 7.0), 0.1)
    assert not events[..., 1:-1, 1:-1].any()
    assert not saccades(torch.zeros(1, 3, 5, 5), 0.1).any()


@pytest.mark.parametrize(
    ("shape", "ratio", "steps", "said"),
    [
        ((3, 8, 8), 0.1, 8, r"images \[B, C, H, W\] are needed, these are \[3, 8, 8\]"),
        ((0, 3, 8, 8), 0.1, 8, r"these are \[0, 3, 8, 8\]"),
        ((1, 3, 8, 8), 1.0, 8, "ratio = 1.0 must be from 0 to below 1"),
        ((1, 3, 8, 8), -0.1, 8, "ratio = -0.1 must be"),
        ((1, 3, 8, 8), 0.1, 9, "T = 9: there are simulated saccades for T = 1 to 8"),
        ((1, 3, 8, 8), 0.1, 0, "T = 0: there are"),
    ],
)
def test_what_cannot_be_is_one_line(
    shape: tuple[int, ...], ratio: float, steps: int, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        saccades(torch.zeros(shape), ratio, steps)


def test_a_model_of_saccades_transforms_pictures_into_events() -> None:
    model, pixels = zoo.create("danet20-t3.i2e-fmnist").eval(), samples("fmnist")[0][:4]
    events = model.transform(list(pixels))
    assert torch.equal(events, saccades(pixels, 0.15, 3).transpose(0, 1).float())
    assert model(events).shape == (4, 10)
