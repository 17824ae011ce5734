"""Conventions: the published ways of counting operations, as data. Between them, the same network on the same profile differs
eight-fold, so every figure names its own.

A convention turns the counts of a layer into operations that a profile has prices for. All of them start from the same integers,
and an estimate from a mean rate is rounded to whole operations.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import numpy as np

from export.energy.counting import LayerCounts
from export.energy.profiles import Operation
from export.energy.windows import Array
from zoo.errors import ConfigError

__all__ = ["CONVENTIONS", "Convention", "find_convention"]

WORD = 4  # bytes of a weight or a membrane, in memory
MAC, AC, ADD, MULTIPLY, UPDATE, IDLE = map(Operation, ("mac", "ac", "add", "multiply", "update", "idle_update"))
QUEUE = Operation("access", 8192)  # of the events between two layers

Counted = defaultdict[Operation, Array]  # -> [B]


@dataclass(frozen=True)
class Convention:
    """One named way of counting, explained in a line."""

    name: str
    explanation: str
    reference: str
    synapses: Literal["connections", "rate", "fan-out"] = "connections"  # AC of spike-fed layers; see `_accumulates`
    integers: Literal["unit", "event_mac", "mac"] = "unit"  # an event of value v is v AC, or one MAC; or the layer is a dense one
    stem: Literal["once", "every step"] = "once"  # what depends on a still image alone
    taps: Literal["valid", "padded"] = "valid"  # of MAC
    others: Literal["all", "sums", "accumulates", "none"] = "all"  # biases, sums, pools, scales, neurons; no neurons; as AC; none
    memory: bool = False  # also accesses to memories, and the computation of addresses

    def operations(self, row: LayerCounts, steps: int) -> dict[Operation, Array]:
        """Operation -> how many of them each image needs in this layer, int64 `[B]`."""
        found: Counted = defaultdict(lambda: np.zeros_like(row.acs))
        if row.kind in ("conv", "linear") or row.acs.any():
            self._synapses(found, row, steps)
        if self.others in ("all", "sums"):
            found[ADD] += row.adds + row.bias_adds
            found[MULTIPLY] += row.multiplies
        if self.others == "all":
            found[UPDATE] += row.updates_with_input
            found[IDLE] += row.updates - row.updates_with_input
        elif self.others == "accumulates":
            found[AC] += row.updates + row.adds * (row.kind == "pool")
        if self.memory:
            _memory(found, row)
        return {operation: n for operation, n in found.items() if n.any()}

    def _synapses(self, found: "Counted", row: LayerCounts, steps: int) -> None:
        """Of convolutions, matrices, and Scales of spikes."""
        graded = row.input_kind == "integer"
        if row.input_kind == "real" or (graded and self.integers == "mac"):
            runs = steps if self.stem == "every step" or graded else row.runs
            found[MAC] += runs * (self._dense(row) if self.taps == "padded" else row.connections)
        elif graded and self.integers == "event_mac":
            found[MAC] += row.event_macs
        else:
            found[AC] += self._accumulates(row)

    def _accumulates(self, row: LayerCounts) -> Array:
        """By events and the connections that exist; by the mean rate, as a share of the dense layer over all steps; or by events
        and a fan-out that knows no border (Lemaire et al., equations 1.4 and 2.4)."""
        if self.synapses == "rate" and row.kind != "scale":
            return _nearest(row.event_sum * self._dense(row), row.inputs)
        if self.synapses == "fan-out" and row.kind == "conv":
            taps = math.prod(math.ceil(k / s) for k, s in zip(row.kernel, row.stride, strict=True))
            return row.event_sum * (taps * row.fan_out)
        return row.acs

    def _dense(self, row: LayerCounts) -> int:
        biases = row.bias_adds // row.runs if self.others == "accumulates" else 0  # which counts them as one more tap
        return row.dense_macs_padded + biases


def _nearest(numerator: Array, denominator: int) -> Array:
    found: Array = (numerator + denominator // 2) // denominator
    return found


def _memory(found: Counted, row: LayerCounts) -> None:
    """Lemaire et al., equations 3 to 17: reads and writes of weights, membranes and events, in memories of the layer's size, and
    addresses: of an event two MAC and an addition for each weight that it meets, of a real input those of a dense layer."""
    weights, state = Operation("access", row.weight_bytes), Operation("access", WORD * row.outputs)
    events, dense = row.event_sum, row.dense_macs_padded * row.runs
    if row.kind in ("conv", "linear") and row.input_kind == "real":
        found[Operation("access", WORD * row.inputs)] += dense
        found[weights] += dense + row.bias_adds
        found[state] += row.outputs * row.runs
        found[ADD] += row.runs * (row.inputs + row.outputs + row.fan_out * math.prod(row.kernel) if row.kind == "conv" else dense)
    elif row.kind in ("conv", "linear"):
        reads = events * (row.fan_out * math.prod(row.kernel))
        found[QUEUE] += events
        found[weights] += reads + row.bias_adds
        found[state] += 2 * reads
        found[MAC] += 2 * events * (row.kind == "conv")
        found[ADD] += reads
    elif row.kind == "neuron":
        found[state] += 2 * row.updates
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
            "As spikformer, but a layer that reads integers (sums or averages of spikes) is dense MAC at every step; biases count "
            "as one more tap, and every neuron and pooled event as one accumulate.",
            "syops-counter 0.0.5 (Chen et al., 2022), with the kind of input taken from the structure and not from a batch",
            synapses="rate", integers="mac", stem="every step", taps="padded", others="accumulates",
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
