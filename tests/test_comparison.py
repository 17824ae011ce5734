"""The tables of docs/comparison.md are those of the logs, which share one recipe and one budget."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LOGS = [
    json.loads(path.read_text())
    for path in sorted((ROOT / "benchmarks" / "results" / "comparison").glob("*.json"))
]
SHARED = ("depths", "widths", "num_classes", "stem")  # of the networks' configurations


@pytest.mark.slow
def test_the_page_holds_the_tables_of_the_logs() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "comparison.py"), "table", "--check"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_one_recipe_and_one_budget() -> None:
    assert len(LOGS) > 1
    first = LOGS[0]
    for log in LOGS:
        assert log["recipe"] | {"seed": 0} == first["recipe"] | {"seed": 0}
        assert log["images"] == first["images"]
        epochs = [line["epoch"] for line in log["epochs"]]
        assert epochs == list(range(1, log["recipe"]["epochs"] + 1))
        shape = {key: value for key, value in log["model"].items() if key in SHARED}
        assert shape == {key: first["model"][key] for key in shape}
