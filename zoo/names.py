"""The grammar of model names. Imports no torch, so that `zoo list` is quick.

    {family}{depth}[variant]-t{T}[.{dataset}[-p{zeros}][-w{bits}][-s{SynOps}]]

`zoo.families` has the families with their depths and variants: DANet's block order `a`-`d` (`a` is
the default), or SEW's join `and`, `iand` (`add` is). Without a data set the name means the
architecture's weights with the highest top-1, whatever the data, or `in1k` where nothing was
trained yet.

What follows the data set says how a network was made smaller in training: `-p90` that 90 % of the
weights that spikes meet are zero, `-w8` that its weights have 8 bits, `-s50` that a price in the
loss left about 50 % of the SynOps of the network that it started from.
"""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo.datasets import DATASETS, DEFAULT_DATASET, DatasetSpec
from zoo.errors import UnknownName, nearest
from zoo.families import FAMILIES
from zoo.manifest import REPO, read_manifest

__all__ = ["GRAMMAR", "ModelSpec", "architectures", "as_name"]

MAX_STEPS = 1024
# The longest first: a regular expression takes the first alternative that matches.
VARIANTS = sorted(
    {v for f in FAMILIES.values() for v in (*f.variants, f.default_variant)} - {""},
    key=len,
    reverse=True,
)
GRAMMAR = re.compile(
    rf"(?P<family>{'|'.join(FAMILIES)})(?P<depth>[1-9]\d{{0,3}})(?P<variant>{'|'.join(VARIANTS)})?"
    r"-t(?P<steps>0|[1-9]\d{0,3})(?:\.(?P<dataset>(?:i2e-)?[a-z0-9]+)"
    r"(?P<smaller>(?:-p[1-9]\d?)?(?:-w[18])?(?:-s[1-9]\d?)?))?",
    re.ASCII,  # \d means 0 to 9
)


@dataclass(frozen=True)
class ModelSpec:
    """A parsed name."""

    family: str
    depth: int
    variant: str  # "" for the default one
    steps: int
    dataset: str | None = None
    smaller: str = ""  # how it was made smaller, as "-p90-w8"

    @classmethod
    def parse(cls, name: str, *, own_data: bool = False) -> "ModelSpec":
        """Parse a name; with `own_data` its data set may be a word of the user's own.

        Raises `UnknownName` with the three nearest names, or with the data sets that are valid.
        """
        name = as_name(name)
        match = GRAMMAR.fullmatch(name)
        if match is None and ("/" in name or os.sep in name):
            if Path(name).is_file():
                raise UnknownName(
                    f"{name!r} is a file: a name, a model folder or hf:ORG/REPO is needed"
                )
            hub = f"; a model on the Hub is hf:{name}" if re.fullmatch(REPO, name) else ""
            raise UnknownName(f"{name!r}: there is no such model folder{hub}")
        if match is None:
            if re.search(r"\.[a-z0-9-]*-[pws]\d*(-|$)", name):
                raise UnknownName(
                    f"{name!r}: after the data come -p1 to -p99 (zeros), -w1 or -w8 (bits) and "
                    "-s1 to -s99 (SynOps), in this order"
                )
            architecture, _, word = name.partition(".")
            if own_data and word and GRAMMAR.fullmatch(architecture):
                raise UnknownName(
                    f"{name!r}: the word for images of your own is of letters a to z and digits, "
                    f"as {architecture}.pets"
                )
            raise UnknownName(f"unknown model {name!r}{_nearest(name)}")
        family, dataset = FAMILIES[match["family"]], match["dataset"]
        depth, steps = int(match["depth"]), int(match["steps"])
        variant = match["variant"] or ""
        variant = "" if variant == family.default_variant else variant
        if depth not in family.depths or variant not in family.variants:
            raise UnknownName(f"unknown model {name!r}{_nearest(name)}")
        if not 1 <= steps <= MAX_STEPS:
            raise UnknownName(f"{name!r}: T = {steps} time steps; valid are 1 to {MAX_STEPS}")
        # A word for images of one's own is no data set whose events are simulated.
        own_word = own_data and "-" not in (dataset or "")
        if dataset is not None and dataset not in DATASETS and not own_word:
            raise UnknownName(
                f"{name!r}: unknown data set {dataset!r}{nearest(dataset, DATASETS)}; valid are "
                f"{', '.join(DATASETS)}; a model "
                "of your own images is loaded from its folder, and trained with "
                "`zoo train NAME --data FOLDER`"
            )
        return cls(match["family"], depth, variant, steps, dataset, match["smaller"] or "")

    @property
    def architecture(self) -> str:
        """Return the name without its data set."""
        return f"{self.family}{self.depth}{self.variant}-t{self.steps}"

    @property
    def name(self) -> str:
        """Return the shortest name that parses to this, with its data set if it has one."""
        if not self.dataset:
            return self.architecture
        return f"{self.architecture}.{self.dataset}{self.smaller}"

    @property
    def zeros(self) -> float:
        """Return the share of zeros that the name says, 0 if it says none."""
        return int(self._smaller("p") or 0) / 100

    @property
    def weight_bits(self) -> int:
        """Return the bits of the weights that the name says, 0 if it says none."""
        return int(self._smaller("w") or 0)

    @property
    def fewer_synops(self) -> bool:
        """Return whether the name says that a loss paid for SynOps."""
        return bool(self._smaller("s"))

    def _smaller(self, letter: str) -> str:
        match = re.search(rf"-{letter}(\d+)", self.smaller)
        return match[1] if match else ""

    @property
    def data(self) -> DatasetSpec:
        """Return the data set of the zoo that the name says, or `in1k` if it says none."""
        return DATASETS[self.dataset or DEFAULT_DATASET]

    def config(self, data: DatasetSpec) -> dict[str, Any]:
        """Return the fields of `DANetConfig` for this name on `data`."""
        return FAMILIES[self.family].config(self.variant, self.depth, data) | {"steps": self.steps}

    def resolved(self) -> "ModelSpec":
        """Return the same name with its data set, where it has none that of its best weights."""
        if self.dataset:
            return self
        return replace(self, dataset=read_manifest().default_dataset(self.architecture))


def as_name(name: object) -> str:
    """Return a model's name or location as text.

    Raises `UnknownName` for what is neither text nor a path.
    """
    text = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(text, str):
        raise UnknownName(f"{text!r} is no name of a model: give a string, as 'danet20-t4'")
    return text


def architectures(steps: int = 4) -> list[str]:
    """Return the name of every architecture that can be created, at `steps` time steps."""
    return [
        ModelSpec(name, depth, variant, steps).architecture
        for name, family in FAMILIES.items()
        for depth in family.depths
        for variant in family.variants
    ]


def _nearest(name: str) -> str:
    """Return the end of an error message that names up to three names like `name`."""
    names = [*architectures(), *read_manifest().weights]
    return f"{nearest(name, names)} (see `zoo list --all`)"
