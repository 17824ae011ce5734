"""What several commands share: models, images, and who predicts."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.errors import InputError

if TYPE_CHECKING:
    from nir import NIRGraph
    from torch import Tensor

    from export.onnx.runtime import Runtime
    from zoo.danet import DANet
    from zoo.datasets import DatasetSpec

__all__ = [
    "NIR_FILE",
    "Predictor",
    "asked_runtime",
    "check_output",
    "load_model",
    "normalised",
    "note",
    "only_for",
    "our_export",
    "predictor",
    "print_json",
    "read_images",
    "read_nir",
]

NIR_FILE = "a .nir file: a model and its exports know their own time step"  # what --dt is for


def load_model(name: str) -> "tuple[DANet, str]":
    """The model of a name or folder, and its full name."""
    if name.endswith(".nir"):
        raise InputError(
            f"{name} is a NIR file, which `zoo energy`, `zoo check` and `zoo export` take, and `zoo.from_nir` runs"
        )
    model = zoo.load(name)
    return model, model.known_origin.name


@dataclass(frozen=True)
class Predictor:
    """A network that classifies, by whomever it is computed."""

    predict: "Callable[[Tensor], Tensor]"  # normalised images [B, C, H, W] -> logits [B, K]
    data: "DatasetSpec"
    name: str
    steps: int
    # whether a neuron has fired so far; None for an .onnx file that does not give its spikes
    fired: Callable[[], bool | None]

    def warn_of_silence(self) -> bool | None:
        """Whether no neuron has fired, which is said on stderr; None if that is not known."""
        from zoo.silence import NO_SPIKES

        fired = self.fired()
        if fired is False:
            note(f"{self.name}: {NO_SPIKES}")
        return None if fired is None else not fired


def predictor(model: str, runtime: "Runtime | None" = None) -> Predictor:
    """The network of a name or folder in torch, or that of an `.onnx` file in a runtime."""
    import torch

    if model.endswith(".onnx"):
        return _onnx_predictor(model, runtime)
    from zoo.silence import watch_spikes

    network, name = load_model(model)
    fired = watch_spikes(network)
    return Predictor(
        torch.inference_mode()(network),
        network.known_origin.data,
        name,
        network.config.steps,
        fired,
    )


def _onnx_predictor(model: str, runtime: "Runtime | None") -> Predictor:
    import torch

    our_export()
    from export.onnx.runtime import OnnxModel

    exported = OnnxModel(Path(model), runtime)
    about, seen = exported.about, set[bool]()

    def predict(x: "Tensor") -> "Tensor":
        found = exported.run(x.numpy())
        if True not in seen and found.spikes:
            seen.add(any(counts.any() for counts in found.spikes.values()))
        return torch.from_numpy(found.logits)

    return Predictor(
        predict,
        about.data,
        f"{about.name} ({exported.runtime})",
        about.steps,
        lambda: max(seen, default=None),
    )


def note(text: str) -> None:
    """What a person has to know beside a result that is printed, or is JSON: a line on stderr."""
    print(f"zoo: note: {text}", file=sys.stderr)


def check_output(option: str, path: Path | None, *, folder: bool) -> None:
    """Raises `InputError` where a file lies in the place of a folder to write to, or a folder in
    that of a file.
    """
    if path is None:
        return
    if folder and path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: {option} names a folder")
    if not folder and path.is_dir():
        raise InputError(f"{path} is a folder: {option} names a file")


def only_for(args: argparse.Namespace, what: str, *options: str) -> None:
    """Raises `InputError` for the first of `options` that was given: each is for `what` alone, and
    would be ignored.
    """
    for option in options:
        # a flag is not in `given`
        if option in args.given or getattr(args, option) != args.parser.get_default(option):
            raise InputError(f"--{option.replace('_', '-')} is for {what}")


def read_nir(path: str, dt: float | None) -> "NIRGraph":
    """The graph of a `.nir` file, after a note on stderr where its time step had to be assumed."""
    from export.nir.graph import check_graph
    from export.nir.reader import read_nir
    from zoo.silence import assumed_dt

    graph = read_nir(Path(path))
    ready = check_graph(graph, dt=dt)
    if ready.dt_assumed:
        note(f"{path}: {assumed_dt(ready.dt)}")
    return graph


def asked_runtime(args: argparse.Namespace, *models: str) -> "Runtime | None":
    """What `--runtime` and its like say, for the `.onnx` files among `models`; None if nothing was
    said.
    """
    said = {
        "name": args.runtime,
        "precision": args.precision,
        "threads": args.threads,
        "streams": args.streams,
    }
    given = {key: value for key, value in said.items() if value is not None}
    if not given:
        return None
    if not any(model.endswith(".onnx") for model in models):
        raise InputError(
            f"--{'runtime' if 'name' in given else next(iter(given))} is for .onnx files, as `zoo export` writes them"
        )
    from export.onnx.runtime import Runtime

    return Runtime(**given)


def read_images(
    paths: list[Path], data: "DatasetSpec"
) -> "tuple[Tensor, list[int], list[str], list[list[str]]]":
    """Pixels, labels (none for files), a title for each image, and what was done to each to make it
    the model's.
    """
    import torch

    from zoo.images import read_image
    from zoo.samples import samples

    if paths:
        changes: list[list[str]] = [[] for _ in paths]
        pixels = torch.stack(
            [
                read_image(path, data, changes=done)
                for path, done in zip(paths, changes, strict=True)
            ]
        )
        return pixels, [], [str(path) for path in paths], changes
    pixels, labels = samples(data.tag)
    return pixels, labels.tolist(), [f"#{i}" for i in range(len(labels))], [[] for _ in labels]


def normalised(pixels: "Tensor", data: "DatasetSpec") -> "Tensor":
    """Pixels `[B, C, H, W]` as the model wants them."""
    from zoo.images import normalise

    return normalise(pixels, data)


def our_export() -> None:
    """The package index has another `export`: installed later, it overwrites our `__init__.py`, or
    hides a checkout.
    """
    import export

    if getattr(export, "PROJECT", "") != "danet-zoo":
        where = Path(export.__file__ or "").parent
        raise InputError(
            f"{where} is not the zoo's: `pip uninstall export`, then install danet-zoo again"
        )


def print_json(value: Any) -> int:
    """Print `value`; the exit status."""
    print(json.dumps(value, indent=2))
    return 0
