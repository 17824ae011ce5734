"""The state from which every test starts: no network, no user files, fixed random numbers."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub_server import HubServer

# The Hub's client reads its settings when it is imported: they name a Hub, a cache and a token of
# the tests' own before that.
HUB = HubServer()
HOME = tempfile.TemporaryDirectory()
for name in [name for name in os.environ if name.startswith(("HF_", "HUGGING_FACE_"))]:
    del os.environ[name]
os.environ |= {
    "HF_ENDPOINT": HUB.url,
    "HF_HOME": f"{HOME.name}/huggingface",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DOWNLOAD_TIMEOUT": "600",  # seconds; a busy machine may take many to answer itself
    "HF_HUB_ETAG_TIMEOUT": "600",
    "XDG_CACHE_HOME": f"{HOME.name}/cache",
    "NO_PROXY": "127.0.0.1",
}

import torch  # noqa: E402  # torch is slow to import, and what it imports may read the settings

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test draws the same random numbers, alone or in any order."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the terminal it is started from."""
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The Hub is empty, and the client has an empty cache and no token."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "huggingface" / "hub"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    HUB.reset()
    HUB.start()
    yield HUB
    HUB.reset()
