"""Every command and snippet of the pages is run as it is written, or says why it is not.

A block of code names its language. Those of a page run in their order and in one folder, each as a
newcomer would run it; a line `<!-- not run: REASON -->` before a block keeps it from being run.
"""

import os
import re
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import nir
import numpy as np
import pytest
from support.nir_graphs import a, chain
from support.pictures import picture
from support.recordings import random_events, write_events

import zoo
from export.nir.writer import write_nir

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "MODEL_CARD.md", "SECURITY.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>.+) -->\n)?```(?P<language>.*)\n(?P<code>(?:.*\n)*?)```$", re.M
)
LANGUAGES = ("python", "sh", "toml", "text")


@dataclass(frozen=True)
class Block:
    """A block of code of a page."""

    line: int
    language: str
    code: str
    reason: str | None  # why it is not run


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(text[: m.start()].count("\n") + 1, m["language"], m["code"], m["reason"])
        for m in BLOCK.finditer(text)
    ]


def prepare(folder: Path) -> None:
    """Write the files that the pages speak of as the reader's own."""
    picture(90, 64, 48).save(folder / "cat.jpg")
    graph = chain(nir.LIF(a(0.5), a(1), a(0), a(0.5)), shape=(1,))
    graph.nodes["output"] = nir.Output(np.array([1]))
    nir.write(folder / "anyones.nir", graph)
    np.save(folder / "frames.npy", np.ones((3, 2, 1), np.float32))
    write_events(folder / "recording.npz", random_events(20_000, side=260))
    write_nir(zoo.load("danet20-t4.fmnist"), folder / "model.nir")


def command(block: Block) -> list[str]:
    """Return the command that runs a block."""
    if block.language == "python":
        return [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", block.code]
    return ["bash", "-euo", "pipefail", "-c", block.code]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_names_its_language(page: Path) -> None:
    fences = re.findall(r"^```", page.read_text(encoding="utf-8"), re.M)
    found = blocks(page)
    assert len(fences) == 2 * len(found)
    assert [(b.line, b.language) for b in found if b.language not in LANGUAGES] == []


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_runs(page: Path, tmp_path: Path) -> None:
    run = [b for b in blocks(page) if b.reason is None and b.language != "text"]
    if any(b.language != "toml" for b in run):
        prepare(tmp_path)
    binaries = Path(sys.executable).parent  # where `zoo` is
    environment = os.environ | {
        "PATH": f"{binaries}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    for block in run:
        where = f"{page.name}:{block.line}"
        if block.language == "toml":
            name = re.match(r"# (\S+\.toml)\n", block.code)
            assert name and tomllib.loads(block.code), f"{where} says no file in its first line"
            (tmp_path / name[1]).write_text(block.code, encoding="utf-8")
            continue
        done = subprocess.run(
            command(block), cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{where}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr, where
