"""How a network's weights came to be, as far as it can be known: trained, converted, random or unknown."""

from zoo.names import Origin, manifest

__all__ = [
    "CONVERTED_FILE",
    "ENERGY_FILE",
    "RANDOM",
    "RECORD_FILES",
    "TRAINED_FILES",
    "UNKNOWN",
    "provenance_in_words",
    "provenance_of",
    "provenance_of_digest",
]

TRAINED, CONVERTED, RANDOM, UNKNOWN = "trained", "converted", "random", "unknown"
TRAINED_FILES = ("metrics.json", "metrics.jsonl", "recipe.json")  # what `zoo train` leaves beside the weights
CONVERTED_FILE = "provenance.json"  # what `zoo convert` leaves
ENERGY_FILE = "energy.json"  # what `python -m zoo.bundle` leaves
RECORD_FILES = (*TRAINED_FILES, CONVERTED_FILE, ENERGY_FILE)  # all that may be said beside the weights, of these weights alone


def provenance_of(origin: Origin) -> str:
    """The provenance of a model in memory, by the files beside its weights."""
    if not origin.weights:
        return RANDOM
    folder = origin.weights[0].parent
    if (folder / CONVERTED_FILE).is_file():
        return CONVERTED
    return TRAINED if all((folder / file).is_file() for file in TRAINED_FILES) else UNKNOWN


def provenance_of_digest(sha256: str | None) -> str:
    """The provenance of an exported file that names its weights by their sha256: "" for random ones, None if it does not say."""
    if sha256 == "":
        return RANDOM
    entries = manifest().weights.values()
    return next((e.provenance for e in entries if sha256 in {file.sha256 for file in e.files.values()}), UNKNOWN)


def provenance_in_words(provenance: str, precision: str) -> str:
    """How weights came to be and how they are rounded, for people."""
    return f"{'weights of unknown training' if provenance == UNKNOWN else f'{provenance} weights'}, {precision}"
