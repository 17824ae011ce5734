"""Executors run a network and hand over its spikes.

They run a model in torch, an exported file in onnxruntime, and a graph in the interpreter. Each
knows the graph that says what is counted. The same images give the same integers from all of
them, unless a membrane lies so near to its threshold that the order of a sum decides.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import nir
from torch import Tensor

from export.energy.executors.base import Executor, Source
from export.energy.executors.graph import NirExecutor
from export.energy.executors.model import TorchExecutor
from export.nir.reader import read_nir
from zoo.danet import DANet
from zoo.errors import InputError

if TYPE_CHECKING:
    from export.onnx.runtime import Runtime

__all__ = ["Executor", "NirExecutor", "Source", "TorchExecutor", "executor"]


def executor(
    what: DANet | nir.NIRGraph | str | Path,
    *,
    steps: int | None = None,
    like: Tensor | None = None,
    dt: float | None = None,
    runtime: "Runtime | None" = None,
) -> Executor:
    """Return the executor for a model, a graph, or a file `.onnx` or `.nir`.

    Args:
        what: the model, the graph, or the path of a file.
        steps: T, for a NIR graph that does not say it.
        like: an example of the input of a graph that does not say what it reads. An axis more than
            the graph speaks of, besides the batch, is time, and whole numbers are then counts of
            events.
        dt: the time step in seconds of a graph whose metadata have none.
        runtime: what computes an ONNX file; onnxruntime by default.

    Raises:
        ExportError, InputError: for what cannot be read or counted.
    """
    what = Path(what) if isinstance(what, str) else what
    graph = isinstance(what, nir.NIRGraph) or (isinstance(what, Path) and what.suffix != ".onnx")
    for name, value in (("dt", dt), ("steps", steps)):
        if value is not None and not graph:
            raise InputError(
                f"{name} = {value} is for a NIR graph: a model and an .onnx file know their own"
            )
    match what:
        case DANet():
            return TorchExecutor(what)
        case nir.NIRGraph():
            return NirExecutor(what, steps=steps, like=like, dt=dt)
        case Path() if what.suffix == ".onnx":
            from export.energy.executors.onnx import OnnxExecutor  # whose import takes a second

            return OnnxExecutor(what, runtime)
        case Path():
            return NirExecutor(read_nir(what), name=what.name, steps=steps, like=like, dt=dt)
    valid = "a model of the zoo, a nir.NIRGraph, or the path of an .onnx or .nir file"
    raise InputError(
        f"a {type(what).__name__} cannot be counted: give {valid}; "
        "other modules can be exported to NIR"
    )
