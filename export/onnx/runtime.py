"""An exported file in onnxruntime or OpenVINO: logits and spike counts of a batch.

`Runtime` says who computes and how, and loads any ONNX graph as an `Engine`; `OnnxModel` is a file
of the zoo. Both runtimes read the same file, by the same names.
"""

import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from export.inputs import check_normalised
from export.onnx.engines import ERRORS, Array, Engine, OnnxRuntime, OpenVino, reason
from export.onnx.file import described, read_file
from zoo.datasets import DatasetSpec
from zoo.errors import InputError, first_line

__all__ = ["About", "OnnxModel", "OnnxOutput", "Runtime", "load_file", "run_images"]

RuntimeName = Literal["onnxruntime", "openvino"]
ComputePrecision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Runtime:
    """Who computes an ONNX graph, in what precision, on how many threads in all (0: one for each
    core), in how many streams.

    A batch is divided among the streams, which compute side by side, each with its share of the
    threads.

    `bfloat16` is for the layers that are not computed in integers, and changes spikes: it is never
    verified to keep them. Raises `InputError` for a runtime that is not installed, or a precision
    that it or this processor does not have.
    """

    name: RuntimeName = "onnxruntime"
    precision: ComputePrecision = "float32"
    threads: int = 0
    streams: int = 1

    def __post_init__(self) -> None:
        if self.name not in get_args(RuntimeName):
            raise InputError(
                f"runtime {self.name!r} is not known; valid are {', '.join(get_args(RuntimeName))}"
            )
        if self.precision not in get_args(ComputePrecision):
            raise InputError(
                f"precision {self.precision!r} is not known; valid are {', '.join(get_args(ComputePrecision))}"
            )
        if self.name == "onnxruntime" and self.precision != "float32":
            raise InputError(
                f"onnxruntime computes in float32 here: {self.precision} is for the runtime openvino"
            )
        if self.threads < 0 or self.streams < 1:
            raise InputError(
                f"{self.threads} threads, {self.streams} streams: threads are 0 (one a core) or more, streams 1 or more"
            )

    def __str__(self) -> str:
        return f"{self.name} {version(self.name)}" + (
            "" if self.precision == "float32" else f", {self.precision}"
        )

    def load(self, model: str | Path | bytes) -> Engine:
        """Raises one of `ERRORS` for what is no graph."""
        if self.name == "onnxruntime":
            threads = self.threads or (os.cpu_count() or 1 if self.streams > 1 else 0)
            return OnnxRuntime(model, threads=-(-threads // self.streams))
        return OpenVino(model, threads=self.threads, streams=self.streams, precision=self.precision)


@dataclass(frozen=True)
class OnnxOutput:
    """`logits` `[B, K]`, and for every neuron layer's path its spikes: of each image, `[B]`, or as
    they were, `[T*B, C, H, W]`.
    """

    logits: Array
    spikes: dict[str, Array]


@dataclass(frozen=True)
class About:
    """What a file of the zoo says of itself."""

    name: str
    steps: int
    data: DatasetSpec
    weights_sha256: str

    def checked(self, images: Array, batch: int | None = None) -> Array:
        """`images` as float32, to which numbers of any other type are rounded.

        Raises `InputError` for what is no numpy array `[B, C, H, W]` of finite real numbers, of the
        network's own size.
        """
        if not isinstance(images, np.ndarray) or images.dtype.kind not in "fiub":
            given = (
                f"an array of {images.dtype}"
                if isinstance(images, np.ndarray)
                else f"a {type(images).__name__}"
            )
            raise InputError(
                f"input is {given}: {self.name} takes a numpy array of float32, or of numbers to be rounded to it"
            )
        expected = (self.data.channels, self.data.size, self.data.size)
        if (
            images.ndim != 4
            or images.shape[1:] != expected
            or len(images) != (batch or len(images))
        ):
            shape = [batch or "B", *expected]
            raise InputError(
                f"input of shape {list(images.shape)}: {self.name} takes [{', '.join(map(str, shape))}]"
            )
        check_normalised(images, self.data)
        # of a float64 beyond float32, which is found to be infinite
        with np.errstate(over="ignore"):
            images = images.astype(np.float32)
        if not np.isfinite(images).all():
            raise InputError("input holds NaN, or values that are infinite in float32")
        return images


class OnnxModel:
    """A file of the `sequence` form that `write_onnx` wrote. Raises `InputError` if it is not one."""

    def __init__(self, path: str | Path, runtime: Runtime | None = None) -> None:
        self.runtime = runtime or Runtime()
        self.about, self._engine = load_file(path, self.runtime, form="sequence")
        self._pool = ThreadPoolExecutor(self.runtime.streams)

    def run(self, images: Array) -> OnnxOutput:
        """`images`: normalised `[B, C, H, W]`, float32 or numbers that are rounded to it, as many
        as you like: a file of a fixed batch is run so often, the last time with zeros for what is
        missing. Raises `InputError` for anything else.
        """
        images = self.about.checked(images)
        each = map if self.runtime.streams == 1 else self._pool.map
        values = run_images(self._engine, images, streams=self.runtime.streams, each=each)
        return OnnxOutput(
            values.pop("logits"),
            {name.removesuffix(".count"): value for name, value in values.items()},
        )


def run_images(
    engine: Engine, images: Array, *, streams: int = 1, each: Callable[..., Iterable[Any]] = map
) -> dict[str, Array]:
    """Every output of a `sequence` graph, `[B, ...]` or `[T*B, ...]`, for `images` `[B, C, H, W]`:
    divided among `streams`, or into parts of the graph's own batch if it is fixed, the last of them
    filled up with zeros. `each` maps, in order.
    """
    count, fixed = len(images), engine.inputs["images"][0]
    if fixed:
        parts = max(1, -(-count // fixed))
        filled = np.zeros((parts * fixed, *images.shape[1:]), np.float32)
        filled[:count] = images
        images = filled
    else:
        parts = max(1, min(streams, count))
    split = np.array_split(images, parts)
    found = list(each(lambda part: engine.run(None, {"images": part}), split))
    if len(found) == 1 and len(images) == count:
        return dict(zip(engine.outputs, found[0], strict=True))
    sizes = [len(part) for part in split]
    return {
        name: _together(arrays, sizes, count)
        for name, *arrays in zip(engine.outputs, *found, strict=True)
    }


def _together(parts: list[Array], sizes: list[int], count: int) -> Array:
    """Of the first `count` images: `[B, ...]`, or `[T*B, ...]`, of parts of such `sizes`."""
    by_step = [
        part.reshape(-1, size, *part.shape[1:]) for part, size in zip(parts, sizes, strict=True)
    ]
    return np.concatenate(by_step, 1)[:, :count].reshape(-1, *parts[0].shape[1:])


def load_file(path: str | Path, runtime: Runtime, *, form: str) -> tuple[About, Engine]:
    """A file that `write_onnx` wrote in this form. Raises `InputError` for any other."""
    meta = described(read_file(path, weights=False))
    try:
        about = About(
            meta["name"],
            int(meta["steps"]),
            DatasetSpec.from_dict(json.loads(meta["data"])),
            meta["weights_sha256"],
        )
    except KeyError as error:
        raise InputError(
            f"{path} is an ONNX file, but none of the zoo's: it has no metadata {error}"
        ) from None
    except ValueError as error:
        raise InputError(f"{path} has metadata of no network: {first_line(error)}") from None
    if meta.get("form", "sequence") != form:
        raise InputError(
            f"{path} is of the form {meta['form']}: write another with `zoo export NAME --form {form}`"
        )
    try:
        return about, runtime.load(path)
    except ERRORS as error:
        raise InputError(
            f"{path} is not an ONNX file that {runtime.name} reads: {reason(error)}"
        ) from None
