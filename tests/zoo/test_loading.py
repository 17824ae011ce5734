"""`zoo.load` and `zoo.create`: from a name, or a folder, to a model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.danet import DANet
from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import ConfigError, UnknownName, WeightsError
from zoo.provenance import Origin
from zoo.weights import write_model


def test_load_by_name_short_name_and_folder_is_one_model(bundled: Path) -> None:
    x = torch.randn(2, 1, 8, 8)
    folder = bundled / "danet20-t2.fmnist"
    models = [
        zoo.load(name)
        for name in ("danet20-t2.fmnist", "danet20-t2", "danet20a-t2", str(folder), folder)
    ]
    assert not any(model.training for model in models)
    assert all(torch.equal(model(x), models[0](x)) for model in models)


def test_load_is_deterministic_and_draws_nothing(bundled: Path) -> None:
    before = torch.get_rng_state()
    assert torch.equal(*(zoo.load("danet20-t2").head.fc.weight for _ in range(2)))
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_never_trained_say_what_there_is(bundled: Path) -> None:
    for name, said in (
        (
            "danet20-t2.cifar10",
            r"danet20-t2\.cifar10 was never trained: there are weights for fmnist; "
            r"`zoo train danet20-t2\.cifar10`",
        ),
        (
            "danet50-t4",
            r"danet50-t4\.in1k was never trained: there are weights only of danet20-t2\.fmnist"
            r"; `zoo train danet50-t4\.in1k` trains it, and leaves a folder",
        ),
    ):
        with pytest.raises(WeightsError, match=said):
            zoo.load(name)


def test_a_name_too_long_for_a_path_is_unknown() -> None:
    with pytest.raises(UnknownName, match="unknown model 'xxx"):
        zoo.load("x" * 5000)


def test_without_weights_the_network_is_random() -> None:
    model = zoo.load("danet20-t2.fmnist", pretrained=False)
    assert not model.training and model(torch.randn(1, 1, 28, 28)).shape == (1, 10)
    assert model.origin is not None and (model.origin.name, model.origin.weights) == (
        "danet20-t2.fmnist",
        (),
    )


def test_create_is_in_training_mode_and_takes_fields() -> None:
    model = zoo.create("danet20b-t3.cifar10", widths=(8, 16, 32), num_classes=3)
    assert model.training and model.config.order == "b"
    assert model.origin is not None and model.origin.name == "danet20b-t3.own"
    assert model.origin.data == DATASETS["cifar10"].with_classes(3)
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 3)
    with pytest.raises(ConfigError, match="unknown key 'width'"):
        zoo.create("danet20-t4", width=3)
    with pytest.raises(ConfigError, match="in_channels = 1, but CIFAR-10 has 3"):
        zoo.create("danet20-t4.cifar10", in_channels=1)


def test_the_name_of_a_network_says_its_time_steps() -> None:
    model = zoo.create("danet20-t4.fmnist", steps=2)
    assert (
        model.origin is not None
        and model.origin.name == "danet20-t2.fmnist"
        and model.origin.data == DATASETS["fmnist"]
    )


def test_other_classes_have_a_new_last_layer_and_trained_weights_before_it(bundled: Path) -> None:
    trained, model = zoo.load("danet20-t2"), zoo.load("danet20-t2", num_classes=3)
    assert model.head.fc.weight.shape == (3, 32) and model.config == replace(
        trained.config, num_classes=3
    )
    assert trained.origin is not None
    assert model.origin == Origin("danet20-t2.own", trained.origin.data.with_classes(3))
    assert model.origin.data.title == "images of your own" and not model.origin.data.classes
    assert not model.training
    before = trained.state_dict()
    assert all(
        torch.equal(t, before[key])
        for key, t in model.state_dict().items()
        if not key.startswith("head.fc.")
    )
    assert model.state_dict().keys() == before.keys()
    x = torch.randn(2, 1, 8, 8)
    assert model(x).shape == (2, 3) and torch.equal(
        model.forward_features(x), trained.forward_features(x)
    )


def test_as_many_classes_as_there_are_keep_the_trained_layer(bundled: Path) -> None:
    trained, model = zoo.load("danet20-t2"), zoo.load("danet20-t2", num_classes=5)
    assert (
        torch.equal(model.head.fc.weight, trained.head.fc.weight) and model.origin == trained.origin
    )


def test_classes_of_a_network_without_weights() -> None:
    model = zoo.load("danet20-t2.fmnist", pretrained=False, num_classes=3)
    assert model(torch.randn(1, 1, 28, 28)).shape == (1, 3)


@pytest.mark.parametrize("pretrained", [True, False])
@pytest.mark.parametrize("number", [0, -1, 2.5, "5", 10**9])
def test_a_number_of_classes_that_cannot_be(number: Any, pretrained: bool, bundled: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"num_classes = .* (must be from 1 to 1000000|must be a whole number)"
    ) as error:
        zoo.load("danet20-t2.fmnist", num_classes=number, pretrained=pretrained)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ask", [zoo.load, zoo.create, zoo.info])
def test_what_is_no_name_is_refused(ask: Callable[[Any], object]) -> None:
    with pytest.raises(
        UnknownName, match="5 is no name of a model: give a string, as 'danet20-t4'"
    ):
        ask(5)


@pytest.mark.parametrize("pretrained", [True, False])
def test_an_unknown_name(pretrained: bool) -> None:
    with pytest.raises(UnknownName, match="nearest are"):
        zoo.load("danet21-t4", pretrained=pretrained)


def test_edited_bytes_of_the_same_length_are_refused(bundled: Path) -> None:
    path = bundled / "danet20-t2.fmnist" / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    expected = json.loads((bundled / "manifest.json").read_text())["weights"]["danet20-t2.fmnist"][
        "files"
    ][path.name]["sha256"]
    with pytest.raises(
        WeightsError, match=rf"model\.safetensors has sha256 [0-9a-f]{{64}}, expected {expected}"
    ) as error:
        zoo.load("danet20-t2")
    assert "\n" not in str(error.value)


def test_weights_of_another_seed_are_refused(
    bundled: Path, tiny: Callable[..., DANet], digits: DatasetSpec
) -> None:
    """A whole, valid folder that is not the one of the manifest."""
    write_model(bundled / "danet20-t2.fmnist", tiny(), name="danet20-t2.fmnist", data=digits)
    with pytest.raises(WeightsError, match="sha256"):
        zoo.load("danet20-t2")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(bundled: Path, file: str) -> None:
    (bundled / "danet20-t2.fmnist" / file).unlink()
    with pytest.raises(WeightsError, match=rf"{file} is missing"):
        zoo.load("danet20-t2")


def test_weights_that_are_not_installed_are_said_to_be(bundled: Path) -> None:
    (bundled / "danet20-t2.fmnist").rename(bundled / "elsewhere")
    with pytest.raises(
        WeightsError, match=r"danet20-t2\.fmnist are neither part of this installation"
    ):
        zoo.load("danet20-t2")
