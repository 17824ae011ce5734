"""ONNX graphs that are loaded and ready to run: in onnxruntime, and in OpenVINO.

Which one, in what precision and on how many threads is said by `export.onnx.runtime.Runtime`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as status

from zoo.errors import InputError

__all__ = ["ERRORS", "TIME_PARTS", "Array", "Engine", "OnnxRuntime", "OpenVino", "Stream", "reason"]

# onnxruntime raises a class of its own for each of its status codes, without a common base;
# OpenVINO raises RuntimeError.
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

# the sizes into which a graph of the zoo splits time, as `export.onnx.exporter` names them
TIME_PARTS = "time.parts"
Array = np.ndarray[Any, np.dtype[Any]]
Shapes = dict[str, tuple[int, ...]]  # by name; an axis of any length is 0


def reason(error: Exception) -> str:
    """What a runtime says of an error, as one line, without places in its source, and not too long."""
    lines = [
        line.strip()
        for line in str(error).splitlines()
        if not line.startswith(("Exception from", "Check '"))
    ]
    return " ".join(filter(None, lines))[:300] or type(error).__name__


class Stream(Protocol):
    """A graph that is run again and again, and whose state stays with who computes it."""

    def step(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """One run: an array for every other input -> every other output."""

    def read(self) -> dict[str, Array]:
        """A copy of the state, by the names of its inputs."""

    def write(self, state: Mapping[str, Array]) -> None:
        """Go on from this state."""


class Engine(Protocol):
    """A graph that is loaded, and ready to run."""

    inputs: Shapes
    outputs: list[str]

    def run(self, wanted: Sequence[str] | None, values: Mapping[str, Array]) -> list[Array]:
        """The `wanted` outputs, or all of them in the graph's order, for an array for every input.
        Several threads may call it.

        Raises `InputError` for a graph that cannot be compiled for this processor, as `stream`
        does.
        """

    def stream(self, batch: int, after: Mapping[str, str]) -> Stream:
        """From a state of zeros, with so many in the first axis of every input. `after` maps each
        input that is state to the output that it will be in the next step.
        """


class OnnxRuntime:
    """On the first GPU that onnxruntime was built for and finds, or the CPU."""

    def __init__(self, model: str | Path | bytes, *, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Threads that spin between calls take the processor from whoever works next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # In TF32, which is the provider's default, a product keeps 10 bits: that would change
        # spikes.
        gpu = (
            [("CUDAExecutionProvider", {"use_tf32": "0"})]
            if "CUDAExecutionProvider" in ort.get_available_providers()
            else []
        )
        source = model if isinstance(model, bytes) else str(model)
        self._session = ort.InferenceSession(
            source, options, providers=[*gpu, "CPUExecutionProvider"]
        )
        sizes = {value.name: value.shape for value in self._session.get_inputs()}
        self.inputs = {
            name: tuple(n if isinstance(n, int) else 0 for n in shape)
            for name, shape in sizes.items()
        }
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, wanted: Sequence[str] | None, values: Mapping[str, Array]) -> list[Array]:
        found: list[Array] = self._session.run(wanted, dict(values))
        return found

    def stream(self, batch: int, after: Mapping[str, str]) -> Stream:
        return _OnnxStream(self._session, _zeros(self.inputs, batch, after), after)


class _OnnxStream:
    """Two copies of the state take turns: what one step writes, the next one reads."""

    def __init__(
        self, session: ort.InferenceSession, state: dict[str, Array], after: Mapping[str, str]
    ) -> None:
        self._session = session
        self._others = [
            output.name for output in session.get_outputs() if output.name not in after.values()
        ]
        device = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"
        # Copied, as on a CPU the array's memory is used.
        a, b = (
            {
                name: ort.OrtValue.ortvalue_from_numpy(value.copy(), device)
                for name, value in state.items()
            }
            for _ in range(2)
        )
        self._turns = [(a, self._bind(a, b, after)), (b, self._bind(b, a, after))]

    def _bind(self, now: dict[str, Any], then: dict[str, Any], after: Mapping[str, str]) -> Any:
        binding = self._session.io_binding()
        for name in self._others:
            binding.bind_output(name, "cpu")
        for name, output in after.items():
            binding.bind_ortvalue_input(name, now[name])
            binding.bind_ortvalue_output(output, then[name])
        return binding

    def step(self, values: Mapping[str, Array]) -> dict[str, Array]:
        _, binding = self._turns[0]
        for name, value in values.items():
            binding.bind_cpu_input(name, value)
        self._session.run_with_iobinding(binding)
        self._turns.reverse()
        # after which comes the state
        found = zip(self._others, binding.get_outputs(), strict=False)
        # copied: the next step but one writes into the same memory
        return {name: value.numpy().copy() for name, value in found}

    def read(self) -> dict[str, Array]:
        return {name: value.numpy().copy() for name, value in self._turns[0][0].items()}

    def write(self, state: Mapping[str, Array]) -> None:
        for name, value in self._turns[0][0].items():
            value.update_inplace(np.ascontiguousarray(state[name]))


class OpenVino:
    """On the CPU, for as many calls at once as `streams`; compiled for each shape that comes, in
    seconds for a deep network.
    """

    def __init__(
        self, model: str | Path | bytes, *, threads: int, streams: int, precision: str
    ) -> None:
        try:
            import openvino
        except ImportError:
            raise InputError(
                "the runtime openvino is not installed: pip install 'danet-zoo[openvino]'"
            ) from None
        self._core = openvino.Core()
        if precision == "bfloat16" and "BF16" not in self._core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise InputError(
                "this processor does not compute in bfloat16: leave the precision at float32"
            )
        self._precision = precision
        self._settings: dict[str, Any] = {
            "NUM_STREAMS": streams,
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
            # or it rounds real values that integer weights are multiplied with
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._model = self._core.read_model(model if isinstance(model, bytes) else str(model))
        _fold_time(self._model)
        self._compiled: dict[tuple[tuple[int, ...], ...], Any] = {}
        # requests of each, for whichever call comes next
        self._idle: dict[tuple[tuple[int, ...], ...], list[Any]] = {}
        self._compiling = Lock()
        sizes = {value.any_name: value.partial_shape for value in self._model.inputs}
        self.inputs = {
            name: tuple(0 if n.is_dynamic else n.get_length() for n in shape)
            for name, shape in sizes.items()
        }
        self.outputs = [output.any_name for output in self._model.outputs]

    def run(self, wanted: Sequence[str] | None, values: Mapping[str, Array]) -> list[Array]:
        shapes = tuple(value.shape for value in values.values())
        with self._compiling:
            if shapes not in self._compiled:
                self._reshape(dict(zip(values, shapes, strict=True)))
                self._compiled[shapes] = self._compile(self._model)
                self._idle[shapes] = []
        idle = self._idle[shapes]
        request = idle.pop() if idle else self._compiled[shapes].create_infer_request()
        request.infer({name: np.ascontiguousarray(value) for name, value in values.items()})
        # Copied: the next call writes into the same memory.
        found = [request.get_tensor(name).data.copy() for name in wanted or self.outputs]
        idle.append(request)
        return found

    def stream(self, batch: int, after: Mapping[str, str]) -> Stream:
        from openvino import Layout
        from openvino.preprocess import PrePostProcessor

        self._reshape({name: (batch, *shape[1:]) for name, shape in self.inputs.items()})
        layouts = PrePostProcessor(self._model.clone())
        state = _zeros(self.inputs, batch, after)
        for name in (
            name for name, value in state.items() if value.ndim == 4
        ):  # as it is kept inside, or every step turns it round
            for value in (layouts.input(name), layouts.output(after[name])):
                value.tensor().set_layout(Layout("NHWC"))
                value.model().set_layout(Layout("NCHW"))
        request = self._compile(layouts.build()).create_infer_request()
        return _OpenVinoStream(
            request, state, after, [name for name in self.outputs if name not in after.values()]
        )

    def _reshape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        # Compiled for any batch, OpenVINO 2026.4 computes some convolutions of integers wrongly
        # from the second size on.
        self._model.reshape(dict(shapes))

    def _compile(self, model: Any) -> Any:
        try:
            return self._core.compile_model(model, "CPU", self._settings)
        except RuntimeError as error:
            way_out = (
                "take the runtime onnxruntime"
                if self._precision == "float32"
                else "leave the precision at float32"
            )
            raise InputError(
                f"openvino cannot compile this graph in {self._precision} for this processor ({reason(error)}): {way_out}"
            ) from None


def _fold_time(model: Any) -> None:
    """Let an OpenVINO model split time off the batch axis, where the zoo's graphs give it an axis
    of its own.

    The same numbers in the same order. OpenVINO keeps images with their channels last, and would
    turn them round before and after each of these reshapes; those behind the neurons become empty,
    and it drops them.
    """
    from openvino import opset13

    for split in model.get_ordered_ops():
        if (
            split.get_type_name() != "VariadicSplit"
            or split.input_value(2).get_node().get_friendly_name() != TIME_PARTS
        ):
            continue
        unfold = split.input_value(0).get_node()
        if unfold.get_type_name() != "Reshape":  # of a fixed batch
            continue
        steps = opset13.split(unfold.input_value(0), split.input_value(1), split.get_output_size())
        for part, step in zip(split.outputs(), steps.outputs(), strict=True):
            for reader in part.get_target_inputs():
                reader.replace_source_output(step)
    model.validate_nodes_and_infer_types()


class _OpenVinoStream:
    """Two copies of the state take turns: what one step writes, the next one reads. Channels are
    its last axis.
    """

    def __init__(
        self, request: Any, state: dict[str, Array], after: Mapping[str, str], others: list[str]
    ) -> None:
        from openvino import Tensor

        self._request, self._after, self._others = request, after, others
        self._now, self._then = (
            {name: Tensor(_turned(value, 1, -1)) for name, value in state.items()} for _ in range(2)
        )

    def step(self, values: Mapping[str, Array]) -> dict[str, Array]:
        for name, output in self._after.items():
            self._request.set_tensor(name, self._now[name])
            self._request.set_tensor(output, self._then[name])
        self._request.infer({name: np.ascontiguousarray(value) for name, value in values.items()})
        self._now, self._then = self._then, self._now
        return {name: self._request.get_tensor(name).data.copy() for name in self._others}

    def read(self) -> dict[str, Array]:
        return {name: _turned(tensor.data, -1, 1) for name, tensor in self._now.items()}

    def write(self, state: Mapping[str, Array]) -> None:
        for name, tensor in self._now.items():
            tensor.data[:] = _turned(state[name], 1, -1)


def _turned(value: Array, channels: int, to: int) -> Array:
    """A copy, of images with their channels in another place."""
    return np.moveaxis(value, channels, to).copy() if value.ndim == 4 else value.copy()


def _zeros(inputs: Shapes, batch: int, names: Mapping[str, str]) -> dict[str, Array]:
    return {name: np.zeros((batch, *inputs[name][1:]), np.float32) for name in names}
