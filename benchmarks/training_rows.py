"""Scale, session and rows of the table, which the sections of training.py share."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from run import Row
from timing import Times, ratio

__all__ = [
    "FULL",
    "SMOKE",
    "TITLES",
    "Result",
    "Scale",
    "Session",
    "above",
    "memory_row",
    "time_row",
]

TITLES = {
    "ours": "ours",
    "loop": "snnTorch loop",
    "compiled": "torch.compile",
    "spikingjelly": "SpikingJelly",
}


@dataclass(frozen=True)
class Result(Row):
    """A row of the table, and the numbers that it was made of."""

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
    """The options of a run, and the images per second that its sections measure."""

    scale: Scale
    rounds: int
    batch: int | None  # None: that of the scale
    throughput: list[dict[str, Any]] = field(default_factory=list)

    def add_throughput(
        self, network: str, batch: int, precision: str, speed: float, where: str
    ) -> None:
        """Note the images per second of a network, from which training_cost.py makes hours."""
        entry = {"network": network, "batch": batch, "precision": precision}
        self.throughput.append(entry | {"images_per_second": speed, "where": where})


def time_row(work: str, target: str, ours: Times, other: Times) -> Result:
    """Return the row of a time beside that of another contender."""
    against = ratio(ours, other)
    measured = f"{against}; {ours.milliseconds:.0f} against {other.milliseconds:.0f} ms"
    figures = {"ratio": asdict(against), "ours": asdict(ours), "other": asdict(other)}
    return Result(work, target, measured, figures)


def memory_row(work: str, target: str, ours: dict[str, float], other: dict[str, float]) -> Result:
    """Return the row of a peak of memory beside that of another contender.

    Both are what `train_once` returns.
    """
    peak, rest = ours["peak"] / other["peak"], above(ours) / above(other)
    peaks = f"{ours['peak'] / 1e9:.2f} against {other['peak'] / 1e9:.2f} GB"
    rests = f"{above(ours) / 1e9:.2f} against {above(other) / 1e9:.2f} GB"
    return Result(
        work,
        target,
        f"{peak:.2f}x; {peaks}; above libraries, weights and batch {rest:.2f}x; {rests}",
        {"ratio": peak, "ratio_above_baseline": rest, "ours": ours, "other": other},
    )


def above(once: Mapping[str, float]) -> float:
    """Return the bytes of a peak beyond libraries, weights and batch."""
    return once["peak"] - once["baseline"]
