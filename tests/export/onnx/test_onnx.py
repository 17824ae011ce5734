import copy
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from support.networks import lively

from export.energy.executors.onnx import OnnxExecutor
from export.onnx.exporter import _count, to_onnx, write_onnx
from export.onnx.importer import read_onnx
from export.onnx.runtime import OnnxModel
from export.onnx.verify import verify_onnx
from zoo.danet import DANet
from zoo.errors import ExportError, InputError, VerificationError
from zoo.neurons import Lif

SMALL = {"widths": (4, 6, 8)}


@pytest.fixture(scope="module")
def model() -> DANet:
    return lively("danet20-t2.fmnist", 12, **SMALL)


@pytest.fixture(scope="module")
def file(model: DANet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    write_onnx(model, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "danet20-t4",
        "danet20b-t2",
        "danet20c-t2",
        "danet20d-t1",
        "sew-resnet20iand-t2",
        "spiking-resnet20-t2",
        "ms-resnet20-t2",
    ],
)
def test_every_family_is_verified_spike_for_spike(name: str, tmp_path: Path) -> None:
    model = lively(f"{name}.fmnist", 13, **SMALL)
    result = write_onnx(model, tmp_path / "model.onnx")
    assert result is not None and result.ok
    assert result.neuron_layers == sum(isinstance(m, Lif) for m in model.modules())
    onnx.checker.check_model(tmp_path / "model.onnx", full_check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["danet18-t2", "sew-resnet18-t2", "ms-resnet104-t1", "danet50c-t2"]
)
def test_stems_and_bottlenecks_too(name: str, tmp_path: Path) -> None:
    widths = (8, 12) if "50" in name else (4, 6)
    result = write_onnx(lively(name, 33, depths=(1, 1), widths=widths), tmp_path / "model.onnx")
    assert result is not None and result.ok


def test_spikes_that_a_float32_cannot_count_are_refused() -> None:
    """2^24 of a layer and image, at most."""
    shape = ["steps*batch", 16, 512, 512]
    for steps, message in (
        (3, ""),
        (4, r"lif: 4194304 neurons in 4 steps .* take the outputs 'trains' or 'none'"),
    ):
        graph = onnx.helper.make_graph(
            [], "g", [], [], value_info=[onnx.helper.make_tensor_value_info("lif", 1, shape)]
        )
        with pytest.raises(ExportError, match=message) if message else nullcontext():
            _count(graph, ["lif"], steps, None)
        assert len(graph.output) == (0 if message else 1)


def test_any_batch_size_and_the_counts_are_the_spikes(model: DANet, file: Path) -> None:
    x = torch.randn(5, 1, 12, 12)
    out = OnnxModel(file).run(x.numpy())
    with torch.inference_mode():
        expected = model(x)
    torch.testing.assert_close(torch.from_numpy(out.logits), expected, atol=1e-4, rtol=0)
    totals: dict[str, torch.Tensor] = {}
    hooked = copy.deepcopy(model)
    for path, module in hooked.named_modules():
        if isinstance(module, Lif):
            module.register_forward_hook(
                lambda m, a, out, path=path: (
                    totals.update({path: out.unflatten(0, (2, -1)).sum((0, 2, 3, 4))}) or None
                )
            )
    with torch.inference_mode():
        hooked(x)
    assert set(out.spikes) == set(totals)
    first = "stage1.block0.lif1"  # nothing before it can have rounded a spike away
    np.testing.assert_array_equal(out.spikes[first], totals[first].numpy())


def test_names_metadata_and_nothing_of_this_machine(model: DANet, file: Path) -> None:
    proto = onnx.load(file)
    values = {name for node in proto.graph.node for name in node.output}
    assert {
        "stem.conv",
        "stage1.block0.lif1",
        "stage2.block0.add",
        "stage2.add",
        "head.lif",
        "logits",
    } <= values
    assert [i.name for i in proto.graph.input] == ["images"]
    exported = OnnxModel(file)
    assert (exported.about.name, exported.about.steps, exported.about.data) == (
        "danet20-t2.fmnist",
        2,
        model.origin.data,
    )
    content = file.read_bytes()
    for trace in (str(Path.cwd()), str(Path(sys.prefix)), "site-packages", "stack_trace", ".py"):
        assert trace.encode() not in content, trace


def test_the_exporting_process_is_left_as_it_was(
    model: DANet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.get_rng_state()
    write_onnx(model, tmp_path / "a.onnx", verify=False)
    assert torch.equal(before, torch.get_rng_state())
    assert not any(m.training for m in model.modules())
    out, err = capfd.readouterr()
    assert not out and "torchvision" not in err


def _weight(proto: onnx.ModelProto) -> None:
    tensor = next(i for i in proto.graph.initializer if i.name.endswith("block1.conv2.weight"))
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] += 1e-3
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _threshold(proto: onnx.ModelProto) -> None:
    for tensor in proto.graph.initializer:
        if tensor.name.endswith("threshold"):
            tensor.CopyFrom(numpy_helper.from_array(np.float32(1.001), tensor.name))


