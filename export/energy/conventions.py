"""Conventions: the published ways of counting operations, as data.

Between them, the same network on the same device differs eight-fold, so every figure names its own.

A convention turns the counts of a layer into operations that a device has prices for. All of them
start from the same integers, and an estimate from a mean rate is rounded to whole operations.

To add a convention, add an entry to `CONVENTIONS`.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from export.energy.counting.count import LayerCounts
from export.energy.operations import AC, ADD, IDLE_UPDATE, MAC, MULTIPLY, UPDATE, Operation
from zoo.arrays import Array
from zoo.errors import ConfigError

__all__ = ["CONVENTIONS", "EXACT", "QUEUE", "WORD_BYTES", "Convention", "find_convention"]

WORD_BYTES = 4  # of a weight or a membrane, in memory
QUEUE = Operation("access", 8192)  # of the events between two layers

Counted = defaultdict[Operation, Array]  # operation -> how many an image, [B]


@dataclass(frozen=True)
class Convention:
    """One named way of counting, explained in a line."""

    name: str
    explanation: str
    reference: str
    # How the AC of layers that read spikes are counted; see `_accumulates`.
    synapses: Literal["connections", "rate", "fan-out"] = "connections"
    # An event of value v is v AC, or one MAC, or the layer that reads it is a dense one.
    integers: Literal["unit", "event_mac", "mac"] = "unit"
    # How often a layer is computed that depends on a still image alone.
    stem: Literal["once", "every step"] = "once"
    taps: Literal["valid", "padded"] = "valid"  # the taps of a kernel that are a MAC
    # Biases, sums, pools, scales and neurons are counted; or these without neurons; or none.
    others: Literal["all", "sums", "none"] = "all"
    memory: bool = False  # also accesses to memories, and the computation of addresses
    hooks: bool = False  # nothing of the above, but what syops-counter counts; see `_hooks`

    def operations(self, row: LayerCounts, steps: int) -> dict[Operation, Array]:
        """Return how many of each operation each image needs in this layer, int64 `[B]`."""
        counted: Counted = defaultdict(lambda: np.zeros_like(row.acs))
        if self.hooks:
            _hooks(counted, row)
        elif row.kind in ("conv", "linear") or row.acs.any():
            self._synapses(counted, row, steps)
        if self.others in ("all", "sums"):
            counted[ADD] += row.adds + row.bias_adds
            counted[MULTIPLY] += row.multiplies
        if self.others == "all":
            counted[UPDATE] += row.updates_with_input
            counted[IDLE_UPDATE] += row.updates - row.updates_with_input
        if self.memory:
            _memory(counted, row)
        return {operation: n for operation, n in counted.items() if n.any()}

    def _synapses(self, counted: Counted, row: LayerCounts, steps: int) -> None:
        """Count convolutions, matrices, and Scales of spikes."""
        graded = row.input_kind == "integer"
        if row.input_kind == "real" or (graded and self.integers == "mac"):
            runs = steps if self.stem == "every step" or graded else row.runs
            padded = self.taps == "padded"
            counted[MAC] += runs * (row.dense_macs_padded if padded else row.connections)
        elif graded and self.integers == "event_mac":
            counted[MAC] += row.event_macs
        else:
            counted[AC] += self._accumulates(row)

    def _accumulates(self, row: LayerCounts) -> Array:
        """Return the accumulates of a layer that reads spikes, `[B]`.

        They are counted by events and the connections that exist; by the mean rate, as a share of
        the dense layer over all steps; or by events and a fan-out that knows no border (Lemaire et
        al., equations 1.4 and 2.4).
        """
        if self.synapses == "rate" and row.kind != "scale":
            return _share(row.event_sum, row.inputs, row.dense_macs_padded)
        if self.synapses == "fan-out" and row.kind == "conv":
            taps = math.prod(math.ceil(k / s) for k, s in zip(row.kernel, row.stride, strict=True))
            return row.event_sum * (taps * row.fan_out)
        return row.acs


def _share(events: Array, inputs: int, operations: int) -> Array:
    """Return `events / inputs * operations` to the nearest whole number, exactly.

    The product may need more than 64 bits.
    """
    exact = (events.astype(object) * operations + inputs // 2) // inputs
    share: Array = exact.astype(np.int64)
    return share


def _hooks(counted: Counted, row: LayerCounts) -> None:
    """Count what the forward hooks of syops-counter do.

    They see the modules of the model and not the nodes of the graph: BatchNorms are not folded, a
    pool is none of its convolution's, and a max pool is no layer of neurons. There are no sums, no
    AND, and no Scale. The tool computes the last matrix once, on the mean over time. The bias of a
    matrix counts once a call, which has all steps.
    """
    inputs = row.runs * row.inputs
    match row.kind:
        case "conv":
            averages, runs = "SamePool" in row.modules, row.runs
            if averages:
                _hook(counted, row, inputs)
            bias = row.outputs * (row.bias_adds > 0 and "BatchNorm2d" not in row.modules)
            dense = row.dense_macs_padded // (math.prod(row.kernel) if averages else 1)
            _hook(counted, row, runs * (dense + bias), spikes=not averages)
            if "BatchNorm2d" in row.modules:
                counted[MAC] += 2 * runs * row.outputs
        case "linear":
            runs = 1 if row.read_out else row.runs
            total = runs * row.dense_macs_padded + row.outputs * (row.bias_adds > 0)
            _hook(counted, row, total, spikes=runs == row.runs)
        case "pool":
            _hook(counted, row, inputs)
        case "scale" if "BatchNorm2d" in row.modules:
            _hook(counted, row, 2 * inputs)
        case "neuron" if not row.modules:
            counted[AC] += row.updates


def _hook(counted: Counted, row: LayerCounts, operations: int, *, spikes: bool = True) -> None:
    """Count AC for the share of ones where a module reads zeros and ones; else all as MAC."""
    if spikes and row.input_kind == "binary":
        counted[AC] += _share(row.event_sum, row.runs * row.inputs, operations)
    else:
        counted[MAC] += operations


def _memory(counted: Counted, row: LayerCounts) -> None:
    """Count accesses and addresses, by equations 3 to 17 of Lemaire et al.

    These are reads and writes of weights, membranes and events, in memories of the layer's size;
    and addresses: of an event two MAC and an addition for each weight that it meets, of a real
    input those of a dense layer.
    """
    weights = Operation("access", row.weight_bytes)
    membranes = Operation("access", WORD_BYTES * row.outputs)
    taps = row.fan_out * math.prod(row.kernel)
    if row.kind in ("conv", "linear") and row.input_kind == "real":
        dense, conv = row.dense_macs_padded * row.runs, row.kind == "conv"
        inputs = Operation("access", WORD_BYTES * row.inputs)
        counted[inputs] += dense if conv else row.runs * row.inputs
        counted[weights] += dense + row.bias_adds
        counted[membranes] += row.outputs * row.runs
        counted[ADD] += row.runs * (row.inputs + row.outputs + taps) if conv else dense
    elif row.kind in ("conv", "linear"):
        events, reads = row.event_sum, row.event_sum * taps
        counted[QUEUE] += events
        counted[weights] += reads + row.bias_adds
        counted[membranes] += 2 * reads
        counted[MAC] += 2 * events * (row.kind == "conv")
        counted[ADD] += reads
    elif row.kind == "neuron":
        states = row.state_bytes // (WORD_BYTES * row.outputs)  # of one neuron
        counted[Operation("access", row.state_bytes)] += 2 * row.updates * states
        counted[QUEUE] += row.spikes
        counted[ADD] += row.spikes  # the reset
        counted[MAC] += row.updates * row.leaks
    elif row.kind == "sum":
        counted[membranes] += 2 * row.adds


CONVENTIONS = {
    convention.name: convention
    for convention in (
        Convention(
            name="exact",
            explanation=(
                "One accumulate per event and connection that exists (an event of value v is v of "
                "them); what depends on a still image alone is computed once; batch norms are "
                "folded; biases, residual sums and neuron updates are counted, memory is not."
            ),
            reference=(
                "Connections counted as in NeuroBench (Yik et al., Nature Communications 2025), "
                "per layer from the NIR graph"
            ),
        ),
        Convention(
            name="spikformer",
            explanation=(
                "Synapses only: mean firing rate x T x dense operations, padding included; layers "
                "that read the image are MAC at every step."
            ),
            reference=(
                "Zhou et al., Spikformer, ICLR 2023, equation for SOPs; taken over by most spiking"
                " transformers"
            ),
            synapses="rate",
            stem="every step",
            taps="padded",
            others="none",
        ),
        Convention(
            name="sew",
            explanation=(
                "As spikformer, but layers that read the image are MAC once, not at every step."
            ),
            reference=(
                "SEW- and MS-ResNet (Fang et al., NeurIPS 2021; Hu et al., TNNLS 2024) as compared"
                " in Spikformer's tables"
            ),
            synapses="rate",
            taps="padded",
            others="none",
        ),
        Convention(
            name="syops",
            explanation=(
                "What syops-counter says of the model: a layer that reads zeros and ones is mean "
                "rate x dense operations as AC, any other dense MAC; BatchNorms are two a value, "
                "biases one tap more, pools one an input, neurons one AC a step; the stem of a "
                "still image runs once, and so does the last layer, on the mean over time."
            ),
            reference=(
                "syops-counter 0.0.5 (Chen et al., 2022), with the kind of input taken from the "
                "structure and not from a batch"
            ),
            others="none",
            hooks=True,
        ),
        Convention(
            name="lemaire",
            explanation=(
                "Synapses, biases, leaks and resets, every read and write of weights, membranes "
                "and events in memories of the layer's size, and the computation of addresses; "
                "borders are ignored."
            ),
            reference=(
                "Lemaire et al., ICONIP 2022, equations 1 to 17 (2.4 without its factor N_in, an "
                "error that their own code corrects)"
            ),
            synapses="fan-out",
            taps="padded",
            others="sums",
            memory=True,
        ),
    )
}
EXACT = CONVENTIONS["exact"]  # the one that others are compared with


def find_convention(name: str) -> Convention:
    """Return the convention of that name; raises `ConfigError` where there is none."""
    if name not in CONVENTIONS:
        raise ConfigError(f"convention {name!r}: no such one; valid are {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
