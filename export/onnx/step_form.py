"""Neurons of an ONNX graph of one time step, their state as inputs and outputs of the graph.

    <path>.membrane       [B, ...]   zeros before the first step
    <path>.membrane.next  [B, ...]   for the next; of a neuron that resets to zero, after the reset

T calls compute what the sequence form computes, in the same order of rounding: a product with a
spike of 0 or 1 is exact, so it does not matter in which step the reset is done.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.prepare.neurons import lif_constants
from zoo.neurons import Lif

__all__ = ["NEXT", "STATE", "add_state"]

STATE, NEXT = ".membrane", ".membrane.next"
ONE = "state.one"  # the stored number 1


def add_state(graph: onnx.GraphProto, neurons: Mapping[str, Lif]) -> None:
    """Rewrite `graph` in place, whose neurons compute a first step from a membrane of zero.

    `neurons` maps the path of each to its module.
    """
    shapes = {value.name: value.type.tensor_type.shape for value in graph.value_info}
    producers = {node.output[0]: node for node in graph.node}
    # A neuron's spikes are a Cast of its comparison with the threshold.
    paths = {producers[path].input[0]: path for path in neurons}
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), ONE))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        output = node.output[0]
        if output in paths:
            path = paths[output]
            current, threshold = node.input
            nodes += _integrate(graph, path, neurons[path], current, threshold)
            node.input[0] = f"{path}.potential"
        nodes.append(node)
        if output in neurons:
            nodes += _next_membrane(output, neurons[output])
    del graph.node[:]
    graph.node.extend(nodes)
    for path in neurons:
        dims = [dim.dim_param or dim.dim_value for dim in shapes[path].dim]
        graph.input.append(helper.make_tensor_value_info(path + STATE, TensorProto.FLOAT, dims))
        graph.output.append(helper.make_tensor_value_info(path + NEXT, TensorProto.FLOAT, dims))


def _integrate(
    graph: onnx.GraphProto, path: str, lif: Lif, current: str, threshold: str
) -> list[onnx.NodeProto]:
    """Return the nodes of `<path>.potential`, the membrane that is compared with the threshold.

    It is `beta membrane + current`, less the threshold where the neuron resets by subtraction and
    fired in the step before.
    """
    beta, _ = lif_constants(lif)
    if f"{path}.beta" not in {tensor.name for tensor in graph.initializer}:
        graph.initializer.append(numpy_helper.from_array(beta.numpy(), f"{path}.beta"))

    def node(kind: str, inputs: list[str], value: str, name: str, **more: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [f"{path}.{value}"], f"{path}/{name}", **more)

    state, decayed = path + STATE, f"{path}.decayed"
    decay = node("Mul", [state, f"{path}.beta"], "decayed", "decay")
    if lif.reset == "zero":
        return [decay, node("Add", [decayed, current], "potential", "integrate")]
    return [
        decay,
        node("Add", [decayed, current], "charged", "integrate"),
        node("Greater", [state, threshold], "fired", "fired"),
        node("Cast", [f"{path}.fired"], "last", "last", to=TensorProto.FLOAT),
        node("Mul", [f"{path}.last", threshold], "drop", "drop"),
        node("Sub", [f"{path}.charged", f"{path}.drop"], "potential", "reset"),
    ]


def _next_membrane(path: str, lif: Lif) -> list[onnx.NodeProto]:
    """Return the nodes of `<path>.membrane.next`."""
    potential, silent, after = f"{path}.potential", f"{path}.silent", path + NEXT
    if lif.reset != "zero":
        return [helper.make_node("Identity", [potential], [after], f"{path}/next")]
    return [
        helper.make_node("Sub", [ONE, path], [silent], f"{path}/silent"),
        helper.make_node("Mul", [potential, silent], [after], f"{path}/next"),
    ]
