"""A whitened convolution: outputs without correlation, of the same deviation."""

import torch
from torch import Tensor, nn

from zoo.training.whitening import whiten


def correlated(n: int = 400) -> Tensor:
    """Images whose neighbouring pixels and channels are alike."""
    torch.manual_seed(0)
    smooth = nn.functional.interpolate(torch.randn(n, 1, 4, 4), scale_factor=4, mode="bilinear")
    return (smooth + 0.3 * torch.randn(n, 3, 16, 16)) / 1.1


def outputs(conv: nn.Conv2d, images: Tensor) -> Tensor:
    """What the filters say of all patches: `[filters, patches]`."""
    with torch.no_grad():
        return nn.functional.conv2d(images, conv.weight).transpose(0, 1).flatten(1)


def test_outputs_are_not_correlated_and_have_unit_deviation() -> None:
    conv, images = nn.Conv2d(3, 60, 3, bias=False), correlated()
    kept = conv.weight[54:].detach().clone()
    whiten(conv, images)
    covariance = outputs(conv, images).square().mean(1)
    assert torch.allclose(covariance[:20], torch.ones(20), atol=0.1)  # along those of large variance
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
