"""The events that each layer reads: the spikes of its sources, added up, pooled and flattened.

Where no weight of a reader is missing, it is enough to know how many events each pixel has
(`Events.pixels`). Only where single channels matter are whole trains used (`trains_needed`).

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels.
"""

from collections.abc import Iterator
from functools import reduce

import nir
import numpy as np
import torch
from torch import Tensor

from export.energy.counting.spikes import Spikes
from export.energy.counting.windows import windows
from export.energy.structure import LayerStructure
from export.nir.nodes import POOLS
from zoo.arrays import Array

__all__ = ["Events", "reads_channels", "trains_needed"]


def trains_needed(layers: list[LayerStructure]) -> frozenset[str]:
    """Return the sources of events whose single channels matter: `count` needs their trains whole.

    That is where values add up, where weights are missing or groups divide the channels, where a
    neuron reads spikes directly, and where spikes are delayed.
    """
    by_name = {layer.name: layer for layer in layers}
    needed: set[str] = set()
    waiting: list[str] = []
    for layer in layers:
        if reads_channels(layer) or (layer.delays is not None and layer.spikes_in):
            waiting += layer.sources
        elif layer.neuron and not layer.driven:
            waiting += _read_for_arrivals(layer.sources, by_name)
    while waiting:
        layer = by_name[waiting.pop()]
        if layer.neuron or not layer.sources:
            needed.add(layer.name)
        else:
            waiting += layer.sources
    return frozenset(needed)


def reads_channels(layer: LayerStructure) -> bool:
    """Return whether a layer treats the channels of spikes, or their values, differently."""
    if not layer.spikes_in:
        return False
    if isinstance(layer.node, nir.Scale):
        return True
    return layer.weighted and (layer.in_bound != 1 or not (layer.fan and layer.fan.full))


def _read_for_arrivals(
    sources: tuple[str, ...], by_name: dict[str, LayerStructure]
) -> Iterator[str]:
    """Yield the nodes whose single elements `Events.arrivals` looks at."""
    for layer in (by_name[source] for source in sources):
        if layer.out_bound is not None:
            yield layer.name
        elif not layer.spikes_in:
            yield from _read_for_arrivals(layer.sources, by_name)
        elif layer.fan is None or not layer.fan.uniform:
            yield from layer.sources


class Events:
    """The events of one batch, looked up by the sources that they are the sum of."""

    def __init__(self, layers: list[LayerStructure], spikes: Spikes) -> None:
        self.spikes = spikes
        self.by_name = {layer.name: layer for layer in layers}
        self._pixels: dict[tuple[str, ...], Array] = {}
        self._values: dict[tuple[str, ...], Tensor] = {}
        self._arrivals: dict[str, Tensor] = {}

    def pixels(self, sources: tuple[str, ...]) -> Array:
        """Return the events of a sum of spike trains, over all channels, `[T, B, H, W]`."""
        if sources not in self._pixels:
            self._pixels[sources] = sum(
                (self._sent(s) for s in sources[1:]), self._sent(sources[0])
            )
        return self._pixels[sources]

    def _sent(self, name: str) -> Array:
        if name in self.spikes.pixels:
            return self.spikes.pixels[name]
        layer = self.by_name[name]
        if layer.delays is not None:
            delayed: Array = self._element(name).sum(2).to(torch.int64).numpy()
            return delayed
        return _shaped(layer, self.pixels(layer.sources))

    def elements(self, sources: tuple[str, ...]) -> Tensor:
        """Return the events of a sum of spike trains at each element, int32 `[T, B, C, H, W]`."""
        if sources not in self._values:
            self._values[sources] = sum(
                (self._element(s) for s in sources[1:]), self._element(sources[0])
            )
        return self._values[sources]

    def _element(self, name: str) -> Tensor:
        layer = self.by_name[name]
        if name in self.spikes.trains:
            return self.spikes.trains[name].to(torch.int32)
        incoming = self.elements(layer.sources)
        if layer.delays is not None:
            return _delayed(layer, incoming)
        if isinstance(layer.node, POOLS):
            assert layer.fan is not None
            return layer.fan.sums(incoming)
        return incoming.reshape(*incoming.shape[:2], *_with_pixels(layer.out_shape))

    def _arrives(self, name: str) -> Tensor:
        """Return where an event comes out of a node, at each step: bool `[T, B, C or 1, H, W]`.

        One channel stands for all where they are alike.
        """
        if name not in self._arrivals:
            layer = self.by_name[name]
            self._arrivals[name] = (
                self._element(name) > 0 if layer.out_bound is not None else self._passed_on(layer)
            )
        return self._arrivals[name]

    def _passed_on(self, layer: LayerStructure) -> Tensor:
        """Return `_arrives` of a node whose output is a current."""
        if not layer.spikes_in:
            events = self.arrivals(layer.sources)
        elif layer.fan and layer.fan.uniform:
            events = torch.from_numpy(self.pixels(layer.sources) > 0)[:, :, None]
        else:
            events = self.elements(layer.sources) > 0
        if layer.delays is not None:
            return _delayed(layer, events)
        if layer.fan is None:
            return events  # a Scale
        if not layer.fan.uniform:
            events = events.expand(*events.shape[:2], layer.in_shape[0], *events.shape[3:])
        return layer.fan.reach(events)

    def arrivals(self, sources: tuple[str, ...]) -> Tensor:
        """Return where an event comes out of any of the sources: bool `[T, B, C or 1, H, W]`."""
        return reduce(torch.logical_or, map(self._arrives, sources))

    def active(self, name: str) -> Array:
        """Return how many channels of a node of bound 1 send any event, `[B, H, W]`."""
        if name in self.spikes.active:
            return self.spikes.active[name]
        layer = self.by_name[name]
        if layer.delays is not None:
            active: Array = self._element(name).amax(0).gt(0).sum(1).numpy()
            return active
        (source,) = layer.sources
        return _shaped(layer, self.active(source))


def _delayed(layer: LayerStructure, values: Tensor) -> Tensor:
    """Return `values` `[T, B, C or 1, H, W]`, delayed by the steps of a Delay."""
    assert layer.delays is not None
    steps = torch.from_numpy(layer.delays).reshape(_with_pixels(layer.out_shape))
    values = values.expand(*values.shape[:2], *steps.shape)
    delayed = values.new_zeros(values.shape)
    for back in map(int, np.unique(layer.delays)):
        if back < len(values):
            earlier = values[: len(values) - back]
            delayed[back:] = torch.where(steps == back, earlier, delayed[back:])
    return delayed


def _with_pixels(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return `[C, H, W]`; features without pixels have one."""
    return shape if len(shape) == 3 else (*shape, 1, 1)


def _shaped(layer: LayerStructure, events: Array) -> Array:
    """Return what a pool or a Flatten makes of events of all channels, `[..., H, W]`."""
    if isinstance(layer.node, POOLS):
        axes = zip(windows(layer.node), layer.in_shape[1:], strict=True)
        rows, columns = (window.connections(size) for window, size in axes)
        pooled: Array = rows @ events @ columns.T
        return pooled
    return events if layer.out_shape == layer.in_shape else events.sum((-2, -1), keepdims=True)
