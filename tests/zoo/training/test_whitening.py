"""A whitened convolution: outputs without correlation, of the same deviation."""

import pytest
import torch
from torch import Tensor, nn

from zoo.training import whitening
from zoo.training.whitening import images_needed, whiten


def correlated(n: int = 400) -> Tensor:
    """Images whose neighbouring pixels and channels are alike."""
    torch.manual_seed(0)
    smooth = nn.functional.interpolate(torch.randn(n, 1, 4, 4), scale_factor=4, mode="bilinear")
    return (smooth + 0.3 * torch.randn(n, 3, 16, 16)) / 1.1


def outputs(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """Apply the filters to all patches: `[filters, patches]`."""
    with torch.no_grad():
        return nn.functional.conv2d(images, conv.weight).transpose(0, 1).flatten(1)


def test_outputs_are_not_correlated_and_have_unit_deviation() -> None:
    conv, images = nn.Conv2d(3, 60, 3, bias=False), correlated()
    kept = conv.weight[54:].detach().clone()
    whiten(conv, images)
    covariance = outputs(conv, images).square().mean(1)
    # along those of large variance
    assert torch.allclose(covariance[:20], torch.ones(20), atol=0.1)
    said = outputs(conv, images)[:10]
    assert (said @ said.T / said.shape[1] - torch.eye(10)).abs().max() < 0.15
    assert torch.allclose(conv.weight[:27], -conv.weight[27:54])
    assert torch.equal(conv.weight[54:], kept)


def test_few_filters_take_the_main_directions() -> None:
    conv, more, images = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 60, 3), correlated()
    whiten(conv, images)
    whiten(more, images)
    assert torch.allclose(conv.weight[:4], more.weight[:4])
    assert conv.weight.requires_grad


def test_images_without_variance_blow_nothing_up() -> None:
    conv = nn.Conv2d(3, 60, 3)
    whiten(conv, torch.zeros(10, 3, 8, 8))
    assert torch.isfinite(conv.weight).all() and conv.weight.abs().max() < 100


def test_no_more_images_are_needed_than_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = nn.Conv2d(3, 64, 3), nn.Conv2d(3, 64, 7)
    assert [images_needed(small, 32), images_needed(large, 224), images_needed(large, 5)] == [
        2000,
        256,
        2000,
    ]
    monkeypatch.setattr(whitening, "MAX_PATCHES", 81 * 4)
    images, again = torch.randn(10, 3, 64, 64), nn.Conv2d(3, 64, 7)
    whiten(large, images)
    whiten(again, images[: images_needed(again, 64)])
    assert torch.equal(large.weight, again.weight)
