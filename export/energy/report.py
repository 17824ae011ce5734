"""The energy report: one network, one set of images, every layer's counts, and what they cost on
each profile.

Counts are kept as integers over all images; means and energies are computed from them. Accuracy
stands beside energy, and every rendering names convention and profile.

Shapes: `N` images, `T` time steps, `B` images of a batch, `K` classes.
"""

from dataclasses import dataclass
from functools import cached_property

from export.energy.comparison import Alternative, compare
from export.energy.conventions import Convention
from export.energy.executors import Source
from export.energy.profiles import Profile
from export.energy.totals import Energy, LayerTotals, Tally, energy
from zoo.provenance import provenance_in_words
from zoo.silence import assumed_dt, is_silent, silence_note, silent_layers

__all__ = ["EnergyCounts"]


@dataclass(frozen=True)
class EnergyCounts:
    """Exact counts of a network on a set of images, and what they cost on each profile."""

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
        """Sentences to read beside the figures: on layers that never fired, and a time step that
        nobody gave.
        """
        assumed = [] if self.source.assumed_dt is None else [assumed_dt(self.source.assumed_dt)]
        return tuple(note for note in (silence_note(self._spikes), *assumed) if note)

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
        return {
            layer.name: layer.counts["spikes"] for layer in self.layers if layer.kind == "neuron"
        }

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
        return compare(
            self.layers,
            self.images,
            self.steps,
            self.mean_rate,
            self.energy(profile, "exact").total,
            profile,
        )

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
        return tuple(
            sum(spikes) / total
            for spikes in zip(*(layer.step_spikes for layer in neurons), strict=True)
        )
