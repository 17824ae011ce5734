"""Model folders: what is written is what is read, and anything else is refused in one line that
names the culprit.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import snntorch as snn
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import prune

from zoo.danet import DANet, set_steps
from zoo.datasets import DatasetSpec
from zoo.errors import WeightsError
from zoo.integrity import check_files, digest, sha256
from zoo.manifest import FileSpec
from zoo.weights import read_model, write_model

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def model(tiny: Callable[..., DANet]) -> DANet:
    """With statistics of a batch seen, so that buffers differ from their defaults."""
    model = tiny()
    model(torch.randn(8, 1, 8, 8))
    return model.eval()


@pytest.fixture
def folder(tmp_path: Path, model: DANet, digits: DatasetSpec) -> Path:
    write_model(tmp_path / "tiny", model, name="tiny", data=digits, half=False)
    return tmp_path / "tiny"


def test_full_precision_comes_back_bit_for_bit(
    folder: Path, model: DANet, digits: DatasetSpec
) -> None:
    read, x = read_model(folder), torch.randn(3, 1, 8, 8)
    assert read.config == model.config and not read.training
    assert all(p.requires_grad for p in read.parameters())
    assert read.state_dict().keys() == model.state_dict().keys()
    assert all(
        torch.equal(t, read.state_dict()[key]) and t.dtype == read.state_dict()[key].dtype
        for key, t in model.state_dict().items()
    )
    assert torch.equal(read(x), model(x))
    assert read.origin is not None
    assert (read.origin.name, read.origin.data, read.origin.weights) == (
        "tiny",
        digits,
        (folder / "model.safetensors",),
    )


def test_half_precision_is_the_default_and_rounds_once(
    tmp_path: Path, model: DANet, digits: DatasetSpec
) -> None:
    write_model(tmp_path, model, name="tiny", data=digits)
    stored, read = load_file(tmp_path / "model.safetensors"), read_model(tmp_path).state_dict()
    for key, t in model.state_dict().items():
        # normalisation and biases are few, and their range is wider than float16
        floats = t.dim() > 1
        assert stored[key].dtype == (torch.float16 if floats else t.dtype), key
        assert torch.equal(read[key], t.half().to(t.dtype) if floats else t), key
    assert stored["stage1.block0.lif1.neuron.threshold"].dtype == torch.float32


def test_channels_last_weights_are_written(
    tmp_path: Path, model: DANet, digits: DatasetSpec
) -> None:
    expected = {key: t.clone() for key, t in model.state_dict().items()}
    write_model(
        tmp_path, model.to(memory_format=torch.channels_last), name="tiny", data=digits, half=False
    )
    assert all(
        torch.equal(t, expected[key]) for key, t in read_model(tmp_path).state_dict().items()
    )


def test_a_model_read_can_be_trained(folder: Path) -> None:
    model = read_model(folder).train()
    model(torch.randn(4, 1, 8, 8)).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_reading_draws_no_random_number(folder: Path) -> None:
    before = torch.get_rng_state()
    read_model(folder)
    assert torch.equal(torch.get_rng_state(), before)


def test_write_model_returns_what_the_manifest_holds(
    tmp_path: Path, model: DANet, digits: DatasetSpec
) -> None:
    files = write_model(tmp_path, model, name="tiny", data=digits)
    assert (
        {path.name for path in tmp_path.iterdir()}
        == files.keys()
        == {"config.json", "model.safetensors"}
    )
    assert files == {
        name: FileSpec(sha256(tmp_path / name), (tmp_path / name).stat().st_size) for name in files
    }
    check_files(tmp_path, files, remedy="")


def shard(folder: Path) -> list[str]:
    """Split the file of a folder in three, as large models are; returns the names of the shards."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [f"model-{i}-of-3.safetensors" for i in range(3)]
    for i, name in enumerate(names):
        save_file({key: tensors[key] for key in list(tensors)[i::3]}, folder / name)
    where = {key: names[i % 3] for i, key in enumerate(tensors)}
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": where})
    )
    return names


