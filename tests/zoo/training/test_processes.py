"""Runs in processes of their own: killed at any moment, or several together."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small import network
from torch import Tensor

SMALL = Path(__file__).with_name("small.py")
Run = tuple[dict[str, Tensor], list[dict[str, Any]]]  # weights, and metrics of each epoch
pytestmark = pytest.mark.slow


def runs(folder: Path, recipes: list[dict[str, Any]], *flags: str, processes: int = 1) -> list[Run]:
    """The weights and the metrics of runs, in one process or, started by torchrun, in several."""
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [*start, str(SMALL), str(folder), *flags, *map(json.dumps, recipes)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    found = []
    for number in range(len(recipes)):
        lines = (folder / str(number) / "metrics.jsonl").read_text().splitlines()
        weights = torch.load(folder / str(number) / "weights.pt", weights_only=True)
        found.append((weights, list(map(json.loads, lines))))
    return found


def run(folder: Path, *flags: str, processes: int = 1, **recipe: Any) -> Run:
    return runs(folder, [recipe], *flags, processes=processes)[0]


def test_a_run_killed_at_any_step_ends_with_the_same_weights(tmp_path: Path) -> None:
    recipe = {"ema": 0.9, "flip": True, "mixup": 0.2}
    expected, metrics = run(tmp_path / "whole", **recipe)
    command = [sys.executable, str(SMALL), str(tmp_path / "cut"), json.dumps(recipe)]
    for step in (1, 4, 9):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if int(line) == step:
                    # while it computes, evaluates or writes, as it comes
                    process.send_signal(signal.SIGKILL)
                    break
        assert process.returncode == -signal.SIGKILL
    resumed, found = run(tmp_path / "cut", **recipe)
    assert all(torch.equal(resumed[key], expected[key]) for key in expected)
    times = {"seconds": 0, "core_seconds": 0}
    assert [line | times for line in found] == [line | times for line in metrics]


FROZEN = {"freeze": ["stem", "stage1", "stage2.block0"], "ema": 0.9, "norm_bias_rate": 4.0}
EVERYTHING = {"ema": 0.9, "clip": 1.0, "checkpointing": True, "loss": "tet"}
SMALLER = {"prune": 0.5, "synops_weight": 1.0, "ema": 0.9}
FROZEN_BEHIND = {"freeze": ["stage2"], "checkpointing": True, "clip": 1.0}


@pytest.mark.parametrize(
    ("flags", "recipes"),
    [
        ([], [{}, EVERYTHING, FROZEN, SMALLER]),
        (["--shard"], [{}, EVERYTHING, FROZEN, FROZEN_BEHIND]),
    ],
    ids=["ddp", "fsdp2"],
)
def test_two_processes_are_one_with_both_their_batches(
    flags: list[str], recipes: list[dict[str, Any]], tmp_path: Path
) -> None:
    """BatchNorm sees both parts of a batch, no neuron sees the other's images, and each test image
    counts once.
    """
    alone = runs(tmp_path / "one", recipes)
    together = runs(tmp_path / "two", recipes, *flags, processes=2)
    for recipe, one, two in zip(recipes, alone, together, strict=True):
        check_equal(recipe, one, two)


def check_equal(recipe: dict[str, Any], alone: Run, together: Run) -> None:
    (expected, metrics), (found, metrics_together) = alone, together
    assert found.keys() == expected.keys()
    assert farthest(found, expected) < 1e-5, recipe
    parts, start = tuple(f"{part}." for part in recipe.get("freeze", [])), network().state_dict()
    for key, value in start.items():
        assert torch.equal(found[key], value) == (key.startswith(parts) or ".neuron." in key), key
    for one, two in zip(metrics, metrics_together, strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], abs=1e-5), recipe
        assert {k: two[k] for k in ("step", "images", "test_top1")} == {
            k: one[k] for k in ("step", "images", "test_top1")
        }


def farthest(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    return max(float((one[key].float() - two[key].float()).abs().max()) for key in two)


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2)])
def test_a_run_may_go_on_with_another_number_of_processes(
    first: int, then: int, tmp_path: Path
) -> None:
    expected, metrics = run(tmp_path / "whole")
    run(tmp_path / "changed", processes=first)
    for late in sorted((tmp_path / "changed" / "0").glob("checkpoint-*"))[-1:]:
        late.unlink()  # so that the last step is still to be done
    found, resumed = run(tmp_path / "changed", *["--shard"] * (then > 1), processes=then)
    assert farthest(found, expected) < 1e-5
    # those of the epoch that was begun in other processes too
    assert resumed[-1]["images"] == metrics[-1]["images"]
    assert resumed[-1]["train_loss"] == pytest.approx(metrics[-1]["train_loss"], abs=1e-5)


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        AssertionError, match="batch_size = 5 cannot be shared evenly by 2 processes"
    ):
        run(tmp_path, processes=2, batch_size=5)


def test_whole_weights_are_not_sharded(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="need whole weights: leave out --shard"):
        run(tmp_path / "run", "--shard", processes=2, prune=0.5)
    assert not (tmp_path / "run" / "0" / "recipe.json").exists()


def test_sharding_needs_company(tmp_path: Path) -> None:
    with pytest.raises(
        AssertionError, match="--shard needs several processes: start them with torchrun"
    ):
        run(tmp_path, "--shard")
