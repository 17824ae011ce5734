"""Exact operation counts per layer and image, from a graph's structure and its neurons' spikes.

    spike-fed conv     AC  = sum over input events at (c, y, x) of value * (Cout/g) * fy(y) * fx(x)
    spike-fed linear   AC  = events * outputs
    real-fed, either   MAC = one per weight and output that meet inside the image, at every step;
                       once where the input is static
    bias               one add per output and step (once where static) where it is not zero
    sum                real: one add per element and step for every term after the first;
                       all spikes: one per event of these terms
    pool               real: one add for each input of a window after the first;
                       spikes: one add per event and window it falls into
    scale              real: one multiply per element and step; spikes: one AC per event
    neuron             one update (1 multiply, 1 add, 1 compare) per neuron and step; a constant
                       current (`v_leak`) is a bias. One with a synaptic current (CubaLIF): one
                       multiply and one add more

An event of value v is v additions (`acs`) or one multiplication by v (`event_macs`), as conventions
choose. A weight of zero does no work. The first term of a sum costs nothing because it is where the
others are added to; of spikes it is the largest sum that already exists, or the oldest source. All
counts are int64; an image that may need more operations than a float64 can tell apart is refused.

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels, `V` the largest value of an
event.
"""

import math
from dataclasses import dataclass
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from export.energy.counting.events import Events, reads_channels
from export.energy.counting.fanout import FanOut
from export.energy.counting.spikes import Spikes
from export.energy.structure import PASSING, LayerStructure
from export.nir.nodes import CONVS, NODE_KINDS, POOLS
from zoo.arrays import Array
from zoo.errors import InputError

__all__ = ["COUNTS", "LayerCounts", "count", "dense_macs"]

MAX_VALUE = 2**24  # at one step; a float32 holds every smaller integer
MAX_OPERATIONS = 2**53  # of an image; a float64 holds every smaller integer
COUNTS = (
    "macs",
    "acs",
    "event_macs",
    "adds",
    "bias_adds",
    "multiplies",
    "updates",
    "updates_with_input",
    "spikes",
    "active_acs",
)


@dataclass(frozen=True)
class LayerCounts:
    """One row of the report.

    An `int` is the same for every image; an array is `[B]`, one count an image.
    """

    name: str
    kind: str  # conv, linear, sum, pool, scale, neuron
    input_kind: str  # binary, integer, real
    input_bound: int | None  # the largest value of one input element at one step; None where real
    # How often the layer is computed for an image: at every step, or once for a static input.
    runs: int
    inputs: int  # elements of the input at one step
    outputs: int  # elements of the output at one step; of neurons, how many there are
    # Of layers with weights, and pools of spikes: how often an input is 1, 2, ..., over all steps,
    # [B, V].
    events: Array
    acs: Array
    event_macs: Array
    adds: Array  # of sums, pools and synaptic currents
    spikes: Array  # that leave
    updates_with_input: Array  # of neurons that an event or a current reaches
    # Connections of the elements that are not zero at all steps: the work of an ANN that skips
    # zeros.
    active_acs: Array
    macs: int = 0  # over all runs
    # Of one run: the taps that meet the image and have a weight that is not zero.
    connections: int = 0
    bias_adds: int = 0
    multiplies: int = 0
    updates: int = 0
    # Of one run as an artificial network's: sums, pools, biases, and a comparison for each
    # activation.
    dense_adds: int = 0
    dense_macs_padded: int = 0  # of one run, as a dense layer: with the taps that meet padding
    dense_macs_valid: int = 0  # and without
    kernel: tuple[int, ...] = ()  # of a convolution: height and width
    stride: tuple[int, ...] = ()
    fan_out: int = 0  # outputs that an input channel reaches through one tap of the kernel
    recurrent: bool = False  # part of a recurrent connection
    leaks: bool = False  # neurons whose membrane decays
    modules: tuple[str, ...] = ()  # of the model, where they are not the node's own kind
    read_out: bool = False  # no neuron comes after it
    weight_bytes: int = 0
    state_bytes: int = 0
    activation_bytes: int = 0  # of the output at one step

    @property
    def event_sum(self) -> Array:
        """The sum of the values of all input events, `[B]`."""
        total: Array = self.events @ np.arange(1, self.events.shape[1] + 1)
        return total


def count(layers: list[LayerStructure], spikes: Spikes) -> list[LayerCounts]:
    """Return the rows of the layers in topological order.

    A node fed by a sum has the sum's row, `{node}_sum`, before its own. Raises `InputError` if
    `spikes` cannot be those of these layers, or an image may need more operations than can be
    counted exactly.
    """
    _check_size(layers, spikes.steps)
    spikes.check(layers)
    return _Counter(layers, spikes).rows()