def test_two_writers_of_one_folder_do_not_meet(
    folder: Path, model: DANet, digits: DatasetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one writes, another comes and goes; and one that fails leaves what lay there."""

    def meanwhile(tensors: dict[str, Tensor], path: Path, **options: Any) -> None:
        save_file(tensors, path, **options)
        monkeypatch.setattr("zoo.weights.save_file", save_file)
        write_model(folder, model, name="tiny", data=digits, half=False)

    def fails(tensors: dict[str, Tensor], path: Path, **options: Any) -> None:
        path.write_bytes(b"half")
        raise OSError

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("zoo.weights.save_file", meanwhile)
    write_model(folder, model, name="tiny", data=digits, half=False)
    monkeypatch.setattr("zoo.weights.save_file", fails)
    with pytest.raises(OSError):
        write_model(folder, model, name="tiny", data=digits, half=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_weights_that_cannot_take_their_place_leave_the_configuration(
    folder: Path, tiny: Callable[..., DANet], digits: DatasetSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied")

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(PermissionError):
        write_model(folder, tiny(steps=3), name="other", data=digits)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_shards_are_one_model(folder: Path, model: DANet) -> None:
    single = digest((folder / "model.safetensors",))
    names = shard(folder)
    read, x = read_model(folder), torch.randn(3, 1, 8, 8)
    assert torch.equal(read(x), model(x))
    assert read.origin is not None and [path.name for path in read.origin.weights] == names
    assert len({single, digest(read.origin.weights), digest(read.origin.weights[::-1])}) == 3


def test_digest_of_one_file_is_its_own(folder: Path) -> None:
    assert digest((folder / "model.safetensors",)) == sha256(folder / "model.safetensors")
    assert digest(()) == ""


def refused(folder: Path, *said: str) -> None:
    with pytest.raises(WeightsError) as error:
        read_model(folder)
    message = str(error.value)
    assert "\n" not in message
    for part in said:
        assert part in message


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], Any]) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(folder, str(path), "not a whole safetensors file")


def test_a_wrong_shape_names_the_key_and_both_shapes(folder: Path) -> None:
    rewrite(folder / "model.safetensors", lambda t: t.update({"head.fc.weight": torch.zeros(7, 3)}))
    refused(folder, "model.safetensors", "head.fc.weight", "[7, 3]", "[5, 32]")


def test_a_missing_key_is_named(folder: Path) -> None:
    rewrite(
        folder / "model.safetensors", lambda t: (t.pop("head.fc.bias"), t.pop("stem.bn.weight"))
    )
    refused(folder, str(folder), "2 of ", "stem.bn.weight")


def test_an_extra_key_is_named(folder: Path) -> None:
    rewrite(folder / "model.safetensors", lambda t: t.update({"tail.weight": torch.zeros(1)}))
    refused(folder, "model.safetensors", "unexpected key 'tail.weight'")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", str(tmp_path / "nowhere" / "config.json"), "does not exist")


def test_a_folder_without_weights_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, str(folder), "neither model.safetensors nor model.safetensors.index.json")


def test_a_missing_shard_is_named(folder: Path) -> None:
    (folder / shard(folder)[1]).unlink()
    refused(folder, "model-1-of-3.safetensors")


@pytest.mark.parametrize(
    "name", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", 7, None]
)
def test_a_shard_outside_the_folder_is_refused(folder: Path, name: Any) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"head.fc.bias": name}})
    )
    refused(folder, "model.safetensors.index.json", "safetensors file names in the same folder")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "nul\0", '{"weight_map": []}', "{}"])
def test_an_index_that_is_none_is_refused(folder: Path, text: str) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").write_text(text)
    refused(folder, "model.safetensors.index.json")


def test_json_that_is_too_large_is_not_read(folder: Path) -> None:
    with (folder / "config.json").open("r+b") as file:
        file.truncate(2**26 + 1)
    refused(folder, "config.json is larger than 64 MiB")


def in_model(**fields: Any) -> Change:
    return lambda values: values | {"model": values["model"] | fields}


def in_data(**fields: Any) -> Change:
    return lambda values: values | {"data": values["data"] | fields}


def without(missing: str) -> Change:
    return lambda values: {key: value for key, value in values.items() if key != missing}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (in_model(colour="red"), "unknown key 'colour'"),
        (
            in_model(widths=[10**9, 10**9]),
            "entry 1 of widths = 1000000000 must be from 1 to 16384",
        ),
        (in_model(num_classes=10**9), "num_classes = 1000000000"),
        (in_model(depths=[1] * 3), "depths"),
        (in_model(depths=3), "depths = 3"),
        (
            in_model(depths=[1] * 9, widths=[16] * 9),
            "expected one of each for every stage, and 1 to 8 stages",
        ),
        (in_model(order="z"), "'z' must be one of 'a'"),
        (in_model(order=None), "order = None"),
        (in_model(beta="half"), "beta = 'half'"),
        (in_model(steps=-1), "steps = -1"),
        (in_data(size=0), "size = 0 must be from 1 to 65536"),
        (in_data(mean=[]), "mean [] and std [0.25] do not fit 1 channels"),
        (in_data(colour="red"), "colour"),
        (in_data(classes=["one"]), "1 class names for 5 classes"),
        (in_data(held_out=1), "held_out = 1 must be a share of images"),
        (in_data(held_out=float("nan")), "held_out = nan must be finite"),
        (in_data(mean=["a"]), "entry 1 of mean = 'a' must be a number"),
        (in_data(events="no"), "events = 'no' must be true or false"),
        (lambda values: values | {"data": None}, "data = None must be a table of tag, title"),
        (lambda values: values | {"name": None}, "name = None must be text"),
        (in_data(held_out="half"), "held_out = 'half' must be a number"),
        (lambda values: values | {"model": []}, "config.json"),
        (lambda values: values | {"data": None}, "config.json"),
        (without("model"), "lacks 'model'"),
        (without("data"), "lacks 'data'"),
        (without("name"), "lacks 'name'"),
        (without("format"), "is of no model folder of the zoo: it lacks 'format', one of"),
        (lambda values: values | {"format": 2}, "format = 2, but this zoo reads format 1"),
        (
            lambda values: values | {"name": "danet20-t4.pets"},
            "name 'danet20-t4.pets' says T = 4, but the network has steps = 2",
        ),
        (lambda values: [values], "holds no JSON object"),
        (
            lambda values: values | {"name": "../../escape"},
            "name '../../escape' is not one of letters",
        ),
        (lambda values: values | {"name": "two\nlines"}, "must be a line of text"),
    ],
)
def test_a_wrong_config_is_refused(folder: Path, change: Change, said: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    refused(folder, str(path), said)


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"not json", b"[" * 100_000])
def test_a_config_that_is_not_json_is_refused(folder: Path, raw: bytes) -> None:
    (folder / "config.json").write_bytes(raw)
    refused(folder, str(folder / "config.json"), "is not JSON")


def another_head(model: DANet) -> None:
    model.head.fc = nn.Linear(model.head.fc.in_features, 3)


def fewer_steps(model: DANet) -> None:
    set_steps(model, 1)


def other_constants(model: DANet) -> None:
    model.get_submodule("stage1.block0.lif1").neuron = snn.Leaky(
        beta=0.9, threshold=0.7, reset_mechanism="zero", learn_beta=True
    )


def nothing_but_zeros(model: DANet) -> None:
    for parameter in model.parameters():
        nn.init.zeros_(parameter)


@pytest.mark.parametrize("change", [another_head, fewer_steps, other_constants, nothing_but_zeros])
def test_what_a_configuration_says_of_a_changed_network_is_saved(
    change: Callable[[DANet], None], model: DANet, digits: DatasetSpec, tmp_path: Path
) -> None:
    change(model)
    write_model(tmp_path, model.eval(), name="tiny", data=digits, half=False)
    read, x = read_model(tmp_path), torch.randn(3, 1, 8, 8)
    assert torch.equal(read(x), model(x)) and read.config.steps == model.head.readout.steps
    assert read.origin is not None and read.origin.data == digits.with_classes(
        model.head.fc.out_features
    )


def a_head_of_two_layers(model: DANet) -> None:
    model.head.fc = nn.Sequential(nn.Linear(model.head.fc.in_features, 3), nn.Linear(3, 3))  # type: ignore[assignment]


def a_stem_with_bias(model: DANet) -> None:
    model.stem.conv = nn.Conv2d(1, model.stem.conv.out_channels, 3, padding=1)


def another_reset(model: DANet) -> None:
    model.get_submodule("stage1.block0.lif1").neuron = snn.Leaky(
        beta=0.5, reset_mechanism="subtract"
    )


def another_neuron(model: DANet) -> None:
    model.get_submodule("stage1.block0.lif1").neuron = snn.Synaptic(alpha=0.5, beta=0.5)


def a_beta_for_each_channel(model: DANet) -> None:
    model.get_submodule("stage1.block0.lif1").neuron = snn.Leaky(
        beta=torch.full((8, 1, 1), 0.5), reset_mechanism="zero"
    )


def pruned(model: DANet) -> None:
    prune.l1_unstructured(model.get_submodule("stage1.block0.conv1"), "weight", 0.5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (a_head_of_two_layers, r"head\.fc is Sequential"),
        (
            a_stem_with_bias,
            r"stem\.conv is Conv2d.*, where the configuration has Conv2d.*bias=False",
        ),
        (another_reset, r"stage1\.block0\.lif1 is Lif\(steps=2, reset=subtract\)"),
        (another_neuron, r"stage1\.block0\.lif1 is Lif\(steps=2, reset=None\)"),
        (
            a_beta_for_each_channel,
            r"stage1\.block0\.lif1\.neuron\.beta is a tensor of shape \[8, 1, 1\]",
        ),
        (pruned, r"stage1\.block0\.conv1\.weight is not there.*prune\.remove"),
    ],
)
def test_what_no_configuration_says_is_refused_before_anything_is_written(
    change: Callable[[DANet], None], named: str, model: DANet, digits: DatasetSpec, tmp_path: Path
) -> None:
    change(model)
    with pytest.raises(WeightsError, match=named):
        write_model(tmp_path / "model", model, name="tiny", data=digits)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_weights_of_a_wrapped_network_are_read(prefix: str, folder: Path, model: DANet) -> None:
    save_file(
        {prefix + key: tensor for key, tensor in load_file(folder / "model.safetensors").items()},
        folder / "model.safetensors",
    )
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(read_model(folder)(x), model(x))


def test_a_weight_that_is_there_twice_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(
        tensors | {"module.head.fc.bias": tensors["head.fc.bias"].clone()},
        folder / "model.safetensors",
    )
    with pytest.raises(WeightsError, match=r"head\.fc\.bias' is there twice"):
        read_model(folder)


def test_a_folder_of_two_minds_about_classes_is_refused(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text())
    values["data"]["num_classes"] = 3
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(
        WeightsError,
        match="a model of 1 channels and 5 classes for data of 1 channels and 3 classes",
    ):
        read_model(folder)


def test_a_wrapped_network_is_no_network(model: DANet, digits: DatasetSpec, tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"DataParallel is no DANet: give the network inside, as model\.module"
    ):
        write_model(tmp_path / "model", nn.DataParallel(model), name="tiny", data=digits)  # type: ignore[arg-type]


def test_the_folder_of_a_run_is_answered_with_that_of_its_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(
        WeightsError,
        match=f"^{tmp_path} is the folder of a run: its model lies in {tmp_path / 'model'}$",
    ):
        read_model(tmp_path)
