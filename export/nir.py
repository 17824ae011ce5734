"""A model as a NIR graph (Pedersen et al. 2024): the one description of its structure.

A sum is several edges into one node, so the graph has no node for it. Time: `tau dv/dt = v_leak - v + r I`, integrated by Euler
with `dt`, is `v[t] = beta v[t-1] + (1 - beta) (v_leak + r I)` for `tau = dt / (1 - beta)`. With the threshold scaled by
`1 - beta`, `r` = 1 and a constant current in `v_leak`, `v / (1 - beta)` is snnTorch's membrane.

    Lif            LIF, or IF where beta is 1
    conv [+ bn]    Conv2d with bias
    pool + conv    Conv2d as large as the pool's window (a convolution of spikes stays one of spikes)
    avg pool       SumPool2d, its divisor in the weights before it
    max pool       SumPool2d and a LIF that fires for any spike; of spikes only
    bn of a sum    Scale, and `v_leak` of the neuron that reads it
    readout, fc    SumPool2d, Flatten, Affine; the logits are the mean of the output over time
"""

from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch import nn

from export.fold import fold, still_image
from export.trace import INPUT, Call, trace
from zoo.blocks import Add, And, IAnd, SamePool
from zoo.danet import DANet, Readout, Repeat
from zoo.errors import ExportError, VerificationError
from zoo.neurons import Lif

__all__ = ["DT", "node_name", "to_nir", "write_nir"]

DT = 1e-4  # seconds a step; what snnTorch and SpikingJelly assume
Array = np.ndarray[Any, np.dtype[Any]]


def node_name(path: str) -> str:
    """The NIR node of a dotted path: `stage1.block0.lif1` -> `stage1_block0_lif1`."""
    return path.replace(".", "_")


def to_nir(model: DANet) -> nir.NIRGraph:
    """The graph of `model` for still images of its own size. Raises `ExportError` for what NIR cannot say."""
    folded = fold(model)
    builder = _Builder(trace(folded, still_image(model)), model.config.steps)
    return builder.graph()


def write_nir(model: DANet, path: Path) -> nir.NIRGraph:
    """Write the graph, read it back, and only then give it its name.

    Raises `VerificationError` if what was read is not what was meant.
    """
    graph = to_nir(model)
    beside = path.with_name(path.name + ".tmp")
    try:
        nir.write(beside, graph)
        difference = _difference(graph, nir.read(beside))
        if difference:
            raise VerificationError(f"the NIR file read back is not the graph: {difference}; no file was written to {path}")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    return graph


def _difference(one: nir.NIRGraph, other: nir.NIRGraph) -> str:
    """The first thing in which two graphs differ, or nothing. The order of nodes and edges means nothing."""
    if set(one.nodes) != set(other.nodes) or set(one.edges) != set(other.edges):
        return f"{set(one.nodes) ^ set(other.nodes)} {set(one.edges) ^ set(other.edges)}"
    for name, node in one.nodes.items():
        ours: dict[str, Any] = node.to_dict()
        theirs: dict[str, Any] = other.nodes[name].to_dict()
        if type(node) is not type(other.nodes[name]) or set(ours) != set(theirs):
            return str(name)
        for field, value in ours.items():
            if field != "metadata" and not np.array_equal(np.asarray(value), np.asarray(theirs[field])):
                return f"{name}.{field}"
    return ""


