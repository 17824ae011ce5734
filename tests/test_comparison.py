"""The tables of docs/comparison.md are what the logs say, and the logs are of one recipe and one
budget.
"""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
LOGS = [
    json.loads(path.read_text())
    for path in sorted((ROOT / "benchmarks" / "results" / "comparison").glob("*.json"))
]


def test_the_page_says_what_the_logs_say() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "comparison.py"), "table", "--check"]
    assert subprocess.run(command, cwd=ROOT).returncode == 0


def test_one_recipe_and_one_budget() -> None:
    assert len(LOGS) > 1
    for log in LOGS:
        assert (
            log["recipe"] | {"seed": 0} == LOGS[0]["recipe"] | {"seed": 0}
            and log["images"] == LOGS[0]["images"]
        )
        assert [line["epoch"] for line in log["epochs"]] == list(
            range(1, log["recipe"]["epochs"] + 1)
        )
        same = {
            key: value
            for key, value in log["model"].items()
            if key in ("depths", "widths", "num_classes", "stem")
        }
        assert same == {key: LOGS[0]["model"][key] for key in same}
