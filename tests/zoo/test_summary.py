"""`DANet.summary`: shapes, parameters and work of layers, counted by hand and by `zoo energy`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.networks import lively
from torch import nn

import zoo
from export import estimate
from zoo.danet import DANet
from zoo.errors import ConfigError, ExportError, InputError
from zoo.neurons import Lif
from zoo.provenance import Origin

NAMES = [
    "danet20-t4.fmnist",
    "danet18b-t2.cifar10",
    "sew-resnet18-t2.in1k",
    "speck-danet8-t4.fmnist",
    "danet18-t2.nmnist",
]


@pytest.mark.parametrize("name", NAMES)
def test_layers_shapes_and_parameters_are_the_networks(
    name: str, record: Callable[..., Any]
) -> None:
    model = lively(name, 16, widths=(4, 6, 8, 8)[: len(zoo.info(name).config["widths"])])
    assert model.origin is not None
    data, steps = model.origin.data, model.config.steps
    summary = model.summary()
    layers = {layer.name: layer for layer in summary.layers}
    calls = record(model, (Lif, nn.Conv2d, nn.Linear, nn.BatchNorm2d))
    model(torch.randn(*((steps,) if data.events else ()), 1, data.channels, 16, 16))
    assert layers.keys() >= calls.keys()
    for path, ((x, out),) in calls.items():
        module = model.get_submodule(path)
        assert (layers[path].kind, layers[path].shape) == (
            type(module).__name__,
            tuple(out.shape[1:]),
        )
        runs = out.shape[0]  # of one image: T, or 1 before the repetition of a still one
        macs = 0
        if isinstance(module, nn.Conv2d):
            macs = (
                runs * out[0].numel() * x.shape[1] * module.kernel_size[0] * module.kernel_size[1]
            )
        elif isinstance(module, nn.Linear):
            macs = x.shape[1] * out.shape[1]
        assert (
            layers[path].macs == macs and layers[path].synops is None and layers[path].rate is None
        )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert sum(layer.parameters for layer in summary.layers) == summary.parameters == parameters
    assert summary.macs == sum(layer.macs for layer in summary.layers) and summary.synops is None
    assert (summary.name, summary.steps) == (model.origin.name, steps)


@pytest.mark.parametrize("name", NAMES)
def test_synops_and_rates_are_those_of_the_energy_report(name: str) -> None:
    model = lively(name, 16, widths=(4, 6, 8, 8)[: len(zoo.info(name).config["widths"])])
    assert model.origin is not None
    data, steps = model.origin.data, model.config.steps
    shape = (3, data.channels, 16, 16)
    x = torch.randint(0, 3, (steps, *shape)).float() if data.events else torch.randn(shape)
    summary, report = model.summary(x), estimate(model, x)
    assert summary.synops == pytest.approx(report.total("acs") / 3) and summary.synops > 0
    rates = {layer.name: layer.rate for layer in summary.layers if layer.rate is not None}
    found = zoo.features(model, x)
    assert {path: rates[path] for path in found} == pytest.approx(
        {path: layer.rate for path, layer in found.items()}
    )
    stem = next(layer for layer in summary.layers if layer.kind == "Conv2d")
    assert (stem.synops is None) == (not data.events)  # a still image is no spikes
    assert summary.layers[-1].name == "head.fc" and (summary.layers[-1].synops or 0) > 0


def test_as_text_it_is_a_table_with_totals() -> None:
    model = lively("danet20-t4.fmnist", 16, widths=(4, 6, 8))
    lines = str(model.summary()).splitlines()
    assert lines[0].split() == ["layer", "kind", "output", "parameters", "MACs"]
    assert lines[1].split() == ["stem.conv", "Conv2d", "4x16x16", "36", "9,216"]
    assert "danet20-t4.fmnist: " in lines[-1] and "SynOps" not in lines[-1] and not lines[-2]
    lines = str(model.summary(torch.randn(1, 1, 16, 16))).splitlines()
    assert lines[0].split()[-2:] == ["SynOps", "rate"] and lines[-1].endswith(" SynOps")
    assert next(line for line in lines if line.startswith("stage1.block0.lif1")).endswith("%")


def test_a_network_built_by_hand_is_summarised_with_an_input(tiny: Callable[..., DANet]) -> None:
    model = tiny()
    with pytest.raises(
        ConfigError,
        match=r"does not say which images it takes: give some, as in model\.summary\(x\)",
    ):
        model.summary()
    with pytest.raises(ExportError):
        model.summary(torch.randn(1, 1, 8, 8))


def test_the_model_is_left_as_it_was() -> None:
    model = zoo.create("danet20-t2.fmnist", widths=(4, 6, 8))
    model.stem.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    model.summary()
    model.summary(torch.randn(1, 1, 28, 28))
    with pytest.raises(InputError):
        model.summary(torch.randn(1, 1, 8, 8))
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_a_head_of_other_classes_is_summarised() -> None:
    model = zoo.create("danet20-t2.fmnist", widths=(4, 6, 8)).eval()
    model.reset_classifier(3)
    assert model.origin == Origin(
        "danet20-t2.own", zoo.info("danet20-t2.fmnist").data.with_classes(3)
    )
    summary = model.summary(torch.randn(1, 1, 28, 28))
    assert summary.layers[-1].shape == (3,) and summary.layers[-1].parameters == 27
