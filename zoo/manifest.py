"""The manifest: which trained weights there are, where they lie, and what they are worth. Imports
no torch.
"""

import json
import re
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError

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


@dataclass(frozen=True)
class FileSpec:
    """What a file of a model folder has to be."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if not (
            isinstance(self.sha256, str)
            and re.fullmatch("[0-9a-f]{64}", self.sha256)
            and isinstance(self.bytes, int)
        ):
            raise ConfigError(
                f"sha256 {self.sha256!r}, bytes {self.bytes!r}: expected 64 hexadecimal digits and a number"
            )


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
    provenance: str
    recipe: str = ""  # the file that says how they were trained
    source: str = ""  # of converted weights: who trained them
    energy: dict[str, Any] | None = None  # what `zoo.publishing.bundle.energy_figures` returns
    repo: str | None = None  # on the Hub, `org/name`
    revision: str | None = None  # full commit sha
    parameters: int = 0

    def __post_init__(self) -> None:
        for file in self.files:
            if file in ("", ".", "..") or re.search(r"[/\\\0]", file):
                raise ConfigError(f"{file!r} is not the name of a file in the model's folder")
        if self.repo is not None and not (
            re.fullmatch(REPO, self.repo) and re.fullmatch(COMMIT, self.revision or "")
        ):
            raise ConfigError(
                f"repo {self.repo!r} at {self.revision!r}: expected 'org/name' and a commit of 40 hexadecimal digits"
            )

    @classmethod
    def from_dict(cls, name: str, entry: dict[str, Any]) -> "WeightsSpec":
        """An entry of the manifest. Raises `ConfigError` for a field that does not exist, is
        missing, or cannot be.
        """
        known = {f.name for f in fields(cls)} - {"name"}
        try:
            unknown = sorted(entry.keys() - known)
            if unknown:
                raise ConfigError(
                    f"unknown field {unknown[0]!r}; this zoo knows {', '.join(sorted(known))}"
                )
            if entry["provenance"] not in ("trained", "converted"):
                raise ConfigError(
                    f"provenance {entry['provenance']!r} is neither 'trained' nor 'converted'"
                )
            files = {file: FileSpec(**spec) for file, spec in entry["files"].items()}
            return cls(
                name=name, **entry | {"files": files, "data": DatasetSpec.from_dict(entry["data"])}
            )
        except KeyError as error:
            raise ConfigError(f"{name}: {error} is missing") from None
        except (AttributeError, TypeError, ConfigError) as error:
            raise ConfigError(f"{name}: {error}") from None


@dataclass(frozen=True)
class Manifest:
    """Every weights entry there is, and the data set that a bare name means."""

    weights: dict[str, WeightsSpec]
    defaults: dict[str, str] = field(default_factory=dict)  # architecture -> data set tag

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Raises `ConfigError` if the file is not a manifest of version 1."""
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["version"] != 1:
                raise ConfigError(f"version {values['version']!r}; this zoo reads version 1")
            weights = {
                name: WeightsSpec.from_dict(name, entry)
                for name, entry in values["weights"].items()
            }
            return cls(weights, values["defaults"])
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} is not a manifest: {error!r}") from None

    def default_dataset(self, architecture: str) -> str:
        """The tag of the data set that the bare name of an architecture means."""
        return self.defaults.get(architecture, "in1k")

    def tags(self, architecture: str) -> list[str]:
        """The data sets for which an architecture has weights."""
        return [
            name.partition(".")[2]
            for name in self.weights
            if name.partition(".")[0] == architecture
        ]


def weights_folder() -> Path:
    """Where the bundled weights and the manifest lie: inside an installed package, or beside it in
    a checkout.
    """
    installed = Path(__file__).parent / "weights"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "weights"


@cache
def read_manifest() -> Manifest:
    """The manifest of this installation."""
    return Manifest.read(weights_folder() / "manifest.json")
