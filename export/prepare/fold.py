"""Inference form of a network: every BatchNorm that follows a convolution is folded into it."""

import copy
from collections import Counter

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.prepare.neurons import check_modules
from export.prepare.trace import Call, trace
from zoo.danet import DANet
from zoo.errors import ExportError

__all__ = ["Folded", "fold", "folded_norms", "fused", "still_image"]


class Folded(nn.Identity):
    """Takes the place of a BatchNorm that its convolution has taken in."""


def still_image(model: DANet, batch: int = 1) -> torch.Tensor:
    """Zeros of the shape of the model's input, `[B, C, H, W]`. Raises `ExportError` if the model
    does not know its image size.
    """
    if getattr(model, "origin", None) is None:
        raise ExportError(
            f"{type(model).__name__} does not say what images it takes: make a model with zoo.load or zoo.create"
        )
    data = model.known_origin.data
    return torch.zeros(batch, data.channels, data.size, data.size)


def folded_norms(calls: list[Call]) -> dict[str, str]:
    """The paths of the BatchNorms that fold, and of their convolutions: each the only reader of its
    own.

    A BatchNorm that reads a sum (block order b) stays.
    """
    convs = {call.path for call in calls if isinstance(call.module, nn.Conv2d)}
    readers = Counter(path for call in calls for path in call.inputs)
    norms = (call for call in calls if isinstance(call.module, nn.BatchNorm2d))
    return {
        norm.path: norm.inputs[0]
        for norm in norms
        if norm.inputs[0] in convs and readers[norm.inputs[0]] == 1
    }


def fused(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    """One convolution that does the work of a convolution and the BatchNorm behind it."""
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(conv, norm)


def fold(model: DANet) -> DANet:
    """A copy in eval mode whose folded BatchNorms are `Folded`: a convolution's output there is its
    BatchNorm's in `model`.
    """
    check_modules(model)
    _check_settled(model)
    folded = copy.deepcopy(model).eval()
    for norm, conv in folded_norms(trace(folded, still_image(model))).items():
        folded.set_submodule(conv, fused(folded.get_submodule(conv), folded.get_submodule(norm)))
        folded.set_submodule(norm, Folded())
    return folded


def _check_settled(model: DANet) -> None:
    """Raises `ExportError` for weights of another precision, and for a head that tells other
    classes than the model's data name.
    """
    for path, weight in model.named_parameters():
        if weight.dtype != torch.float32:
            raise ExportError(
                f"{path} is of {weight.dtype}: exports are made of torch.float32, as model.float() makes it"
            )
    last = model.head.fc
    if (
        model.origin
        and isinstance(last, nn.Linear)
        and last.out_features != model.known_origin.data.num_classes
    ):
        raise ExportError(
            f"head.fc tells {last.out_features} classes, the model's data {model.known_origin.data.title} have "
            f"{model.known_origin.data.num_classes}: write it with zoo.weights.write_model, and export what zoo.load gives"
        )
