"""The connections that a convolution or pool makes, one axis at a time.

An output `o` reads the inputs `y = o s - pad_begin + j d` for `0 <= j < k`, as far as they exist.
An input's connections

    f(y) = #{(o, j): o s - pad_begin + j d = y, 0 <= o < out, 0 <= j < k}

is the column sum of a matrix `[out, in]` that holds a one for every connection. A convolution
connects rows and columns independently, so `f(y, x) = fy(y) fx(x)`.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import nir
import numpy as np

__all__ = ["Array", "Window", "windows"]

Array = np.ndarray[Any, np.dtype[np.int64]]


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
    """Return the vertical and the horizontal window."""
    conv = isinstance(node, nir.Conv2d)
    kernels = np.broadcast_to(node.weight.shape[2:] if conv else node.kernel_size, 2)
    dilations = np.broadcast_to(node.dilation if conv else 1, 2)
    strides = np.broadcast_to(node.stride, 2)
    axes = []
    for axis in (0, 1):
        kernel, stride, dilation = (int(n[axis]) for n in (kernels, strides, dilations))
        begin, end = _padding(node.padding, axis, reach=dilation * (kernel - 1))
        axes.append(Window(kernel, stride, begin, end, dilation))
    return axes[0], axes[1]


def _padding(padding: Any, axis: int, reach: int) -> tuple[int, int]:
    """Return begin and end; `same` puts an odd zero at the end, as torch does."""
    if isinstance(padding, str):
        return (reach // 2, reach - reach // 2) if padding == "same" else (0, 0)
    both = int(np.broadcast_to(padding, 2)[axis])
    return both, both
