"""The results of an energy estimate, as data: one network, one set of images.

Counts are kept as integers over all images; means and energies are computed from them. Accuracy
stands beside energy. `export.energy.report` adds the renderings.

Shapes: `N` images, `T` time steps.
"""

from dataclasses import dataclass
from functools import cached_property

from export.energy.comparison import Alternative, compare
from export.energy.conventions import EXACT, Convention
from export.energy.devices import Device
from export.energy.executors import Source
from export.energy.totals import Energy, LayerTotals, OperationCounts, price
from zoo.manifest import read_manifest
from zoo.names import ModelSpec
from zoo.provenance import provenance_in_words
from zoo.silence import assumed_dt, is_silent, silence_note, silent_layers

__all__ = ["EnergyResults", "Published"]


@dataclass(frozen=True)
class Published:
    """The accuracy that the manifest says of weights of the zoo."""

    top1: float
    images: int
    split: str


@dataclass(frozen=True)
class EnergyResults:
    """Exact counts of a network on a set of images, and what they cost on each device."""

    source: Source
    images: int  # N
    accuracy: float | None  # top-1 on these images; None where they have no labels
    convention: Convention
    devices: tuple[Device, ...]
    layers: tuple[LayerTotals, ...]
    operations: dict[str, OperationCounts]  # by convention
    versions: dict[str, str]  # of the packages that counted
    images_from: str = ""  # as in "test images of CIFAR-10"; empty where nobody said
    command: str = ""  # that counted, where one did

    @property
    def steps(self) -> int:
        """The number of time steps, T."""
        return self.source.steps

    @property
    def weights_in_words(self) -> str:
        """How the weights that were counted came to be, in words."""
        return provenance_in_words(self.source.provenance, self.source.weight_format)

    @property
    def data(self) -> str:
        """The title of the data set that the network was made for."""
        return self.source.data.title if self.source.data else "data that the graph does not name"

    @cached_property
    def published(self) -> Published | None:
        """The accuracy on a whole split, of weights of the zoo; None of any others."""
        entry = read_manifest().weights.get(self.source.name)
        if entry is None or "top1" not in entry.metrics:
            return None
        rounded = self.source.weight_format != "float32"
        if rounded or ModelSpec.parse(entry.name).steps != self.steps:  # another accuracy
            return None
        if self.source.weights_sha256 not in {file.sha256 for file in entry.files.values()}:
            return None
        metrics = entry.metrics
        return Published(metrics["top1"], metrics["images"], metrics["split"])

    # -- energy

    @cached_property
    def energies(self) -> tuple[Energy, ...]:
        """The energy on each device, by the convention of the results."""
        return tuple(self.energy(device) for device in self.devices)

    def energy(self, device: Device, convention: str | None = None) -> Energy:
        """Return the energy on one device, by any convention."""
        return price(self.operations[convention or self.convention.name], device)

    @cached_property
    def priced(self) -> Energy | None:
        """The energy on the first device that prices everything; plots and comparisons show it."""
        return next((e for e in self.energies if e.total), None)

    def comparison(self, device: Device) -> tuple[Alternative, ...]:
        """Return the same network without spikes, by the exact convention."""
        spiking = self.energy(device, EXACT.name).total
        return compare(self.layers, self.images, self.steps, self.mean_rate, spiking, device)

    # -- counts

    def total(self, key: str) -> int:
        """Return the sum of one of `COUNTS` over all layers and images."""
        return sum(layer.counts[key] for layer in self.layers)

    @property
    def recurrent_acs(self) -> int:
        """The SynOps of recurrent connections, over all images."""
        return sum(layer.counts["acs"] for layer in self.layers if layer.recurrent)

    # -- firing rates

    def rate(self, layer: LayerTotals) -> float | None:
        """Return the spikes per neuron and step of a layer; None where it has no neurons."""
        return layer.counts["spikes"] / layer.counts["updates"] if layer.kind == "neuron" else None

    def step_rates(self, layer: LayerTotals) -> tuple[float, ...]:
        """Return the spikes per neuron of a layer, at each step."""
        return tuple(spikes / (layer.outputs * self.images) for spikes in layer.step_spikes)

    @property
    def mean_rate(self) -> float:
        """The spikes per neuron and step, over all neurons."""
        return self.total("spikes") / max(1, self.total("updates"))

    @property
    def mean_step_rates(self) -> tuple[float, ...]:
        """The spikes per neuron at each step, over all neurons."""
        neurons = [layer for layer in self.layers if layer.kind == "neuron"]
        total = self.images * sum(layer.outputs for layer in neurons)
        steps = zip(*(layer.step_spikes for layer in neurons), strict=True)
        return tuple(sum(spikes) / total for spikes in steps)

    # -- what must be said beside the figures

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Sentences on layers that never fired, and on a time step that nobody gave."""
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
        neurons = [layer for layer in self.layers if layer.kind == "neuron"]
        return {layer.name: layer.counts["spikes"] for layer in neurons}
