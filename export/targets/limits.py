"""Targets: what a chip can hold, each limit with its source, read from `targets.toml`.

A limit that a target does not name is not checked: it is not published, or we have no source for
it.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError

__all__ = ["Cores", "Limit", "Target", "read_targets", "targets"]

TARGETS = Path(__file__).with_name("targets.toml")
Value = int | str | tuple[int, ...] | tuple[str, ...]

# What each limit is: one number, one word of these, or a list of numbers or words.
NEURONS = ("IF", "LIF", "CubaLIF", "memoryless")
RESETS = ("zero", "value", "subtract")
OPERATIONS = (
    "sum pool",
    "max pool",
    "average pool",
    "flatten",
    "scale",
    "delay",
    "threshold",
    "membrane",
)
PARAMETERS = ("threshold", "tau", "gain", "reset", "leak")
NUMBER, NUMBERS = "a number", "a list of numbers"
LIMITS: dict[str, str | tuple[str, ...]] = {
    "operations": OPERATIONS,
    "summed_currents": NUMBER,
    "weights_in_series": NUMBER,
    "sources": NUMBER,
    "neuron_models": NEURONS,
    "resets": RESETS,
    "same_in_layer": PARAMETERS,
    "square": ("kernel", "pool"),
    "kernel_size": NUMBER,
    "kernel_sizes": NUMBERS,
    "strides": NUMBERS,
    "strided_kernels": NUMBERS,
    "padding": NUMBER,
    "paddings": ("same", "valid"),
    "dilations": NUMBERS,
    "groups": NUMBERS,
    "pools": NUMBERS,
    "channels": NUMBERS,
    "input_size": NUMBER,
    "output_size": NUMBER,
    "features": NUMBER,
    "fan_in": NUMBER,
    "fan_out": NUMBER,
    "fan_out_neurons": NUMBER,
    "dense_inputs": NUMBER,
    "weight_bits": NUMBER,
    "weight_scale": "layer or channel",
    "bias_bits": NUMBER,
    "state_bits": NUMBER,
}
CHIP_LIMITS: dict[str, str | tuple[str, ...]] = dict.fromkeys(
    ("inputs", "neurons", "weights", "hidden_neurons", "output_neurons"), NUMBER
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
PLACEMENTS = ("whole", "split")


@dataclass(frozen=True)
class Limit:
    """A number that may not be exceeded, or the numbers or words that are allowed."""

    name: str
    value: Value
    source: str
    secondary: bool = False  # known from somebody else than the maker of the chip


@dataclass(frozen=True)
class Cores:
    """What the cores have. `whole`: a core takes one layer, whole; `split`: a layer takes as many
    as it needs, none shared.
    """

    placement: str
    # how many of a kind there are, and what one has of each resource
    kinds: tuple[tuple[int, dict[str, int]], ...]
    formula: str
    source: str
    secondary: bool = False

    @property
    def count(self) -> int:
        """All cores of the chip."""
        return sum(count for count, _ in self.kinds)


@dataclass(frozen=True)
class Target:
    """A chip."""

    name: str
    title: str
    note: str
    limits: dict[str, Limit]  # of every layer
    input: dict[str, Limit]  # of a layer that reads the network's input, in place of those above
    chip: dict[str, Limit]  # of the whole network
    cores: Cores | None

    def all_limits(self) -> list[Limit]:
        """Every limit that has a row in a report, the cores aside."""
        return [*self.limits.values(), *self.input.values(), *self.chip.values()]


@cache
def targets() -> dict[str, Target]:
    """The targets that are known, by name."""
    return read_targets(TARGETS)


def read_targets(path: str | Path) -> dict[str, Target]:
    """Raises `ConfigError` that names the target and the key for an entry that cannot be."""
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not a file of targets: {error}") from None
    return {name: _target(name, table) for name, table in tables.items()}


def _target(name: str, table: Any) -> Target:
    where = f"target {name!r}"
    parts = {"title", "note", "limits", "input", "chip", "cores"}
    if not isinstance(table, dict) or not all(_text(table.get(key)) for key in ("title", "note")):
        raise ConfigError(
            f"{where}: needs a title and a note, which say which chip it is and what the check leaves out"
        )
    if unknown := sorted(set(table) - parts):
        raise ConfigError(
            f"{where}: has no part {unknown[0]!r}; valid are {', '.join(sorted(parts))}"
        )
    limits, at_input = (
        _limits(f"{where}, {part}", table.get(part, {}), LIMITS) for part in ("limits", "input")
    )
    chip = _limits(f"{where}, chip", table.get("chip", {}), CHIP_LIMITS)
    cores = _cores(f"{where}, cores", table["cores"]) if "cores" in table else None
    return Target(name, table["title"], table["note"], limits, at_input, chip, cores)


def _limits(where: str, table: Any, known: dict[str, str | tuple[str, ...]]) -> dict[str, Limit]:
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: must be a table of limits")
    for key in table:
        if key not in known:
            raise ConfigError(f"{where}, {key!r}: no such limit; valid are {', '.join(known)}")
    return {
        key: _limit(f"{where}, {key!r}", key, entry, known[key]) for key, entry in table.items()
    }


def _limit(where: str, name: str, entry: Any, kind: str | tuple[str, ...]) -> Limit:
    _sourced(where, entry, {"value"})
    value = tuple(entry["value"]) if isinstance(entry["value"], list) else entry["value"]
    if kind == NUMBER:
        valid = _whole(value)
    elif kind == NUMBERS:
        valid = isinstance(value, tuple) and bool(value) and all(map(_whole, value))
    elif isinstance(kind, tuple):
        valid = isinstance(value, tuple) and bool(value) and all(word in kind for word in value)
    else:
        valid = value in ("layer", "channel")
    if not valid:
        expected = kind if isinstance(kind, str) else f"a list of {', '.join(kind)}"
        raise ConfigError(f"{where}: value = {entry['value']!r}, where {expected} is expected")
    return Limit(name, value, entry["source"], entry.get("secondary", False))


def _cores(where: str, entry: Any) -> Cores:
    _sourced(where, entry, {"placement", "kinds", "formula"})
    if entry["placement"] not in PLACEMENTS or not _text(entry["formula"]):
        raise ConfigError(
            f"{where}: placement must be one of {', '.join(PLACEMENTS)}, and formula a text"
        )
    kinds = []
    for kind in entry["kinds"] if isinstance(entry["kinds"], list) else [None]:
        if (
            not isinstance(kind, dict)
            or "count" not in kind
            or len(kind) < 2
            or not all(_whole(v) and v for v in kind.values())
        ):
            raise ConfigError(
                f"{where}: {kind!r} is no kind of core: it needs a count and resources, numbers above 0"
            )
        if unknown := sorted(set(kind) - {"count", *RESOURCES}):
            raise ConfigError(
                f"{where}: no such resource {unknown[0]!r}; valid are {', '.join(RESOURCES)}"
            )
        kinds.append((kind["count"], {key: value for key, value in kind.items() if key != "count"}))
    if not kinds or (entry["placement"] == "split" and len(kinds) > 1):
        raise ConfigError(f"{where}: needs kinds of cores, and exactly one where layers are split")
    return Cores(
        entry["placement"],
        tuple(kinds),
        entry["formula"],
        entry["source"],
        entry.get("secondary", False),
    )


def _sourced(where: str, entry: Any, keys: set[str]) -> None:
    keys = keys | {"source"}
    if not isinstance(entry, dict) or not keys <= set(entry) <= keys | {"secondary"}:
        raise ConfigError(
            f"{where}: needs exactly {', '.join(sorted(keys))}, and may say secondary"
        )
    if not _text(entry["source"]) or not isinstance(entry.get("secondary", False), bool):
        raise ConfigError(f"{where}: source must be a text, and secondary true or false")


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _whole(value: Any) -> bool:
    return type(value) is int and value >= 0