class _Builder:
    """Walks the calls of a folded model once. `values` says, for every path, which nodes' outputs its value is the sum of."""

    def __init__(self, calls: list[Call], steps: int) -> None:
        self.calls = calls
        self.steps = steps
        self.nodes: dict[str, nir.NIRNode] = {}
        self.edges: list[tuple[str, str]] = []
        self.values: dict[str, tuple[str, ...]] = {INPUT: ("input",)}
        self.pools: dict[str, tuple[str, int, tuple[int, int]]] = {}  # SamePool awaiting its convolution: source, window, padding
        self.leaks: dict[str, Array] = {}  # constant current that a path's value carries besides its nodes, [C]

    def graph(self) -> nir.NIRGraph:
        first, last = self.calls[0], self.calls[-1]
        self.nodes["input"] = nir.Input({"input": np.array(first.in_shape[1:])})
        for call in self.calls:
            self._translate(call)
        self.nodes["output"] = nir.Output({"output": np.array(last.out_shape[1:])})
        self._connect(self.values[last.path], "output")
        metadata = {"dt": DT, "steps": self.steps, "readout": "mean over steps", "input": "still image, every step"}
        return nir.NIRGraph(nodes=self.nodes, edges=self.edges, metadata=metadata)

    def _translate(self, call: Call) -> None:
        match call.module:
            case Lif():
                self._lif(call, call.module)
            case nn.Conv2d():
                self._conv(call, call.module)
            case SamePool():
                self.pools[call.path] = (call.inputs[0], call.module.window, call.module.padding(*call.in_shape[2:]))
            case nn.BatchNorm2d():
                self._norm(call, call.module)
            case nn.AvgPool2d():
                self._avg_pool(call, call.module)
            case nn.MaxPool2d():
                self._max_pool(call, call.module)
            case Add():
                sources = tuple(s for path in call.inputs for s in self.values[path])
                if len(set(sources)) != len(sources):
                    raise ExportError(f"{call.path} adds a value to itself, which NIR cannot say")
                self.values[call.path] = sources
            case And() | IAnd():
                raise ExportError(f"{call.path}: NIR has no product of spikes; use the additive join (sew-resnet...-t4)")
            case Repeat() | nn.Identity():
                self.values[call.path] = self.values[call.inputs[0]]
            case Readout():
                self._readout(call)
            case nn.Linear():
                area = float(np.prod(self.readout_window))
                weight, bias = _array(call.module.weight) / area, _array(call.module.bias)
                self._node(call.path, nir.Affine(weight, bias), self.values[call.inputs[0]])
            case _:
                raise ExportError(f"{call.path}: {type(call.module).__name__} has no NIR form")

    def _node(self, path: str, node: nir.NIRNode, sources: tuple[str, ...]) -> None:
        name = node_name(path)
        assert name not in self.nodes, name
        self.nodes[name] = node
        self._connect(sources, name)
        self.values[path] = (name,)

    def _connect(self, sources: tuple[str, ...], target: str) -> None:
        self.edges += [(source, target) for source in sources]

    def _lif(self, call: Call, lif: Lif) -> None:
        if not lif.exportable:
            raise ExportError(f"{call.path}: only snn.Leaky with zero reset and reset_delay=True can be exported")
        shape = call.out_shape[1:]
        beta = np.broadcast_to(np.float32(lif.neuron.beta.clamp(0, 1).numpy()), shape)
        threshold = np.broadcast_to(np.float32(lif.neuron.threshold.numpy()), shape)
        leak = self.leaks.get(call.inputs[0], np.zeros(shape[0], np.float32))[:, None, None]
        zeros, ones = np.zeros(shape, np.float32), np.ones(shape, np.float32)
        node: nir.NIRNode
        if (beta == 1).all() and not leak.any():
            node = nir.IF(r=ones / DT, v_threshold=threshold.copy(), v_reset=zeros)
        elif (beta < 1).all():
            node = nir.LIF(
                tau=np.float32(DT / (1 - beta)),
                r=ones,
                v_leak=np.broadcast_to(leak, shape).astype(np.float32),
                v_reset=zeros,
                v_threshold=threshold * (1 - beta),
            )
        else:
            raise ExportError(f"{call.path}: a decay of 1 has no LIF in NIR, and an IF takes no constant current")
        self._node(call.path, node, self.values[call.inputs[0]])

    def _conv(self, call: Call, conv: nn.Conv2d) -> None:
        weight, bias = _array(conv.weight), np.zeros(conv.out_channels, np.float32)
        if conv.bias is not None:
            bias = _array(conv.bias)
        source, stride, padding, size = call.inputs[0], conv.stride, conv.padding, call.in_shape[2:]
        if source in self.pools:
            pool, (source, window, padding) = source, self.pools[source]
            if conv.kernel_size != (1, 1):
                raise ExportError(f"{call.path}: only a 1x1 convolution can take in the pool before it")
            weight = np.tile(weight / window**2, (1, 1, window, window))
            stride, size = (window, window), next(c.in_shape[2:] for c in self.calls if c.path == pool)
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
        full = np.broadcast_to(_array(scale)[:, None, None], call.out_shape[1:]).copy()
        self._node(call.path, nir.Scale(full), self.values[call.inputs[0]])
        self.leaks[call.path] = _array(shift)

    def _avg_pool(self, call: Call, pool: nn.AvgPool2d) -> None:
        kernel, stride, padding = (np.broadcast_to(v, 2).copy() for v in (pool.kernel_size, pool.stride, pool.padding))
        (source,) = self.values[call.inputs[0]]
        conv = self.nodes[source]
        if not isinstance(conv, nir.Conv2d) or pool.ceil_mode or not pool.count_include_pad:
            raise ExportError(f"{call.path}: an average pool must follow a convolution and divide by its whole window")
        conv.weight = conv.weight / np.float32(kernel.prod())
        conv.bias = conv.bias / np.float32(kernel.prod())
        self._node(call.path, nir.SumPool2d(kernel, stride, padding), (source,))

    def _max_pool(self, call: Call, pool: nn.MaxPool2d) -> None:
        source = next(c for c in self.calls if c.path == call.inputs[0])
        if not isinstance(source.module, Lif):
            raise ExportError(f"{call.path}: NIR has no max pool, and only one of a neuron's spikes can be written as neurons")
        kernel, stride, padding = (np.broadcast_to(v, 2).copy() for v in (pool.kernel_size, pool.stride, pool.padding))
        self._node(call.path + ".sum", nir.SumPool2d(kernel, stride, padding), self.values[call.inputs[0]])
        full = np.ones(call.out_shape[1:], np.float32)
        # A decay of almost nothing would need tau = dt, which some importers refuse; a thousandth more changes no spike.
        anyone = nir.LIF(tau=full * np.float32(DT * (1 + 1e-3)), r=full, v_leak=0 * full, v_reset=0 * full, v_threshold=0.5 * full)
        self._node(call.path, anyone, self.values[call.path + ".sum"])

    def _readout(self, call: Call) -> None:
        _, channels, height, width = call.in_shape
        self.readout_window = window = np.array([height, width])
        self._node(call.path + ".pool", nir.SumPool2d(window, window, np.zeros(2, int)), self.values[call.inputs[0]])
        flatten = nir.Flatten({"input": np.array([channels, 1, 1])}, -3, -1)
        self._node(call.path, flatten, self.values[call.path + ".pool"])


def _array(tensor: torch.Tensor | None) -> Array:
    assert tensor is not None
    return tensor.detach().cpu().float().numpy()
