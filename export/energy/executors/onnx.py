"""An exported file in onnxruntime or OpenVINO.

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels, `K` classes.
"""

from pathlib import Path

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


class OnnxExecutor(Executor):
    """A file that the zoo exported; its graph is read from the file alone. The reductions are part
    of what the runtime runs.
    """

    def __init__(self, path: str | Path, runtime: Runtime | None = None) -> None:
        model = read_onnx(path)
        proto = read_file(path)
        metadata = read_metadata(proto, path)
        runtime = runtime or Runtime()
        graph = to_nir(model, profile="native")
        super().__init__(
            graph,
            Source(
                metadata.name,
                str(runtime),
                model.config.steps,
                metadata.data,
                metadata.weights_sha256,
                metadata.provenance,
                metadata.weight_format,
            ),
        )
        self.paths = {node_name(value): value for node in proto.graph.node for value in node.output}
        try:
            self._engine = runtime.load(self._with_spikes(proto).SerializeToString())
        except ERRORS as error:
            raise InputError(
                f"{path} is not an ONNX file that {runtime.name} reads: {reason(error)}"
            ) from None

    def _run(self, x: Tensor, spikes: Spikes) -> Tensor:
        values = {
            name: torch.from_numpy(value)
            for name, value in run_images(self._engine, x.numpy()).items()
        }
        for name in self.neurons:
            path = self.paths[name]
            if name in self.keep:
                spikes.add(name, values[path], keep=True)
            else:
                pixels = values[f"{path}.pixels"]
                spikes.reduced(
                    name,
                    pixels.reshape(self.source.steps, -1, *pixels.shape[1:]),
                    values[f"{path}.active"],
                )
        return values["logits"]

    def _with_spikes(self, proto: onnx.ModelProto) -> onnx.ModelProto:
        """The file with the spikes of all neurons as outputs, in place of their counts: `[T*B, C,
        H, W]` whole, or summed over channels, `<path>.pixels` `[T*B, H, W]`, and the channels that
        fire at all, `<path>.active` `[B, H, W]`.
        """
        graph = proto.graph
        wanted = ["logits"]
        makers = {output: node for node in graph.node for output in node.output}
        axes = {"spikes.channels": [1], "spikes.steps": [0]}
        graph.initializer.extend(
            numpy_helper.from_array(np.array(v, np.int64), name) for name, v in axes.items()
        )
        for layer in (layer for layer in self.layers if layer.neuron):
            path = self.paths[layer.name]
            if layer.name in self.keep:
                wanted.append(path)
                continue
            steps = _steps(makers, path)
            if steps:  # a third of the time of ReduceMax
                whole = np.array([-1, *layer.out_shape], np.int64)
                graph.initializer.append(numpy_helper.from_array(whole, f"{path}.shape"))
                graph.node.append(helper.make_node("Max", steps, [f"{path}.most"]))
                graph.node.append(
                    helper.make_node("Reshape", [f"{path}.most", f"{path}.shape"], [f"{path}.any"])
                )
            else:
                folded = np.array([self.source.steps, -1, *layer.out_shape], np.int64)
                graph.initializer.append(numpy_helper.from_array(folded, f"{path}.shape"))
                graph.node.append(
                    helper.make_node("Reshape", [path, f"{path}.shape"], [f"{path}.folded"])
                )
                graph.node.append(
                    helper.make_node(
                        "ReduceMax", [f"{path}.folded", "spikes.steps"], [f"{path}.any"], keepdims=0
                    )
                )
            for value, sums in ((path, f"{path}.pixels"), (f"{path}.any", f"{path}.active")):
                graph.node.append(
                    helper.make_node("ReduceSum", [value, "spikes.channels"], [sums], keepdims=0)
                )
                wanted.append(sums)
        del graph.output[:]
        graph.output.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in wanted
        )
        return proto


def _steps(makers: dict[str, onnx.NodeProto], path: str) -> list[str]:
    """The spikes of each step of a neuron, `[B, C, H, W]` or `[1, B, C, H, W]`; none if they are
    made in one.
    """
    maker = makers[path]
    if maker.op_type == "Reshape" and maker.input[0] in makers:
        maker = makers[maker.input[0]]
    return list(maker.input) if maker.op_type == "Concat" else []
