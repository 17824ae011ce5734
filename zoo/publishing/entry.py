"""The manifest entry of a model folder: its files, and what they say of the weights."""

from collections.abc import Iterable
from pathlib import Path

from zoo.datasets import DATASETS
from zoo.errors import WeightsError
from zoo.files import read_json
from zoo.integrity import file_spec
from zoo.layout import CONFIG_FILE, INDEX_FILE
from zoo.manifest import WeightsSpec
from zoo.provenance import (
    CONVERTED,
    CONVERTED_FILE,
    ENERGY_FILE,
    METRICS_FILE,
    RECIPE_FILE,
    TRAINED,
    TRAINED_FILES,
    UNKNOWN,
)
from zoo.weights import read_model

__all__ = ["describe", "no_record"]

RECORDS = {TRAINED: TRAINED_FILES, CONVERTED: (CONVERTED_FILE, METRICS_FILE), UNKNOWN: ()}


def describe(folder: Path) -> WeightsSpec:
    """Return the manifest entry of a model folder.

    It has every file that belongs to the model, and what these say. A folder without any record, as
    `DANet.save` leaves it, holds weights of unknown training. Raises `WeightsError` for one that
    lacks a part of its record, or holds a link out of the folder.
    """
    provenance = _provenance(folder)
    model = read_model(folder)
    origin = model.known_origin
    weights = (path.name for path in origin.weights)
    names = sorted({CONFIG_FILE, INDEX_FILE, ENERGY_FILE, *RECORDS[provenance], *weights})
    paths = {name: folder / name for name in names if (folder / name).is_file()}
    _check_no_links(folder, paths.values())
    values = {
        name: read_json(paths[name], WeightsError) if name in paths else None
        for name in (METRICS_FILE, ENERGY_FILE)
    }
    conversion = read_json(folder / CONVERTED_FILE, WeightsError) if provenance == CONVERTED else {}
    ours = provenance != UNKNOWN and origin.data.tag in DATASETS
    return WeightsSpec(
        name=origin.name,
        files={name: file_spec(path) for name, path in paths.items()},
        data=origin.data,
        metrics=values[METRICS_FILE] or {},
        licence=conversion.get("licence", "Apache-2.0" if ours else "unknown"),
        provenance=provenance,
        recipe=RECIPE_FILE if provenance == TRAINED else "",
        source=conversion.get("source", ""),
        energy=values[ENERGY_FILE],
        parameters=sum(p.numel() for p in model.parameters()),
    )


def no_record(folder: Path, file: str) -> WeightsError:
    """Return the error for a folder that lacks a file of its weights' record."""
    return WeightsError(
        f"{folder} lacks {file}: it is neither what a finished `zoo train` leaves nor `zoo convert`"
    )


def _provenance(folder: Path) -> str:
    """Return how the weights of a folder came to be; unknown where it has no record at all."""
    if (folder / CONVERTED_FILE).is_file():
        return CONVERTED
    missing = [file for file in TRAINED_FILES if not (folder / file).is_file()]
    if not missing:
        return TRAINED
    if missing == [*TRAINED_FILES] and (folder / CONFIG_FILE).is_file():
        return UNKNOWN
    raise no_record(folder, missing[0])


def _check_no_links(folder: Path, paths: Iterable[Path]) -> None:
    """Raise `WeightsError` for a link out of the folder: its target would be published."""
    for path in paths:
        if path.resolve().parent != folder.resolve():
            raise WeightsError(
                f"{path} is a link to {path.resolve()}, outside of the folder: "
                "put the file itself there"
            )
