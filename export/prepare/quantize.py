"""Weights as chips hold them: integers of 8 bits times a scale."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from export.prepare.fold import fold, still_image
from export.prepare.trace import Call, trace
from zoo.blocks import SamePool
from zoo.danet import DANet, Repeat
from zoo.errors import ConfigError
from zoo.levels import round_to_levels
from zoo.neurons import Lif
from zoo.provenance import WEIGHT_FORMATS, WeightFormat

__all__ = ["as_weight_format", "keep_scale", "quantize_weights", "weight_scales"]


def as_weight_format(word: str) -> WeightFormat:
    """Return a word as a format of weights; raise `ConfigError` for one that is none."""
    if word not in WEIGHT_FORMATS:
        raise ConfigError(f"weight format {word[:100]!r} is not one of {', '.join(WEIGHT_FORMATS)}")
    return word


def quantize_weights(model: DANet, weight_format: WeightFormat = "int8") -> DANet:
    """Return a copy of `model` whose weights are integers from -127 to 127 times a scale.

    Its BatchNorms are folded before. The scale is the largest number that it has to reach over 127
    (symmetric, without calibration; Jacob et al. 2018, section 3): the largest weight of each
    output channel, or with `int8-layer` the largest weight or bias of the layer, of whose steps
    biases and thresholds then are whole numbers, as on Speck. Behind a pool of n values such a chip
    adds up instead of averaging, so that its integer weight stands for a weight / n: biases and
    thresholds there are multiples of scale / n. Every layer that has weights keeps its scale
    (`weight_scales`).
    """
    if as_weight_format(weight_format) == "float32":
        return model
    model = fold(model)
    calls = trace(model, still_image(model))
    with torch.no_grad():
        for call in calls:
            match call.module:
                case nn.Conv2d() | nn.Linear() as layer if weight_format == "int8":
                    largest = layer.weight.abs().flatten(1).amax(1)
                    keep_scale(layer, round_to_levels(layer.weight, largest))
                case nn.Conv2d() | nn.Linear() as layer:
                    parts = _pooled(calls, call)  # n
                    largest = layer.weight.abs().amax()
                    if layer.bias is not None:
                        largest = torch.maximum(largest, parts * layer.bias.abs().amax())
                        round_to_levels(layer.bias, largest / parts)
                    scale = round_to_levels(layer.weight, largest)
                    keep_scale(layer, scale.expand(len(layer.weight)).clone())
                    for reader in calls:
                        # A neuron that reads a sum has a threshold in steps of no single layer.
                        reads = _source(calls, reader.inputs[0])
                        if isinstance(reader.module, Lif) and reads == call.path:
                            round_to_levels(reader.module.neuron.threshold, largest / parts)
    model.origin = replace(model.known_origin, weight_format=weight_format)
    return model


def keep_scale(layer: nn.Module, scale: Tensor) -> None:
    """Keep the scale `[C_out]` of a layer's weights with it, as a buffer that no file holds."""
    layer.register_buffer("weight_scale", scale, persistent=False)


def weight_scales(model: nn.Module) -> dict[str, Tensor]:
    """Return the scale of each layer of integer weights, by the name of its weights."""
    return {
        name.removesuffix("_scale"): scale
        for name, scale in model.named_buffers()
        if name.endswith(".weight_scale")
    }


def _pooled(calls: list[Call], call: Call) -> int:
    """Return how many values each input of a layer is the average of."""
    source = _source(calls, call.inputs[0])
    pools = [c.module for c in calls if c.path == source and isinstance(c.module, SamePool)]
    return pools[0].window ** 2 if pools else 1


def _source(calls: list[Call], path: str) -> str:
    """Return the path whose value `path` hands on unchanged."""
    unchanged = {
        call.path: call.inputs[0] for call in calls if isinstance(call.module, nn.Identity | Repeat)
    }
    while path in unchanged:
        path = unchanged[path]
    return path
