"""A plan's stages run in their order, each from the one before, and none of them twice."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.pictures import encoded, picture

import zoo
from zoo.cli import main
from zoo.errors import ConfigError
from zoo.files import write_text
from zoo.training import stages
from zoo.training.stages import Plan, Runner, Stage

PLAN = """
[t1]
name = "danet20-t1.fmnist"
set = { epochs = 1 }

[t2]
name = "danet20-t2.fmnist"
init = "t1"
set = { epochs = 1 }
adopt = true

[other]
name = "danet20b-t1.fmnist"
config = { links = false }
adopt = true
"""


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.setattr(stages, "weights_folder", lambda: tmp_path / "weights")
    (tmp_path / "plan.toml").write_text(PLAN)
    return Plan.read(tmp_path / "plan.toml")


def keys(chosen: list[Stage]) -> list[str]:
    return [stage.key for stage in chosen]


def leave(
    folder: Path,
    *,
    recipe: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    init: bool = False,
) -> None:
    """Write what a finished training leaves in a model folder; with `init`, one that started from
    trained weights.
    """
    folder.mkdir(parents=True)
    record = {"recipe": recipe or {"epochs": 1}, "model": model or {"links": False}} | (
        {"init": {"name": "x"}} if init else {}
    )
    (folder / "model.safetensors").write_bytes(b"weights")
    # Whole and last, as a run writes it: other stages may be looking.
    write_text(folder / "recipe.json", json.dumps(record))


def test_a_plan_is_read_in_its_order(plan: Plan) -> None:
    assert keys(list(plan.stages)) == ["t1", "t2", "other"]
    assert plan.stages[1] == Stage("t2", "danet20-t2.fmnist", "t1", {}, {"epochs": 1}, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x =", "cannot be read as a plan"),
        ("x = 1", "[x] = 1 must be a table of name, init, config, set, adopt"),
        (
            '["../x"]\nname = "danet20-t1.fmnist"',
            "[../x]: the name of a stage is of letters, digits and '.-_'",
        ),
        ('[x]\ninit = ""', "[x]: name is missing"),
        (
            '[x]\nname = "danet20-t1"',
            "[x]: name = 'danet20-t1' names no data set, as danet20-t1.cifar10 does",
        ),
        (
            '[x]\nname = "danet20-t1.fmnist"\nepochs = 3',
            "[x]: unknown key 'epochs'; valid are name, init, config, set, adopt",
        ),
        ('[x]\nname = "danet20-t1.fmnist"\nset = 3', "[x]: set = 3 must be a table"),
        (
            '[x]\nname = "danet20-t1.fmnist"\ninit = "y"',
            "[x] init = 'y' is no stage before it; these are none",
        ),
        ('[x]\nname = "danet20-t1.fmnist"\ninit = "x"', "[x] init = 'x' is no stage before it"),
    ],
)
def test_a_plan_that_cannot_be_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(text)
    with pytest.raises(ConfigError) as error:
        Plan.read(tmp_path / "plan.toml")
    assert said in str(error.value) and "\n" not in str(error.value)


def test_what_is_wanted_is_run_and_what_it_starts_from(plan: Plan, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert keys(plan.to_run(runs)) == ["t1", "t2", "other"]
    leave(runs / "t1" / "model")
    assert keys(plan.to_run(runs)) == ["t2", "other"]
    leave(runs / "t2" / "model", init=True)
    leave(runs / "other" / "model")
    assert plan.to_run(runs) == []


def test_what_lies_in_weights_is_trained(plan: Plan, tmp_path: Path) -> None:
    """A machine without the runs trains no stage again whose weights are there, nor one that only
    led to them.
    """
    leave(tmp_path / "weights" / "danet20-t2.fmnist", init=True)
    leave(tmp_path / "weights" / "danet20b-t1.fmnist", model={"links": True})
    assert keys(plan.to_run(tmp_path / "runs")) == ["other"]


def test_what_has_another_recipe_is_another_stage(plan: Plan, tmp_path: Path) -> None:
    leave(tmp_path / "weights" / "danet20-t2.fmnist", recipe={"epochs": 2})
    assert keys(plan.to_run(tmp_path / "runs")) == ["t1", "t2", "other"]


def test_a_later_stage_of_a_name_supersedes_the_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "weights_folder", lambda: tmp_path / "weights")
    (tmp_path / "plan.toml").write_text(
        '[a]\nname = "danet20-t1.fmnist"\nset = { seed = 1 }\nadopt = true\n'
        '[b]\nname = "danet20-t1.fmnist"\ninit = "a"\nset = { seed = 2 }\nadopt = true\n'
    )
    plan = Plan.read(tmp_path / "plan.toml")
    assert keys(plan.to_run(tmp_path / "runs")) == ["a", "b"]
    leave(tmp_path / "weights" / "danet20-t1.fmnist", recipe={"seed": 2}, init=True)
    assert plan.to_run(tmp_path / "runs") == []


def test_what_is_finished_waits_to_be_adopted(plan: Plan, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    leave(runs / "t1" / "model")  # which only others start from
    leave(runs / "t2" / "model", init=True)
    assert plan.finished(runs) == [(plan.stages[1], runs / "t2" / "model")]


def test_stages_run_side_by_side_and_after_what_they_start_from(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, order, together = tmp_path / "runs", [], threading.Barrier(2, timeout=60)

    def train(self: Runner, stage: Stage) -> bool:
        order.append((stage.key, self._source(stage)))
        if stage.key != "t2":
            together.wait()  # t1 and other at the same time
        leave(runs / stage.key / "model", init=bool(stage.init))
        return True

    monkeypatch.setattr(Runner, "_train", train)
    assert Runner(plan, runs, {}, jobs=2).run()
    assert sorted(order[:2]) == [("other", ""), ("t1", "")] and order[2] == (
        "t2",
        str(runs / "t1" / "model"),
    )


def test_a_stage_that_fails_stops_those_after_it_alone(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, order = tmp_path / "runs", []

    def train(self: Runner, stage: Stage) -> bool:
        order.append(stage.key)
        time.sleep(0.05)
        if stage.key == "other":
            leave(runs / stage.key / "model")
        return stage.key == "other"

    monkeypatch.setattr(Runner, "_train", train)
    assert not Runner(plan, runs, {}, jobs=2).run()
    assert sorted(order) == ["other", "t1"]


@pytest.mark.parametrize("error", [None, OSError("no space is left")])
def test_a_stage_that_leaves_no_record_of_itself_failed(
    error: OSError | None, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for it any more."""
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    started = threading.Barrier(2, timeout=60)

    def train(self: Runner, stage: Stage) -> bool:
        started.wait()  # both workers have one, and the first to end waits for the other
        if stage.key == "t1":
            time.sleep(0.1)
            if error:
                raise error
        else:
            leave(tmp_path / "runs" / stage.key / "model")
        return True

    monkeypatch.setattr(Runner, "_train", train)
    runner = Runner(plan, tmp_path / "runs", {}, jobs=2)
    assert not runner.run() and runner.failed == {"t1"}


