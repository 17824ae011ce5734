"""A NIR graph as a network of PyTorch modules and snnTorch neurons, to run and to train.

Time is integrated as `export.nir.interpreter` says, so the spikes are the interpreter's. With `a =
dt / tau`:

    LIF, IF         snn.Leaky, reset to zero one step later: beta = 1 - a (or 1), input
                    a r x + a v_leak (or dt r x); to another `v_reset`, the current beta v_reset
                    comes in after a spike
    LI, I           snn.Leaky without a reset; the output is its membrane
    CubaLI(F)       one without a reset, then one of the above
    LI, I in a loop that takes its threshold off it (`CheckedGraph.subtractive_resets`)
                    snn.Leaky reset by subtraction, without the edge that closes the loop; its
                    spikes are the Threshold's
    Conv, Affine    nn.Conv1d, nn.Conv2d, nn.Linear: their weights and biases are the parameters;
                    all else are buffers

A surrogate gradient is taken in units of the current that the neuron reads, `(v - v_threshold) /
|input_gain|`, where `input_gain` is what stands before x. So a model exported and read back has
its own gradients. snnTorch's reset is a constant to autograd.

Without cycles, each node is computed for all steps at once; else the graph is run step by step.

Shapes: `T` time steps, `B` batch; a value is `[T, B, ...]`, where `...` is the shape that the graph
speaks of.
"""

import copy
import re
from collections.abc import Iterator
from functools import reduce
from graphlib import CycleError, TopologicalSorter
from operator import add
from pathlib import Path
from typing import Any

import nir
import torch
from torch import Tensor, nn

from export.metadata import Metadata
from export.nir.graph import check_graph
from export.nir.modules import Cuba, Delay, Neuron, SpikeGrad, Threshold, node_module
from export.nir.reader import read_nir
from zoo.arrays import Shape
from zoo.errors import ExportError, InputError
from zoo.surrogates import ATan

__all__ = ["NirNetwork", "from_nir"]


def from_nir(
    source: Path | str | nir.NIRGraph,
    *,
    dt: float | None = None,
    spike_grad: SpikeGrad | None = None,
    shape: Shape | None = None,
) -> "NirNetwork":
    """Return the network that a NIR file or graph of any tool describes, in float32.

    `dt`, in seconds, is by default `metadata["dt"]`, or 1e-4 where that is missing; one that
    contradicts it is refused. `spike_grad` is a surrogate of snnTorch or the zoo, `ATan()` if none
    is given. `shape`, without time and batch, is for an `Input` that declares none. Raises
    `InputError` for what is no NIR file, and `ExportError` for a graph that is not sound or has a
    time constant below `dt`.
    """
    graph = source if isinstance(source, nir.NIRGraph) else read_nir(Path(source))
    with torch.device("cpu"):  # where numpy's arrays are, and snn.Leaky reads its own buffers
        return NirNetwork(graph, dt=dt, spike_grad=spike_grad or ATan(), shape=shape)


