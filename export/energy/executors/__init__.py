"""Executors run a network and hand over its spikes: a model in torch, an exported file in
onnxruntime, a graph in the interpreter.

Each knows the graph that says what is counted. The same images give the same integers from all of
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
    """The executor for a model, a graph, or a file `.onnx` or `.nir`.

    `steps` is T, for a graph that does not say it, and `like` an example of its input, for one that
    does not say what it reads: an axis more than the graph speaks of, besides the batch, is time,
    and whole numbers are then counts of events. `dt` is the time step in seconds of a graph whose
    metadata have none. `runtime` computes an ONNX file, onnxruntime unless it says otherwise.
    Raises `ExportError` or `InputError` for what cannot be read or counted.
    """
    what = Path(what) if isinstance(what, str) else what
    graph = isinstance(what, nir.NIRGraph) or (isinstance(what, Path) and what.suffix != ".onnx")
    if dt is not None and not graph:
        raise InputError(
            f"dt = {dt} is for a NIR graph: a model and an .onnx file know their own time step"
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
    raise InputError(
        f"a {type(what).__name__} cannot be counted: give a model of the zoo, a nir.NIRGraph, or the path of an "
        ".onnx or .nir file; other modules can be exported to NIR"
    )
