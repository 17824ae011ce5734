"""The rules of limits: what in a layer exceeds one, and the smallest change known to help."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from export.targets.layers import Branch, ChipLayer, Network, Weights
from export.targets.limits import Limit
from export.targets.quantization import TOLERANCE, grid, is_whole, step
from zoo.arrays import Array

__all__ = ["CHIP", "RULES", "Finding", "chip_findings", "layer_findings", "plural"]

CHIP = "chip"  # what a finding names in place of a layer
MAX_NAMES = 4  # of layers in a finding
# The smallest change for a kind of operation, or the neuron model that takes the place of another.
CHANGES = {
    "scale": "fold it into the weights before it",
    "average pool": "a sum pool, its divisor in the weights behind it",
    "max pool": "a sum pool, or a convolution with a stride",
    "sum pool": "a convolution with a stride, or a max pool",
    "delay": "leave it out",
    "threshold": "a spiking neuron",
    "membrane": "a spiking neuron",
    "IF": "integrate and fire: no decay",
    "LIF": "leaky integrate and fire",
    "CubaLIF": "leaky integrate and fire with a synaptic current",
    "memoryless": "one step, or activations of 1 to 4 bits in place of spikes over time",
}


class Violation(NamedTuple):
    """The excess over a limit: `found` where only `allowed` is possible."""

    found: str
    allowed: str
    change: str  # the smallest that would make it fit, where one is known


@dataclass(frozen=True)
class Finding:
    """A violation of one limit by one layer, or by the chip as a whole."""

    layer: str
    limit: str
    found: str
    allowed: str
    change: str


@dataclass(frozen=True)
class RuleContext:
    """A layer and the limit that it is checked against."""

    layer: ChipLayer
    network: Network
    value: Any  # of the limit
    scale: str  # what shares one scale of weights: layer or channel
    limits: dict[str, Limit]  # all that hold for the layer

    @property
    def branches(self) -> tuple[Branch, ...]:
        """The branches of the layer."""
        return self.layer.branches

    @property
    def weights(self) -> tuple[Weights, ...]:
        """The weighted nodes of the layer."""
        return self.layer.weights

    @property
    def convolutions(self) -> list[Weights]:
        """The weighted nodes of the layer that are no matrices."""
        return [w for w in self.layer.weights if not w.dense]

    def at_most(self, number: int, what: str, change: str) -> Iterator[Violation]:
        """Yield a violation where a number is greater than the limit."""
        if number > self.value:
            yield Violation(f"{number:,} {what}", f"at most {self.value:,}", change)

    def one_of(self, value: Any, what: str, change: str) -> Iterator[Violation]:
        """Yield a violation where a value is none of those allowed."""
        if value not in self.value:
            allowed = " or ".join(map(str, self.value))
            yield Violation(f"{what} {value}".strip(), allowed, change)

    def each_of(self, values: Iterable[int], what: str) -> Iterator[Violation]:
        """Yield a violation for each of the numbers that is none of those allowed."""
        for value in sorted(set(values)):
            yield from self.one_of(value, what, f"{what} {_nearest(value, self.value)}")


Rule = Callable[[RuleContext], Iterator[Violation]]


def plural(number: int, noun: str) -> str:
    """Return `1 layer`, `2 layers`."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def layer_findings(
    layer: ChipLayer, network: Network, limits: dict[str, Limit]
) -> Iterator[Finding]:
    """Yield a `Finding` for each limit that a layer exceeds."""
    scale = str(limits["weight_scale"].value) if "weight_scale" in limits else "channel"
    for name, limit in limits.items():
        if name != "weight_scale":  # it says how `weight_bits` is meant
            context = RuleContext(layer, network, limit.value, scale, limits)
            for violation in RULES[name](context):
                yield Finding(layer.name, name, *violation)


def chip_findings(network: Network, limits: dict[str, Limit]) -> Iterator[Finding]:
    """Yield a `Finding` for each limit that the whole network exceeds."""
    layers, last = network.layers.values(), network.host.reads
    totals = {
        "inputs": math.prod(network.input),
        "neurons": sum(layer.neurons for layer in layers),
        "weights": sum(w.values.size for layer in layers for w in layer.weights),
        "hidden_neurons": sum(layer.neurons for layer in layers if layer.name not in last),
        "output_neurons": sum(layer.neurons for layer in layers if layer.name in last),
    }
    for name, limit in limits.items():
        if totals[name] > limit.value:
            words, allowed = name.replace("_", " "), f"at most {limit.value:,}"
            change = f"{totals[name] / limit.value:,.1f} times fewer {words}"
            yield Finding(CHIP, name, f"{totals[name]:,} {words}", allowed, change)


