"""Side-by-side measurements of training: seconds and memory of an optimiser step.

    python benchmarks/training.py [cpu] [networks] [gpu] [--batch N] [--rounds N] [--save] [--small]

Without a section it runs all; without a GPU the rows of `gpu` say so. README.md says what is
measured and how.
"""

import argparse
import contextlib
import io
import json
import platform
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch
from loop import assert_same, assert_same_neuron
from run import images, network
from timing import Times, compare, ratio, versions
from train_once import batch_of, network_of, train_once, training_step
from training_gpu import gpu
from training_networks import networks
from training_rows import FULL, SMOKE, TITLES, Result, Session, above, memory_row

from zoo.processor import processor

RESULTS = Path(__file__).with_name("results")
LONG = {"fp32": "float32", "bf16": "bfloat16"}


def cpu(session: Session) -> list[Result]:
    """A step of a small ResNet, in one process; then the peak of memory, each contender in a
    process of its own.
    """
    name, batch = session.scale.cpu, session.batch or session.scale.cpu_batch
    model = network(name)
    assert_same(model, images(model, 2))
    assert_same_neuron("cpu")
    x, labels = batch_of(name, batch)
    pairs = [(how, precision) for precision in LONG for how in ("loop", "ours")]
    calls = {
        _called(*pair): training_step(network_of(name, pair[0]), x, labels, precision=pair[1])
        for pair in pairs
    }
    times = compare(f"{name}, a training step of {batch} images, one thread", calls, session.rounds)
    session.throughput += [
        {"network": name, "batch": batch, "precision": precision, "images_per_second": batch / median(times[_called(*pair)].wall),
         "where": f"one core of {processor()}"}
        for pair in pairs if pair[0] == "ours" for precision in pair[1:]
    ]  # fmt: skip

    print("\npeak memory of the process, and above libraries, weights and batch")
    used = {pair: train_once(name, pair[0], batch, pair[1], "cpu") for pair in pairs}
    for pair, once in used.items():
        print(
            f"  {_called(*pair):42} {once['peak'] / 1e9:8.2f} GB {above(once) / 1e9:8.2f} GB above"
        )

    work = f"training step of {name}, batch {batch}"
    rows = []
    targets = {
        ("fp32", "fp32"): ("0.60x", "0.40x"),
        ("bf16", "bf16"): ("0.40x", "0.30x"),
        ("bf16", "fp32"): ("", ""),
    }
    for (mine, other), (time, memory) in targets.items():
        what = f"{work}, {LONG[mine]}, against the snnTorch loop in {LONG[other]}"
        ours, loop = ("ours", mine), ("loop", other)
        rows += [
            _time_row(f"{what}: time", time, times[_called(*ours)], times[_called(*loop)]),
            memory_row(f"{what}: peak memory", memory, used[ours], used[loop]),
        ]
    return rows


def _called(how: str, precision: str) -> str:
    return f"{TITLES[how]}, {LONG[precision]}"


def _time_row(work: str, target: str, ours: Times, other: Times) -> Result:
    against = ratio(ours, other)
    return Result(
        work,
        target,
        f"{against}; {ours.milliseconds:.0f} against {other.milliseconds:.0f} ms",
        {"ratio": asdict(against), "ours": asdict(ours), "other": asdict(other)},
    )


SECTIONS: dict[str, Callable[[Session], list[Result]]] = {
    "cpu": cpu,
    "networks": networks,
    "gpu": gpu,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure training side by side with peers.")
    parser.add_argument(
        "sections",
        nargs="*",
        metavar="section",
        help=f"any of {', '.join(SECTIONS)}; all if none is given",
    )
    parser.add_argument(
        "--batch",
        type=int,
        help=f"images of a step (default {FULL.cpu_batch}; on a GPU halved until it fits)",
    )
    parser.add_argument("--rounds", type=int, help=f"interleaved rounds (default {FULL.rounds})")
    parser.add_argument(
        "--save",
        action="store_true",
        help="also write benchmarks/results/training-DEVICE-DATE.{txt,json}",
    )
    parser.add_argument(
        "--small",
        action="store_true",
        help="a smoke run: tiny networks, one round, meaningless figures",
    )
    options = parser.parse_args()
    if unknown := [section for section in options.sections if section not in SECTIONS]:
        parser.error(f"unknown section {unknown[0]!r}; valid are {', '.join(SECTIONS)}")
    for flag in ("batch", "rounds"):
        value = getattr(options, flag)
        if value is not None and not value > 0:
            parser.error(f"--{flag} must be above 0")
    if options.save and options.small:
        parser.error("--save keeps figures; those of --small mean nothing")

    scale = SMOKE if options.small else FULL
    torch.set_num_threads(1)
    session = Session(scale, options.rounds or scale.rounds, options.batch)
    with _recorded() as text:
        print(f"{_device()}\n{_versions()}\none thread of the CPU")
        rows = [row for name in options.sections or SECTIONS for row in SECTIONS[name](session)]
        print(f"\n{_table(rows)}")
    if options.save:
        _save(text.getvalue(), rows, session, vars(options))


def _table(rows: list[Result]) -> str:
    lines = ["| work | target | measured |", "|---|---|---|"]
    return "\n".join(lines + [f"| {row.work} | {row.target} | {row.measured} |" for row in rows])


def _device() -> str:
    return (
        f"{torch.cuda.get_device_name()}, {processor()}"
        if torch.cuda.is_available()
        else processor()
    )


def _versions() -> str:
    return f"{versions()}, CUDA {torch.version.cuda}" if torch.cuda.is_available() else versions()


@contextmanager
def _recorded() -> Iterator[io.StringIO]:
    """Keeps what is printed inside, which is printed all the same."""
    text, screen = io.StringIO(), sys.stdout

    class Both(io.TextIOBase):
        def write(self, part: str) -> int:
            text.write(part)
            written = screen.write(part)
            screen.flush()
            return written

    with contextlib.redirect_stdout(Both()):
        yield text


def _save(text: str, rows: list[Result], session: Session, options: dict[str, Any]) -> None:
    today = date.today().isoformat()
    name = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else processor().partition(",")[0]
    )
    device = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"training-{device}-{today}"
    values = {
        "date": today, "device": _device(), "system": platform.platform(), "versions": _versions(), "options": options,
        "rows": [asdict(row) for row in rows], "throughput": session.throughput,
    }  # fmt: skip
    path.with_name(f"{path.name}.json").write_text(
        json.dumps(values, indent=2) + "\n", encoding="utf-8"
    )
    path.with_name(f"{path.name}.txt").write_text(f"{today}\n{text}", encoding="utf-8")
    print(f"\nwritten to {path}.txt and .json")


if __name__ == "__main__":
    main()
