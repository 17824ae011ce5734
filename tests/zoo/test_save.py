"""`DANet.save`: a model in memory as a folder that `zoo.load` takes, with its record or without, or
a refusal by name.
"""

import json
import pickle
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import snntorch as snn
import torch
from safetensors.torch import load_file, save_file
from support.networks import same
from torch import nn

import zoo
from zoo.danet import DANet, set_steps
from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, WeightsError
from zoo.provenance import RECORD_FILES, TRAINED_FILES, Origin
from zoo.publishing.entry import describe
from zoo.weights import write_model


@pytest.fixture
def trained(tmp_path: Path, tiny: Callable[..., DANet], digits: DatasetSpec) -> Path:
    """Write what `zoo train danet18-t2.fmnist` leaves, for a small network."""
    folder = tmp_path / "trained"
    write_model(folder, tiny(), name="danet18-t2.fmnist", data=digits)
    for file in TRAINED_FILES:
        (folder / file).write_text(json.dumps({"of": file}))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_unchanged_model_keeps_its_record(trained: Path, tmp_path: Path) -> None:
    model = zoo.load(trained)
    model.save(tmp_path / "copy")
    assert files(tmp_path / "copy") == files(trained)
    assert describe(tmp_path / "copy").provenance == "trained"
    for _ in range(2):  # the folder is the model's own now
        model.save(str(tmp_path / "copy"))
    assert files(tmp_path / "copy") == files(trained)


def change_a_weight(model: DANet) -> None:
    model.head.fc.bias.data[0] += 2**-20


def change_a_statistic(model: DANet) -> None:
    model.stem.bn.running_mean[0] += 1  # type: ignore[index, union-attr, operator]


def change_steps(model: DANet) -> None:
    set_steps(model, 3)
    model.origin = replace(model.known_origin, name="danet18-t3.fmnist")


def change_classes(model: DANet) -> None:
    model.reset_classifier(3)


def change_number_of_classes_and_back(model: DANet) -> None:
    model.reset_classifier(3)
    model.reset_classifier(5)


@pytest.mark.parametrize(
    "change",
    [
        change_a_weight,
        change_a_statistic,
        change_steps,
        change_classes,
        change_number_of_classes_and_back,
    ],
)
def test_a_changed_model_has_no_record_and_is_exact(
    change: Callable[[DANet], None], trained: Path, tmp_path: Path
) -> None:
    model = zoo.load(trained)
    change(model)
    model.save(tmp_path / "changed")
    assert files(tmp_path / "changed").keys() == {"config.json", "model.safetensors"}
    read = zoo.load(tmp_path / "changed")
    assert same(read, model) and read.config == model.config and read.origin == model.origin
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(read(x), model(x)) and describe(tmp_path / "changed").provenance == "unknown"
    read.save(tmp_path / "again")
    assert files(tmp_path / "again") == files(tmp_path / "changed")


def test_another_name_or_data_is_another_model(
    trained: Path, tmp_path: Path, digits: DatasetSpec
) -> None:
    named, shown = zoo.load(trained), zoo.load(trained)
    named.save(tmp_path / "named", name="pets")
    shown.save(tmp_path / "shown", data=replace(digits, title="pets"))
    for folder, origin in ((tmp_path / "named", named.origin), (tmp_path / "shown", shown.origin)):
        assert (
            files(folder).keys() == {"config.json", "model.safetensors"}
            and zoo.load(folder).origin == origin
        )
    assert named.origin is not None and named.origin.name == "pets"
    assert shown.origin is not None and shown.origin.data.title == "pets"


def test_the_record_of_other_weights_is_never_beside_them(trained: Path, tmp_path: Path) -> None:
    model = zoo.load(trained)
    change_a_weight(model)
    before = files(trained)
    with pytest.raises(
        WeightsError,
        match=r"trained holds metrics\.json, which is about other weights: save to another folder",
    ):
        model.save(trained)
    assert files(trained) == before
    for file in (*RECORD_FILES, "model.safetensors.index.json"):
        folder = tmp_path / file
        folder.mkdir()
        (folder / file).write_text("{}")
        with pytest.raises(WeightsError, match=f"holds {file}"):
            model.save(folder)
        assert files(folder) == {file: b"{}"}


