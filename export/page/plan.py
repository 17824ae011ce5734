"""The structure of a network as a page reads it, to count what `export.energy` counts.

`site/counts.js` and `site/conventions.js` apply the same rules to the same facts: what feeds each
node, which of a convolution's taps meet the image, which weights are missing. Both give the same
integers.
"""

from typing import Any

import nir
import numpy as np
import torch

from export.energy.counting.count import LayerCounts, count
from export.energy.counting.spikes import Spikes
from export.energy.executors import Executor
from export.energy.structure import PASSING, LayerStructure
from export.nir.nodes import CONVS, NODE_KINDS, POOLS
from zoo.arrays import Array
from zoo.errors import ExportError

__all__ = ["facts", "plan"]

MAX_MISSING = 1 << 20  # weights of a layer that a page lists


def plan(layers: list[LayerStructure]) -> list[dict[str, Any]]:
    """Return a record for each node, in topological order.

    Raises `ExportError` for a node whose operations a page does not count.
    """
    return [_node(layer) for layer in layers]


def _node(layer: LayerStructure) -> dict[str, Any]:
    """Return what a node reads and does.

    Shapes are `[C, H, W]`; `terms` is what it adds up, `window` the vertical and the horizontal
    kernel, stride, first padding and dilation; `missing` the places of zeros among the weights
    `[C_out, C_in / groups, kh, kw]`.
    """
    record: dict[str, Any] = {
        "name": layer.name,
        "kind": _kind(layer),
        "sources": list(layer.sources),
        "terms": [list(term) for term in layer.terms],
        "in": _shape(layer.in_shape),
        "out": _shape(layer.out_shape),
        "readsSpikes": layer.spikes_in,
        "bound": layer.in_bound,
        "sendsEvents": layer.neuron or (not layer.sources and layer.out_bound is not None),
        "static": layer.static_input,
        "driven": layer.driven,
        "biases": layer.biases,
    }
    if layer.fan is not None:
        windows = ((w.kernel, w.stride, w.begin, w.dilation) for w in layer.fan.windows)
        record |= {
            "window": [list(window) for window in windows],
            "groups": layer.fan.groups,
            "connections": layer.fan.connections,
            "missing": _missing(layer, layer.fan.present),
        }
    if isinstance(layer.node, nir.Scale):
        factors = np.broadcast_to(layer.node.scale, layer.out_shape) != 0
        record["factors"] = int(factors.sum())
        if layer.spikes_in and not factors.all():
            raise ExportError(f"{layer.name} scales spikes by zero: a page does not count that")
    return record


def _kind(layer: LayerStructure) -> str:
    if layer.neuron:
        if len(NODE_KINDS[type(layer.node)].integrators) > 1:
            raise ExportError(f"{layer.name} has a synaptic current: a page does not count it")
        return "neuron"
    if layer.delays is not None:
        raise ExportError(f"{layer.name} delays spikes: a page does not count it")
    if layer.weighted:
        return "conv" if isinstance(layer.node, CONVS) else "linear"
    if isinstance(layer.node, POOLS):
        return "pool"
    if isinstance(layer.node, nir.Scale):
        return "scale"
    assert isinstance(layer.node, PASSING), layer.name  # `read_structure` refuses any other
    return "pass"


def _missing(layer: LayerStructure, present: Array) -> list[int]:
    missing: list[int] = np.flatnonzero(~present).tolist()
    if len(missing) > MAX_MISSING:
        raise ExportError(f"{layer.name} lacks {len(missing):,} weights: too many for a page")
    return missing


def _shape(shape: tuple[int, ...]) -> list[int]:
    return [*shape, 1, 1][:3] if len(shape) < 3 else list(shape)


def facts(executor: Executor) -> dict[str, dict[str, Any]]:
    """Return for each row of a report what its structure alone says, of one run."""
    rows = count(executor.layers, _silence(executor))
    return {row.name: _facts(row) for row in rows}


def _facts(row: LayerCounts) -> dict[str, Any]:
    return {
        "inputKind": row.input_kind,
        "inputs": row.inputs,
        "outputs": row.outputs,
        "biases": row.bias_adds,
        "multiplies": row.multiplies,
        "connections": row.connections,
        "padded": row.dense_macs_padded,
        "kernel": row.kernel,
        "stride": row.stride,
        "fanOut": row.fan_out,
        "weightBytes": row.weight_bytes,
        "stateBytes": row.state_bytes,
        "leaks": row.leaks,
        "modules": row.modules,
        "readOut": row.read_out,
    }


def _silence(executor: Executor) -> Spikes:
    """Return the spikes of one image and step at which nothing fires."""
    spikes = Spikes(steps=1)
    for layer in executor.layers:
        if layer.neuron or (not layer.sources and layer.out_bound is not None):
            train = torch.zeros(1, *_shape(layer.out_shape))
            spikes.add(layer.name, train, keep=layer.name in executor.keep)
    return spikes
