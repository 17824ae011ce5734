"""A first convolution that decorrelates its input, so that the layers behind it learn from the
first step on.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["images_needed", "whiten"]

PATCHES = 2**18  # enough for the covariance of a few hundred values
IMAGES = 2000  # at most
SMALLEST = 5e-4  # added to each variance: directions without any would be blown up


def images_needed(conv: nn.Conv2d, size: int) -> int:
    """Count the images of `size` x `size` pixels whose patches `whiten` looks at: few large ones
    hold enough of them.
    """
    height, width = conv.kernel_size
    return min(IMAGES, math.ceil(PATCHES / max(1, (size // height) * (size // width))))


@torch.no_grad()
def whiten(conv: nn.Conv2d, images: Tensor) -> None:
    """Set the filters to the main directions of the patches of normalised `images` `[N, C, H, W]`,
    and to their negatives.

    Each is divided by the deviation along its direction, largest first; filters beyond twice the
    values of a patch keep what they are. After Jordan 2024 (airbench, arXiv 2404.00498, section
    3.2).
    """
    height, width = conv.kernel_size
    patches = (
        F.unfold(images, (height, width), stride=(height, width))
        .transpose(1, 2)
        .flatten(0, 1)[:PATCHES]
    )
    covariance = patches.T @ patches / len(patches)
    variances, directions = torch.linalg.eigh(covariance)  # ascending, one direction a column
    filters = (directions / (variances + SMALLEST).sqrt()).T.flip(0)[: conv.out_channels // 2]
    both = torch.cat([filters, -filters]).reshape(-1, *conv.weight.shape[1:])
    conv.weight[: len(both)] = both