# -- the structure of a layer


def _operations(context: RuleContext) -> Iterator[Violation]:
    for word, node in (pair for branch in context.branches for pair in branch.operations):
        if word == "sum pool" and context.layer.max_pool:
            word = "max pool"
        if word != "flatten":  # no chip computes anything for it
            yield from context.one_of(word, f"{node}:", CHANGES.get(word, ""))
    if "sum pool" in context.value:
        change = "widen the convolution before it by the pool, and its stride"
        for node in (node for branch in context.branches for node in branch.behind):
            yield Violation(f"{node}: a pool of currents", "pools of spikes", change)


def _summed_currents(context: RuleContext) -> Iterator[Violation]:
    names = ", ".join(w.node for w in context.weights)
    spikes = " and spikes" if len(context.weights) < len(context.branches) else ""
    change = "a neuron behind each, whose spikes meet at the next convolution"
    what = f"currents summed before the neuron: {names}{spikes}"
    yield from context.at_most(len(context.branches), what, change)


def _series(context: RuleContext) -> Iterator[Violation]:
    nodes = [node for branch in context.branches for node in branch.series]
    what = f"without a neuron behind it: {', '.join(nodes)}"
    yield from context.at_most(len(nodes), what, "multiply the weights into one node")


def _sources(context: RuleContext) -> Iterator[Violation]:
    what = f"layers are read: {', '.join(context.layer.reads)}"
    yield from context.at_most(len(context.layer.reads), what, "leave out shortcuts and links")


def _neuron_models(context: RuleContext) -> Iterator[Violation]:
    yield from context.one_of(context.layer.neuron.model, "", CHANGES[str(context.value[0])])


def _resets(context: RuleContext) -> Iterator[Violation]:
    neuron = context.layer.neuron
    if neuron.model != "memoryless":  # nothing is left that a reset could change
        yield from context.one_of(neuron.reset, "reset:", f"{context.value[-1]} reset")


def _same_in_layer(context: RuleContext) -> Iterator[Violation]:
    change = "train one for the layer, or fold the others into the weights"
    for name in sorted(context.layer.neuron.varying & set(context.value)):
        yield Violation(f"several values of {name}", "one for a layer", change)


# -- convolutions and pools


def _square(context: RuleContext) -> Iterator[Violation]:
    sizes = {
        "kernel": [w.kernel for w in context.weights],
        "pool": [pool.kernel for branch in context.branches for pool in branch.pools],
    }
    for what in ("kernel", "pool"):
        for height, width in sizes[what] if what in context.value else ():
            if height != width:
                side = max(height, width)
                change = f"{what} {side} x {side}"
                yield Violation(f"{what} {height} x {width}", f"a square {what}", change)


def _kernel_size(context: RuleContext) -> Iterator[Violation]:
    change = "a smaller kernel, or a pool before it"
    for w in context.weights:
        yield from context.at_most(max(w.kernel), f"is the kernel of {w.node}", change)


def _kernel_sizes(context: RuleContext) -> Iterator[Violation]:
    for w in context.convolutions:
        yield from context.each_of(w.kernel, "kernel")


def _strides(context: RuleContext) -> Iterator[Violation]:
    for w in context.weights:
        yield from context.each_of(w.stride, "stride")


def _strided_kernels(context: RuleContext) -> Iterator[Violation]:
    for w in context.convolutions:
        if max(w.stride) > 1:
            change = f"kernel {_nearest(max(w.kernel), context.value)}"
            yield from context.one_of(max(w.kernel), "stride with kernel", change)


def _padding(context: RuleContext) -> Iterator[Violation]:
    for w in context.weights:
        yield from context.at_most(max(w.padding), f"pixels of padding in {w.node}", "less padding")


def _paddings(context: RuleContext) -> Iterator[Violation]:
    for w in context.convolutions:
        same = tuple(math.ceil(n / s) for n, s in zip(w.input, w.stride, strict=True)) == w.output
        valid = w.padding == (0, 0)
        if not ((same and "same" in context.value) or (valid and "valid" in context.value)):
            found, change = (
                f"padding {w.padding[0]}, {w.padding[1]}",
                f"{context.value[0]!r} padding",
            )
            yield Violation(found, " or ".join(context.value), change)


