"""Whatever takes a path takes it as text too."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.networks import exact, same

import zoo
from export.energy import estimate, executor, read_devices
from export.energy.devices import DEVICES
from export.energy.executors.onnx import OnnxExecutor
from export.nir.reader import read_nir
from export.nir.verify import verify_nir
from export.nir.writer import trains_path, write_graph, write_nir
from export.onnx.exporter import write_onnx
from export.onnx.file import read_file
from export.onnx.from_nir import verify_nir_onnx, write_nir_onnx
from export.onnx.importer import read_onnx
from export.onnx.runtime import OnnxModel, Runtime
from export.onnx.streaming import StreamingSession
from export.onnx.verify import verify_onnx
from export.targets.limits import TARGETS, read_targets
from zoo.danet import DANet
from zoo.errors import InputError, ZooError


@pytest.fixture(scope="module")
def model() -> DANet:
    return exact("danet20-t2.fmnist", 12, depths=(1, 1), widths=(4, 6))


@pytest.mark.slow
def test_text_is_a_path(model: DANet, tmp_path: Path) -> None:
    file, step, nir, other = (
        f"{tmp_path}/a b.{end}" for end in ("onnx", "step.onnx", "nir", "nir.onnx")
    )
    x = torch.randint(-8, 9, (2, 1, 12, 12)) / 4
    write_onnx(model, file)
    write_onnx(model, step, form="step")
    write_nir(model, nir)
    graph = read_nir(nir)
    write_nir_onnx(graph, other, name="b")
    write_graph(graph, f"{tmp_path}/c.nir")
    assert trains_path(nir) == tmp_path / "a b.trains.nir" and trains_path(nir).is_file()
    assert same(read_onnx(file), read_onnx(Path(file)))
    assert len(read_file(file).graph.node) == len(onnx.load(file).graph.node)
    assert np.array_equal(
        OnnxModel(file).run(x.numpy()).logits, OnnxModel(Path(file)).run(x.numpy()).logits
    )
    assert StreamingSession(step).streams == 1
    for name in ("onnxruntime", "openvino"):
        assert Runtime(name, threads=1).load(file).outputs  # type: ignore[arg-type]
    assert (
        verify_onnx(model, file).ok
        and verify_nir(model, nir).ok
        and verify_nir_onnx(graph, other).ok
    )
    assert zoo.from_nir(nir)(x).shape == (2, 10)
    for path in (file, nir, f"{tmp_path}/c.nir"):
        reports = [estimate(what, x).to_json() for what in (path, Path(path), executor(path))]
        first, *others = (
            json.dumps(report | {"created": ""}, sort_keys=True, default=str) for report in reports
        )
        assert others == [first, first]
    assert read_devices(str(DEVICES)) == read_devices() and read_targets(
        str(TARGETS)
    ) == read_targets(TARGETS)


@pytest.mark.parametrize(
    "read",
    [
        OnnxModel,
        StreamingSession,
        OnnxExecutor,
        read_onnx,
        read_file,
        read_nir,
        zoo.from_nir,
        executor,
    ],
)
@pytest.mark.parametrize("name", ["absent.onnx", "absent.nir", "danet20-t4", ""])
def test_text_that_is_no_file_is_one_line(
    read: Callable[[str], object], name: str, tmp_path: Path
) -> None:
    with pytest.raises(ZooError) as error:
        read(str(tmp_path / name))
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_state_of_lists_is_one_line(model: DANet, tmp_path: Path) -> None:
    write_onnx(model, tmp_path / "step.onnx", form="step", verify=False)
    session = StreamingSession(str(tmp_path / "step.onnx"))
    state = {name: value.tolist() for name, value in session.membranes.items()}
    with pytest.raises(InputError, match=r"membrane is float64 \[1, .*\], expected float32"):
        session.restore(state)  # type: ignore[arg-type]