def test_a_model_whose_folder_is_gone_is_saved(trained: Path, tmp_path: Path) -> None:
    model = zoo.load(trained)
    trained.rename(tmp_path / "elsewhere")
    model.save(tmp_path / "saved")
    assert same(zoo.load(tmp_path / "saved"), model) and "metrics.json" not in files(
        tmp_path / "saved"
    )


@pytest.mark.parametrize(
    "change",
    [lambda tensors: tensors.popitem(), lambda tensors: tensors.update(more=torch.zeros(1))],
)
def test_a_model_whose_file_has_other_tensors_now_has_no_record(
    change: Callable[[dict[str, torch.Tensor]], object], trained: Path, tmp_path: Path
) -> None:
    model, path = zoo.load(trained), trained / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    model.save(tmp_path / "saved")
    assert same(zoo.load(tmp_path / "saved"), model) and "metrics.json" not in files(
        tmp_path / "saved"
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_saved_as_they_are(
    dtype: torch.dtype, trained: Path, tmp_path: Path
) -> None:
    model = zoo.load(trained).to(dtype)
    model.save(tmp_path / "saved")
    assert same(zoo.load(tmp_path / "saved").double(), model.double())


def test_a_network_built_by_hand_is_saved_with_name_and_data(
    tiny: Callable[..., DANet], digits: DatasetSpec, tmp_path: Path
) -> None:
    model = tiny()
    for given in ({}, {"name": "mine"}, {"data": digits}):
        with pytest.raises(
            ConfigError,
            match=r"neither a name nor data: give both, as in model\.save\(folder, name=",
        ):
            model.save(tmp_path / "mine", **given)  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match=r"this network has neither a name nor data: make it with zoo\.create"
    ):
        _ = model.transform
    assert not (tmp_path / "mine").exists()
    model.save(tmp_path / "mine", name="mine", data=digits)
    assert model.origin == Origin("mine", digits, (tmp_path / "mine" / "model.safetensors",))
    assert same(zoo.load(tmp_path / "mine"), model)


def a_neuron_of_another_kind(model: DANet) -> None:
    model.get_submodule("stage1.block0.lif1").neuron = snn.Synaptic(alpha=0.5, beta=0.5)


def a_head_of_two_layers(model: DANet) -> None:
    model.head.fc = nn.Sequential(nn.Linear(32, 3), nn.Linear(3, 3))  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            a_neuron_of_another_kind,
            r"stage1\.block0\.lif1 is Lif\(steps=2, reset=None\) of snntorch's Synaptic with",
        ),
        (a_head_of_two_layers, r"head\.fc is Sequential"),
    ],
)
def test_what_a_folder_cannot_say_is_refused_by_name(
    change: Callable[[DANet], None], said: str, trained: Path, tmp_path: Path
) -> None:
    model = zoo.load(trained)
    origin = model.origin
    change(model)
    with pytest.raises(WeightsError, match=said) as error:
        model.save(tmp_path / "saved")
    assert (
        "\n" not in str(error.value)
        and not (tmp_path / "saved").exists()
        and model.origin == origin
    )


def test_what_could_not_be_loaded_again_is_refused(
    trained: Path, tmp_path: Path, digits: DatasetSpec
) -> None:
    model = zoo.load(trained)
    with pytest.raises(ConfigError, match="name 'my model' is not one of letters, digits"):
        model.save(tmp_path / "saved", name="my model")
    for data in (
        replace(digits, channels=3, mean=(0.5,) * 3, std=(0.5,) * 3),
        replace(digits, num_classes=3),
    ):
        with pytest.raises(ConfigError, match="a model of 1 channels and 5 classes for data of"):
            model.save(tmp_path / "saved", data=data)
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="file is a file: a model is saved to a folder"):
        model.save(tmp_path / "file")
    assert not (tmp_path / "saved").exists()


def test_a_model_is_copied_and_pickled_whole(trained: Path) -> None:
    model, x = zoo.load(trained), torch.randn(2, 1, 8, 8)
    model.reset_classifier(3)
    for other in (deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (
            torch.equal(other(x), model(x))
            and other.origin == model.origin
            and other.transform == model.transform
        )
