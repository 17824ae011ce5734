"""Conventions: the published ways of counting operations, as data. Between them, the same network
on the same profile differs eight-fold, so every figure names its own.

A convention turns the counts of a layer into operations that a profile has prices for. All of them
start from the same integers, and an estimate from a mean rate is rounded to whole operations.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from export.energy.counting.count import LayerCounts
from export.energy.counting.windows import Array
from export.energy.profiles import Operation
from zoo.errors import ConfigError

__all__ = ["CONVENTIONS", "Convention", "find_convention"]

WORD = 4  # bytes of a weight or a membrane, in memory
MAC, AC, ADD, MULTIPLY, UPDATE, IDLE = map(
    Operation, ("mac", "ac", "add", "multiply", "update", "idle_update")
)
QUEUE = Operation("access", 8192)  # of the events between two layers

Counted = defaultdict[Operation, Array]  # -> [B]


@dataclass(frozen=True)
class Convention:
    """One named way of counting, explained in a line."""

    name: str
    explanation: str
    reference: str
    # AC of spike-fed layers; see `_accumulates`
    synapses: Literal["connections", "rate", "fan-out"] = "connections"
    # an event of value v is v AC, or one MAC; or the layer is a dense one
    integers: Literal["unit", "event_mac", "mac"] = "unit"
    stem: Literal["once", "every step"] = "once"  # what depends on a still image alone
    taps: Literal["valid", "padded"] = "valid"  # of MAC
    # biases, sums, pools, scales, neurons; no neurons; none
    others: Literal["all", "sums", "none"] = "all"
    memory: bool = False  # also accesses to memories, and the computation of addresses
    hooks: bool = False  # nothing of the above, but what syops-counter counts; see `_hooks`

    def operations(self, row: LayerCounts, steps: int) -> dict[Operation, Array]:
        """Operation -> how many of them each image needs in this layer, int64 `[B]`."""
        found: Counted = defaultdict(lambda: np.zeros_like(row.acs))
        if self.hooks:
            _hooks(found, row)
        elif row.kind in ("conv", "linear") or row.acs.any():
            self._synapses(found, row, steps)
        if self.others in ("all", "sums"):
            found[ADD] += row.adds + row.bias_adds
            found[MULTIPLY] += row.multiplies
        if self.others == "all":
            found[UPDATE] += row.updates_with_input
            found[IDLE] += row.updates - row.updates_with_input
        if self.memory:
            _memory(found, row)
        return {operation: n for operation, n in found.items() if n.any()}

    def _synapses(self, found: "Counted", row: LayerCounts, steps: int) -> None:
        """Of convolutions, matrices, and Scales of spikes."""
        graded = row.input_kind == "integer"
        if row.input_kind == "real" or (graded and self.integers == "mac"):
            runs = steps if self.stem == "every step" or graded else row.runs
            found[MAC] += runs * (
                row.dense_macs_padded if self.taps == "padded" else row.connections
            )
        elif graded and self.integers == "event_mac":
            found[MAC] += row.event_macs
        else:
            found[AC] += self._accumulates(row)

    def _accumulates(self, row: LayerCounts) -> Array:
        """By events and the connections that exist; by the mean rate, as a share of the dense layer
        over all steps; or by events and a fan-out that knows no border (Lemaire et al., equations
        1.4 and 2.4).
        """
        if self.synapses == "rate" and row.kind != "scale":
            return _share(row.event_sum, row.inputs, row.dense_macs_padded)
        if self.synapses == "fan-out" and row.kind == "conv":
            taps = math.prod(math.ceil(k / s) for k, s in zip(row.kernel, row.stride, strict=True))
            return row.event_sum * (taps * row.fan_out)
        return row.acs


def _share(events: Array, inputs: int, operations: int) -> Array:
    """`events / inputs * operations` to the nearest whole number, exactly: the product may need
    more than 64 bits.
    """
    exact = (events.astype(object) * operations + inputs // 2) // inputs
    found: Array = exact.astype(np.int64)
    return found


def _hooks(found: Counted, row: LayerCounts) -> None:
    """The forward hooks of syops-counter, on the modules of the model and not on the nodes of the
    graph: BatchNorms are not folded, a pool is none of its convolution's, and a max pool is no
    layer of neurons. It knows no sums, no AND, and no Scale.

    It computes the last matrix once, on the mean over time. The bias of a matrix counts once a
    call, which has all steps.
    """
    inputs = row.runs * row.inputs
    match row.kind:
        case "conv":
            averages, runs = "SamePool" in row.modules, row.runs
            if averages:
                _hook(found, row, inputs)
            bias = row.outputs * (row.bias_adds > 0 and "BatchNorm2d" not in row.modules)
            dense = row.dense_macs_padded // (math.prod(row.kernel) if averages else 1)
            _hook(found, row, runs * (dense + bias), spikes=not averages)
            if "BatchNorm2d" in row.modules:
                found[MAC] += 2 * runs * row.outputs
        case "linear":
            runs = 1 if row.read_out else row.runs
            total = runs * row.dense_macs_padded + row.outputs * (row.bias_adds > 0)
            _hook(found, row, total, spikes=runs == row.runs)
        case "pool":
            _hook(found, row, inputs)
        case "scale" if "BatchNorm2d" in row.modules:
            _hook(found, row, 2 * inputs)
        case "neuron" if not row.modules:
            found[AC] += row.updates


def _hook(found: Counted, row: LayerCounts, operations: int, *, spikes: bool = True) -> None:
    """AC for the share of ones, of a module that reads zeros and ones; else MAC, all of them."""
    if spikes and row.input_kind == "binary":
        found[AC] += _share(row.event_sum, row.runs * row.inputs, operations)
    else:
        found[MAC] += operations


def _memory(found: Counted, row: LayerCounts) -> None:
    """Lemaire et al., equations 3 to 17: reads and writes of weights, membranes and events, in
    memories of the layer's size, and addresses: of an event two MAC and an addition for each weight
    that it meets, of a real input those of a dense layer.
    """
    weights, state = Operation("access", row.weight_bytes), Operation("access", WORD * row.outputs)
    events, dense = row.event_sum, row.dense_macs_padded * row.runs
    if row.kind in ("conv", "linear") and row.input_kind == "real":
        conv, once = (
            row.kind == "conv",
            row.inputs + row.outputs + row.fan_out * math.prod(row.kernel),
        )
        found[Operation("access", WORD * row.inputs)] += dense if conv else row.runs * row.inputs
        found[weights] += dense + row.bias_adds
        found[state] += row.outputs * row.runs
        found[ADD] += row.runs * once if conv else dense
    elif row.kind in ("conv", "linear"):
        reads = events * (row.fan_out * math.prod(row.kernel))
        found[QUEUE] += events
        found[weights] += reads + row.bias_adds
        found[state] += 2 * reads
        found[MAC] += 2 * events * (row.kind == "conv")
        found[ADD] += reads
    elif row.kind == "neuron":
        found[Operation("access", row.state_bytes)] += (
            2 * row.updates * (row.state_bytes // (WORD * row.outputs))
        )
        found[QUEUE] += row.spikes
        found[ADD] += row.spikes  # the reset
        found[MAC] += row.updates * row.leaks
    elif row.kind == "sum":
        found[state] += 2 * row.adds


EXACT = Convention(
    "exact",
    "One accumulate per event and connection that exists (an event of value v is v of them); what depends on a still image "
    "alone is computed once; batch norms are folded; biases, residual sums and neuron updates are counted, memory is not.",
    "Connections counted as in NeuroBench (Yik et al., Nature Communications 2025), per layer from the NIR graph",
)
CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        EXACT,
        Convention(
            "spikformer",
            "Synapses only: mean firing rate x T x dense operations, padding included; layers that read the image are MAC at every "
            "step.",
            "Zhou et al., Spikformer, ICLR 2023, equation for SOPs; taken over by most spiking transformers",
            synapses="rate", stem="every step", taps="padded", others="none",
        ),
        Convention(
            "sew",
            "As spikformer, but layers that read the image are MAC once, not at every step.",
            "SEW- and MS-ResNet (Fang et al., NeurIPS 2021; Hu et al., TNNLS 2024) as compared in Spikformer's tables",
            synapses="rate", taps="padded", others="none",
        ),
        Convention(
            "syops",
            "What syops-counter says of the model: a layer that reads zeros and ones is mean rate x dense operations as AC, any "
            "other dense MAC; BatchNorms are two a value, biases one tap more, pools one an input, neurons one AC a step; the stem "
            "of a still image runs once, and so does the last layer, on the mean over time.",
            "syops-counter 0.0.5 (Chen et al., 2022), with the kind of input taken from the structure and not from a batch",
            others="none", hooks=True,
        ),
        Convention(
            "lemaire",
            "Synapses, biases, leaks and resets, every read and write of weights, membranes and events in memories of the layer's "
            "size, and the computation of addresses; borders are ignored.",
            "Lemaire et al., ICONIP 2022, equations 1 to 17 (2.4 without its factor N_in, an error that their own code corrects)",
            synapses="fan-out", taps="padded", others="sums", memory=True,
        ),
    )
}  # fmt: skip


def find_convention(name: str) -> Convention:
    """Raises `ConfigError` for a name that is none."""
    if name not in CONVENTIONS:
        raise ConfigError(f"convention {name!r}: no such one; valid are {', '.join(CONVENTIONS)}")
    return CONVENTIONS[name]
