"""How a network's weights came to be, as far as it can be known: trained, converted, random or
unknown.
"""

from dataclasses import dataclass
from pathlib import Path

from zoo.datasets import DatasetSpec
from zoo.manifest import read_manifest

__all__ = [
    "CONVERTED_FILE",
    "ENERGY_FILE",
    "RANDOM",
    "RECORD_FILES",
    "TRAINED_FILES",
    "UNKNOWN",
    "Origin",
    "provenance_in_words",
    "provenance_of",
    "provenance_of_digest",
]

TRAINED, CONVERTED, RANDOM, UNKNOWN = "trained", "converted", "random", "unknown"
# what `zoo train` leaves beside the weights
TRAINED_FILES = ("metrics.json", "metrics.jsonl", "recipe.json")
CONVERTED_FILE = "provenance.json"  # what `zoo convert` leaves
ENERGY_FILE = "energy.json"  # what `python -m zoo.publishing.bundle` leaves
# all that may be said beside the weights, of these weights alone
RECORD_FILES = (*TRAINED_FILES, CONVERTED_FILE, ENERGY_FILE)


@dataclass(frozen=True)
class Origin:
    """Where a model in memory comes from; exports and reports repeat it."""

    name: str
    data: DatasetSpec
    weights: tuple[Path, ...] = ()  # the safetensors files; none: random weights
    precision: str = "float32"  # or how the weights were rounded for a chip


def provenance_of(origin: Origin) -> str:
    """The provenance of a model in memory, by the files beside its weights."""
    if not origin.weights:
        return RANDOM
    folder = origin.weights[0].parent
    if (folder / CONVERTED_FILE).is_file():
        return CONVERTED
    return TRAINED if all((folder / file).is_file() for file in TRAINED_FILES) else UNKNOWN


def provenance_of_digest(sha256: str | None) -> str:
    """The provenance of an exported file that names its weights by their sha256: "" for random
    ones, None if it does not say.
    """
    if sha256 == "":
        return RANDOM
    entries = read_manifest().weights.values()
    return next(
        (e.provenance for e in entries if sha256 in {file.sha256 for file in e.files.values()}),
        UNKNOWN,
    )


def provenance_in_words(provenance: str, precision: str) -> str:
    """How weights came to be and how they are rounded, for people."""
    return f"{'weights of unknown training' if provenance == UNKNOWN else f'{provenance} weights'}, {precision}"