def _dilations(context: RuleContext) -> Iterator[Violation]:
    change = "write the kernel out, with zeros between its weights"
    for w in context.weights:
        for dilation in sorted(set(w.dilation)):
            yield from context.one_of(dilation, "dilation", change)


def _groups(context: RuleContext) -> Iterator[Violation]:
    change = "write the groups out as one convolution, with zeros"
    for w in context.weights:
        yield from context.one_of(w.groups, "groups", change)


def _pools(context: RuleContext) -> Iterator[Violation]:
    for pool in (pool for branch in context.branches for pool in branch.pools):
        yield from context.each_of(pool.kernel, "pool")
        if pool.stride != pool.kernel or any(pool.padding):
            found = f"pool with stride {pool.stride[0]} and padding {pool.padding[0]}"
            yield Violation(found, "windows side by side", "stride equal to size")


def _channels(context: RuleContext) -> Iterator[Violation]:
    for branch in context.branches:
        if branch.weights and context.network.entry in branch.reads:
            channels = branch.weights.channels
            change = f"{_nearest(channels, context.value)} input channels"
            yield from context.one_of(channels, "input channels", change)


def _input_size(context: RuleContext) -> Iterator[Violation]:
    what, change = "pixels wide or high is the input", "pool or crop the input"
    for w in context.weights:
        yield from context.at_most(max(w.input), what, change)


def _output_size(context: RuleContext) -> Iterator[Violation]:
    what = "pixels wide or high is the output"
    for w in context.weights:
        yield from context.at_most(max(w.output), what, f"stride {2 * max(w.stride)}")


def _features(context: RuleContext) -> Iterator[Violation]:
    for w in context.weights:
        change = f"at most {context.value} channels"
        yield from context.at_most(w.features, "output channels", change)


# -- fan-in and fan-out


def _fan_in(context: RuleContext) -> Iterator[Violation]:
    inputs = sum(branch.weights.fan_in if branch.weights else 1 for branch in context.branches)
    pools = [math.prod(pool.kernel) for branch in context.branches for pool in branch.pools]
    inputs *= max(pools, default=1)
    change = f"at least {math.ceil(inputs / max(1, context.value))} groups, or fewer channels"
    yield from context.at_most(inputs, "inputs of one neuron", change)


def _fan_out(context: RuleContext) -> Iterator[Violation]:
    readers = context.network.readers[context.layer.name]
    copies = math.ceil(len(readers) / max(1, context.value))
    fewer = plural(len(readers) - context.value, "reader")
    change = f"{fewer} fewer, or hold the layer {copies} times"
    yield from context.at_most(len(readers), f"layers read its spikes: {_few(readers)}", change)


def _fan_out_neurons(context: RuleContext) -> Iterator[Violation]:
    """Count what an inner neuron reaches: per reader, f kernel positions over the stride."""
    reached = 0
    for name in context.network.readers[context.layer.name]:
        for branch in context.network.layers[name].branches:
            if context.layer.name in branch.reads:
                reached += _reached(branch.weights)
    change = "fewer channels behind it, or smaller kernels"
    yield from context.at_most(reached, "neurons are reached by one", change)


def _reached(w: Weights | None) -> int:
    """Return how many neurons an inner neuron reaches through some weights."""
    if w is None:
        return 1
    if w.dense:
        return w.features // w.groups
    sizes = zip(w.kernel, w.stride, w.output, strict=True)
    return w.features // w.groups * math.prod(min(math.ceil(k / s), n) for k, s, n in sizes)


def _dense_inputs(context: RuleContext) -> Iterator[Violation]:
    """Count all inputs of a neuron of a dense layer.

    Inputs that several dense nodes read of the same layers are one.
    """
    dense = [
        (branch.reads, branch.weights)
        for branch in context.branches
        if branch.weights and branch.weights.dense
    ]
    inputs = {reads: max(w.fan_in for other, w in dense if other == reads) for reads, _ in dense}
    what = f"inputs of {', '.join(w.node for _, w in dense)}"
    yield from context.at_most(sum(inputs.values()), what, "a pool before it, or fewer channels")


