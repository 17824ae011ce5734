"""An exported file in onnxruntime: logits and spike counts of a batch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as status

from zoo.datasets import DatasetSpec
from zoo.errors import InputError

__all__ = ["ERRORS", "OnnxModel", "OnnxOutput", "session"]

# onnxruntime raises a class of its own for each of its status codes, without a common base
ERRORS = (
    status.Fail,
    status.InvalidArgument,
    status.InvalidGraph,
    status.InvalidProtobuf,
    status.NoSuchFile,
    status.NotImplemented,
    status.RuntimeException,
)

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class OnnxOutput:
    """`logits` `[B, K]`, and for every neuron layer's path its spikes of each image `[B]`."""

    logits: Array
    spikes: dict[str, Array]


def session(model: str | bytes, threads: int = 0) -> ort.InferenceSession:
    """An onnxruntime session on the CPU; 0 threads means one for each core."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # Threads that spin between calls take the processor from whoever works next.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OnnxModel:
    """A file that `write_onnx` wrote. Raises `InputError` if it is not one."""

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        if not path.is_file():
            raise InputError(f"{path} does not exist: write it with `zoo export NAME --to onnx`")
        try:
            self._session = session(str(path), threads)
            meta = self._session.get_modelmeta().custom_metadata_map
            self.name = meta["name"]
            self.steps = int(meta["steps"])
            self.weights_sha256 = meta["weights_sha256"]
            self.data = DatasetSpec.from_dict(json.loads(meta["data"]))
        except KeyError as error:
            raise InputError(f"{path} is an ONNX file, but none of the zoo's: it has no metadata {error}") from None
        except ERRORS as error:
            raise InputError(f"{path} is not an ONNX file that onnxruntime reads: {str(error).splitlines()[0]}") from None
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, images: Array) -> OnnxOutput:
        """`images`: normalised float32 `[B, C, H, W]`."""
        expected = (self.data.channels, self.data.size, self.data.size)
        if images.ndim != 4 or images.shape[1:] != expected:
            raise InputError(f"input of shape {list(images.shape)}: {self.name} takes [B, {', '.join(map(str, expected))}]")
        if not np.isfinite(images).all():
            raise InputError("input holds NaN or infinite values")
        values = dict(zip(self._outputs, self._session.run(None, {"images": images.astype(np.float32)}), strict=True))
        return OnnxOutput(values.pop("logits"), {name.removesuffix(".count"): value for name, value in values.items()})
