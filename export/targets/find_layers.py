"""Finds the layers that a chip would hold (`export.targets.layers`) in any NIR graph.

From a neuron, or an output, the graph is walked back to the spikes that it reads.
"""

import math
from collections import deque
from collections.abc import Iterable
from functools import reduce
from typing import Any

import nir
import numpy as np

from export.nir.graph import CheckedGraph, find_recurrent_nodes
from export.nir.nodes import (
    CONVS,
    LINEAR,
    NEURONS,
    NODE_KINDS,
    POOLS,
    SPIKING_NEURONS,
    kernel_size,
    paddings,
)
from export.targets.layers import Branch, ChipLayer, Host, Network, NeuronModel, Pair, Pool, Weights
from zoo.arrays import Array

__all__ = ["find_layers"]

# What chips call an operation, where it is not the name of the node.
WORDS: dict[type, str] = dict.fromkeys(NEURONS, "membrane") | {
    nir.SumPool2d: "sum pool",
    nir.AvgPool2d: "average pool",
}
MAX_MEMORY = 0.01  # of a membrane that is left after a step, where a neuron counts as memoryless


def find_layers(graph: CheckedGraph) -> Network:
    """Return the layers of a graph, and what stays on the host."""
    return _Walk(graph).network()


class _Walk:
    """Walks from a neuron, or an output, back to spikes."""

    def __init__(self, graph: CheckedGraph) -> None:
        self.graph = graph
        self.recurrent = find_recurrent_nodes(graph)
        # The layer of each node that is part of a neuron; the input is its own.
        self.layer_of = {
            name: name for name, node in graph.nodes.items() if type(node) in SPIKING_NEURONS
        }
        for name, loop in graph.resets_by_spikes.items():  # the node of the spikes names the layer
            nodes = (loop.membrane, name, loop.scale, loop.delay)
            self.layer_of |= dict.fromkeys(nodes, name)
        self.layer_of[graph.entry] = graph.entry

    def network(self) -> Network:
        graph = self.graph
        neurons = [n for n in graph.nodes if self.layer_of.get(n) == n != graph.entry]
        layers = {name: self._layer(name) for name in neurons}
        return Network(graph.entry, graph.shapes[graph.entry], layers, self._host())

    def _layer(self, name: str) -> ChipLayer:
        reached, passed = self._back(self.graph.neuron_sources(name), LINEAR)
        branches = [self._branch(node, passed) for node in reached if node not in self.layer_of]
        if spikes := tuple(node for node in reached if node in self.layer_of):
            pools, operations = self._pools(passed), self._operations(passed)
            branches.append(Branch(None, spikes, pools, operations, behind=(), series=()))
        return ChipLayer(name, _neuron(self.graph, name), tuple(branches), self.graph.shapes[name])

    def _branch(self, node: str, behind: list[str]) -> Branch:
        """Return the branch of a weighted node; `behind` are nodes between it and the neuron."""
        reached, passed = self._back(self.graph.sources[node])
        return Branch(
            weights=_weights(self.graph, node),
            reads=tuple(reached),
            pools=self._pools(passed),
            operations=self._operations([*passed, *behind]),
            behind=tuple(pool.node for pool in self._pools(behind)),
            series=tuple(name for name in passed if self._is_weighted(name)),
        )

    def _host(self) -> Host:
        nodes, readers = self.graph.nodes, self.graph.readers
        outputs = [
            n for n, node in nodes.items() if isinstance(node, nir.Output) and not readers[n]
        ]
        reached, passed = self._back(outputs)
        weights = [_weights(self.graph, name) for name in passed if self._is_weighted(name)]
        behind = {name for name in passed if not isinstance(nodes[name], nir.Input | nir.Output)}
        return Host(
            reads=tuple(reached),
            nodes=tuple(name for name in nodes if name in behind),
            macs=sum(w.macs for w in weights),
            parameters=sum(w.values.size + w.bias.size for w in weights),
        )

    def _back(
        self, starts: Iterable[str], stop: tuple[type, ...] = ()
    ) -> tuple[list[str], list[str]]:
        """Return what is reached first on the way back, and all nodes that are passed.

        Reached are layers, and nodes of the kinds `stop`.
        """
        waiting, reached, passed = deque(starts), dict[str, None](), dict[str, None]()
        while waiting:
            name = waiting.popleft()
            if name in self.layer_of:
                reached[self.layer_of[name]] = None
            elif isinstance(self.graph.nodes[name], stop):
                reached[name] = None
            elif name not in passed:
                passed[name] = None
                waiting += self.graph.sources[name]
        return list(reached), list(passed)

    def _is_weighted(self, name: str) -> bool:
        return isinstance(self.graph.nodes[name], LINEAR)

    def _is_step_back(self, name: str) -> bool:
        """Return whether a node is the Delay of one step of a recurrent connection."""
        delay = name in self.recurrent and isinstance(self.graph.nodes[name], nir.Delay)
        return delay and bool((self.graph.delay_steps(name) == 1).all())

    def _pools(self, nodes: list[str]) -> tuple[Pool, ...]:
        pools = []
        for name in nodes:
            node, size = self.graph.nodes[name], math.prod(self.graph.inputs(name))
            if type(node) in POOLS:
                pools.append(Pool(name, node.kernel_size, node.stride, node.padding, size))
        return tuple(pools)

    def _operations(self, nodes: list[str]) -> tuple[tuple[str, str], ...]:
        """Return word and name of all nodes that compute something besides weights."""
        ignored = (*LINEAR, nir.Input, nir.Output)
        kinds = [(name, type(self.graph.nodes[name])) for name in nodes]
        return tuple(
            (WORDS.get(kind, kind.__name__.lower()), name)
            for name, kind in kinds
            if kind not in ignored and not self._is_step_back(name)
        )


