"""Files of `write_onnx`, read back: the graph, the weights and the spikes are the model's, bit for
bit.
"""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from support.networks import lively
from torch import Tensor

from export.nir.exporter import to_nir
from export.onnx.exporter import to_onnx
from export.onnx.importer import read_onnx
from export.prepare.fold import fold
from export.prepare.quantize import quantize_weights
from zoo.danet import DANet
from zoo.errors import InputError
from zoo.neurons import Lif

TINY: dict[str, Any] = {"depths": (1, 2), "widths": (4, 6)}
MODELS: list[tuple[str, int, dict[str, Any]]] = [
    ("danet20-t2.fmnist", 20, {"depths": (1, 1, 2), "widths": (4, 6, 8)}),
    ("danet20-t1.fmnist", 12, TINY),  # beta is not in the file
    ("danet20b-t2.fmnist", 13, TINY),
    ("danet20c-t2.fmnist", 12, TINY),
    ("danet20d-t2.fmnist", 12, TINY),
    ("danet50c-t2.in1k", 33, {"depths": (1, 1), "widths": (8, 12)}),
    ("sew-resnet18-t2.in1k", 32, TINY | {"num_classes": 5}),
    ("sew-resnet20and-t2.fmnist", 12, TINY),
    ("sew-resnet20iand-t2.fmnist", 12, TINY),
    ("ms-resnet20-t2.fmnist", 12, TINY),
    # convolutions with a bias of their own
    ("ms-resnet104-t2.in1k", 33, {"depths": (1, 1), "widths": (4, 6)}),
    ("spiking-resnet20-t2.fmnist", 12, TINY),
    ("speck-danet8-t4.fmnist", 12, TINY),  # reset by subtraction
]


def there_and_back(model: DANet, folder: Path) -> DANet:
    onnx.save(to_onnx(model), folder / "model.onnx")
    return read_onnx(folder / "model.onnx")


def assert_same_graph(model: DANet, read: DANet) -> None:
    ours, theirs = (to_nir(m, dialect="native") for m in (model, read))
    assert ours.edges == theirs.edges and ours.metadata == theirs.metadata
    assert [*ours.nodes] == [*theirs.nodes]
    for name, node in ours.nodes.items():
        other = theirs.nodes[name]
        assert type(node) is type(other) and vars(node).keys() == vars(other).keys(), name
        for field, value in vars(node).items():
            # exactly, and inside metadata too
            np.testing.assert_equal(getattr(other, field), value, f"{name}.{field}")


def spikes(model: DANet, images: Tensor) -> dict[str, Tensor]:
    """The logits and every neuron's spikes."""
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(
            lambda m, args, output, path=path: found.update({path: output})
        )
        for path, module in model.named_modules()
        if isinstance(module, Lif)
    ]
    with torch.inference_mode():
        found["logits"] = model(images)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize(
    ("name", "size", "config"),
    [MODELS[0], *(pytest.param(*model, marks=pytest.mark.slow) for model in MODELS[1:])],
)
def test_graph_weights_and_spikes_are_the_models(
    name: str, size: int, config: dict[str, Any], tmp_path: Path
) -> None:
    model = lively(name, size, **config)
    read = there_and_back(model, tmp_path)
    assert_same_graph(model, read)
    assert_same_graph(model, fold(read))
    folded = fold(model)
    expected, state = folded.state_dict(), read.state_dict()
    assert state.keys() == expected.keys()
    assert all(
        torch.equal(state[key], expected[key]) and state[key].dtype == expected[key].dtype
        for key in expected
    )
    images = torch.randn(3, model.config.in_channels, size, size)
    wanted, found = spikes(folded, images), spikes(read, images)
    assert found.keys() == wanted.keys() and all(
        torch.equal(found[path], wanted[path]) for path in wanted
    )
    torch.testing.assert_close(
        found["logits"], spikes(model, images)["logits"], rtol=1e-4, atol=1e-4
    )
    assert not any(module.training for module in read.modules())
    assert read.config == model.config and read.origin == model.origin


def test_neurons_that_differ_from_the_configuration(tmp_path: Path) -> None:
    model = lively("danet20-t2.fmnist", 12, **TINY)
    first = model.get_submodule("stage1.block0.lif1")
    first.neuron.beta, first.neuron.threshold = torch.rand(4, 1, 1), torch.rand(4, 12, 12) + 0.5
    model.set_submodule("stage2.block0.lif1", Lif(2, beta=0.25, threshold=0.75, reset="subtract"))
    read = there_and_back(model, tmp_path)
    assert_same_graph(model, read)
    assert read.get_submodule("stage2.block0.lif1").reset == "subtract"


