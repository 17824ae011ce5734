"""A model as a NIR graph (Pedersen et al. 2024): the one description of its structure.

A sum is several edges into one node, so the graph has no node for it; one of very many terms is
gathered piece by piece. Time: `tau dv/dt = v_leak - v + r I`, integrated by Euler with `dt`, is
`v[t] = beta v[t-1] + (1 - beta) (v_leak + r I)` for `tau = dt / (1 - beta)`. With the threshold
scaled by `1 - beta`, `r` = 1 and a constant current in `v_leak`, `v / (1 - beta)` is snnTorch's
membrane.

    Lif            LIF, or IF where beta is 1; with a reset by subtraction
                   LI or I -> Threshold -> Scale -> Delay -> LI or I
    conv [+ bn]    Conv2d with bias
    pool + conv    Conv2d as large as the pool's window (a convolution of spikes stays one)
    avg pool       AvgPool2d
    max pool       AvgPool2d and a LIF that fires for any spike; of spikes only
    and            a LIF that fires where both do; of spikes only
    iand           a LIF that fires where the shortcut does and the branch (through a Scale of -1)
                   does not; of spikes only
    bn of a sum    Scale, and `v_leak` of the neuron that reads it
    readout, fc    SumPool2d, Flatten, Affine; the logits are the mean of the output over time

A dialect is a way of saying the same function (docs/interop.md says who takes which):

    portable       gain 1, and nothing but what snnTorch and SpikingJelly take: an IF is a LIF that
                   loses 2^-30 a step, a Scale is a Conv2d of 1x1 with a diagonal
    native         as the table says; what chips and operation counts read
    subtract       native, of a model that resets by subtraction: no other form is exact

`stage1.block0.lif1` is the node `stage1_block0_lif1`, whose output are its spikes.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import nir
import numpy as np
import torch
from torch import nn

from export.metadata import Metadata
from export.nir.nodes import SPIKING
from export.prepare.fold import Folded, fold, still_image
from export.prepare.neurons import lif_constants
from export.prepare.trace import INPUT, Call, trace
from zoo.arrays import Array
from zoo.blocks import Add, And, IAnd, SamePool
from zoo.danet import DANet, Readout, Repeat
from zoo.errors import ExportError
from zoo.neurons import Lif

__all__ = [
    "DT",
    "MAX_TERMS",
    "Dialect",
    "ExportedGraph",
    "OutputMapping",
    "export_model",
    "node_name",
    "to_nir",
]

DT = 1e-4  # seconds a step; what snnTorch and SpikingJelly assume
MAX_TERMS = 16  # edges into one node; the sum of more goes through nodes that pass it on
# Seconds. A decay of almost nothing would need tau = dt, which some importers refuse; a thousandth
# more changes no spike.
MEMORYLESS_TAU = DT * (1 + 1e-3)
# What a membrane with this decay loses in one step is less than half the last bit of a float32.
UNSEEN_LOSS = 2.0**-30
Dialect = Literal["portable", "native"]


@dataclass(frozen=True)
class OutputMapping:
    """A module's output in terms of the graph: `factor * node + shift`.

    If `over_time`, it is the mean of that over all steps.
    """

    node: str
    factor: float = 1.0
    shift: Array | None = None  # [C, 1, 1]
    over_time: bool = False


@dataclass(frozen=True)
class ExportedGraph:
    """A graph, with what a comparison with its model needs."""

    graph: nir.NIRGraph
    calls: list[Call]  # of the folded model
    # By path; a module whose output is nowhere in the graph has none.
    readings: dict[str, OutputMapping]


def node_name(path: str) -> str:
    """Return the NIR node of a dotted path: `stage1.block0.lif1` -> `stage1_block0_lif1`."""
    return path.replace(".", "_")


def to_nir(model: DANet, *, dialect: Dialect = "portable") -> nir.NIRGraph:
    """Return the graph of `model` for images of its own size.

    Raises `ExportError` for what NIR cannot say.
    """
    return export_model(model, dialect).graph


def export_model(model: DANet, dialect: Dialect = "portable") -> ExportedGraph:
    """Return `to_nir` with what a comparison with the model needs.

    Raises `ExportError` for what NIR cannot say, and for an unknown dialect.
    """
    if dialect not in get_args(Dialect):
        valid = ", ".join(get_args(Dialect))
        raise ExportError(f"dialect {dialect!r}: no such one; valid are {valid}")
    folded = fold(model)
    calls = trace(folded, still_image(model))
    builder = _Builder(calls, portable=dialect == "portable" and model.config.reset == "zero")
    for call in calls:
        builder.add(call)
    builder.end()
    metadata = _metadata(model, builder)
    graph = nir.NIRGraph(builder.nodes, builder.edges, metadata=metadata)
    return ExportedGraph(graph, calls, builder.readings)


def _metadata(model: DANet, builder: "_Builder") -> dict[str, Any]:
    """Return the graph's metadata.

    Each neuron's node has its own: `beta` and `threshold`, in units of the model.
    """
    dialect = "portable" if builder.portable else "native"
    if model.config.reset == "subtract":
        dialect = "subtract"
    sums = "edges"
    if builder.passed_on:
        sums = f"edges; of more than {MAX_TERMS} terms through a Flatten of one axis"
    modules = {name: " ".join(words) for name, words in builder.modules.items()}
    return Metadata.of_nir(model, dt=DT, dialect=dialect, sums=sums, modules=modules).to_dict()


class _Builder:
    """Walks the calls of a folded model once.

    `values` has for every path the nodes whose outputs its value is the sum of.
    """

    def __init__(self, calls: list[Call], *, portable: bool) -> None:
        self.calls = calls
        self.portable = portable
        self.nodes: dict[str, nir.NIRNode] = {
            "input": nir.Input({"input": np.array(calls[0].in_shape[1:])})
        }
        self.edges: list[tuple[str, str]] = []
        self.readings: dict[str, OutputMapping] = {}
        self.values: dict[str, tuple[str, ...]] = {INPUT: ("input",)}
        # A SamePool that awaits its convolution: source, window, padding.
        self.pools: dict[str, tuple[str, int, tuple[int, int]]] = {}
        # The model's modules that a node stands for, where these are not its own kind.
        self.modules: dict[str, list[str]] = {}
        # The constant current that a path's value carries besides its nodes, [C].
        self.leaks: dict[str, Array] = {}
        self.passed_on = False

    def add(self, call: Call) -> None:
        """Add what stands for a call. Raises `ExportError` for a module that NIR cannot say."""
        match call.module:
            case Lif():
                self._lif(call, call.module)
            case nn.Conv2d():
                self._conv(call, call.module)
            case SamePool():
                padding = call.module.padding(*call.in_shape[2:])
                self.pools[call.path] = (call.inputs[0], call.module.window, padding)
            case nn.BatchNorm2d():
                self._norm(call, call.module)
            case nn.AvgPool2d():
                self._avg_pool(call, call.module)
            case nn.MaxPool2d():
                self._max_pool(call, call.module)
            case Add():
                self._add(call)
            case And() | IAnd():
                self._and(call)
            case Folded():
                self.values[call.path] = self.values[call.inputs[0]]
                self.modules.setdefault(node_name(call.inputs[0]), ["Conv2d"]).append("BatchNorm2d")
            case Repeat() | nn.Identity():
                self.values[call.path] = self.values[call.inputs[0]]
            case Readout():
                self._readout(call)
            case nn.Linear():
                # The node before it is a sum of pixels, where the readout takes their mean.
                weight = _array(call.module.weight) / np.float32(self.area)
                affine = nir.Affine(weight, _array(call.module.bias))
                self._node(call.path, affine, self.values[call.inputs[0]])
                self.readings[call.path] = OutputMapping(node_name(call.path), over_time=True)
            case _:
                raise ExportError(f"{call.path}: {type(call.module).__name__} has no NIR form")

    def end(self) -> None:
        """Add the graph's Output, which reads the last call."""
        self.nodes["output"] = nir.Output({"output": np.array(self.calls[-1].out_shape[1:])})
        self._connect(self.values[self.calls[-1].path], "output")

    def _node(self, path: str, node: nir.NIRNode, sources: tuple[str, ...]) -> None:
        """Add a node whose output is the module's."""
        self._part(path, node, sources)
        self.values[path] = (node_name(path),)
        self.readings[path] = OutputMapping(node_name(path))

    def _part(self, path: str, node: nir.NIRNode, sources: tuple[str, ...]) -> tuple[str, ...]:
        """Add a node on the way to a module's output, and return its name as sources."""
        name = node_name(path)
        assert name not in self.nodes, name
        self.nodes[name] = node
        self._connect(sources, name)
        return (name,)

    def _connect(self, sources: tuple[str, ...], target: str) -> None:
        self.edges += [(source, target) for source in sources]

    def _lif(self, call: Call, lif: Lif) -> None:
        shape, sources = call.out_shape[1:], self.values[call.inputs[0]]
        beta, threshold = (np.broadcast_to(values.numpy(), shape) for values in lif_constants(lif))
        leak = self.leaks.get(call.inputs[0], np.zeros(shape[0], np.float32))[:, None, None]
        integrates = bool((beta == 1).all())
        if (beta == 1).any() and leak.any():
            raise ExportError(
                f"{call.path}: a decay of 1 has no LIF in NIR, and an IF takes no constant current"
            )
        metadata = {"metadata": {"beta": _compact(beta), "threshold": _compact(threshold)}}
        lost = np.where(beta == 1, np.float32(UNSEEN_LOSS), 1 - beta)
        integrates = integrates and not self.portable
        scaled = np.ascontiguousarray(threshold if integrates else threshold * lost)
        charge: dict[str, Array] = {"r": _full(1 / DT, shape)}
        if not integrates:
            tau = np.broadcast_to(np.float32(DT / lost), shape)
            charge = {"tau": tau, "r": _full(1, shape), "v_leak": np.broadcast_to(leak, shape)}
        if lif.reset == "zero":
            kind = nir.IF if integrates else nir.LIF
            neuron = kind(**charge, v_threshold=scaled, v_reset=_full(0, shape), **metadata)
            self._node(call.path, neuron, sources)
            return
        # A spike takes the threshold off the membrane one step later. Membrane and reset are parts;
        # the spikes are the value.
        delay = node_name(call.path + ".delay")
        integrator = (nir.I if integrates else nir.LI)(**charge, **metadata)
        membrane = self._part(call.path + ".membrane", integrator, (*sources, delay))
        self._node(call.path, nir.Threshold(scaled), membrane)
        minus = nir.Scale(-np.ascontiguousarray(threshold))
        back = self._part(call.path + ".reset", minus, self.values[call.path])
        self._part(call.path + ".delay", nir.Delay(np.full(shape, DT)), back)

    def _conv(self, call: Call, conv: nn.Conv2d) -> None:
        weight, bias = _array(conv.weight), np.zeros(conv.out_channels, np.float32)
        if conv.bias is not None:
            bias = _array(conv.bias)
        source, stride, padding, size = call.inputs[0], conv.stride, conv.padding, call.in_shape[2:]
        if source in self.pools:
            pool, (source, window, padding) = source, self.pools[source]
            if conv.kernel_size != (1, 1):
                raise ExportError(
                    f"{call.path}: only a 1x1 convolution can take in the pool before it"
                )
            weight = np.broadcast_to(weight / window**2, (*weight.shape[:2], window, window))
            stride = (window, window)
            size = next(c.in_shape[2:] for c in self.calls if c.path == pool)
            self.modules[node_name(call.path)] = ["SamePool", "Conv2d"]
        node = nir.Conv2d(
            input_shape=(size[0], size[1]),
            weight=weight,
            stride=tuple(stride),
            padding=tuple(padding),
            dilation=tuple(conv.dilation),
            groups=conv.groups,
            bias=bias,
        )
        self._node(call.path, node, self.values[source])

    def _norm(self, call: Call, norm: nn.BatchNorm2d) -> None:
        assert norm.running_var is not None and norm.running_mean is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        readers = [c for c in self.calls if call.path in c.inputs]
        if not all(isinstance(c.module, Lif) for c in readers):
            raise ExportError(f"{call.path}: a BatchNorm that is not folded must feed a neuron")
        self.modules[node_name(call.path)] = ["BatchNorm2d"]
        sources = self.values[call.inputs[0]]
        if self.portable:
            self._node(call.path, self._diagonal(call, _array(scale), _array(shift)), sources)
            return
        full = np.broadcast_to(_array(scale)[:, None, None], call.out_shape[1:])
        self._node(call.path, nir.Scale(full), sources)
        self.leaks[call.path] = _array(shift)
        pixels = _array(shift)[:, None, None]
        self.readings[call.path] = OutputMapping(node_name(call.path), shift=pixels)

    def _diagonal(self, call: Call, scale: Array, shift: Array) -> nir.Conv2d:
        """Return a convolution that is `scale x + shift` for each channel."""
        size = (call.in_shape[2], call.in_shape[3])
        return nir.Conv2d(size, np.diag(scale)[:, :, None, None], (1, 1), (0, 0), (1, 1), 1, shift)

    def _add(self, call: Call) -> None:
        sources = tuple(source for path in call.inputs for source in self.values[path])
        if len(set(sources)) != len(sources):
            raise ExportError(f"{call.path} adds a value to itself, which NIR cannot say")
        self.values[call.path] = sources
        if len(sources) > MAX_TERMS:
            # Every importer knows a Flatten, and one of a single axis does nothing.
            passing = nir.Flatten({"input": np.array(call.out_shape[1:])}, -3, -3)
            self._node(call.path, passing, sources)
            self.passed_on = True

    def _spikes(self, call: Call, path: str, hint: str) -> str:
        """Return the node of spikes that is the value of `path`."""
        sources = self.values[path]
        if len(sources) != 1 or not isinstance(self.nodes[sources[0]], SPIKING):
            kind = type(call.module).__name__
            raise ExportError(
                f"{call.path}: NIR has no {kind} but of the spikes of two neurons: {hint}"
            )
        return sources[0]

    def _and(self, call: Call) -> None:
        hint = "use the additive join (sew-resnet...-t4)"
        branch, shortcut = (self._spikes(call, path, hint) for path in call.inputs)
        self.modules[node_name(call.path)] = [type(call.module).__name__]
        shape = call.out_shape[1:]
        if isinstance(call.module, And):
            self._node(call.path, _coincidence(shape, 1.5), (branch, shortcut))
            return
        if self.portable:
            ones = np.ones(shape[0], np.float32)
            minus = self._diagonal(call, -ones, 0 * ones)
        else:
            minus = nir.Scale(_full(-1, shape))
        (inverse,) = self._part(call.path + ".inverse", minus, (branch,))
        self.modules[inverse] = ["IAnd"]
        self._node(call.path, _coincidence(shape, 0.5), (inverse, shortcut))

    def _avg_pool(self, call: Call, pool: nn.AvgPool2d) -> None:
        if pool.ceil_mode or not pool.count_include_pad or pool.divisor_override:
            raise ExportError(f"{call.path}: an average pool must divide by its whole window")
        self._node(call.path, nir.AvgPool2d(*_window(pool)), self.values[call.inputs[0]])

    def _max_pool(self, call: Call, pool: nn.MaxPool2d) -> None:
        source = self._spikes(call, call.inputs[0], "use an average pool (danet...-t4)")
        window = _window(pool)
        share = self._part(call.path + ".share", nir.AvgPool2d(*window), (source,))
        any_spike = _coincidence(call.out_shape[1:], 0.5 / float(window[0].prod()))
        self._node(call.path, any_spike, share)
        self.modules |= {name: ["MaxPool2d"] for name in (*share, node_name(call.path))}

    def _readout(self, call: Call) -> None:
        _, channels, height, width = call.in_shape
        self.area, window = height * width, np.array([height, width])
        pool = nir.SumPool2d(window, window, np.zeros(2, int))
        sums = self._part(call.path + ".pool", pool, self.values[call.inputs[0]])
        self._node(call.path, nir.Flatten({"input": np.array([channels, 1, 1])}, -3, -1), sums)
        mean = OutputMapping(node_name(call.path), factor=1 / self.area, over_time=True)
        self.readings[call.path] = mean


