"""An exported file in onnxruntime or OpenVINO: logits and spike counts of a batch.

`Runtime` says who computes and how, and loads any ONNX graph as an `Engine`; `OnnxModel` is a file of the zoo. Both runtimes read
the same file, by the same names.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import onnx
import onnxruntime as ort
from google.protobuf.message import DecodeError
from onnxruntime.capi import onnxruntime_pybind11_state as status

from zoo.datasets import DatasetSpec
from zoo.errors import InputError

__all__ = ["ERRORS", "About", "Engine", "OnnxModel", "OnnxOutput", "Runtime", "load_file", "metadata"]

# onnxruntime raises a class of its own for each of its status codes, without a common base; OpenVINO raises RuntimeError.
ERRORS = (
    status.Fail,
    status.InvalidArgument,
    status.InvalidGraph,
    status.InvalidProtobuf,
    status.NoSuchFile,
    status.NotImplemented,
    status.RuntimeException,
    RuntimeError,
)

Array = np.ndarray[Any, np.dtype[Any]]
RuntimeName = Literal["onnxruntime", "openvino"]
ComputePrecision = Literal["float32", "bfloat16"]


class Engine(Protocol):
    """A graph that is loaded, and ready to run."""

    inputs: dict[str, tuple[int, ...]]  # by name; an axis of any length is 0
    outputs: list[str]

    def run(self, wanted: Sequence[str] | None, values: Mapping[str, Array]) -> list[Array]:
        """The `wanted` outputs, or all of them in the graph's order, for an array for every input."""


@dataclass(frozen=True)
class Runtime:
    """Who computes an ONNX graph, in what precision, on how many threads (0: one for each core).

    `bfloat16` is for the layers that are not computed in integers, and changes spikes: it is never verified to keep them. Raises
    `InputError` for a runtime that is not installed, or a precision that it or this processor does not have.
    """

    name: RuntimeName = "onnxruntime"
    precision: ComputePrecision = "float32"
    threads: int = 0

    def __post_init__(self) -> None:
        if self.name not in get_args(RuntimeName):
            raise InputError(f"runtime {self.name!r} is not known; valid are {', '.join(get_args(RuntimeName))}")
        if self.precision not in get_args(ComputePrecision):
            raise InputError(f"precision {self.precision!r} is not known; valid are {', '.join(get_args(ComputePrecision))}")
        if self.name == "onnxruntime" and self.precision != "float32":
            raise InputError(f"onnxruntime computes in float32 here: {self.precision} is for the runtime openvino")

    def __str__(self) -> str:
        return f"{self.name} {version(self.name)}" + ("" if self.precision == "float32" else f", {self.precision}")

    def load(self, model: Path | bytes) -> Engine:
        """Raises one of `ERRORS` for what is no graph."""
        return _OnnxRuntime(model, self) if self.name == "onnxruntime" else _OpenVino(model, self)


class _OnnxRuntime:
    """On the first GPU that onnxruntime was built for and finds, or the CPU."""

    def __init__(self, model: Path | bytes, runtime: Runtime) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = runtime.threads
        options.log_severity_level = 3
        # Threads that spin between calls take the processor from whoever works next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        devices = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in ort.get_available_providers()]
        self._session = ort.InferenceSession(str(model) if isinstance(model, Path) else model, options, providers=devices)
        sizes = {value.name: value.shape for value in self._session.get_inputs()}
        self.inputs = {name: tuple(n if isinstance(n, int) else 0 for n in shape) for name, shape in sizes.items()}
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, wanted: Sequence[str] | None, values: Mapping[str, Array]) -> list[Array]:
        found: list[Array] = self._session.run(wanted, dict(values))
        return found


