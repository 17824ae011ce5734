"""Side-by-side measurements of what the zoo promises about speed and memory.

    python benchmarks/run.py [speed] [export] [list] [--rounds N] [--markdown] [--small]

Without a section it runs all of them. `speed` is the CPU time of one image, in milliseconds;
`export` the seconds and peak memory of writing an ONNX file; `list` the wall time of a command, in
seconds. All are medians of rounds (`timing.py`). README.md describes what runs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from timing import Times, compare, ratio, versions
from torch import Tensor, nn

import zoo
from zoo.danet import DANet
from zoo.processor import processor

STEPS = 4
LOOP, ONNX = "snnTorch loop", "onnxruntime"
TORCH, FOLDED = "torch", "torch, BN folded, channels_last"


@dataclass(frozen=True)
class Row:
    """A line of the table in the project's README."""

    work: str
    target: str
    measured: str


@dataclass(frozen=True)
class Scale:
    """Which networks stand for "large", "small" and "deep"."""

    large: str
    small: str
    deep: str
    peer_depth: int  # of SpikingJelly's SEW-ResNet, at the image size of `large`
    rounds: int


FULL = Scale("danet50-t4.in1k", "danet50-t4.cifar10", "danet152-t4.in1k", peer_depth=50, rounds=7)
SMOKE = Scale(
    "danet20-t4.cifar10", "danet20-t4.fmnist", "danet34-t4.fmnist", peer_depth=18, rounds=1
)


def network(name: str, size: int | None = None) -> DANet:
    """Return a network with random weights in which every layer fires as in a trained one.

    `size` is the side of its images in pixels, where it is not that of the name's data set.
    """
    torch.manual_seed(0)
    model = zoo.create(name)
    if size:
        origin = model.known_origin
        model.origin = replace(origin, data=replace(origin.data, size=size))
    take_statistics(model)
    return model.eval()


