"""What every executor has: a graph that says what is counted, and a way to run it.

Shapes: `T` time steps, `B` images, `K` classes.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import nir
import torch
from torch import Tensor

from export.energy.counting.events import trains_needed
from export.energy.counting.spikes import Spikes
from export.energy.structure import structure
from zoo.datasets import DatasetSpec
from zoo.errors import InputError
from zoo.provenance import UNKNOWN

__all__ = ["Executor", "Source"]


@dataclass(frozen=True)
class Source:
    """What is run, and by whom."""

    name: str
    engine: str  # with its version
    steps: int
    data: DatasetSpec | None = None  # None for the graph of somebody else
    weights_sha256: str = ""  # empty where nobody said
    weights: str = UNKNOWN  # how they came to be: trained, converted, random, or unknown
    precision: str = "float32"  # or how they were rounded; "as stored" where a graph does not say
    # seconds a step, where neither the graph nor the caller gave them and it matters
    assumed_dt: float | None = None


class Executor(ABC):
    """Runs one network. Raises `ExportError` or `InputError` for a graph that cannot be counted."""

    most = 1 << 20  # elements of the input that are run at once

    def __init__(self, graph: nir.NIRGraph, source: Source) -> None:
        self.graph, self.source = graph, source
        self.layers = structure(graph)
        self.keep = trains_needed(self.layers)
        self.neurons = [layer.name for layer in self.layers if layer.neuron]
        (self.entry,) = (layer for layer in self.layers if isinstance(layer.node, nir.Input))
        if not self.neurons and self.entry.out_bound is None:
            raise InputError(
                f"{source.name} has neither neurons nor events: there are no spikes to count; give a spiking network"
            )

    @property
    def batch(self) -> int:
        """Images that are run at once, unless told otherwise."""
        return max(1, min(32, self.most // self.entry.outputs))

    def run(self, x: Tensor) -> tuple[Tensor, Spikes]:
        """Normalised images `[B, ...]`, or frames `[T, B, ...]` of a network that takes such ->
        logits `[B, K]`, and all spikes.
        """
        steps, shape = self.source.steps, self.entry.out_shape
        still = self.entry.static
        if (
            tuple(x.shape[1 if still else 2 :]) != shape
            or 0 in x.shape
            or not (still or x.shape[0] == steps)
        ):
            sizes = ", ".join(map(str, shape))
            expected = f"[B, {sizes}]" if still else f"[{steps}, B, {sizes}]"
            raise InputError(f"input of shape {list(x.shape)}: {self.source.name} takes {expected}")
        if not bool(torch.isfinite(x).all()):
            raise InputError("input holds NaN or infinite values")
        spikes = Spikes(steps)
        logits = self._run(x.float(), spikes)
        if self.entry.out_bound is not None:
            spikes.add(self.entry.name, x.flatten(0, 1).float(), keep=self.entry.name in self.keep)
        return logits, spikes

    @abstractmethod
    def _run(self, x: Tensor, spikes: Spikes) -> Tensor:
        """Fill in the spikes of all neurons."""