def _skip(proto: onnx.ModelProto) -> None:
    """Drop one residual connection, as some exporters do."""
    node = next(n for n in proto.graph.node if "stage1.block1.add" in n.output)
    node.op_type = "Identity"
    del node.input[1:]


def _silent(proto: onnx.ModelProto) -> None:
    node = next(n for n in proto.graph.node if "stage2.block0.lif2" in n.output)
    node.output[0] = "elsewhere"
    for other in proto.graph.node:
        other.input[:] = ["elsewhere" if i == "stage2.block0.lif2" else i for i in other.input]


@pytest.mark.parametrize(
    ("damage", "where"),
    [
        (_weight, "has other weights for stage1.block1.conv2"),
        (_threshold, "spikes differ"),
        (_skip, "stage1.block1.add"),
        (_silent, "stage2.block0.lif2"),
    ],
)
def test_an_export_that_is_not_the_model_is_found_out(
    damage: Callable[[onnx.ModelProto], None], where: str, model: DANet, file: Path, tmp_path: Path
) -> None:
    proto = onnx.load(file)
    damage(proto)
    onnx.save(proto, tmp_path / "damaged.onnx")
    result = verify_onnx(model, tmp_path / "damaged.onnx", torch.randn(64, 1, 12, 12))
    assert not result.ok
    assert where in str(result)


def test_a_failed_verification_leaves_no_file(
    model: DANet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(model: DANet, **options: Any) -> onnx.ModelProto:
        proto = to_onnx(model)
        _skip(proto)
        return proto

    monkeypatch.setattr("export.onnx.exporter.to_onnx", damaged)
    (tmp_path / "model.onnx").write_text("what was there before")
    with pytest.raises(VerificationError, match=r"not the model: stage1\.block1\.add"):
        write_onnx(model, tmp_path / "model.onnx")
    assert [p.read_text() for p in tmp_path.iterdir()] == ["what was there before"]


def test_a_neuron_without_an_export_is_refused(tmp_path: Path) -> None:
    model = lively("danet20-t2.fmnist", 12, **SMALL)
    model.stage1.block0.lif1.neuron.reset_delay = False
    with pytest.raises(
        ExportError, match=r"stage1\.block0\.lif1\.neuron: snn\.Leaky with reset_delay=False"
    ):
        write_onnx(model, tmp_path / "model.onnx")


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", None])
def test_what_is_no_export_is_refused_in_one_line(
    content: bytes | None, tmp_path: Path, model: DANet
) -> None:
    path = tmp_path / "x.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as info:
        OnnxModel(path)
    assert "\n" not in str(info.value) and str(path) in str(info.value)
    with pytest.raises(InputError) as failed:
        verify_onnx(model, path)
    assert "\n" not in str(failed.value)


def test_foreign_onnx_is_named_as_such(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [value],
        [onnx.ValueInfoProto(name="y")],
    )
    onnx.save(
        onnx.helper.make_model(
            graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10
        ),
        tmp_path / "f.onnx",
    )
    with pytest.raises(InputError, match="none of the zoo's"):
        OnnxModel(tmp_path / "f.onnx")
    message = r"exports: those go from images to logits, this from \['x'\] to \['y'\]"
    with pytest.raises(ExportError, match=f"none of the zoo's {message}"):
        verify_onnx(lively("danet20-t2.fmnist", 12, **SMALL), tmp_path / "f.onnx")


@pytest.mark.parametrize(
    ("name", "size", "fields", "said"),
    [
        ("danet20-t2.cifar10", 12, {}, "cannot be run as this model"),  # three channels
        ("danet20-t2.fmnist", 16, {}, "cannot be run as this model"),
        ("danet20-t2.fmnist", 12, {"widths": (4, 6, 10)}, "shape"),
        ("danet20-t3.fmnist", 12, {}, "shape"),
        (
            "danet20-t2.fmnist",
            12,
            {"depths": (2, 2, 2)},
            r"NOT verified: it has no value for stage3\.block1",
        ),
        ("danet20d-t2.fmnist", 12, {}, "NOT verified"),
    ],
)
def test_the_export_of_another_network_is_no_export_of_this(
    name: str, size: int, fields: dict[str, tuple[int, ...]], said: str, file: Path
) -> None:
    other = lively(name, size, **SMALL | fields)
    try:
        result = str(verify_onnx(other, file))
    except VerificationError as error:
        result = str(error)
    assert re.search(said, result) and "\n" not in result, result


@pytest.mark.parametrize("shape", [(1, 12, 12), (1, 3, 12, 12), (1, 1, 12, 13)])
def test_wrong_input_shapes_are_named(shape: tuple[int, ...], file: Path) -> None:
    with pytest.raises(InputError, match=r"takes \[B, 1, 12, 12\]"):
        OnnxModel(file).run(np.zeros(shape, np.float32))


def test_nan_is_refused(file: Path) -> None:
    with pytest.raises(InputError, match="NaN"):
        OnnxModel(file).run(np.full((1, 1, 12, 12), np.nan, np.float32))


def test_numbers_of_any_type_are_rounded_to_float32(file: Path) -> None:
    model, x = OnnxModel(str(file)), torch.randn(2, 1, 12, 12).half().numpy()
    expected = model.run(x.astype(np.float32)).logits
    for dtype in (np.float16, np.float64, np.longdouble, np.dtype(">f4")):
        assert np.array_equal(model.run(x.astype(dtype)).logits, expected)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            torch.zeros(1, 1, 12, 12),
            "input is a Tensor: danet20-t2.fmnist takes a numpy array of float32",
        ),
        ([[0.0]], "input is a list"),
        (None, "input is a NoneType"),
        (np.float32(1), "input is a float32"),
        (np.zeros((1, 1, 12, 12), np.complex64), "input is an array of complex64"),
        (np.zeros((1, 1, 12, 12), object), "input is an array of object"),
        (np.zeros((1, 1, 12, 12), np.uint8), "images of uint8 are bytes of pixels"),
        (np.zeros((1, 1, 12, 12), np.int64), "images of int64 are bytes of pixels"),
        (np.full((1, 1, 12, 12), -1e300), "infinite in float32"),
        (np.full((1, 1, 12, 12), -np.inf), "infinite in float32"),
        (np.zeros((), np.float32), r"takes \[B, 1, 12, 12\]"),
    ],
)
def test_what_are_no_images_is_one_line(given: Any, said: str, file: Path) -> None:
    with pytest.raises(InputError, match=said) as error:
        OnnxModel(file).run(given)
    assert "\n" not in str(error.value)


