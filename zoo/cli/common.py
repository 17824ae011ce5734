"""What several commands share: models, images, and who predicts."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from export.runtime import Runtime
    from zoo.danet import DANet
    from zoo.datasets import DatasetSpec

__all__ = ["asked_runtime", "load_model", "normalised", "our_export", "predictor", "print_json", "read_images"]


def load_model(name: str) -> "tuple[DANet, str]":
    """The model of a name or folder, and its full name."""
    model = zoo.load(name)
    assert model.origin is not None
    return model, model.origin.name


def predictor(model: str, runtime: "Runtime | None" = None) -> "tuple[Callable[[Tensor], Tensor], DatasetSpec, str, int]":
    """Normalised images `[B, C, H, W]` -> logits `[B, K]`, by torch or, for an `.onnx` file, a runtime; the data; a name; T."""
    import torch

    if model.endswith(".onnx"):
        our_export()
        from export.runtime import OnnxModel

        exported = OnnxModel(Path(model), runtime)
        name = f"{exported.about.name} ({exported.runtime})"
        return lambda x: torch.from_numpy(exported.run(x.numpy()).logits), exported.about.data, name, exported.about.steps
    network, name = load_model(model)
    assert network.origin is not None
    return torch.inference_mode()(network), network.origin.data, name, network.config.steps


def asked_runtime(args: argparse.Namespace, *models: str) -> "Runtime | None":
    """What `--runtime` and its like say, for the `.onnx` files among `models`; None if nothing was said."""
    said = {"name": args.runtime, "precision": args.precision, "threads": args.threads, "streams": args.streams}
    given = {key: value for key, value in said.items() if value is not None}
    if not given:
        return None
    if not any(model.endswith(".onnx") for model in models):
        raise InputError(f"--{'runtime' if 'name' in given else next(iter(given))} is for .onnx files, as `zoo export` writes them")
    from export.runtime import Runtime

    return Runtime(**given)


def read_images(paths: list[Path], data: "DatasetSpec") -> "tuple[Tensor, list[int], list[str]]":
    """Pixels, labels (none for files), and a title for each."""
    import torch

    from zoo.images import read_image
    from zoo.samples import samples

    if paths:
        return torch.stack([read_image(path, data) for path in paths]), [], [str(path) for path in paths]
    pixels, labels = samples(data.tag)
    return pixels, labels.tolist(), [f"#{i}" for i in range(len(labels))]


def normalised(pixels: "Tensor", data: "DatasetSpec") -> "Tensor":
    """Pixels `[B, C, H, W]` as the model wants them."""
    from zoo.images import normalise

    return normalise(pixels, data)


def our_export() -> None:
    """The package index has another `export`: installed later, it overwrites our `__init__.py`, or hides a checkout."""
    import export

    if getattr(export, "PROJECT", "") != "danet-zoo":
        where = Path(export.__file__ or "").parent
        raise InputError(f"{where} is not the zoo's: `pip uninstall export`, then install danet-zoo again")


def print_json(value: Any) -> int:
    """Print `value`; the exit status."""
    print(json.dumps(value, indent=2))
    return 0
