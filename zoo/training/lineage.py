"""Which trained weights a run starts from, and what these cost: the record `init` of `recipe.json`.

    {"name", "source", "weights_sha256", "tensors", "taken", "new", "adapted", "grown", "ancestry"}

`ancestry` lists the network that the run starts from, the one which that started from, and so on:
`{"name", "weights_sha256", "training_hours"}` of each, with hours of null where nobody recorded them.
"""

import json
import logging
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

__all__ = ["hours", "start"]

log = logging.getLogger(__name__)

Record = dict[str, Any]


def start(model: DANet, given: str, run: Path) -> Record:
    """Start `model` from the trained weights that `given` names; returns the record of them.

    A run in the folder `run` that has a checkpoint needs no more than what it recorded: `given` may
    be gone. Raises `ConfigError` if it is there with other weights than those recorded.
    """
    recorded = _read(run / "recipe.json").get("init")
    if recorded and checkpoint.exists(run) and recorded.get("source") == given:
        try:
            found = digest(tuple(weight_files(hub.find(given))))
        except ZooError as error:
            log.warning("%s; the run goes on from its checkpoint", error)
            return dict(recorded)
        _check_unchanged(given, found, recorded, run)
        return dict(recorded)
    source = zoo.load(given)
    assert source.origin is not None
    sha256 = digest(source.origin.weights)
    if recorded:
        _check_unchanged(given, sha256, recorded, run)
    started = warm_start(model, source)
    log.info("initialised from %s: %s", source.origin.name, started)
    folder = source.origin.weights[0].parent
    itself = {
        "name": source.origin.name,
        "weights_sha256": sha256,
        "training_hours": _read(folder / "metrics.json").get("training_hours"),
    }
    before = _read(folder / "recipe.json").get("init") or {}
    return {
        "name": source.origin.name,
        "source": given,
        "weights_sha256": sha256,
        "tensors": started.tensors,
        "taken": len(started.taken),
        "new": started.new,
        "adapted": started.adapted,
        "grown": list(started.grown),
        "ancestry": [itself, *before.get("ancestry", [])],
    }


def hours(seconds: float, init: Record | None) -> dict[str, float]:
    """The training hours of a run of `seconds`, and in all with those of its ancestors, if known."""
    own = round(seconds / 3600, 2)
    if not init:
        return {"training_hours": own}
    before = [ancestor["training_hours"] for ancestor in init["ancestry"]]
    total = {} if None in before else {"training_hours_total": round(own + sum(before), 2)}
    return {"training_hours": own, **total}


def _check_unchanged(given: str, sha256: str, recorded: Record, run: Path) -> None:
    if sha256 != recorded.get("weights_sha256"):
        raise ConfigError(
            f"--init {given} has weights of sha256 {sha256[:12]}, but the run in {run} started from "
            f"{str(recorded.get('weights_sha256'))[:12]}: put those back, or name a new folder with --run"
        )


def _read(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing, if it is not there or damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}
