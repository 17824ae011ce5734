"""Side-by-side measurements of training: seconds and memory of an optimiser step.

    python benchmarks/training.py [cpu] [networks] [gpu] [--batch N] [--rounds N] [--save] [--small]

Without a section it runs all; without a GPU the rows of `gpu` say so. Times are medians of
interleaved rounds, in milliseconds; memory is the peak of a process, in GB. README.md describes
what runs.
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
from timing import compare, versions
from train_once import batch_of, network_of, train_once, training_step
from training_gpu import gpu
from training_networks import networks
from training_rows import FULL, SMOKE, TITLES, Result, Session, above, memory_row, time_row

from zoo.files import write_text
from zoo.processor import processor

RESULTS = Path(__file__).with_name("results")
DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


def cpu(session: Session) -> list[Result]:
    """Time a step of a small ResNet beside the loop, and measure the peak of memory of each.

    The contenders are timed in one process; for its memory each has a process of its own.
    """
    name, batch = session.scale.cpu, session.batch or session.scale.cpu_batch
    model = network(name)
    assert_same(model, images(model, 2))
    assert_same_neuron("cpu")
    x, labels = batch_of(name, batch)
    pairs = [(how, precision) for precision in DTYPES for how in ("loop", "ours")]
    calls = {
        _title(how, precision): training_step(network_of(name, how), x, labels, precision=precision)
        for how, precision in pairs
    }
    times = compare(f"{name}, a training step of {batch} images, one thread", calls, session.rounds)
    for precision in DTYPES:
        speed = batch / median(times[_title("ours", precision)].wall)
        where = f"one core of {processor()}"
        session.add_throughput(name, batch, precision, speed, where)

    print("\npeak memory of the process, and above libraries, weights and batch")
    memory = {pair: train_once(name, pair[0], batch, pair[1], "cpu") for pair in pairs}
    for pair, once in memory.items():
        gigabytes = f"{once['peak'] / 1e9:8.2f} GB {above(once) / 1e9:8.2f} GB above"
        print(f"  {_title(*pair):42} {gigabytes}")

    rows = []
    for mine, other, time_target, memory_target in (
        ("fp32", "fp32", "0.60x", "0.40x"),
        ("bf16", "bf16", "0.40x", "0.30x"),
        ("bf16", "fp32", "", ""),
    ):
        against = f"{DTYPES[mine]}, against the snnTorch loop in {DTYPES[other]}"
        work = f"training step of {name}, batch {batch}, {against}"
        ours, loop = ("ours", mine), ("loop", other)
        rows += [
            time_row(f"{work}: time", time_target, times[_title(*ours)], times[_title(*loop)]),
            memory_row(f"{work}: peak memory", memory_target, memory[ours], memory[loop]),
        ]
    return rows


def _title(how: str, precision: str) -> str:
    return f"{TITLES[how]}, {DTYPES[precision]}"


Section = Callable[[Session], list[Result]]
SECTIONS: dict[str, Section] = {"cpu": cpu, "networks": networks, "gpu": gpu}


def main() -> None:
    """Run the sections of the command line."""
    options = _parse_arguments()
    scale = SMOKE if options.small else FULL
    torch.set_num_threads(1)
    session = Session(scale, options.rounds or scale.rounds, options.batch)
    with _recorded() as text:
        print(f"{_device()}\n{_versions()}\none thread of the CPU")
        rows = [row for name in options.sections or SECTIONS for row in SECTIONS[name](session)]
        print(f"\n{_table(rows)}")
    if options.save:
        _save(text.getvalue(), rows, session, vars(options))


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure training side by side with peers.")
    add, names = parser.add_argument, ", ".join(SECTIONS)
    add("sections", nargs="*", metavar="section", help=f"any of {names}; all if none is given")
    batch = f"images of a step (default {FULL.cpu_batch}; on a GPU halved until it fits)"
    add("--batch", type=int, help=batch)
    add("--rounds", type=int, help=f"interleaved rounds (default {FULL.rounds})")
    files = "benchmarks/results/training-DEVICE-DATE.{txt,json}"
    add("--save", action="store_true", help=f"also write {files}")
    smoke = "a smoke run: tiny networks, one round, meaningless figures"
    add("--small", action="store_true", help=smoke)
    options = parser.parse_args()
    if unknown := [section for section in options.sections if section not in SECTIONS]:
        parser.error(f"unknown section {unknown[0]!r}; valid are {names}")
    for flag in ("batch", "rounds"):
        value = getattr(options, flag)
        if value is not None and not value > 0:
            parser.error(f"--{flag} must be above 0")
    if options.save and options.small:
        parser.error("--save keeps figures; those of --small mean nothing")
    return options


def _table(rows: list[Result]) -> str:
    lines = ["| work | target | measured |", "|---|---|---|"]
    return "\n".join(lines + [f"| {row.work} | {row.target} | {row.measured} |" for row in rows])


def _device() -> str:
    if not torch.cuda.is_available():
        return processor()
    return f"{torch.cuda.get_device_name()}, {processor()}"


def _versions() -> str:
    return f"{versions()}, CUDA {torch.version.cuda}" if torch.cuda.is_available() else versions()


@contextmanager
def _recorded() -> Iterator[io.StringIO]:
    """Give a copy of what is printed inside, which is printed all the same."""
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
    """Write the text, and the figures as JSON, to files named after the device and the day."""
    today = date.today().isoformat()
    device = _device().partition(",")[0]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"training-{re.sub(r'[^a-z0-9]+', '-', device.lower()).strip('-')}-{today}"
    values = {
        "date": today,
        "device": _device(),
        "system": platform.platform(),
        "versions": _versions(),
        "options": options,
        "rows": [asdict(row) for row in rows],
        "throughput": session.throughput,
    }
    write_text(path.with_name(f"{path.name}.json"), json.dumps(values, indent=2) + "\n")
    write_text(path.with_name(f"{path.name}.txt"), f"{today}\n{text}")
    print(f"\nwritten to {path}.txt and .json")


if __name__ == "__main__":
    main()
