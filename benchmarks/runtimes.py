"""The exported networks in every runtime and precision, beside the tutorial-style snnTorch loop,
SpikingJelly and torch.compile.

    python benchmarks/runtimes.py [danet50 danet50-batch8 danet18 danet152 streams] [--rounds N]

CPU time of one call on one thread, medians of interleaved rounds. GFLOP/s count every
multiplication and addition of all time steps, beside what one large product of matrices or
convolution reaches on this machine in the same type, where the processor has a fast form of that
type. Memory is the peak of a process of its own that loads and runs once. What this machine cannot
run has a row that says why. `streams` sets two streams beside two threads, in wall time.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from loop import Loop
from run import STEPS, images, network
from timing import compare, ratio, share, versions
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from export.onnx.exporter import write_onnx
from export.onnx.runtime import OnnxModel, Runtime
from export.onnx.streaming import StreamingSession
from export.prepare.fold import fold
from export.prepare.quantize import quantize_weights
from zoo.danet import DANet
from zoo.errors import InputError
from zoo.processor import processor

NETWORKS = {  # name, pixels, batch, depth of SpikingJelly's SEW-ResNet, with torch.compile or not
    "danet50": ("danet50-t4.in1k", 224, 1, 50, True),
    "danet50-batch8": ("danet50-t4.in1k", 224, 8, 50, True),
    # SpikingJelly has none with a stem for small images
    "danet18": ("danet18-t4.cifar10", 32, 1, None, True),
    "danet152": ("danet152-t4.in1k", 224, 1, 152, True),
}
RUNTIMES = {  # weights, runtime, form
    "onnxruntime": ("float32", Runtime(threads=1), "sequence"),
    "onnxruntime, four steps streamed": ("float32", Runtime(threads=1), "step"),
    "OpenVINO": ("float32", Runtime("openvino", threads=1), "sequence"),
    "OpenVINO, four steps streamed": ("float32", Runtime("openvino", threads=1), "step"),
    "OpenVINO, bfloat16": ("float32", Runtime("openvino", "bfloat16", threads=1), "sequence"),
    "OpenVINO, int8 weights": ("int8", Runtime("openvino", threads=1), "sequence"),
    "OpenVINO, int8 weights, four steps streamed": ("int8", Runtime("openvino", threads=1), "step"),
    "OpenVINO, int8 weights, bfloat16 elsewhere": (
        "int8",
        Runtime("openvino", "bfloat16", threads=1),
        "sequence",
    ),
}
MEMORY = """
import sys
from pathlib import Path
def memory(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) // 1024
how, path, name, pixels, batch = sys.argv[1:]
if how == "loop":
    import torch
    from loop import Loop
    from run import images, network
    torch.set_num_threads(1)
    model = network(name, size=int(pixels))
    Loop(model)(images(model, int(batch)))
else:
    import numpy as np
    from export.onnx.runtime import OnnxModel, Runtime
    runtime = Runtime(*how.split(":"), threads=1)
    model = OnnxModel(Path(path), runtime)
    data = model.about.data
    model.run(np.zeros((int(batch), data.channels, data.size, data.size), np.float32))
print(memory("VmHWM"))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "networks",
        nargs="*",
        metavar="NETWORK",
        help=f"any of {', '.join(NETWORKS)}, streams; all if none is given",
    )
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if unknown := set(args.networks) - {*NETWORKS, "streams"}:
        parser.error(f"unknown network {min(unknown)!r}; valid are {', '.join(NETWORKS)}, streams")
    torch.set_num_threads(1)
    print(f"{processor()}, one thread; {versions()}")
    with torch.inference_mode():
        peaks = {dtype: peak(dtype) for dtype in ("float32", "bfloat16", "int8")}
    # Without instructions for them, shorter numbers are converted one by one, and a product tells
    # nothing of what can be reached.
    peaks = {dtype: value for dtype, value in peaks.items() if value >= peaks["float32"]}
    print("peak: " + ", ".join(f"{dtype} {value:.0f} GFLOP/s" for dtype, value in peaks.items()))
    for name in args.networks or [*NETWORKS, "streams"]:
        if name == "streams":
            side_by_side(args.rounds)
        else:
            measure(*NETWORKS[name], rounds=args.rounds, peaks=peaks)


