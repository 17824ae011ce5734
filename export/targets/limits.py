"""Targets: what a chip can hold, each limit with its source (`targets.toml`).

A limit that a target does not name is not checked: it is not published, or we have no source for
it.

To add a chip, add a table to `targets.toml`. A limit of a new kind is one entry of `LIMITS` here,
and its rule one entry of `RULES` in `export.targets.rules`.
"""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from zoo.files import read_toml
from zoo.records import (
    NOT_EMPTY,
    Keys,
    Line,
    RecordError,
    at_least,
    read_record,
    read_value,
    shown,
)

__all__ = [
    "CHIP_LIMITS",
    "LIMITS",
    "CoreKind",
    "Cores",
    "Limit",
    "Target",
    "read_targets",
    "targets",
]

TARGETS = Path(__file__).with_name("targets.toml")

NeuronWord = Literal["IF", "LIF", "CubaLIF", "memoryless"]
ResetWord = Literal["zero", "value", "subtract"]
OperationWord = Literal[
    "sum pool", "max pool", "average pool", "flatten", "scale", "delay", "threshold", "membrane"
]
ParameterWord = Literal["threshold", "tau", "gain", "reset", "leak"]

# What the value of each limit is: one number that may not be exceeded, or the numbers or words
# that are allowed.
Number = Annotated[int, at_least(0)]
Numbers = Annotated[tuple[Number, ...], NOT_EMPTY]
LIMITS: dict[str, Any] = {
    "operations": Annotated[tuple[OperationWord, ...], NOT_EMPTY],
    "summed_currents": Number,
    "weights_in_series": Number,
    "sources": Number,
    "neuron_models": Annotated[tuple[NeuronWord, ...], NOT_EMPTY],
    "resets": Annotated[tuple[ResetWord, ...], NOT_EMPTY],
    "same_in_layer": Annotated[tuple[ParameterWord, ...], NOT_EMPTY],
    "square": Annotated[tuple[Literal["kernel", "pool"], ...], NOT_EMPTY],
    "kernel_size": Number,
    "kernel_sizes": Numbers,
    "strides": Numbers,
    "strided_kernels": Numbers,
    "padding": Number,
    "paddings": Annotated[tuple[Literal["same", "valid"], ...], NOT_EMPTY],
    "dilations": Numbers,
    "groups": Numbers,
    "pools": Numbers,
    "channels": Numbers,
    "input_size": Number,
    "output_size": Number,
    "features": Number,
    "fan_in": Number,
    "fan_out": Number,
    "fan_out_neurons": Number,
    "dense_inputs": Number,
    "weight_bits": Number,
    "weight_scale": Literal["layer", "channel"],
    "bias_bits": Number,
    "state_bits": Number,
}
# Limits of the whole network.
CHIP_LIMITS: dict[str, Any] = dict.fromkeys(
    ("inputs", "neurons", "weights", "hidden_neurons", "output_neurons"), Number
)
RESOURCES = (
    "kernel_words",
    "neuron_words",
    "biases",
    "neurons",
    "synapse_bits",
    "out_axons",
    "weight_bytes",
)
AboveZero = Annotated[int, at_least(1)]


@dataclass(frozen=True)
class Limit:
    """A number that may not be exceeded, or the numbers or words that are allowed."""

    name: str
    value: Any  # as `LIMITS` or `CHIP_LIMITS` has it for the name
    source: Line
    secondary: bool = False  # known from somebody else than the maker of the chip

    def __post_init__(self) -> None:
        kind = (LIMITS | CHIP_LIMITS)[self.name]
        # The record is frozen, and just being made.
        object.__setattr__(self, "value", read_value(kind, self.value, "value"))


LayerLimits = Annotated[dict[str, Limit], Keys(tuple(LIMITS))]
ChipLimits = Annotated[dict[str, Limit], Keys(tuple(CHIP_LIMITS))]
Resources = Annotated[dict[str, AboveZero], Keys(RESOURCES, beside=True)]


@dataclass(frozen=True)
class CoreKind:
    """How many cores of a kind there are, and how much of each resource one of them has."""

    count: AboveZero
    resources: Resources

    def __post_init__(self) -> None:
        if not self.resources:
            raise RecordError(f"a kind of core needs a resource; valid are {', '.join(RESOURCES)}")


@dataclass(frozen=True)
class Cores:
    """The cores of a chip.

    Where the placement is `whole`, a core takes one layer, whole; where it is `split`, a layer
    takes as many cores as it needs, none of them shared.
    """

    placement: Literal["whole", "split"]
    kinds: Annotated[tuple[CoreKind, ...], NOT_EMPTY]
    formula: Line
    source: Line
    secondary: bool = False

    def __post_init__(self) -> None:
        if self.placement == "split" and len(self.kinds) > 1:
            raise RecordError("cores between which layers are split are of one kind", ("kinds",))

    @property
    def count(self) -> int:
        """The number of all cores of the chip."""
        return sum(kind.count for kind in self.kinds)


@dataclass(frozen=True)
class Target:
    """A chip: which it is, what the check leaves out, and what it can hold."""

    name: Line
    title: Line
    note: Line
    limits: LayerLimits = field(default_factory=dict)  # of every layer
    # Of a layer that reads the network's input, in place of those above.
    input: LayerLimits = field(default_factory=dict)
    chip: ChipLimits = field(default_factory=dict)  # of the whole network
    cores: Cores | None = None

    def all_limits(self) -> list[Limit]:
        """Return every limit that has a row in a report, the cores aside."""
        return [*self.limits.values(), *self.input.values(), *self.chip.values()]


@cache
def targets() -> dict[str, Target]:
    """Return the targets that this package ships, by name."""
    return read_targets(TARGETS)


def read_targets(path: str | Path) -> dict[str, Target]:
    """Return the targets of a file, by name.

    Raises `ConfigError` that names the target and the key for an entry that cannot be.
    """
    tables = read_toml(Path(path), "a file of targets")
    return {
        name: read_record(Target, table, f"target {shown(name)}", name=name)
        for name, table in tables.items()
    }
