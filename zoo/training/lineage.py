"""Which trained weights a run starts from, and what these cost: `init` in `recipe.json`."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import zoo
from zoo import hub
from zoo.danet import DANet
from zoo.errors import ConfigError, ZooError
from zoo.integrity import digest
from zoo.layout import weight_files
from zoo.training import checkpoint
from zoo.warmstart import warm_start

__all__ = ["Ancestor", "Init", "cost", "freeze", "start"]

log = logging.getLogger(__name__)

HOURS = {"training_hours": "seconds", "core_hours": "core_seconds"}  # metrics.json: metrics.jsonl


@dataclass(frozen=True)
class Ancestor:
    """A trained network that another one started from, and what its own training cost."""

    name: str
    weights_sha256: str
    training_hours: float | None = None  # on the clock; None where nobody recorded it
    core_hours: float | None = None  # of processor time, likewise

    def __post_init__(self) -> None:
        for hours in (self.training_hours, self.core_hours):
            number = isinstance(hours, int | float) and not isinstance(hours, bool)
            if hours is not None and not (number and 0 <= hours < math.inf):
                raise TypeError(f"{hours!r} is no number of hours")


@dataclass(frozen=True)
class Init:
    """How a run started from the weights of another network."""

    name: str  # of the network that the weights are of
    source: str  # where they were found: a name, a folder, or hf:org/repo
    weights_sha256: str
    tensors: int  # in the state of the network to train
    taken: int  # of them
    new: dict[str, str]  # as in `zoo.warmstart.WarmStart`, like the next two
    adapted: dict[str, str]
    grown: tuple[str, ...]
    # the network of the weights, the one which that started from, ...
    ancestry: tuple[Ancestor, ...]

    @classmethod
    def read(cls, path: Path) -> "Init | None":
        """Read it from a `recipe.json`; None if there is none. Raises `ConfigError` for a damaged
        one.
        """
        values = _read(path).get("init")
        if values is None:
            return None
        try:
            ancestry = tuple(Ancestor(**ancestor) for ancestor in values["ancestry"])
            lists = {"grown": tuple(values["grown"]), "ancestry": ancestry}
            return cls(**{**values, **lists, "new": dict(values["new"])})
        except (TypeError, KeyError, ValueError) as error:
            raise ConfigError(
                f"{path}: init is not what `zoo train --init` writes there ({error})"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def start(model: DANet, given: str, run: Path) -> Init:
    """Start `model` from the trained weights that `given` names; returns what `run` records of it.

    A run in the folder `run` that has a checkpoint goes on with what it recorded, even if `given`
    cannot be read any more. Raises `ConfigError` for other weights than those recorded.
    """
    recorded = Init.read(run / "recipe.json")
    if recorded:
        gone_is_fine = checkpoint.exists(run) and recorded.source == given
        found = _weights_sha256(given, gone_is_fine=gone_is_fine)
        if found not in (None, recorded.weights_sha256):
            raise ConfigError(
                f"--init {given} has weights of sha256 {found}, but the run in {run} started from "
                f"{recorded.weights_sha256}: put those back, or name a new folder with --run"
            )
        if checkpoint.exists(run):
            return recorded
    if Path(given).is_file():
        raise ConfigError(
            f"--init {given} is a file: valid are a name of `zoo list`, a model folder, and hf:ORG/NAME"
        )
    source = zoo.load(given)
    started = warm_start(model, source)
    name, sha256 = source.known_origin.name, digest(source.known_origin.weights)
    log.info("initialised from %s: %s", name, started)
    recipe, metrics = (hub.find_record(given, file) for file in ("recipe.json", "metrics.json"))
    before = Init.read(recipe) if recipe else None
    costs = _read(metrics) if metrics else {}
    try:
        itself = Ancestor(name, sha256, *(costs.get(key) for key in HOURS))
    except TypeError as error:
        raise ConfigError(f"{metrics}: {' or '.join(HOURS)}: {error}") from None
    return Init(
        name=name,
        source=given,
        weights_sha256=sha256,
        tensors=started.tensors,
        taken=len(started.taken),
        new=started.new,
        adapted=started.adapted,
        grown=started.grown,
        ancestry=(itself, *(before.ancestry if before else ())),
    )


def freeze(model: DANet, parts: Sequence[str], init: Init | None) -> None:
    """Freeze `parts` of `model`, which `init` says how it started.

    Raises `ConfigError` for parts without trained weights: those would stay random, or the
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
                    f"{part} cannot be frozen: {path} is new ({reason}); freeze the parts without it"
                )


def cost(log: Sequence[dict[str, Any]], init: Init | None) -> dict[str, Any]:
    """The entries of `metrics.json` on what a run cost, by the lines of its `metrics.jsonl`.

    `training_hours` are on the clock, `core_hours` of processor time, but for evaluations and
    processes that decode images; `..._total` are with those of all ancestors. What is not known of
    a line or an ancestor is left out.
    """
    entries: dict[str, Any] = {"initialised_from": init.name} if init else {}
    for key, unit in HOURS.items():
        if not all(unit in line for line in log):
            continue
        entries[key] = round(sum(line[unit] for line in log) / 3600, 2)
        before = [getattr(ancestor, key) for ancestor in init.ancestry] if init else []
        if init and None not in before:
            entries[f"{key}_total"] = round(entries[key] + sum(before), 2)
    return entries


def _weights_sha256(given: str, *, gone_is_fine: bool) -> str | None:
    """The digest of the weights that `given` names; None, and a warning, if they are gone."""
    try:
        return digest(tuple(weight_files(hub.resolve(given))))
    except (ZooError, OSError) as error:
        if not gone_is_fine:
            raise
        log.warning(
            "--init %s cannot be read any more (%s): the run goes on from its checkpoint",
            given,
            error,
        )
        return None


def _read(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing, if it is not there or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
