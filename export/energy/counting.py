"""Exact operation counts per layer and image, from a graph's structure and spike maps.

    spike-fed conv     AC  = sum over input events at (c, y, x) of value * (Cout/g) * fy(y) * fx(x)
    spike-fed linear   AC  = events * outputs
    real-fed, either   MAC = one per weight and output that meet inside the image, at every step; once where the input is static
    bias               one add per output and step (once where static); none where the whole bias is zero
    sum                real: one add per element and step for every term after the first; all spikes: one per event of these terms
    pool               real: one add for each input of a window after the first; spikes: one add per event and window it falls into
    scale              one multiply per element and step
    neuron             one update (1 multiply, 1 add, 1 compare) per neuron and step; a constant current (`v_leak`) is a bias

An event of value v is v additions. The first term of a sum costs nothing because it is where the others are added to; of
spikes it is the largest sum that already exists, or the oldest source. All counts are int64.

Shapes: `B` images, `H` x `W` pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import nir
import numpy as np

from export.energy.spikes import SpikeMaps
from export.energy.structure import Layer
from export.energy.windows import Array, windows

__all__ = ["OPERATIONS", "LayerCounts", "count", "dense_macs", "merge"]

OPERATIONS = ("mac", "ac", "add", "multiply", "update")  # what a profile can put a price on


@dataclass(frozen=True)
class LayerCounts:
    """One row of the report. An `int` is the same for every image; an array is `[B]`, one count an image."""

    name: str
    kind: str  # conv, linear, sum, pool, scale, neuron
    input_kind: str  # binary, integer, real
    input_bound: int | None  # the largest value of one input element at one step; None where real
    outputs: int  # elements of the output; of neurons, how many there are
    acs: Array
    adds: Array  # of sums and pools
    spikes: Array  # that leave
    macs: int = 0
    bias_adds: int = 0
    multiplies: int = 0
    updates: int = 0
    dense_macs_padded: int = 0  # of one step, as a dense layer: with the taps that meet padding
    dense_macs_valid: int = 0  # and without

    def operations(self) -> dict[str, Array]:
        """Operation -> `[B]`."""
        flat = np.ones_like(self.acs)
        counts = (self.macs * flat, self.acs, self.adds + self.bias_adds, self.multiplies * flat, self.updates * flat)
        return dict(zip(OPERATIONS, counts, strict=True))


def count(layers: list[Layer], maps: SpikeMaps) -> list[LayerCounts]:
    """Rows in topological order; a node fed by a sum has the sum's row, `{node}_sum`, before its own. Raises `InputError` if `maps`
    cannot be spikes of these layers."""
    maps.check(layers)
    return _Counter(layers, maps).rows()


def dense_macs(layer: Layer) -> tuple[int, int]:
    """MACs of one step as a dense layer: with the taps that meet padding, and only those that meet the image."""
    match layer.node:
        case nir.Conv2d() as node:
            valid = math.prod(int(w.taps(n).sum()) for w, n in zip(windows(node), layer.in_shape[1:], strict=True))
            return layer.outputs * math.prod(node.weight.shape[1:]), layer.in_shape[0] * _fan_out(node) * valid
        case nir.Affine() | nir.Linear():
            return layer.inputs * layer.outputs, layer.inputs * layer.outputs
    return 0, 0


def merge(batches: Sequence[list[LayerCounts]]) -> list[LayerCounts]:
    """One list of rows for the images of all batches, in order."""
    return [
        replace(rows[0], **{key: np.concatenate([getattr(row, key) for row in rows]) for key in ("acs", "adds", "spikes")})
        for rows in zip(*batches, strict=True)
    ]


def _fan_out(node: nir.Conv2d) -> int:
    """Outputs that one input channel reaches through one tap."""
    fan_out: int = node.weight.shape[0] // node.groups
    return fan_out


class _Counter:
    """`events` says, for every node whose output is spikes, how many leave each pixel over all steps and channels: `[B, H, W]`."""

    def __init__(self, layers: list[Layer], maps: SpikeMaps) -> None:
        self.layers = layers
        self.steps = maps.steps
        self.events: dict[str, Array] = dict(maps.pixels)
        self.sums: dict[tuple[str, ...], Array] = {}
        self.none: Array = np.zeros(len(next(iter(maps.pixels.values()), ())), np.int64)

    def rows(self) -> list[LayerCounts]:
        rows: list[LayerCounts] = []
        for layer in self.layers:
            if len(layer.terms) > 1:
                rows.append(self._sum(layer))
            match layer.node:
                case nir.Conv2d():
                    rows.append(self._conv(layer, layer.node))
                case nir.Affine():
                    rows.append(self._linear(layer, layer.node.bias))
                case nir.Linear():
                    rows.append(self._linear(layer, 0))
                case nir.SumPool2d() | nir.AvgPool2d():
                    rows.append(self._pool(layer, layer.node))
                case nir.Scale():
                    rows.append(self._row(layer, "scale", multiplies=layer.outputs * self._times(layer)))
                case _ if layer.neuron:
                    rows.append(self._neuron(layer))
                case nir.Flatten():
                    if layer.in_bound is not None:
                        events = self._incoming(layer.sources)
                        same = layer.out_shape == layer.in_shape  # a Flatten of one axis gathers a sum
                        self.events[layer.name] = events if same else events.sum((1, 2), keepdims=True)
                case _:
                    assert isinstance(layer.node, nir.Input | nir.Output), layer.name  # `structure` lets no other pass
        return rows

    def _times(self, layer: Layer) -> int:
        """How often the node's operation runs for an image."""
        return 1 if layer.static_input and not layer.neuron else self.steps

    def _incoming(self, sources: tuple[str, ...]) -> Array:
        """Events of a sum of spike trains: `[B, H, W]`."""
        if len(sources) == 1:
            return self.events[sources[0]]
        if sources not in self.sums:
            self.sums[sources] = sum((self.events[s] for s in sources[1:]), self.events[sources[0]])
        return self.sums[sources]

    def _row(self, layer: Layer, kind: str, name: str = "", **counts: Any) -> LayerCounts:
        bound = layer.in_bound
        input_kind = "real" if bound is None else "binary" if bound == 1 else "integer"
        arrays = {key: counts.pop(key, self.none) for key in ("acs", "adds", "spikes")}
        return LayerCounts(name or layer.name, kind, input_kind, bound, counts.pop("outputs", layer.outputs), **arrays, **counts)

    def _sum(self, layer: Layer) -> LayerCounts:
        name, terms = layer.name + "_sum", layer.terms[1:]
        if layer.in_bound is None:
            adds = self.none + layer.inputs * len(terms) * (1 if layer.static_input else self.steps)
        else:
            adds = sum((self._incoming(term).sum((1, 2)) for term in terms), self.none)
        return self._row(layer, "sum", name, outputs=layer.inputs, adds=adds)

    def _conv(self, layer: Layer, node: nir.Conv2d) -> LayerCounts:
        if layer.in_bound is None:
            return self._weighted(layer, "conv", node.bias)
        rows, columns = (w.taps(n) for w, n in zip(windows(node), layer.in_shape[1:], strict=True))
        return self._weighted(layer, "conv", node.bias, acs=_fan_out(node) * (self._incoming(layer.sources) @ columns @ rows))

    def _linear(self, layer: Layer, bias: Any) -> LayerCounts:
        if layer.in_bound is None:
            return self._weighted(layer, "linear", bias)
        return self._weighted(layer, "linear", bias, acs=layer.outputs * self._incoming(layer.sources).sum((1, 2)))

    def _weighted(self, layer: Layer, kind: str, bias: Any, acs: Array | None = None) -> LayerCounts:
        """`acs`: None where the input is real."""
        padded, valid = dense_macs(layer)
        return self._row(
            layer,
            kind,
            acs=self.none if acs is None else acs,
            macs=valid * self._times(layer) if acs is None else 0,
            bias_adds=self._bias_adds(layer, bias),
            dense_macs_padded=padded,
            dense_macs_valid=valid,
        )

    def _bias_adds(self, layer: Layer, bias: Any) -> int:
        return layer.outputs * self._times(layer) if np.any(bias) else 0

    def _pool(self, layer: Layer, node: nir.SumPool2d | nir.AvgPool2d) -> LayerCounts:
        rows, columns = (w.connections(n) for w, n in zip(windows(node), layer.in_shape[1:], strict=True))
        if layer.in_bound is None:
            reads = layer.in_shape[0] * int(rows.sum()) * int(columns.sum())
            return self._row(layer, "pool", adds=self.none + (reads - layer.outputs) * self._times(layer))
        self.events[layer.name] = rows @ self._incoming(layer.sources) @ columns.T
        return self._row(layer, "pool", adds=self.events[layer.name].sum((1, 2)))

    def _neuron(self, layer: Layer) -> LayerCounts:
        updates = layer.outputs * self.steps
        leak = getattr(layer.node, "v_leak", 0)
        spikes = self.events[layer.name].sum((1, 2))
        return self._row(layer, "neuron", updates=updates, bias_adds=self._bias_adds(layer, leak), spikes=spikes)
