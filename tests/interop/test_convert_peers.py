"""A converted checkpoint of SpikingJelly's networks gives the logits that SpikingJelly gives."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import functional, neuron
from torch import nn

from zoo.convert import convert


def lively(model: nn.Module) -> nn.Module:
    """Set the statistics of a network so that every layer fires, and its mode to eval."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            nn.init.uniform_(module.bias, 0.3, 0.7)
            nn.init.uniform_(module.weight, 0.5, 1.0)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], Any]]:
    """SpikingJelly's networks can be imported without torchvision.

    Their modules import it only for its function that downloads an ANN's weights.
    """
    downloads = ModuleType("torchvision._internally_replaced_utils")
    downloads.load_state_dict_from_url = None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, downloads.__name__, downloads)
    from spikingjelly.activation_based.model import sew_resnet, spiking_resnet

    options = {"pretrained": False, "spiking_neuron": neuron.IFNode}
    return {
        "sew-resnet18-t4": lambda: sew_resnet.sew_resnet18(cnf="ADD", **options),
        "sew-resnet18iand-t4": lambda: sew_resnet.sew_resnet18(cnf="IAND", **options),
        "sew-resnet50-t4": lambda: sew_resnet.sew_resnet50(cnf="ADD", **options),
        "spiking-resnet18-t4": lambda: spiking_resnet.spiking_resnet18(**options),
    }


@pytest.mark.parametrize(
    "name", ["sew-resnet18-t4", "sew-resnet18iand-t4", "sew-resnet50-t4", "spiking-resnet18-t4"]
)
@pytest.mark.slow
def test_converted_networks_give_the_same_logits(
    name: str, networks: dict[str, Callable[[], Any]], tmp_path: Path
) -> None:
    theirs = lively(networks[name]())
    torch.save({"model": theirs.state_dict()}, tmp_path / "checkpoint.pth")
    ours = convert(tmp_path / "checkpoint.pth", name, tmp_path / "out")
    x = torch.randn(2, 3, 64, 64)
    functional.set_step_mode(theirs, "m")
    with torch.inference_mode():
        logits, expected = ours(x), theirs(x.repeat(4, 1, 1, 1, 1)).mean(0)
    torch.testing.assert_close(logits, expected, atol=float(1e-4 * expected.std()), rtol=0)
