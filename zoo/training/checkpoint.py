"""The folder of a run: to whom it belongs, and its last two checkpoints `checkpoint-STEP.pt`.

A checkpoint is written beside and renamed, so a file of that name is whole, whenever the process
was killed.
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
from zoo.files import replacing, write_text
from zoo.training.config import Recipe

__all__ = ["claim", "exists", "latest", "lock", "save"]

log = logging.getLogger(__name__)
KEPT = 2
DEFAULTS = json.loads(
    json.dumps({f.name: f.default for f in fields(Recipe) if f.default is not MISSING})
)
# A run may go on with another version, and with the same data elsewhere; what weights cost follows
# from their sha256.
FREE = ("torch", "source", "ancestry")


def claim(path: Path, resolved: dict[str, Any]) -> None:
    """Write the resolved recipe, or find that this folder already belongs to the same one."""
    if path.exists():
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise ConfigError(
                f"{path} is not a recipe that a run wrote: delete it, or name a new folder with --run"
            ) from None
        now = json.loads(json.dumps(resolved))
        if differing := _difference(_bound(before), _bound(now)):
            key, old, new = differing
            raise ConfigError(
                f"{path.parent} holds a run of another recipe, with {key} = {_shown(old)} where now it is {_shown(new)}: "
                "resume that one, or name a new folder with --run"
            )
    else:
        write_text(path, json.dumps(resolved, indent=2) + "\n")


def lock(run: Path) -> FileLock:
    """Keep other processes out of a run's folder, until this one ends or the lock is released."""
    run.mkdir(parents=True, exist_ok=True)
    held = FileLock(run / "lock", timeout=0)
    try:
        held.acquire()
    except Timeout:
        raise ConfigError(
            f"another process trains in {run}: wait for its end, or name a new folder with --run"
        ) from None
    return held


def _bound(resolved: dict[str, Any]) -> dict[str, Any]:
    """What may not change within a run. A run of before a key of recipes existed did what its
    default does.
    """
    recipe = resolved.get("recipe")
    whole = resolved | {"recipe": DEFAULTS | recipe} if isinstance(recipe, dict) else resolved
    bound: dict[str, Any] = _without_free(whole)
    return bound


def _difference(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """Find the first key, within parts too, whose values differ, and the two values."""
    for key in [*before, *now]:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            if found := _difference(old, new):
                return found
        elif old != new:
            return key, old, new
    return None


def _shown(value: Any) -> str:
    """A value as JSON writes it, cut where it is long."""
    text = "nothing" if value is None else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _without_free(value: Any) -> Any:
    return (
        {k: _without_free(v) for k, v in value.items() if k not in FREE}
        if isinstance(value, dict)
        else value
    )


def save(run: Path, step: int, state: dict[str, Any]) -> None:
    """Write the checkpoint of `step`, then delete all but the last two."""
    with (
        replacing(run / f"checkpoint-{step:09d}.pt") as path,
        path.open("wb") as file,
    ):
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())  # a rename may reach the disk before what was written
    for old in _checkpoints(run)[:-KEPT]:
        old.unlink()


def exists(run: Path) -> bool:
    """Whether a run in this folder would go on from a checkpoint."""
    return bool(_checkpoints(run))


def latest(run: Path) -> dict[str, Any] | None:
    """The state that `save` was last given. Raises `WeightsError` for a damaged file; nothing is
    unpickled but tensors.
    """
    paths = _checkpoints(run)
    if not paths:
        return None
    try:
        state: dict[str, Any] = torch.load(paths[-1], map_location="cpu", weights_only=True)
        log.info("resuming at step %d", state["step"])
        return state
    except Exception as error:  # torch raises whatever a damaged file makes it stumble over
        hint = f"to go on from {paths[-2].name}" if len(paths) > 1 else "to start again"
        what = first_line(error)[:80]
        raise WeightsError(f"{paths[-1]} is damaged ({what}): delete it {hint}") from None


def _checkpoints(run: Path) -> list[Path]:
    return sorted(run.glob(f"checkpoint-{'[0-9]' * 9}.pt"))
