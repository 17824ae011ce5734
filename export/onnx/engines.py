"""ONNX graphs that are loaded and ready to run, in onnxruntime and in OpenVINO.

`export.onnx.runtime.Runtime` chooses between them, and sets the precision and the threads.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as status

from zoo.arrays import Array
from zoo.errors import InputError

__all__ = [
    "ERRORS", "FRAMES", "TIME_PARTS", "Engine", "OnnxRuntime", "OpenVino", "StatefulRun", "reason",
]  # fmt: skip

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

FRAMES = "frames"  # name of events whose time a graph of the zoo folded into the batch
TIME_PARTS = "time.parts"  # name of the sizes into which a graph of the zoo splits time
MAX_REASON = 300  # characters of a runtime's error
Shapes = dict[str, tuple[int, ...]]  # by name; an axis of any length is 0


def reason(error: Exception) -> str:
    """Return a runtime's error as one short line, without the places in its source."""
    lines = [
        line.strip()
        for line in str(error).splitlines()
        if not line.startswith(("Exception from", "Check '"))
    ]
    return " ".join(filter(None, lines))[:MAX_REASON] or type(error).__name__


class StatefulRun(Protocol):
    """A graph that is run step by step, with its state kept by the runtime."""

    def step(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Run once on an array for every input but the state; return every other output."""

    def read(self) -> dict[str, Array]:
        """Return a copy of the state, by the names of its inputs."""

    def write(self, state: Mapping[str, Array]) -> None:
        """Replace the state."""


class Engine(Protocol):
    """A graph that is loaded and ready to run."""

    inputs: Shapes
    outputs: list[str]

    def run(self, outputs: Sequence[str] | None, values: Mapping[str, Array]) -> list[Array]:
        """Return these outputs, or all in the graph's order, for an array for every input.

        Several threads may call it. Raises `InputError` for a graph that cannot be compiled for
        this processor, as `start` does.
        """

    def start(self, batch: int, next_states: Mapping[str, str]) -> StatefulRun:
        """Return a run from a state of zeros, with `batch` in the first axis of every input.

        `next_states` maps each input that is state to the output that replaces it after a step.
        """


class OnnxRuntime:
    """A graph on the first GPU that onnxruntime was built for and finds, or on the CPU."""

    def __init__(self, model: str | Path | bytes, *, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # its errors are raised
        # Threads that spin between calls take the processor from whoever works next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        providers: list[Any] = ["CPUExecutionProvider"]
        if "CUDAExecutionProvider" in ort.get_available_providers():
            # TF32, the provider's default, keeps 10 bits of a product: that would change spikes.
            providers.insert(0, ("CUDAExecutionProvider", {"use_tf32": "0"}))
        source = model if isinstance(model, bytes) else str(model)
        self._session = ort.InferenceSession(source, options, providers=providers)
        self.inputs = {
            value.name: tuple(n if isinstance(n, int) else 0 for n in value.shape)
            for value in self._session.get_inputs()
        }
        self.outputs = [output.name for output in self._session.get_outputs()]

    def run(self, outputs: Sequence[str] | None, values: Mapping[str, Array]) -> list[Array]:
        """Return these outputs, as `Engine.run` does."""
        arrays: list[Array] = self._session.run(outputs, dict(values))
        return arrays

    def start(self, batch: int, next_states: Mapping[str, str]) -> StatefulRun:
        """Return a run from a state of zeros, as `Engine.start` does."""
        return _OnnxRun(self._session, _zeros(self.inputs, batch, next_states), next_states)


class _OnnxRun:
    """Two copies of the state take turns: one step writes the copy that the next one reads."""

    def __init__(
        self, session: ort.InferenceSession, state: dict[str, Array], next_states: Mapping[str, str]
    ) -> None:
        self._session = session
        self._others = [
            output.name
            for output in session.get_outputs()
            if output.name not in next_states.values()
        ]
        device = "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu"

        def on_device() -> dict[str, ort.OrtValue]:
            # Arrays are copied, as on a CPU their memory is used.
            return {
                name: ort.OrtValue.ortvalue_from_numpy(value.copy(), device)
                for name, value in state.items()
            }

        a, b = on_device(), on_device()
        self._turns = [(a, self._bind(a, b, next_states)), (b, self._bind(b, a, next_states))]

    def _bind(
        self, now: dict[str, Any], then: dict[str, Any], next_states: Mapping[str, str]
    ) -> Any:
        binding = self._session.io_binding()
        for name in self._others:
            binding.bind_output(name, "cpu")
        for name, output in next_states.items():
            binding.bind_ortvalue_input(name, now[name])
            binding.bind_ortvalue_output(output, then[name])
        return binding

    def step(self, values: Mapping[str, Array]) -> dict[str, Array]:
        _, binding = self._turns[0]
        for name, value in values.items():
            binding.bind_cpu_input(name, value)
        self._session.run_with_iobinding(binding)
        self._turns.reverse()
        # The state comes after the other outputs. They are copied, as the step after the next one
        # writes into the same memory.
        outputs = zip(self._others, binding.get_outputs(), strict=False)
        return {name: value.numpy().copy() for name, value in outputs}

    def read(self) -> dict[str, Array]:
        return {name: value.numpy().copy() for name, value in self._turns[0][0].items()}

    def write(self, state: Mapping[str, Array]) -> None:
        for name, value in self._turns[0][0].items():
            value.update_inplace(np.ascontiguousarray(state[name]))


class OpenVino:
    """A graph on the CPU, for as many calls at once as there are workers.

    It is compiled for each shape that comes, in seconds for a deep network.
    """

    def __init__(
        self, model: str | Path | bytes, *, threads: int, workers: int, precision: str
    ) -> None:
        try:
            self._core = _core()
        except ImportError:
            raise InputError(
                "the runtime openvino is not installed: pip install 'danet-zoo[openvino]'"
            ) from None
        if precision == "bfloat16" and "BF16" not in self._core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise InputError(
                "this processor does not compute in bfloat16: leave the precision at float32"
            )
        self._precision = precision
        self._settings: dict[str, Any] = {
            "NUM_STREAMS": workers,
            "INFERENCE_PRECISION_HINT": {"float32": "f32", "bfloat16": "bf16"}[precision],
            # By default it rounds the real values that integer weights are multiplied with.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        }
        if threads:
            self._settings["INFERENCE_NUM_THREADS"] = threads
        self._model = self._core.read_model(model if isinstance(model, bytes) else str(model))
        _fold_time(self._model)
        self._compiled: dict[tuple[tuple[int, ...], ...], Any] = {}
        # requests of each compiled model that no call uses at the moment
        self._idle: dict[tuple[tuple[int, ...], ...], list[Any]] = {}
        self._compiling = Lock()
        self.inputs = {
            value.any_name: tuple(
                0 if n.is_dynamic else n.get_length() for n in value.partial_shape
            )
            for value in self._model.inputs
        }
        self.outputs = [output.any_name for output in self._model.outputs]

    def run(self, outputs: Sequence[str] | None, values: Mapping[str, Array]) -> list[Array]:
        """Return these outputs, as `Engine.run` does."""
        shapes = tuple(value.shape for value in values.values())
        with self._compiling:
            if shapes not in self._compiled:
                self._reshape(dict(zip(values, shapes, strict=True)))
                self._compiled[shapes] = self._compile(self._model)
                self._idle[shapes] = []
        idle = self._idle[shapes]
        request = idle.pop() if idle else self._compiled[shapes].create_infer_request()
        request.infer({name: np.ascontiguousarray(value) for name, value in values.items()})
        # Copied, as the next call writes into the same memory.
        arrays = [request.get_tensor(name).data.copy() for name in outputs or self.outputs]
        idle.append(request)
        return arrays

    def start(self, batch: int, next_states: Mapping[str, str]) -> StatefulRun:
        """Return a run from a state of zeros, as `Engine.start` does."""
        from openvino import Layout
        from openvino.preprocess import PrePostProcessor

        self._reshape({name: (batch, *shape[1:]) for name, shape in self.inputs.items()})
        layouts = PrePostProcessor(self._model.clone())
        state = _zeros(self.inputs, batch, next_states)
        # Maps are kept in the runtime's own layout; in the graph's every step would transpose them.
        for name in (name for name, value in state.items() if value.ndim == 4):
            for value in (layouts.input(name), layouts.output(next_states[name])):
                value.tensor().set_layout(Layout("NHWC"))
                value.model().set_layout(Layout("NCHW"))
        request = self._compile(layouts.build()).create_infer_request()
        others = [name for name in self.outputs if name not in next_states.values()]
        return _OpenVinoRun(request, state, next_states, others)

    def _reshape(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        # Compiled for any batch, OpenVINO 2026.4 computes some convolutions of integers wrongly
        # from the second size on.
        self._model.reshape(dict(shapes))

    def _compile(self, model: Any) -> Any:
        try:
            return self._core.compile_model(model, "CPU", self._settings)
        except RuntimeError as error:
            remedy = "take the runtime onnxruntime"
            if self._precision != "float32":
                remedy = "leave the precision at float32"
            raise InputError(
                f"openvino cannot compile this graph in {self._precision} for this processor "
                f"({reason(error)}): {remedy}"
            ) from None


@cache
def _core() -> Any:
    """Return the one `openvino.Core` of this process.

    Each one sets a stack for signals when it first compiles, and at its end restores the one that
    it found. Where several end in the order in which they began, that one is freed memory, and the
    next signal, as of Ctrl-C, is a segmentation fault (OpenVINO 2026.4).
    """
    import openvino

    return openvino.Core()


def _fold_time(model: Any) -> None:
    """Let an OpenVINO model split time off the batch axis, without an axis of its own.

    The numbers and their order stay. OpenVINO keeps images with their channels last, and would
    transpose them before and after each reshape that the zoo's graphs have in front of a neuron;
    those behind the neurons become empty, and it drops them.
    """
    from openvino import opset13

    for split in model.get_ordered_ops():
        if split.get_type_name() != "VariadicSplit":
            continue
        if split.input_value(2).get_node().get_friendly_name() != TIME_PARTS:
            continue
        unfold = split.input_value(0).get_node()
        if unfold.get_type_name() != "Reshape":  # the batch is fixed
            continue
        steps = opset13.split(unfold.input_value(0), split.input_value(1), split.get_output_size())
        for part, step in zip(split.outputs(), steps.outputs(), strict=True):
            for reader in part.get_target_inputs():
                reader.replace_source_output(step)
    model.validate_nodes_and_infer_types()


class _OpenVinoRun:
    """Two copies of the state take turns, as in `_OnnxRun`, with channels as their last axis."""

    def __init__(
        self,
        request: Any,
        state: dict[str, Array],
        next_states: Mapping[str, str],
        others: list[str],
    ) -> None:
        from openvino import Tensor

        self._request, self._next_states, self._others = request, next_states, others
        self._now, self._then = (
            {name: Tensor(_move_channels(value, 1, -1)) for name, value in state.items()}
            for _ in range(2)
        )

    def step(self, values: Mapping[str, Array]) -> dict[str, Array]:
        for name, output in self._next_states.items():
            self._request.set_tensor(name, self._now[name])
            self._request.set_tensor(output, self._then[name])
        self._request.infer({name: np.ascontiguousarray(value) for name, value in values.items()})
        self._now, self._then = self._then, self._now
        return {name: self._request.get_tensor(name).data.copy() for name in self._others}

    def read(self) -> dict[str, Array]:
        return {name: _move_channels(tensor.data, -1, 1) for name, tensor in self._now.items()}

    def write(self, state: Mapping[str, Array]) -> None:
        for name, tensor in self._now.items():
            tensor.data[:] = _move_channels(state[name], 1, -1)


def _move_channels(value: Array, axis: int, to: int) -> Array:
    """Return a copy, of images `[B, C, H, W]` or `[B, H, W, C]` with the axis of C moved."""
    return np.moveaxis(value, axis, to).copy() if value.ndim == 4 else value.copy()


def _zeros(inputs: Shapes, batch: int, names: Iterable[str]) -> dict[str, Array]:
    return {name: np.zeros((batch, *inputs[name][1:]), np.float32) for name in names}
