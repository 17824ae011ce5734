"""The connections that a convolution or pool makes, one axis at a time.

An output `o` reads the inputs `y = o s - pad_begin + j d` for `0 <= j < k`, as far as they exist.
An input's connections

    f(y) = #{(o, j): o s - pad_begin + j d = y, 0 <= o < out, 0 <= j < k}

is the column sum of a matrix `[out, in]` that holds a one for every connection. A convolution
connects rows and columns independently, so `f(y, x) = fy(y) fx(x)`.
"""

from dataclasses import dataclass
from functools import cache

import nir
import numpy as np

from export.nir.nodes import kernel_size, paddings
from zoo.arrays import Array

__all__ = ["Window", "windows"]


@dataclass(frozen=True)
class Window:
    """One axis of a convolution or pool."""

    kernel: int
    stride: int
    begin: int  # padding before the first and after the last input
    end: int
    dilation: int = 1

    def outputs(self, size: int) -> int:
        """Return the number of outputs for `size` inputs."""
        reach = self.dilation * (self.kernel - 1)
        return max(0, (size + self.begin + self.end - reach - 1) // self.stride + 1)

    def connections(self, size: int) -> Array:
        """Return a matrix `[out, in]` that counts the connections."""
        return _connections(self, size)

    def taps(self, size: int) -> Array:
        """Return how many weights meet each input: `f(y)`, `[in]`."""
        taps: Array = self.connections(size).sum(0)
        return taps

    def hits(self, size: int) -> Array:
        """Return for each weight for how many outputs it meets an input, `[kernel]`."""
        reads = self._reads(size)
        hits: Array = ((reads >= 0) & (reads < size)).sum(0)
        return hits

    def _reads(self, size: int) -> Array:
        """Return the input that each weight of each output meets, `[out, kernel]`.

        Where it is none of 0 to `size - 1`, the weight meets the padding.
        """
        outputs, taps = np.arange(self.outputs(size)), np.arange(self.kernel)
        reads: Array = outputs[:, None] * self.stride - self.begin + taps * self.dilation
        return reads


@cache
def _connections(window: Window, size: int) -> Array:
    matrix: Array = (window._reads(size)[:, :, None] == np.arange(size)).sum(1, dtype=np.int64)
    return matrix


def windows(node: nir.Conv2d | nir.SumPool2d | nir.AvgPool2d) -> tuple[Window, Window]:
    """Return the vertical and the horizontal window of a node of a `CheckedGraph`."""
    dilations = node.dilation if isinstance(node, nir.Conv2d) else (1, 1)
    axes = zip(kernel_size(node), node.stride, paddings(node), dilations, strict=True)
    vertical, horizontal = (Window(k, s, begin, end, d) for k, s, (begin, end), d in axes)
    return vertical, horizontal