def take_statistics(model: DANet) -> None:
    """Set the BatchNorm statistics of a network to those of a batch of noise."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(images(model, 2))


def images(model: DANet, batch: int = 1) -> Tensor:
    """Return noise `[B, C, H, W]` of the size of the model's images, the same at every call."""
    data = model.known_origin.data
    shape = (batch, data.channels, data.size, data.size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def title(model: DANet) -> str:
    """Return name and image size of a model, such as `danet50-t4, 224x224`."""
    origin = model.known_origin
    return f"{origin.name.partition('.')[0]}, {origin.data.size}x{origin.data.size}"


def speed(scale: Scale, rounds: int) -> list[Row]:
    """Measure one image through the exported file, torch, the snnTorch loop and SpikingJelly."""
    from peers import spikingjelly_sew_resnet

    model = network(scale.large)
    x, peer = images(model), spikingjelly_sew_resnet(scale.peer_depth, STEPS)
    jelly = f"SpikingJelly sew_resnet{scale.peer_depth}"
    large = _forwards(model, {jelly: lambda: peer(x)}, rounds)
    tiny, small = network(scale.large, size=32), network(scale.small)
    on_tiny, on_small = _forwards(tiny, {}, rounds), _forwards(small, {}, rounds)
    exported = f"{title(model)}, batch 1, exported"
    contests = (
        (f"{exported}, against the snnTorch loop", "3.0x faster", large, LOOP, ONNX),
        (f"{exported}, against {jelly}, multi-step", "2.5x faster", large, jelly, ONNX),
        (f"{title(tiny)}, batch 1, exported, against the loop", "8x faster", on_tiny, LOOP, ONNX),
        (f"{scale.small} (its stem keeps 32x32), likewise", "", on_small, LOOP, ONNX),
        (f"{title(model)}, torch forward, against the loop", "1.5x faster", large, LOOP, TORCH),
        (f"{title(model)}, {FOLDED}, against the loop", "", large, LOOP, FOLDED),
    )
    return [
        Row(work, target, _faster(times, base, other))
        for work, target, times, base, other in contests
    ]


def _forwards(
    model: DANet, peers: dict[str, Callable[[], object]], rounds: int
) -> dict[str, Times]:
    """Time one image through every form of `model`, and through `peers`."""
    from loop import Loop, assert_same

    from export.onnx.exporter import write_onnx
    from export.onnx.runtime import OnnxModel, Runtime
    from export.prepare.fold import fold

    x = images(model)
    assert_same(model, x)
    loop, folded = Loop(model), fold(model).to(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        write_onnx(model, path, verify=False)
        exported = OnnxModel(path, Runtime(threads=1))
    calls: dict[str, Callable[[], object]] = {
        LOOP: lambda: loop(x),
        TORCH: lambda: model(x),
        FOLDED: lambda: folded(x.contiguous(memory_format=torch.channels_last)),
        ONNX: lambda: exported.run(x.numpy()),
    }
    with torch.inference_mode():
        return compare(f"{title(model)}, batch 1", calls | peers, rounds)


def _faster(times: dict[str, Times], base: str, other: str) -> str:
    slower, faster = times[base], times[other]
    milliseconds = f"{slower.milliseconds:.0f} against {faster.milliseconds:.0f} ms"
    return f"{ratio(slower, faster)}; {milliseconds}"


def export(scale: Scale, rounds: int) -> list[Row]:
    """Measure seconds and peak memory of an export to ONNX, with and without verification."""
    print(
        f"\nexport of {scale.deep} to ONNX, each in a process of its own, "
        "with torch's own number of threads"
    )
    rows = []
    for how, flags in {"verified": [], "not verified": ["--no-verify"]}.items():
        runs = [_export_once(scale.deep, flags) for _ in range(min(rounds, 3))]
        wall, cpu, peak = (median(run[key] for run in runs) for key in ("wall", "cpu", "peak"))
        measured = f"{wall:.1f} s ({cpu:.1f} s CPU), {peak / 1e9:.2f} GB peak"
        print(f"  {how:42} {measured}")
        rows.append(Row(f"export of {scale.deep} to ONNX, {how}", "20 s, 2.5 GB peak", measured))
    return rows


def _export_once(name: str, flags: list[str]) -> dict[str, float]:
    command = [sys.executable, str(Path(__file__).with_name("export_once.py")), name, *flags]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def list_(scale: Scale, rounds: int) -> list[Row]:
    """Measure `zoo list` from start to end, beside a Python that does nothing."""

    def run(*arguments: str) -> Callable[[], object]:
        command = [sys.executable, *arguments]
        return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    calls = {"zoo list": run("-m", "zoo", "list"), "Python, doing nothing": run("-c", "")}
    times = compare("zoo list", calls, rounds)
    command, start = (median(times[name].wall) for name in calls)
    return [Row("`zoo list`", "0.3 s", f"{command:.2f} s, of which Python's start {start:.2f} s")]


SECTIONS: dict[str, Callable[[Scale, int], list[Row]]] = {
    "speed": speed,
    "export": export,
    "list": list_,
}


def main() -> None:
    """Run the sections of the command line."""
    parser = argparse.ArgumentParser(description="Measure the zoo side by side with its peers.")
    parser.add_argument(
        "sections",
        nargs="*",
        metavar="section",
        help=f"any of {', '.join(SECTIONS)}; all if none is given",
    )
    parser.add_argument("--rounds", type=int, help=f"interleaved rounds (default {FULL.rounds})")
    parser.add_argument("--markdown", action="store_true", help="end with a table for the README")
    parser.add_argument(
        "--small",
        action="store_true",
        help="a smoke run: tiny networks, one round, meaningless figures",
    )
    options = parser.parse_args()
    if unknown := [section for section in options.sections if section not in SECTIONS]:
        parser.error(f"unknown section {unknown[0]!r}; valid are {', '.join(SECTIONS)}")
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")

    scale = SMOKE if options.small else FULL
    torch.set_num_threads(1)
    print(f"{processor()}\n{versions()}\none thread unless said otherwise")
    rows = [
        row
        for name in options.sections or SECTIONS
        for row in SECTIONS[name](scale, options.rounds or scale.rounds)
    ]
    lines = "\n".join(f"{row.work}: {row.measured}" for row in rows)
    print("\n" + (markdown(rows) if options.markdown else lines))


def markdown(rows: list[Row]) -> str:
    """Return the table for the README, with the processor and the versions below it."""
    lines = ["| work | target | measured |", "|---|---|---|"]
    lines += [f"| {row.work} | {row.target} | {row.measured} |" for row in rows]
    return "\n".join([*lines, "", f"Measured on one core of {processor()}: {versions()}."])


if __name__ == "__main__":
    main()
