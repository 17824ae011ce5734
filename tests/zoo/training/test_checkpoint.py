"""A run's folder belongs to one recipe, and its newest checkpoint is complete or refused."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.errors import ConfigError, WeightsError
from zoo.training import checkpoint

RESOLVED = {
    "model": {"depths": (1, 2), "order": "a", "steps": 4},
    "recipe": {"dataset": "fmnist", "source": "/data", "lr": 0.1, "t_schedule": ((0, 2), (3, 4))},
    "torch": "2.13.0",
}


def changed(part: str, **values: Any) -> dict[str, Any]:
    return RESOLVED | {part: RESOLVED[part] | values}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The `recipe.json` of a run that has begun."""
    path = tmp_path / "recipe.json"
    checkpoint.check_same_recipe(path, RESOLVED)
    return path


def test_a_new_run_writes_the_recipe(recipe: Path) -> None:
    assert json.loads(recipe.read_text()) == json.loads(json.dumps(RESOLVED))
    assert [path.name for path in recipe.parent.iterdir()] == ["recipe.json"]


@pytest.mark.parametrize(
    "resolved",
    [
        RESOLVED,
        RESOLVED | {"torch": "3.0"},
        changed("recipe", source="org/name"),
        json.loads(json.dumps(RESOLVED)),
        changed("recipe", clip=0.0, sizes=()),
    ],
    ids=["the same", "another torch", "data elsewhere", "from json", "a newer key at its default"],
)
def test_a_run_goes_on_with_the_same_recipe(resolved: dict[str, Any], recipe: Path) -> None:
    before = recipe.read_bytes()
    checkpoint.check_same_recipe(recipe, resolved)
    assert recipe.read_bytes() == before


@pytest.mark.parametrize(
    "resolved",
    [
        changed("recipe", lr=0.2),
        changed("recipe", dataset="cifar10"),
        changed("recipe", t_schedule=((0, 2),)),
        changed("recipe", clip=1.0),
        changed("model", order="b"),
        changed("model", steps=8),
        {key: value for key, value in RESOLVED.items() if key != "model"},
    ],
    ids=["rate", "data", "schedule", "a new field", "order", "steps", "no model"],
)
def test_a_folder_belongs_to_one_recipe_and_model(resolved: dict[str, Any], recipe: Path) -> None:
    before = recipe.read_bytes()
    said = (
        r"holds a run of another recipe, with \w+ = .* where now it is .*: "
        r"resume that one, or name a new folder with --run$"
    )
    with pytest.raises(ConfigError, match=said) as error:
        checkpoint.check_same_recipe(recipe, resolved)
    assert str(recipe.parent) in str(error.value) and "\n" not in str(error.value)
    assert recipe.read_bytes() == before


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"model": ', b"\xff\xfe", b'"text"', b"null", b"3", b"true", b"[1]"],
    ids=str,
)
def test_a_damaged_recipe_is_refused(content: bytes, recipe: Path) -> None:
    recipe.write_bytes(content)
    with pytest.raises(
        ConfigError,
        match=r"recipe\.json is not a recipe that a run wrote: delete it, or name a new folder",
    ) as error:
        checkpoint.check_same_recipe(recipe, RESOLVED)
    assert "\n" not in str(error.value)
    assert recipe.read_bytes() == content


def test_a_recipe_that_was_cut_is_deleted(tmp_path: Path) -> None:
    (tmp_path / "recipe.json.01234567.tmp").write_text('{"mod')
    checkpoint.check_same_recipe(tmp_path / "recipe.json", RESOLVED)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.json"]


def state(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "model": {"weight": torch.full((3,), float(step))},
        "seen": [0.5, 1.0, step],
    }


def names(run: Path) -> list[str]:
    return sorted(path.name for path in run.iterdir())


def test_of_no_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert checkpoint.latest(tmp_path) is None
    (tmp_path / "checkpoint.tmp").write_bytes(b"cut")
    (tmp_path / "recipe.json").write_text("{}")
    assert checkpoint.latest(tmp_path) is None


