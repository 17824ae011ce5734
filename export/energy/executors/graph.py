"""The executor of a NIR graph, in the interpreter.

Shapes: `T` time steps, `B` images, `K` classes.
"""

from copy import copy
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from export.energy.counting.spikes import Spikes
from export.energy.executors.base import Executor, Source
from export.metadata import CURRENTS, EVENTS, STILL_IMAGE, Metadata
from export.nir.graph import CheckedGraph, check_graph
from export.nir.interpreter import run
from zoo.errors import ConfigError, InputError

__all__ = ["NirExecutor"]


class NirExecutor(Executor):
    """A graph of the zoo or of anybody else, in the interpreter: slow, and in small batches."""

    max_elements = 1 << 14

    def __init__(
        self,
        graph: nir.NIRGraph,
        *,
        name: str = "",
        steps: int | None = None,
        like: Tensor | None = None,
        dt: float | None = None,
    ) -> None:
        checked, metadata = check_graph(graph, dt=dt), Metadata.from_graph(graph)
        completed = metadata.with_entries(dt=checked.dt)
        if metadata.input_kind is None:
            kind = _input_kind(checked, like)
            completed = completed.with_entries(input=kind)
            if like is not None and kind != STILL_IMAGE:
                steps = _agreed_steps(len(like), steps, "the frames")
        graph = copy(graph)
        graph.metadata = completed.to_dict()
        steps = _agreed_steps(metadata.declared_steps, steps, "the graph's metadata")
        if not isinstance(steps, int | np.integer) or steps < 1:
            what = "the graph does not say for how many time steps it runs"
            raise ConfigError(f"{what}: give their number with --steps")
        source = Source(
            name=metadata.get_name(name or "graph"),
            engine="NIR interpreter",
            steps=int(steps),
            data=metadata.get_data(),
            weights_sha256=metadata.get_weights_sha256(),
            provenance=metadata.provenance,
            weight_format=metadata.get_weight_format("as stored"),
            assumed_dt=checked.dt if checked.dt_assumed else None,
        )
        super().__init__(graph, source)
        (self.exit,) = (layer.name for layer in self.layers if isinstance(layer.node, nir.Output))

    def _run(self, x: Tensor, spikes: Spikes) -> Tensor:
        inputs = x.expand(self.source.steps, *x.shape) if self.entry.static else x
        values = run(self.graph, inputs.numpy())
        for name in self.neurons:
            spikes.add(name, torch.from_numpy(values[name]).flatten(0, 1), keep=name in self.keep)
        return torch.from_numpy(values[self.exit].mean(0))


def _agreed_steps(stated: Any, steps: int | None, who: str) -> Any:
    """Return the number of steps that `who` states, or else `steps`.

    Raises `InputError` where both are there, and differ.
    """
    if stated is not None and steps is not None and stated != steps:
        raise InputError(f"--steps {steps} contradicts {who}, of T = {stated}: leave it out")
    return steps if stated is None else stated


def _input_kind(graph: CheckedGraph, like: Tensor | None) -> str:
    """Return the kind of the input of a graph that does not say it, by an example."""
    if like is None or like.dim() < len(graph.shapes[graph.entry]) + 2:
        return STILL_IMAGE
    return CURRENTS if like.is_floating_point() else EVENTS
