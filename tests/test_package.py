"""The wheel: built, installed into an environment of its own, and used from there."""

import json
import os
import subprocess
import sys
import sysconfig
import textwrap
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation"]
    subprocess.run([*build, "--outdir", str(folder), str(ROOT)], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_carries_both_packages_the_small_weights_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"zoo", "export"}
    for file in (
        "zoo/py.typed",
        "export/py.typed",
        "zoo/weights/manifest.json",
        "zoo/weights/danet20-t4.fmnist/model.safetensors",
        "zoo/weights/danet20-t4.cifar10/model.safetensors",
        "zoo/weights/danet20-t8.i2e-fmnist/model.safetensors",
        "zoo/weights/danet20-t4.fmnist-w8/model.safetensors",
        "zoo/weights/danet20-t4.fmnist-p50/model.safetensors",
        "zoo/weights/danet20-t4.fmnist-p90/model.safetensors",
        "zoo/weights/speck-danet8-t8.i2e-fmnist/model.safetensors",
        "zoo/samples/fmnist.safetensors",
        "zoo/samples/LICENSE.fmnist",
        "zoo/samples/cifar10.drawings.safetensors",
        "zoo/samples/LICENSE.cifar10",
        "zoo/training/recipes/fmnist.toml",
        "export/energy/devices.toml",
        "export/energy/output/model.html.j2",
        "export/energy/output/report.html.j2",
        "export/energy/output/report.schema.json",
        "export/page/site/index.html",
        "export/page/runtime/ort-wasm-simd-threaded.wasm",
        "export/page/LICENSE.onnxruntime-web",
    ):
        assert file in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    # 10.3 MB of it are onnxruntime-web, packed
    assert wheel.stat().st_size < 16_000_000


def test_installed_it_loads_and_classifies(wheel: Path, tmp_path: Path) -> None:
    """The environment holds the wheel alone, and borrows its dependencies.

    Downloading them again would prove nothing.
    """
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([python, *install], check=True, capture_output=True)
    (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib"))
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*command: str) -> str:
        done = subprocess.run(
            [python, *command], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    script = """
        import zoo, export, zoo.manifest
        print(zoo.__file__, export.__file__, zoo.manifest.weights_folder())
    """
    paths = run("-c", textwrap.dedent(script)).split()
    assert all(Path(path).is_relative_to(site) for path in paths)
    result = json.loads(run("-m", "zoo", "classify", "danet20-t4", "--json"))
    assert result["correct"] >= 0.9 * 256
    assert run(str(python.parent / "zoo"), "--version").startswith("zoo ")
