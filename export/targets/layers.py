"""The logical layers that a chip would hold, found in any NIR graph.

A layer is a neuron and all that lies between it and the spikes that it reads:

    spikes -> [pools] -> weights -> [operations] -> neuron          one branch
    spikes -> [pools] ------------------------------> neuron        a branch without weights

Several branches are a sum of currents. A weighted node that reaches several neurons is in the
branches of each, as a chip must hold it once for each. A recurrent connection is a branch that
reads the layer's own spikes, or those of a later layer; its Delay of one step is no operation of
its own. What lies behind the last neurons is linear in their spikes and stays on the host.

Shapes: `c` input and `f` output channels, `h` x `w` pixels. A one-dimensional convolution is one of
height 1; a dense layer that reads a flattened `[c, h, w]` is a convolution of kernel `h` x `w`.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import nir
import numpy as np

from export.nir.cycles import cycles
from export.nir.graph import (
    CheckedGraph,
    ResetBySubtraction,
    find_recurrent_nodes,
    find_subtractive_resets,
)

__all__ = ["Branch", "Host", "Layer", "Network", "Neuron", "Pool", "Weights", "network"]

Array = np.ndarray[Any, np.dtype[Any]]
Pair = tuple[int, int]  # of y and x
SPIKING = (nir.IF, nir.LIF, nir.CubaLIF)
WEIGHTED = (nir.Conv1d, nir.Conv2d, nir.Affine, nir.Linear)
WORDS: dict[type, str] = {
    nir.SumPool2d: "sum pool",
    nir.AvgPool2d: "average pool",
    nir.Flatten: "flatten",
    nir.Scale: "scale",
    nir.Delay: "delay",
    nir.Threshold: "threshold",
}
MEMORYLESS = 0.01  # of a membrane, or less, is left after a step


@dataclass(frozen=True)
class Weights:
    """A weighted node as a convolution, or as a dense layer."""

    node: str
    dense: bool
    values: Array  # [f, ...]
    bias: Array  # of each feature; empty if all are zero
    channels: int
    features: int
    input: Pair
    output: Pair
    kernel: Pair
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @property
    def biased(self) -> bool:
        return self.bias.size > 0

    @property
    def fan_in(self) -> int:
        """Inputs of one neuron."""
        return self.channels // self.groups * math.prod(self.kernel)

    @property
    def macs(self) -> int:
        """Multiply-adds of one step, were every input a number; padding counts."""
        return self.features * math.prod(self.output) * self.fan_in


@dataclass(frozen=True)
class Pool:
    """A pool of spikes; pairs are y and x."""

    node: str
    kernel: Pair
    stride: Pair
    padding: Pair
    source: int  # channels and pixels that it reads


@dataclass(frozen=True)
class Branch:
    """What brings current from some layers' spikes to a neuron."""

    weights: Weights | None
    reads: tuple[str, ...]  # layers, or the network's input
    pools: tuple[Pool, ...]  # of spikes, before the weights
    operations: tuple[tuple[str, str], ...]  # word and node, of all nodes but weights, in no order
    behind: tuple[str, ...]  # pools of current, between weights and neuron
    series: tuple[str, ...]  # weighted nodes before the weights, with no neuron between


@dataclass(frozen=True)
class Neuron:
    """`varying`: the parameters that differ inside the layer."""

    model: str  # IF, LIF, CubaLIF, or memoryless: a LIF that forgets within a step
    reset: str  # zero, value or subtract
    threshold: float  # the largest, as current: divided by the gain of one step
    varying: frozenset[str]


@dataclass(frozen=True)
class Layer:
    """A neuron and the branches that it sums; named by the node of its spikes."""

    name: str
    neuron: Neuron
    branches: tuple[Branch, ...]
    shape: tuple[int, ...]  # of its neurons: [c, h, w], [c, n] or [n]

    @property
    def neurons(self) -> int:
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def reads(self) -> tuple[str, ...]:
        """Layers and the network's input, each once, in order."""
        return tuple(dict.fromkeys(name for branch in self.branches for name in branch.reads))

    @property
    def weights(self) -> tuple[Weights, ...]:
        return tuple(branch.weights for branch in self.branches if branch.weights)

    @property
    def max_pool(self) -> bool:
        """A neuron that fires for any spike in a window: how NIR says a max pool of spikes."""
        alone = len(self.branches) == 1 and not self.weights and len(self.branches[0].pools) == 1
        return alone and self.neuron.model == "memoryless" and self.neuron.threshold < 1


@dataclass(frozen=True)
class Host:
    """What lies between the last spikes and the output."""

    reads: tuple[str, ...]
    nodes: tuple[str, ...]
    macs: int  # of one step
    parameters: int


