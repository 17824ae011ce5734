"""Every script of examples/ runs as it is, and writes what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs(script: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = re.search(r"\bwrites? (.*?) there\b|trains into FOLDER/(run)", script.read_text())
    assert said is not None
    for name in re.split(r" and |, ", said[1] or said[2]):
        assert (tmp_path / name).exists(), name


def test_the_page_has_every_example() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\(\.\./examples/(\w+)\.py\)", page)) == [
        path.stem for path in SCRIPTS
    ]
