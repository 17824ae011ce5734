"""What importers that compile ask of a file: constant shapes, sizes and axes; a batch that is free,
or fixed.

The network's sums are of dyadic fractions, so that no runtime rounds one, in whatever order it
takes it.
"""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from support.networks import exact
from torch import nn

from export.energy import estimate, executor
from export.onnx import engines
from export.onnx.exporter import Form, to_onnx, write_onnx
from export.onnx.runtime import OnnxModel, Runtime
from export.onnx.streaming import StreamingSession
from export.onnx.verify import verify_onnx
from export.prepare.quantize import quantize_weights
from zoo.cli import main
from zoo.danet import DANet
from zoo.errors import ExportError, InputError

STEPS, BATCH, SIZE = 2, 3, 12
FIXED = pytest.mark.parametrize("batch", [None, BATCH], ids=["free", "fixed"])
PRECISIONS = pytest.mark.parametrize("precision", ["float32", "int8"])


@pytest.fixture(scope="module")
def models() -> dict[str, DANet]:
    model = exact(f"danet20-t{STEPS}.fmnist", SIZE, depths=(1, 1), widths=(4, 6))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = torch.randint(-127, 128, module.weight.shape) / 256
            # so that rounding to 8 bits has the scale 1/256
            module.weight.data[:, 0, 0, 0] = 127 / 256
    return {"float32": quantize_weights(model, "float32"), "int8": quantize_weights(model, "int8")}


def images(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-8, 9, (count, 1, SIZE, SIZE)).astype(np.float32) / 4


