"""Inference form of a network: every BatchNorm that follows a convolution is folded into it."""

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.trace import Call, trace
from zoo.danet import DANet
from zoo.errors import ExportError

__all__ = ["fold", "still_image"]


def still_image(model: DANet, batch: int = 1) -> torch.Tensor:
    """Zeros of the shape of the model's input, `[B, C, H, W]`. Raises `ExportError` if the model does not know its image size."""
    if model.origin is None:
        raise ExportError("the model does not say what images it takes: make it with zoo.load or zoo.create")
    data = model.origin.data
    return torch.zeros(batch, data.channels, data.size, data.size)


def fold(model: DANet) -> tuple[DANet, dict[str, str]]:
    """A copy in eval mode whose folded BatchNorms are `nn.Identity`, and the map from their paths to their convolutions'.

    The convolution's output in the copy is the BatchNorm's output in the model. A BatchNorm that reads a sum (block order b) stays.
    """
    folded = copy.deepcopy(model).eval()
    calls = trace(folded, still_image(model))
    by_path = {call.path: call for call in calls}
    merged: dict[str, str] = {}
    for call in calls:
        if not isinstance(call.module, nn.BatchNorm2d):
            continue
        source = by_path.get(call.inputs[0])
        if source and isinstance(source.module, nn.Conv2d) and _readers(calls, source.path) == 1:
            folded.set_submodule(source.path, fuse_conv_bn_eval(source.module, call.module))
            folded.set_submodule(call.path, nn.Identity())
            merged[call.path] = source.path
    return folded, merged


def _readers(calls: list[Call], path: str) -> int:
    return sum(call.inputs.count(path) for call in calls)
