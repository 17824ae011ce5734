"""The manifest: which trained weights there are, where they lie, and what was measured of them.

`weights/manifest.json`: `{"version": 1, "defaults": {architecture: data set tag}, "weights": {name:
entry}}`. Imports no torch.
"""

import json
import re
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from zoo.datasets import DEFAULT_DATASET, DatasetSpec
from zoo.errors import ConfigError
from zoo.files import read_json, write_text
from zoo.records import Rule, at_least, read_record, shown

__all__ = [
    "COMMIT",
    "REPO",
    "FileSpec",
    "Manifest",
    "WeightsSpec",
    "read_manifest",
    "weights_folder",
]

REPO = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"  # a repository of the Hub
COMMIT = "[0-9a-f]{40}"
VERSION = 1  # of the manifest's format


@dataclass(frozen=True)
class FileSpec:
    """The sha256 and the size that a file of a model folder must have."""

    sha256: Annotated[
        str, Rule("64 hexadecimal digits", lambda text: bool(re.fullmatch("[0-9a-f]{64}", text)))
    ]
    bytes: Annotated[int, at_least(0)]


@dataclass(frozen=True)
class WeightsSpec:
    """One entry of the manifest: trained weights, where they are, and what they are worth."""

    name: str
    files: dict[str, FileSpec]
    data: DatasetSpec
    metrics: dict[str, Any]
    licence: str
    # `trained` (our recipe, our log) or `converted`; `unknown` of what is no entry, as `DANet.save`
    # leaves it
    provenance: Annotated[
        str, Rule("'trained' or 'converted'", lambda word: word in ("trained", "converted"))
    ]
    recipe: str = ""  # the file that says how they were trained
    source: str = ""  # of converted weights: who trained them
    energy: dict[str, Any] | None = None  # what `zoo.publishing.figures.energy_figures` returns
    repo: str | None = None  # on the Hub, `org/name`
    revision: str | None = None  # full commit sha
    parameters: Annotated[int, at_least(0)] = 0

    def __post_init__(self) -> None:
        for file in self.files:
            if file in ("", ".", "..") or re.search(r"[/\\\0]", file):
                raise ConfigError(f"{file!r} is not the name of a file in the model's folder")
        if self.repo is None:
            return
        if not (re.fullmatch(REPO, self.repo) and re.fullmatch(COMMIT, self.revision or "")):
            raise ConfigError(
                f"repo {self.repo!r} at {self.revision!r}: "
                "expected 'org/name' and a commit of 40 hexadecimal digits"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the fields but the name as they are written to JSON."""
        return {key: value for key, value in asdict(self).items() if key != "name"}


@dataclass(frozen=True)
class Manifest:
    """Every entry of trained weights there is, and the data set that a bare name means."""

    weights: dict[str, WeightsSpec]
    defaults: dict[str, str]  # architecture -> data set tag

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read a manifest. Raises `ConfigError` naming the entry and field that cannot be."""
        values = read_json(path)
        # The version comes first: another one may have other keys.
        if (version := values.pop("version", None)) != VERSION:
            raise ConfigError(
                f"{path}: version = {shown(version)}, but this zoo reads version {VERSION}"
            )
        return read_record(cls, values, str(path))

    def write(self, path: Path) -> None:
        """Write the manifest as `read` takes it, entries sorted by name, whole or not at all."""
        weights = {name: entry.to_dict() for name, entry in sorted(self.weights.items())}
        values = {"version": VERSION, "defaults": self.defaults, "weights": weights}
        write_text(path, json.dumps(values, indent=2) + "\n")

    def default_dataset(self, architecture: str) -> str:
        """Return the tag of the data set that the bare name of an architecture means."""
        return self.defaults.get(architecture, DEFAULT_DATASET)

    def tags(self, architecture: str) -> list[str]:
        """Return the tags of the data sets for which an architecture has weights."""
        names = (name.partition(".") for name in self.weights)
        return [tag for stem, _, tag in names if stem == architecture]


def weights_folder() -> Path:
    """Return the folder of the manifest and the bundled weights.

    It lies inside an installed package, and beside it in a checkout.
    """
    installed = Path(__file__).parent / "weights"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "weights"


@cache
def read_manifest() -> Manifest:
    """Return the manifest of this installation."""
    return Manifest.read(weights_folder() / "manifest.json")
