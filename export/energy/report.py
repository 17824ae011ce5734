"""The energy report: one model, one set of images, every layer's counts, and what they cost on each profile.

Counts are kept as integers over all images; means and energies are computed from them. Accuracy stands beside energy, and every
rendering names convention and profile.

Shapes: `N` images, `T` time steps, `B` images of a batch, `K` classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

import zoo
from export.energy import html, terminal
from export.energy.conventions import CONVENTIONS, Convention
from export.energy.counting import LayerCounts, count, merge
from export.energy.executors import run_torch
from export.energy.profiles import Energy, energy, read_profiles
from export.energy.structure import structure
from export.energy.windows import Array
from export.nir import to_nir
from zoo.danet import DANet
from zoo.errors import InputError
from zoo.weights import digest

__all__ = ["EnergyReport", "energy_report"]

COUNTS = ("macs", "acs", "adds", "bias_adds", "multiplies", "updates", "spikes")  # of `LayerCounts`, one number an image


@dataclass(frozen=True)
class EnergyReport:
    """Exact counts and their energy, for terminal, machine and browser."""

    model: str
    weights_sha256: str  # empty for random weights
    data: str  # title of the data set
    images: int
    steps: int
    accuracy: float | None  # top-1 on these images; None where they have no labels
    convention: Convention
    layers: tuple[LayerCounts, ...]
    energies: tuple[Energy, ...]  # one a profile
    step_rates: tuple[float, ...]  # spikes per neuron, at each step
    versions: dict[str, str]

    def total(self, key: str) -> int:
        """The sum of one of `COUNTS` over all layers and images."""
        return sum(self.layer_total(layer, key) for layer in self.layers)

    def layer_total(self, layer: LayerCounts, key: str) -> int:
        value = getattr(layer, key)
        return value * self.images if isinstance(value, int) else int(value.sum())

    def rate(self, layer: LayerCounts) -> float | None:
        """Spikes per neuron and step; None for a layer without neurons."""
        return self.layer_total(layer, "spikes") / (layer.updates * self.images) if layer.kind == "neuron" else None

    @property
    def mean_rate(self) -> float:
        """Spikes per neuron and step, over all neurons."""
        return self.total("spikes") / max(1, self.total("updates"))

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dump`. Counts are exact sums over all images; energies are picojoules an image."""
        return {
            "schema": 1,
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "data": self.data,
            "images": self.images,
            "steps": self.steps,
            "accuracy": self.accuracy,
            "convention": asdict(self.convention),
            "counts": {key: self.total(key) for key in COUNTS},
            "firing_rate": self.mean_rate,
            "firing_rate_per_step": list(self.step_rates),
            "energies": [_energy_json(e) for e in self.energies],
            "layers": [self._layer_json(i, layer) for i, layer in enumerate(self.layers)],
            "versions": self.versions,
        }

    def to_html(self) -> str:
        """One page that needs nothing else."""
        return html.render(self)

    def print(self, console: Console) -> None:
        """The costliest layers and the totals."""
        terminal.render(self, console)

    def _layer_json(self, index: int, layer: LayerCounts) -> dict[str, Any]:
        same = ("name", "kind", "input_kind", "input_bound", "outputs", "dense_macs_padded", "dense_macs_valid")
        bands = {e.profile.name: e.layers[index] for e in self.energies}
        return {
            **{key: getattr(layer, key) for key in same},
            "counts": {key: self.layer_total(layer, key) for key in COUNTS},
            "firing_rate": self.rate(layer),
            "energy_pj": {name: asdict(band) if band else None for name, band in bands.items()},
        }


def energy_report(
    model: DANet,
    images: Tensor,
    labels: Tensor | Sequence[int] | None = None,
    *,
    batch: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> EnergyReport:
    """Run `model` on the normalised still images `[N, C, H, W]`; `labels` `[N]` give the accuracy; `progress(done, total)` counts
    images. Raises `ExportError` for a model without NIR form, `InputError` for images that it cannot take."""
    labels = None if labels is None else torch.as_tensor(labels).cpu()
    _check(images, labels, batch)
    layers = structure(to_nir(model, profile="native"))
    batches: list[list[LayerCounts]] = []
    spikes: list[Array] = []  # [T, B], of all neurons
    answers: list[Tensor] = []  # [B]
    for logits, maps in run_torch(model, images, batch=batch):
        batches.append(count(layers, maps))
        spikes.append(sum(maps.per_step.values(), np.zeros((maps.steps, len(logits)), np.int64)))
        answers.append(logits.argmax(1))
        if progress:
            progress(sum(map(len, answers)), len(images))
    rows = merge(batches)
    neurons = sum(row.outputs for row in rows if row.kind == "neuron")
    origin = model.origin
    assert origin is not None  # or `to_nir` would have refused
    return EnergyReport(
        model=origin.name,
        weights_sha256=digest(origin.weights),
        data=origin.data.title,
        images=len(images),
        steps=model.config.steps,
        accuracy=None if labels is None else (torch.cat(answers) == labels).double().mean().item(),
        convention=CONVENTIONS["exact"],
        layers=tuple(rows),
        energies=tuple(energy(rows, profile) for profile in read_profiles().values()),
        step_rates=tuple((np.concatenate(spikes, axis=1).mean(1) / neurons).tolist()),
        versions={
            "danet-zoo": zoo.__version__,
            "torch": torch.__version__,
            **{name: version(name) for name in ("snntorch", "nir", "numpy")},
        },
    )


def _check(images: Tensor, labels: Tensor | None, batch: int) -> None:
    fit = images.dim() == 4 and len(images) > 0 and (labels is None or labels.shape == images.shape[:1])
    if not fit or batch < 1:
        given = f"images {list(images.shape)}, labels {'none' if labels is None else list(labels.shape)}, batch {batch}"
        raise InputError(f"{given}: expected [N, C, H, W] and [N], with at least one image and a batch of at least one")


def _energy_json(e: Energy) -> dict[str, Any]:
    return {
        "profile": e.profile.name,
        "title": e.profile.title,
        "total_pj": asdict(e.total) if e.total else None,
        "standard_error_pj": e.standard_error,
        "unpriced": list(e.unpriced),
        "terms": {
            name: {**asdict(term.band), "evidence": term.evidence, "source": term.source} for name, term in e.profile.terms.items()
        },
    }