@pytest.fixture(scope="module")
def files(models: dict[str, DANet], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of either form, of any batch and of three images, with the spikes as they are."""
    folder = tmp_path_factory.mktemp("shapes")
    for form in get_args(Form):
        for batch in (None, BATCH):
            result = write_onnx(
                models["float32"],
                folder / f"{form}.{batch}.onnx",
                form=form,
                batch=batch,
                outputs="trains",
            )
            assert (
                result is not None
                and result.ok
                and result.batches == ((batch,) if batch else (1, 2))
            )
    return {path.name.removesuffix(".onnx"): path for path in folder.iterdir()}


@pytest.mark.parametrize("form", get_args(Form))
@PRECISIONS
@FIXED
def test_all_but_a_free_batch_is_constant(
    form: Any, precision: str, batch: int | None, models: dict[str, DANet]
) -> None:
    proto = to_onnx(models[precision], form=form, batch=batch)
    onnx.checker.check_model(proto, full_check=True)
    stored = {tensor.name for tensor in proto.graph.initializer}
    splits = [node for node in proto.graph.node if node.op_type == "Split"]
    assert bool(splits) == (form == "sequence") and all(node.input[1] in stored for node in splits)
    assert not {"Shape", "Size", "ConstantOfShape", "Constant"} & {
        node.op_type for node in proto.graph.node
    }
    graph = onnx.shape_inference.infer_shapes(proto, strict_mode=True, data_prop=True).graph
    known = {
        value.name: value.type.tensor_type.shape.dim
        for value in [*graph.value_info, *graph.input, *graph.output]
    }
    for name in (name for node in graph.node for name in node.output):
        unknown = [axis for axis, dim in enumerate(known[name]) if not dim.HasField("dim_value")]
        assert unknown in ([[]] if batch else [[0], [1], []]), name


@pytest.mark.parametrize("form", get_args(Form))
@PRECISIONS
@FIXED
def test_the_evaluator_of_onnx_gives_the_same_spikes(
    form: Any, precision: str, batch: int | None, models: dict[str, DANet]
) -> None:
    proto = to_onnx(models[precision], form=form, batch=batch, outputs="trains")
    engine = Runtime(threads=1).load(proto.SerializeToString())
    values = {
        name: np.resize(images(4), (BATCH, *shape[1:])) for name, shape in engine.inputs.items()
    }
    expected = dict(zip(engine.outputs, engine.run(None, values), strict=True))
    found = dict(zip(engine.outputs, ReferenceEvaluator(proto).run(None, values), strict=True))
    np.testing.assert_allclose(found.pop("logits"), expected.pop("logits"), atol=1e-5)
    assert all(np.array_equal(found[name], value) for name, value in expected.items())
    assert sum(value.sum() for name, value in expected.items() if "membrane" not in name) > 1000


@PRECISIONS
@FIXED
@pytest.mark.slow
def test_openvino_splits_time_off_the_batch_with_the_same_numbers(
    precision: str, batch: int | None, models: dict[str, DANet], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = to_onnx(models[precision], batch=batch, outputs="trains").SerializeToString()
    folded = Runtime("openvino", threads=1).load(graph)
    monkeypatch.setattr(engines, "_fold_time", lambda model: None)
    plain = Runtime("openvino", threads=1).load(graph)
    first, *others = (
        engine.run(None, {"images": images(BATCH)})
        for engine in (folded, plain, Runtime(threads=1).load(graph))
    )
    for other in others:
        assert all(
            np.array_equal(a, b)
            for a, b, name in zip(first, other, folded.outputs, strict=True)
            if name != "logits"
        )
    splits = [[op.get_type_name() for op in engine._model.get_ops()] for engine in (folded, plain)]  # type: ignore[attr-defined]
    assert [kinds.count("VariadicSplit") for kinds in splits] == ([5, 5] if batch else [0, 5])


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("count", [1, BATCH, 7])
def test_a_file_of_a_fixed_batch_takes_any_number_of_images(
    name: Any, workers: int, count: int, files: dict[str, Path]
) -> None:
    runtime, x = Runtime(name, threads=1, workers=workers), images(count)
    free, fixed = (OnnxModel(files[f"sequence.{batch}"], runtime).run(x) for batch in (None, BATCH))
    np.testing.assert_allclose(fixed.logits, free.logits, atol=1e-5)
    assert fixed.spikes.keys() == free.spikes.keys()
    assert all(np.array_equal(fixed.spikes[path], train) for path, train in free.spikes.items())
    assert fixed.spikes["head.lif"].shape[0] == STEPS * count


def test_energy_of_a_fixed_batch_is_that_of_a_free_one(files: dict[str, Path]) -> None:
    x = torch.from_numpy(images(7))
    reports = [estimate(executor(files[f"sequence.{batch}"]), x) for batch in (None, BATCH)]
    first, second = ([layer.counts for layer in report.layers] for report in reports)
    assert first == second


def test_a_session_of_a_fixed_batch(files: dict[str, Path]) -> None:
    free, fixed = (
        StreamingSession(files[f"step.{batch}"], streams=BATCH) for batch in (None, BATCH)
    )
    for _ in range(STEPS):
        a, b = (session.step(images(BATCH)) for session in (free, fixed))
        assert all(np.array_equal(a.spikes[path], train) for path, train in b.spikes.items())
    message = (
        "takes a batch of 3, not 1 streams: give streams=3, "
        "or write a file of any batch with `zoo export NAME --form step`"
    )
    for runtime in (Runtime(threads=1), Runtime("openvino", threads=1)):
        with pytest.raises(InputError, match=message):
            StreamingSession(files[f"step.{BATCH}"], runtime=runtime)


def test_a_fixed_batch_is_verified_at_its_own(
    models: dict[str, DANet], files: dict[str, Path]
) -> None:
    model = models["float32"]
    for form in get_args(Form):
        result = verify_onnx(model, files[f"{form}.{BATCH}"], torch.from_numpy(images(BATCH)))
        assert (
            result.ok
            and str(result).startswith("verified at batch 3: 5 neuron layers")
            and result.images == BATCH
        )
        with pytest.raises(
            InputError, match=r"2 images: .* is verified at batch 3, give 3 or more"
        ):
            verify_onnx(model, files[f"{form}.{BATCH}"], torch.from_numpy(images(2)))
        with pytest.raises(
            InputError, match=r"2 images: .* is verified at batch 1 and 2, give 3 or more"
        ):
            verify_onnx(model, files[f"{form}.None"], torch.from_numpy(images(2)))
    with pytest.raises(ExportError, match="batch 0: it is 1 or more, or None"):
        to_onnx(model, batch=0)


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "danet20-t4", "--batch", "3", "--out", str(tmp_path)]) == 0
    path = tmp_path / "danet20-t4.fmnist.batch3.onnx"
    assert "verified at batch 3: 19 neuron layers spike for spike" in capsys.readouterr().out
    for command in (
        f"verify danet20-t4 --export {path}",
        f"classify {path}",
        f"energy {path} --first 2",
    ):
        assert main(command.split()) == 0, command
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 3


def test_a_session_rounds_numbers_of_any_type(files: dict[str, Path]) -> None:
    x = images(1)
    first, second = (StreamingSession(files["step.None"]) for _ in range(2))
    assert np.array_equal(first.step(x).logits, second.step(x.astype(np.float64)).logits)
    for given, said in (
        (torch.from_numpy(x), "input is a Tensor"),
        (x.astype(object), "input is an array of object"),
        (x[0], r"takes \[1, 1, 12, 12\]"),
        (images(2), r"takes \[1, 1, 12, 12\]"),
    ):
        with pytest.raises(InputError, match=said):
            first.step(given)  # type: ignore[arg-type]