def test_running_an_export_needs_no_torch(file: Path) -> None:
    code = (
        "import sys, pathlib, export.onnx.runtime as runtime; "
        "runtime.OnnxModel(pathlib.Path(sys.argv[1])); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.slow
def test_weights_beyond_the_limit_of_a_file_lie_beside_it(
    model: DANet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.onnx.file.MAX_FILE_BYTES", 1000)
    path = tmp_path / "large.onnx"
    for _ in range(2):  # the second replaces the first
        result = write_onnx(model, path)
        assert result is not None and result.ok
        assert {file.name for file in tmp_path.iterdir()} == {"large.onnx", "large.onnx.data"}
    monkeypatch.undo()
    write_onnx(model, tmp_path / "small.onnx")
    x = torch.randn(2, 1, 12, 12).numpy()
    large, small = (OnnxModel(tmp_path / f"{size}.onnx").run(x) for size in ("large", "small"))
    assert np.array_equal(large.logits, small.logits)
    assert path.stat().st_size < (tmp_path / "small.onnx").stat().st_size
    assert verify_onnx(model, path).ok


@pytest.mark.parametrize("version", [7, 99])
def test_another_opset_is_named(version: int, model: DANet, file: Path, tmp_path: Path) -> None:
    proto = onnx.load(file)
    proto.opset_import[0].version = version
    onnx.save(proto, tmp_path / "other.onnx")
    message = (
        f"other.onnx is of ONNX opset {version}, files of the zoo are of 20: "
        "write it again with `zoo export`"
    )
    for read in (OnnxModel, read_onnx, OnnxExecutor, lambda path: verify_onnx(model, path)):
        with pytest.raises(InputError, match=message):
            read(tmp_path / "other.onnx")


@pytest.mark.slow
def test_an_earlier_file_and_its_weights_outlive_a_failure(
    model: DANet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.onnx.file.MAX_FILE_BYTES", 1000)
    path = tmp_path / "large.onnx"
    write_onnx(model, path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr(
        "export.onnx.exporter.verify_onnx",
        lambda model, path: verify_onnx(lively("danet20d-t2.fmnist", 12, **SMALL), path),
    )
    with pytest.raises(VerificationError, match="not the model"):
        write_onnx(model, path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    monkeypatch.undo()
    write_onnx(model, path)
    # one that fits takes the old weights with it
    assert [file.name for file in tmp_path.iterdir()] == ["large.onnx"]


@pytest.mark.parametrize("form", ["sequence", "step"])
@pytest.mark.parametrize("outputs", ["counts", "trains", "none"])
def test_the_graph_is_sound_and_says_nothing_of_this_machine(
    model: DANet, form: Any, outputs: Any
) -> None:
    proto = to_onnx(model, form=form, outputs=outputs)
    onnx.checker.check_model(proto, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True)
    assert len(inferred.graph.value_info) > len(proto.graph.node) / 2
    text = str(proto)
    for trace in (str(Path.home()), str(Path(__file__).parent), ".py", "site-packages", "File "):
        assert trace not in text
    assert {(entry.domain, entry.version) for entry in proto.opset_import} == {("", 20)}
