"""Small random networks in which every layer fires."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

import zoo
from zoo.danet import DANet
from zoo.families import FAMILIES
from zoo.names import ModelSpec

__all__ = ["exact", "lively", "same"]


def lively(name: str, size: int, **overrides: Any) -> DANet:
    """Return the network `name` for images of `size` pixels, in eval mode.

    It has at most two blocks in its first two stages and one in the others, which is what there is
    to see of blocks and their links; `depths` asks for other numbers. No two of its BatchNorm
    parameters are alike: sums of equal numbers would lie exactly on the threshold.
    """
    spec = ModelSpec.parse(name)
    blocks = FAMILIES[spec.family].depths[spec.depth].blocks
    shallow = tuple(min(most, all_) for most, all_ in zip((2, 2, 1, 1), blocks, strict=False))
    torch.manual_seed(0)
    model = zoo.create(name, **({"depths": shallow} | overrides)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            nn.init.uniform_(module.bias, 0.3, 0.7)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    origin = model.known_origin
    model.origin = replace(origin, data=replace(origin.data, size=size))
    return model


def exact(name: str, size: int = 8, **overrides: Any) -> DANet:
    """Return `lively(...)` with weights and statistics that are small dyadic fractions.

    No sum is rounded, in whatever order it is taken.
    """
    model = lively(name, size, **overrides)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = torch.randint(-4, 5, module.weight.shape) / 8
        elif isinstance(module, nn.BatchNorm2d):
            channels = module.bias.shape
            module.weight.data = torch.randint(4, 9, channels) / 4
            module.bias.data = torch.randint(1, 9, channels) / 8
            module.running_mean = torch.randint(-2, 3, channels) / 16
            module.running_var = torch.ones(channels)
            module.eps = 2**-40  # vanishes beside the variance
    return model


def same(a: nn.Module, b: nn.Module) -> bool:
    """Return whether two networks of one architecture have the same parameters and statistics.

    They are compared bit for bit.
    """
    return all(
        torch.equal(x, y)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )
