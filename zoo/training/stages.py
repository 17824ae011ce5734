"""Training in stages that start from each other's weights, one running on each core.

    zoo stages PLAN.toml [--data TAG=SOURCE ...] [--runs FOLDER] [--jobs N] [--finished]

A plan has a table for each stage, in the order in which they are wanted:

    [danet20-t4]                     # the folder of the stage in --runs
    name = "danet20-t4.cifar10"      # the network and its data
    init = "danet20-t1"              # the stage whose weights it starts from; default: random
    config = { stem = "medium" }     # fields of the network, as `zoo train --config` takes them
    set = { epochs = 10 }            # keys of the recipe, as `zoo train --set` takes them
    adopt = true                     # whether it belongs into weights/

Stages of one name differ in `set`. A stage without `adopt` runs only for those that start from it.

Each stage is a `zoo train` of its own, with one thread. A stage that was stopped goes on from its
checkpoint when the plan is run again; one that is finished, or has come into weights/, is not run
again.
"""

import json
import logging
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from zoo.datasets import DATASETS
from zoo.errors import ConfigError, UnknownName
from zoo.files import read_json, read_toml
from zoo.integrity import remembered_sha256
from zoo.layout import WEIGHTS_FILE
from zoo.manifest import read_manifest, weights_folder
from zoo.names import ModelSpec
from zoo.records import read_record
from zoo.training.checkpoint import lock

__all__ = ["Plan", "Runner", "Stage"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """One training run of a plan."""

    key: str  # its table in the plan, and its folder
    name: str
    init: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    set: dict[str, Any] = field(default_factory=dict)
    adopt: bool = False

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\w[\w.-]*", self.key):
            raise ConfigError("the name of a stage is of letters, digits and '.-_'")
        try:
            tagged = bool(self.tag)
        except UnknownName as error:
            raise ConfigError(f"name: {error}") from None
        if not tagged:
            raise ConfigError(
                f"name = {self.name!r} names no data set, as {self.name}.cifar10 does"
            )

    def trained(self, runs: Path) -> Path | None:
        """Return the model folder that this stage left in `runs` or weights/, None without one.

        Raises `ConfigError` for a damaged record.
        """
        for folder in (runs / self.key / "model", weights_folder() / self.name):
            recipe = folder / "recipe.json"
            if recipe.is_file() and self._is_recorded_in(recipe):
                return folder
        return None

    @property
    def tag(self) -> str:
        """Return the tag of the data set that the name ends with."""
        return ModelSpec.parse(self.name, own_data=True).dataset or ""

    def _is_recorded_in(self, path: Path) -> bool:
        """Return whether a model folder's record, written last, is of this stage."""
        try:
            record = read_json(path)
            recipe, model = dict(record["recipe"]), dict(record["model"])
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} is not a recipe that a run wrote ({error}): "
                f"delete it to train {self.key} again"
            ) from None
        fits = all(recipe.get(key) == value for key, value in self.set.items()) and all(
            model.get(key) == value for key, value in self.config.items()
        )
        return fits and bool(record.get("init")) == bool(self.init)


@dataclass(frozen=True)
class Plan:
    """Stages in the order in which they are wanted, each after the one it starts from."""

    stages: tuple[Stage, ...]

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Read a plan.

        Raises `ConfigError` for keys or values that no stage has, and for a stage that starts from
        none before it.
        """
        stages: dict[str, Stage] = {}
        for key, table in read_toml(path, "a plan").items():
            stages[key] = read_record(Stage, table, f"{path}: [{key}]", key=key)
            if stages[key].init not in ("", *list(stages)[:-1]):
                before = ", ".join(list(stages)[:-1]) or "none"
                raise ConfigError(
                    f"{path}: [{key}] init = {stages[key].init!r} is no stage before it; "
                    f"these are {before}"
                )
        return cls(tuple(stages.values()))

    def to_run(self, runs: Path) -> list[Stage]:
        """Return the stages that are still to be trained, in the plan's order.

        These are the stages to adopt that are neither trained nor superseded by a later one of
        their name, and the stages that they start from.
        """
        stages = {stage.key: stage for stage in self.stages}
        latest = {
            stage.name: stage.key for stage in self.stages if stage.adopt and stage.trained(runs)
        }
        order = list(stages)
        needed: set[str] = set()
        for stage in self.stages:
            superseded = order.index(stage.key) < order.index(latest.get(stage.name, stage.key))
            following = stage if stage.adopt and not superseded else None
            while following and following.key not in needed and not following.trained(runs):
                needed.add(following.key)
                following = stages.get(following.init)
        return [stage for stage in self.stages if stage.key in needed]

    def finished(self, runs: Path) -> list[tuple[Stage, Path]]:
        """Return the stages to adopt whose models are not in weights/, and the models' folders.

        Of several stages of one name, it is the last that is trained.
        """
        trained = [(stage, stage.trained(runs)) for stage in self.stages if stage.adopt]
        latest = {stage.name: (stage, folder) for stage, folder in trained if folder}
        return [
            (stage, folder)
            for stage, folder in latest.values()
            if not _is_adopted(stage.name, folder)
        ]


def _is_adopted(name: str, folder: Path) -> bool:
    entry = read_manifest().weights.get(name)
    weights = folder / WEIGHTS_FILE
    return entry is not None and entry.files[WEIGHTS_FILE].sha256 == remembered_sha256(weights)


class Runner:
    """Runs the stages of a plan on several cores.

    A stage runs as soon as the one that it starts from is trained. `sources` are the folders or hub
    ids of the data sets, by tag. Raises `ConfigError` where one is missing or is of no stage.
    """

    def __init__(self, plan: Plan, runs: Path, sources: dict[str, str], *, jobs: int) -> None:
        tags = {stage.tag for stage in plan.stages}
        for tag in sources.keys() - tags:
            raise ConfigError(
                f"--data {tag}={sources[tag]}: no stage has data {tag!r}; "
                f"valid are {', '.join(sorted(tags))}"
            )
        for tag in tags - sources.keys() - DATASETS.keys():
            raise ConfigError(
                f"data {tag!r} is no data set of the zoo ({', '.join(DATASETS)}): "
                f"say where it lies with --data {tag}=FOLDER"
            )
        if not any(stage.adopt for stage in plan.stages):
            raise ConfigError(
                "no stage of the plan has adopt = true, so none would run: "
                "mark those that are wanted"
            )
        self.plan, self.runs, self.sources, self.jobs = plan, runs, sources, jobs
        self.begun: set[str] = set()
        self.failed: set[str] = set()
        self.running: list[subprocess.Popen[bytes]] = []
        self.stopped = False
        self.changed = threading.Condition()

    def run(self) -> bool:
        """Run the stages that are left; return whether every stage was trained to its end.

        After an interrupt no stage begins.
        """
        # This raises for a damaged record, of which a worker could tell nobody.
        if not self.plan.to_run(self.runs):
            return True
        with lock(self.runs):
            workers = [threading.Thread(target=self._work) for _ in range(self.jobs)]
            for worker in workers:
                worker.start()
            try:
                for worker in workers:
                    worker.join()
            except KeyboardInterrupt:
                with self.changed:
                    self.stopped = True
                    # A terminal interrupts them itself, `kill` does not.
                    for process in self.running:
                        process.terminate()
                    self.changed.notify_all()
                raise
        return not self.plan.to_run(self.runs)

    def _work(self) -> None:
        while stage := self._next():
            succeeded = False
            try:
                succeeded = self._train(stage) and stage.trained(self.runs) is not None
            finally:  # otherwise other workers would wait for this stage for ever
                with self.changed:
                    if not succeeded:
                        self.failed.add(stage.key)
                    self.changed.notify_all()

    def _next(self) -> Stage | None:
        """Wait for a stage that can begin; return None when nothing is left for this worker."""
        with self.changed:
            while True:
                left = [
                    stage for stage in self.plan.to_run(self.runs) if stage.key not in self.begun
                ]
                ready = [stage for stage in left if self._source(stage) is not None]
                if ready and not self.stopped:
                    self.begun.add(ready[0].key)
                    return ready[0]
                if self.stopped or not left or not self._is_running():
                    return None
                self.changed.wait()

    def _is_running(self) -> bool:
        unfinished = {stage.key for stage in self.plan.to_run(self.runs)}
        return bool(self.begun & unfinished - self.failed)

    def _source(self, stage: Stage) -> str | None:
        """Return the model folder of the stage that this one starts from, for `--init`.

        It is empty where there is no such stage, and None while that is not trained.
        """
        before = next((other for other in self.plan.stages if other.key == stage.init), None)
        if before is None:
            return ""
        folder = before.trained(self.runs)
        return None if folder is None else str(folder)

    def _train(self, stage: Stage) -> bool:
        """Train one stage, with its output in `log` in its folder; return whether it succeeded."""
        folder = self.runs / stage.key
        folder.mkdir(parents=True, exist_ok=True)
        with (
            (folder / "log").open("a", encoding="utf-8") as output,
            self._started(stage, output) as process,
        ):
            status = process.wait()
        last = (folder / "log").read_text(encoding="utf-8").splitlines()[-1:]
        log.info("%s: %s", stage.key, last[0] if last else f"ended with status {status}")
        return status == 0

    def _started(self, stage: Stage, output: TextIO) -> "subprocess.Popen[bytes]":
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            self._command(stage), env=environment, stdout=output, stderr=output
        )
        self.running.append(process)
        return process

    def _command(self, stage: Stage) -> list[str]:
        source, data = self._source(stage), self.sources.get(stage.tag)
        return [
            sys.executable, "-m", "zoo", "train", stage.name, "--run", str(self.runs / stage.key),
            *(["--data", data] if data else []),
            *(["--init", source] if source else []),
            *(["--config", *_pairs(stage.config)] if stage.config else []),
            *(["--set", *_pairs(stage.set)] if stage.set else []),
        ]  # fmt: skip


def _pairs(values: dict[str, Any]) -> list[str]:
    """Return a table as words `KEY=VALUE`.

    JSON writes numbers, lists, strings and truth values as TOML does.
    """
    return [f"{key}={json.dumps(value)}" for key, value in values.items()]
