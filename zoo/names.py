"""Names of models, what each name means, and the manifest of weights. Imports no torch, so that `zoo list` is quick.

    {danet|speck-danet|spiking-resnet|sew-resnet|ms-resnet}{depth}[variant]-t{T}[.{dataset}]

The variant is DANet's block order `a`-`d` (`a` is understood), or SEW's join `and`, `iand` (`add` is understood). Without a data
set the name means the architecture's weights with the highest top-1, whatever the data, or `in1k` where nothing was trained yet.
"""

import difflib
import json
import math
import os
import re
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from zoo.baselines import baseline_config
from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import ConfigError, UnknownName

__all__ = [
    "COMMIT",
    "GRAMMAR",
    "REPO",
    "FileSpec",
    "Manifest",
    "ModelSpec",
    "Origin",
    "WeightsSpec",
    "architectures",
    "as_name",
    "manifest",
    "weights_folder",
]

Depths = dict[int, tuple[tuple[int, ...], bool]]  # depth -> blocks in each stage, bottleneck
TINY: Depths = {8: ((1, 1, 1), False)}
SMALL: Depths = {20: ((3, 3, 3), False)}
RESNETS: Depths = {
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
DEPTHS: dict[str, Depths] = {
    "danet": SMALL | RESNETS,
    "speck-danet": TINY,
    "spiking-resnet": SMALL | RESNETS,
    "sew-resnet": SMALL | RESNETS,
    "ms-resnet": SMALL | {18: RESNETS[18], 34: RESNETS[34], 104: ((3, 8, 32, 8), False)},
}
VARIANTS = {
    "danet": ("", "b", "c", "d"),
    "speck-danet": ("",),
    "spiking-resnet": ("",),
    "sew-resnet": ("", "and", "iand"),
    "ms-resnet": ("",),
}
UNDERSTOOD = {"danet": "a", "sew-resnet": "add"}
STEMS = ((40, "small"), (96, "medium"), (math.inf, "imagenet"))  # up to how many pixels of height and width each serves
# A DANet for the nine cores of Speck 2e, each of which computes a convolution and its integrate-and-fire neurons, and sends to two
# others (`zoo check speck-danet8-t4 --target speck2e`): no block shortcuts, and one link between neighbouring stages.
SPECK: dict[str, Any] = {"order": "plain", "dense": False, "beta": 1.0, "reset": "subtract"}

GRAMMAR = re.compile(
    r"(?P<family>danet|speck-danet|spiking-resnet|sew-resnet|ms-resnet)(?P<depth>[1-9]\d{0,3})(?P<variant>[a-d]|and|iand|add)?"
    r"-t(?P<steps>0|[1-9]\d{0,3})(?:\.(?P<dataset>[a-z0-9]+))?",
    re.ASCII,  # \d means 0 to 9
)


REPO = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"  # a repository of the Hub
COMMIT = "[0-9a-f]{40}"


@dataclass(frozen=True)
class ModelSpec:
    """A parsed name."""

    family: str
    depth: int
    variant: str  # "" for the understood one
    steps: int
    dataset: str | None = None

    @classmethod
    def parse(cls, name: str, *, own_data: bool = False) -> "ModelSpec":
        """Raises `UnknownName` with the three nearest names, or for an unknown data set that may not be the user's own."""
        name = as_name(name)
        match = GRAMMAR.fullmatch(name)
        architecture, _, word = name.partition(".")
        if match is None and own_data and word and GRAMMAR.fullmatch(architecture):
            raise UnknownName(f"{name!r}: the word for images of your own is of letters a to z and digits, as {architecture}.pets")
        if match is None:
            raise UnknownName(f"unknown model {name!r}{_nearest(name)}")
        family, depth, steps, dataset = match["family"], int(match["depth"]), int(match["steps"]), match["dataset"]
        variant = match["variant"] or ""
        variant = "" if variant == UNDERSTOOD.get(family) else variant
        if depth not in DEPTHS[family] or variant not in VARIANTS[family]:
            raise UnknownName(f"unknown model {name!r}{_nearest(name)}")
        if not 1 <= steps <= 1024:
            raise UnknownName(f"{name!r}: T = {steps} time steps; valid are 1 to 1024")
        if dataset is not None and dataset not in DATASETS and not own_data:
            raise UnknownName(
                f"{name!r}: unknown data set {dataset!r}; valid are {', '.join(DATASETS)}; "
                "a model of your own images is loaded from its folder, and trained with `zoo train NAME --data FOLDER`"
            )
        return cls(family, depth, variant, steps, dataset)

    @property
    def architecture(self) -> str:
        return f"{self.family}{self.depth}{self.variant}-t{self.steps}"

    @property
    def name(self) -> str:
        return f"{self.architecture}.{self.dataset}" if self.dataset else self.architecture

    def config(self, dataset: DatasetSpec) -> dict[str, Any]:
        """The fields of `DANetConfig` for this name on that data."""
        depths, bottleneck = DEPTHS[self.family][self.depth]
        base = 16 if self.depth in TINY | SMALL else 256 if bottleneck else 64
        values: dict[str, Any] = {
            "depths": depths,
            "widths": tuple(base * 2**i for i in range(len(depths))),
            "bottleneck": bottleneck,
            "steps": self.steps,
            "in_channels": dataset.channels,
            "num_classes": dataset.num_classes,
            "stem": next(stem for size, stem in STEMS if dataset.size <= size),
        }
        if self.family == "danet":
            return values | {"order": self.variant or "a"}
        if self.family == "speck-danet":
            return values | SPECK | {"stem": "small" if dataset.size <= 32 else "medium"}
        large = values["stem"] == "imagenet"
        return values | baseline_config(self.family, self.depth, self.variant, large_images=large)


@dataclass(frozen=True)
class Origin:
    """Where a model in memory comes from; exports and reports repeat it."""

    name: str
    data: DatasetSpec
    weights: tuple[Path, ...] = ()  # the safetensors files; none: random weights
    precision: str = "float32"  # or how the weights were rounded for a chip


@dataclass(frozen=True)
class FileSpec:
    """What a file of a model folder has to be."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if not (isinstance(self.sha256, str) and re.fullmatch("[0-9a-f]{64}", self.sha256) and isinstance(self.bytes, int)):
            raise ConfigError(f"sha256 {self.sha256!r}, bytes {self.bytes!r}: expected 64 hexadecimal digits and a number")


@dataclass(frozen=True)
class WeightsSpec:
    """One entry of the manifest: trained weights, where they are, and what they are worth."""

    name: str
    files: dict[str, FileSpec]
    data: DatasetSpec
    metrics: dict[str, Any]
    licence: str
    provenance: str  # `trained` (our recipe, our log) or `converted`; `unknown` of what is no entry, as `DANet.save` leaves it
    recipe: str = ""  # the file that says how they were trained
    source: str = ""  # of converted weights: who trained them
    energy: dict[str, Any] | None = None  # what `zoo.bundle.energy_figures` returns
    repo: str | None = None  # on the Hub, `org/name`
    revision: str | None = None  # full commit sha
    parameters: int = 0

    def __post_init__(self) -> None:
        for file in self.files:
            if file in ("", ".", "..") or re.search(r"[/\\\0]", file):
                raise ConfigError(f"{file!r} is not the name of a file in the model's folder")
        if self.repo is not None and not (re.fullmatch(REPO, self.repo) and re.fullmatch(COMMIT, self.revision or "")):
            raise ConfigError(f"repo {self.repo!r} at {self.revision!r}: expected 'org/name' and a commit of 40 hexadecimal digits")

    @classmethod
    def from_dict(cls, name: str, entry: dict[str, Any]) -> "WeightsSpec":
        """An entry of the manifest. Raises `ConfigError` for a field that does not exist, is missing, or cannot be."""
        known = {f.name for f in fields(cls)} - {"name"}
        try:
            unknown = sorted(entry.keys() - known)
            if unknown:
                raise ConfigError(f"unknown field {unknown[0]!r}; this zoo knows {', '.join(sorted(known))}")
            if entry["provenance"] not in ("trained", "converted"):
                raise ConfigError(f"provenance {entry['provenance']!r} is neither 'trained' nor 'converted'")
            files = {file: FileSpec(**spec) for file, spec in entry["files"].items()}
            return cls(name=name, **entry | {"files": files, "data": DatasetSpec.from_dict(entry["data"])})
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
            weights = {name: WeightsSpec.from_dict(name, entry) for name, entry in values["weights"].items()}
            return cls(weights, values["defaults"])
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} is not a manifest: {error!r}") from None

    def resolve(self, spec: ModelSpec) -> ModelSpec:
        """The same spec with its data set named."""
        if spec.dataset:
            return spec
        tag = self.defaults.get(spec.architecture, "in1k")
        return ModelSpec(spec.family, spec.depth, spec.variant, spec.steps, tag)

    def tags(self, architecture: str) -> list[str]:
        """The data sets for which an architecture has weights."""
        return [name.partition(".")[2] for name in self.weights if name.partition(".")[0] == architecture]


def as_name(given: object) -> str:
    """A model's name or place as text. Raises `UnknownName` for what is neither text nor a path."""
    given = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(given, str):
        raise UnknownName(f"{given!r} is no name of a model: give a string, as 'danet20-t4'")
    return given


def weights_folder() -> Path:
    """Where the bundled weights and the manifest lie: inside an installed package, or beside it in a checkout."""
    installed = Path(__file__).parent / "weights"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "weights"


@cache
def manifest() -> Manifest:
    """The manifest of this installation."""
    return Manifest.read(weights_folder() / "manifest.json")


def architectures(steps: int = 4) -> list[str]:
    """Every architecture that can be created, at `steps` time steps."""
    return [
        ModelSpec(family, depth, variant, steps).architecture
        for family, depths in DEPTHS.items()
        for depth in depths
        for variant in VARIANTS[family]
    ]


def _nearest(name: str) -> str:
    known = [*architectures(), *manifest().weights]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
    return f"; nearest are {', '.join(near)} (see `zoo list --all`)"
