"""The families of networks: DANet, and the spiking ResNets that it is compared with.

    danet           LIF-Conv-BN twice, densely additive links between stages
    speck-danet     a DANet for the nine cores of the chip Speck 2e
    spiking-resnet  Conv-BN-LIF-Conv-BN, add, LIF (as built by Fang et al. 2021 for comparison)
    sew-resnet      Conv-BN-LIF-Conv-BN-LIF, then a join: ADD, AND or IAND (Fang et al., NeurIPS
                    2021, table 1)
    ms-resnet       LIF-Conv-BN twice, then add; the shortcut reads the real-valued stream (Hu et
                    al. 2021)

A family is one entry of `FAMILIES`: its depths, its variants, and the fields of `DANetConfig` in
which it differs. Names, listings and the command line follow from it. Imports no torch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zoo.datasets import DatasetSpec

__all__ = ["FAMILIES", "JUST_BELOW_ONE", "Depth", "Family"]


@dataclass(frozen=True)
class Depth:
    """The blocks of a network of one depth."""

    blocks: tuple[int, ...]  # in each stage
    bottleneck: bool = False
    width: int = 64  # output channels of the first stage; each later one has twice as many


# (variant, depth, data) -> fields of `DANetConfig`
Fields = Callable[[str, int, DatasetSpec], dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """A family of networks, which differ in depth and variant alone."""

    depths: dict[int, Depth]
    fields: Fields  # in which the family differs
    variants: tuple[str, ...] = ("",)  # "" is the default variant, which a name leaves out
    default_variant: str = ""  # the word that may be written for it

    def config(self, variant: str, depth: int, data: DatasetSpec) -> dict[str, Any]:
        """Return the fields of `DANetConfig` for one network on `data`, but for its time steps."""
        shape = self.depths[depth]
        common = {
            "depths": shape.blocks,
            "widths": tuple(shape.width * 2**i for i in range(len(shape.blocks))),
            "bottleneck": shape.bottleneck,
            "in_channels": data.channels,
            "num_classes": data.num_classes,
            "stem": _stem(data),
        }
        return common | self.fields(variant, depth, data)


# Pixels a side up to which each stem serves.
STEMS = ((40, "small"), (96, "medium"), (math.inf, "imagenet"))


def _stem(data: DatasetSpec) -> str:
    return next(stem for size, stem in STEMS if data.size <= size)


SMALL = {20: Depth((3, 3, 3), width=16)}
RESNETS = {
    18: Depth((2, 2, 2, 2)),
    34: Depth((3, 4, 6, 3)),
    50: Depth((3, 4, 6, 3), bottleneck=True, width=256),
    101: Depth((3, 4, 23, 3), bottleneck=True, width=256),
    152: Depth((3, 8, 36, 3), bottleneck=True, width=256),
}

# snnTorch fires strictly above the threshold; with the largest float32 below one it fires at one,
# as SEW and Spiking ResNet do.
JUST_BELOW_ONE = 1 - 2**-24
IF: dict[str, Any] = {"links": False, "down": "stride", "beta": 1.0, "threshold": JUST_BELOW_ONE}


def _danet(variant: str, depth: int, data: DatasetSpec) -> dict[str, Any]:
    return {"order": variant or "a"}


def _speck_danet(variant: str, depth: int, data: DatasetSpec) -> dict[str, Any]:
    # Each of the nine cores computes a convolution and its integrate-and-fire neurons, and sends to
    # two others (`zoo check speck-danet8-t4 --target speck2e`): no block shortcuts, and one link
    # between neighbouring stages.
    stem = "small" if data.size <= 32 else "medium"
    return {"order": "plain", "dense": False, "beta": 1.0, "reset": "subtract", "stem": stem}


def _spiking_resnet(variant: str, depth: int, data: DatasetSpec) -> dict[str, Any]:
    return IF | {"order": "post"} | _large_stem(data, "sew")


def _sew_resnet(variant: str, depth: int, data: DatasetSpec) -> dict[str, Any]:
    return IF | {"order": "c", "join": variant or "add"} | _large_stem(data, "sew")


def _ms_resnet(variant: str, depth: int, data: DatasetSpec) -> dict[str, Any]:
    # The published 104 averages before a shortcut's convolution, and has a deep stem.
    deep = depth == 104
    fields = {
        "links": False,
        "order": "a",
        "shortcut_reads": "stream",
        "down": "pool" if deep else "stride",
    }
    neuron = {"beta": 0.25, "threshold": 0.5, "surrogate": "rectangle"}
    return fields | neuron | _large_stem(data, "ms104" if deep else "ms")


def _large_stem(data: DatasetSpec, stem: str) -> dict[str, str]:
    """Return the field of a family's own stem, if images are of ImageNet's size."""
    return {"stem": stem} if _stem(data) == "imagenet" else {}


FAMILIES = {
    "danet": Family(SMALL | RESNETS, _danet, ("", "b", "c", "d"), default_variant="a"),
    "speck-danet": Family({8: Depth((1, 1, 1), width=16)}, _speck_danet),
    "spiking-resnet": Family(SMALL | RESNETS, _spiking_resnet),
    "sew-resnet": Family(SMALL | RESNETS, _sew_resnet, ("", "and", "iand"), default_variant="add"),
    "ms-resnet": Family(
        SMALL | {18: RESNETS[18], 34: RESNETS[34], 104: Depth((3, 8, 32, 8))}, _ms_resnet
    ),
}
