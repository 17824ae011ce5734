"""Measure where the time of an exported network goes: milliseconds an image by kind of layer.

    python benchmarks/runtime_profile.py [danet50-t4.in1k] [--size 224]

The runtimes' own profilers measure the last of four calls, on one thread. A neuron in onnxruntime
is four operators a step; OpenVINO compiles it to one kernel.
"""

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime as ort
import openvino as ov
import torch
from run import network
from timing import versions

from export.onnx.exporter import write_onnx
from export.prepare.quantize import quantize_weights
from zoo.processor import processor

CALLS = 4
# Kinds of operators, by a part of the type that either profiler gives; the first that fits holds.
KINDS = {
    "conv": "Conv Gemm MatMul FullyConnected",
    "pool": "Pool Reduce",
    "copies": "Split Concat Reorder Reshape Transpose Slice Expand Tile Identity",
    "rounding": "QuantizeLinear FakeQuantize",
    "neurons": "Subgraph Eltwise Mul Sub Add Greater Where Cast Select Convert Not Sum",
}
OTHER = "other"
COLUMNS = (*KINDS, OTHER)


def main() -> None:
    """Print a table with a row for each runtime and precision."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", default="danet50-t4.in1k")
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor()}, one thread; {versions()}, openvino {ov.__version__}")
    model = network(args.name, size=args.size)
    shape = (1, model.config.in_channels, args.size, args.size)
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    print(f"\n| {args.name}, {args.size}x{args.size}, ms | all | {' | '.join(COLUMNS)} |")
    print("|---|" + "---|" * (len(COLUMNS) + 1))
    computes_bf16 = "BF16" in ov.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    with tempfile.TemporaryDirectory() as folder:
        for weights in ("float32", "int8"):
            path = Path(folder) / f"{weights}.onnx"
            write_onnx(quantize_weights(model, weights), path, outputs="none", verify=False)
            if weights == "float32":
                print_row("onnxruntime", profile_onnxruntime(path, x))
            for compute in ("f32", "bf16"):
                title = f"OpenVINO, {weights} weights, {compute}"
                if compute == "bf16" and not computes_bf16:
                    reason = "this processor does not compute in bfloat16"
                    print(f"| {title} | {reason} |{' |' * len(COLUMNS)}")
                else:
                    print_row(title, profile_openvino(path, x, compute))


def profile_onnxruntime(path: Path, x: np.ndarray) -> Counter[str]:
    """Return milliseconds by the type of operator, of the last call in onnxruntime."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(CALLS):
        session.run(None, {"images": x})
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event for event in events if event.get("cat") == "Node"]
    kernels = [node for node in nodes if node["name"].endswith("_kernel_time")]
    times: Counter[str] = Counter()
    for event in kernels[-len(kernels) // CALLS :]:  # those of the last call
        times[event["args"]["op_name"]] += event["dur"] / 1000
    return times


def profile_openvino(path: Path, x: np.ndarray, precision: str) -> Counter[str]:
    """Return milliseconds by the type of operator, of the last call in OpenVINO."""
    settings = {
        "INFERENCE_NUM_THREADS": 1,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": True,
    }
    core = ov.Core()
    model = core.read_model(path)
    model.reshape({"images": x.shape})
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    for _ in range(CALLS):
        request.infer({"images": x})
    times: Counter[str] = Counter()
    for info in request.profiling_info:
        times[info.node_type] += info.real_time.total_seconds() * 1000
    return times


def print_row(title: str, times: Counter[str]) -> None:
    """Print the sum of the times and their sums by kind."""
    by_kind: Counter[str] = Counter()
    for operator, milliseconds in times.items():
        by_kind[kind_of(operator)] += milliseconds
    cells = [f"{by_kind[kind]:.1f}" for kind in COLUMNS]
    print(f"| {title} | {sum(times.values()):.0f} | {' | '.join(cells)} |")


def kind_of(operator: str) -> str:
    fitting = (kind for kind, parts in KINDS.items() if any(p in operator for p in parts.split()))
    return next(fitting, OTHER)


if __name__ == "__main__":
    main()
