"""Small random networks whose every layer spikes."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

import zoo
from zoo.danet import DANet
from zoo.provenance import Origin


def lively(name: str, size: int, **overrides: Any) -> DANet:
    """The network of `name` for images of `size` pixels, in eval mode."""
    torch.manual_seed(0)
    model = zoo.create(name, **overrides).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            # no two alike: sums of equal ones would lie exactly on the threshold
            nn.init.uniform_(module.bias, 0.3, 0.7)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    assert model.origin is not None
    model.origin = Origin(model.origin.name, replace(model.origin.data, size=size))
    return model


def exact(name: str, size: int = 8, **overrides: Any) -> DANet:
    """`lively`, with weights and statistics that are small dyadic fractions: no sum is rounded in
    whatever order it is taken.
    """
    model = lively(name, size, **overrides)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = torch.randint(-4, 5, module.weight.shape) / 8
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data = torch.randint(4, 9, module.bias.shape) / 4
            module.bias.data = torch.randint(1, 9, module.bias.shape) / 8
            module.running_mean, module.running_var = (
                torch.randint(-2, 3, module.bias.shape) / 16,
                torch.ones(module.bias.shape),
            )
            module.eps = 2**-40  # vanishes beside the variance
    return model


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two networks of one architecture have the same parameters and statistics, bit for
    bit.
    """
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
