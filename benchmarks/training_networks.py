"""The section `networks` of training.py: steps of several networks, stems and T on one core, in
float32, beside their peers.
"""

from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from typing import NamedTuple

from timing import compare, ratio
from torch import Tensor
from train_once import batch_of, network_of, training_step
from training_rows import SMOKE, TITLES, Result, Session

__all__ = ["networks"]


class Network(NamedTuple):
    """A network at 32 pixels, and whom it is timed beside."""

    name: str
    stem: str
    peers: tuple[str, ...]
    target: str = ""


LOOP = ("loop",)
NETWORKS = (
    Network("danet20-t1.cifar10", "small", ("loop", "compiled")),
    Network("danet20-t4.cifar10", "small", LOOP),
    Network("danet18-t1.cifar10", "medium", LOOP),
    Network("danet18-t4.cifar10", "medium", LOOP, "0.60x"),
    Network("danet18-t1.cifar10", "small", LOOP),
    Network("danet18-t4.cifar10", "small", LOOP, "0.60x"),
    Network("danet50-t1.cifar10", "medium", LOOP),
    Network("danet50-t1.cifar10", "small", LOOP),
    # the one network that SpikingJelly has, with its stem
    Network("sew-resnet18-t4.cifar10", "sew", ("loop", "spikingjelly")),
)
SMALL = (Network("danet20-t1.cifar10", "medium", LOOP),)


def networks(session: Session) -> list[Result]:
    """Times of a training step against those of each peer that is installed; the contenders take
    turns in one process.
    """
    chosen = SMALL if session.scale is SMOKE else NETWORKS
    return [row for network in chosen for row in _rows(network, session)]


def _rows(network: Network, session: Session) -> list[Result]:
    batch = session.batch or session.scale.cpu_batch
    x, labels = batch_of(network.name, batch)
    installed = [
        peer for peer in network.peers if peer != "spikingjelly" or find_spec("spikingjelly")
    ]
    calls: dict[str, Callable[[], Tensor]] = {
        how: training_step(
            network_of(network.name, how, stem=network.stem), x, labels, precision="fp32"
        )
        for how in ("ours", *installed)
    }
    work = f"training step of {network.name}, {network.stem} stem, batch {batch}, float32"
    times = compare(f"{work}, one thread", calls, session.rounds)
    rows = []
    for peer in network.peers:
        against = f"{work}, against {TITLES[peer]}"
        target = network.target if peer == "loop" else ""
        if peer not in installed:
            rows.append(Result(against, target, "not installed"))
            continue
        found = ratio(times["ours"], times[peer])
        shown = (
            f"{found}; {times['ours'].milliseconds:.0f} against {times[peer].milliseconds:.0f} ms"
        )
        figures = {
            "ratio": asdict(found),
            "ours": asdict(times["ours"]),
            "other": asdict(times[peer]),
        }
        rows.append(Result(against, target, shown, figures))
    return rows
