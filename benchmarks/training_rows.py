"""What the sections of training.py share: the scale they run at, and a line of their table."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from run import Row

__all__ = ["FULL", "SMOKE", "TITLES", "Result", "Scale", "Session", "above", "memory_row"]

TITLES = {
    "ours": "ours",
    "loop": "snnTorch loop",
    "compiled": "torch.compile",
    "spikingjelly": "SpikingJelly",
}


@dataclass(frozen=True)
class Result(Row):
    """A line of the table, and the numbers that it was made of."""

    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """Which networks are trained, and how often."""

    cpu: str
    cpu_batch: int
    depths: tuple[int, ...]  # on a GPU, at 224 pixels
    gpu_batch: int  # halved until every contender fits
    images: int  # of the neuron's tensor on a GPU, [4, images, 256, 64, 64]
    rounds: int


FULL = Scale("danet18-t4.cifar10", 64, (18, 50), 64, images=64, rounds=7)
SMOKE = Scale("danet20-t2.fmnist", 4, (18,), 4, images=4, rounds=1)


@dataclass
class Session:
    """What the sections are asked for, and what they find beside their rows."""

    scale: Scale
    rounds: int
    batch: int | None
    throughput: list[dict[str, Any]] = field(default_factory=list)


def memory_row(work: str, target: str, ours: dict[str, float], other: dict[str, float]) -> Result:
    whole, rest = ours["peak"] / other["peak"], above(ours) / above(other)
    return Result(
        work,
        target,
        f"{whole:.2f}x; {ours['peak'] / 1e9:.2f} against {other['peak'] / 1e9:.2f} GB; above libraries, weights and batch "
        f"{rest:.2f}x; {above(ours) / 1e9:.2f} against {above(other) / 1e9:.2f} GB",
        {"ratio": whole, "ratio_above_baseline": rest, "ours": ours, "other": other},
    )


def above(once: Mapping[str, float]) -> float:
    """Bytes of the peak beyond libraries, weights and batch, of what `train_once` returns."""
    return once["peak"] - once["baseline"]
