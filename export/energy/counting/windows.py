"""How many connections a convolution or pool makes along each axis: windows, one axis at a time.

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
        return max(
            0,
            (size + self.begin + self.end - self.dilation * (self.kernel - 1) - 1) // self.stride
            + 1,
        )

    def connections(self, size: int) -> Array:
        """`[out, in]`, one for every connection."""
        return _connections(self, size)

    def taps(self, size: int) -> Array:
        """`f(y)`, `[in]`: how many weights meet each input."""
        taps: Array = self.connections(size).sum(0)
        return taps

    def hits(self, size: int) -> Array:
        """`[kernel]`: how many outputs have each of their weights meet an input."""
        reads = self._reads(size)
        hits: Array = ((reads >= 0) & (reads < size)).sum(0)
        return hits

    def _reads(self, size: int) -> Array:
        """`[out, kernel]`: the input that each weight of each output meets, on the padding if it is
        none.
        """
        outputs, taps = np.arange(self.outputs(size)), np.arange(self.kernel)
        reads: Array = outputs[:, None] * self.stride - self.begin + taps * self.dilation
        return reads


@cache
def _connections(window: Window, size: int) -> Array:
    matrix: Array = (window._reads(size)[:, :, None] == np.arange(size)).sum(1, dtype=np.int64)
    return matrix


def windows(node: nir.Conv2d | nir.SumPool2d | nir.AvgPool2d) -> tuple[Window, Window]:
    """The vertical and the horizontal window."""
    if isinstance(node, nir.Conv2d):
        kernel, dilation, padding = (
            node.weight.shape[2:],
            np.broadcast_to(node.dilation, 2),
            node.padding,
        )
    else:
        kernel, dilation, padding = (
            np.broadcast_to(node.kernel_size, 2),
            np.ones(2, int),
            node.padding,
        )
    stride = np.broadcast_to(node.stride, 2)
    vertical, horizontal = (
        Window(
            int(kernel[i]),
            int(stride[i]),
            *_padding(padding, i, int(dilation[i] * (kernel[i] - 1))),
            int(dilation[i]),
        )
        for i in range(2)
    )
    return vertical, horizontal


def _padding(padding: Any, axis: int, reach: int) -> tuple[int, int]:
    """Begin and end. `same` puts an odd zero at the end, as torch does."""
    if isinstance(padding, str):
        return (reach // 2, reach - reach // 2) if padding == "same" else (0, 0)
    both = int(np.broadcast_to(padding, 2)[axis])
    return both, both
