"""The energy report for machines: JSON, as `report.schema.json` describes it, and CSV.

Counts are integers, exact sums over all images. Energies are picojoules an image. Both formats call
a device a profile.
"""

import csv
import io
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.energy.conventions import EXACT
from export.energy.counting.count import COUNTS
from export.energy.devices import Band
from export.energy.operations import Operation
from export.energy.results import EnergyResults
from export.energy.totals import Energy, LayerTotals, OperationCounts, price_of_mean

__all__ = [
    "SCHEMA_VERSION",
    "Difference",
    "differences",
    "same_images",
    "schema",
    "to_csv",
    "to_json",
]

SCHEMA_VERSION = 3
SCHEMA = Path(__file__).with_name("report.schema.json")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the start of one


@dataclass(frozen=True)
class Difference:
    """A layer that two reports do not count alike."""

    layer: str
    # over all images; None in a report that has no such layer
    spikes: tuple[int | None, int | None]


def schema() -> dict[str, Any]:
    """Return the JSON Schema of `to_json`."""
    document: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return document


def to_json(report: EnergyResults) -> dict[str, Any]:
    """Return all that the report holds as plain values."""
    source = report.source
    return {
        "schema": SCHEMA_VERSION,
        "source": {
            "name": source.name,
            "engine": source.engine,
            "steps": source.steps,
            "data": source.data.title if source.data else None,
            "weights_sha256": source.weights_sha256,
            "weights": source.provenance,
            "precision": source.weight_format,
            "assumed_dt": source.assumed_dt,
        },
        "silent": report.silent,
        "silent_layers": list(report.silent_layers),
        "notes": list(report.notes),
        "images": report.images,
        "accuracy": report.accuracy,
        "convention": report.convention.name,
        "counts": {key: report.total(key) for key in COUNTS},
        "firing_rate": report.mean_rate,
        "firing_rate_per_step": list(report.mean_step_rates),
        "profiles": [_device(e) for e in report.energies],
        "conventions": [_convention(counts, report) for counts in report.operations.values()],
        "comparison": _comparison(report),
        "layers": [_layer(report, i, layer) for i, layer in enumerate(report.layers)],
        "images_operations": {
            _key(kind): n.tolist()
            for kind, n in report.operations[report.convention.name].by_image.items()
        },
        "versions": dict(report.versions),
    }


def to_csv(report: EnergyResults) -> str:
    """Return a line for each layer, and one for their sum.

    All of them name network, images and convention, for files to be joined.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    columns = ("model", "engine", "images", "accuracy", "convention", "layer", "kind", "input_kind")
    energies = [f"pJ {e.device.name}" for e in report.energies]
    lines.writerow([*columns, *COUNTS, "firing_rate", *energies])
    names = (_inert(report.source.name), _inert(report.source.engine))
    head = [*names, report.images, _cell(report.accuracy), report.convention.name]
    for i, layer in enumerate(report.layers):
        row = [_inert(layer.name), layer.kind, layer.input_kind]
        counts = [layer.counts[key] for key in COUNTS]
        prices = [_typ(e.layers[i]) for e in report.energies]
        lines.writerow([*head, *row, *counts, _cell(report.rate(layer)), *prices])
    totals, prices = map(report.total, COUNTS), [_typ(e.total) for e in report.energies]
    lines.writerow([*head, "TOTAL", "", "", *totals, report.mean_rate, *prices])
    return text.getvalue()


def differences(one: EnergyResults, two: EnergyResults) -> list[Difference]:
    """Return the layers whose integers differ, in the order in which they run.

    So an error shows first where it arose.
    """
    ours, theirs = ({layer.name: layer for layer in report.layers} for report in (one, two))
    return [
        Difference(name, (_spikes(ours.get(name)), _spikes(theirs.get(name))))
        for name in dict.fromkeys((*ours, *theirs))
        if _integers(ours.get(name)) != _integers(theirs.get(name))
    ]


def same_images(one: EnergyResults, two: EnergyResults) -> bool:
    """Return whether every image needs the same operations in both, by the exact convention.

    Those of other conventions follow from the spikes and the structure, which a graph for chips and
    one for simulators may write in different words.
    """
    ours, theirs = (report.operations[EXACT.name].by_image for report in (one, two))
    same = (np.array_equal(n, theirs[operation]) for operation, n in ours.items())
    return ours.keys() == theirs.keys() and all(same)


def _device(e: Energy) -> dict[str, Any]:
    return {
        "name": e.device.name,
        "title": e.device.title,
        "scope": e.device.scope,
        "note": e.device.note,
        "terms": {name: asdict(term) for name, term in e.device.terms.items()},
        "total_pj": e.total and asdict(e.total),
        "deviation_pj": e.deviation,
        "interval_pj": e.interval and asdict(e.interval),
        "images_for_1_percent": e.images_for(0.01),
        "unpriced": list(e.unpriced),
    }


def _convention(counts: OperationCounts, report: EnergyResults) -> dict[str, Any]:
    convention, sums = counts.convention, Counter[Operation]()
    for layer in counts.by_layer:
        sums.update(layer)
    means = {operation: n / report.images for operation, n in sums.items()}
    # Priced without the resampling of images that comes with `Energy`.
    energies = {device.name: price_of_mean(means, device) for device in report.devices}
    return {
        "name": convention.name,
        "explanation": convention.explanation,
        "reference": convention.reference,
        "operations": {_key(operation): n for operation, n in sums.items()},
        "energy_pj": {name: band and band.typ for name, band in energies.items()},
    }


def _comparison(report: EnergyResults) -> dict[str, Any] | None:
    """Return the networks without spikes, on the device that is shown first."""
    if report.priced is None:
        return None
    device = report.priced.device
    spiking = report.energy(device, EXACT.name).total
    return {
        "profile": device.name,
        "convention": EXACT.name,
        "spiking_pj": spiking and asdict(spiking),
        "alternatives": [
            {
                "name": other.name,
                "explanation": other.explanation,
                "operations": other.operations,
                "energy_pj": other.energy and asdict(other.energy),
                "break_even_rate": other.break_even,
                "accuracy": other.accuracy,
            }
            for other in report.comparison(device)
        ],
    }


def _layer(report: EnergyResults, index: int, layer: LayerTotals) -> dict[str, Any]:
    bands = {e.device.name: e.layers[index] for e in report.energies}
    return {
        **asdict(layer),
        "events": list(layer.events),
        "step_spikes": list(layer.step_spikes),
        "firing_rate": report.rate(layer),
        "firing_rate_per_step": list(report.step_rates(layer)),
        "energy_pj": {name: band and asdict(band) for name, band in bands.items()},
    }


def _typ(band: Band | None) -> float | str:
    return "" if band is None else band.typ


def _cell(value: float | None) -> float | str:
    return "" if value is None else value


def _key(operation: Operation) -> str:
    """Return `ac`, or with the bytes of the memory `access:8192`."""
    return f"{operation.kind}:{operation.bytes}" if operation.kind == "access" else operation.kind


def _inert(name: str) -> str:
    """Return a name as text that no spreadsheet computes."""
    return f"'{name}" if name.startswith(FORMULA) else name


def _spikes(layer: LayerTotals | None) -> int | None:
    return None if layer is None else layer.counts["spikes"]


def _integers(layer: LayerTotals | None) -> Any:
    return layer and (layer.counts, layer.events, layer.step_spikes)