@dataclass(frozen=True)
class Network:
    """A graph's layers, and what stays on the host."""

    entry: str
    input: tuple[int, ...]
    # each after those that it reads, loops aside
    layers: dict[str, Layer] = field(default_factory=dict)
    host: Host = Host((), (), 0, 0)

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """Which layers read each layer, and the network's input."""
        names: dict[str, list[str]] = {name: [] for name in (self.entry, *self.layers)}
        for layer in self.layers.values():
            for read in layer.reads:
                names[read].append(layer.name)
        return {name: tuple(read) for name, read in names.items()}

    @cached_property
    def recurrent(self) -> tuple[str, ...]:
        """The layers that read their own spikes, at once or through other layers."""
        reads = {
            name: [read for read in layer.reads if read != self.entry]
            for name, layer in self.layers.items()
        }
        looped = set[str]().union(*cycles(reads))
        return tuple(name for name in self.layers if name in looped)

    @cached_property
    def shared(self) -> dict[str, tuple[str, ...]]:
        """The weighted nodes that reach several layers, and these."""
        held: dict[str, list[str]] = {}
        for layer in self.layers.values():
            for weights in layer.weights:
                held.setdefault(weights.node, []).append(layer.name)
        return {node: tuple(names) for node, names in held.items() if len(names) > 1}


def network(flow: CheckedGraph) -> Network:
    """The layers of a graph."""
    return _Walk(flow).network()


class _Walk:
    """Walks from a neuron, or an output, back to spikes."""

    def __init__(self, flow: CheckedGraph) -> None:
        self.flow = flow
        self.recurrent = find_recurrent_nodes(flow)
        loops = find_subtractive_resets(flow)
        self.membranes = {loop.threshold: membrane for membrane, loop in loops.items()}
        # by the node of the spikes, which names the layer
        self.subtracts = {loop.threshold: loop for loop in loops.values()}
        # node -> its layer
        self.spikes = {name: name for name, node in flow.nodes.items() if type(node) in SPIKING}
        for name, loop in self.subtracts.items():
            self.spikes |= dict.fromkeys((self.membranes[name], name, loop.scale, loop.delay), name)
        self.spikes[flow.entry] = flow.entry

    def network(self) -> Network:
        neurons = [
            name for name in self.flow.nodes if self.spikes.get(name) == name != self.flow.entry
        ]
        layers = {name: self._layer(name) for name in neurons}
        return Network(self.flow.entry, self.flow.shapes[self.flow.entry], layers, self._host())

    def _step_back(self, name: str) -> bool:
        """Whether a node is the Delay of one step of a recurrent connection."""
        delay = name in self.recurrent and isinstance(self.flow.nodes[name], nir.Delay)
        return delay and bool((self.flow.delay_steps(name) == 1).all())

    def _back(
        self, starts: Iterable[str], stop: tuple[type, ...] = ()
    ) -> tuple[list[str], list[str]]:
        """The layers, and the nodes of the kinds `stop`, that are reached first; and all nodes
        passed on the way.
        """
        waiting, reached, passed = deque(starts), dict[str, None](), dict[str, None]()
        while waiting:
            name = waiting.popleft()
            if name in self.spikes:
                reached[self.spikes[name]] = None
            elif isinstance(self.flow.nodes[name], stop):
                reached[name] = None
            elif name not in passed:
                passed[name] = None
                waiting += self.flow.sources[name]
        return list(reached), list(passed)

    def _layer(self, name: str) -> Layer:
        loop, membrane = self.subtracts.get(name), self.membranes.get(name, name)
        starts = [
            source for source in self.flow.sources[membrane] if loop is None or source != loop.delay
        ]
        reached, passed = self._back(starts, WEIGHTED)
        weighted = [node for node in reached if node not in self.spikes]
        branches = [self._branch(node, passed) for node in weighted]
        if spikes := [node for node in reached if node in self.spikes]:
            branches.append(
                Branch(None, tuple(spikes), self._pools(passed), self._operations(passed), (), ())
            )
        return Layer(
            name, _neuron(self.flow, membrane, loop), tuple(branches), self.flow.shapes[name]
        )

    def _branch(self, node: str, behind: list[str]) -> Branch:
        reached, passed = self._back(self.flow.sources[node])
        series = tuple(name for name in passed if isinstance(self.flow.nodes[name], WEIGHTED))
        pools = self._pools(behind)
        return Branch(
            weights=_weights(self.flow, node),
            reads=tuple(reached),
            pools=self._pools(passed),
            operations=self._operations([*passed, *behind]),
            behind=tuple(pool.node for pool in pools),
            series=series,
        )

    def _pools(self, nodes: list[str]) -> tuple[Pool, ...]:
        found = []
        for name in nodes:
            node = self.flow.nodes[name]
            if isinstance(node, nir.SumPool2d | nir.AvgPool2d):
                found.append(
                    Pool(
                        name,
                        node.kernel_size,
                        node.stride,
                        node.padding,
                        math.prod(self.flow.inputs(name)),
                    )
                )
        return tuple(found)

    def _operations(self, nodes: list[str]) -> tuple[tuple[str, str], ...]:
        passed = [name for name in nodes if not self._step_back(name)]
        others = [
            name
            for name in passed
            if not isinstance(self.flow.nodes[name], (*WEIGHTED, nir.Input, nir.Output))
        ]
        return tuple((WORDS.get(type(self.flow.nodes[name]), "membrane"), name) for name in others)

    def _host(self) -> Host:
        outputs = [
            name
            for name, node in self.flow.nodes.items()
            if isinstance(node, nir.Output) and not self.flow.readers[name]
        ]
        reached, passed = self._back(outputs)
        weights = [
            _weights(self.flow, name)
            for name in passed
            if isinstance(self.flow.nodes[name], WEIGHTED)
        ]
        behind = {
            name for name in passed if not isinstance(self.flow.nodes[name], nir.Input | nir.Output)
        }
        nodes = tuple(name for name in self.flow.nodes if name in behind)
        parameters = sum(w.values.size + w.bias.size for w in weights)
        return Host(tuple(reached), nodes, sum(w.macs for w in weights), parameters)


