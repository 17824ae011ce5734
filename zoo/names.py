"""What a model's name means. Imports no torch, so that `zoo list` is quick.

    {family}{depth}[variant]-t{T}[.{dataset}]

`zoo.families` has the families with their depths and variants: DANet's block order `a`-`d` (`a` is
the default), or SEW's join `and`, `iand` (`add` is). Without a data set the name means the
architecture's weights with the highest top-1, whatever the data, or `in1k` where nothing was
trained yet.
"""

import difflib
import os
import re
from dataclasses import dataclass, replace
from typing import Any

from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import UnknownName
from zoo.families import FAMILIES
from zoo.manifest import read_manifest

__all__ = ["GRAMMAR", "ModelSpec", "architectures", "as_name"]

VARIANTS = sorted(
    {v for f in FAMILIES.values() for v in (*f.variants, f.default_variant)} - {""},
    key=len,
    reverse=True,
)
GRAMMAR = re.compile(
    rf"(?P<family>{'|'.join(FAMILIES)})(?P<depth>[1-9]\d{{0,3}})(?P<variant>{'|'.join(VARIANTS)})?"
    r"-t(?P<steps>0|[1-9]\d{0,3})(?:\.(?P<dataset>[a-z0-9]+))?",
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

    @classmethod
    def parse(cls, name: str, *, own_data: bool = False) -> "ModelSpec":
        """Raises `UnknownName` with the three nearest names, or for an unknown data set that may
        not be the user's own.
        """
        name = as_name(name)
        match = GRAMMAR.fullmatch(name)
        architecture, _, word = name.partition(".")
        if match is None and own_data and word and GRAMMAR.fullmatch(architecture):
            raise UnknownName(
                f"{name!r}: the word for images of your own is of letters a to z and digits, as {architecture}.pets"
            )
        if match is None:
            raise UnknownName(f"unknown model {name!r}{_nearest(name)}")
        family, depth, steps, dataset = (
            match["family"],
            int(match["depth"]),
            int(match["steps"]),
            match["dataset"],
        )
        variant = match["variant"] or ""
        variant = "" if variant == FAMILIES[family].default_variant else variant
        if depth not in FAMILIES[family].depths or variant not in FAMILIES[family].variants:
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

    def config(self, data: DatasetSpec) -> dict[str, Any]:
        """The fields of `DANetConfig` for this name on `data`."""
        return FAMILIES[self.family].config(self.variant, self.depth, data) | {"steps": self.steps}

    def resolved(self) -> "ModelSpec":
        """The same name with its data set: where it names none, that of the weights which are its
        default.
        """
        return (
            self
            if self.dataset
            else replace(self, dataset=read_manifest().default_dataset(self.architecture))
        )


def as_name(given: object) -> str:
    """A model's name or place as text. Raises `UnknownName` for what is neither text nor a path."""
    given = os.fspath(given) if isinstance(given, os.PathLike) else given
    if not isinstance(given, str):
        raise UnknownName(f"{given!r} is no name of a model: give a string, as 'danet20-t4'")
    return given


def architectures(steps: int = 4) -> list[str]:
    """Every architecture that can be created, at `steps` time steps."""
    return [
        ModelSpec(name, depth, variant, steps).architecture
        for name, family in FAMILIES.items()
        for depth in family.depths
        for variant in family.variants
    ]


def _nearest(name: str) -> str:
    known = [*architectures(), *read_manifest().weights]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.0)
    return f"; nearest are {', '.join(near)} (see `zoo list --all`)"
