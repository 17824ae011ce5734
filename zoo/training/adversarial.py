"""Adversarial training: the network learns from the worst picture near each image.

One step of FGSM from a random start (Wong et al. 2020, arXiv:2001.03994), or several of PGD (Madry
et al. 2018, arXiv:1706.06083), find a picture whose pixels differ by at most `eps`. The network
that is attacked is the one in training, as it evaluates: with the statistics of its BatchNorms.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.danet import DANet
from zoo.datasets import DatasetSpec
from zoo.training.config import Recipe

__all__ = ["worst_near"]


def worst_near(
    net: DANet,
    x: Tensor,
    targets: Tensor,
    recipe: Recipe,
    data: DatasetSpec,
    random: torch.Generator,
) -> Tensor:
    """Return images like `x`, normalised `[B, C, H, W]`, that `net` classifies worse."""
    mean, std = (x.new_tensor(value).view(1, -1, 1, 1) for value in (data.mean, data.std))
    black, white = -mean / std, (1 - mean) / std
    eps = recipe.adversarial_eps / 255 / std
    steps = recipe.adversarial_steps
    stride = eps * (1.25 if steps == 1 else 2.5 / steps)
    noise = torch.rand(x.shape, generator=random).to(x.device) * 2 - 1
    at = (x + eps * noise).clamp(black, white)
    net.eval()
    for _ in range(steps):
        at = at.detach().requires_grad_()
        loss = F.cross_entropy(net(at).float(), targets, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, at)
        # that of weights of NaN is none: the loss tells of them, and names the step
        direction = gradient.nan_to_num().sign()
        at = (at + stride * direction).clamp(x - eps, x + eps).clamp(black, white)
    net.train()
    return at.detach()
