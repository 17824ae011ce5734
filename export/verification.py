"""What a verification compared, and what came of it."""

from dataclasses import dataclass

from zoo.silence import NO_SPIKES, is_silent

__all__ = ["TOLERANCE", "LayerCheck", "Verification"]

TOLERANCE = 2e-5  # of the standard deviation


@dataclass(frozen=True)
class LayerCheck:
    """One module's output at one batch size."""

    path: str
    neuron: bool
    batch: int
    elements: int
    wrong_spikes: int  # of a neuron
    deviation: float  # of any other module: largest difference over the standard deviation
    fired: int = 0  # of a neuron: its spikes in the export

    @property
    def ok(self) -> bool:
        return self.wrong_spikes == 0 if self.neuron else self.deviation <= TOLERANCE

    def __str__(self) -> str:
        what = (
            f"{self.wrong_spikes} of {self.elements} spikes differ"
            if self.neuron
            else f"off by {self.deviation:.1e} of its deviation"
        )
        return f"{self.path} at batch {self.batch}: {what}"


@dataclass(frozen=True)
class Verification:
    """What was compared, and what came of it."""

    lines: tuple[LayerCheck, ...]
    # neurons and weighted layers of the model without a value in the export
    missing: tuple[str, ...]
    # what is stored and is not the model's, whether or not a spike reached it
    altered: tuple[str, ...]
    batches: tuple[int, ...]
    same_argmax: int  # images whose end-to-end prediction agrees, a report and not a condition
    images: int  # none: nothing is predicted

    @property
    def ok(self) -> bool:
        return not (self.missing or self.altered) and all(line.ok for line in self.lines)

    @property
    def silent(self) -> bool:
        """Whether no neuron fired, so that their agreement proves little."""
        fired: dict[str, int] = {}
        for line in self.lines:
            if line.neuron:
                fired[line.path] = fired.get(line.path, 0) + line.fired
        return is_silent(fired)

    @property
    def neurons(self) -> int:
        return len({line.path for line in self.lines if line.neuron})

    @property
    def spikes(self) -> int:
        """Compared values of neurons."""
        return sum(line.elements for line in self.lines if line.neuron)

    @property
    def deviation(self) -> float:
        return max(line.deviation for line in self.lines)

    def worst(self) -> str:
        if self.missing:
            return f"it has no value for {self.missing[0]}"
        if self.altered:
            return f"it has {self.altered[0]}"
        return str(
            max(
                self.lines,
                key=lambda line: (not line.ok, line.wrong_spikes / line.elements, line.deviation),
            )
        )

    def __str__(self) -> str:
        if not self.ok:
            return f"NOT verified: {self.worst()}"
        predicted = (
            f"; same prediction for {self.same_argmax} of {self.images} images"
            if self.images
            else ""
        )
        return (
            f"{'NOTHING FIRED' if self.silent else 'verified'} at batch {' and '.join(map(str, self.batches))}: "
            f"{self.neurons} neuron layers spike for spike ({self.spikes:,} values), the rest to {self.deviation:.1e} of the "
            f"standard deviation{predicted}{f'; but {NO_SPIKES}' if self.silent else ''}"
        )
