"""Exports of a model: a NIR graph, an ONNX file, an energy estimate, a check against a chip.

    to_nir(model)                      returns its NIR graph; `read_nir(path)` reads anyone's
    to_onnx(model)                     returns its ONNX graph, which `zoo export` writes verified
    OnnxModel(path)                    runs an exported file, all time steps at once
    StreamingSession(path)             runs an exported file, one time step a call
    estimate(model_or_graph, images)   counts and prices the operations on images
    check(graph, "speck2e")            says whether a graph fits a neuromorphic chip

`export` is built on `zoo`; nothing is imported before it is asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from export.energy.estimation import estimate
    from export.energy.report import EnergyReport
    from export.nir.exporter import to_nir
    from export.nir.reader import read_nir
    from export.onnx.exporter import to_onnx
    from export.onnx.runtime import OnnxModel
    from export.onnx.streaming import StreamingSession
    from export.targets.checker import check

__all__ = [
    "EnergyReport",
    "OnnxModel",
    "StreamingSession",
    "check",
    "estimate",
    "read_nir",
    "to_nir",
    "to_onnx",
]

PROJECT = "danet-zoo"  # tells the command this package from another of the same name
MODULES = {
    "EnergyReport": "export.energy.report",
    "OnnxModel": "export.onnx.runtime",
    "StreamingSession": "export.onnx.streaming",
    "check": "export.targets.checker",
    "estimate": "export.energy.estimation",
    "read_nir": "export.nir.reader",
    "to_nir": "export.nir.exporter",
    "to_onnx": "export.onnx.exporter",
}


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(MODULES[name]), name)
