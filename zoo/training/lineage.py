"""The trained weights that a run starts from, and what these cost: `init` in `recipe.json`."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import zoo
from zoo import hub
from zoo.danet import DANet
from zoo.errors import ConfigError, ZooError
from zoo.files import read_json_if_whole
from zoo.integrity import digest
from zoo.layout import weight_files
from zoo.records import at_least, read_record
from zoo.training import checkpoint
from zoo.training.config import Recipe
from zoo.warmstart import warm_start

__all__ = ["Ancestor", "Init", "check_bits", "cost", "freeze", "start"]

log = logging.getLogger(__name__)

# Keys of metrics.json, and the keys of metrics.jsonl whose sums they are.
COSTS = {"training_hours": "seconds", "core_hours": "core_seconds"}
Hours = Annotated[float, at_least(0)]


@dataclass(frozen=True)
class Ancestor:
    """A trained network that another one started from, and what its own training cost."""

    name: str
    weights_sha256: str
    training_hours: Hours | None = None  # on the clock; None where nobody recorded it
    core_hours: Hours | None = None  # of processor time, likewise


@dataclass(frozen=True)
class Init:
    """The record of how a run started from the weights of another network."""

    name: str  # of the network that the weights belong to
    source: str  # of the weights: a name, a folder, or hf:org/repo
    weights_sha256: str
    tensors: int  # in the state of the network to train
    taken: int  # of them
    new: dict[str, str]  # as in `zoo.warmstart.WarmStart`, like the next two
    adapted: dict[str, str]
    grown: tuple[str, ...]
    # the network of the weights, the network which that one started from, and so on
    ancestry: tuple[Ancestor, ...]

    @classmethod
    def read(cls, path: Path) -> "Init | None":
        """Return the record in a `recipe.json`, None if it holds none or is damaged.

        Raises `ConfigError` for a record that no run wrote.
        """
        values = read_json_if_whole(path).get("init")
        return None if values is None else read_record(cls, values, f"{path}, init")

    def to_dict(self) -> dict[str, Any]:
        """Return the record as `recipe.json` holds it."""
        return asdict(self)


def start(model: DANet, source: str, run: Path) -> Init:
    """Start `model` from the trained weights that `source` names, and return the record of it.

    A run in the folder `run` that has a checkpoint goes on with what it recorded, even if `source`
    cannot be read any more. Raises `ConfigError` for other weights than those recorded.
    """
    recorded = Init.read(run / "recipe.json")
    if recorded:
        _check_same_weights(recorded, source, run)
        if checkpoint.exists(run):
            return recorded
    if Path(source).is_file():
        raise ConfigError(
            f"--init {source} is a file: "
            "valid are a name of `zoo list`, a model folder, and hf:ORG/NAME"
        )
    origin = zoo.load(source)
    warm = warm_start(model, origin)
    name, sha256 = origin.known_origin.name, digest(origin.known_origin.weights)
    log.info("initialised from %s: %s", name, warm)
    return Init(
        name=name,
        source=source,
        weights_sha256=sha256,
        tensors=warm.tensors,
        taken=len(warm.taken),
        new=warm.new,
        adapted=warm.adapted,
        grown=warm.grown,
        ancestry=_ancestry(name, sha256, source),
    )


def _ancestry(name: str, sha256: str, source: str) -> tuple[Ancestor, ...]:
    """Return the network that `source` names with what it cost, and its own ancestors."""
    recipe, values = hub.find_record(source, "recipe.json"), _metrics(source)
    costs = {key: values[key] for key in COSTS if key in values}
    where = f"{source}, metrics.json"
    ancestor = read_record(Ancestor, costs, where, name=name, weights_sha256=sha256)
    init = Init.read(recipe) if recipe else None
    return ancestor, *(init.ancestry if init else ())


def _metrics(source: str) -> dict[str, Any]:
    """Return the metrics beside the weights that `source` names, empty where there are none."""
    path = hub.find_record(source, "metrics.json")
    return read_json_if_whole(path) if path else {}


def _check_same_weights(recorded: Init, source: str, run: Path) -> None:
    """Raise `ConfigError` if `source` names other weights than the run started from."""
    may_be_gone = checkpoint.exists(run) and recorded.source == source
    sha256 = _weights_sha256(source, may_be_gone=may_be_gone)
    if sha256 not in (None, recorded.weights_sha256):
        raise ConfigError(
            f"--init {source} has weights of sha256 {sha256}, but the run in {run} started from "
            f"{recorded.weights_sha256}: put those back, or name a new folder with --run"
        )


def check_bits(record: Init, recipe: Recipe) -> None:
    """Raise `ConfigError` where a run that makes a network smaller would lose its few bits.

    Any other run that starts from weights of few bits says that its own have more.
    """
    bits = _metrics(record.source).get("weight_bits", 0)
    if bits in (0, recipe.weight_bits):
        return
    if recipe.prune or recipe.synops_weight or recipe.spikes_weight:
        raise ConfigError(
            f"{record.name} has weights of {bits} bits, which this run would lose: "
            f"set weight_bits={bits} too, or start from other weights"
        )
    message = "the weights of %s have few bits, which this run does not keep: weight_bits=%d does"
    log.info(message, record.name, bits)


def freeze(model: DANet, parts: Sequence[str], init: Init | None) -> None:
    """Freeze `parts` of `model`, which started as `init` records.

    Raises `ConfigError` for parts without trained weights, which would stay random, or the
    identity.
    """
    if parts and init is None:
        raise ConfigError(
            f"freeze = {list(parts)}: random weights would stay so; name trained ones with --init"
        )
    model.freeze(*parts)
    untrained = init.new | dict.fromkeys(init.grown, "added as the identity") if init else {}
    for part in parts:
        for path, reason in untrained.items():
            if f"{path}.".startswith(f"{part}.") or f"{part}.".startswith(f"{path}."):
                raise ConfigError(
                    f"{part} cannot be frozen: {path} is new ({reason}); "
                    "freeze the parts without it"
                )


def cost(log: Sequence[dict[str, Any]], init: Init | None) -> dict[str, Any]:
    """Return the entries of `metrics.json` on what a run cost, by the lines of `metrics.jsonl`.

    `training_hours` are on the clock, `core_hours` of processor time, but for evaluations and
    processes that decode images; `..._total` are with those of all ancestors. An entry is left out
    where a line or an ancestor does not tell it.
    """
    entries: dict[str, Any] = {"initialised_from": init.name} if init else {}
    for key, unit in COSTS.items():
        if not all(unit in line for line in log):
            continue
        entries[key] = round(sum(line[unit] for line in log) / 3600, 2)
        before = [getattr(ancestor, key) for ancestor in init.ancestry] if init else []
        if init and None not in before:
            entries[f"{key}_total"] = round(entries[key] + sum(before), 2)
    return entries


def _weights_sha256(source: str, *, may_be_gone: bool) -> str | None:
    """Return the digest of the weights that `source` names.

    If they are gone and may be, warn and return None.
    """
    try:
        return digest(tuple(weight_files(hub.resolve(source))))
    except (ZooError, OSError) as error:
        if not may_be_gone:
            raise
        message = "--init %s cannot be read any more (%s): the run goes on from its checkpoint"
        log.warning(message, source, error)
        return None
