"""8-bit weights and integer spikes in an ONNX graph, by QuantizeLinear and DequantizeLinear.

    weight   int8 [C_out, ...] -> DequantizeLinear, a scale for each output channel -> Conv, Gemm
    spikes   -> QuantizeLinear -> DequantizeLinear, uint8 with the scale of their grid and zero
             point 0 -> Conv

A runtime that knows the pattern computes such a convolution in integers; one that does not gets the
same numbers in float32, as nothing is rounded: a spike is 0 or 1, a sum of spikes a small count, a
pool over 2^n pixels a multiple of 2^-n. Real values (the image, membranes, a real-valued residual
stream) stay as they are.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from zoo.arrays import Array

__all__ = ["Grid", "grids", "integer_weights", "with_integers"]

MAX_UINT8, MAX_INT8 = 255, 127


class Grid(NamedTuple):
    """The values `k * step` for every whole number k from 0 to `largest`."""

    step: float
    largest: int

    @property
    def exact(self) -> bool:
        """Return whether float32 holds every value exactly, and uint8 its number k."""
        return self.largest <= MAX_UINT8 and math.frexp(self.step)[0] == 0.5


def with_integers(graph: onnx.GraphProto, scales: Mapping[str, Array]) -> None:
    """Store weights as int8, and give convolutions of spikes their integers, in place.

    `scales` maps `<path>.weight` to `[C_out]`, the scales whose multiples the stored weight
    consists of. Raises `ValueError` for a weight that is no such multiple from -127 to 127.
    """
    grid_of = grids(graph)
    stored = {tensor.name: tensor for tensor in graph.initializer}
    nodes = [
        _store_integers(graph, stored[name], scale.astype(np.float32))
        for name, scale in scales.items()
    ]
    quantized: dict[str, str] = {}
    for node in graph.node:
        if node.op_type == "Conv" and node.input[1] in scales:
            value = node.input[0]
            grid = grid_of.get(value)
            if grid is not None and grid.exact:
                if value not in quantized:
                    nodes += _quantize(graph, value, grid)
                    quantized[value] = f"{value}.grid"
                node.input[0] = quantized[value]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def grids(graph: onnx.GraphProto) -> dict[str, Grid]:
    """Return the values that are whole multiples of a step, by the graph's structure, by name."""
    grid_of: dict[str, Grid] = {}
    producers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        if grid := _output_grid(node, producers, grid_of):
            grid_of |= dict.fromkeys(node.output, grid)
    return grid_of


def _output_grid(
    node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], grid_of: Mapping[str, Grid]
) -> Grid | None:
    """Return the grid of a node's outputs, or None where the structure promises none."""
    inputs = [grid_of.get(name) for name in node.input]
    first, second = [*inputs, None, None][:2]
    match node.op_type:
        case "Cast" if node.input[0] in producers:
            return Grid(1.0, 1) if producers[node.input[0]].op_type == "Greater" else None
        case "Split" | "Reshape" | "MaxPool" | "Identity":
            return first
        case "Concat" if all(inputs):
            terms = [grid for grid in inputs if grid is not None]
            return max(terms) if len({grid.step for grid in terms}) == 1 else None
        case "AveragePool" if first and _attribute(node, "count_include_pad", 0):
            pixels = math.prod(_attribute(node, "kernel_shape", [1]))
            return Grid(first.step / pixels, first.largest * pixels)
        case "Add" if first and second and first.step == second.step:
            return Grid(first.step, first.largest + second.largest)
        case "Mul" if first and second and first.step == second.step == 1:
            return Grid(1.0, first.largest * second.largest)
    return None


def integer_weights(graph: onnx.GraphProto) -> dict[str, tuple[Array, Array]]:
    """Return the weights that `with_integers` stored: as float32, and their scales `[C_out]`."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    weights: dict[str, tuple[Array, Array]] = {}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and all(name in stored for name in node.input):
            integers, scale = (numpy_helper.to_array(stored[name]) for name in node.input[:2])
            weights[node.output[0]] = integers * _column(scale, integers.ndim), scale
    return weights


def _column(scale: Array, axes: int) -> Array:
    """Return scales `[C_out]` with so many axes, to be multiplied with a weight."""
    return scale.reshape(-1, *[1] * (axes - 1))


def _store_integers(
    graph: onnx.GraphProto, tensor: onnx.TensorProto, scale: Array
) -> onnx.NodeProto:
    """Replace a stored weight by integers and scales; return the node that multiplies them."""
    name, weight = tensor.name, numpy_helper.to_array(tensor)
    column = _column(scale, weight.ndim)
    integers = np.rint(weight / column).astype(np.int8)
    exact = np.array_equal(integers * column, weight)
    if not exact or np.abs(integers.astype(np.int16)).max() > MAX_INT8:
        raise ValueError(f"{name} is not of whole multiples of its scales")
    graph.initializer.remove(tensor)
    graph.initializer.append(numpy_helper.from_array(integers, f"{name}.int8"))
    graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
    return helper.make_node(
        "DequantizeLinear", [f"{name}.int8", f"{name}.scale"], [name], f"{name}/dequantise", axis=0
    )


def _quantize(graph: onnx.GraphProto, value: str, grid: Grid) -> list[onnx.NodeProto]:
    """Return the nodes that turn a value into integers, and these into `<value>.grid`."""
    step, zero, integers = f"{value}.step", f"{value}.zero", f"{value}.uint8"
    graph.initializer.append(numpy_helper.from_array(np.array(grid.step, np.float32), step))
    graph.initializer.append(numpy_helper.from_array(np.array(0, np.uint8), zero))
    return [
        helper.make_node("QuantizeLinear", [value, step, zero], [integers], f"{value}/quantise"),
        helper.make_node(
            "DequantizeLinear", [integers, step, zero], [f"{value}.grid"], f"{value}/dequantise"
        ),
    ]


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)
