"""Compile an exported ONNX file with another importer, run it, and compare every output with
onnxruntime's.

    python benchmarks/importers.py iree FILE.onnx ...     # pip install iree-base-compiler iree-base-runtime onnx onnxruntime
    python benchmarks/importers.py tvm FILE.onnx ...      # pip install apache-tvm onnx onnxruntime
    python benchmarks/importers.py reference FILE.onnx    # the evaluator of onnx itself, in Python: slow
    python benchmarks/importers.py webgpu FILE.onnx ...   # in Chromium; or wasm, or jsep: npm install onnxruntime-web

Each in an environment of its own; none of the zoo is needed. A free batch is run with 3 images.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import browser
import numpy as np
import onnx
import onnxruntime

BATCH = 3  # where it is free
WEB = "onnxruntime-web"
Values = Mapping[str, np.ndarray]
Outputs = list[np.ndarray]


def iree(path: Path, values: Values) -> Outputs:
    from iree.compiler.tools import compile_file
    from iree.runtime import Config, SystemContext, VmModule

    with tempfile.TemporaryDirectory() as folder:
        mlir = Path(folder) / "graph.mlir"
        subprocess.run(
            [Path(sys.executable).with_name("iree-import-onnx"), path, "-o", mlir], check=True
        )
        options = [
            "--iree-hal-local-target-device-backends=llvm-cpu",
            "--iree-llvmcpu-target-cpu=host",
        ]
        compiled = compile_file(
            str(mlir), input_type="auto", extra_args=["--iree-hal-target-device=local", *options]
        )
    context = SystemContext(config=Config("local-task"))
    context.add_vm_module(VmModule.copy_buffer(context.instance, compiled))
    (module,) = (module for name, module in context.modules.items() if name != "hal")
    name = next(
        name
        for name in module.vm_module.function_names
        if not name.startswith("__") and not name.endswith("$async")
    )
    found = module[name](*values.values())
    return [np.asarray(value) for value in (found if isinstance(found, tuple | list) else [found])]


def tvm(path: Path, values: Values) -> Outputs:
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    module = from_onnx(onnx.load(path), {name: list(value.shape) for name, value in values.items()})
    machine = relax.VirtualMachine(tvm.compile(module, tvm.target.Target("llvm")), tvm.cpu())
    found = machine["main"](*(tvm.runtime.tensor(value) for value in values.values()))
    return [
        value.numpy()
        for value in (
            found if hasattr(found, "__len__") and not hasattr(found, "numpy") else [found]
        )
    ]


def reference(path: Path, values: Values) -> Outputs:
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(onnx.load(path)).run(None, dict(values))


def main(importer: str, *paths: str) -> None:
    ways: dict[str, tuple[str, Callable[[Path, Values], Outputs]]] = {
        "iree": ("iree-base-compiler", iree),
        "tvm": ("apache-tvm", tvm),
        "reference": ("onnx", reference),
        "wasm": (WEB, partial(browser.run, bundle="ort.all.bundle.min.mjs", provider="wasm")),
        "jsep": (WEB, partial(browser.run, bundle="ort.all.bundle.min.mjs", provider="webgpu")),
        "webgpu": (
            WEB,
            partial(browser.run, bundle="ort.webgpu.bundle.min.mjs", provider="webgpu"),
        ),
    }
    package, run = ways[importer]
    used = (
        json.loads((browser.PACKAGE / "package.json").read_text())["version"]
        if package == WEB
        else version(package)
    )
    for path in map(Path, paths):
        session = onnxruntime.InferenceSession(str(path))
        random = np.random.default_rng(0)
        shapes = {
            value.name: [n if isinstance(n, int) else BATCH for n in value.shape]
            for value in session.get_inputs()
        }
        values = {
            name: random.normal(0, 1, shape).astype(np.float32) for name, shape in shapes.items()
        }
        expected, found = session.run(None, values), run(path, values)
        names = [output.name for output in session.get_outputs()]
        off = {
            name: float(np.abs(a - b).max())
            for name, a, b in zip(names, expected, found, strict=True)
        }
        counts = [name for name in names if name.endswith(".count")]
        print(
            f"{path.name}, {package} {used}: "
            f"{sum(off[name] > 0 for name in counts)} of {len(counts)} spike counts differ "
            f"from onnxruntime's, the rest by {max(off[name] for name in names if name not in counts):.1e} at most",
            flush=True,
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
