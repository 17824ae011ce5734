"""8-bit weights in an ONNX graph, and spikes as the integers that they are, in QuantizeLinear and
DequantizeLinear alone.

    weight   int8 [C_out, ...] -> DequantizeLinear, a scale for each output channel -> Conv, Gemm
    spikes   -> QuantizeLinear -> DequantizeLinear, uint8 with the scale of their grid and zero point 0 -> Conv

A runtime that knows the pattern computes such a convolution in integers; one that does not gets the
same numbers in float32, as nothing is rounded: a spike is 0 or 1, a sum of spikes a small count, a
pool over 2^n pixels a multiple of 2^-n. What is no such number (the image, membranes, a real-valued
stream) stays as it is.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["Grid", "grids", "integer_weights", "with_integers"]

Array = np.ndarray[Any, np.dtype[Any]]
Grid = tuple[float, int]  # values are k * step for whole k from 0 to largest; (step, largest)
LARGEST = 255  # of uint8


def with_integers(graph: onnx.GraphProto, scales: Mapping[str, Array]) -> None:
    """Rewrite `graph` in place. `scales` maps `<path>.weight` to `[C_out]`, of whose multiples the
    stored weight consists.

    Raises `ValueError` for a weight that is no such multiple from -127 to 127.
    """
    known = grids(graph)
    nodes: list[onnx.NodeProto] = []
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for name, scale in scales.items():
        nodes.append(_integer_weight(graph, stored[name], scale.astype(np.float32)))
    quantised: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in scales and _fits(known.get(node.input[0])):
            value = node.input[0]
            if value not in quantised:
                nodes += _integer_value(graph, value, known[value])
                quantised[value] = f"{value}.grid"
            node.input[0] = quantised[value]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def grids(graph: onnx.GraphProto) -> dict[str, Grid]:
    """The values of which the graph's structure says that they are whole multiples of a step, from
    zero to a largest.
    """
    found: dict[str, Grid] = {}
    made = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        inputs = [found.get(name) for name in node.input]
        grid: Grid | None = None
        match node.op_type:
            case "Cast" if node.input[0] in made and made[node.input[0]].op_type == "Greater":
                grid = (1.0, 1)
            case "Split" | "Reshape" | "MaxPool" | "Identity":
                grid = inputs[0]
            case "Concat" if all(inputs) and len({step for step, _ in filter(None, inputs)}) == 1:
                grid = max(filter(None, inputs))
            case "AveragePool" if inputs[0] and _attribute(node, "count_include_pad", 0):
                pixels = math.prod(_attribute(node, "kernel_shape", [1]))
                grid = (inputs[0][0] / pixels, inputs[0][1] * pixels)
            case "Add" if inputs[0] and inputs[1] and inputs[0][0] == inputs[1][0]:
                grid = (inputs[0][0], inputs[0][1] + inputs[1][1])
            case "Mul" if inputs[0] and inputs[1] and inputs[0][0] == inputs[1][0] == 1:
                grid = (1.0, inputs[0][1] * inputs[1][1])
        if grid:
            found |= dict.fromkeys(node.output, grid)
    return found


def integer_weights(graph: onnx.GraphProto) -> dict[str, tuple[Array, Array]]:
    """Name -> the numbers that `with_integers` stored as integers, as float32, and their scales
    `[C_out]`.
    """
    stored = {tensor.name: tensor for tensor in graph.initializer}
    found: dict[str, tuple[Array, Array]] = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and all(name in stored for name in node.input):
            whole, scale = (numpy_helper.to_array(stored[name]) for name in node.input[:2])
            found[node.output[0]] = whole * scale.reshape(-1, *[1] * (whole.ndim - 1)), scale
    return found


def _fits(grid: Grid | None) -> bool:
    """Whether float32 holds every value exactly, and uint8 its number."""
    return grid is not None and grid[1] <= LARGEST and math.frexp(grid[0])[0] == 0.5


def _integer_weight(
    graph: onnx.GraphProto, tensor: onnx.TensorProto, scale: Array
) -> onnx.NodeProto:
    """Replace a weight by integers and scales; the node that makes it of them."""
    name, weight = tensor.name, numpy_helper.to_array(tensor)
    column = scale.reshape(-1, *[1] * (weight.ndim - 1))
    whole = np.rint(weight / column).astype(np.int8)
    if not np.array_equal(whole * column, weight) or np.abs(whole.astype(np.int16)).max() > 127:
        raise ValueError(f"{name} is not of whole multiples of its scales")
    graph.initializer.remove(tensor)
    graph.initializer.append(numpy_helper.from_array(whole, f"{name}.int8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
    return helper.make_node(
        "DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], f"{name}/dequantise", axis=0
    )


def _integer_value(graph: onnx.GraphProto, value: str, grid: Grid) -> list[onnx.NodeProto]:
    graph.initializer.append(
        numpy_helper.from_array(np.array(grid[0], np.float32), f"{value}.step")
    )
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), f"{value}.zero"))
    scale = [f"{value}.step", f"{value}.zero"]
    return [
        helper.make_node(
            "QuantizeLinear", [value, *scale], [f"{value}.uint8"], f"{value}/quantise"
        ),
        helper.make_node(
            "DequantizeLinear", [f"{value}.uint8", *scale], [f"{value}.grid"], f"{value}/dequantise"
        ),
    ]


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
