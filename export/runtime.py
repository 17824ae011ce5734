"""An exported file in onnxruntime or OpenVINO: logits and spike counts of a batch.

`Runtime` says who computes and how, and loads any ONNX graph as an `Engine`; `OnnxModel` is a file of the zoo. Both runtimes read
the same file, by the same names.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from export.engines import ERRORS, Array, Engine, OnnxRuntime, OpenVino, reason
from export.inputs import check_normalised
from export.onnx_file import described, read_file
from zoo.datasets import DatasetSpec
from zoo.errors import InputError

__all__ = ["About", "OnnxModel", "OnnxOutput", "Runtime", "load_file"]

RuntimeName = Literal["onnxruntime", "openvino"]
ComputePrecision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Runtime:
    """Who computes an ONNX graph, in what precision, on how many threads in all (0: one for each core), in how many streams.

    A batch is divided among the streams, which compute side by side, each with its share of the threads.

    `bfloat16` is for the layers that are not computed in integers, and changes spikes: it is never verified to keep them. Raises
    `InputError` for a runtime that is not installed, or a precision that it or this processor does not have.
    """

    name: RuntimeName = "onnxruntime"
    precision: ComputePrecision = "float32"
    threads: int = 0
    streams: int = 1

    def __post_init__(self) -> None:
        if self.name not in get_args(RuntimeName):
            raise InputError(f"runtime {self.name!r} is not known; valid are {', '.join(get_args(RuntimeName))}")
        if self.precision not in get_args(ComputePrecision):
            raise InputError(f"precision {self.precision!r} is not known; valid are {', '.join(get_args(ComputePrecision))}")
        if self.name == "onnxruntime" and self.precision != "float32":
            raise InputError(f"onnxruntime computes in float32 here: {self.precision} is for the runtime openvino")
        if self.threads < 0 or self.streams < 1:
            raise InputError(
                f"{self.threads} threads, {self.streams} streams: threads are 0 (one a core) or more, streams 1 or more"
            )

    def __str__(self) -> str:
        return f"{self.name} {version(self.name)}" + ("" if self.precision == "float32" else f", {self.precision}")

    def load(self, model: Path | bytes) -> Engine:
        """Raises one of `ERRORS` for what is no graph."""
        if self.name == "onnxruntime":
            threads = self.threads or (os.cpu_count() or 1 if self.streams > 1 else 0)
            return OnnxRuntime(model, threads=-(-threads // self.streams))
        return OpenVino(model, threads=self.threads, streams=self.streams, precision=self.precision)


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
        check_normalised(images, self.data)
        if not np.isfinite(images).all():
            raise InputError("input holds NaN or infinite values")


class OnnxModel:
    """A file of the `sequence` form that `write_onnx` wrote. Raises `InputError` if it is not one."""

    def __init__(self, path: Path, runtime: Runtime | None = None) -> None:
        self.runtime = runtime or Runtime()
        self.about, self._engine = load_file(path, self.runtime, form="sequence")
        self._pool = ThreadPoolExecutor(self.runtime.streams)

    def run(self, images: Array) -> OnnxOutput:
        """`images`: normalised float32 `[B, C, H, W]`."""
        self.about.check(images)
        parts = np.array_split(images.astype(np.float32), max(1, min(self.runtime.streams, len(images))))
        each = map if len(parts) == 1 else self._pool.map
        found = list(each(lambda part: self._engine.run(None, {"images": part}), parts))
        values = {name: self._together(arrays) for name, *arrays in zip(self._engine.outputs, *found, strict=True)}
        return OnnxOutput(values.pop("logits"), {name.removesuffix(".count"): value for name, value in values.items()})

    def _together(self, parts: list[Array]) -> Array:
        """Of all streams: `[B, ...]`, or, of spike trains, `[T*B, C, H, W]`."""
        if len(parts) == 1:
            return parts[0]
        if parts[0].ndim < 4:
            return np.concatenate(parts)
        steps = self.about.steps
        by_step = [part.reshape(steps, -1, *part.shape[1:]) for part in parts]
        return np.concatenate(by_step, 1).reshape(-1, *parts[0].shape[1:])


def load_file(path: Path, runtime: Runtime, *, form: str) -> tuple[About, Engine]:
    """A file that `write_onnx` wrote in this form. Raises `InputError` for any other."""
    meta = described(read_file(path, weights=False))
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
        raise InputError(f"{path} is not an ONNX file that {runtime.name} reads: {reason(error)}") from None
