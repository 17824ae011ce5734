"""A first convolution that decorrelates its input.

The layers behind it then learn from the first step on (Jordan 2024, arXiv:2404.00498, section 3.2).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["images_needed", "whiten"]

MAX_PATCHES = 2**18  # enough for the covariance of a few hundred values
MAX_IMAGES = 2000
EPSILON = 5e-4  # added to each variance: directions without any would be blown up


def images_needed(conv: nn.Conv2d, size: int) -> int:
    """Return how many images of `size` x `size` pixels hold the patches that `whiten` looks at."""
    height, width = conv.kernel_size
    patches = max(1, (size // height) * (size // width))  # of an image
    return min(MAX_IMAGES, math.ceil(MAX_PATCHES / patches))


@torch.no_grad()
def whiten(conv: nn.Conv2d, images: Tensor) -> None:
    """Set the filters to the main directions of the images' patches, and to their negatives.

    `images` are normalised, `[N, C, H, W]`. Each filter is divided by the deviation along its
    direction, largest first; filters beyond twice the values of a patch keep what they are.
    """
    kernel = conv.kernel_size
    patches = F.unfold(images, kernel, stride=kernel)  # [N, C*h*w, patches of an image]
    patches = patches.transpose(1, 2).flatten(0, 1)[:MAX_PATCHES]
    covariance = patches.T @ patches / len(patches)
    variances, directions = torch.linalg.eigh(covariance)  # ascending, one direction a column
    filters = (directions / (variances + EPSILON).sqrt()).T.flip(0)[: conv.out_channels // 2]
    both = torch.cat([filters, -filters]).reshape(-1, *conv.weight.shape[1:])
    conv.weight[: len(both)] = both
