"""Fair timing on a shared machine: contenders take turns, and medians are compared.

In every round each contender runs once, `A B C A B C ...`, after one call that does not count. Two
clocks run, in seconds: CPU time of this process and of the children it waited for, which a busy
machine does not change much, and wall time, which is what a user waits for. Ratios are of CPU
time; with one thread on a quiet machine both are the same.
"""

import platform
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from statistics import median

__all__ = ["Ratio", "Times", "compare", "cpu_time", "ratio", "ratio_of", "share", "versions"]

PACKAGES = (
    "torch snntorch onnx onnxruntime openvino onnxscript nir safetensors numpy spikingjelly "
    "neurobench syops"
).split()


@dataclass(frozen=True)
class Times:
    """Seconds of every round of one contender."""

    cpu: tuple[float, ...]
    wall: tuple[float, ...]

    @property
    def milliseconds(self) -> float:
        """The median of CPU time."""
        return 1000 * median(self.cpu)

    def __str__(self) -> str:
        return f"{self.milliseconds:9.1f} ms CPU {1000 * median(self.wall):9.1f} ms wall"


@dataclass(frozen=True)
class Ratio:
    """How many times longer one contender takes than another."""

    value: float  # of the medians
    low: float  # the least of any round
    high: float  # the greatest of any round

    def __str__(self) -> str:
        return f"{self.value:.2f}x ({self.low:.2f} to {self.high:.2f})"

    @property
    def overhead(self) -> str:
        """The same as an overhead: 1.15x is +15 %."""
        value, low, high = (100 * (x - 1) for x in (self.value, self.low, self.high))
        return f"{value:+.0f} % ({low:+.0f} to {high:+.0f})"


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
    """Return the ratio of the CPU times of two contenders."""
    return ratio_of(longer.cpu, shorter.cpu)


def ratio_of(longer: Sequence[float], shorter: Sequence[float]) -> Ratio:
    """Return the ratio of the times of two contenders, round by round."""
    rounds = [a / b for a, b in zip(longer, shorter, strict=True)]
    return Ratio(median(longer) / median(shorter), min(rounds), max(rounds))


def share(speed: float, peak: float | None, dtype: str) -> str:
    """Return how much of the peak in `dtype` is reached, such as `59 % of int8`."""
    if peak is None:
        return f"no fast product in {dtype} here"
    if speed > peak:
        return f"above the product in {dtype}"  # so that was no peak
    return f"{100 * speed / peak:.0f} % of {dtype}"


def cpu_time() -> float:
    """Return the CPU seconds of this process and of the children it waited for, on all threads."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def versions() -> str:
    """Return the versions of Python and of every package that takes part and is installed."""
    lines = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            lines.append(f"{package} {version(package)}")
    return ", ".join(lines)