class NirNetwork(nn.Module):
    """A NIR graph as a network: `[T, B, ...]` -> `[T, B, ...]` of the graph's `Output`.

    State starts at zero and is gone when a call returns. A graph whose metadata say so, as the
    zoo's do, also takes still images `[B, C, H, W]` and gives logits `[B, K]`: every step has the
    same image, and the outputs are averaged over `metadata["steps"]` steps.

    `nodes[names["stage1_block0_lif1"]]` is the module of that node: its key in `nodes` is its name,
    or where PyTorch would not take that (`sub.lif`, `type`) one that is like it. `run` gives the
    values of all nodes.
    """

    def __init__(
        self, graph: nir.NIRGraph, *, dt: float | None, spike_grad: SpikeGrad, shape: Shape | None
    ) -> None:
        super().__init__()
        checked = check_graph(graph, dt=dt, shape=shape)
        self.dt, self._entry = checked.dt, checked.entry
        self.input_shape = checked.shapes[checked.entry]
        self.metadata: dict[str, Any] = copy.deepcopy(graph.metadata)
        modules = {name: node_module(checked, name, spike_grad) for name in checked.nodes}
        self._sources = dict(checked.sources)
        for membrane, reset in checked.subtractive_resets.items():
            neuron, threshold = modules[membrane], modules[reset.threshold]
            assert isinstance(neuron, Neuron) and isinstance(threshold, Threshold)
            # A neuron with a threshold below zero would be reset before the first step.
            if not (threshold.threshold < 0).any():
                neuron.subtract(threshold)
                self._sources[membrane] = reset.inputs
        self.names = dict(zip(modules, _keys([*modules]), strict=True))
        self.nodes = nn.ModuleDict({self.names[name]: module for name, module in modules.items()})
        self._outputs = [name for name, node in graph.nodes.items() if type(node) is nir.Output]
        self._order, self._late = [*checked.nodes], set[str]()
        try:
            self._order = [*TopologicalSorter(self._sources).static_order()]
        except CycleError:  # a Delay of a step or more comes before what it reads
            place = {name: i for i, name in enumerate(self._order)}
            self._late = {
                name
                for name in place
                if any(place[source] >= place[name] for source in self._sources[name])
            }

    def forward(self, x: Tensor) -> Tensor:
        """Return the output `[T, B, ...]` of the graph for `x` `[T, B, ...]`.

        A network for still images also takes `[B, C, H, W]` and gives logits `[B, K]`. Raises
        `InputError` for another shape than that of the graph, and `ExportError` if it has not one
        `Output` (call `run` then).
        """
        if len(self._outputs) != 1:
            raise ExportError(
                f"the graph has {len(self._outputs)} Output nodes: call run, which gives the "
                "values of all nodes"
            )
        (output,) = self._outputs
        steps = self._still_image_steps()
        if steps and x.dim() == len(self.input_shape) + 1:
            return self._run(x.expand(steps, *x.shape), {output})[output].mean(0)
        return self._run(x, {output})[output]

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """Return the output `[T, B, ...]` of every node for `x` `[T, B, ...]`.

        The keys are the names in the graph, as `sub.lif` in a graph `sub`. Raises `InputError` for
        another shape than that of the graph.
        """
        return self._run(x, set(self.names))

    def extra_repr(self) -> str:
        """Return what `print` says of the network besides its modules."""
        return f"input_shape={self.input_shape}, dt={self.dt}"

    def _still_image_steps(self) -> int:
        """Return for how many steps a still image is shown; 0 for a network of other inputs."""
        return Metadata(self.metadata).still_image_steps

    def _run(self, x: Tensor, names: set[str]) -> dict[str, Tensor]:
        """Return the outputs `[T, B, ...]` of the nodes `names`."""
        shape = self.input_shape
        if tuple(x.shape[2:]) != shape or x.dim() < 2 or 0 in x.shape or not x.is_floating_point():
            expected = ", ".join(map(str, ("B", *shape)))
            still = f" or a still image [{expected}]" if self._still_image_steps() else ""
            raise InputError(
                f"input of shape {list(x.shape)} and type {x.dtype}: expected floats "
                f"[T, {expected}]{still}, none 0"
            )
        needed, waiting = set[str](), [*names]
        while waiting:
            if (name := waiting.pop()) not in needed:
                needed.add(name)
                waiting += self._sources[name]
        states: dict[str, Any] = {}
        parts: dict[str, list[Tensor]] = {name: [] for name in names}
        for steps in x.unsqueeze(1).unbind(0) if self._late else (x,):
            for name, value in self._values(steps, needed, states):
                if name in names:
                    parts[name].append(value)
        return {name: torch.cat(part) if len(part) > 1 else part[0] for name, part in parts.items()}

    def _values(
        self, x: Tensor, needed: set[str], states: dict[str, Any]
    ) -> Iterator[tuple[str, Tensor]]:
        """Give the nodes' outputs for the next steps `x`, and carry `states` on.

        An output that no other node waits for is forgotten.
        """
        values: dict[str, Tensor] = {}
        waiting = dict.fromkeys(needed, 0)
        for name in needed:
            for source in self._sources[name]:
                waiting[source] += 1

        def total(name: str) -> Tensor:
            terms = []
            for source in self._sources[name]:
                waiting[source] -= 1
                terms.append(values[source] if waiting[source] else values.pop(source))
            return reduce(add, terms)

        for name in self._order:
            if name not in needed:
                continue
            module = self.nodes[self.names[name]]
            if isinstance(module, Delay):
                past = states.setdefault(name, [])
                first = len(past)
                past += [] if name in self._late else total(name).unbind(0)
                value = torch.stack([module(past, t, x) for t in range(first, first + len(x))])
            elif isinstance(module, Neuron | Cuba):
                value, states[name] = module(total(name), states.get(name))
            else:
                y = x if name == self._entry else total(name)
                value = module(y.flatten(0, 1)).unflatten(0, y.shape[:2])
            if waiting[name]:
                values[name] = value
            yield name, value
        for name in self._order:
            if name in self._late and name in needed:
                states[name] += total(name).unbind(0)


def _keys(names: list[str]) -> list[str]:
    """Return a key that an `nn.ModuleDict` takes for each name: the name itself where it can."""
    reserved = set(dir(nn.ModuleDict()))
    taken, keys = reserved | set(names), []
    for i, name in enumerate(names):
        key = name
        if name in reserved or not re.fullmatch(r"\w+", name):
            key = re.sub(r"\W", "_", name) or "_"
            if key in taken:
                key += f"_{i}"
            while key in taken:
                key += "_"
            taken.add(key)
        keys.append(key)
    return keys
