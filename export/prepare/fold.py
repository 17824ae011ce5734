"""The inference form of a network: BatchNorms that follow a convolution are folded into it.

`y = norm(conv(x))` is one convolution in evaluation (Jacob et al. 2018, section 3.2).
"""

import copy
from collections import Counter

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from export.prepare.neurons import check_modules
from export.prepare.trace import Call, trace
from zoo.danet import DANet
from zoo.errors import ExportError

__all__ = [
    "Folded",
    "event_frames",
    "fold",
    "folded_norms",
    "fused",
    "noise",
    "still_image",
]


class Folded(nn.Identity):
    """An identity in the place of a BatchNorm that its convolution has taken in."""


def still_image(model: DANet, batch: int = 1) -> torch.Tensor:
    """Return zeros of the shape of the model's input, `[B, C, H, W]`.

    Raises `ExportError` if the model does not know its image size.
    """
    if getattr(model, "origin", None) is None:
        raise ExportError(
            f"{type(model).__name__} does not say what images it takes: make a model with "
            "zoo.load or zoo.create"
        )
    data = model.known_origin.data
    return torch.zeros(batch, data.channels, data.size, data.size)


def event_frames(model: DANet, batch: int = 1) -> torch.Tensor:
    """Return zeros of the shape of events for a model of these, `[T, B, C, H, W]`."""
    return still_image(model, batch).repeat(model.head.readout.steps, 1, 1, 1, 1)


def noise(model: DANet, batch: int) -> torch.Tensor:
    """Return the normal noise on which `model` is verified where no images are given."""
    shape = still_image(model, batch).shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def folded_norms(calls: list[Call]) -> dict[str, str]:
    """Return the paths of the BatchNorms that fold, and of their convolutions.

    A BatchNorm folds if it is the only reader of a convolution. One that reads a sum (block order
    b) stays.
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
    """Return one convolution that does the work of a convolution and the BatchNorm behind it."""
    assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return fuse_conv_bn_eval(conv, norm)


def fold(model: DANet) -> DANet:
    """Return a copy in eval mode whose folded BatchNorms are `Folded`.

    The output of a convolution there is that of its BatchNorm in `model`. Raises `ExportError` for
    a network that has no exact export.
    """
    check_modules(model)
    _check_weights(model)
    folded = copy.deepcopy(model).eval()
    for norm, conv in folded_norms(trace(folded, still_image(model))).items():
        folded.set_submodule(conv, fused(folded.get_submodule(conv), folded.get_submodule(norm)))
        folded.set_submodule(norm, Folded())
    return folded


def _check_weights(model: DANet) -> None:
    """Raise `ExportError` for weights of another precision, or of other classes than the data's."""
    for path, weight in model.named_parameters():
        if weight.dtype != torch.float32:
            raise ExportError(
                f"{path} is of {weight.dtype}: exports are made of torch.float32, as "
                "model.float() makes it"
            )
    if model.origin is None or not isinstance(model.head.fc, nn.Linear):
        return
    data, classes = model.known_origin.data, model.head.fc.out_features
    if classes != data.num_classes:
        raise ExportError(
            f"head.fc tells {classes} classes, the model's data {data.title} have "
            f"{data.num_classes}: write it with zoo.weights.write_model, and export what zoo.load "
            "gives"
        )