def dense_macs(layer: LayerStructure) -> tuple[int, int]:
    """Return the MACs of one run as a dense layer, with the taps on the padding and without."""
    if layer.fan is None or not layer.weighted:
        return 0, 0
    return layer.outputs * math.prod(layer.fan.present.shape[1:]), layer.fan.dense


def _check_size(layers: list[LayerStructure], steps: int) -> None:
    """Raise `InputError` where an image's counts could be rounded or wrap around."""
    for layer in layers:
        most = max(layer.in_bound or 0, layer.out_bound or 0)
        if most >= MAX_VALUE:
            what = f"{layer.name!r} has values of up to {most} at a step"
            raise InputError(f"{what}: counts are exact below 2^24; pool or add up less")
    operations = steps * sum(map(_most, layers))
    if operations >= MAX_OPERATIONS:
        what = f"an image may need {operations:.1e} operations: counts are exact below 2^53"
        raise InputError(f"{what}; take fewer steps or smaller images")


def _most(layer: LayerStructure) -> int:
    """Return a bound of a layer's counts at one step, as an integer that never wraps around."""
    reads = (layer.in_bound or len(layer.sources)) * layer.inputs
    if layer.fan is None:
        return reads + layer.outputs
    dense: int = layer.outputs * math.prod(layer.fan.present.shape[1:])
    # All inputs would reach this many if there were no border.
    reached: int = layer.inputs * layer.fan.outputs * math.prod(layer.fan.present.shape[2:])
    return reads + layer.outputs + (layer.in_bound or 1) * max(dense, reached)