def _weights(graph: CheckedGraph, name: str) -> Weights:
    node, takes, gives = graph.nodes[name], graph.inputs(name), graph.shapes[name]
    bias = np.ravel(getattr(node, "bias", ()))
    bias = bias if bias.any() else bias[:0]
    if type(node) not in CONVS:
        return _dense(graph, name, bias)
    return Weights(
        node=name,
        dense=False,
        values=node.weight,
        bias=bias,
        channels=takes[0],
        features=gives[0],
        input=_pair(takes[1:]),
        output=_pair(gives[1:]),
        kernel=_pair(kernel_size(node)),
        stride=_pair(node.stride),
        padding=_pair(tuple(after for _, after in paddings(node)), 0),
        dilation=_pair(node.dilation),
        groups=node.groups,
    )


def _dense(graph: CheckedGraph, name: str, bias: Array) -> Weights:
    """Return a matrix; one that reads a flattened `[c, h, w]` as a convolution of all pixels."""
    node, takes = graph.nodes[name], graph.inputs(name)
    features, channels, kernel = math.prod(graph.shapes[name]), math.prod(takes), (1, 1)
    flattens = [s for s in graph.sources[name] if isinstance(graph.nodes[s], nir.Flatten)]
    shapes = {graph.inputs(source) for source in flattens}
    shape = shapes.pop() if len(shapes) == 1 else ()
    if len(shape) == 3 and len(takes) == 1:
        channels, kernel = shape[0], (shape[1], shape[2])
    return Weights(
        node=name,
        dense=True,
        values=node.weight.reshape(features, -1),
        bias=bias,
        channels=channels,
        features=features,
        input=kernel,
        output=(1, 1),
        kernel=kernel,
        groups=math.prod(takes[:-1]),
    )


def _pair(value: tuple[int, ...], missing: int = 1) -> Pair:
    return (missing, value[0]) if len(value) == 1 else (value[0], value[1])


def _neuron(graph: CheckedGraph, name: str) -> NeuronModel:
    """Return the neurons of a layer: of a spiking node, or of a membrane that a loop resets."""
    loop = graph.resets_by_spikes.get(name)
    node: Any = graph.nodes[loop.membrane if loop else name]
    states = NODE_KINDS[type(node)].integrators
    threshold = graph.nodes[name].threshold if loop else node.v_threshold
    # The parameters by the words of the limit `same_in_layer`.
    parameters = {
        "threshold": [threshold],
        "tau": [getattr(node, state.tau) for state in states if state.tau],
        "leak": [getattr(node, state.leak) for state in states if state.leak],
        "reset": [] if loop else [node.v_reset],
        "gain": [getattr(node, state.gain) for state in reversed(states)],
    }
    p = {
        word: [np.asarray(values, np.float64) for values in arrays]
        for word, arrays in parameters.items()
    }
    with np.errstate(all="ignore"):  # a file may have any numbers
        # The share of the input that a step adds to the membrane.
        leaky = states[-1].tau
        share = graph.dt / p["tau"][-1] if leaky else np.full_like(p["gain"][0], graph.dt)
        current = np.abs(p["threshold"][0] / reduce(np.multiply, p["gain"], share))
        varying = frozenset(word for word, arrays in p.items() if any(map(np.ptp, arrays)))
    model = "CubaLIF" if len(states) > 1 else "LIF" if leaky else "IF"
    if model == "LIF" and (share >= 1 - MAX_MEMORY).all():
        model = "memoryless"
    reset = "subtract" if loop else "value" if p["reset"][0].any() else "zero"
    largest = float(current[np.isfinite(current)].max(initial=0.0))
    return NeuronModel(model, reset, largest, varying)
