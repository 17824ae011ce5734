"""Small random networks whose every layer spikes."""

from dataclasses import replace
from typing import Any

import torch
from torch import nn

import zoo
from zoo.danet import DANet
from zoo.names import Origin


def lively(name: str, size: int, **overrides: Any) -> DANet:
    """The network of `name` for images of `size` pixels, in eval mode."""
    torch.manual_seed(0)
    model = zoo.create(name, **overrides).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias, 0.3, 0.7)  # no two alike: sums of equal ones would lie exactly on the threshold
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    assert model.origin is not None
    model.origin = Origin(model.origin.name, replace(model.origin.data, size=size))
    return model
