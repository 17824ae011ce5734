"""Fair timing on a machine that is not ours alone: contenders take turns, `A B C A B C ...`, and
medians are compared.

Two clocks run: CPU time of this process and of the children it waited for, which a busy machine
does not change much, and wall time, which is what a user waits for. Ratios are of CPU time; with
one thread on a quiet machine both say the same.
"""

import platform
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from statistics import median

__all__ = ["Ratio", "Times", "compare", "cpu_time", "ratio", "share", "versions"]

PACKAGES = (
    "torch",
    "snntorch",
    "onnx",
    "onnxruntime",
    "openvino",
    "onnxscript",
    "nir",
    "safetensors",
    "numpy",
    "spikingjelly",
    "neurobench",
    "syops",
)


@dataclass(frozen=True)
class Times:
    """Seconds of every round of one contender."""

    cpu: tuple[float, ...]
    wall: tuple[float, ...]

    @property
    def milliseconds(self) -> float:
        """Median CPU time."""
        return 1000 * median(self.cpu)

    def __str__(self) -> str:
        return f"{self.milliseconds:9.1f} ms CPU {1000 * median(self.wall):9.1f} ms wall"


@dataclass(frozen=True)
class Ratio:
    """How many times longer one contender takes: of the medians, and the least and greatest of any
    round.
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f}x ({self.low:.2f} to {self.high:.2f})"

    @property
    def overhead(self) -> str:
        """The same as an overhead: 1.15x is +15 %."""
        return f"{100 * (self.value - 1):+.0f} % ({100 * (self.low - 1):+.0f} to {100 * (self.high - 1):+.0f})"


def compare(title: str, calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Times]:
    """Time `rounds` turns of every call after one that does not count, and print the medians."""
    clocks: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            cpu, wall = cpu_time(), time.perf_counter()
            call()
            clocks[name].append((cpu_time() - cpu, time.perf_counter() - wall))
    times = {
        name: Times(tuple(c for c, _ in turns), tuple(w for _, w in turns))
        for name, turns in clocks.items()
    }
    print(f"\n{title}: medians of {rounds} interleaved rounds")
    for name, value in times.items():
        print(f"  {name:42} {value}")
    return times


def ratio(longer: Times, shorter: Times) -> Ratio:
    turns = [a / b for a, b in zip(longer.cpu, shorter.cpu, strict=True)]
    return Ratio(median(longer.cpu) / median(shorter.cpu), min(turns), max(turns))


def share(speed: float, peak: float | None, dtype: str) -> str:
    """How much of a peak in `dtype` is reached: `59 % of int8`."""
    if peak is None:
        return f"no fast product in {dtype} here"
    if speed > peak:
        return f"above the product in {dtype}"  # so that was no peak
    return f"{100 * speed / peak:.0f} % of {dtype}"


def cpu_time() -> float:
    """Seconds that this process and the children it waited for have computed, all threads together."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def versions() -> str:
    """Python and every package that takes part, where it is installed."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)
