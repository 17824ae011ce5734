"""The networks that commands work on: models, `.onnx` files and `.nir` files."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import zoo
from zoo import hub
from zoo.cli.options import NETWORK, RUNTIME_OPTIONS, RuntimeOptions
from zoo.cli.output import note
from zoo.errors import InputError

if TYPE_CHECKING:
    from nir import NIRGraph
    from torch import Tensor

    from export.onnx.runtime import Runtime
    from zoo.danet import DANet
    from zoo.datasets import DatasetSpec

__all__ = [
    "Predictor",
    "check_export_package",
    "load_model",
    "load_predictor",
    "read_nir",
    "refuse_file",
    "requested_runtime",
]


# The commands that take the files of each format.
TAKERS = {
    ".nir": "`zoo energy`, `zoo check`, `zoo export` and `zoo verify --export`",
    ".onnx": "`zoo classify`, `zoo evaluate`, `zoo energy` and `zoo verify --export`",
}


def refuse_file(name: str, *files: str) -> None:
    """Raise `InputError` for an exported file; `files` are those that would be taken, in words."""
    suffix = Path(name).suffix
    if suffix in TAKERS and not hub.is_location(name):
        valid = "; or ".join([NETWORK, *files])
        raise InputError(f"{name}: {suffix} files are for {TAKERS[suffix]}; give {valid}")


def load_model(name: str, *files: str) -> "tuple[DANet, str]":
    """Load the model of a name or folder, and return it with its full name.

    Raises `InputError` for an exported file, and names `files`, which would be taken.
    """
    refuse_file(name, *files)
    model = zoo.load(name)
    return model, model.known_origin.name


def read_nir(path: str, dt: float | None) -> "NIRGraph":
    """Read the graph of a `.nir` file, with a note on stderr if its time step is assumed."""
    from export.nir.graph import check_graph
    from export.nir.reader import read_nir
    from zoo.silence import assumed_dt

    graph = read_nir(Path(path))
    checked = check_graph(graph, dt=dt)
    if checked.dt_assumed:
        note(f"{path}: {assumed_dt(checked.dt)}")
    return graph


@dataclass(frozen=True)
class Predictor:
    """A network that classifies images, computed by torch or by the runtime of an `.onnx` file."""

    name: str  # of the network, and of the runtime of an .onnx file
    data: "DatasetSpec"
    steps: int  # T
    # normalised images [B, C, H, W] or frames [T, B, C, H, W] -> logits [B, K]
    predict: "Callable[[Tensor], Tensor]"
    # the logits of each step, [T, B, K]; None for an .onnx file, which gives their mean
    per_step: "Callable[[Tensor], Tensor] | None"
    # whether a neuron has fired so far; None for an .onnx file that does not give its spikes
    has_fired: Callable[[], bool | None]

    def warn_if_silent(self) -> bool | None:
        """Return whether no neuron has fired so far, with a note on stderr if so.

        Return None for an `.onnx` file that does not give its spikes.
        """
        from zoo.silence import NO_SPIKES

        fired = self.has_fired()
        if fired is False:
            note(f"{self.name}: {NO_SPIKES}")
        return None if fired is None else not fired


def load_predictor(name: str, options: RuntimeOptions) -> Predictor:
    """Load a name or model folder in torch, or an `.onnx` file in the runtime of `options`."""
    runtime = requested_runtime(options, name)
    return _onnx_predictor(name, runtime) if name.endswith(".onnx") else _torch_predictor(name)


def _torch_predictor(name: str) -> Predictor:
    import torch

    from zoo.silence import watch_spikes

    model, full_name = load_model(name)
    has_fired, predict = watch_spikes(model), torch.inference_mode()(model)
    data, steps = model.known_origin.data, model.config.steps
    return Predictor(full_name, data, steps, predict, model.per_step, has_fired)


def _onnx_predictor(name: str, runtime: "Runtime | None") -> Predictor:
    import torch

    check_export_package()
    from export.onnx.runtime import OnnxModel

    exported = OnnxModel(Path(name), runtime)
    about = exported.about
    fired: bool | None = None

    def predict(images: "Tensor") -> "Tensor":
        nonlocal fired
        output = exported.run(images.numpy())
        if output.spikes and not fired:
            fired = any(bool(counts.any()) for counts in output.spikes.values())
        return torch.from_numpy(output.logits)

    title = f"{about.name} ({exported.runtime})"
    return Predictor(title, about.data, about.steps, predict, None, lambda: fired)


def requested_runtime(options: RuntimeOptions, *names: str) -> "Runtime | None":
    """Return the runtime that `options` ask for, or None if they ask for none.

    Raises `InputError` if they do and none of the networks `names` is an `.onnx` file.
    """
    if not any(name.endswith(".onnx") for name in names):
        options.only_for(".onnx files, as `zoo export` writes them", *RUNTIME_OPTIONS)
    if options.given.keys().isdisjoint(RUNTIME_OPTIONS):
        return None
    check_export_package()
    from export.onnx.runtime import Runtime

    return Runtime(
        name=options.runtime,
        precision=options.precision,
        threads=options.threads,
        workers=options.workers,
    )


def check_export_package() -> None:
    """Raise `InputError` if the package `export` that Python finds is not the zoo's.

    The package index has another `export`: installed later, it overwrites our `__init__.py`, or
    hides a checkout.
    """
    import export

    if getattr(export, "PROJECT", "") != "danet-zoo":
        folder = Path(export.__file__ or "").parent
        raise InputError(
            f"{folder} is not the zoo's: `pip uninstall export`, then install danet-zoo again"
        )
