"""ONNX with 8-bit weights and integer spikes: the numbers stay the same, and the neurons spike for
spike.
"""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from support.networks import lively, same

from export.onnx.exporter import to_onnx, write_onnx
from export.onnx.importer import read_onnx
from export.onnx.qdq import grids, integer_weights, with_integers
from export.onnx.runtime import OnnxModel
from export.onnx.verify import verify_onnx
from export.prepare.quantize import quantize_weights, weight_scales

FAMILIES = [
    f"{name}.cifar10"
    for name in (
        "danet18-t3", "danet18b-t3", "danet18c-t3", "danet18d-t3", "danet50-t2", "sew-resnet18-t3",
        "sew-resnet18and-t3", "spiking-resnet18-t3", "ms-resnet18-t3",
    )
]  # fmt: skip
NARROW = {"widths": (8, 16, 16, 16)}


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        (FAMILIES[0], "int8"),
        pytest.param(FAMILIES[0], "int8-layer", marks=pytest.mark.slow),
        *(pytest.param(name, "int8", marks=pytest.mark.slow) for name in FAMILIES[1:]),
    ],
)
def test_every_family_is_verified(name: str, precision: str, tmp_path: Path) -> None:
    model = quantize_weights(lively(name, 16, **NARROW), precision)  # type: ignore[arg-type]  # a parameter of the test
    result = write_onnx(model, tmp_path / "model.onnx")
    assert result is not None and result.ok
    graph = onnx.load(tmp_path / "model.onnx").graph
    weights = [node.input[1] for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert set(weights) == integer_weights(graph).keys()
    read = read_onnx(tmp_path / "model.onnx")
    scales, scales_read = weight_scales(model), weight_scales(read)
    assert len(scales) == len(weights) and scales.keys() == scales_read.keys()
    assert all(torch.equal(scales_read[path], scale) for path, scale in scales.items())
    assert same(quantize_weights(read, precision), read) if precision == "int8-layer" else True


@pytest.mark.parametrize(
    ("name", "real"),
    [
        ("danet18-t3.cifar10", {"images"}),
        ("sew-resnet18-t3.cifar10", {"images"}),
        ("ms-resnet18-t3.cifar10", None),
    ],
)
def test_convolutions_that_read_spikes_read_integers(name: str, real: set[str] | None) -> None:
    graph = to_onnx(quantize_weights(lively(name, 16, **NARROW), "int8")).graph
    read = {node.input[0] for node in graph.node if node.op_type == "Conv"}
    others = {value for value in read if not value.endswith(".grid")}
    if real is None:  # the shortcuts of an MS-ResNet read its real-valued stream
        assert 1 < len(others) < len(read)
    else:
        assert others == real


@pytest.mark.slow
def test_integers_change_no_number(tmp_path: Path) -> None:
    model = quantize_weights(lively("danet18c-t3.cifar10", 16, **NARROW), "int8")
    plain = to_onnx(model)
    onnx.save(plain, tmp_path / "int8.onnx")
    for name, (weight, _) in integer_weights(plain.graph).items():
        plain.graph.initializer.append(numpy_helper.from_array(weight, name))
    nodes = [node for node in plain.graph.node if "Linear" not in node.op_type]
    for node in nodes:
        node.input[:] = [name.removesuffix(".grid") for name in node.input]
    del plain.graph.node[:]
    plain.graph.node.extend(nodes)
    onnx.save(plain, tmp_path / "float.onnx")
    x = torch.randn(2, 3, 16, 16).numpy()
    integers, floats = (OnnxModel(tmp_path / f"{kind}.onnx").run(x) for kind in ("int8", "float"))
    np.testing.assert_allclose(integers.logits, floats.logits, atol=1e-3)
    assert all(
        np.array_equal(integers.spikes[path], count) for path, count in floats.spikes.items()
    )
    assert (tmp_path / "int8.onnx").stat().st_size < 0.6 * (tmp_path / "float.onnx").stat().st_size


@pytest.mark.slow
def test_an_altered_integer_is_found(tmp_path: Path) -> None:
    model = quantize_weights(lively("danet18-t2.cifar10", 16, **NARROW), "int8")
    proto = to_onnx(model)
    tensor = next(t for t in proto.graph.initializer if t.name == "stage2.block1.conv2.weight.int8")
    whole = numpy_helper.to_array(tensor).copy()
    whole[0, 0, 0, 0] ^= 1
    tensor.CopyFrom(numpy_helper.from_array(whole, tensor.name))
    onnx.save(proto, tmp_path / "model.onnx")
    result = verify_onnx(model, tmp_path / "model.onnx")
    assert not result.ok and "other weights for stage2.block1.conv2" in str(result)


def graph_of(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    """From a current `x` to its spikes `s`, and by `nodes` to `y`."""
    greater = helper.make_node("Greater", ["x", "threshold"], ["fired"])
    cast = helper.make_node("Cast", ["fired"], ["s"], to=TensorProto.FLOAT)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy")
    return helper.make_graph([greater, cast, *nodes], "g", [x], [y])


def average_pool(**attributes: int) -> onnx.NodeProto:
    return helper.make_node("AveragePool", ["s"], ["y"], kernel_shape=[2, 2], **attributes)


@pytest.mark.parametrize(
    ("nodes", "grid"),
    [
        ([helper.make_node("Identity", ["s"], ["y"])], (1.0, 1)),
        ([helper.make_node("Add", ["s", "s"], ["y"])], (1.0, 2)),
        ([helper.make_node("Add", ["s", "x"], ["y"])], None),
        ([helper.make_node("Mul", ["s", "s"], ["y"])], (1.0, 1)),
        ([helper.make_node("MaxPool", ["s"], ["y"], kernel_shape=[3, 3])], (1.0, 1)),
        ([average_pool(count_include_pad=1)], (0.25, 4)),
        ([average_pool()], None),
        (
            [
                helper.make_node("Split", ["s"], ["a", "b"]),
                helper.make_node("Concat", ["a", "b"], ["y"], axis=0),
            ],
            (1.0, 1),
        ),
        ([helper.make_node("Cast", ["x"], ["y"], to=TensorProto.FLOAT)], None),
        ([helper.make_node("Concat", ["s", "x"], ["y"], axis=0)], None),
    ],
)
def test_grids(nodes: list[onnx.NodeProto], grid: tuple[float, int] | None) -> None:
    assert grids(graph_of(*nodes)).get("y") == grid


@pytest.mark.parametrize("weight", [[[0.3, 0.5]], [[64.0, 0.5]]])
def test_a_weight_that_is_no_multiple_of_its_scale(weight: list[list[float]]) -> None:
    graph = graph_of(helper.make_node("Gemm", ["s", "w.weight"], ["y"], transB=1))
    graph.initializer.append(numpy_helper.from_array(np.array(weight, np.float32), "w.weight"))
    with pytest.raises(ValueError, match=r"w\.weight is not of whole multiples of its scales"):
        with_integers(graph, {"w.weight": np.array([0.5], np.float32)})