def _window(pool: nn.AvgPool2d | nn.MaxPool2d) -> tuple[Array, Array, Array]:
    """Return kernel, stride and padding of both axes."""
    kernel, stride, padding = (
        np.broadcast_to(value, 2).copy() for value in (pool.kernel_size, pool.stride, pool.padding)
    )
    return kernel, stride, padding


def _coincidence(shape: tuple[int, ...], threshold: float) -> nir.LIF:
    """Return a neuron that remembers nothing: it fires while its input is above `threshold`."""
    zero = _full(0, shape)
    return nir.LIF(
        tau=_full(MEMORYLESS_TAU, shape),
        r=_full(1, shape),
        v_leak=zero,
        v_reset=zero,
        v_threshold=_full(threshold, shape),
    )


def _full(value: float, shape: tuple[int, ...]) -> Array:
    """Return the same number everywhere, which takes no memory; not to be written to."""
    return np.broadcast_to(np.float32(value), shape)


def _compact(values: Array) -> float | Array:
    """Return one number where all are the same."""
    same = (values == values.flat[0]).all()
    return float(values.flat[0]) if same else np.ascontiguousarray(values)


def _array(tensor: torch.Tensor | None) -> Array:
    """Return a tensor in float32, without a copy where it is that already."""
    assert tensor is not None
    return tensor.detach().cpu().float().numpy()