def test_weights_of_a_chip_say_so(tmp_path: Path) -> None:
    model = quantize_weights(lively("danet20-t2.fmnist", 12, **TINY), "int8-layer")
    read = there_and_back(model, tmp_path)
    assert read.origin is not None and read.origin.weight_format == "int8-layer"
    assert_same_graph(model, read)


@pytest.fixture(scope="module")
def whole() -> onnx.ModelProto:
    return to_onnx(lively("danet20b-t2.fmnist", 12, **TINY))


@pytest.fixture
def proto(whole: onnx.ModelProto) -> onnx.ModelProto:
    """To be altered."""
    return copy.deepcopy(whole)


def test_reading_draws_no_random_number_and_leads_to_the_same_file(
    whole: onnx.ModelProto, tmp_path: Path
) -> None:
    onnx.save(whole, tmp_path / "model.onnx")
    before = torch.get_rng_state()
    read = read_onnx(tmp_path / "model.onnx")
    assert torch.equal(before, torch.get_rng_state())
    again = to_onnx(read)
    tensors = [
        {t.name: numpy_helper.to_array(t) for t in p.graph.initializer} for p in (whole, again)
    ]
    np.testing.assert_equal(tensors[1], tensors[0])
    assert whole.metadata_props == again.metadata_props


def test_a_kept_batchnorm_keeps_its_epsilon(proto: onnx.ModelProto, tmp_path: Path) -> None:
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = 0.5
    onnx.save(proto, tmp_path / "model.onnx")
    assert read_onnx(tmp_path / "model.onnx").get_submodule("stage1.block0.bn1").eps == 0.5


def tensor(proto: onnx.ModelProto, name: str) -> TensorProto:
    return next(t for t in proto.graph.initializer if t.name == name)


def remove(proto: onnx.ModelProto, name: str) -> None:
    proto.graph.initializer.remove(tensor(proto, name))


def add(proto: onnx.ModelProto, name: str, value: Any) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def change(proto: onnx.ModelProto, name: str, value: Any) -> None:
    remove(proto, name)
    add(proto, name, value)


def cut(proto: onnx.ModelProto, name: str, size: int) -> None:
    tensor(proto, name).raw_data = tensor(proto, name).raw_data[:size]


def retype(proto: onnx.ModelProto, name: str, kind: int) -> None:
    tensor(proto, name).data_type = kind


def outside(proto: onnx.ModelProto, name: str, location: str) -> None:
    """Let the tensor's data lie in another file."""
    found = tensor(proto, name)
    found.ClearField("raw_data")
    found.data_location = TensorProto.EXTERNAL
    found.external_data.add(key="location", value=location)


def describe(proto: onnx.ModelProto, **values: str) -> None:
    meta = {entry.key: entry.value for entry in proto.metadata_props} | values
    onnx.helper.set_model_props(proto, {key: value for key, value in meta.items() if value})


