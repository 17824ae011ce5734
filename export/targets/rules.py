"""One function for each limit: what in a layer exceeds it, and the smallest change that is known to
help.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.targets.layers import Layer, Network, Weights
from export.targets.limits import Limit
from export.targets.quantization import NEAR, grid, step, whole

__all__ = ["CHIP", "Finding", "chip_findings", "layer_findings", "plural"]

Array = np.ndarray[Any, np.dtype[Any]]
Breach = tuple[str, str, str]  # found, allowed, change
CHIP = "chip"  # what a finding names in place of a layer
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


@dataclass(frozen=True)
class Finding:
    """What does not fit: `found` where only `allowed` is possible."""

    layer: str
    limit: str
    found: str
    allowed: str
    change: str  # the smallest that would make it fit, where one is known


def plural(number: int, noun: str) -> str:
    """`1 layer`, `2 layers`."""
    return f"{number:,} {noun}" + "s" * (number != 1)


def layer_findings(layer: Layer, network: Network, limits: dict[str, Limit]) -> Iterator[Finding]:
    """The limits that a layer exceeds; a `Finding` each."""
    for name, limit in limits.items():
        if name != "weight_scale":  # it says how `weight_bits` is meant
            scale = limits["weight_scale"].value if "weight_scale" in limits else "channel"
            for breach in RULES[name](_Case(layer, network, limit.value, str(scale), limits)):
                yield Finding(layer.name, name, *breach)


def chip_findings(network: Network, limits: dict[str, Limit]) -> Iterator[Finding]:
    """The limits that the whole network exceeds."""
    layers, last = network.layers.values(), network.host.reads
    totals = {
        "inputs": math.prod(network.input),
        "neurons": sum(layer.neurons for layer in layers),
        "weights": sum(w.values.size for layer in layers for w in layer.weights),
        "hidden_neurons": sum(layer.neurons for layer in layers if layer.name not in last),
        "output_neurons": sum(layer.neurons for layer in layers if layer.name in last),
    }
    for name, limit in limits.items():
        assert isinstance(limit.value, int)
        if totals[name] > limit.value:
            words = name.replace("_", " ")
            change = f"{totals[name] / limit.value:,.1f} times fewer {words}"
            yield Finding(
                CHIP, name, f"{totals[name]:,} {words}", f"at most {limit.value:,}", change
            )


@dataclass(frozen=True)
class _Case:
    """A layer before a limit."""

    layer: Layer
    network: Network
    value: Any  # of the limit
    scale: str  # what shares one scale of weights: layer or channel
    limits: dict[str, Limit]

    def over(self, number: int, what: str, change: str) -> Iterator[Breach]:
        if number > self.value:
            yield f"{number:,} {what}", f"at most {self.value:,}", change

    def among(self, found: Any, what: str, change: str) -> Iterator[Breach]:
        if found not in self.value:
            yield f"{what} {found}".strip(), " or ".join(map(str, self.value)), change


def _operations(case: _Case) -> Iterator[Breach]:
    for word, node in (pair for branch in case.layer.branches for pair in branch.operations):
        word = "max pool" if word == "sum pool" and case.layer.max_pool else word
        yield from case.among(word, f"{node}:", CHANGES[word]) if word != "flatten" else ()
    if "sum pool" in case.value:
        for node in (node for branch in case.layer.branches for node in branch.behind):
            yield (
                f"{node}: a pool of currents",
                "pools of spikes",
                "widen the convolution before it by the pool, and its stride",
            )


def _summed_currents(case: _Case) -> Iterator[Breach]:
    names = ", ".join(w.node for w in case.layer.weights)
    spikes = " and spikes" if len(case.layer.weights) < len(case.layer.branches) else ""
    change = "a neuron behind each, whose spikes meet at the next convolution"
    yield from case.over(
        len(case.layer.branches), f"currents summed before the neuron: {names}{spikes}", change
    )


def _series(case: _Case) -> Iterator[Breach]:
    nodes = [node for branch in case.layer.branches for node in branch.series]
    yield from case.over(
        len(nodes),
        f"without a neuron behind it: {', '.join(nodes)}",
        "multiply the weights into one node",
    )


def _sources(case: _Case) -> Iterator[Breach]:
    names = ", ".join(case.layer.reads)
    yield from case.over(
        len(case.layer.reads), f"layers are read: {names}", "leave out shortcuts and links"
    )


def _neuron_models(case: _Case) -> Iterator[Breach]:
    yield from case.among(case.layer.neuron.model, "", CHANGES[str(case.value[0])])


def _resets(case: _Case) -> Iterator[Breach]:
    if case.layer.neuron.model != "memoryless":  # nothing is left that a reset could change
        yield from case.among(case.layer.neuron.reset, "reset:", f"{case.value[-1]} reset")


def _same_in_layer(case: _Case) -> Iterator[Breach]:
    for name in sorted(case.layer.neuron.varying & set(case.value)):
        yield (
            f"several values of {name}",
            "one for a layer",
            "train one for the layer, or fold the others into the weights",
        )


def _square(case: _Case) -> Iterator[Breach]:
    kernels = [w.kernel for w in case.layer.weights] if "kernel" in case.value else []
    pools = (
        [p.kernel for branch in case.layer.branches for p in branch.pools]
        if "pool" in case.value
        else []
    )
    for what, sizes in (("kernel", kernels), ("pool", pools)):
        for height, width in sizes:
            if height != width:
                yield (
                    f"{what} {height} x {width}",
                    f"a square {what}",
                    f"{what} {max(height, width)} x {max(height, width)}",
                )


def _kernel_size(case: _Case) -> Iterator[Breach]:
    for w in case.layer.weights:
        yield from case.over(
            max(w.kernel), f"is the kernel of {w.node}", "a smaller kernel, or a pool before it"
        )


def _kernel_sizes(case: _Case) -> Iterator[Breach]:
    for w in _convolutions(case):
        for size in sorted(set(w.kernel)):
            yield from case.among(size, "kernel", f"kernel {_nearest(size, case.value)}")


def _strides(case: _Case) -> Iterator[Breach]:
    for w in case.layer.weights:
        for stride in sorted(set(w.stride)):
            yield from case.among(stride, "stride", f"stride {_nearest(stride, case.value)}")


def _strided_kernels(case: _Case) -> Iterator[Breach]:
    for w in _convolutions(case):
        if max(w.stride) > 1:
            yield from case.among(
                max(w.kernel), "stride with kernel", f"kernel {_nearest(max(w.kernel), case.value)}"
            )


def _padding(case: _Case) -> Iterator[Breach]:
    for w in case.layer.weights:
        yield from case.over(max(w.padding), f"pixels of padding in {w.node}", "less padding")


def _paddings(case: _Case) -> Iterator[Breach]:
    for w in _convolutions(case):
        same = tuple(math.ceil(n / s) for n, s in zip(w.input, w.stride, strict=True)) == w.output
        valid = w.padding == (0, 0)
        if not ((same and "same" in case.value) or (valid and "valid" in case.value)):
            yield (
                f"padding {w.padding[0]}, {w.padding[1]}",
                " or ".join(case.value),
                f"{case.value[0]!r} padding",
            )


def _dilations(case: _Case) -> Iterator[Breach]:
    for w in case.layer.weights:
        for dilation in sorted(set(w.dilation)):
            yield from case.among(
                dilation, "dilation", "write the kernel out, with zeros between its weights"
            )


def _groups(case: _Case) -> Iterator[Breach]:
    for w in case.layer.weights:
        yield from case.among(
            w.groups, "groups", "write the groups out as one convolution, with zeros"
        )


def _pools(case: _Case) -> Iterator[Breach]:
    for pool in (pool for branch in case.layer.branches for pool in branch.pools):
        for size in sorted(set(pool.kernel)):
            yield from case.among(size, "pool", f"pool {_nearest(size, case.value)}")
        if pool.stride != pool.kernel or any(pool.padding):
            yield (
                f"pool with stride {pool.stride[0]} and padding {pool.padding[0]}",
                "windows side by side",
                "stride equal to size",
            )


def _channels(case: _Case) -> Iterator[Breach]:
    for w in (
        b.weights for b in case.layer.branches if b.weights and case.network.entry in b.reads
    ):
        yield from case.among(
            w.channels, "input channels", f"{_nearest(w.channels, case.value)} input channels"
        )


def _input_size(case: _Case) -> Iterator[Breach]:
    for w in case.layer.weights:
        yield from case.over(
            max(w.input), "pixels wide or high is the input", "pool or crop the input"
        )


def _output_size(case: _Case) -> Iterator[Breach]:
    for w in case.layer.weights:
        yield from case.over(
            max(w.output), "pixels wide or high is the output", f"stride {2 * max(w.stride)}"
        )


def _features(case: _Case) -> Iterator[Breach]:
    for w in case.layer.weights:
        yield from case.over(w.features, "output channels", f"at most {case.value} channels")


def _fan_in(case: _Case) -> Iterator[Breach]:
    inputs = sum(branch.weights.fan_in if branch.weights else 1 for branch in case.layer.branches)
    pooled = max(
        (math.prod(p.kernel) for branch in case.layer.branches for p in branch.pools), default=1
    )
    change = f"at least {math.ceil(inputs * pooled / max(1, case.value))} groups, or fewer channels"
    yield from case.over(inputs * pooled, "inputs of one neuron", change)


def _fan_out(case: _Case) -> Iterator[Breach]:
    readers = case.network.readers[case.layer.name]
    copies = math.ceil(len(readers) / max(1, case.value))
    change = (
        f"{plural(len(readers) - case.value, 'reader')} fewer, or hold the layer {copies} times"
    )
    yield from case.over(len(readers), f"layers read its spikes: {_few(readers)}", change)


def _fan_out_neurons(case: _Case) -> Iterator[Breach]:
    """An inner neuron of a convolution reaches, per reader, f kernel positions over the stride."""
    reached = 0
    for name in case.network.readers[case.layer.name]:
        for branch in (b for b in case.network.layers[name].branches if case.layer.name in b.reads):
            w = branch.weights
            if w is None:
                reached += 1
            elif w.dense:
                reached += w.features // w.groups
            else:
                steps = (
                    min(math.ceil(k / s), n)
                    for k, s, n in zip(w.kernel, w.stride, w.output, strict=True)
                )
                reached += w.features // w.groups * math.prod(steps)
    yield from case.over(
        reached, "neurons are reached by one", "fewer channels behind it, or smaller kernels"
    )


def _dense_inputs(case: _Case) -> Iterator[Breach]:
    """All inputs of a neuron: what several dense nodes read of the same layers is one input."""
    dense = [
        (branch.reads, branch.weights)
        for branch in case.layer.branches
        if branch.weights and branch.weights.dense
    ]
    inputs = {reads: max(w.fan_in for other, w in dense if other == reads) for reads, _ in dense}
    names = ", ".join(w.node for _, w in dense)
    yield from case.over(
        sum(inputs.values()), f"inputs of {names}", "a pool before it, or fewer channels"
    )


def _weight_bits(case: _Case) -> Iterator[Breach]:
    """What meets in a neuron must have one scale, its own or, where a layer has one threshold, that
    of the layer.
    """
    rows = [w.values.reshape(len(w.values), -1) for w in case.layer.weights]
    meet = len({len(r) for r in rows}) == 1
    command = f"train with weights of {case.value} bits"
    if case.value == 8:
        command = "`--weights int8-layer`" if case.scale == "layer" else "`--weights int8`"
    allowed = f"integers of {case.value} bits times one scale a {case.scale}"
    if not all(grid(r, case.value).all() for r in rows):
        yield "weights of other values", allowed, command
    elif len(rows) > 1 and meet and not grid(np.concatenate(rows, axis=1), case.value).all():
        yield (
            "a scale for each term of a sum",
            allowed,
            f"round them to {case.value} bits with one scale for all that a neuron sums",
        )
    elif case.scale == "layer" and rows and not grid(_flat(case.layer), case.value).all():
        yield "a scale for each channel", allowed, command


def _bias_bits(case: _Case) -> Iterator[Breach]:
    unit = _step(case)
    with np.errstate(over="ignore"):
        biases = [np.abs(np.asarray(w.bias, np.float64)) / unit for w in case.layer.weights if unit]
    if not all(whole(b).all() and (b < 2 ** (case.value - 1)).all() for b in biases):
        yield (
            "biases of other values",
            f"integers of {case.value} bits, in steps of the weights",
            "round them to steps of the weights",
        )


def _state_bits(case: _Case) -> Iterator[Breach]:
    """A threshold that is subtracted must be a whole number of steps; one that is only compared
    need not.
    """
    unit, most = _step(case), 2 ** (case.value - 1) - 1
    steps = case.layer.neuron.threshold / unit if unit else 0.0
    if steps > most + 0.5:
        found, change = (
            f"a threshold of {steps:,.0f} steps of the weights",
            "a lower threshold, or larger weights",
        )
        yield found, f"at most {most:,}", change
    elif case.layer.neuron.reset == "subtract" and abs(steps - round(steps)) > max(
        NEAR, 1e-6 * steps
    ):
        yield (
            f"a threshold of {steps:,.3f} steps of the weights",
            "a whole number",
            "round it to steps of the weights",
        )


def _step(case: _Case) -> float:
    """What all weights of a layer are whole multiples of; 0 if there is no such number, or no
    weights.
    """
    bits = case.limits["weight_bits"].value if "weight_bits" in case.limits else 8
    assert isinstance(bits, int)
    others = [np.ravel(w.bias) for w in case.layer.weights] + [
        np.array([case.layer.neuron.threshold])
    ]
    return step(_flat(case.layer)[0], np.concatenate(others), bits)


def _flat(layer: Layer) -> Array:
    """All weights of a layer, `[1, n]`."""
    return np.concatenate([np.zeros(0), *(w.values.ravel() for w in layer.weights)])[None]


def _convolutions(case: _Case) -> list[Weights]:
    return [w for w in case.layer.weights if not w.dense]


def _nearest(number: int, numbers: tuple[int, ...]) -> int:
    """The largest below, or else the smallest."""
    return max((n for n in numbers if n <= number), default=min(numbers))


def _few(names: tuple[str, ...], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


RULES: dict[str, Callable[[_Case], Iterator[Breach]]] = {
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
