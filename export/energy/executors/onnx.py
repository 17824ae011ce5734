"""The executor of an exported file, in onnxruntime or OpenVINO.

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels, `K` classes.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from export.energy.counting.spikes import Spikes
from export.energy.executors.base import Executor, Source
from export.nir.exporter import node_name, to_nir
from export.onnx.engines import ERRORS, reason
from export.onnx.file import read_file, read_metadata
from export.onnx.importer import read_onnx
from export.onnx.runtime import Runtime, run_images
from zoo.errors import InputError

__all__ = ["OnnxExecutor"]

CHANNELS, STEPS = "spikes.channels", "spikes.steps"  # the axes of reductions, in a file


class OnnxExecutor(Executor):
    """A file that the zoo exported; its graph is read from the file alone.

    The reductions of spikes are part of what the runtime runs.
    """

    def __init__(self, path: str | Path, runtime: Runtime | None = None) -> None:
        model = read_onnx(path)
        proto = read_file(path)
        metadata = read_metadata(proto, path)
        runtime = runtime or Runtime()
        source = Source(
            name=metadata.name,
            engine=str(runtime),
            steps=model.config.steps,
            data=metadata.data,
            weights_sha256=metadata.weights_sha256,
            provenance=metadata.provenance,
            weight_format=metadata.weight_format,
        )
        super().__init__(to_nir(model, dialect="native"), source)
        self.paths = {node_name(value): value for node in proto.graph.node for value in node.output}
        try:
            self._engine = runtime.load(self._with_spikes(proto).SerializeToString())
        except ERRORS as error:
            what = f"{path} is not an ONNX file that {runtime.name} reads"
            raise InputError(f"{what}: {reason(error)}") from None

    def _run(self, x: Tensor, spikes: Spikes) -> Tensor:
        arrays = run_images(self._engine, x.numpy())
        values = {name: torch.from_numpy(array) for name, array in arrays.items()}
        for name in self.neurons:
            path = self.paths[name]
            if name in self.keep:
                spikes.add(name, values[path], keep=True)
            else:
                pixels = values[f"{path}.pixels"]
                pixels = pixels.reshape(self.source.steps, -1, *pixels.shape[1:])
                spikes.add_reduced(name, pixels, values[f"{path}.active"])
        return values["logits"]

    def _with_spikes(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        """Return the file with the spikes of all neurons as outputs, in place of their counts.

        They are `[T*B, C, H, W]` as they are, or summed over channels, `<path>.pixels` `[T*B, H,
        W]`, with the channels that fire at all, `<path>.active` `[B, H, W]`.
        """
        graph = proto.graph
        makers = {output: node for node in graph.node for output in node.output}
        outputs = ["logits"]
        _add_integers(graph, CHANNELS, [1])
        _add_integers(graph, STEPS, [0])
        for layer in self.layers:
            if not layer.neuron:
                continue
            path = self.paths[layer.name]
            if layer.name in self.keep:
                outputs.append(path)
                continue
            self._add_any(graph, path, layer.out_shape, _steps(makers, path))
            for value, sums in ((path, f"{path}.pixels"), (f"{path}.any", f"{path}.active")):
                _add_node(graph, "ReduceSum", [value, CHANNELS], sums, keepdims=0)
                outputs.append(sums)
        del graph.output[:]
        kind = TensorProto.FLOAT
        graph.output.extend(helper.make_tensor_value_info(name, kind, None) for name in outputs)
        return proto

    def _add_any(
        self, graph: onnx.GraphProto, path: str, shape: tuple[int, ...], steps: list[str]
    ) -> None:
        """Add `<path>.any`, `[B, C, H, W]`: whether a neuron fires at any step."""
        if steps:  # a third of the time of ReduceMax
            _add_integers(graph, f"{path}.shape", [-1, *shape])
            _add_node(graph, "Max", steps, f"{path}.most")
            _add_node(graph, "Reshape", [f"{path}.most", f"{path}.shape"], f"{path}.any")
        else:
            _add_integers(graph, f"{path}.shape", [self.source.steps, -1, *shape])
            _add_node(graph, "Reshape", [path, f"{path}.shape"], f"{path}.folded")
            _add_node(graph, "ReduceMax", [f"{path}.folded", STEPS], f"{path}.any", keepdims=0)


def _add_integers(graph: onnx.GraphProto, name: str, values: list[int]) -> None:
    graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))


def _add_node(
    graph: onnx.GraphProto, operator: str, inputs: list[str], output: str, **attributes: Any
) -> None:
    graph.node.append(helper.make_node(operator, inputs, [output], **attributes))


def _steps(makers: dict[str, onnx.NodeProto], path: str) -> list[str]:
    """Return the spikes of each step of a neuron, `[B, C, H, W]` or `[1, B, C, H, W]`.

    There are none if all steps are made in one.
    """
    maker = makers[path]
    if maker.op_type == "Reshape" and maker.input[0] in makers:
        maker = makers[maker.input[0]]
    return list(maker.input) if maker.op_type == "Concat" else []
