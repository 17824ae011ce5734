"""One time step of a NIR graph as ONNX nodes, with equations and rounding of the interpreter.

A value has its NIR node's name, and `<entry>.in` is what the graph's Input is given. States, each
with an output `.next`, are

    <node>.membrane, <node>.synapse   [B, ...]       as `NodeKind.integrators` names them
    <node>.past                       [B, D, ...]   the last D inputs of a Delay, the latest first
"""

import math
from typing import Any

import nir
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.nir.graph import CheckedGraph
from export.nir.integration import Constants, neuron_constants
from export.nir.nodes import CONVS, NEURONS, POOLS, paddings
from zoo.arrays import Array

__all__ = ["StepNodes", "input_name"]

FLOAT = TensorProto.FLOAT


def input_name(graph: CheckedGraph) -> str:
    """Return the ONNX name of what the graph's Input is given."""
    return f"{graph.entry}.in"


class StepNodes:
    """The ONNX nodes of one step of `graph`, the tensors that they read, and the states.

    Raises `ExportError` for a neuron whose time constant is below the time step.
    """

    def __init__(self, graph: CheckedGraph) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []
        self.stored: dict[str, onnx.TensorProto] = {}
        self.states: dict[str, tuple[int, ...]] = {}  # shapes, without the batch
        self._sums: dict[str, str] = {}  # of what each node reads
        delays = [name for name, node in graph.nodes.items() if type(node) is nir.Delay]
        for name in graph.nodes:
            if name == graph.entry:
                self._node("Identity", [input_name(graph)], name)
            elif name in delays:
                self._read_past(name)
            else:
                self._add(name)
        for name in delays:  # a Delay may come before the nodes that it reads
            self._write_past(name)

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Add a node, which has its output's name; return that."""
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def _store(self, name: str, values: Any, dtype: Any = np.float32) -> str:
        """Store a tensor; return its name."""
        self.stored[name] = numpy_helper.from_array(np.array(values, dtype, order="C"), name)
        return name

    def _store_elementwise(self, name: str, values: Any) -> str:
        """Store a number for each element of a value, once where it is the same along an axis."""
        array = np.asarray(values)
        for axis in range(array.ndim):
            first = array.take([0], axis)
            if (array == first).all():
                array = first
        return self._store(name, array)

    def _input(self, name: str) -> str:
        """Return the sum of what a node reads, added in the order of the edges."""
        if name not in self._sums:
            total, *others = self.graph.sources[name]
            for i, other in enumerate(others):
                total = self._node("Add", [total, other], f"{name}/sum{i}")
            self._sums[name] = total
        return self._sums[name]

    def _add(self, name: str) -> None:
        node: Any = self.graph.nodes[name]
        x = self._input(name)
        match node:
            case nir.Input() | nir.Output():
                self._node("Identity", [x], name)
            case nir.Flatten():
                shape = self._store(f"{name}/shape", (-1, *self.graph.shapes[name]), np.int64)
                self._node("Reshape", [x, shape], name)
            case nir.Scale():
                self._node("Mul", [self._store_elementwise(f"{name}/scale", node.scale), x], name)
            case nir.Threshold():
                self._fire(name, x, node.threshold)
            case nir.Affine() | nir.Linear():
                self._matrix(name, node, x)
            case _ if type(node) in NEURONS:
                self._neuron(name, node, x)
            case _ if type(node) in POOLS:
                self._pool(name, node, x)
            case _ if type(node) in CONVS:
                self._convolution(name, node, x)

    def _integrate(self, name: str, state: str, x: str, constants: Constants) -> str:
        """Return `decay state + (gain x + bias)`, in that order of rounding."""
        self.states[f"{name}.{state}"] = self.graph.shapes[name]
        prefix = f"{name}/{state}"
        # These names are part of the files: the decay, the input gain and the bias current.
        decay, gain, bias = (
            self._store_elementwise(f"{prefix}/{word}", values)
            for word, values in zip(("keep", "gain", "drive"), constants, strict=True)
        )
        decayed = self._node("Mul", [decay, f"{name}.{state}"], f"{prefix}/kept")
        scaled = self._node("Mul", [gain, x], f"{prefix}/gained")
        driven = self._node("Add", [scaled, bias], f"{prefix}/driven")
        return self._node("Add", [decayed, driven], f"{prefix}/now")

    def _neuron(self, name: str, node: Any, x: str) -> None:
        """Add the states of a neuron, each of which reads the one before, and its output."""
        *before, (last, membrane) = neuron_constants(name, node, self.graph.dt).items()
        for state, constants in before:
            x = self._integrate(name, state, x, constants)
            self._node("Identity", [x], f"{name}.{state}.next")
        v = self._integrate(name, last, x, membrane)
        if not hasattr(node, "v_threshold"):
            self._node("Identity", [v], name)
            self._node("Identity", [v], f"{name}.{last}.next")
            return
        fired = self._fire(name, v, node.v_threshold)
        reset = self._store_elementwise(f"{name}/reset", node.v_reset)
        self._node("Where", [fired, reset, v], f"{name}.{last}.next")

    def _fire(self, name: str, v: str, threshold: Array) -> str:
        """Add a node's spikes as its value; return where it fired, as booleans."""
        level = self._store_elementwise(f"{name}/threshold", threshold)
        fired = self._node("Greater", [v, level], f"{name}/fired")
        self._node("Cast", [fired], name, to=FLOAT)
        return fired

    def _matrix(self, name: str, node: Any, x: str) -> None:
        if node.weight.ndim == 2:
            weight = self._store(f"{name}/weight", node.weight.T)
            product = self._node("MatMul", [x, weight], f"{name}/product")
        else:
            last = self._store(f"{name}/last", [-1], np.int64)
            column = self._node("Unsqueeze", [x, last], f"{name}/column")
            weight = self._store(f"{name}/weight", node.weight)
            columns = self._node("MatMul", [weight, column], f"{name}/columns")
            product = self._node("Squeeze", [columns, last], f"{name}/product")
        bias = getattr(node, "bias", None)
        if bias is None:
            self._node("Identity", [product], name)
        else:
            self._node("Add", [product, self._store(f"{name}/bias", bias)], name)

    def _convolution(self, name: str, node: Any, x: str) -> None:
        begins, ends = zip(*paddings(node), strict=True)
        weight = self._store(f"{name}/weight", node.weight)
        bias = self._store(f"{name}/bias", node.bias)
        self._node(
            "Conv", [x, weight, bias], name, strides=node.stride, dilations=node.dilation,
            group=node.groups, pads=[*begins, *ends],
        )  # fmt: skip

    def _pool(self, name: str, node: Any, x: str) -> None:
        """Add a pool as a convolution of each channel, so that a sum of spikes stays an integer."""
        channels = self.graph.shapes[name][0]
        ones = self._store(f"{name}/ones", np.ones((channels, 1, *node.kernel_size)))
        average = type(node) is nir.AvgPool2d
        total = self._node(
            "Conv", [x, ones], f"{name}/sums" if average else name,
            group=channels, strides=node.stride, pads=[*node.padding] * 2,
        )  # fmt: skip
        if average:
            area = self._store(f"{name}/area", math.prod(node.kernel_size))
            self._node("Div", [total, area], name)

    def _read_past(self, name: str) -> None:
        """Add a Delay's output, of its past inputs.

        Elements that it delays by no step are those of its input, which then comes before it.
        """
        steps = self.graph.delay_steps(name)
        depth = int(steps.max(initial=0))
        if depth:
            self.states[f"{name}.past"] = (depth, *self.graph.shapes[name])
        chosen = self._input(name) if (steps == 0).any() else ""
        for d in np.unique(steps[steps > 0]):
            index = self._store(f"{name}/step{d}", d - 1, np.int64)
            then = self._node("Gather", [f"{name}.past", index], f"{name}/back{d}", axis=1)
            if chosen:
                mask = self._store(f"{name}/mask{d}", steps == d, np.bool_)
                then = self._node("Where", [mask, then, chosen], f"{name}/upto{d}")
            chosen = then
        self._node("Identity", [chosen], name)

    def _write_past(self, name: str) -> None:
        """Add a Delay's past for the next step: its input, and all but the oldest before it."""
        past, after = f"{name}.past", f"{name}.past.next"
        if past not in self.states:
            return
        depth = self.states[past][0]
        x = self._input(name)
        one = self._store(f"{name}/one", [1], np.int64)
        newest = self._node("Unsqueeze", [x, one], f"{name}/newest")
        if depth == 1:
            self._node("Identity", [newest], after)
            return
        first = self._store(f"{name}/from", [0], np.int64)
        last = self._store(f"{name}/to", [depth - 1], np.int64)
        recent = self._node("Slice", [past, first, last, one], f"{name}/kept")
        self._node("Concat", [newest, recent], after, axis=1)