class _Counter:
    """Counts the operations of one batch."""

    def __init__(self, layers: list[LayerStructure], spikes: Spikes) -> None:
        self.layers, self.spikes, self.steps = layers, spikes, spikes.steps
        self.events = Events(layers, spikes)
        images = next((pixels.shape[1] for pixels in spikes.pixels.values()), 0)
        self.none: Array = np.zeros(images, np.int64)

    def rows(self) -> list[LayerCounts]:
        rows: list[LayerCounts] = []
        for layer in self.layers:
            if len(layer.terms) > 1:
                rows.append(self._sum(layer))
            match layer.node:
                case _ if layer.weighted:
                    rows.append(self._weighted(layer))
                case _ if isinstance(layer.node, POOLS):
                    rows.append(self._pool(layer))
                case nir.Scale():
                    rows.append(self._scale(layer))
                case _ if layer.neuron:
                    rows.append(self._neuron(layer))
                case _:  # `read_structure` refuses any other
                    assert isinstance(layer.node, PASSING), layer.name
        return rows

    def _row(self, layer: LayerStructure, kind: str, name: str = "", **counts: Any) -> LayerCounts:
        """Return a row whose counts are zero unless given."""
        bound = layer.in_bound
        zeros = ("acs", "event_macs", "adds", "spikes", "updates_with_input", "active_acs")
        return LayerCounts(
            name=name or layer.name,
            kind=kind,
            input_kind="real" if bound is None else "binary" if bound == 1 else "integer",
            input_bound=bound,
            runs=1 if layer.static_input and not layer.neuron else self.steps,
            inputs=layer.inputs,
            recurrent=layer.recurrent and kind != "sum",
            **{
                "outputs": layer.outputs,
                "events": np.zeros((len(self.none), 0), np.int64),
                "activation_bytes": _stored_bytes(layer.outputs, layer.out_bound),
                "modules": layer.modules,
                "read_out": layer.read_out,
                **dict.fromkeys(zeros, self.none),
                **counts,
            },
        )

    def _sum(self, layer: LayerStructure) -> LayerCounts:
        terms = layer.terms[1:]
        dense = layer.inputs * len(terms)
        if layer.spikes_in:
            adds = sum((self.events.pixels(term).sum((0, 2, 3)) for term in terms), self.none)
        else:
            adds = self.none + dense * (1 if layer.static_input else self.steps)
        return self._row(
            layer,
            "sum",
            layer.name + "_sum",
            outputs=layer.inputs,
            adds=adds,
            dense_adds=dense,
            activation_bytes=_stored_bytes(layer.inputs, layer.in_bound),
        )

    def _weighted(self, layer: LayerStructure) -> LayerCounts:
        fan, (padded, valid) = layer.fan, dense_macs(layer)
        assert fan is not None
        window = fan.windows if isinstance(layer.node, CONVS) else ()
        runs = 1 if layer.static_input else self.steps
        counts: dict[str, Any] = (
            self._fed_by_spikes(layer, fan) if layer.spikes_in else {"macs": fan.connections * runs}
        )
        return self._row(
            layer,
            "conv" if window else "linear",
            bias_adds=layer.biases * runs,
            dense_adds=layer.biases,
            connections=fan.connections,
            dense_macs_padded=padded,
            dense_macs_valid=valid,
            kernel=tuple(w.kernel for w in window),
            stride=tuple(w.stride for w in window),
            fan_out=fan.outputs,
            weight_bytes=layer.weight_bytes,
            **counts,
        )

    def _fed_by_spikes(self, layer: LayerStructure, fan: FanOut) -> dict[str, Array]:
        sources = layer.sources
        if not reads_channels(layer):
            pixels = self.events.pixels(sources).sum(0)
            active = self.events.active(*sources)
            acs = fan.of_pixels(pixels)
            return {
                "events": pixels.sum((1, 2))[:, None],
                "acs": acs,
                "event_macs": acs,
                "active_acs": fan.of_pixels(active),
            }
        elements = self.events.elements(sources)
        return {
            "events": _by_value(elements),
            "acs": fan.of_elements(elements.sum(0)),
            "event_macs": fan.of_elements((elements > 0).sum(0)),
            "active_acs": fan.of_elements(elements.amax(0).gt(0)),
        }

    def _pool(self, layer: LayerStructure) -> LayerCounts:
        assert layer.fan is not None
        dense = layer.fan.connections - layer.outputs
        counts: dict[str, Any] = {
            "adds": self.none + dense * (1 if layer.static_input else self.steps)
        }
        if layer.spikes_in:
            counts["adds"] = self.events.pixels((layer.name,)).sum((0, 2, 3))
        if layer.in_bound == 1:
            counts["events"] = self.events.pixels(layer.sources).sum((0, 2, 3))[:, None]
        return self._row(layer, "pool", dense_adds=dense, **counts)

    def _scale(self, layer: LayerStructure) -> LayerCounts:
        runs = 1 if layer.static_input else self.steps
        shape = layer.out_shape if len(layer.out_shape) == 3 else (*layer.out_shape, 1, 1)
        factors = layer.node.scale.reshape(shape) != 0
        counts: dict[str, Any] = {"multiplies": int(factors.sum()) * runs}
        if layer.spikes_in:
            elements = self.events.elements(layer.sources) * torch.from_numpy(factors)
            counts = {
                "events": _by_value(elements),
                "acs": elements.sum((0, 2, 3, 4)).numpy(),
                "event_macs": elements.gt(0).sum((0, 2, 3, 4)).numpy(),
                "active_acs": elements.amax(0).gt(0).sum((1, 2, 3)).numpy(),
            }
        return self._row(
            layer,
            "scale",
            bias_adds=layer.biases * runs,
            dense_adds=layer.biases,
            weight_bytes=layer.weight_bytes,
            **counts,
        )

    def _neuron(self, layer: LayerStructure) -> LayerCounts:
        updates = layer.outputs * self.steps
        states = len(NODE_KINDS[type(layer.node)].integrators)
        synapse = updates * (states - 1)
        return self._row(
            layer,
            "neuron",
            updates=updates,
            updates_with_input=self.none + updates if layer.driven else self._reached(layer),
            adds=self.none + synapse,
            multiplies=synapse,
            bias_adds=layer.biases * self.steps,
            dense_adds=layer.biases + layer.outputs,
            spikes=self.spikes.pixels[layer.name].sum((0, 2, 3)),
            leaks=layer.leaks,
            weight_bytes=layer.weight_bytes,
            state_bytes=4 * layer.outputs * states,
        )

    def _reached(self, layer: LayerStructure) -> Array:
        """Return the updates of neurons that an event reaches, `[B]`."""
        reached = self.events.arrivals(layer.sources)
        channels = layer.out_shape[0] // reached.shape[2]  # that one of `reached` stands for
        total: Array = reached.sum((0, 2, 3, 4)).numpy() * channels
        return total


def _stored_bytes(elements: int, bound: int | None) -> int:
    """Return the bytes of values: 4 each where real, else as many bits as their bound needs."""
    return 4 * elements if bound is None else math.ceil(elements * bound.bit_length() / 8)


def _by_value(elements: Tensor) -> Array:
    """Return how many elements of each image have the value 1, 2, ..., V, `[B, V]`.

    The elements are `[T, B, C, H, W]`.
    """
    most = int(elements.max()) if elements.numel() else 0
    flat = elements.transpose(0, 1).flatten(1)
    return np.stack([torch.bincount(image, minlength=most + 1)[1:].numpy() for image in flat])