# -- bits


def _weight_bits(context: RuleContext) -> Iterator[Violation]:
    """Check that weights are integers of so many bits.

    Weights that meet in a neuron must have one scale, its own or, where a layer has one threshold,
    that of the layer.
    """
    bits, scale = context.value, context.scale
    rows = [w.values.reshape(len(w.values), -1) for w in context.weights]
    meet = len({len(r) for r in rows}) == 1
    change = f"train with weights of {bits} bits"
    if bits == 8:
        change = "`--weights int8-layer`" if scale == "layer" else "`--weights int8`"
    allowed = f"integers of {bits} bits times one scale a {scale}"
    if not all(grid(r, bits).all() for r in rows):
        yield Violation("weights of other values", allowed, change)
    elif len(rows) > 1 and meet and not grid(np.concatenate(rows, axis=1), bits).all():
        change = f"round them to {bits} bits with one scale for all that a neuron sums"
        yield Violation("a scale for each term of a sum", allowed, change)
    elif scale == "layer" and rows and not grid(_flat(context.layer), bits).all():
        yield Violation("a scale for each channel", allowed, change)


def _bias_bits(context: RuleContext) -> Iterator[Violation]:
    unit, bits = _weight_step(context), context.value
    with np.errstate(over="ignore"):
        biases = [np.abs(np.asarray(w.bias, np.float64)) / unit for w in context.weights if unit]
    if not all(is_whole(b).all() and (b < 2 ** (bits - 1)).all() for b in biases):
        allowed = f"integers of {bits} bits, in steps of the weights"
        yield Violation("biases of other values", allowed, "round them to steps of the weights")


def _state_bits(context: RuleContext) -> Iterator[Violation]:
    """Check that a threshold fits into the state of a neuron, in steps of the weights.

    A threshold that is subtracted must be a whole number of steps; one that is only compared need
    not.
    """
    unit, most = _weight_step(context), 2 ** (context.value - 1) - 1
    neuron = context.layer.neuron
    steps = neuron.threshold / unit if unit else 0.0
    if steps > most + 0.5:
        found = f"a threshold of {steps:,.0f} steps of the weights"
        yield Violation(found, f"at most {most:,}", "a lower threshold, or larger weights")
    elif neuron.reset == "subtract" and abs(steps - round(steps)) > max(TOLERANCE, 1e-6 * steps):
        found = f"a threshold of {steps:,.3f} steps of the weights"
        yield Violation(found, "a whole number", "round it to steps of the weights")


def _weight_step(context: RuleContext) -> float:
    """Return what all weights of a layer are whole multiples of.

    It is 0 if there is no such number, or no weights.
    """
    bits = context.limits["weight_bits"].value if "weight_bits" in context.limits else 8
    biases = [np.ravel(w.bias) for w in context.weights]
    others = np.concatenate([*biases, np.array([context.layer.neuron.threshold])])
    return step(_flat(context.layer)[0], others, bits)


def _flat(layer: ChipLayer) -> Array:
    """Return all weights of a layer, `[1, n]`."""
    return np.concatenate([np.zeros(0), *(w.values.ravel() for w in layer.weights)])[None]


def _nearest(number: int, numbers: tuple[int, ...]) -> int:
    """Return the largest number below, or else the smallest."""
    return max((n for n in numbers if n <= number), default=min(numbers))


def _few(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


RULES: dict[str, Rule] = {
    "operations": _operations,
    "summed_currents": _summed_currents,
    "weights_in_series": _series,
    "sources": _sources,
    "neuron_models": _neuron_models,
    "resets": _resets,
    "same_in_layer": _same_in_layer,
    "square": _square,
    "kernel_size": _kernel_size,
    "kernel_sizes": _kernel_sizes,
    "strides": _strides,
    "strided_kernels": _strided_kernels,
    "padding": _padding,
    "paddings": _paddings,
    "dilations": _dilations,
    "groups": _groups,
    "pools": _pools,
    "channels": _channels,
    "input_size": _input_size,
    "output_size": _output_size,
    "features": _features,
    "fan_in": _fan_in,
    "fan_out": _fan_out,
    "fan_out_neurons": _fan_out_neurons,
    "dense_inputs": _dense_inputs,
    "weight_bits": _weight_bits,
    "bias_bits": _bias_bits,
    "state_bits": _state_bits,
}
