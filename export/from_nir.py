"""A NIR graph as a network of PyTorch modules and snnTorch neurons, to run and to train.

Time is integrated as `export.interpret` says, so the spikes are the interpreter's. With `a = dt / tau`:

    LIF, IF         snn.Leaky, reset to zero one step later: beta = 1 - a (or 1), input a r x + a v_leak (or dt r x); to another
                    `v_reset`, the current beta v_reset comes in after a spike
    LI, I           snn.Leaky without a reset; the output is its membrane
    CubaLI(F)       one without a reset, then one of the above
    LI, I in a loop that takes its threshold off it (`export.graph.subtracting`)
                    snn.Leaky reset by subtraction, without the edge that closes the loop; its spikes are the Threshold's
    Conv, Affine    nn.Conv1d, nn.Conv2d, nn.Linear: their weights and biases are the parameters; all else are buffers

A surrogate gradient is taken in units of the current that the neuron reads, `(v - v_threshold) / |gain|`, where `gain` is what
stands before x. So a model exported and read back has its own gradients. snnTorch's reset is a constant to autograd.

Without cycles, each node is computed for all steps at once; else the graph is run step by step.

Shapes: `T` time steps, `B` batch; a value is `[T, B, ...]`, where `...` is the shape that the graph speaks of.
"""

import copy
import re
from collections.abc import Callable, Iterator
from functools import reduce
from graphlib import CycleError, TopologicalSorter
from operator import add
from pathlib import Path
from typing import Any

import nir
import numpy as np
import snntorch as snn
import torch
from torch import Tensor, nn

from export.graph import CONVS, POOLS, Flow, Shape, flow, read_graph, subtracting
from zoo.errors import ExportError, InputError
from zoo.neurons import ATan

__all__ = ["NirNetwork", "from_nir"]

Array = np.ndarray[Any, np.dtype[Any]]
SpikeGrad = Callable[[Tensor], Tensor]  # u -> 1. where u > 0, else 0., with a surrogate gradient


def from_nir(
    source: Path | str | nir.NIRGraph, *, dt: float = 1e-4, spike_grad: SpikeGrad | None = None, shape: Shape | None = None
) -> "NirNetwork":
    """The network that a NIR file or graph describes, in float32; the graph may come from any tool.

    `dt`, in seconds, is overruled by `metadata["dt"]`. `spike_grad` is a surrogate of snnTorch or the zoo, `zoo.neurons.ATan()` if
    none is given. `shape`, without time and batch, is for an `Input` that declares none. Raises `InputError` for what is no NIR
    file, and `ExportError` for a graph that is not sound or has a time constant below `dt`.
    """
    graph = source if isinstance(source, nir.NIRGraph) else read_graph(Path(source))
    with torch.device("cpu"):  # where numpy's arrays are, and snn.Leaky reads its own buffers
        return NirNetwork(graph, dt=dt, spike_grad=spike_grad or ATan(), shape=shape)


