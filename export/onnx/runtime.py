"""Exported files in onnxruntime or OpenVINO: logits and spike counts of a batch.

A `Runtime` loads any ONNX graph as an `Engine`; an `OnnxModel` is a file of the zoo. Both runtimes
read the same file, and give its outputs the same names.

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels, `K` classes.
"""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import InitVar, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from export.inputs import as_network_input
from export.metadata import Form, Metadata
from export.onnx.engines import ERRORS, Engine, OnnxRuntime, OpenVino, reason
from export.onnx.file import read_file, read_metadata
from zoo.arrays import Array
from zoo.errors import InputError

__all__ = ["OnnxModel", "OnnxOutput", "Runtime", "load_file", "run_images"]

RuntimeName = Literal["onnxruntime", "openvino"]
ComputePrecision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Runtime:
    """The library that computes an ONNX graph, its precision and its threads.

    A batch is divided among the workers, which compute side by side, each with its share of the
    threads.

    `bfloat16` is for the layers that are not computed in integers, and changes spikes: it is never
    verified to keep them. Raises `InputError` for a runtime that is not installed, or a precision
    that it or this processor does not have.
    """

    name: RuntimeName = "onnxruntime"
    precision: ComputePrecision = "float32"
    threads: int = 0  # of all workers together; 0: one for each core
    workers: int = 1
    streams: InitVar[int | None] = None  # the former name of `workers`, until version 1.0

    def __post_init__(self, streams: int | None) -> None:
        if streams is not None:
            if self.workers != 1:
                raise InputError("workers and streams are the same, given twice: give workers")
            object.__setattr__(self, "workers", streams)
        _check_known("runtime", self.name, get_args(RuntimeName))
        _check_known("precision", self.precision, get_args(ComputePrecision))
        if self.name == "onnxruntime" and self.precision != "float32":
            raise InputError(
                "onnxruntime computes in float32 here: "
                f"{self.precision} is for the runtime openvino"
            )
        if self.threads < 0 or self.workers < 1:
            raise InputError(
                f"{self.threads} threads, {self.workers} workers: "
                "threads are 0 (one a core) or more, workers 1 or more"
            )

    def __str__(self) -> str:
        precision = "" if self.precision == "float32" else f", {self.precision}"
        return f"{self.name} {version(self.name)}{precision}"

    def load(self, model: str | Path | bytes) -> Engine:
        """Return the graph of a file, or of its bytes, ready to run.

        Raises one of `export.onnx.engines.ERRORS` for anything but a graph that the runtime reads.
        """
        if self.name == "onnxruntime":
            threads = self.threads or (os.cpu_count() or 1 if self.workers > 1 else 0)
            return OnnxRuntime(model, threads=-(-threads // self.workers))
        return OpenVino(model, threads=self.threads, workers=self.workers, precision=self.precision)


def _check_known(kind: str, word: str, valid: tuple[str, ...]) -> None:
    if word not in valid:
        raise InputError(f"{kind} {word!r} is not known; valid are {', '.join(valid)}")


@dataclass(frozen=True)
class OnnxOutput:
    """The logits `[B, K]` of a batch, and the spikes of every neuron layer by its path.

    Spikes are counts of each image `[B]`, or as they were, `[T*B, C, H, W]`, as the file gives
    them.
    """

    logits: Array
    spikes: dict[str, Array]

    @classmethod
    def of(cls, values: dict[str, Array]) -> "OnnxOutput":
        """Return the output of a network whose graph gave these values, by name."""
        spikes = {
            name.removesuffix(".count"): value for name, value in values.items() if name != "logits"
        }
        return cls(values["logits"], spikes)


class OnnxModel:
    """A file of the `sequence` form that `write_onnx` wrote; raises `InputError` for any other."""

    def __init__(self, path: str | Path, runtime: Runtime | None = None) -> None:
        self.runtime = runtime or Runtime()
        self.about, self._engine = load_file(path, self.runtime, form="sequence")
        self._pool = ThreadPoolExecutor(self.runtime.workers)

    def run(self, images: Array) -> OnnxOutput:
        """Return the logits and spikes of normalised `images` `[B, C, H, W]`, any number of them.

        A model of events takes these, `[T, B, C, H, W]`. Numbers of another type than float32 are
        rounded to it. A file of a fixed batch is run as often as needed, the last time with zeros
        in place of images. Raises `InputError` for anything but images of the network.
        """
        takes_events = len(self._engine.inputs["images"]) == 5
        images = as_network_input(
            images,
            name=self.about.name,
            data=self.about.data,
            steps=self.about.steps if takes_events else 0,
        )
        workers = self.runtime.workers
        run_parts = map if workers == 1 else self._pool.map
        return OnnxOutput.of(run_images(self._engine, images, workers=workers, run_parts=run_parts))


def run_images(
    engine: Engine,
    images: Array,
    *,
    workers: int = 1,
    run_parts: Callable[..., Iterable[Any]] = map,
) -> dict[str, Array]:
    """Return every output of a `sequence` graph, `[B, ...]` or `[T*B, ...]`, for `images`.

    The images `[B, C, H, W]`, or events `[T, B, C, H, W]`, are divided among the workers, or into
    parts of the graph's own batch if it is fixed, the last of them filled up with zeros.
    `run_parts` maps a function over the parts, in order.
    """
    batch_axis = images.ndim - 4
    count, fixed = images.shape[batch_axis], engine.inputs["images"][batch_axis]
    if fixed:
        parts = max(1, -(-count // fixed))
        missing = np.zeros((images.ndim, 2), int)
        missing[batch_axis, 1] = parts * fixed - count
        images = np.pad(images, missing)
    else:
        parts = max(1, min(workers, count))
    split = np.array_split(images, parts, batch_axis)
    outputs = list(run_parts(lambda part: engine.run(None, {"images": part}), split))
    if len(outputs) == 1 and images.shape[batch_axis] == count:
        return dict(zip(engine.outputs, outputs[0], strict=True))
    sizes = [part.shape[batch_axis] for part in split]
    return {
        name: _join(arrays, sizes, count)
        for name, *arrays in zip(engine.outputs, *outputs, strict=True)
    }


def _join(parts: list[Array], sizes: list[int], count: int) -> Array:
    """Return one output of the first `count` images, of parts of such `sizes`.

    Parts are `[B, ...]`, or `[T*B, ...]` with the time steps one after the other.
    """
    by_step = [
        part.reshape(-1, size, *part.shape[1:]) for part, size in zip(parts, sizes, strict=True)
    ]
    return np.concatenate(by_step, 1)[:, :count].reshape(-1, *parts[0].shape[1:])


def load_file(path: str | Path, runtime: Runtime, *, form: Form) -> tuple[Metadata, Engine]:
    """Return the metadata and the graph of a file that `write_onnx` wrote in this form.

    Raises `InputError` for any other file.
    """
    metadata = read_metadata(read_file(path, weights=False), path)
    metadata.check_network(form)
    try:
        return metadata, runtime.load(path)
    except ERRORS as error:
        raise InputError(
            f"{path} is not an ONNX file that {runtime.name} reads: {reason(error)}"
        ) from None