def test_after_an_interrupt_no_stage_begins(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, order, ended = Runner(plan, tmp_path / "runs", {}, jobs=1), [], threading.Event()

    def train(self: Runner, stage: Stage) -> bool:
        order.append(stage.key)
        ended.wait(60)
        return True

    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    join = threading.Thread.join
    monkeypatch.setattr(Runner, "_train", train)
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    ended.set()
    (worker,) = [thread for thread in threading.enumerate() if "_work" in thread.name]
    join(worker)
    assert order == ["t1"]


def test_one_runner_at_a_time(plan: Plan, tmp_path: Path) -> None:
    runner = Runner(plan, tmp_path / "runs", {}, jobs=1)
    with (
        stages.lock(tmp_path / "runs"),
        pytest.raises(ConfigError, match="another process trains in"),
    ):
        runner.run()


def test_values_reach_the_command_as_toml_writes_them() -> None:
    stage = Stage(
        "x",
        "danet20-t1.fmnist",
        "",
        {"stem": "medium", "links": False},
        {"t_schedule": [[0, 1]], "lr": 0.1},
        adopt=True,
    )
    command = Runner(Plan((stage,)), Path("runs"), {"fmnist": "somewhere"}, jobs=1)._command(stage)
    text = " ".join(command)
    assert text.endswith(
        "-m zoo train danet20-t1.fmnist --run runs/x --data somewhere "
        '--config stem="medium" links=false --set t_schedule=[[0, 1]] lr=0.1'
    )


def test_what_can_be_adopted_is_printed_with_its_data(
    plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "runs" / "t2" / "model"
    leave(folder, init=True)
    arguments = [
        str(tmp_path / "plan.toml"),
        "--runs",
        str(tmp_path / "runs"),
        "--data",
        "fmnist=there",
        "--finished",
    ]
    assert main(["stages", *arguments]) == 0
    assert capsys.readouterr().out == f"{folder} there\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["absent.toml"], "absent.toml cannot be read as a plan"),
        (["plan.toml", "--data", "fmnist"], "--data 'fmnist' is not KEY=VALUE"),
        (["plan.toml", "--data", "fmnist=a", "fmnist=b"], "--data fmnist is given twice"),
        (
            ["plan.toml", "--data", "cifar10=x"],
            "--data cifar10=x: no stage has data 'cifar10'; valid are fmnist",
        ),
        (
            ["own.toml"],
            "data 'pets' is no data set of the zoo "
            "(in1k, tin200, cifar10, fmnist, nmnist, dvsgesture, i2e-fmnist, i2e-cifar10): say",
        ),
        (["nothing.toml"], "no stage of the plan has adopt = true, so none would run"),
        (
            ["plan.toml", "--runs", "damaged"],
            "damaged/t1/model/recipe.json is not a recipe that a run wrote ('recipe')",
        ),
    ],
)
def test_a_wrong_command_is_one_line(
    argv: list[str],
    said: str,
    plan: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    leave(Path("damaged") / "t1" / "model")
    Path("damaged", "t1", "model", "recipe.json").write_text("{}")
    Path("own.toml").write_text('[a]\nname = "danet20-t1.pets"\nadopt = true')
    Path("nothing.toml").write_text('[a]\nname = "danet20-t1.fmnist"')
    assert main(["stages", *argv]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"zoo: {said}") and err.count("\n") == 1


@pytest.mark.slow
def test_two_stages_from_a_plan_to_models_that_load(plan: Plan, tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number in range(20):
            path = tmp_path / "images" / split / str(number % 10) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(picture(number)))
    runs = tmp_path / "runs"
    short = Plan(
        tuple(
            Stage(s.key, s.name, s.init, {}, {"epochs": 1, "batch_size": 4}, s.adopt)
            for s in plan.stages[:2]
        )
    )
    assert Runner(short, runs, {"fmnist": str(tmp_path / "images")}, jobs=2).run(), (
        runs / "t1" / "log"
    ).read_text()[-500:]
    model = zoo.load(str(runs / "t2" / "model"))
    assert model.config.steps == 2
    record = json.loads((runs / "t2" / "model" / "recipe.json").read_text())
    assert [ancestor["name"] for ancestor in record["init"]["ancestry"]] == ["danet20-t1.fmnist"]
    assert short.finished(runs) == [(short.stages[1], runs / "t2" / "model")]
    assert stages.Plan.read(tmp_path / "plan.toml").to_run(runs)[-1].key == "other"
