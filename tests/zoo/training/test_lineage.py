"""A run knows which weights it started from, what these cost, and goes on with no others."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from zoo.danet import DANet
from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, UnknownName, WeightsError
from zoo.integrity import sha256
from zoo.training import checkpoint, lineage
from zoo.training.lineage import Ancestor, Init
from zoo.weights import write_model

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, tiny: Callable[..., DANet], digits: DatasetSpec) -> Write:
    """`write(name, hours, init)`: a model folder as `zoo train` leaves it, of random weights."""

    def write(
        name: str, hours: dict[str, Any] | None = None, init: Init | None = None, **config: Any
    ) -> Path:
        folder = tmp_path / name
        write_model(folder, tiny(**config), name=name, data=digits)
        if hours is not None:
            (folder / "metrics.json").write_text(json.dumps({"top1": 0.5} | hours))
        if init:
            (folder / "recipe.json").write_text(
                json.dumps({"model": {}, "recipe": {}, "init": init.to_dict()})
            )
        return folder

    return write


@pytest.fixture
def begun(tmp_path: Path, tiny: Callable[..., DANet]) -> Callable[[Path], Path]:
    """`begun(folder)`: a run that started from the weights in `folder`."""

    def begin(folder: Path) -> Path:
        run = tmp_path / "run"
        run.mkdir()
        checkpoint.check_same_recipe(
            run / "recipe.json", {"init": lineage.start(tiny(), str(folder), run).to_dict()}
        )
        return run

    return begin


def test_the_weights_and_their_ancestors_are_recorded(
    write: Write, tiny: Callable[..., DANet], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zoo")
    first = write("first", {"training_hours": 2.5, "core_hours": 4.0}, depths=(1, 1))
    model = tiny(depths=(1, 1))
    second = write("second", {"training_hours": 0.25}, lineage.start(model, str(first), tmp_path))
    init = lineage.start(tiny(num_classes=7), str(second), tmp_path)
    digests = [sha256(folder / "model.safetensors") for folder in (second, first)]
    assert init.ancestry == (
        Ancestor("second", digests[0], 0.25, None),
        Ancestor("first", digests[1], 2.5, 4.0),
    )
    assert (init.name, init.source, init.weights_sha256) == ("second", str(second), digests[0])
    assert (
        init.new == {"head.fc": "7 classes, was 5"}
        and init.grown == ()
        and init.taken == init.tensors - 2
    )
    said = [record.getMessage() for record in caplog.records]
    assert said[-1] == (
        f"initialised from second: {init.taken} of {init.tensors} tensors; "
        "new: head.fc (7 classes, was 5)"
    )
    assert said[0].startswith("initialised from first: ")


def test_what_is_recorded_is_read_again(
    write: Write, tiny: Callable[..., DANet], tmp_path: Path
) -> None:
    init = lineage.start(tiny(depths=(2, 2)), str(write("first", {}, depths=(1, 2))), tmp_path)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"init": init.to_dict()}))
    assert init.grown == ("stage1.block1",) and Init.read(path) == init
    path.write_text("{}")
    assert Init.read(path) is None


@pytest.mark.parametrize("resumed", [False, True], ids=["before", "after"])
def test_other_weights_than_before_are_refused(
    resumed: bool, write: Write, begun: Callable[[Path], Path], tiny: Callable[..., DANet]
) -> None:
    folder = write("first")
    before = sha256(folder / "model.safetensors")
    run = begun(folder)
    if resumed:
        checkpoint.save(run, 1, {"step": 1})
    write("first")  # of other random numbers
    found = sha256(folder / "model.safetensors")
    with pytest.raises(ConfigError) as error:
        lineage.start(tiny(), str(folder), run)
    assert str(error.value) == (
        f"--init {folder} has weights of sha256 {found}, "
        f"but the run in {run} started from {before}: "
        "put those back, or name a new folder with --run"
    )


def test_a_run_with_a_checkpoint_needs_its_source_no_more(
    write: Write,
    begun: Callable[[Path], Path],
    tiny: Callable[..., DANet],
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = write("first")
    run = begun(folder)
    recorded = Init.read(run / "recipe.json")
    shutil.rmtree(folder)
    with pytest.raises(UnknownName):  # and no checkpoint yet
        lineage.start(tiny(), str(folder), run)
    checkpoint.save(run, 1, {"step": 1})
    assert lineage.start(tiny(), str(folder), run) == recorded
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.endswith("): the run goes on from its checkpoint")
    with pytest.raises(UnknownName):
        lineage.start(tiny(), str(folder.with_name("another")), run)


def test_the_same_weights_may_lie_elsewhere(
    write: Write, begun: Callable[[Path], Path], tiny: Callable[..., DANet], tmp_path: Path
) -> None:
    folder = write("first", {"training_hours": 1.0})
    run = begun(folder)
    moved = folder.rename(tmp_path / "moved")
    (moved / "metrics.json").unlink()
    init = lineage.start(tiny(), str(moved), run)
    assert init.source == str(moved)
    checkpoint.check_same_recipe(run / "recipe.json", {"init": init.to_dict()})
    checkpoint.save(run, 1, {"step": 1})
    assert lineage.start(tiny(), str(moved), run) == Init.read(run / "recipe.json")


def test_a_run_with_a_checkpoint_leaves_the_model_alone(
    write: Write, begun: Callable[[Path], Path], tiny: Callable[..., DANet]
) -> None:
    folder = write("first")
    run = begun(folder)
    checkpoint.save(run, 1, {"step": 1})
    model = tiny()
    before = model.stem.conv.weight.clone()
    lineage.start(model, str(folder), run)
    assert torch.equal(model.stem.conv.weight, before)


@pytest.mark.parametrize(
    "value",
    ["text", 3, [], {}, {"ancestry": 3, "grown": [], "new": {}}, "none of the keys"],
    ids=str,
)
def test_a_damaged_record_is_refused(
    value: Any, write: Write, tiny: Callable[..., DANet], tmp_path: Path
) -> None:
    folder = write("first", {})
    (folder / "recipe.json").write_text(json.dumps({"init": value}))
    with pytest.raises(
        ConfigError,
        match=r"recipe\.json, init(: name is missing| = .* must be a table of name, source)",
    ) as error:
        lineage.start(tiny(), str(folder), tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("hours", ["2", True, -1, float("nan"), [1]], ids=str)
def test_hours_that_are_none_are_refused(
    hours: Any, write: Write, tiny: Callable[..., DANet], tmp_path: Path
) -> None:
    folder = write("first", {"training_hours": hours})
    with pytest.raises(ConfigError, match=r"metrics\.json: training_hours"):
        lineage.start(tiny(), str(folder), tmp_path)


def test_a_folder_without_weights_is_refused(
    write: Write, tiny: Callable[..., DANet], tmp_path: Path
) -> None:
    folder = write("first")
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"first holds neither model\.safetensors nor"):
        lineage.start(tiny(), str(folder), tmp_path)


def test_a_file_is_refused(tiny: Callable[..., DANet], tmp_path: Path) -> None:
    (tmp_path / "x.onnx").touch()
    with pytest.raises(
        ConfigError,
        match=r"^--init .*x\.onnx is a file: valid are a name of `zoo list`, a model folder, and h",
    ):
        lineage.start(tiny(), str(tmp_path / "x.onnx"), tmp_path / "run")


def test_random_weights_are_not_frozen(tiny: Callable[..., DANet]) -> None:
    with pytest.raises(
        ConfigError,
        match=r"freeze = \['stem'\]: random weights would stay so; name trained ones with --init",
    ):
        lineage.freeze(tiny(), ["stem"], None)
    lineage.freeze(tiny(), [], None)


ANCESTRY = (Ancestor("first", "0" * 64, 1.5, 2.0), Ancestor("older", "1" * 64, 0.5))
INIT = Init("first", "first", "0" * 64, 10, 8, {}, {}, (), ANCESTRY)


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (
            "head",
            "head cannot be frozen: head.fc is new (7 classes, was 5); freeze the parts without it",
        ),
        ("head.fc", "head.fc cannot be frozen: head.fc is new"),
        ("stem.conv", "stem.conv cannot be frozen: stem is new (small, was imagenet)"),
        ("stage2", "stage2 cannot be frozen: stage2.block1 is new (added as the identity)"),
    ],
)
def test_new_parts_are_not_frozen(part: str, said: str, tiny: Callable[..., DANet]) -> None:
    new = {"head.fc": "7 classes, was 5", "stem": "small, was imagenet"}
    init = replace(INIT, new=new, grown=("stage2.block1",))
    with pytest.raises(ConfigError) as error:
        lineage.freeze(tiny(), [part], init)
    assert str(error.value).startswith(said)
    model = tiny()
    lineage.freeze(model, ["stage1", "stage2.block0"], init)
    assert model.frozen == ("stage1", "stage2.block0")


def test_the_cost_is_told_as_far_as_it_is_known() -> None:
    log = [{"seconds": 1800.0, "core_seconds": 3600.0}] * 3
    assert lineage.cost(log, None) == {"training_hours": 1.5, "core_hours": 3.0}
    known = replace(INIT, ancestry=ANCESTRY[:1])
    totals = {"training_hours_total": 3.0, "core_hours_total": 5.0}
    assert (
        lineage.cost(log, known)
        == {"initialised_from": "first", "training_hours": 1.5, "core_hours": 3.0} | totals
    )
    assert lineage.cost(log, INIT).get(
        "training_hours_total"
    ) == 3.5 and "core_hours_total" not in lineage.cost(log, INIT)
    assert lineage.cost([{"seconds": 36.0}, *log], None) == {"training_hours": 1.51}
