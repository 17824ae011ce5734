"""Spike maps: all that counting needs to know of what the neurons did.

Counting is linear in the events, and a convolution has as many connections from one input channel as from any other, so the number
of spikes of each pixel, summed over time and channels, is enough for exact counts.

Shapes: `T` time steps, `B` images, `H` x `W` pixels; neurons without pixels have `H` = `W` = 1.
"""

from dataclasses import dataclass

import numpy as np

from export.energy.structure import Layer
from export.energy.windows import Array
from zoo.errors import InputError

__all__ = ["SpikeMaps"]


@dataclass(frozen=True)
class SpikeMaps:
    """The spikes of one batch, for every neuron node of a graph. Any executor can make one."""

    steps: int
    pixels: dict[str, Array]  # node -> [B, H, W], spikes over all steps and channels
    per_step: dict[str, Array]  # node -> [T, B], spikes over all neurons

    def check(self, layers: list[Layer]) -> None:
        """Raises `InputError` unless these are maps of exactly the neurons of `layers`, of values that spikes can have."""
        neurons = {layer.name: layer for layer in layers if layer.neuron}
        if odd := sorted(neurons.keys() ^ self.pixels.keys()):
            which = "is a neuron node without a spike map" if odd[0] in neurons else "has a spike map but is no neuron node"
            raise InputError(f"{odd[0]!r} {which}: run the very network that the graph describes")
        for name, layer in neurons.items():
            self._check_map(name, layer)

    def _check_map(self, name: str, layer: Layer) -> None:
        shape, pixels = layer.out_shape, self.pixels[name]
        size = shape[1:] if len(shape) == 3 else (1, 1)
        if pixels.shape[1:] != size or not np.issubdtype(pixels.dtype, np.integer):
            raise InputError(
                f"the spike map of {name!r} is {pixels.dtype} {list(pixels.shape)}: expected integers [B, {size[0]}, {size[1]}]"
            )
        most = self.steps * shape[0]  # every channel fires at every step
        if pixels.size and not 0 <= pixels.min() <= pixels.max() <= most:
            raise InputError(
                f"the spike map of {name!r} has values from {pixels.min()} to {pixels.max()}: "
                f"{shape[0]} channels of binary spikes over {self.steps} steps give 0 to {most}"
            )
