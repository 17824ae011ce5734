"""The provenance of weights says how they came to be, as far as files can tell.

They were trained by this project's recipes, converted from a published checkpoint, are random, or
their training is unknown.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from zoo.datasets import DatasetSpec
from zoo.manifest import read_manifest

__all__ = [
    "CONVERTED",
    "CONVERTED_FILE",
    "ENERGY_FILE",
    "METRICS_FILE",
    "RANDOM",
    "RECIPE_FILE",
    "RECORD_FILES",
    "TRAINED",
    "TRAINED_FILES",
    "UNKNOWN",
    "WEIGHT_FORMATS",
    "Origin",
    "WeightFormat",
    "provenance_in_words",
    "provenance_of",
    "provenance_of_digest",
]

TRAINED, CONVERTED, RANDOM, UNKNOWN = "trained", "converted", "random", "unknown"

# The record of a model folder's weights: files beside them that speak of these weights alone.
METRICS_FILE, LOG_FILE, RECIPE_FILE = "metrics.json", "metrics.jsonl", "recipe.json"
TRAINED_FILES = (METRICS_FILE, LOG_FILE, RECIPE_FILE)  # what `zoo train` leaves
CONVERTED_FILE = "provenance.json"  # what `zoo convert` leaves
ENERGY_FILE = "energy.json"  # what `python -m zoo.publishing.bundle` leaves
RECORD_FILES = (*TRAINED_FILES, CONVERTED_FILE, ENERGY_FILE)

# The number format of weights: as they were trained, or as chips hold them (`export.prepare`).
WeightFormat = Literal["float32", "int8", "int8-layer"]
WEIGHT_FORMATS: tuple[WeightFormat, ...] = get_args(WeightFormat)


@dataclass(frozen=True)
class Origin:
    """The name, data and weights of a model in memory; exports and reports repeat them."""

    name: str
    data: DatasetSpec
    weights: tuple[Path, ...] = ()  # the safetensors files; none: random weights
    weight_format: WeightFormat = "float32"

    def with_classes(self, number: int) -> "Origin":
        """Return the origin of this model with a new last layer for `number` classes.

        Where the number is another one, a name that has the tag of the data does so still.
        """
        data = self.data.with_classes(number)
        name, dot, tag = self.name.rpartition(".")
        if dot and (tag == self.data.tag or tag.startswith(f"{self.data.tag}-")):
            name = f"{name}.{data.tag}{tag.removeprefix(self.data.tag)}"
        else:
            name = self.name
        return replace(self, name=name, data=data, weights=())


def provenance_of(origin: Origin) -> str:
    """Return the provenance of a model in memory, told by the files beside its weights."""
    if not origin.weights:
        return RANDOM
    folder = origin.weights[0].parent
    if (folder / CONVERTED_FILE).is_file():
        return CONVERTED
    return TRAINED if all((folder / file).is_file() for file in TRAINED_FILES) else UNKNOWN


def provenance_of_digest(sha256: str | None) -> str:
    """Return the provenance of an exported file that names its weights by their sha256.

    The sha256 is "" for random weights, and None if the file does not say.
    """
    if sha256 == "":
        return RANDOM
    for entry in read_manifest().weights.values():
        if any(file.sha256 == sha256 for file in entry.files.values()):
            return entry.provenance
    return UNKNOWN


def provenance_in_words(provenance: str, weight_format: str) -> str:
    """Say for people how weights came to be and how they are rounded."""
    weights = "weights of unknown training" if provenance == UNKNOWN else f"{provenance} weights"
    return f"{weights}, {weight_format}"
