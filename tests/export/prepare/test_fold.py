"""What is exported is the network as it is, or nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.networks import lively
from torch import nn

from export.energy import estimate
from export.nir.exporter import to_nir
from export.onnx.exporter import to_onnx
from zoo.danet import DANet, set_steps
from zoo.errors import ExportError

EXPORTS: list[Callable[[DANet], Any]] = [
    to_nir,
    to_onnx,
    lambda model: estimate(model, torch.zeros(1, 1, 8, 8)),
]


@pytest.fixture
def model() -> DANet:
    return lively("danet20-t2.fmnist", 8, depths=(1, 1), widths=(8, 16))


@pytest.mark.parametrize("export", EXPORTS)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda m: m.half(),
            r"stem\.conv\.weight is of torch\.float16: exports are made of torch\.float32",
        ),
        (
            lambda m: m.head.set_submodule("fc", nn.Linear(16, 3)),
            r"head\.fc tells 3 classes, the model's data .* have 10",
        ),
    ],
)
def test_what_an_export_cannot_follow_is_refused(
    change: Callable[[DANet], Any], said: str, export: Callable[[DANet], Any], model: DANet
) -> None:
    change(model)
    with pytest.raises(ExportError, match=said) as error:
        export(model)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("steps", [3, 64])
def test_an_export_says_the_steps_that_the_model_was_given(steps: int, model: DANet) -> None:
    set_steps(model, steps)
    assert to_nir(model).metadata["steps"] == steps
    if steps == 3:  # a graph of 64 steps is large
        assert {entry.key: entry.value for entry in to_onnx(model).metadata_props}["steps"] == "3"
    assert estimate(model, torch.zeros(1, 1, 8, 8)).source.steps == steps
