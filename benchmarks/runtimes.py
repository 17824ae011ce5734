"""CPU time and peak memory of the exported networks in every runtime and precision.

    python benchmarks/runtimes.py [danet50 danet50-batch8 danet18 danet152 streams] [--rounds N]

Beside them are the tutorial-style snnTorch loop, SpikingJelly and torch.compile. Measured is the
CPU time of one call on one thread, in milliseconds: medians of interleaved rounds. GFLOP/s count
every multiplication and addition of all time steps, beside what one large product of matrices or
convolution reaches on this machine in the same type, where the processor has a fast form of that
type. Memory is the peak of a process of its own that loads and runs once, in MB. What this machine
cannot run has a row that tells why. `streams` sets two streams beside two threads, in wall time.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import torch
from loop import Loop
from run import STEPS, images
from run import network as random_network
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


@dataclass(frozen=True)
class Network:
    """A network, the size of its images and batch, and the depth of SpikingJelly's SEW-ResNet."""

    name: str
    pixels: int
    batch: int
    peer_depth: int | None

    def __str__(self) -> str:
        return f"{self.name}, {self.pixels}x{self.pixels}, batch {self.batch}"


@dataclass(frozen=True)
class Export:
    """A form of an exported file, and what runs it."""

    weights: Literal["float32", "int8"]
    runtime: Runtime
    form: Literal["sequence", "step"]

    @property
    def file(self) -> str:
        return f"{self.weights}.{self.form}.onnx"


NETWORKS = {
    "danet50": Network("danet50-t4.in1k", 224, 1, 50),
    "danet50-batch8": Network("danet50-t4.in1k", 224, 8, 50),
    # SpikingJelly has none with a stem for small images.
    "danet18": Network("danet18-t4.cifar10", 32, 1, None),
    "danet152": Network("danet152-t4.in1k", 224, 1, 152),
}
STREAMED = [  # name, pixels, batch
    ("danet20-t4.fmnist", 28, 250),
    ("danet18-t4.cifar10", 32, 8),
    ("danet50-t4.in1k", 224, 4),
]
LOOP = "snnTorch loop"
ORT, OPENVINO = Runtime(threads=1), Runtime("openvino", threads=1)
OPENVINO_BF16 = Runtime("openvino", "bfloat16", threads=1)
EXPORTS = {
    "onnxruntime": Export("float32", ORT, "sequence"),
    "onnxruntime, four steps streamed": Export("float32", ORT, "step"),
    "OpenVINO": Export("float32", OPENVINO, "sequence"),
    "OpenVINO, four steps streamed": Export("float32", OPENVINO, "step"),
    "OpenVINO, bfloat16": Export("float32", OPENVINO_BF16, "sequence"),
    "OpenVINO, int8 weights": Export("int8", OPENVINO, "sequence"),
    "OpenVINO, int8 weights, four steps streamed": Export("int8", OPENVINO, "step"),
    "OpenVINO, int8 weights, bfloat16 elsewhere": Export("int8", OPENVINO_BF16, "sequence"),
}
COLUMNS = "against the loop | CPU ms | GFLOP/s | of the peak | peak memory, MB"
# This runs in a process of its own, and prints its peak memory in MB.
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
    """Measure the networks that the command line names."""
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
    # Without instructions for them, shorter numbers are converted one by one, and the speed of a
    # product is no bound of what can be reached.
    peaks = {dtype: value for dtype, value in peaks.items() if value >= peaks["float32"]}
    print("peak: " + ", ".join(f"{dtype} {value:.0f} GFLOP/s" for dtype, value in peaks.items()))
    for name in args.networks or [*NETWORKS, "streams"]:
        if name == "streams":
            measure_streams(args.rounds)
        else:
            measure(NETWORKS[name], args.rounds, peaks)