def test_the_last_two_are_kept_and_the_newest_is_found(tmp_path: Path) -> None:
    found = []
    for step in (1, 9, 10, 100, 2000):  # which are in another order as words
        checkpoint.save(tmp_path, step, state(step))
        loaded = checkpoint.latest(tmp_path)
        assert loaded is not None and loaded["step"] == step
        found.append(names(tmp_path))
    assert found[0] == ["checkpoint-000000001.pt"]
    assert found[1] == ["checkpoint-000000001.pt", "checkpoint-000000009.pt"]
    assert found[-1] == ["checkpoint-000000100.pt", "checkpoint-000002000.pt"]


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    net(torch.randn(3, 1, 5, 5)).square().sum().backward()
    optimizer.step()
    saved = {
        "model": net.state_dict(),
        "average": {},
        "optimizer": optimizer.state_dict(),
        "step": 7,
        "seen": [0.1, 2.0, 3.0],
    }
    checkpoint.save(tmp_path, 7, saved)
    loaded = checkpoint.latest(tmp_path)
    assert loaded is not None and loaded.keys() == saved.keys()
    assert (loaded["step"], loaded["seen"], loaded["average"]) == (7, [0.1, 2.0, 3.0], {})
    assert all(torch.equal(loaded["model"][key], value) for key, value in net.state_dict().items())
    momenta = optimizer.state_dict()["state"]
    assert momenta and all(
        torch.equal(
            loaded["optimizer"]["state"][i]["momentum_buffer"], momenta[i]["momentum_buffer"]
        )
        for i in momenta
    )
    assert loaded["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]


class Killed(Exception):
    pass


@pytest.mark.parametrize("dies_in", ["save", "fsync", "replace"])
def test_a_kill_while_writing_leaves_the_one_before(
    dies_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, state(step))
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def killed(first: Any, *others: Any) -> None:
        if dies_in == "save":
            others[0].write(b"PK\x03\x04 half of it")
        raise Killed

    place = {
        "save": (checkpoint.torch, "save"),
        "fsync": (checkpoint.os, "fsync"),
        "replace": (Path, "replace"),
    }[dies_in]
    with monkeypatch.context() as patch:
        patch.setattr(*place, killed)
        # A process that is killed deletes nothing any more.
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        with pytest.raises(Killed):
            checkpoint.save(tmp_path, 3, state(3))
    first, second, leftover = names(tmp_path)
    assert (first, second) == ("checkpoint-000000001.pt", "checkpoint-000000002.pt")
    assert leftover.startswith("checkpoint-000000003.pt.") and leftover.endswith(".tmp")
    assert all(path.read_bytes() == content for path, content in whole.items())
    assert loaded_step(tmp_path) == 2

    checkpoint.save(tmp_path, 3, state(3))
    assert names(tmp_path) == ["checkpoint-000000002.pt", "checkpoint-000000003.pt"]
    assert loaded_step(tmp_path) == 3


def loaded_step(run: Path) -> int:
    loaded = checkpoint.latest(run)
    assert loaded is not None and torch.equal(
        loaded["model"]["weight"], torch.full((3,), float(loaded["step"]))
    )
    return int(loaded["step"])


def test_a_kill_while_old_ones_are_deleted_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, state(step))

    unlink = Path.unlink

    def killed(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".pt":
            raise Killed
        unlink(self, missing_ok)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "unlink", killed)
        checkpoint.save(tmp_path, 3, state(3))
    assert loaded_step(tmp_path) == 3
    checkpoint.save(tmp_path, 4, state(4))
    assert names(tmp_path) == ["checkpoint-000000003.pt", "checkpoint-000000004.pt"]


def stored(value: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def broken_word(content: bytes) -> bytes:
    """One byte of a key's name is no UTF-8 any more."""
    assert content.count(b"weight") == 1
    return content.replace(b"weight", b"we\xffght")


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "first byte": lambda content: content[:1],
    "half": lambda content: content[: len(content) // 2],
    "last byte missing": lambda content: content[:-1],
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"This is no checkpoint.\n",
    "a broken word": broken_word,
    "no such byte order": lambda content: content.replace(b"little", b"middle"),
    "no dictionary": lambda content: stored([1, 2]),
    "a tensor": lambda content: stored(torch.zeros(3)),
    "nothing": lambda content: stored(None),
    "without step": lambda content: stored({"model": {}}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("others", [[], [1]], ids=["alone", "with another"])
def test_a_damaged_newest_says_what_to_do(
    others: list[int], damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    for step in [*others, 2]:
        checkpoint.save(tmp_path, step, state(step))
    newest = tmp_path / "checkpoint-000000002.pt"
    newest.write_bytes(damage(newest.read_bytes()))
    hint = "to go on from checkpoint-000000001.pt" if others else "to start again"
    with pytest.raises(
        WeightsError, match=rf"checkpoint-000000002\.pt is damaged \(.*\): delete it {hint}$"
    ) as error:
        checkpoint.latest(tmp_path)
    assert len(str(error.value).splitlines()) == 1 and str(newest) in str(error.value)

    newest.unlink()  # as it was told
    assert (loaded_step(tmp_path) == 1) if others else (checkpoint.latest(tmp_path) is None)


@pytest.mark.parametrize("length", range(0, 2000, 97))
def test_a_newest_that_was_cut_anywhere_is_damaged(length: int, tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, state(1))
    path = tmp_path / "checkpoint-000000001.pt"
    content = path.read_bytes()
    path.write_bytes(content[: min(length, len(content) - 1)])
    with pytest.raises(WeightsError, match="is damaged"):
        checkpoint.latest(tmp_path)


class Bomb:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.marker,)


def pickled(value: Any) -> bytes:
    return pickle.dumps(value, protocol=2)  # of a later one torch warns


@pytest.mark.parametrize("pack", [stored, pickled])
def test_nothing_is_executed_that_a_file_asks_for(
    pack: Callable[[Any], bytes], tmp_path: Path
) -> None:
    marker, path = tmp_path / "touched", tmp_path / "checkpoint-000000001.pt"
    path.write_bytes(pack({"step": 1, "model": Bomb(marker)}))
    with pytest.raises(
        WeightsError, match=r"000000001\.pt is damaged \(.*\): delete it to start again$"
    ) as error:
        checkpoint.latest(tmp_path)
    assert len(str(error.value).splitlines()) == 1
    assert not marker.exists()

    if pack is stored:  # the bomb does go off where it is let
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert marker.exists()


def test_tensors_come_back_to_the_cpu(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, 1, state(1))
    loaded = checkpoint.latest(tmp_path)
    assert loaded is not None
    weight: Tensor = loaded["model"]["weight"]
    assert weight.device.type == "cpu"


def test_one_process_at_a_time_trains_in_a_folder(tmp_path: Path) -> None:
    held = checkpoint.lock(tmp_path)
    with pytest.raises(
        ConfigError,
        match=r"another process trains in .*: wait for its end, or name a new folder with --run",
    ):
        checkpoint.lock(tmp_path)
    held.release()
    checkpoint.lock(tmp_path).release()
