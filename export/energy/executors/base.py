"""The base of all executors: a graph that says what is counted, and a way to run it.

Shapes: `T` time steps, `B` images, `K` classes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import nir
import torch
from torch import Tensor

from export.energy.counting.events import trains_needed
from export.energy.counting.spikes import Spikes
from export.energy.structure import read_structure
from zoo.datasets import DatasetSpec
from zoo.errors import InputError
from zoo.provenance import UNKNOWN

__all__ = ["Executor", "Source"]


MAX_BATCH = 32


@dataclass(frozen=True)
class Source:
    """The network that is run, and the engine that runs it."""

    name: str
    engine: str  # with its version
    steps: int
    data: DatasetSpec | None = None  # None for the graph of somebody else
    weights_sha256: str = ""  # empty where none is stated
    provenance: str = UNKNOWN  # of the weights: trained, converted, random, or unknown
    # A `zoo.provenance.WeightFormat`, or "as stored" where a graph does not say.
    weight_format: str = "float32"
    # Seconds a step, where neither the graph nor the caller gave them and it matters.
    assumed_dt: float | None = None


class Executor(ABC):
    """Runs one network. Raises `ExportError` or `InputError` for a graph that cannot be counted."""

    max_elements = 1 << 20  # of the input, that are run at once

    def __init__(self, graph: nir.NIRGraph, source: Source) -> None:
        self.graph, self.source = graph, source
        self.layers = read_structure(graph)
        self.keep = trains_needed(self.layers)
        self.neurons = [layer.name for layer in self.layers if layer.neuron]
        (self.entry,) = (layer for layer in self.layers if isinstance(layer.node, nir.Input))
        if not self.neurons and self.entry.out_bound is None:
            what = f"{source.name} has neither neurons nor events: there are no spikes to count"
            raise InputError(f"{what}; give a spiking network")

    @property
    def batch(self) -> int:
        """The number of images that are run at once, unless told otherwise."""
        return max(1, min(MAX_BATCH, self.max_elements // self.entry.outputs))

    def run(self, x: Tensor) -> tuple[Tensor, Spikes]:
        """Return the logits `[B, K]` of images, and all spikes.

        `x` are normalised images `[B, ...]`, or frames `[T, B, ...]` of a network that takes such.
        Raises `InputError` for any other.
        """
        self._check_input(x)
        spikes = Spikes(self.source.steps)
        logits = self._run(x.float(), spikes)
        if self.entry.out_bound is not None:
            spikes.add(self.entry.name, x.flatten(0, 1).float(), keep=self.entry.name in self.keep)
        return logits, spikes

    @abstractmethod
    def _run(self, x: Tensor, spikes: Spikes) -> Tensor:
        """Return the logits `[B, K]`, and add the spikes of all neurons to `spikes`."""

    def _check_input(self, x: Tensor) -> None:
        steps, shape, still = self.source.steps, self.entry.out_shape, self.entry.static
        leading, sizes = tuple(x.shape[: 1 if still else 2]), tuple(x.shape[1 if still else 2 :])
        if sizes != shape or 0 in x.shape or not (still or leading[0] == steps):
            words = ", ".join(map(str, shape))
            expected = f"[B, {words}]" if still else f"[{steps}, B, {words}]"
            raise InputError(f"input of shape {list(x.shape)}: {self.source.name} takes {expected}")
        if not bool(torch.isfinite(x).all()):
            raise InputError("input holds NaN or infinite values")