@torch.inference_mode()
def measure(
    name: str,
    pixels: int,
    batch: int,
    peer: int | None,
    compiled: bool,
    *,
    rounds: int,
    peaks: dict[str, float],
) -> None:
    model = network(name, size=pixels)
    x = images(model, batch)
    with FlopCounterMode(display=False) as count:
        model(x)
    flop = count.get_total_flops()
    with tempfile.TemporaryDirectory() as folder:
        files: dict[tuple[str, str], Path] = {}
        for precision, _, form in RUNTIMES.values():
            if (precision, form) not in files:
                path = files[precision, form] = Path(folder) / f"{precision}.{form}.onnx"
                write_onnx(
                    quantize_weights(model, precision),
                    path,
                    form=form,
                    outputs="none",
                    verify=False,
                )
        calls, refused = contenders(model, x, files, peer, compiled)
        times = compare(
            f"{name}, {pixels}x{pixels}, batch {batch}, {flop / 1e9:.1f} GFLOP", calls, rounds
        )
        used = {"snnTorch loop": memory("loop", Path(), name, pixels, batch)}
        for how, (precision, runtime, form) in RUNTIMES.items():
            if form == "sequence" and how in calls:
                used[how] = memory(
                    f"{runtime.name}:{runtime.precision}",
                    files[precision, form],
                    name,
                    pixels,
                    batch,
                )
    print(
        f"\n| {name}, {pixels}x{pixels}, batch {batch} | against the loop | CPU ms | GFLOP/s | of the peak | peak memory, MB |"
    )
    print("|---|---|---|---|---|---|")
    for how, value in times.items():
        dtype = "int8" if "int8" in how else "bfloat16" if "bfloat16" in how else "float32"
        speed = flop / value.milliseconds / 1e6
        part = share(speed, peaks.get(dtype), dtype)
        against = ratio(times["snnTorch loop"], value)
        print(
            f"| {how} | {against} | {value.milliseconds:.1f} | {speed:.0f} | {part} | {used.get(how, '')} |"
        )
    for how, why in refused.items():
        print(f"| {how} | {why} | | | | |")


def contenders(
    model: DANet,
    x: torch.Tensor,
    files: dict[tuple[str, str], Path],
    peer: int | None,
    compiled: bool,
) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """Divide the runtimes into those that run here, and those that cannot, with the reason."""
    loop, array = Loop(model), x.numpy()
    calls: dict[str, Callable[[], object]] = {"snnTorch loop": lambda: loop(x)}
    if peer:
        from peers import spikingjelly_sew_resnet

        sew = spikingjelly_sew_resnet(peer, STEPS)
        calls[f"SpikingJelly sew_resnet{peer}"] = lambda: sew(x)
    if compiled:
        fast = torch.compile(fold(model).to(memory_format=torch.channels_last))
        for _ in range(3):  # it compiles more than once
            fast(x)
        calls["torch.compile of our model"] = lambda: fast(x)
    refused: dict[str, str] = {}
    for how, (precision, runtime, form) in RUNTIMES.items():
        try:
            if form == "sequence":
                call = partial(OnnxModel(files[precision, form], runtime).run, array)
            else:
                call = partial(
                    stream, StreamingSession(files[precision, form], len(x), runtime), array
                )
            call()  # OpenVINO compiles a graph, or refuses to, when it first runs
            calls[how] = call
        except InputError as error:
            refused[how] = str(error)
    return calls, refused


def stream(session: StreamingSession, frames: np.ndarray) -> None:
    for _ in range(STEPS):
        session.step(frames)


def side_by_side(rounds: int) -> None:
    """A batch in two streams of one thread each, and in one of two threads: look at wall time."""
    for name, pixels, batch in (
        ("danet20-t4.fmnist", 28, 250),
        ("danet18-t4.cifar10", 32, 8),
        ("danet50-t4.in1k", 224, 4),
    ):
        model = network(name, size=pixels)
        x = images(model, batch).numpy()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(model, path, outputs="none", verify=False)
            ways = {
                f"{kind}, {n} streams": Runtime(kind, threads=2, workers=n)
                for kind in ("onnxruntime", "openvino")
                for n in (1, 2)
            }
            calls: dict[str, Callable[[], object]] = {}
            for how, runtime in ways.items():
                try:
                    call = partial(OnnxModel(path, runtime).run, x)
                    call()
                    calls[how] = call
                except InputError as error:
                    print(f"  {how:42} {error}")
            compare(f"{name}, {pixels}x{pixels}, batch {batch}, two threads", calls, rounds)


def memory(how: str, path: Path, name: str, pixels: int, batch: int) -> int:
    """Peak of a process, in MB."""
    here = Path(__file__).parent
    command = [sys.executable, "-c", MEMORY, how, str(path), name, str(pixels), str(batch)]
    return int(
        subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=here
        ).stdout.split()[-1]
    )


def peak(dtype: str, size: int = 1536) -> float:
    """GFLOP/s of a square product in this type or of a 3x3 convolution, the faster: torch has them
    from two libraries.
    """
    if dtype == "int8":
        a, b = (torch.randint(-9, 9, (size, size), dtype=torch.int8) for _ in range(2))
        return _speed(lambda: torch._int_mm(a, b), 2 * size**3)
    kind = getattr(torch, dtype)
    a, b = (torch.randn(size, size, dtype=kind) for _ in range(2))
    conv = nn.Conv2d(256, 256, 3, padding=1, bias=False).to(kind, memory_format=torch.channels_last)
    x = torch.randn(4, 256, 56, 56, dtype=kind).contiguous(memory_format=torch.channels_last)
    return max(_speed(lambda: a @ b, 2 * size**3), _speed(lambda: conv(x), 2 * x.numel() * 256 * 9))


def _speed(call: Callable[[], object], operations: int) -> float:
    seconds = []
    for _ in range(9):
        begun = time.process_time()
        call()
        seconds.append(time.process_time() - begun)
    return operations / median(seconds) / 1e9


if __name__ == "__main__":
    main()
