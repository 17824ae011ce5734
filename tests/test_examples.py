"""Every script of examples/ runs as it is, and writes what it says."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from export.onnx.exporter import write_onnx
from zoo.samples import samples

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))
pytestmark = pytest.mark.slow


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_an_example_runs(script: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = re.search(r"\bwrites? (.*?) there\b|trains into FOLDER/(run)", script.read_text())
    assert said is not None
    for name in re.split(r" and |, ", said[1] or said[2]):
        assert (tmp_path / name).exists(), name


def test_the_example_in_cpp_classifies_as_the_model_does(tmp_path: Path) -> None:
    """It is compiled with the headers and the library that the Python package of OpenVINO has."""
    spec = importlib.util.find_spec("openvino")
    assert spec is not None and spec.origin is not None
    openvino = Path(spec.origin).parent
    (library,) = (openvino / "libs").glob("libopenvino.so.*")
    program = tmp_path / "deploy"
    flags = [f"-I{openvino}/include", f"-L{library.parent}", f"-l:{library.name}"]
    flags += [f"-Wl,-rpath,{library.parent}", "-std=c++17", "-o", str(program)]
    subprocess.run(["g++", str(ROOT / "examples" / "deploy.cpp"), *flags], check=True)
    model = zoo.load("danet20-t4.fmnist")
    images = model.transform(list(samples("fmnist")[0][:16]))
    write_onnx(model, tmp_path / "model.onnx", verify=False)
    images.numpy().tofile(tmp_path / "images.raw")
    command = [str(program), str(tmp_path / "model.onnx"), str(tmp_path / "images.raw")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [int(line) for line in done.stdout.split()] == model(images).argmax(1).tolist()
    (tmp_path / "images.raw").write_bytes(b"123")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "holds 3 bytes: expected images of 784 float32" in done.stderr


def test_the_page_has_every_example() -> None:
    page = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\(\.\./examples/(\w+)\.py\)", page)) == [
        path.stem for path in SCRIPTS
    ]
