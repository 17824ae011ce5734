"""The energy report for machines: JSON, as `report.schema.json` describes it, and CSV.

Counts are integers, exact sums over all images. Energies are picojoules an image.
"""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.energy.counting.count import COUNTS
from export.energy.profiles import Band, Operation, Profile
from export.energy.report import EnergyCounts
from export.energy.totals import Energy, LayerTotals, Tally

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
    """The JSON Schema of `to_json`."""
    found: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
    return found


def to_json(report: EnergyCounts) -> dict[str, Any]:
    """Plain values: all that the report holds."""
    source = report.source
    return {
        "schema": SCHEMA_VERSION,
        "source": {
            "name": source.name,
            "engine": source.engine,
            "steps": source.steps,
            "data": source.data.title if source.data else None,
            "weights_sha256": source.weights_sha256,
            "weights": source.weights,
            "precision": source.precision,
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
        "profiles": [_profile(e) for e in report.energies],
        "conventions": [_convention(tally, report) for tally in report.tallies.values()],
        "comparison": _comparison(report),
        "layers": [_layer(report, i, layer) for i, layer in enumerate(report.layers)],
        "images_operations": {
            _key(kind): n.tolist()
            for kind, n in report.tallies[report.convention.name].images.items()
        },
        "versions": dict(report.versions),
    }


def to_csv(report: EnergyCounts) -> str:
    """A line for each layer, and one for their sum. All of them name network, images and
    convention, for files to be joined.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    same = ("model", "engine", "images", "accuracy", "convention")
    energies = [f"pJ {e.profile.name}" for e in report.energies]
    lines.writerow([*same, "layer", "kind", "input_kind", *COUNTS, "firing_rate", *energies])
    source, accuracy = report.source, "" if report.accuracy is None else report.accuracy
    head = [
        _inert(source.name),
        _inert(source.engine),
        report.images,
        accuracy,
        report.convention.name,
    ]
    for i, layer in enumerate(report.layers):
        counts, rate = [layer.counts[key] for key in COUNTS], report.rate(layer)
        row = [
            _inert(layer.name),
            layer.kind,
            layer.input_kind,
            *counts,
            "" if rate is None else rate,
        ]
        lines.writerow([*head, *row, *(_typ(e.layers[i]) for e in report.energies)])
    totals = [report.total(key) for key in COUNTS]
    lines.writerow(
        [
            *head,
            "TOTAL",
            "",
            "",
            *totals,
            report.mean_rate,
            *(_typ(e.total) for e in report.energies),
        ]
    )
    return text.getvalue()


def differences(one: EnergyCounts, two: EnergyCounts) -> list[Difference]:
    """The layers whose integers differ, in the order in which they run: an error shows first where
    it arose.
    """
    ours, theirs = ({layer.name: layer for layer in report.layers} for report in (one, two))
    return [
        Difference(name, (_spikes(ours.get(name)), _spikes(theirs.get(name))))
        for name in dict.fromkeys((*ours, *theirs))
        if _integers(ours.get(name)) != _integers(theirs.get(name))
    ]


def same_images(one: EnergyCounts, two: EnergyCounts) -> bool:
    """Whether every image needs the same operations in both. Those of other conventions follow from
    the spikes and the structure, which a graph for chips and one for simulators may write in
    different words.
    """
    ours, theirs = one.tallies["exact"].images, two.tallies["exact"].images
    return ours.keys() == theirs.keys() and all(
        np.array_equal(n, theirs[kind]) for kind, n in ours.items()
    )


def _profile(e: Energy) -> dict[str, Any]:
    profile = e.profile
    return {
        "name": profile.name,
        "title": profile.title,
        "scope": profile.scope,
        "note": profile.note,
        "terms": {
            name: {**_band(term.band), "evidence": term.evidence, "source": term.source}
            for name, term in profile.terms.items()
        },
        "total_pj": e.total and _band(e.total),
        "deviation_pj": e.deviation,
        "interval_pj": e.interval and asdict(e.interval),
        "images_for_1_percent": e.images_for(0.01),
        "unpriced": list(e.unpriced),
    }


def _convention(tally: Tally, report: EnergyCounts) -> dict[str, Any]:
    convention, sums = tally.convention, Counter[Operation]()
    for layer in tally.layers:
        sums.update(layer)
    return {
        "name": convention.name,
        "explanation": convention.explanation,
        "reference": convention.reference,
        "operations": {_key(operation): n for operation, n in sums.items()},
        "energy_pj": {
            profile.name: _price(sums, report.images, profile) for profile in report.profiles
        },
    }


def _price(operations: Mapping[Operation, int], images: int, profile: Profile) -> float | None:
    """The typical energy of an image; without the resampling of images that comes with `Energy`."""
    bands = [(n / images, profile.price(operation)) for operation, n in operations.items()]
    priced = [n * band.typ for n, band in bands if band]
    return math.fsum(priced) if len(priced) == len(bands) else None


def _comparison(report: EnergyCounts) -> dict[str, Any] | None:
    """On the profile that is shown first, and by the exact convention."""
    if report.priced is None:
        return None
    profile = report.priced.profile
    spiking = report.energy(profile, "exact").total
    return {
        "profile": profile.name,
        "convention": "exact",
        "spiking_pj": spiking and _band(spiking),
        "alternatives": [
            {
                "name": other.name,
                "explanation": other.explanation,
                "operations": other.operations,
                "energy_pj": other.energy and _band(other.energy),
                "break_even_rate": other.break_even,
                "accuracy": other.accuracy,
            }
            for other in report.comparison(profile)
        ],
    }


def _layer(report: EnergyCounts, index: int, layer: LayerTotals) -> dict[str, Any]:
    bands = {e.profile.name: e.layers[index] for e in report.energies}
    return {
        **asdict(layer),
        "events": list(layer.events),
        "step_spikes": list(layer.step_spikes),
        "firing_rate": report.rate(layer),
        "firing_rate_per_step": list(report.step_rates(layer)),
        "energy_pj": {name: band and _band(band) for name, band in bands.items()},
    }


def _band(band: Band) -> dict[str, float]:
    return asdict(band)


def _typ(band: Band | None) -> float | str:
    return "" if band is None else band.typ


def _key(operation: Operation) -> str:
    """`ac`, or with the bytes of the memory `access:8192`."""
    return f"{operation.kind}:{operation.bytes}" if operation.kind == "access" else operation.kind


def _inert(name: str) -> str:
    """As text that no spreadsheet computes."""
    return f"'{name}" if name.startswith(FORMULA) else name


def _spikes(layer: LayerTotals | None) -> int | None:
    return None if layer is None else layer.counts["spikes"]


def _integers(layer: LayerTotals | None) -> Any:
    return layer and (layer.counts, layer.events, layer.step_spikes)
