"""Side-by-side measurements of what the zoo promises about speed, memory and counting.

    python benchmarks/run.py [speed] [export] [list] [--rounds N] [--markdown] [--small]

Without a section it runs all of them. README.md says what is measured and how.
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
    """Random weights, but the BatchNorm statistics of a batch of noise, so that every layer spikes
    as in a trained network.

    `size`: pixels, where they are not those of the name's data set.
    """
    torch.manual_seed(0)
    model = zoo.create(name)
    if size:
        assert model.origin is not None
        model.origin = replace(model.origin, data=replace(model.origin.data, size=size))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images(model, 2))
    return model.eval()


def images(model: DANet, batch: int = 1) -> Tensor:
    assert model.origin is not None
    data = model.origin.data
    return torch.randn(
        batch, data.channels, data.size, data.size, generator=torch.Generator().manual_seed(1)
    )


def title(model: DANet) -> str:
    """`danet50-t4, 224x224`."""
    assert model.origin is not None
    size = model.origin.data.size
    return f"{model.origin.name.partition('.')[0]}, {size}x{size}"


def speed(scale: Scale, rounds: int) -> list[Row]:
    from peers import spikingjelly_sew_resnet

    model = network(scale.large)
    peer = spikingjelly_sew_resnet(scale.peer_depth, STEPS)
    name = f"SpikingJelly sew_resnet{scale.peer_depth}"
    x = images(model)
    large = _forwards(model, {name: lambda: peer(x)}, rounds)
    tiny, small = network(scale.large, size=32), network(scale.small)
    on_tiny, on_small = _forwards(tiny, {}, rounds), _forwards(small, {}, rounds)
    work = f"{title(model)}, batch 1, exported"
    return [
        Row(
            f"{work}, against the snnTorch loop",
            "3.0x faster",
            _faster(large, "snnTorch loop", "onnxruntime"),
        ),
        Row(
            f"{work}, against {name}, multi-step",
            "2.5x faster",
            _faster(large, name, "onnxruntime"),
        ),
        Row(
            f"{title(tiny)}, batch 1, exported, against the loop",
            "8x faster",
            _faster(on_tiny, "snnTorch loop", "onnxruntime"),
        ),
        Row(
            f"{scale.small} (its stem keeps 32x32), likewise",
            "",
            _faster(on_small, "snnTorch loop", "onnxruntime"),
        ),
        Row(
            f"{title(model)}, torch forward, against the loop",
            "1.5x faster",
            _faster(large, "snnTorch loop", "torch"),
        ),
        Row(
            f"{title(model)}, torch, BN folded, channels_last, against the loop",
            "",
            _faster(large, "snnTorch loop", "torch, BN folded, channels_last"),
        ),
    ]


def _forwards(
    model: DANet, peers: dict[str, Callable[[], object]], rounds: int
) -> dict[str, Times]:
    """One image through every form of `model`, and through `peers`."""
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
        "snnTorch loop": lambda: loop(x),
        "torch": lambda: model(x),
        "torch, BN folded, channels_last": lambda: folded(
            x.contiguous(memory_format=torch.channels_last)
        ),
        "onnxruntime": lambda: exported.run(x.numpy()),
    }
    with torch.inference_mode():
        return compare(f"{title(model)}, batch 1", calls | peers, rounds)


def _faster(times: dict[str, Times], base: str, other: str) -> str:
    return f"{ratio(times[base], times[other])}; {times[base].milliseconds:.0f} against {times[other].milliseconds:.0f} ms"


def export(scale: Scale, rounds: int) -> list[Row]:
    print(
        f"\nexport of {scale.deep} to ONNX, each in a process of its own, with torch's own number of threads"
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
    script = Path(__file__).with_name("export_once.py")
    output = subprocess.run(
        [sys.executable, script, name, *flags], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    result: dict[str, float] = json.loads(output.splitlines()[-1])
    return result


def list_(scale: Scale, rounds: int) -> list[Row]:
    def run(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run(
            [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL
        )

    calls = {"zoo list": run("-m", "zoo", "list"), "Python, doing nothing": run("-c", "")}
    times = compare("zoo list", calls, rounds)
    whole, start = (median(times[name].wall) for name in calls)
    return [Row("`zoo list`", "0.3 s", f"{whole:.2f} s, of which Python's start {start:.2f} s")]


SECTIONS: dict[str, Callable[[Scale, int], list[Row]]] = {
    "speed": speed,
    "export": export,
    "list": list_,
}


def main() -> None:
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
    print(
        "\n"
        + (
            markdown(rows)
            if options.markdown
            else "\n".join(f"{row.work}: {row.measured}" for row in rows)
        )
    )


def markdown(rows: list[Row]) -> str:
    lines = ["| work | target | measured |", "|---|---|---|"]
    lines += [f"| {row.work} | {row.target} | {row.measured} |" for row in rows]
    return "\n".join([*lines, "", f"Measured on one core of {processor()}: {versions()}."])


if __name__ == "__main__":
    main()
