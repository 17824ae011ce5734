"""Neurons of an ONNX graph of one time step, with the state that they carry to the next as inputs
and outputs.

    <path>.membrane       [B, ...]   zeros before the first step
    <path>.membrane.next  [B, ...]   for the next; of a neuron that resets to zero, after the reset

T calls compute what the sequence form computes, in the same order of rounding: a product with a
spike of 0 or 1 is exact, so it does not matter in which step the reset is done.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.prepare.neurons import lif_constants
from zoo.neurons import Lif

__all__ = ["NEXT", "STATE", "add_state"]

STATE, NEXT = ".membrane", ".membrane.next"


def add_state(graph: onnx.GraphProto, neurons: Mapping[str, Lif]) -> None:
    """Rewrite `graph`, whose neurons (module's path -> neuron) compute a first step, in place."""
    shapes = {value.name: value.type.tensor_type.shape for value in graph.value_info}
    fires: dict[str, tuple[str, Lif]] = {}  # by the comparison's output
    casts = {node.output[0]: node for node in graph.node}
    for path, lif in neurons.items():
        fires[casts[path].input[0]] = path, lif
    graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), "state.one"))
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output[0] in fires:
            path, lif = fires[node.output[0]]
            current, threshold = node.input
            nodes += _membrane(graph, path, lif, current, threshold)
            node.input[0] = f"{path}.potential"
        nodes.append(node)
        if node.output[0] in neurons:
            nodes += _carried(node.output[0], neurons[node.output[0]])
    del graph.node[:]
    graph.node.extend(nodes)
    for path in neurons:
        dims = [dim.dim_param or dim.dim_value for dim in shapes[path].dim]
        graph.input.append(helper.make_tensor_value_info(path + STATE, TensorProto.FLOAT, dims))
        graph.output.append(helper.make_tensor_value_info(path + NEXT, TensorProto.FLOAT, dims))


def _membrane(
    graph: onnx.GraphProto, path: str, lif: Lif, current: str, threshold: str
) -> list[onnx.NodeProto]:
    """`<path>.potential`: what the membrane is before it is compared with the threshold."""
    beta, _ = lif_constants(lif)
    if f"{path}.beta" not in {tensor.name for tensor in graph.initializer}:
        graph.initializer.append(numpy_helper.from_array(beta.numpy(), f"{path}.beta"))
    decayed = helper.make_node(
        "Mul", [path + STATE, f"{path}.beta"], [f"{path}.decayed"], f"{path}/decay"
    )
    if lif.reset == "zero":
        return [
            decayed,
            helper.make_node(
                "Add", [f"{path}.decayed", current], [f"{path}.potential"], f"{path}/integrate"
            ),
        ]
    return [
        decayed,
        helper.make_node(
            "Add", [f"{path}.decayed", current], [f"{path}.charged"], f"{path}/integrate"
        ),
        helper.make_node("Greater", [path + STATE, threshold], [f"{path}.fired"], f"{path}/fired"),
        helper.make_node(
            "Cast", [f"{path}.fired"], [f"{path}.last"], f"{path}/last", to=TensorProto.FLOAT
        ),
        helper.make_node("Mul", [f"{path}.last", threshold], [f"{path}.drop"], f"{path}/drop"),
        helper.make_node(
            "Sub", [f"{path}.charged", f"{path}.drop"], [f"{path}.potential"], f"{path}/reset"
        ),
    ]


def _carried(path: str, lif: Lif) -> list[onnx.NodeProto]:
    """`<path>.membrane.next`."""
    if lif.reset != "zero":
        return [helper.make_node("Identity", [f"{path}.potential"], [path + NEXT], f"{path}/next")]
    return [
        helper.make_node("Sub", ["state.one", path], [f"{path}.silent"], f"{path}/silent"),
        helper.make_node(
            "Mul", [f"{path}.potential", f"{path}.silent"], [path + NEXT], f"{path}/next"
        ),
    ]
