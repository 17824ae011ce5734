import json

import numpy as np
import onnx
import pytest
import torch
from networks import lively

from export.from_onnx import read_onnx
from export.nir import to_nir
from export.onnx import to_onnx
from zoo.errors import InputError

TINY = {"widths": (4, 6, 8)}
MODELS = [
    ("danet20-t2.fmnist", 20, TINY),
    ("danet20-t1.fmnist", 20, TINY),  # whose neurons never forget
    ("danet20b-t2.fmnist", 20, TINY),
    ("danet20c-t2.fmnist", 20, TINY),
    ("danet50d-t2.cifar10", 21, {"widths": (8, 8, 16, 16)}),
    ("sew-resnet18-t2.in1k", 32, {"widths": (4, 6, 8, 8), "num_classes": 5}),
    ("sew-resnet20iand-t2.fmnist", 20, TINY),
    ("ms-resnet20-t2.fmnist", 20, TINY),
    ("spiking-resnet20-t2.fmnist", 20, TINY),
    ("speck-danet8-t4.fmnist", 20, TINY),
]


@pytest.fixture
def exported(tmp_path):
    """A file to be altered: what is given is its proto, and a function that reads it."""
    proto = to_onnx(lively("danet20b-t2.fmnist", 20, **TINY))

    def read():
        onnx.save(proto, tmp_path / "odd.onnx")
        return read_onnx(tmp_path / "odd.onnx")

    return proto, read


@pytest.mark.parametrize(("name", "size", "config"), MODELS)
def test_the_graph_and_the_answers_are_the_models(tmp_path, name, size, config):
    model = lively(name, size, **config)
    onnx.save(to_onnx(model), tmp_path / "model.onnx")
    read = read_onnx(tmp_path / "model.onnx")
    ours, theirs = (to_nir(m, profile="native") for m in (model, read))
    assert ours.edges == theirs.edges and ours.nodes.keys() == theirs.nodes.keys()
    for node in ours.nodes:
        for field, value in vars(ours.nodes[node]).items():
            if isinstance(value, np.ndarray):
                assert np.array_equal(value, getattr(theirs.nodes[node], field)), (node, field)
    images = torch.randn(2, model.config.in_channels, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(read(images), model(images), rtol=1e-4, atol=1e-4)
    assert read.config == model.config and read.origin.data == model.origin.data and read.origin.name == model.origin.name


def test_a_kept_batchnorm_keeps_its_epsilon(exported):
    proto, read = exported
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = 0.5
    assert read().get_submodule("stage1.block0.bn1").eps == 0.5


def remove(proto, name):
    proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == name))


def add(proto, name, value):
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))


def replace(proto, name, value):
    remove(proto, name)
    add(proto, name, value)


def describe(proto, **values):
    meta = {entry.key: entry.value for entry in proto.metadata_props}
    onnx.helper.set_model_props(proto, {key: value for key, value in (meta | values).items() if value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: remove(p, "head.fc.weight"), "lacks the tensor head.fc.weight"),
        (lambda p: remove(p, "stage1.block0.bn1.running_var"), "lacks the tensor stage1.block0.bn1.running_var"),
        (lambda p: replace(p, "head.fc.bias", np.zeros(9, np.float32)), r"head.fc.bias is FLOAT \[9\], expected FLOAT \[10\]"),
        (lambda p: replace(p, "head.fc.bias", np.zeros(10)), "head.fc.bias is DOUBLE"),
        (lambda p: add(p, "head.fc.scale", np.zeros(3, np.float32)), "has a tensor head.fc.scale, which its network has no place"),
        (lambda p: describe(p, config=""), "has no metadata 'config': it is none of the zoo's, or an old one"),
        (lambda p: describe(p, config="[]"), "metadata of no network"),
        (lambda p: describe(p, config="{"), "metadata of no network"),
        (lambda p: describe(p, config=json.dumps({"depth": 10**9})), "metadata of no network"),
        (lambda p: describe(p, name="../x"), "name '../x' is not one of letters"),
    ],
)
def test_odd_files(exported, change, message):
    proto, read = exported
    change(proto)
    with pytest.raises(InputError, match=message) as error:
        read()
    assert "\n" not in str(error.value)


def test_what_is_no_export(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_onnx(tmp_path / "none.onnx")
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(InputError, match=r"is not an ONNX file|has no metadata"):
        read_onnx(tmp_path / "text.onnx")
    whole = to_onnx(lively("danet20-t2.fmnist", 20, **TINY)).SerializeToString()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"is not an ONNX file|has no metadata|lacks"):
        read_onnx(tmp_path / "half.onnx")
