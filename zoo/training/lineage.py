"""Which trained weights a run starts from, and what these cost: the record `init` of `recipe.json`.

    {"name", "source", "weights_sha256", "tensors", "taken", "new", "adapted", "grown", "ancestry"}

`ancestry` lists the network that the run starts from, the one which that started from, and so on:
`{"name", "weights_sha256", "training_hours"}` of each, with hours of null where nobody recorded them.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zoo
from zoo import hub
from zoo.danet import DANet
from zoo.errors import ConfigError, ZooError
from zoo.integrity import digest
from zoo.training import checkpoint
from zoo.warmstart import warm_start
from zoo.weights import weight_files

__all__ = ["freeze", "hours", "start"]

log = logging.getLogger(__name__)

Record = dict[str, Any]


def start(model: DANet, given: str, run: Path) -> Record:
    """Start `model` from the trained weights that `given` names; returns the record of them.

    A run in the folder `run` that has a checkpoint goes on with what it recorded, even if `given`
    cannot be read any more. Raises `ConfigError` for other weights than those recorded.
    """
    recorded = _read(run / "recipe.json").get("init")
    if isinstance(recorded, dict):
        found = _weights_sha256(given, needed=recorded.get("source") != given or not checkpoint.exists(run))
        if found not in (None, recorded.get("weights_sha256")):
            raise ConfigError(
                f"--init {given} has weights of sha256 {found}, but the run in {run} started from "
                f"{recorded.get('weights_sha256')}: put those back, or name a new folder with --run"
            )
        if checkpoint.exists(run):
            return recorded
    source = zoo.load(given)
    started = warm_start(model, source)
    assert source.origin is not None
    name, sha256 = source.origin.name, digest(source.origin.weights)
    log.info("initialised from %s: %s", name, started)
    trained_in = _read(hub.find_record(given, "metrics.json")).get("training_hours")
    before = _read(hub.find_record(given, "recipe.json")).get("init") or {}
    return {
        "name": name,
        "source": given,
        "weights_sha256": sha256,
        "tensors": started.tensors,
        "taken": len(started.taken),
        "new": started.new,
        "adapted": started.adapted,
        "grown": list(started.grown),
        "ancestry": [{"name": name, "weights_sha256": sha256, "training_hours": trained_in}, *before.get("ancestry", [])],
    }


def freeze(model: DANet, parts: Sequence[str], init: Record | None) -> None:
    """Freeze `parts` of `model`, which `init` says how it started.

    Raises `ConfigError` for parts without trained weights: those would stay random, or the identity.
    """
    if parts and init is None:
        raise ConfigError(f"freeze = {list(parts)}: random weights would stay so; name trained ones with --init")
    model.freeze(*parts)
    untrained = {**init["new"], **dict.fromkeys(init["grown"], "added as the identity")} if init else {}
    for part in parts:
        for path, reason in untrained.items():
            if f"{path}.".startswith(f"{part}.") or f"{part}.".startswith(f"{path}."):
                raise ConfigError(f"{part} cannot be frozen: {path} is new ({reason}); freeze the parts without it")


def hours(seconds: float, init: Record | None) -> dict[str, float]:
    """The training hours of a run of `seconds`, and in all with those of its ancestors, if known."""
    own = round(seconds / 3600, 2)
    if not init:
        return {"training_hours": own}
    before = [ancestor["training_hours"] for ancestor in init["ancestry"]]
    total = {} if None in before else {"training_hours_total": round(own + sum(before), 2)}
    return {"training_hours": own, **total}


def _weights_sha256(given: str, *, needed: bool) -> str | None:
    """The digest of the weights that `given` names; None, and a warning, if they are gone and not needed."""
    try:
        return digest(tuple(weight_files(hub.find(given))))
    except (ZooError, OSError) as error:
        if needed:
            raise
        log.warning("%s; the run goes on from its checkpoint", error)
        return None


def _read(path: Path | None) -> dict[str, Any]:
    """What a JSON file holds; nothing, if it is not there or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