@torch.inference_mode()
def measure(network: Network, rounds: int, peaks: dict[str, float]) -> None:
    """Print a table of a network in every form that runs here."""
    model = random_network(network.name, size=network.pixels)
    x = images(model, network.batch)
    with FlopCounterMode(display=False) as counter:
        model(x)
    flop = counter.get_total_flops()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_files(model, folder)
        calls, refusals = contenders(model, x, folder, network.peer_depth)
        times = compare(f"{network}, {flop / 1e9:.1f} GFLOP", calls, rounds)
        memory = {LOOP: peak_memory("loop", Path(), network)}
        for title, export in EXPORTS.items():
            if export.form == "sequence" and title in calls:
                how = f"{export.runtime.name}:{export.runtime.precision}"
                memory[title] = peak_memory(how, folder / export.file, network)
    print(f"\n| {network} | {COLUMNS} |\n|---|---|---|---|---|---|")
    for title, value in times.items():
        dtype = next((dtype for dtype in ("int8", "bfloat16") if dtype in title), "float32")
        speed = flop / value.milliseconds / 1e6
        cells = (
            str(ratio(times[LOOP], value)),
            f"{value.milliseconds:.1f}",
            f"{speed:.0f}",
            share(speed, peaks.get(dtype), dtype),
            str(memory.get(title, "")),
        )
        print(f"| {title} | {' | '.join(cells)} |")
    for title, reason in refusals.items():
        print(f"| {title} | {reason} | | | | |")


def write_files(model: DANet, folder: Path) -> None:
    """Write each file that `EXPORTS` run."""
    for export in EXPORTS.values():
        path = folder / export.file
        if not path.exists():
            rounded = quantize_weights(model, export.weights)
            write_onnx(rounded, path, form=export.form, outputs="none", verify=False)


def contenders(
    model: DANet, x: torch.Tensor, folder: Path, peer_depth: int | None
) -> tuple[dict[str, Callable[[], object]], dict[str, str]]:
    """Return what runs here, and for what cannot the reason."""
    loop, array = Loop(model), x.numpy()
    calls: dict[str, Callable[[], object]] = {LOOP: lambda: loop(x)}
    if peer_depth:
        from peers import spikingjelly_sew_resnet

        sew = spikingjelly_sew_resnet(peer_depth, STEPS)
        calls[f"SpikingJelly sew_resnet{peer_depth}"] = lambda: sew(x)
    compiled = torch.compile(fold(model).to(memory_format=torch.channels_last))
    for _ in range(3):  # it compiles more than once
        compiled(x)
    calls["torch.compile of our model"] = lambda: compiled(x)
    refusals: dict[str, str] = {}
    for title, export in EXPORTS.items():
        path, runtime = folder / export.file, export.runtime
        call: Callable[[], object]
        try:
            if export.form == "sequence":
                call = partial(OnnxModel(path, runtime).run, array)
            else:
                call = partial(stream, StreamingSession(path, len(x), runtime), array)
            call()  # OpenVINO compiles a graph, or refuses to, when it first runs
            calls[title] = call
        except InputError as error:
            refusals[title] = str(error)
    return calls, refusals


def stream(session: StreamingSession, frames: np.ndarray) -> None:
    """Show the same images at every time step."""
    for _ in range(STEPS):
        session.step(frames)


def measure_streams(rounds: int) -> None:
    """Time a batch in two streams of one thread each, and in one of two threads.

    The wall time tells, as both compute as much.
    """
    for name, pixels, batch in STREAMED:
        model = random_network(name, size=pixels)
        x = images(model, batch).numpy()
        calls: dict[str, Callable[[], object]] = {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            write_onnx(model, path, outputs="none", verify=False)
            runtimes = [Runtime(threads=2, workers=n) for n in (1, 2)]
            runtimes += [Runtime("openvino", threads=2, workers=n) for n in (1, 2)]
            for runtime in runtimes:
                title = f"{runtime.name}, {runtime.workers} workers"
                try:
                    call = partial(OnnxModel(path, runtime).run, x)
                    call()
                    calls[title] = call
                except InputError as error:
                    print(f"  {title:42} {error}")
            compare(f"{name}, {pixels}x{pixels}, batch {batch}, two threads", calls, rounds)


def peak_memory(how: str, path: Path, network: Network) -> int:
    """Return the peak memory, in MB, of a process that runs a file, or "loop", once."""
    arguments = [how, str(path), network.name, str(network.pixels), str(network.batch)]
    command = [sys.executable, "-c", MEMORY, *arguments]
    here = Path(__file__).parent
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=here)
    return int(done.stdout.split()[-1])


def peak(dtype: str, size: int = 1536) -> float:
    """Return the GFLOP/s of a square product in this type, or of a 3x3 convolution if it is faster.

    torch has them from two libraries.
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
    """Return the GFLOP/s of a call: the median of nine."""
    seconds = []
    for _ in range(9):
        begun = time.process_time()
        call()
        seconds.append(time.process_time() - begun)
    return operations / median(seconds) / 1e9


if __name__ == "__main__":
    main()
