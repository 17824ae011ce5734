"""`zoo.features`: the spikes of named layers, and nothing left behind in the model."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import zoo
from zoo.danet import DANet
from zoo.errors import InputError
from zoo.neurons import Lif

Build = Callable[..., DANet]
ORDERS = ["a", "b", "c", "d", "plain", "post"]


@pytest.mark.parametrize("order", ORDERS)
def test_the_spikes_of_every_layer_are_those_that_it_sends(
    order: str, exact: Build, pixels: Callable[..., torch.Tensor], record: Callable[..., Any]
) -> None:
    model, x = exact(order=order).requires_grad_(False), pixels(3, 1, 8, 8)
    found = zoo.features(model, x)
    calls = record(model)
    model(x)
    assert list(found) == list(calls)  # in the order in which they are computed
    for name, layer in found.items():
        ((_, sent),) = calls[name]
        assert layer.name == name and layer.spikes.dtype == torch.bool
        assert torch.equal(layer.spikes.float(), sent.reshape(2, 3, *sent.shape[1:]))
        assert layer.rate == pytest.approx(float(sent.mean())) and 0 < layer.rate < 1


def test_events_and_other_neurons(tiny: Build) -> None:
    model, x = tiny(reset="subtract").eval(), torch.randn(2, 3, 1, 8, 8) * 4
    found = zoo.features(model, x)
    assert {layer.spikes.shape[:2] for layer in found.values()} == {(2, 3)} and found[
        "stage1.block0.lif1"
    ].rate > 0


def test_only_the_layers_that_are_asked_for_are_kept(tiny: Build) -> None:
    model, x = tiny(), torch.randn(1, 1, 8, 8)
    assert list(zoo.features(model, x, "stage2.*.lif2")) == [
        "stage2.block0.lif2",
        "stage2.block1.lif2",
    ]
    assert list(zoo.features(model, x, ["head.lif", "stage1.block0.lif1"])) == [
        "stage1.block0.lif1",
        "head.lif",
    ]
    assert zoo.features(model, x, []) == {}


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (
            "stage1.block0.lif",
            "'stage1.block0.lif' is no layer of neurons of this model; "
            "nearest are stage1.block0.lif",
        ),
        (["head.lif", "stage1.block0.conv1"], "'stage1.block0.conv1' is no layer of neurons"),
        ("stage9.*", "of this model; there are stage1.block0.lif1, stage1.block0.lif2, "),
    ],
)
def test_an_unknown_layer_is_refused_with_the_nearest(
    layers: str | list[str], said: str, tiny: Build
) -> None:
    with pytest.raises(InputError) as error:
        zoo.features(tiny(), torch.randn(1, 1, 8, 8), layers)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_network_without_neurons_has_no_layers(tiny: Build) -> None:
    with pytest.raises(
        InputError, match="is no layer of neurons of this model, which has none that the zoo knows"
    ):
        zoo.features(torch.nn.Linear(2, 2), torch.randn(1, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "given", [torch.randn(2, 1, 8, 8), torch.zeros(2, 1, 8, 8, dtype=torch.uint8)]
)
def test_the_model_is_left_as_it_was(given: torch.Tensor, tiny: Build) -> None:
    """Also where its input is refused: no hook, no statistic, and every module in the mode it was
    in.
    """
    model = tiny()
    model.stem.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    if given.is_floating_point():
        zoo.features(model, given)
    else:
        with pytest.raises(InputError, match=r"as `model\.transform\(pixels\)` makes of bytes"):
            zoo.features(model, given)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules() if isinstance(module, Lif))


def test_gradients_are_neither_needed_nor_stopped(tiny: Build) -> None:
    model, x = tiny(), torch.randn(1, 1, 8, 8)
    assert not any(layer.spikes.requires_grad for layer in zoo.features(model, x).values())
    model(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
