"""Files that an earlier state of the project wrote still say what they said; they lie in `kept/`,
and are never written anew.

They are of `zoo train danet20-t2.insects --config widths=[4,4,8] depths=[1,1,1] --set epochs=2
bf16=false` on the pictures that `insects` draws, and of exports of its model. Only commands are
used here, so that these tests outlive every name in the code.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.pictures import picture

from zoo.cli import main

KEPT = Path(__file__).parent / "kept"
NAME = "danet20-t2.insects"
# class and confidence of two pictures, of every file
PREDICTED = [("ant", 0.5271), ("bee", 0.5473)]

Run = Callable[..., Any]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """`run(*words)`: what a command prints as JSON."""

    def call(*words: str | Path) -> Any:
        assert main([*map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def insects(tmp_path: Path) -> Path:
    for label, name in enumerate(("ant", "bee")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(20):
            picture(number + 100 * label, 32, 32).save(
                tmp_path / "data" / name / f"{number:02}.png"
            )
    return tmp_path / "data"


@pytest.mark.parametrize("file", ["model", f"{NAME}.onnx", f"{NAME}.int8.onnx"])
def test_predictions_are_those_of_then(file: str, insects: Path, run: Run) -> None:
    found = run("classify", KEPT / file, insects / "ant" / "03.png", insects / "bee" / "03.png")[
        "predictions"
    ]
    predicted = [(row["prediction"], row["confidence"]) for row in found]
    tolerance = 0.02 if "int8" in file else 2e-4
    assert [name for name, _ in predicted] == [name for name, _ in PREDICTED]
    assert [value for _, value in predicted] == pytest.approx(
        [value for _, value in PREDICTED], abs=tolerance
    )


@pytest.mark.parametrize(
    "file", [f"{NAME}.onnx", f"{NAME}.step.onnx", f"{NAME}.nir", f"{NAME}.int8.onnx"]
)
def test_exports_are_verified_against_the_model_of_then(file: str, run: Run) -> None:
    assert [found["ok"] for found in run("verify", KEPT / "model", "--export", KEPT / file)] == [
        True
    ]


@pytest.mark.parametrize("file", ["model", f"{NAME}.onnx", f"{NAME}.nir"])
def test_the_energy_is_that_of_then(file: str, insects: Path, run: Run) -> None:
    now = run("energy", KEPT / file, "--data", insects)
    then = json.loads((KEPT / f"{NAME}.json").read_text(encoding="utf-8"))
    assert now.keys() == then.keys()
    # on another processor a membrane may round otherwise
    assert now["counts"] == pytest.approx(then["counts"], rel=1e-3)


def test_a_run_goes_on_from_its_checkpoint(
    insects: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(KEPT / "run", tmp_path / "run")
    (tmp_path / "run" / "metrics.jsonl").write_text(
        (KEPT / "run" / "metrics.jsonl").read_text().splitlines()[0] + "\n"
    )
    monkeypatch.chdir(insects.parent)
    command = ["train", "danet20-t2.insects", "--data", "data", "--run", "run", "--save-every", "2"]
    assert (
        main(
            [
                *command,
                "--config",
                "widths=[4,4,8]",
                "depths=[1,1,1]",
                "--set",
                "epochs=2",
                "bf16=false",
            ]
        )
        == 0
    )
    lines, then = (
        (folder / "run" / "metrics.jsonl").read_text().splitlines() for folder in (tmp_path, KEPT)
    )
    assert (
        [json.loads(line)["step"] for line in lines]
        == [json.loads(line)["step"] for line in then]
        == [8, 16]
    )
    now, before = (json.loads(lines[-1]) for lines in (lines, then))
    assert now["train_loss"] == pytest.approx(before["train_loss"], rel=1e-3)
