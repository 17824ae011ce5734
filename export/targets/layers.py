"""The logical layers that a chip would hold.

A layer is a neuron and all that lies between it and the spikes that it reads:

    spikes -> [pools] -> weights -> [operations] -> neuron          one branch
    spikes -> [pools] ------------------------------> neuron        a branch without weights

Several branches are a sum of currents. A weighted node that reaches several neurons is in the
branches of each, as a chip must hold it once for each. A recurrent connection is a branch that
reads the layer's own spikes, or those of a later layer; its Delay of one step is no operation of
its own. What lies behind the last neurons is linear in their spikes and stays on the host.
`export.targets.find_layers` finds them in a graph.

Shapes: `c` input and `f` output channels, `h` x `w` pixels. A one-dimensional convolution is one of
height 1; a dense layer that reads a flattened `[c, h, w]` is a convolution of kernel `h` x `w`.
"""

import math
from dataclasses import dataclass, field
from functools import cached_property

from export.nir.cycles import cycles
from zoo.arrays import Array

__all__ = ["Branch", "ChipLayer", "Host", "Network", "NeuronModel", "Pair", "Pool", "Weights"]

Pair = tuple[int, int]  # of y and x


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
        """Whether a bias is not zero."""
        return self.bias.size > 0

    @property
    def fan_in(self) -> int:
        """The number of inputs of one neuron."""
        return self.channels // self.groups * math.prod(self.kernel)

    @property
    def macs(self) -> int:
        """The multiply-adds of one step, were every input a number; padding counts."""
        return self.features * math.prod(self.output) * self.fan_in


@dataclass(frozen=True)
class Pool:
    """A pool of spikes; pairs are y and x."""

    node: str
    kernel: Pair
    stride: Pair
    padding: Pair
    source: int  # how many elements it reads


@dataclass(frozen=True)
class Branch:
    """A path from the spikes of some layers to the current of a neuron."""

    weights: Weights | None
    reads: tuple[str, ...]  # layers, or the network's input
    pools: tuple[Pool, ...]  # of spikes, before the weights
    operations: tuple[tuple[str, str], ...]  # word and node, of all nodes but weights, in no order
    behind: tuple[str, ...]  # pools of current, between weights and neuron
    series: tuple[str, ...]  # weighted nodes before the weights, with no neuron between


@dataclass(frozen=True)
class NeuronModel:
    """The neurons of a layer."""

    model: str  # IF, LIF, CubaLIF, or memoryless: a LIF that forgets within a step
    reset: str  # zero, value or subtract
    threshold: float  # the largest, as current: divided by the gain of one step
    varying: frozenset[str]  # the parameters that differ inside the layer


@dataclass(frozen=True)
class ChipLayer:
    """A neuron and the branches that it sums; named by the node of its spikes."""

    name: str
    neuron: NeuronModel
    branches: tuple[Branch, ...]
    shape: tuple[int, ...]  # of its neurons: [c, h, w], [c, n] or [n]

    @property
    def neurons(self) -> int:
        """The number of neurons."""
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """The number of channels of the neurons."""
        return self.shape[0] if self.shape else 1

    @property
    def reads(self) -> tuple[str, ...]:
        """The layers that are read, and the network's input, each once, in order."""
        return tuple(dict.fromkeys(name for branch in self.branches for name in branch.reads))

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The weighted nodes of the branches."""
        return tuple(branch.weights for branch in self.branches if branch.weights)

    @property
    def max_pool(self) -> bool:
        """Whether this is a max pool of spikes: neurons that fire for any spike in a window."""
        alone = len(self.branches) == 1 and not self.weights and len(self.branches[0].pools) == 1
        return alone and self.neuron.model == "memoryless" and self.neuron.threshold < 1


@dataclass(frozen=True)
class Host:
    """The nodes between the last spikes and the output, which stay on the host."""

    reads: tuple[str, ...]
    nodes: tuple[str, ...]
    macs: int  # of one step
    parameters: int


@dataclass(frozen=True)
class Network:
    """A graph's layers, and what stays on the host."""

    entry: str
    input: tuple[int, ...]
    # In topological order, but for recurrent connections.
    layers: dict[str, ChipLayer] = field(default_factory=dict)
    host: Host = Host((), (), 0, 0)

    @cached_property
    def readers(self) -> dict[str, tuple[str, ...]]:
        """The layers that read each layer, and those that read the network's input."""
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
        """The weighted nodes that reach several layers, with the names of these."""
        held: dict[str, list[str]] = {}
        for layer in self.layers.values():
            for weights in layer.weights:
                held.setdefault(weights.node, []).append(layer.name)
        return {node: tuple(names) for node, names in held.items() if len(names) > 1}
