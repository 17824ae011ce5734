"""The section `networks` of training.py: steps of several networks, stems and T on one core.

All are in float32. Times are medians of interleaved rounds, in milliseconds, beside those of peers.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

from timing import compare
from torch import Tensor
from train_once import batch_of, network_of, training_step
from training_rows import SMOKE, TITLES, Result, Session, time_row

__all__ = ["networks"]


class Network(NamedTuple):
    """A network at 32 pixels, and the peers that it is timed beside."""

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
    # This is the one network that SpikingJelly has, with SpikingJelly's stem.
    Network("sew-resnet18-t4.cifar10", "sew", ("loop", "spikingjelly")),
)
SMALL = (Network("danet20-t1.cifar10", "medium", LOOP),)


def networks(session: Session) -> list[Result]:
    """Time a training step of each network beside every peer that is installed.

    The contenders take turns in one process.
    """
    chosen = SMALL if session.scale is SMOKE else NETWORKS
    return [row for network in chosen for row in _rows(network, session)]


def _rows(network: Network, session: Session) -> list[Result]:
    batch = session.batch or session.scale.cpu_batch
    x, labels = batch_of(network.name, batch)
    calls: dict[str, Callable[[], Tensor]] = {}
    for how in ("ours", *network.peers):
        if how != "spikingjelly" or find_spec("spikingjelly"):
            net = network_of(network.name, how, stem=network.stem)
            calls[how] = training_step(net, x, labels, precision="fp32")
    work = f"training step of {network.name}, {network.stem} stem, batch {batch}, float32"
    times = compare(f"{work}, one thread", calls, session.rounds)
    rows = []
    for peer in network.peers:
        title = f"{work}, against {TITLES[peer]}"
        target = network.target if peer == "loop" else ""
        if peer in times:
            rows.append(time_row(title, target, times["ours"], times[peer]))
        else:
            rows.append(Result(title, target, "not installed"))
    return rows
