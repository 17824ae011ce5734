"""The result of comparing an exported file with the model or graph that it was made of."""

from dataclasses import dataclass

import numpy as np

from zoo.arrays import Array
from zoo.silence import NO_SPIKES, is_silent

__all__ = ["TOLERANCE", "LayerCheck", "Verification"]

TOLERANCE = 2e-5  # largest difference of a layer's values, in standard deviations of them


@dataclass(frozen=True)
class LayerCheck:
    """The comparison of one module's output at one batch size."""

    path: str
    is_neuron: bool
    batch: int
    elements: int
    wrong_spikes: int  # 0 unless a neuron
    deviation: float  # largest difference over the standard deviation; 0 of a neuron
    fired: int = 0  # spikes of a neuron in the export

    @classmethod
    def compare(
        cls, path: str, exported: Array, expected: Array, *, batch: int, is_neuron: bool
    ) -> "LayerCheck":
        """Return the comparison of two outputs of one shape: of spikes where it `is_neuron`."""
        wrong = fired = 0
        deviation = 0.0
        if is_neuron:
            wrong = int(np.count_nonzero(exported != expected))
            fired = int(np.count_nonzero(exported))
        elif not np.array_equal(exported, expected):
            spread = max(float(expected.std()), 1e-12)
            deviation = float(np.abs(exported - expected).max()) / spread
        return cls(path, is_neuron, batch, expected.size, wrong, deviation, fired)

    @property
    def ok(self) -> bool:
        """Return whether every spike agrees, or every other value within `TOLERANCE`."""
        return self.wrong_spikes == 0 if self.is_neuron else self.deviation <= TOLERANCE

    def __str__(self) -> str:
        difference = f"off by {self.deviation:.1e} of its deviation"
        if self.is_neuron:
            difference = f"{self.wrong_spikes} of {self.elements} spikes differ"
        return f"{self.path} at batch {self.batch}: {difference}"


@dataclass(frozen=True)
class Verification:
    """The result of a verification: every layer that was compared, and what else differs."""

    checks: tuple[LayerCheck, ...]
    # neurons and weighted layers of the model that have no value in the export
    missing: tuple[str, ...]
    # stored parameters or structure that are not the model's, whether or not a spike shows it
    changed_parameters: tuple[str, ...]
    batches: tuple[int, ...]  # the batch sizes
    same_predictions: int  # images of the same end-to-end prediction: reported, not required
    images: int  # 0 where nothing is predicted

    @property
    def ok(self) -> bool:
        """Return whether the export is the model."""
        differs = self.missing or self.changed_parameters
        return not differs and all(check.ok for check in self.checks)

    @property
    def silent(self) -> bool:
        """Return whether no neuron fired, so that their agreement proves little."""
        fired: dict[str, int] = {}
        for check in self.checks:
            if check.is_neuron:
                fired[check.path] = fired.get(check.path, 0) + check.fired
        return is_silent(fired)

    @property
    def neuron_layers(self) -> int:
        """Return the number of neuron layers that were compared."""
        return len({check.path for check in self.checks if check.is_neuron})

    @property
    def compared_spikes(self) -> int:
        """Return the number of outputs of neurons that were compared."""
        return sum(check.elements for check in self.checks if check.is_neuron)

    @property
    def deviation(self) -> float:
        """Return the largest deviation of all layers that are no neurons."""
        return max(check.deviation for check in self.checks)

    def worst(self) -> str:
        """Return the gravest difference in words, after "the export is not the model: "."""
        if self.missing:
            return f"it has no value for {self.missing[0]}"
        if self.changed_parameters:
            return f"it has {self.changed_parameters[0]}"

        def gravity(check: LayerCheck) -> tuple[bool, float, float]:
            return not check.ok, check.wrong_spikes / check.elements, check.deviation

        return str(max(self.checks, key=gravity))

    def __str__(self) -> str:
        if not self.ok:
            return f"NOT verified: {self.worst()}"
        sizes = " and ".join(map(str, self.batches))
        text = (
            f"{'NOTHING FIRED' if self.silent else 'verified'} at batch {sizes}: "
            f"{self.neuron_layers} neuron layers spike for spike "
            f"({self.compared_spikes:,} values), "
            f"the rest to {self.deviation:.1e} of the standard deviation"
        )
        if self.images:
            text += f"; same prediction for {self.same_predictions} of {self.images} images"
        return f"{text}; but {NO_SPIKES}" if self.silent else text
