"""What several commands share: models, images, and who predicts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import zoo
from zoo.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.danet import DANet
    from zoo.datasets import DatasetSpec

__all__ = ["load_model", "normalised", "our_export", "predictor", "print_json", "read_images"]


def load_model(name: str) -> "tuple[DANet, str]":
    """The model of a name or folder, and its full name."""
    model = zoo.load(name)
    assert model.origin is not None
    return model, model.origin.name


def predictor(model: str) -> "tuple[Callable[[Tensor], Tensor], DatasetSpec, str, int]":
    """Normalised images `[B, C, H, W]` -> logits `[B, K]`, by torch or, for an `.onnx` file, onnxruntime; the data; a name; T."""
    import torch

    if model.endswith(".onnx"):
        our_export()
        from export.runtime import OnnxModel

        exported = OnnxModel(Path(model))
        name = f"{exported.name} (onnxruntime)"
        return lambda x: torch.from_numpy(exported.run(x.numpy()).logits), exported.data, name, exported.steps
    network, name = load_model(model)
    assert network.origin is not None
    return torch.inference_mode()(network), network.origin.data, name, network.config.steps


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
