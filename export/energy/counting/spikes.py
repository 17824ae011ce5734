"""Spikes of one batch, as far as counting needs them.

Counting is linear in the events, and where no weight of a convolution is missing, it has as many
connections from one input channel as from any other: the number of spikes of each pixel, summed
over channels, is enough for exact counts. Only where single channels matter
(`export.energy.counting.events.trains_needed`) are whole spike trains kept.

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels; neurons without pixels have `H`
= `W` = 1.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from export.energy.structure import MAX_EVENTS, LayerStructure
from zoo.arrays import Array
from zoo.errors import InputError

__all__ = ["Spikes"]


@dataclass
class Spikes:
    """The spikes of every source of events in a graph: its neurons, and an input of events.

    Any executor can fill one.
    """

    steps: int
    # node -> [T, B, H, W], events of all channels
    pixels: dict[str, Array] = field(default_factory=dict)
    # node -> [B, H, W], channels that send any
    active: dict[str, Array] = field(default_factory=dict)
    trains: dict[str, Tensor] = field(default_factory=dict)  # node -> [T, B, C, H, W], uint8

    def add(self, name: str, train: Tensor, *, keep: bool) -> None:
        """Reduce one node's spikes `[T*B, C, H, W]` or `[T*B, C]`; `keep` their trains too.

        Raises `InputError` unless they are whole numbers from 0 to 255.
        """
        train = train.reshape(self.steps, -1, train.shape[1], *(train.shape[2:] or (1, 1)))
        most = train.amax(0)  # 0 or 1, except for counts of events, whose trains are kept
        exact = torch.float32 if train.shape[2] * MAX_EVENTS < 2**24 else torch.float64
        active = (most.ne(0) if keep else most).sum(1, dtype=exact)
        self.add_reduced(name, train.sum(2, dtype=exact), active)
        if keep:
            integers = train.to(torch.uint8)
            if not torch.equal(integers.to(train.dtype), train):
                raise _no_spikes(name)
            self.trains[name] = integers

    def add_reduced(self, name: str, pixels: Tensor, active: Tensor) -> None:
        """Add `pixels` `[T, B, H, W]` and `active` `[B, H, W]` of a node, which are sums already.

        Raises `InputError` unless they are whole numbers.
        """
        integers = pixels.round()
        if not torch.equal(integers, pixels):
            raise _no_spikes(name)
        self.pixels[name] = integers.to(torch.int64).cpu().numpy()
        self.active[name] = active.to(torch.int64).cpu().numpy()

    def check(self, layers: list[LayerStructure]) -> None:
        """Raise `InputError` unless these are the spikes of exactly the sources of `layers`.

        Their values must be such that spikes can have.
        """
        sources = {
            layer.name: layer
            for layer in layers
            if layer.neuron or (not layer.sources and layer.out_bound is not None)
        }
        if odd := sorted(sources.keys() ^ self.pixels.keys()):
            what = "has spikes, but is no neuron node"
            if odd[0] in sources:
                what = "sends events, but has no spikes here"
            raise InputError(f"{odd[0]!r} {what}: run the very network that the graph describes")
        for name, layer in sources.items():
            self._check_map(name, layer)

    def _check_map(self, name: str, layer: LayerStructure) -> None:
        shape, pixels = layer.out_shape, self.pixels[name]
        size = shape[1:] if len(shape) == 3 else (1, 1)
        integers = np.issubdtype(pixels.dtype, np.integer)
        if pixels.shape[0] != self.steps or pixels.shape[2:] != size or not integers:
            given = f"the spikes of {name!r} are {pixels.dtype} {list(pixels.shape)}"
            expected = f"integers [{self.steps}, B, {size[0]}, {size[1]}]"
            raise InputError(f"{given}: expected {expected}")
        most = shape[0] * (layer.out_bound or 0)  # if every channel fires
        if pixels.size and not 0 <= pixels.min() <= pixels.max() <= most:
            raise InputError(
                f"the spikes of {name!r} at a pixel and step are {pixels.min()} to {pixels.max()}: "
                f"{shape[0]} channels of at most {layer.out_bound} give 0 to {most}"
            )
        if name in self.trains and int(self.trains[name].max()) > (layer.out_bound or 0):
            most = int(self.trains[name].max())
            raise InputError(f"{name!r} sends {most} at once: its bound is {layer.out_bound}")


def _no_spikes(name: str) -> InputError:
    valid = "only neurons of 0 and 1, and whole events, can be counted"
    return InputError(f"{name!r} emits values that are no spikes: {valid}")
