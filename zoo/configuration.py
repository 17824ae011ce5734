"""The configuration that a network's modules tell, after a user may have changed them."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import nn

from zoo.danet import DANet, DANetConfig
from zoo.errors import WeightsError
from zoo.neurons import Lif

__all__ = ["configuration_of"]


def configuration_of(model: DANet) -> DANetConfig:
    """Return the configuration that builds a network of the same modules.

    It has as many classes as the head, and the time steps that were set. Raises `WeightsError` for
    the first module that no configuration builds, for what is no DANet, and for rounded weights.
    """
    if not isinstance(model, DANet):
        raise WeightsError(
            f"{type(model).__name__} is no DANet: give the network inside, as model.module or "
            "model._orig_mod"
        )
    if model.origin and model.origin.weight_format != "float32":
        raise WeightsError(
            f"weights of the format {model.origin.weight_format} belong to an export: "
            "save the network they were made of"
        )
    classes = getattr(model.head.fc, "out_features", model.config.num_classes)
    config = replace(model.config, num_classes=classes, steps=model.head.readout.steps)
    with torch.device("meta"):
        rebuilt = DANet(config)
    actual, expected = dict(_descriptions(model)), dict(_descriptions(rebuilt))
    for path in [*expected, *actual]:
        if actual.get(path) != expected.get(path):
            raise WeightsError(
                f"{path} is {actual.get(path, 'not there')}, where the configuration has "
                f"{expected.get(path, 'nothing')}: a model folder cannot say that; put the module "
                "back (pruned weights: torch.nn.utils.prune.remove), or keep its state_dict"
            )
    return config


def _descriptions(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield path and description of each module and each stored tensor of a network."""
    for path, module in model.named_modules():
        yield path, _description(module)
    for key, tensor in model.state_dict().items():
        yield key, f"a tensor of shape {list(tensor.shape)}"


def _description(module: nn.Module) -> str:
    """Return what a module computes with, beside its tensors."""
    kind = type(module).__name__
    match module:
        case Lif(reset=None):
            neuron = f"snntorch's {type(module.neuron).__name__} with an equation of its own"
            return f"Lif(steps={module.steps}, reset=None) of {neuron}"
        case Lif():
            return f"Lif(steps={module.steps}, reset={module.reset})"
        case nn.BatchNorm2d():  # whose momentum is a matter of training
            return f"{kind}({module.num_features}, eps={module.eps})"
    return f"{kind}({module.extra_repr()})"