class _OpenVino:
    """On the CPU, tuned for the time of a single call; compiled for each shape that comes, in seconds for a deep network."""

    def __init__(self, model: Path | bytes, runtime: Runtime) -> None:
        try:
            import openvino
        except ImportError:
            raise InputError("the runtime openvino is not installed: pip install 'danet-zoo[openvino]'") from None
        self._core = openvino.Core()
        if runtime.precision == "bfloat16" and "BF16" not in self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise InputError("this processor does not compute in bfloat16: leave the precision at float32")
        self._settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[runtime.precision],
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # or it rounds real values that integer weights are multiplied with
        }
        if runtime.threads:
            self._settings["INFERENCE_NUM_THREADS"] = runtime.threads
        self._model = self._core.read_model(model if isinstance(model, bytes) else str(model))
        self._requests: dict[tuple[tuple[int, ...], ...], Any] = {}
        sizes = {value.any_name: value.partial_shape for value in self._model.inputs}
        self.inputs = {name: tuple(0 if n.is_dynamic else n.get_length() for n in shape) for name, shape in sizes.items()}
        self.outputs = [output.any_name for output in self._model.outputs]

    def run(self, wanted: Sequence[str] | None, values: Mapping[str, Array]) -> list[Array]:
        # Compiled for any batch, OpenVINO 2026.4 computes some convolutions of integers wrongly from the second size on.
        shapes = tuple(value.shape for value in values.values())
        if shapes not in self._requests:
            self._model.reshape(dict(zip(values, shapes, strict=True)))
            compiled = self._core.compile_model(self._model, "CPU", self._settings)
            self._requests[shapes] = compiled.create_infer_request()
        request = self._requests[shapes]
        request.infer({name: np.ascontiguousarray(value) for name, value in values.items()})
        # Copied: the next call writes into the same memory.
        return [request.get_tensor(name).data.copy() for name in wanted or self.outputs]


@dataclass(frozen=True)
class OnnxOutput:
    """`logits` `[B, K]`, and for every neuron layer's path its spikes: of each image, `[B]`, or as they were, `[T*B, C, H, W]`."""

    logits: Array
    spikes: dict[str, Array]


@dataclass(frozen=True)
class About:
    """What a file of the zoo says of itself."""

    name: str
    steps: int
    data: DatasetSpec
    weights_sha256: str

    def check(self, images: Array, batch: int | None = None) -> None:
        """Raises `InputError` for images that are not finite numbers `[B, C, H, W]` of the network's own size."""
        expected = (self.data.channels, self.data.size, self.data.size)
        if images.ndim != 4 or images.shape[1:] != expected or len(images) != (batch or len(images)):
            shape = [batch or "B", *expected]
            raise InputError(f"input of shape {list(images.shape)}: {self.name} takes [{', '.join(map(str, shape))}]")
        if not np.isfinite(images).all():
            raise InputError("input holds NaN or infinite values")


class OnnxModel:
    """A file of the `sequence` form that `write_onnx` wrote. Raises `InputError` if it is not one."""

    def __init__(self, path: Path, runtime: Runtime | None = None) -> None:
        self.runtime = runtime or Runtime()
        self.about, self._engine = load_file(path, self.runtime, form="sequence")

    def run(self, images: Array) -> OnnxOutput:
        """`images`: normalised float32 `[B, C, H, W]`."""
        self.about.check(images)
        found = self._engine.run(None, {"images": images.astype(np.float32)})
        values = dict(zip(self._engine.outputs, found, strict=True))
        return OnnxOutput(values.pop("logits"), {name.removesuffix(".count"): value for name, value in values.items()})


def load_file(path: Path, runtime: Runtime, *, form: str) -> tuple[About, Engine]:
    """A file that `write_onnx` wrote in this form. Raises `InputError` for any other."""
    meta = metadata(path)
    try:
        about = About(meta["name"], int(meta["steps"]), DatasetSpec.from_dict(json.loads(meta["data"])), meta["weights_sha256"])
    except KeyError as error:
        raise InputError(f"{path} is an ONNX file, but none of the zoo's: it has no metadata {error}") from None
    except ValueError as error:
        raise InputError(f"{path} has metadata of no network: {str(error).splitlines()[0]}") from None
    if meta.get("form", "sequence") != form:
        raise InputError(f"{path} is of the form {meta['form']}: write another with `zoo export NAME --form {form}`")
    try:
        return about, runtime.load(path)
    except ERRORS as error:
        raise InputError(f"{path} is not an ONNX file that {runtime.name} reads: {str(error).splitlines()[0]}") from None


def metadata(path: Path) -> dict[str, str]:
    """What an ONNX file says of itself. Raises `InputError` for what is none."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: write it with `zoo export NAME --to onnx`")
    try:
        proto = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError, ValueError) as error:
        raise InputError(f"{path} is not an ONNX file: {str(error).splitlines()[0]}") from None
    if not proto.opset_import:
        raise InputError(f"{path} is not an ONNX file: it names no operator set")
    return {str(entry.key): str(entry.value) for entry in proto.metadata_props}
