"""The folder of a run: the recipe that it belongs to, and its last checkpoints.

A checkpoint `checkpoint-STEP.pt` is written under another name and renamed, so a file of that name
is complete, whenever the process was killed.
"""

import json
import logging
import os
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from zoo.errors import ConfigError, WeightsError, first_line
from zoo.files import read_json, replacing, write_text
from zoo.training.config import Recipe

__all__ = ["check_same_recipe", "exists", "latest", "lock", "save"]

log = logging.getLogger(__name__)

KEEP_LAST = 2
MAX_SHOWN = 80  # characters of a value or a foreign error in a message
# A run may go on with another version of torch and with the same data elsewhere; what the ancestors
# of weights cost follows from their sha256.
IGNORED_KEYS = ("torch", "source", "ancestry")
DEFAULTS = json.loads(
    json.dumps({f.name: f.default for f in fields(Recipe) if f.default is not MISSING})
)


def check_same_recipe(path: Path, resolved: dict[str, Any]) -> None:
    """Write the resolved recipe of a new run, or compare it with the one that `path` holds.

    Raises `ConfigError` if the folder belongs to a run of another recipe, or `path` is damaged.
    """
    _delete_leftovers(path.parent)
    if not path.exists():
        write_text(path, json.dumps(resolved, indent=2) + "\n")
        return
    try:
        recorded = read_json(path)
    except ConfigError:
        raise ConfigError(
            f"{path} is not a recipe that a run wrote: delete it, or name a new folder with --run"
        ) from None
    current = json.loads(json.dumps(resolved))
    if difference := _difference(_comparable(recorded), _comparable(current)):
        key, old, new = difference
        raise ConfigError(
            f"{path.parent} holds a run of another recipe, with {key} = {_shown(old)} where now "
            f"it is {_shown(new)}: resume that one, or name a new folder with --run"
        )


def lock(run: Path) -> FileLock:
    """Keep other processes out of a run's folder, until this one ends or the lock is released.

    Raises `ConfigError` if another process holds the lock.
    """
    run.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run / "lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(
            f"another process trains in {run}: wait for its end, or name a new folder with --run"
        ) from None
    return lock


def _comparable(resolved: dict[str, Any]) -> dict[str, Any]:
    """Return what may not change within a run.

    A run of a version that did not know a key of recipes yet did what the key's default does.
    """
    recipe = resolved.get("recipe")
    if isinstance(recipe, dict):
        resolved = resolved | {"recipe": DEFAULTS | recipe}
    comparable: dict[str, Any] = _without_ignored(resolved)
    return comparable


def _without_ignored(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {key: _without_ignored(v) for key, v in value.items() if key not in IGNORED_KEYS}


def _difference(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """Return the first key, at any depth, whose values differ, and the two values."""
    for key in [*before, *now]:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            if difference := _difference(old, new):
                return difference
        elif old != new:
            return key, old, new
    return None


def _shown(value: Any) -> str:
    """Return a value as JSON writes it, cut where it is long."""
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."


def save(run: Path, step: int, state: dict[str, Any]) -> None:
    """Write the checkpoint of `step`, then delete all but the last `KEEP_LAST`."""
    _delete_leftovers(run)
    with replacing(run / f"checkpoint-{step:09d}.pt") as path, path.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())  # the new name may reach the disk before the content does
    for old in _checkpoints(run)[:-KEEP_LAST]:
        old.unlink()


def _delete_leftovers(run: Path) -> None:
    """Delete the temporary files of killed processes.

    No living process writes one: the lock of the run keeps others out, and of the processes of this
    run only the main one writes.
    """
    for path in run.glob("*.tmp"):
        path.unlink(missing_ok=True)


def exists(run: Path) -> bool:
    """Return whether a run in this folder would go on from a checkpoint."""
    return bool(_checkpoints(run))


def latest(run: Path) -> dict[str, Any] | None:
    """Return the state of the newest checkpoint, on the CPU; None if there is no checkpoint.

    Nothing but tensors is unpickled. Raises `WeightsError` for a damaged file.
    """
    paths = _checkpoints(run)
    if not paths:
        return None
    try:
        state: dict[str, Any] = torch.load(paths[-1], map_location="cpu", weights_only=True)
        log.info("resuming at step %d", state["step"])
        return state
    except Exception as error:  # torch raises errors of any kind for a damaged file
        hint = f"to go on from {paths[-2].name}" if len(paths) > 1 else "to start again"
        reason = first_line(error)[:MAX_SHOWN]
        raise WeightsError(f"{paths[-1]} is damaged ({reason}): delete it {hint}") from None


def _checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, the oldest first."""
    return sorted(run.glob(f"checkpoint-{'[0-9]' * 9}.pt"))