def edit(proto: onnx.ModelProto, key: str, **values: Any) -> None:
    """Change fields of the metadata `config` or `data`."""
    said = next(json.loads(entry.value) for entry in proto.metadata_props if entry.key == key)
    describe(proto, **{key: json.dumps(said | values)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda p: remove(p, "head.fc.weight"),
            "lacks the tensor head.fc.weight: it is not a whole export",
        ),
        # of a folded BatchNorm
        (
            lambda p: remove(p, "stage1.block0.conv1.bias"),
            "lacks the tensor stage1.block0.conv1.bias",
        ),
        (
            lambda p: remove(p, "stage1.block0.bn1.running_var"),
            "lacks the tensor stage1.block0.bn1.running_var",
        ),
        (
            lambda p: remove(p, "stage1.block0.lif1.threshold"),
            "lacks the tensor stage1.block0.lif1.threshold",
        ),
        (
            lambda p: remove(p, "stage1.block0.lif1.beta"),
            "lacks the tensor stage1.block0.lif1.beta",
        ),
        (
            lambda p: change(p, "head.fc.bias", np.zeros(9, np.float32)),
            r"head.fc.bias is FLOAT \[9\], expected FLOAT \[10\]",
        ),
        (
            lambda p: change(p, "head.fc.bias", np.zeros(10)),
            r"head.fc.bias is DOUBLE \[10\], expected FLOAT",
        ),
        (
            lambda p: change(p, "head.lif.beta", np.zeros(3, np.float32)),
            r"head.lif.beta is FLOAT \[3\], expected FLOAT \[6, 6, 6\]",
        ),
        (
            lambda p: change(p, "head.lif.beta", np.zeros((1, 1, 1, 1), np.float32)),
            r"head.lif.beta is FLOAT \[1, 1, 1, 1\]",
        ),
        (lambda p: retype(p, "head.fc.bias", 77), "head.fc.bias is of unknown type"),
        (lambda p: cut(p, "head.fc.bias", 5), "head.fc.bias cannot be read"),
        (lambda p: cut(p, "head.fc.bias", 8), "head.fc.bias cannot be read"),
        (lambda p: outside(p, "head.fc.bias", "../secret"), "points outside the directory"),
        (lambda p: outside(p, "head.fc.bias", "nowhere.bin"), "head.fc.bias"),
        (
            lambda p: add(p, "head.fc.scale", np.zeros(3, np.float32)),
            "has a tensor head.fc.scale, which its network has no place",
        ),
        (
            lambda p: add(p, "stranger", np.zeros(3, np.float32)),
            "has a tensor stranger, which its network has no place",
        ),
        (
            lambda p: edit(p, "config", depths=[1, 1]),
            "has a tensor stage2.block1.*, which its network has no place",
        ),
        (
            lambda p: edit(p, "config", links=False),
            "has a tensor stage1.link0.*, which its network has no place",
        ),
        (lambda p: edit(p, "config", order="a"), "lacks the tensor|has a tensor"),
        (
            lambda p: edit(p, "config", depths=[10**9, 1]),
            "no network: model: entry 1 of depths = 1000000000 must be from 1 to 256",
        ),
        (
            lambda p: edit(p, "config", depth=3),
            "metadata of no network: model: unknown key 'depth'",
        ),
        (
            lambda p: edit(p, "config", in_channels=2),
            "metadata of no network: input has 1 channels: this model takes 2",
        ),
        (lambda p: edit(p, "data", size=12.5), "metadata of no network"),
        (lambda p: edit(p, "data", size="12"), "metadata of no network"),
        (lambda p: edit(p, "data", pixels=12), "metadata of no network"),
        (
            lambda p: describe(p, config=""),
            "has no metadata 'config': it is none of the zoo's, or an old one; write it with `zoo",
        ),
        (lambda p: describe(p, precision=""), "has no metadata 'precision'"),
        (
            lambda p: describe(p, precision="int3"),
            "weight format 'int3' is not one of float32, int8, int8-layer",
        ),
        (lambda p: describe(p, config="[]"), "metadata of no network"),
        (lambda p: describe(p, config="{"), "metadata of no network"),
        (lambda p: describe(p, config="[" * 100_000), "metadata of no network"),
        (lambda p: describe(p, name="../x"), "name '../x' is not one of letters"),
    ],
)
def test_a_file_that_is_not_whole_is_refused_in_one_line(
    damage: Callable[[onnx.ModelProto], None], message: str, proto: onnx.ModelProto, tmp_path: Path
) -> None:
    damage(proto)
    path = tmp_path / "odd.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(InputError, match=message) as error:
        read_onnx(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_what_is_no_export(whole: onnx.ModelProto, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_onnx(tmp_path / "none.onnx")
    content = whole.SerializeToString()
    for odd in (b"", b"hello", content[: len(content) // 2]):
        (tmp_path / "odd.onnx").write_bytes(odd)
        with pytest.raises(InputError, match=r"is not an ONNX file|has no metadata|lacks") as error:
            read_onnx(tmp_path / "odd.onnx")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", [b"stage1.block0.conv1.weight", b"danet20b-t2.fmnist", b"float32"])
def test_text_that_is_no_text_is_refused(
    text: bytes, whole: onnx.ModelProto, tmp_path: Path
) -> None:
    (tmp_path / "odd.onnx").write_bytes(whole.SerializeToString().replace(text, b"\xff" + text[1:]))
    message = r"lacks the tensor stage1\.block0\.conv1\.weight|name .* is not one of|weight format"
    with pytest.raises(InputError, match=message):
        read_onnx(tmp_path / "odd.onnx")
