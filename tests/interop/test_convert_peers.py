"""A converted checkpoint of SpikingJelly's networks gives the logits that SpikingJelly gives.

That of an ANN fires as its neurons do, and comes as near to the ANN as its own conversion does.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import safetensors.torch
import torch
from spikingjelly.activation_based import ann2snn, functional, neuron
from support.anns import ResNet, lively_ann
from torch import Tensor, nn

from zoo.convert import convert
from zoo.danet import DANet
from zoo.neurons import Lif


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


@pytest.fixture
def ann() -> ResNet:
    return lively_ann(ResNet())


def converted(ann: ResNet, folder: Path, steps: int) -> DANet:
    safetensors.torch.save_file(ann.state_dict(), folder / "ann.safetensors")
    arch = f"spiking-resnet20-t{steps}.cifar10"
    return convert(folder / "ann.safetensors", arch, folder / f"t{steps}")


def test_an_ann_s_neurons_fire_as_spikingjelly_s_do(ann: ResNet, tmp_path: Path) -> None:
    """Integrate and fire with a soft reset, spike for spike, in every layer for ten images."""
    steps = 8
    model = converted(ann, tmp_path, steps)
    compared = 0

    def compare(module: nn.Module, args: tuple[Tensor], spikes: Tensor) -> None:
        nonlocal compared
        assert isinstance(module, Lif)
        node = neuron.IFNode(float(module.neuron.threshold), v_reset=None, step_mode="m")
        current = args[0].view(steps, -1, *args[0].shape[1:])
        assert torch.equal(node(current), spikes.view_as(current))
        compared += int(spikes.sum())

    for module in model.modules():
        if isinstance(module, Lif):
            module.register_forward_hook(compare)
    with torch.inference_mode():
        model(torch.randn(10, 3, 32, 32))
    assert compared > 100_000


@pytest.mark.slow
def test_rates_come_as_near_to_the_ann_as_those_of_spikingjelly(
    ann: ResNet, tmp_path: Path
) -> None:
    steps, x = 64, torch.randn(8, 3, 32, 32)
    recipe = ann2snn.RateCodingRecipe([torch.randn(64, 3, 32, 32)], mode="99.9%")
    theirs = ann2snn.FXConverter(recipe).convert(ann).eval()
    functional.reset_net(theirs)
    with torch.inference_mode():
        wanted = ann(x)
        mean = torch.stack([theirs(x) for _ in range(steps)]).mean(0)
        ours = converted(ann, tmp_path, steps)(x)
    off, theirs_off = (float((logits - wanted).std()) for logits in (ours, mean))
    assert off < 1.2 * theirs_off < wanted.std(), (off, theirs_off)
