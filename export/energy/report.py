"""The energy report: one network, one set of images, every layer's counts, and what they cost on each profile.

Counts are kept as integers over all images; means and energies are computed from them. Accuracy stands beside energy, and every
rendering names convention and profile.

Shapes: `N` images, `T` time steps, `B` images of a batch, `K` classes.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nir
import torch
from rich.console import Console
from torch import Tensor

import zoo
from export.energy import document, html, parallel, terminal
from export.energy.comparison import Alternative, compare
from export.energy.conventions import Convention, find_convention
from export.energy.counting import count
from export.energy.executors import Executor, Source, executor
from export.energy.profiles import Profile, find_profiles
from export.energy.tally import Energy, LayerTotals, Tally, Totals, energy
from export.inputs import check_normalised
from zoo.danet import DANet
from zoo.errors import InputError
from zoo.provenance import provenance_in_words
from zoo.silence import assumed_dt, is_silent, silent_layers, what_is_silent

__all__ = ["Batches", "EnergyReport", "estimate"]

Batches = Iterable[tuple[Tensor, Tensor | None]]  # normalised images or frames, and their labels [B]


@dataclass(frozen=True)
class EnergyReport:
    """Exact counts and their energy, for terminal, machine and browser."""

    source: Source
    images: int
    accuracy: float | None  # top-1 on these images; None where they have no labels
    convention: Convention
    profiles: tuple[Profile, ...]
    layers: tuple[LayerTotals, ...]
    tallies: dict[str, Tally]  # by convention
    versions: dict[str, str]

    @property
    def steps(self) -> int:
        """T."""
        return self.source.steps

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Sentences to read beside the figures: on layers that never fired, and a time step that nobody gave."""
        assumed = [] if self.source.assumed_dt is None else [assumed_dt(self.source.assumed_dt)]
        return tuple(note for note in (what_is_silent(self._spikes), *assumed) if note)

    @property
    def silent(self) -> bool:
        """Whether no neuron fired on any image."""
        return is_silent(self._spikes)

    @property
    def silent_layers(self) -> tuple[str, ...]:
        """The layers of neurons that fired on no image."""
        return silent_layers(self._spikes)

    @cached_property
    def _spikes(self) -> dict[str, int]:
        return {layer.name: layer.counts["spikes"] for layer in self.layers if layer.kind == "neuron"}

    @property
    def weights(self) -> str:
        """Whose weights were counted, in words."""
        return provenance_in_words(self.source.weights, self.source.precision)

    @property
    def data(self) -> str:
        """What the images are, in words."""
        return self.source.data.title if self.source.data else "data that the graph does not name"

    @cached_property
    def energies(self) -> tuple[Energy, ...]:
        """By the report's convention, one a profile."""
        return tuple(self.energy(profile) for profile in self.profiles)

    def energy(self, profile: Profile, convention: str | None = None) -> Energy:
        """On one profile, by any convention."""
        return energy(self.tallies[convention or self.convention.name], profile)

    @cached_property
    def priced(self) -> Energy | None:
        """On the first profile that has a price for everything; what plots and comparisons show."""
        return next((e for e in self.energies if e.total), None)

    def comparison(self, profile: Profile) -> tuple[Alternative, ...]:
        """The same network without spikes."""
        return compare(self.layers, self.images, self.steps, self.mean_rate, self.energy(profile, "exact").total, profile)

    def total(self, key: str) -> int:
        """The sum of one of `COUNTS` over all layers and images."""
        return sum(layer.counts[key] for layer in self.layers)

    @property
    def recurrent_acs(self) -> int:
        """SynOps of recurrent connections, over all images."""
        return sum(layer.counts["acs"] for layer in self.layers if layer.recurrent)

    def rate(self, layer: LayerTotals) -> float | None:
        """Spikes per neuron and step; None for a layer without neurons."""
        return layer.counts["spikes"] / layer.counts["updates"] if layer.kind == "neuron" else None

    def step_rates(self, layer: LayerTotals) -> tuple[float, ...]:
        """Spikes per neuron, at each step."""
        return tuple(spikes / (layer.outputs * self.images) for spikes in layer.step_spikes)

    @property
    def mean_rate(self) -> float:
        """Spikes per neuron and step, over all neurons."""
        return self.total("spikes") / max(1, self.total("updates"))

    @property
    def mean_step_rates(self) -> tuple[float, ...]:
        """Spikes per neuron, at each step, over all neurons."""
        neurons = [layer for layer in self.layers if layer.kind == "neuron"]
        total = self.images * sum(layer.outputs for layer in neurons)
        return tuple(sum(spikes) / total for spikes in zip(*(layer.step_spikes for layer in neurons), strict=True))

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dump`, as `report.schema.json` describes them. Counts are exact sums over all images; energies are
        picojoules an image."""
        return document.to_json(self)

    def to_csv(self) -> str:
        """A line for each layer: counts over all images, and picojoules an image on every profile."""
        return document.to_csv(self)

    def to_html(self) -> str:
        """One page that needs nothing else."""
        return html.render([self])

    def print(self, console: Console) -> None:
        """The costliest layers and the totals."""
        terminal.render(self, console)


def estimate(
    model_or_graph: "DANet | nir.NIRGraph | str | Path | Executor",
    images: Tensor | Batches,
    labels: Tensor | Sequence[int] | None = None,
    *,
    convention: str = "exact",
    profile: str | Path | Sequence[str | Path] = (),
    steps: int | None = None,
    dt: float | None = None,
    batch: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> EnergyReport:
    """Count what a network does on images, and price it.

    `model_or_graph`: a model, a NIR graph, or a file `.onnx` or `.nir`. `images`: normalised, `[N, ...]`, or frames `[T, N, ...]`
    for a network that takes such; or batches of them with labels, of which only integers are kept. `profile`: names, or `.toml`
    files of your own (all shipped ones by default). `steps`: T, and `dt`: seconds a step, of a graph that does not say it.
    `progress`: given the images done.

    In processes that `torchrun` started, a tensor of images is split between them, and all of them return the same report; batches
    are taken as the part of the process that gives them.

    Raises `ExportError` or `InputError` for a network that cannot be counted or images that it cannot take, `ConfigError` for an
    unknown convention or profile.
    """
    chosen = find_convention(convention)
    words = [profile] if isinstance(profile, str | Path) else profile
    profiles = tuple(find_profiles([str(word) for word in words]).values())
    like = images if isinstance(images, Tensor) else None
    if isinstance(model_or_graph, Executor):
        if steps is not None or dt is not None:
            raise InputError("steps and dt are for a graph or a file: an executor has been given its own")
        run = model_or_graph
    else:
        run = executor(model_or_graph, steps=steps, like=like, dt=dt)
    if isinstance(images, Tensor):
        images = _batches(run, images, labels, run.batch if batch is None else batch)
    elif labels is not None or batch is not None:
        raise InputError("labels and batch are for a tensor of images: batches have labels, and a size, of their own")
    totals, right, labelled = _count(run, images, progress)
    if not totals.images:
        raise InputError("there are no images to count")
    return EnergyReport(
        source=run.source,
        images=totals.images,
        accuracy=right / labelled if labelled == totals.images else None,
        convention=chosen,
        profiles=profiles,
        layers=tuple(totals.layers),
        tallies=totals.tallies(),
        versions={"danet-zoo": zoo.__version__, **{name: version(name) for name in ("torch", "snntorch", "nir", "numpy")}},
    )


def _count(run: Executor, batches: Batches, progress: Callable[[int], None] | None) -> tuple[Totals, int, int]:
    """Counts summed over all processes, and how many labelled images were classified correctly, and how many there were."""
    totals = Totals(run.source.steps)
    right = labelled = 0
    for x, labels in batches:
        if run.source.data:
            check_normalised(x.numpy(force=True), run.source.data)
        logits, spikes = run.run(x)
        if labels is not None:
            right += int((logits.argmax(1) == labels.cpu()).sum())
            labelled += len(labels)
        totals.add(count(run.layers, spikes), {name: spikes.pixels[name].sum((1, 2, 3)) for name in run.neurons})
        if progress:
            progress(totals.images)
    return parallel.gather(totals, right, labelled)


def _batches(
    run: Executor, images: Tensor, labels: Tensor | Sequence[int] | None, batch: int
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """This process's part."""
    labels = None if labels is None else torch.as_tensor(labels)
    axis = 0 if run.entry.static else 1
    given = f"images {list(images.shape)}, labels {'none' if labels is None else list(labels.shape)}, batch {batch}"
    if images.dim() < axis + 2 or (labels is not None and labels.shape != images.shape[axis : axis + 1]) or batch < 1:
        raise InputError(f"{given}: expected [N, ...] or [T, N, ...], a label for each image, and a batch of at least one")
    mine = parallel.share(images.shape[axis])
    for start in range(mine.start, mine.stop, batch):
        part = slice(start, min(start + batch, mine.stop))
        yield images[(slice(None),) * axis + (part,)], None if labels is None else labels[part]
