"""Where the time of an exported network goes: milliseconds of one image by kind of layer, as the
runtimes' own profilers say.

    python benchmarks/runtime_profile.py [danet50-t4.in1k] [--size 224]

One thread, the last of several calls. A neuron in onnxruntime is four operators a step; OpenVINO
compiles it to one kernel.
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
KINDS = {  # the first that is part of an operator's type, as either profiler names it
    "conv": ("Conv", "Gemm", "MatMul", "FullyConnected"),
    "pool": ("Pool", "Reduce"),
    "copies": (
        "Split",
        "Concat",
        "Reorder",
        "Reshape",
        "Transpose",
        "Slice",
        "Expand",
        "Tile",
        "Identity",
    ),
    "rounding": ("QuantizeLinear", "FakeQuantize"),
    "neurons": (
        "Subgraph",
        "Eltwise",
        "Mul",
        "Sub",
        "Add",
        "Greater",
        "Where",
        "Cast",
        "Select",
        "Convert",
        "Not",
        "Sum",
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name", nargs="?", default="danet50-t4.in1k")
    parser.add_argument("--size", type=int, default=224)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{processor()}, one thread; {versions()}, openvino {ov.__version__}")
    model = network(args.name, size=args.size)
    data = model.config
    x = (
        np.random.default_rng(0)
        .standard_normal((1, data.in_channels, args.size, args.size))
        .astype(np.float32)
    )
    print(
        f"\n| {args.name}, {args.size}x{args.size}, ms | all | "
        + " | ".join([*KINDS, "other"])
        + " |"
    )
    print("|---|" + "---|" * (len(KINDS) + 2))
    with tempfile.TemporaryDirectory() as folder:
        for precision in ("float32", "int8"):
            path = Path(folder) / f"{precision}.onnx"
            write_onnx(quantize_weights(model, precision), path, outputs="none", verify=False)
            if precision == "float32":
                row("onnxruntime", onnxruntime(path, x))
            for compute in ("f32", "bf16"):
                if compute == "bf16" and "BF16" not in ov.Core().get_property(
                    "CPU", "OPTIMIZATION_CAPABILITIES"
                ):
                    why = "this processor does not compute in bfloat16"
                    print(
                        f"| OpenVINO, {precision} weights, bf16 | {why} |{' |' * (len(KINDS) + 1)}"
                    )
                    continue
                row(f"OpenVINO, {precision} weights, {compute}", openvino(path, x, compute))


def onnxruntime(path: Path, x: np.ndarray) -> Counter[str]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(CALLS):
        session.run(None, {"images": x})
    events = json.loads(Path(session.end_profiling()).read_text())
    kernels = [
        event
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    ]
    last = kernels[-len(kernels) // CALLS :]
    times: Counter[str] = Counter()
    for event in last:
        times[event["args"]["op_name"]] += event["dur"] / 1000
    return times


def openvino(path: Path, x: np.ndarray, precision: str) -> Counter[str]:
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


def row(title: str, times: Counter[str]) -> None:
    by_kind: Counter[str] = Counter()
    for operator, value in times.items():
        by_kind[
            next(
                (kind for kind, parts in KINDS.items() if any(part in operator for part in parts)),
                "other",
            )
        ] += value
    cells = [f"{by_kind[kind]:.1f}" for kind in [*KINDS, "other"]]
    print(f"| {title} | {sum(times.values()):.0f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