def _weights(flow: CheckedGraph, name: str) -> Weights:
    node, takes, gives = flow.nodes[name], flow.inputs(name), flow.shapes[name]
    bias = np.ravel(getattr(node, "bias", ()))
    bias = bias if bias.any() else bias[:0]
    if isinstance(node, nir.Affine | nir.Linear):
        groups, features = math.prod(takes[:-1]), math.prod(gives)
        channels, kernel = math.prod(takes), (1, 1)
        flattened = {
            flow.inputs(source)
            for source in flow.sources[name]
            if isinstance(flow.nodes[source], nir.Flatten)
        }
        unique = flattened.pop() if len(flattened) == 1 else ()
        if len(unique) == 3 and len(takes) == 1:
            channels, kernel = unique[0], (unique[1], unique[2])
        values = node.weight.reshape(features, -1)
        return Weights(
            name, True, values, bias, channels, features, kernel, (1, 1), kernel, groups=groups
        )
    kernel, stride, dilation = (
        _pair(value) for value in (node.weight.shape[2:], node.stride, node.dilation)
    )
    same = tuple(math.ceil(d * (k - 1) / 2) for k, d in zip(kernel, dilation, strict=True))
    padding = (same[0], same[1]) if node.padding == "same" else _pair(node.padding, 0)
    sizes = {"input": _pair(takes[1:]), "output": _pair(gives[1:])}
    return Weights(
        node=name,
        dense=False,
        values=node.weight,
        bias=bias,
        channels=takes[0],
        features=gives[0],
        **sizes,
        kernel=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=node.groups,
    )


def _pair(value: tuple[int, ...], missing: int = 1) -> Pair:
    return (missing, value[0]) if len(value) == 1 else (value[0], value[1])


def _neuron(flow: CheckedGraph, name: str, loop: ResetBySubtraction | None) -> Neuron:
    """Of a spiking node, or of a membrane from which a `loop` subtracts its threshold."""
    node: Any = flow.nodes[name]
    fields = ("tau", "tau_mem", "tau_syn", "r", "w_in", "v_leak", "v_reset", "v_threshold")
    p = {key: np.asarray(getattr(node, key), np.float64) for key in fields if hasattr(node, key)}
    if loop is not None:
        p |= {
            "v_threshold": np.asarray(flow.nodes[loop.threshold].threshold, np.float64),
            "v_reset": np.zeros(1),
        }
    tau = p.get("tau", p.get("tau_mem"))
    with np.errstate(all="ignore"):  # whatever numbers a file may have
        # of the input that a step adds to the membrane
        part = np.full_like(p["r"], flow.dt) if tau is None else flow.dt / tau
        gain = part * p["r"] * p.get("w_in", 1.0)
        current = np.abs(p["v_threshold"] / gain)
        groups = {
            "threshold": ("v_threshold",),
            "tau": ("tau", "tau_mem", "tau_syn"),
            "leak": ("v_leak",),
            "reset": ("v_reset",),
        }
        groups["gain"] = ("r", "w_in")
        varying = {
            word for word, keys in groups.items() if any(np.ptp(p[key]) for key in keys if key in p)
        }
    model = {nir.I: "IF", nir.IF: "IF", nir.CubaLIF: "CubaLIF"}.get(type(node), "LIF")
    if model == "LIF" and (part >= 1 - MEMORYLESS).all():
        model = "memoryless"
    reset = "subtract" if loop else "value" if p["v_reset"].any() else "zero"
    return Neuron(
        model, reset, float(current[np.isfinite(current)].max(initial=0.0)), frozenset(varying)
    )
