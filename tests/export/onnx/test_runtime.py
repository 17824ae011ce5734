"""onnxruntime and OpenVINO: the same file, the same names, the same verification; and what they
cannot do, in one line.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from support.networks import lively
from support.signals import interruptible

from export.energy import estimate, executor
from export.energy.executors.onnx import OnnxExecutor
from export.onnx import engines
from export.onnx.exporter import write_onnx
from export.onnx.file import read_file, read_metadata
from export.onnx.runtime import OnnxModel, Runtime
from export.onnx.streaming import StreamingSession
from export.onnx.verify import verify_onnx
from export.prepare.quantize import quantize_weights
from zoo.cli import main
from zoo.danet import DANet
from zoo.errors import InputError

NARROW = {"widths": (8, 16, 16, 16)}
OPENVINO = Runtime("openvino", threads=1)


@pytest.fixture(scope="module")
def model() -> DANet:
    return lively("danet18-t3.cifar10", 16, **NARROW)


@pytest.fixture(scope="module")
def files(model: DANet, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runtime")
    for precision in ("float32", "int8"):
        write_onnx(quantize_weights(model, precision), folder / f"{precision}.onnx")  # type: ignore[arg-type]
    return {precision: folder / f"{precision}.onnx" for precision in ("float32", "int8")}


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_openvino_is_verified_as_onnxruntime_is(
    model: DANet, files: dict[str, Path], precision: str
) -> None:
    result = verify_onnx(quantize_weights(model, precision), files[precision], runtime=OPENVINO)  # type: ignore[arg-type]
    assert result.ok, str(result)


@pytest.mark.parametrize(
    "name", ["danet18b-t2", "danet18c-t2", "ms-resnet18-t2", "sew-resnet18and-t2"]
)
@pytest.mark.slow
def test_openvino_on_other_families(name: str, tmp_path: Path) -> None:
    integers = quantize_weights(lively(f"{name}.cifar10", 16, **NARROW), "int8")
    write_onnx(integers, tmp_path / "model.onnx")
    result = verify_onnx(integers, tmp_path / "model.onnx", runtime=OPENVINO)
    assert result.ok, str(result)


def test_the_same_names_and_any_batch(files: dict[str, Path]) -> None:
    here, there = (
        OnnxModel(files["float32"], runtime) for runtime in (Runtime(threads=1), OPENVINO)
    )
    for batch in (1, 3, 2):
        x = torch.randn(batch, 3, 16, 16).numpy()
        a, b = here.run(x), there.run(x)
        assert a.spikes.keys() == b.spikes.keys() and a.logits.shape == b.logits.shape == (
            batch,
            10,
        )
        assert all(a.spikes[path].shape == (batch,) for path in a.spikes)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("outputs", ["counts", "trains"])
@pytest.mark.slow
def test_workers_divide_a_batch(name: Any, outputs: Any, model: DANet, tmp_path: Path) -> None:
    write_onnx(model, tmp_path / "model.onnx", outputs=outputs)
    one, several = (
        OnnxModel(tmp_path / "model.onnx", Runtime(name, threads=2, workers=workers))
        for workers in (1, 3)
    )
    for batch in (1, 7):
        x = torch.randn(batch, 3, 16, 16).numpy()
        alone, divided = one.run(x), several.run(x)
        np.testing.assert_allclose(divided.logits, alone.logits, atol=1e-4)
        assert divided.spikes.keys() == alone.spikes.keys()
        assert all(
            np.array_equal(divided.spikes[path], found) for path, found in alone.spikes.items()
        )


def test_what_is_returned_stays_as_it_is(files: dict[str, Path]) -> None:
    run = OnnxModel(files["float32"], OPENVINO).run
    x = torch.randn(1, 3, 16, 16).numpy()
    before = run(x)
    kept = before.logits.copy()
    run(-x)
    assert np.array_equal(before.logits, kept)


def test_energy_counts_the_same_in_both(files: dict[str, Path]) -> None:
    x = torch.randn(4, 3, 16, 16)
    reports = [
        estimate(executor(files["int8"], runtime=runtime), x, profile="45nm-int8")
        for runtime in (None, OPENVINO)
    ]
    first = [[layer.counts for layer in report.layers[:4]] for report in reports]
    assert first[0] == first[1]  # before a sum in another order has flipped a spike
    assert [report.source.engine.split()[0] for report in reports] == ["onnxruntime", "openvino"]


def test_bfloat16_or_one_line(files: dict[str, Path]) -> None:
    """Where the processor has it, it computes; elsewhere it says so."""
    runtime = Runtime("openvino", "bfloat16", threads=1)
    try:
        logits = OnnxModel(files["int8"], runtime).run(torch.randn(2, 3, 16, 16).numpy()).logits
    except InputError as error:
        assert re.fullmatch(
            r"(this processor does not compute in bfloat16|"
            r"openvino cannot compile this graph in bfloat16 .*): leave the precision at float32",
            str(error),
        )
    else:
        assert np.isfinite(logits).all() and "bfloat16" in str(runtime)


def test_what_cannot_be_asked() -> None:
    for name, precision, said in (
        ("tensorrt", "float32", "runtime 'tensorrt' is not known; valid are onnxruntime, openvino"),
        ("openvino", "int4", "precision 'int4' is not known; valid are float32, bfloat16"),
        ("onnxruntime", "bfloat16", "bfloat16 is for the runtime openvino"),
    ):
        with pytest.raises(InputError, match=said):
            Runtime(name, precision)  # type: ignore[arg-type]  # a parameter of the test
    for wrong in ({"threads": -1}, {"workers": 0}, {"streams": 0}):
        with pytest.raises(
            InputError, match=r"threads are 0 \(one a core\) or more, workers 1 or more"
        ):
            Runtime(**wrong)  # type: ignore[arg-type]


def test_streams_is_the_former_name_of_workers() -> None:
    assert Runtime(threads=2, streams=3) == Runtime(threads=2, workers=3)


def test_a_runtime_that_is_not_installed(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(engines, "_core", engines._core.__wrapped__)
    with pytest.raises(
        InputError,
        match=r"the runtime openvino is not installed: pip install 'danet-zoo\[openvino\]'",
    ):
        OnnxModel(files["float32"], OPENVINO)


def test_an_interrupt_after_several_openvino_models_is_one(files: dict[str, Path]) -> None:
    code = (
        "import faulthandler, signal, sys\n"
        "import numpy as np\n"
        "from export.onnx.runtime import OnnxModel, Runtime\n"
        "faulthandler.enable()\n"  # as pytest and notebooks do: it has a stack for signals too
        "models = [OnnxModel(sys.argv[1], Runtime('openvino', threads=1)) for _ in range(2)]\n"
        "for model in models:\n"
        "    model.run(np.zeros((1, 3, 16, 16), np.float32))\n"
        "del model, models[0], models[0]\n"  # in the order in which they came
        "try:\n"
        "    signal.raise_signal(signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(files["float32"])],
        capture_output=True,
        text=True,
        preexec_fn=interruptible,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "interrupted\n", "")


@pytest.mark.slow
def test_a_graph_that_openvino_cannot_compile(
    model: DANet, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is compiled, and so refused, when its shapes are known: in `run` and in `start`."""

    def refuse(*_: object) -> None:
        raise RuntimeError(
            "Exception from src/core.cpp:117:\n"
            "Check 'any' failed at src/node.cpp:345:\n"
            "no form of Pooling\n\n"
        )

    write_onnx(model, tmp_path / "step.onnx", form="step")
    monkeypatch.setattr("openvino.Core.compile_model", refuse)
    message = (
        r"^openvino cannot compile this graph in float32 for this processor "
        r"\(no form of Pooling\): take the runtime onnxruntime$"
    )
    x = torch.randn(3, 3, 16, 16)
    for call in (
        lambda: OnnxModel(files["float32"], OPENVINO).run(x.numpy()),
        lambda: StreamingSession(tmp_path / "step.onnx", runtime=OPENVINO),
        lambda: verify_onnx(model, files["float32"], x, runtime=OPENVINO),
        lambda: estimate(executor(files["float32"], runtime=OPENVINO), x),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_a_graph_that_no_runtime_reads(tmp_path: Path, files: dict[str, Path]) -> None:
    proto = onnx.load(files["float32"])
    proto.graph.node[0].op_type = "Transmogrify"
    onnx.save(proto, tmp_path / "bad.onnx")
    for read in (OnnxModel, OnnxExecutor):
        for runtime in (OPENVINO, Runtime(threads=1)):
            with pytest.raises(
                InputError, match=f"is not an ONNX file that {runtime.name} reads: "
            ) as error:
                read(tmp_path / "bad.onnx", runtime)
            assert "\n" not in str(error.value)


def test_what_is_no_export(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a protobuf")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("text.onnx", "empty.onnx"):
        with pytest.raises(InputError, match="is not an ONNX file"):
            read_file(tmp_path / name)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    other = helper.make_model(
        helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [value])
    )
    onnx.save(other, tmp_path / "other.onnx")
    assert read_metadata(read_file(tmp_path / "other.onnx"), "other.onnx").to_strings() == {}
    with pytest.raises(InputError, match="has no metadata 'name': it is none of the zoo's"):
        OnnxModel(tmp_path / "other.onnx")


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "danet20-t4", "--weights", "int8", "--out", str(tmp_path)]) == 0
    path = str(tmp_path / "danet20-t4.fmnist.int8.onnx")
    capsys.readouterr()
    options = ["--runtime", "openvino", "--threads", "1", "--workers", "1"]
    assert main(["verify", "danet20-t4", "--export", path, *options]) == 0
    assert "verified at batch 1 and 2: 19 neuron layers spike for spike" in capsys.readouterr().out
    assert main(["classify", path, *options]) == 0
    assert "danet20-t4.fmnist (openvino 20" in capsys.readouterr().out
    assert main(["energy", path, *options, "--first", "2"]) == 0
    assert "Run by openvino" in capsys.readouterr().out
    assert main(["classify", "danet20-t4", *options]) == 2
    assert "--runtime is for .onnx files" in capsys.readouterr().err
    assert main(["classify", path, "--precision", "bfloat16"]) == 2
    assert "bfloat16 is for the runtime openvino" in capsys.readouterr().err
