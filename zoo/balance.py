"""The weights of an ANN's ResNet, scaled for neurons that fire at a threshold of one.

A neuron that integrates and resets by subtraction fires, in T steps, about as often as its current
says, up to once a step. So the activations of an ANN become rates of spikes if every layer is
divided by the largest activation that it is to tell apart, and the layer after it multiplied by the
same (Diehl et al. 2015, doi:10.1109/IJCNN.2015.7280696, section IV.B). Layers that are added to
each other by an identity shortcut share one scale.

No images are needed: what a BatchNorm gives is taken as normal, with its bias as the mean and its
weight as the deviation (Nagel et al. 2019, arXiv:1906.04721, section 4.2).
"""

import math
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from zoo.blocks import Block
from zoo.danet import DANet

__all__ = ["balance"]

CLIPPED = 1e-3  # share of the activations of a layer that lie above its scale


class Normal(NamedTuple):
    """What the channels of a layer give before the ReLU, each a normal distribution, `[C]`."""

    mean: Tensor
    variance: Tensor

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> Self:
        """Return what a BatchNorm gives."""
        return cls(norm.bias.double(), norm.weight.double() ** 2)

    def plus(self, other: "Normal") -> "Normal":
        """Return the distribution of the sum of two independent layers."""
        return Normal(self.mean + other.mean, self.variance + other.variance)

    def rectified(self) -> "Normal":
        """Return mean and variance behind the ReLU."""
        mean, deviation = self.mean, self.variance.sqrt().clamp_min(1e-12)
        z = mean / deviation
        density = torch.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        positive = torch.special.ndtr(z)
        first = mean * positive + deviation * density
        second = (mean**2 + self.variance) * positive + mean * deviation * density
        return Normal(first, (second - first**2).clamp_min(0))

    def scale(self) -> float:
        """Return the value that a share `CLIPPED` of all activations exceeds."""
        deviation = self.variance.sqrt().clamp_min(1e-12)
        low, high = 0.0, float((self.mean + 10 * deviation).max().clamp_min(1e-6))
        for _ in range(60):
            middle = (low + high) / 2
            above = float(torch.special.ndtr((self.mean - middle) / deviation).mean())
            low, high = (middle, high) if above > CLIPPED else (low, middle)
        return high


@torch.no_grad()
def balance(model: DANet) -> None:
    """Scale the weights of an ANN's ResNet, in place, for the neurons of `model`.

    `model` is of order post, with neurons of threshold 1 that reset by subtraction. Half a
    threshold over its T steps makes them round to the nearest level (`zoo.training.qcfs`).
    """
    half = 1 / (2 * model.config.steps)
    blocks = [block for stage in model.stages for block in stage.blocks]
    before, *scales = _scales(_norm(model.stem), blocks)
    _divide(_norm(model.stem), before, half)
    for block, after in zip(blocks, scales, strict=True):
        convs, norms = _layers(block)
        inner = [Normal.of(norm).scale() for norm in norms[:-1]]
        for conv, factor in zip(convs, [before, *inner], strict=True):
            conv.weight.mul_(factor)
        for norm, scale in zip(norms, [*inner, after], strict=True):
            _divide(norm, scale, half)
        if block.shortcut is not None:
            block.shortcut.get_parameter("conv.weight").mul_(before)
            _divide(_norm(block.shortcut), after, 0.0)
        before = after
    model.head.fc.weight.mul_(before)


def _scales(first: nn.BatchNorm2d, blocks: list[Block]) -> list[float]:
    """Return the scale of the stem's neurons, and of those at the end of each block.

    From one projection to the next they are one, the largest.
    """
    stream = Normal.of(first)
    runs = [[stream.scale()]]
    for block in blocks:
        shortcut = stream.rectified()
        if block.shortcut is not None:
            runs.append([])
            shortcut = Normal.of(_norm(block.shortcut))
        stream = Normal.of(_layers(block)[1][-1]).plus(shortcut)
        runs[-1].append(stream.scale())
    return [max(run) for run in runs for _ in run]


def _layers(block: Block) -> tuple[list[nn.Conv2d], list[nn.BatchNorm2d]]:
    layers = block.layers
    convs = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    return convs, [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]


def _norm(module: nn.Module) -> nn.BatchNorm2d:
    norm = module.get_submodule("bn")
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def _divide(norm: nn.BatchNorm2d, scale: float, more: float) -> None:
    """Divide what a BatchNorm gives by `scale`, and add `more`."""
    norm.weight.div_(scale)
    norm.bias.div_(scale).add_(more)
