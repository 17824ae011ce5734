"""A model that is on the Hub alone, and a model of somebody's."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_names import NAME, REPO
from support.hub_server import HubServer

from zoo.danet import DANet
from zoo.datasets import DatasetSpec
from zoo.manifest import read_manifest
from zoo.weights import write_model


@pytest.fixture
def folder(tmp_path: Path, tiny: Callable[..., DANet], digits: DatasetSpec) -> Path:
    """A model folder of somebody's."""
    write_model(tmp_path / "somebody", tiny(), name="some-model", data=digits)
    return tmp_path / "somebody"


@pytest.fixture
def pinned(hub: HubServer, bundled: Path) -> Path:
    """The model of the manifest is on the Hub, pinned by its entry, and not in the installation;
    the manifest.
    """
    path = bundled / "manifest.json"
    values = json.loads(path.read_text())
    values["weights"][NAME] |= {"repo": REPO, "revision": hub.publish(REPO, bundled / NAME)}
    path.write_text(json.dumps(values))
    shutil.move(bundled / NAME, bundled / "elsewhere")
    read_manifest.cache_clear()
    return path