class NirNetwork(nn.Module):
    """`[T, B, ...]` -> `[T, B, ...]` of the graph's `Output`; see `from_nir`. State starts at zero and is gone when a call returns.

    A graph whose metadata say so, as the zoo's do, also takes still images `[B, C, H, W]` and gives logits `[B, K]`: every step has
    the same image, and the outputs are averaged over `metadata["steps"]` steps.

    `nodes[names["stage1_block0_lif1"]]` is the module of that node: its key in `nodes` is its name, or where PyTorch would not take
    that (`sub.lif`, `type`) one that is like it. `run` gives the values of all nodes.
    """

    def __init__(self, graph: nir.NIRGraph, *, dt: float, spike_grad: SpikeGrad, shape: Shape | None) -> None:
        super().__init__()
        ready = flow(graph, dt=dt, shape=shape)
        self.dt, self.input_shape, self._entry = ready.dt, ready.shapes[ready.entry], ready.entry
        self.metadata: dict[str, Any] = copy.deepcopy(graph.metadata)
        modules = {name: _module(ready, name, spike_grad) for name in ready.nodes}
        self._sources = dict(ready.sources)
        for membrane, loop in subtracting(ready).items():
            neuron, fires = modules[membrane], modules[loop.threshold]
            assert isinstance(neuron, _Neuron) and isinstance(fires, _Threshold)
            if not (fires.threshold < 0).any():  # it would be reset before the first step
                neuron.subtract(fires)
                self._sources[membrane] = tuple(source for source in ready.sources[membrane] if source != loop.delay)
        self.names = dict(zip(modules, _keys([*modules]), strict=True))
        self.nodes = nn.ModuleDict({self.names[name]: module for name, module in modules.items()})
        self._outputs = [name for name, node in graph.nodes.items() if type(node) is nir.Output]
        self._order, self._late = [*ready.nodes], set[str]()
        try:
            self._order = [*TopologicalSorter(self._sources).static_order()]
        except CycleError:  # a Delay of a step or more comes before what it reads
            place = {name: i for i, name in enumerate(self._order)}
            self._late = {name for name in place if any(place[source] >= place[name] for source in self._sources[name])}

    def forward(self, x: Tensor) -> Tensor:
        """Raises `InputError` for another shape than that of the graph, `ExportError` if it has not one `Output` (`run` it)."""
        if len(self._outputs) != 1:
            raise ExportError(f"the graph has {len(self._outputs)} Output nodes: call run, which gives the values of all nodes")
        (output,) = self._outputs
        steps = self._still()
        if steps and x.dim() == len(self.input_shape) + 1:
            return self._run(x.expand(steps, *x.shape), {output})[output].mean(0)
        return self._run(x, {output})[output]

    def run(self, x: Tensor) -> dict[str, Tensor]:
        """The output `[T, B, ...]` of every node, by its name in the graph (`sub.lif` in a graph `sub`), for `x` `[T, B, ...]`."""
        return self._run(x, set(self.names))

    def extra_repr(self) -> str:
        return f"input_shape={self.input_shape}, dt={self.dt}"

    def _still(self) -> int:
        """How many steps a still image is shown; 0 if the metadata do not say that the network is for still images."""
        said, steps = self.metadata, self.metadata.get("steps")
        still = str(said.get("input")).startswith("still image") and str(said.get("readout")) == "mean over steps"
        return int(steps) if still and isinstance(steps, int | np.integer) and steps > 0 else 0

    def _run(self, x: Tensor, wanted: set[str]) -> dict[str, Tensor]:
        shape = self.input_shape
        if tuple(x.shape[2:]) != shape or x.dim() < 2 or 0 in x.shape or not x.is_floating_point():
            expected = ", ".join(map(str, ("B", *shape)))
            still = f" or a still image [{expected}]" if self._still() else ""
            raise InputError(f"input of shape {list(x.shape)} and type {x.dtype}: expected floats [T, {expected}]{still}, none 0")
        needed, found = set[str](), [*wanted]
        while found:
            if (name := found.pop()) not in needed:
                needed.add(name)
                found += self._sources[name]
        states: dict[str, Any] = {}
        parts: dict[str, list[Tensor]] = {name: [] for name in wanted}
        for steps in x.unsqueeze(1).unbind(0) if self._late else (x,):
            for name, value in self._values(steps, needed, states):
                if name in wanted:
                    parts[name].append(value)
        return {name: torch.cat(part) if len(part) > 1 else part[0] for name, part in parts.items()}

    def _values(self, x: Tensor, needed: set[str], states: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """The nodes' outputs for the next steps `x`; one that no other node waits for is forgotten. `states` are carried on."""
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
            if isinstance(module, _Delay):
                past = states.setdefault(name, [])
                first = len(past)
                past += [] if name in self._late else total(name).unbind(0)
                value = torch.stack([module(past, t, x) for t in range(first, first + len(x))])
            elif isinstance(module, _Neuron | _Cuba):
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


class _Surrogate(nn.Module):
    """Spikes of `u`, with the surrogate gradient taken at `u / unit`."""

    unit: Tensor

    def __init__(self, spike_grad: SpikeGrad, unit: Tensor) -> None:
        super().__init__()
        self.spike_grad = spike_grad
        self.register_buffer("unit", torch.where(unit == 0, 1, unit.abs()))

    def forward(self, u: Tensor) -> Tensor:
        return self.spike_grad(u / self.unit).to(u.dtype)  # surrogates of snnTorch end in float32


class _Threshold(nn.Module):
    threshold: Tensor

    def __init__(self, threshold: Tensor, spike_grad: SpikeGrad) -> None:
        super().__init__()
        self.register_buffer("threshold", threshold)
        self.spike_grad = _Surrogate(spike_grad, torch.ones_like(threshold))

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.spike_grad(x - self.threshold)
        return spikes


class _Scale(nn.Module):
    scale: Tensor

    def __init__(self, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


class _Affine(nn.Module):
    """`y = W x + b` over the last axis, with weights `[..., rows, columns]` of their own for every element of the others."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.einsum("...rc,...c->...r", self.weight, x)
        return y if self.bias is None else y + self.bias


class _Delay(nn.Module):
    """`y[t] = x[t - steps]`, element by element; zero before the start."""

    steps: Tensor

    def __init__(self, steps: Array) -> None:
        super().__init__()
        self.register_buffer("steps", torch.from_numpy(steps))
        self.backs = [int(back) for back in np.unique(steps)]

    def forward(self, past: list[Tensor], t: int, like: Tensor) -> Tensor:
        """`y[t]` `[B, ...]` of `past = [x[0], x[1], ...]`."""
        y = like.new_zeros(like.shape[1], *self.steps.shape)
        for back in self.backs:
            if back <= t:
                y = torch.where(self.steps == back, past[t - back], y)
        return y


class _Neuron(nn.Module):
    """`snn.Leaky` of `gain x + drive`: `x` and state -> spikes, or for one that does not `fire` its membrane, and state."""

    gain: Tensor
    drive: Tensor
    v_reset: Tensor | None

    def __init__(self, terms: tuple[Tensor, Tensor, Tensor], fire: tuple[Tensor, Tensor] | None, spike_grad: SpikeGrad) -> None:
        super().__init__()
        beta, gain, drive = terms
        self.register_buffer("gain", gain)
        self.register_buffer("drive", drive)
        self.register_buffer("v_reset", fire[1] if fire and fire[1].any() else None)
        self.leaky = _leaky(beta, fire[0] if fire else torch.ones(()), "zero" if fire else "none", _Surrogate(spike_grad, gain))
        self.fires = fire is not None

    def subtract(self, fires: _Threshold) -> None:
        """From now on a spike of `fires` takes its threshold off the membrane."""
        spike_grad = self.leaky.spike_grad
        fires.spike_grad = _Surrogate(spike_grad.spike_grad, self.gain)
        self.leaky = _leaky(self.leaky.beta, fires.threshold.clone(), "subtract", spike_grad)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        leaky, outputs = self.leaky, []
        spikes, v = state or (torch.zeros_like(x[0]), torch.zeros_like(x[0]))
        for current in (self.gain * x + self.drive).unbind(0):
            if self.v_reset is not None:
                current = current + leaky.beta * self.v_reset * spikes.detach()
            spikes, v = leaky(current, v)
            outputs.append(spikes if self.fires else v)
        leaky.mem, leaky.reset = x.new_zeros(0), None  # snnTorch would keep them
        return torch.stack(outputs), (spikes, v)


class _Cuba(nn.Module):
    """A synapse, and the neuron that reads its current."""

    def __init__(self, synapse: _Neuron, membrane: _Neuron) -> None:
        super().__init__()
        self.synapse, self.membrane = synapse, membrane
        membrane.leaky.spike_grad = _Surrogate(membrane.leaky.spike_grad.spike_grad, membrane.gain * synapse.gain)

    def forward(self, x: Tensor, states: tuple[Any, Any] | None) -> tuple[Tensor, tuple[Any, Any]]:
        before = states or (None, None)
        current, synapse = self.synapse(x, before[0])
        output, membrane = self.membrane(current, before[1])
        return output, (synapse, membrane)


def _leaky(beta: Tensor, threshold: Tensor, reset: str, spike_grad: nn.Module) -> Any:
    leaky = snn.Leaky(beta=beta, threshold=threshold, spike_grad=spike_grad, reset_mechanism=reset, reset_delay=True)
    snn.SpikingNeuron.instances.remove(leaky)  # where snnTorch would keep it alive
    return leaky


@np.errstate(over="ignore")
def _module(flow: Flow, name: str, spike_grad: SpikeGrad) -> nn.Module:
    """The module of a node."""
    node: Any = flow.nodes[name]
    fire = (_tensor(node.v_threshold), _tensor(node.v_reset)) if hasattr(node, "v_threshold") else None
    match node:
        case nir.Input() | nir.Output():
            return nn.Identity()
        case nir.Flatten():
            return nn.Flatten(*(d + (d >= 0) for d in (np.asarray(dim).item() for dim in (node.start_dim, node.end_dim))))
        case nir.Scale():
            return _Scale(_tensor(node.scale))
        case nir.Threshold():
            return _Threshold(_tensor(node.threshold), spike_grad)
        case nir.Delay():
            return _Delay(flow.delay_steps(name))
        case nir.I() | nir.IF():
            return _Neuron(_euler(name, flow.dt, None, node.r, node.r), fire, spike_grad)
        case nir.LI() | nir.LIF():
            return _Neuron(_euler(name, flow.dt, node.tau, node.r, node.v_leak), fire, spike_grad)
        case nir.CubaLI() | nir.CubaLIF():
            synapse = _Neuron(_euler(name, flow.dt, node.tau_syn, node.w_in, np.zeros_like(node.w_in)), None, spike_grad)
            return _Cuba(synapse, _Neuron(_euler(name, flow.dt, node.tau_mem, node.r, node.v_leak), fire, spike_grad))
        case _:
            return _weighted(node)


def _euler(name: str, dt: float, tau: Array | None, r: Array, leak: Array) -> tuple[Tensor, Tensor, Tensor]:
    """`beta`, `gain` and `drive`, rounded as the interpreter rounds them."""
    if tau is None:
        gain = np.asarray(dt, np.result_type(r, np.float32)) * r
        return _tensor(np.ones_like(gain)), _tensor(gain), _tensor(np.zeros_like(gain))
    if not (tau >= dt * (1 - 1e-6)).all():
        raise ExportError(f"NIR node {name!r} has a time constant below the time step, {dt} seconds: give a smaller dt")
    a = np.minimum(np.asarray(dt, np.result_type(tau, np.float32)) / tau, 1)
    return _tensor(1 - a), _tensor(a * r), _tensor(a * leak)


def _weighted(node: Any) -> nn.Module:
    """A convolution, a pool or a matrix, of `[N, ...]`."""
    if type(node) in POOLS:
        area = int(np.prod(node.kernel_size)) if type(node) is nir.AvgPool2d else 1
        pool = nn.AvgPool2d(node.kernel_size, node.stride, divisor_override=area)
        return _padded([(p, p) for p in node.padding], pool)
    weight, bias = _tensor(node.weight), _tensor(node.bias) if hasattr(node, "bias") else None
    if type(node) not in CONVS and weight.dim() > 2:
        return _Affine(weight, bias)
    module: Any
    pads: list[tuple[int, int]] = []
    rows, columns, *kernel = weight.shape
    if type(node) not in CONVS:
        module = nn.Linear(columns, rows, device="meta")  # no random numbers for what is replaced
    else:
        kind: Any = nn.Conv1d if type(node) is nir.Conv1d else nn.Conv2d
        padding = node.padding
        if padding == "same":
            reach = [d * (k - 1) for d, k in zip(node.dilation, kernel, strict=True)]
            pads, padding = [(r // 2, r - r // 2) for r in reach], 0
        module = kind(columns * node.groups, rows, kernel, node.stride, padding, node.dilation, node.groups, device="meta")
    module.weight = nn.Parameter(weight)
    module.bias = None if bias is None else nn.Parameter(bias)
    return _padded(pads, module)


def _padded(pads: list[tuple[int, int]], module: nn.Module) -> nn.Module:
    """`module` after zeros around each axis."""
    sides = [side for pad in reversed(pads) for side in pad]
    kind = nn.ConstantPad1d if len(pads) == 1 else nn.ConstantPad2d
    return nn.Sequential(kind(sides, 0.0), module) if any(sides) else module  # type: ignore[arg-type]  # a list of two or four


@np.errstate(over="ignore")  # an infinity, as in the interpreter
def _tensor(values: Array) -> Tensor:
    """A copy in float32."""
    return torch.from_numpy(np.array(values, np.float32, order="C"))


def _keys(names: list[str]) -> list[str]:
    """For each name a key that an `nn.ModuleDict` takes: the name itself where it does."""
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
