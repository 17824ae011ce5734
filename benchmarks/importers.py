"""Compare the outputs of an exported ONNX file in other importers with those of onnxruntime.

    python benchmarks/importers.py iree FILE.onnx ...
        pip install iree-base-compiler iree-base-runtime onnx onnxruntime
    python benchmarks/importers.py tvm FILE.onnx ...
        pip install apache-tvm onnx onnxruntime
    python benchmarks/importers.py reference FILE.onnx
        the evaluator of onnx itself, in Python: slow
    python benchmarks/importers.py webgpu FILE.onnx ...
        in Chromium; or wasm, or jsep: npm install onnxruntime-web

Each has an environment of its own; none of the zoo is needed. It prints how many spike counts
differ, and the greatest difference of any other output, of one batch of noise; an axis without a
fixed size has 3 images.
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

BATCH = 3  # where the file fixes none
WEB = "onnxruntime-web"
Values = Mapping[str, np.ndarray]
Outputs = list[np.ndarray]


def iree(path: Path, values: Values) -> Outputs:
    """Compile a file by IREE for this CPU, and return its outputs."""
    from iree.compiler.tools import compile_file
    from iree.runtime import Config, SystemContext, VmModule

    with tempfile.TemporaryDirectory() as folder:
        mlir = Path(folder) / "graph.mlir"
        importer = Path(sys.executable).with_name("iree-import-onnx")
        subprocess.run([importer, path, "-o", mlir], check=True)
        options = [
            "--iree-hal-target-device=local",
            "--iree-hal-local-target-device-backends=llvm-cpu",
            "--iree-llvmcpu-target-cpu=host",
        ]
        compiled = compile_file(str(mlir), input_type="auto", extra_args=options)
    context = SystemContext(config=Config("local-task"))
    context.add_vm_module(VmModule.copy_buffer(context.instance, compiled))
    (module,) = (module for name, module in context.modules.items() if name != "hal")
    names = module.vm_module.function_names
    functions = [n for n in names if not n.startswith("__") and not n.endswith("$async")]
    outputs = module[functions[0]](*values.values())
    several = isinstance(outputs, tuple | list)
    return [np.asarray(value) for value in (outputs if several else [outputs])]


def tvm(path: Path, values: Values) -> Outputs:
    """Compile a file by TVM for this CPU, and return its outputs."""
    import tvm
    from tvm import relax
    from tvm.relax.frontend.onnx import from_onnx

    module = from_onnx(onnx.load(path), {name: list(value.shape) for name, value in values.items()})
    machine = relax.VirtualMachine(tvm.compile(module, tvm.target.Target("llvm")), tvm.cpu())
    outputs = machine["main"](*(tvm.runtime.tensor(value) for value in values.values()))
    is_tensor = hasattr(outputs, "numpy") or not hasattr(outputs, "__len__")
    return [value.numpy() for value in ([outputs] if is_tensor else outputs)]


def reference(path: Path, values: Values) -> Outputs:
    """Return the outputs of a file as onnx's own evaluator computes them."""
    from onnx.reference import ReferenceEvaluator

    outputs = ReferenceEvaluator(onnx.load(path)).run(None, dict(values))
    assert isinstance(outputs, list)
    return outputs


WEBGPU, ALL = "ort.webgpu.bundle.min.mjs", "ort.all.bundle.min.mjs"
# The package whose version is printed, and the function that runs a file.
IMPORTERS: dict[str, tuple[str, Callable[[Path, Values], Outputs]]] = {
    "iree": ("iree-base-compiler", iree),
    "tvm": ("apache-tvm", tvm),
    "reference": ("onnx", reference),
    "wasm": (WEB, partial(browser.run, bundle=ALL, provider="wasm")),
    "jsep": (WEB, partial(browser.run, bundle=ALL, provider="webgpu")),
    "webgpu": (WEB, partial(browser.run, bundle=WEBGPU, provider="webgpu")),
}


def main(importer: str, *paths: str) -> None:
    """Run every file by one importer, and print how far its outputs are from onnxruntime's."""
    package, run = IMPORTERS[importer]
    title = f"{package} {_version(package)}"
    for path in map(Path, paths):
        session = onnxruntime.InferenceSession(str(path))
        values = _noise(session)
        expected, outputs = session.run(None, values), run(path, values)
        names = [output.name for output in session.get_outputs()]
        errors = {
            name: float(np.abs(a - b).max())
            for name, a, b in zip(names, expected, outputs, strict=True)
        }
        counts = [error for name, error in errors.items() if name.endswith(".count")]
        others = [error for name, error in errors.items() if not name.endswith(".count")]
        print(
            f"{path.name}, {title}: {sum(error > 0 for error in counts)} of {len(counts)} spike "
            f"counts differ from onnxruntime's, the rest by {max(others):.1e} at most",
            flush=True,
        )


def _version(package: str) -> str:
    if package != WEB:
        return version(package)
    return str(json.loads((browser.PACKAGE / "package.json").read_text())["version"])


def _noise(session: onnxruntime.InferenceSession) -> dict[str, np.ndarray]:
    """Return the same noise at every call for every input of a file."""
    random = np.random.default_rng(0)
    values = {}
    for value in session.get_inputs():
        shape = [n if isinstance(n, int) else BATCH for n in value.shape]
        values[value.name] = random.normal(0, 1, shape).astype(np.float32)
    return values


if __name__ == "__main__":
    main(*sys.argv[1:])
