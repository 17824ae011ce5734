"""The site of docs/: it builds without a warning, and its reference has every public name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import export
import zoo

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


def test_it_builds_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr[-2000:]
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("index.html")}
    written = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert pages >= {"index.html", *(f"{name}/index.html" for name in written - {"index"})}
    reference = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    for name in (*zoo.__all__, *export.__all__):
        assert re.search(rf'id="[\w.]+\.{name}"', reference), name
    fetched = re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', reference)
    assert not fetched  # the site needs no other
