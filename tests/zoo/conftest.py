"""Tiny networks, and a weights folder with a manifest of its own."""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from zoo.danet import DANet, DANetConfig
from zoo.datasets import DatasetSpec
from zoo.manifest import read_manifest
from zoo.neurons import Lif
from zoo.weights import write_model

TINY = {
    "depths": (1, 2),
    "widths": (16, 32),
    "stem": "small",
    "steps": 2,
    "in_channels": 1,
    "num_classes": 5,
}


def make_exact(model: nn.Module) -> nn.Module:
    """Weights and statistics that are small multiples of powers of two: every sum is exact in
    float32, so that two ways to compute a network agree bit for bit whatever the order of
    summation, and membranes often lie exactly on a threshold.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.data = torch.randint(-4, 5, module.weight.shape) / (
                8 if fan_in < 32 else 16
            )
            if module.bias is not None:
                module.bias.data = torch.randint(-4, 5, module.bias.shape) / 8
        elif isinstance(module, nn.BatchNorm2d):
            module.weight.data = torch.randint(4, 9, module.weight.shape) / 4
            module.bias.data = torch.randint(0, 9, module.bias.shape) / 8
            module.running_mean = torch.randint(-2, 3, module.bias.shape) / 16
            module.eps = 2**-40  # vanishes beside the variance, which is one
    return model.eval()


@pytest.fixture
def tiny() -> Callable[..., DANet]:
    """`tiny(**fields)`: a network of two narrow stages, in training mode."""
    return lambda **fields: DANet(DANetConfig(**TINY | fields))


@pytest.fixture
def exact(tiny: Callable[..., DANet]) -> Callable[..., DANet]:
    """`exact(**fields)`: the same in eval mode, with arithmetic free of rounding (see
    `make_exact`).
    """
    return lambda **fields: make_exact(tiny(**fields))


@pytest.fixture
def pixels() -> Callable[..., Tensor]:
    """`pixels(*shape)`: an input whose values are multiples of a quarter."""
    return lambda *shape: torch.randint(-8, 9, shape) / 4


@pytest.fixture
def record() -> Iterator[Callable[..., dict[str, list[tuple[Tensor, Tensor]]]]]:
    """`record(model, kind)`: name -> (input, output) of every call of the modules of that kind."""
    handles = []

    def start(
        model: nn.Module, kind: type[nn.Module] | tuple[type[nn.Module], ...] = Lif
    ) -> dict[str, Any]:
        calls: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for name, module in model.named_modules():
            if isinstance(module, kind):

                def hook(_: nn.Module, args: tuple[Tensor], out: Tensor, name: str = name) -> None:
                    calls.setdefault(name, []).append((args[0], out))

                handles.append(module.register_forward_hook(hook))
        return calls

    yield start
    for handle in handles:
        handle.remove()


@pytest.fixture
def digits() -> DatasetSpec:
    """A data set that fits `tiny`."""
    return DatasetSpec("fmnist", "five digits", 8, 1, 5, (0.5,), (0.25,))


@pytest.fixture
def toy() -> DatasetSpec:
    """What the pictures are to become: 8x8 RGB in three classes."""
    return DatasetSpec("toy", "Toy", 8, 3, 3, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def bundled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Callable[..., DANet], digits: DatasetSpec
) -> Iterator[Path]:
    """The weights folder of an installation that holds one model, `danet20-t2.fmnist`, the default
    of `danet20-t2`.
    """
    name, folder = "danet20-t2.fmnist", tmp_path / "weights"
    files = write_model(folder / name, tiny(), name=name, data=digits)
    entry = {
        "files": {file: asdict(spec) for file, spec in files.items()},
        "data": digits.to_dict(),
        "metrics": {"top1": 0.2, "split": "test", "images": 5, "weights": "random"},
        "licence": "Apache-2.0",
        "provenance": "trained",
        "recipe": "fmnist",
    }
    values = {"version": 1, "defaults": {"danet20-t2": "fmnist"}, "weights": {name: entry}}
    (folder / "manifest.json").write_text(json.dumps(values))
    for module in (
        "zoo.hub",
        "zoo.publishing.bundle",
        "zoo.publishing.cards",
        "zoo.manifest",
    ):  # the last last: to import the others copies its function
        monkeypatch.setattr(f"{module}.weights_folder", lambda: folder)
    read_manifest.cache_clear()
    yield folder
    read_manifest.cache_clear()
