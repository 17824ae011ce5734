"""A NIR graph in the interpreter.

Shapes: `T` time steps, `B` images, `K` classes.
"""

import json
from copy import copy
from typing import Any

import nir
import numpy as np
import torch
from torch import Tensor

from export.energy.counting.spikes import Spikes
from export.energy.executors.base import Executor, Source
from export.energy.structure import CURRENTS, EVENTS, STILL_IMAGE
from export.nir.graph import CheckedGraph, check_graph
from export.nir.interpreter import run
from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, InputError, ZooError
from zoo.provenance import provenance_of_digest

__all__ = ["NirExecutor"]


class NirExecutor(Executor):
    """A graph of the zoo or of anybody else, in the interpreter: slow, and in small batches."""

    most = 1 << 14

    def __init__(
        self,
        graph: nir.NIRGraph,
        *,
        name: str = "",
        steps: int | None = None,
        like: Tensor | None = None,
        dt: float | None = None,
    ) -> None:
        ready, meta = check_graph(graph, dt=dt), graph.metadata
        more: dict[str, Any] = {"dt": ready.dt}
        if "input" not in meta:
            more["input"] = kind = _kind(ready, like)
            if like is not None and kind != STILL_IMAGE:
                steps = _agreed(len(like), steps, "the frames")
        graph = copy(graph)
        graph.metadata = meta | more
        said = _agreed(meta.get("steps"), steps, "the graph's metadata")
        if not isinstance(said, int | np.integer) or said < 1:
            raise ConfigError(
                "the graph does not say for how many time steps it runs: give their number with --steps"
            )
        sha256 = str(meta.get("weights_sha256", ""))
        source = Source(
            name=str(meta.get("name", name or "graph")),
            engine="NIR interpreter",
            steps=int(said),
            data=_data(meta),
            weights_sha256=sha256,
            weights=provenance_of_digest(sha256 if "weights_sha256" in meta else None),
            precision=str(meta.get("precision", "as stored")),
            assumed_dt=ready.dt if ready.dt_assumed else None,
        )
        super().__init__(graph, source)
        (self.exit,) = (layer.name for layer in self.layers if isinstance(layer.node, nir.Output))

    def _run(self, x: Tensor, spikes: Spikes) -> Tensor:
        inputs = x.expand(self.source.steps, *x.shape) if self.entry.static else x
        values = run(self.graph, inputs.numpy())
        for name in self.neurons:
            spikes.add(name, torch.from_numpy(values[name]).flatten(0, 1), keep=name in self.keep)
        return torch.from_numpy(values[self.exit].mean(0))


def _agreed(said: Any, steps: int | None, who: str) -> Any:
    """The number of steps that `who` says, or else `steps`; raises `InputError` where both do, and
    differ.
    """
    if said is not None and steps is not None and said != steps:
        raise InputError(f"--steps {steps} contradicts {who}, of T = {said}: leave it out")
    return steps if said is None else said


def _kind(ready: CheckedGraph, like: Tensor | None) -> str:
    """What the input of a graph is that does not say it."""
    if like is None or like.dim() < len(ready.shapes[ready.entry]) + 2:
        return STILL_IMAGE
    return CURRENTS if like.is_floating_point() else EVENTS


def _data(meta: dict[str, Any]) -> DatasetSpec | None:
    """The data set that a graph's metadata speak of."""
    if "data" not in meta:
        return None
    try:
        return DatasetSpec.from_dict(json.loads(str(meta["data"])))
    except (ValueError, ZooError) as error:
        raise InputError(
            f"the graph's metadata name no data set that can be used: {error}"
        ) from None
