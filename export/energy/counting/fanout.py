"""Connections of one layer: how many outputs an event reaches, and which.

Where no weight is missing, rows and columns of a convolution are independent
(`export.energy.counting.windows`), and events of all channels can be added up before they are
multiplied. Where weights are missing, connections are counted by a convolution with their number in
place of the weights: exact in float64, which holds every integer up to 2^53.

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels.
"""

from dataclasses import dataclass
from functools import cached_property

import nir
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from export.energy.counting.windows import Window, windows
from export.nir.nodes import POOLS
from zoo.arrays import Array

__all__ = ["FanOut", "fan_out"]

POINT = Window(kernel=1, stride=1, begin=0, end=0)


@dataclass(frozen=True, eq=False)
class FanOut:
    """The connections of a convolution, a matrix or a pool.

    A matrix is a convolution of 1x1 on one pixel, a pool one of ones, channel by channel.
    """

    present: Array  # [C_out, C_in / groups, kh, kw], bool: the weights that are not zero
    groups: int
    windows: tuple[Window, Window]
    size: tuple[int, int]  # of the input
    full: bool  # no weight is missing

    @property
    def uniform(self) -> bool:
        """Whether all outputs of a pixel read the same inputs."""
        return self.full and self.groups == 1

    @property
    def outputs(self) -> int:
        """The output channels that an input channel reaches, if no weight is missing."""
        return len(self.present) // self.groups

    @cached_property
    def connections(self) -> int:
        """The connections of all inputs together, by the weights that are not zero."""
        rows, columns = self._hits
        return int(rows @ self.present.sum((0, 1)) @ columns)

    @cached_property
    def dense(self) -> int:
        """The connections of all inputs together, if no weight were missing."""
        rows, columns = self._hits
        outputs, inputs = self.present.shape[:2]
        return int(rows.sum()) * int(columns.sum()) * int(outputs) * int(inputs)

    @property
    def _hits(self) -> tuple[Array, Array]:
        vertical, horizontal = (w.hits(n) for w, n in zip(self.windows, self.size, strict=True))
        return vertical, horizontal

    def of_pixels(self, events: Array) -> Array:
        """Return the connections of events `[B, H, W]` of all channels, `[B]`.

        They are exact where the layer is `full`.
        """
        rows, columns = (w.taps(n) for w, n in zip(self.windows, self.size, strict=True))
        connections: Array = self.outputs * (events @ columns @ rows)
        return connections

    def of_elements(self, events: Tensor) -> Array:
        """Return the connections of events `[B, C, H, W]`, `[B]`."""
        if_full = self.of_pixels(events.sum(1).numpy())
        if self.full:
            return if_full
        # Outputs of its group that a channel misses at each tap, [groups, C_in / groups, kh, kw].
        missing = (~self.present).reshape(self.groups, self.outputs, *self.present.shape[1:]).sum(1)
        if self.groups == 1:  # few channels lack a weight where few weights are missing
            lacking = np.flatnonzero(missing[0].any((1, 2)))
            events, missing = events[:, lacking], missing[:, lacking]
        misses: Array = self._slide(events.double(), missing, self.groups).sum((1, 2, 3)).numpy()
        return if_full - misses.astype(np.int64)

    def reach(self, events: Tensor) -> Tensor:
        """Return which outputs any of the events `[T, B, C, H, W]` reaches, `[T, B, C_out, H, W]`.

        Both are bool. Where the layer is `uniform`, one channel of the events, and of the outputs,
        stands for all.
        """
        if self.uniform:
            return self._reach_any(events)
        if self.groups > 1:
            return self._reach(events, self.present)
        # Only outputs that lack a weight can miss an event that others of their pixel see.
        lacking = np.flatnonzero(~self.present.all((1, 2, 3)))
        reached = self._reach_any(events).repeat(1, 1, len(self.present), 1, 1)
        reached[:, :, lacking] = self._reach(events, self.present[lacking])
        return reached

    def _reach_any(self, events: Tensor) -> Tensor:
        rows, columns = (
            torch.from_numpy(w.connections(n)).float()
            for w, n in zip(self.windows, self.size, strict=True)
        )
        return (rows @ events.any(2, keepdim=True).float() @ columns.T).gt(0)

    def _reach(self, events: Tensor, present: Array) -> Tensor:
        # No sum has 2^24 terms, so float32 is exact.
        sums = self._slide(events.flatten(0, 1).float(), present, self.groups)
        return sums.gt(0).reshape(*events.shape[:2], *sums.shape[1:])

    def sums(self, events: Tensor) -> Tensor:
        """Return the sums of a pool over events `[T, B, C, H, W]`, int32."""
        padded = self._padded(events.flatten(0, 1).float())
        kernel, stride = zip(*((w.kernel, w.stride) for w in self.windows), strict=True)
        sums = F.avg_pool2d(padded, kernel, stride, divisor_override=1)
        return sums.to(torch.int32).reshape(*events.shape[:2], *sums.shape[1:])

    def _slide(self, events: Tensor, weights: Array, groups: int) -> Tensor:
        stride, dilation = zip(*((w.stride, w.dilation) for w in self.windows), strict=True)
        kernel = torch.from_numpy(np.array(weights)).to(events.dtype)
        return F.conv2d(self._padded(events), kernel, None, stride, 0, dilation, groups)

    def _padded(self, events: Tensor) -> Tensor:
        vertical, horizontal = self.windows
        return F.pad(events, (horizontal.begin, horizontal.end, vertical.begin, vertical.end))


def fan_out(node: nir.NIRNode, in_shape: tuple[int, ...]) -> FanOut | None:
    """Return the connections of a node; None for a node that has none.

    `in_shape` is the shape of its input without time and batch.
    """
    match node:
        case nir.Conv2d():
            return _weighted(node.weight, int(node.groups), windows(node), in_shape[1:])
        case nir.Affine() | nir.Linear():
            return _weighted(node.weight[:, :, None, None], 1, (POINT, POINT), (1, 1))
        case _ if type(node) in POOLS:
            window = windows(node)
            ones = np.broadcast_to(True, (in_shape[0], 1, *(w.kernel for w in window)))
            return FanOut(ones, in_shape[0], window, (in_shape[1], in_shape[2]), full=True)
    return None


def _weighted(
    weight: Array, groups: int, window: tuple[Window, Window], size: tuple[int, ...]
) -> FanOut:
    full = bool(np.all(weight))
    present = np.broadcast_to(True, weight.shape) if full else weight != 0
    return FanOut(present, groups, window, (size[0], size[1]), full)
