"""What each simulator makes of our files: the data of the tests, and of the tables in
docs/interop.md.

`python tests/interop/outcomes.py` prints both tables.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np

from export.nir.exporter import Profile

__all__ = [
    "COLUMNS",
    "MARGIN",
    "NETWORKS",
    "NEURONS",
    "VERSIONS",
    "Network",
    "Neuron",
    "Refused",
    "Wrong",
]
__all__ += ["networks_table", "neurons_table"]

VERSIONS = {
    "snntorch": "1.0.0",
    "spikingjelly": "2.0.0",
    "norse": "1.1.0",
    "nirtorch": "2.6",
    "nir": "1.0.8",
}
COLUMNS = ("snnTorch", "SpikingJelly", "Norse", "Norse's modules", "nirtorch")
# Where no membrane lies nearer to its threshold, no order of a sum, and neither `>` nor `>=`,
# decides a spike.
MARGIN = 5e-6
SMALL = {"widths": (4, 6, 8)}
SHORT = {"depths": (1, 1), "widths": (4, 6)}


@dataclass(frozen=True)
class Wrong:
    """It gives other spikes or another output; or, in some orders of its sets, raises `error`."""

    why: str
    error: tuple[type[Exception], ...] = ()


@dataclass(frozen=True)
class Refused:
    """It raises."""

    why: str
    error: type[Exception]
    message: str


SCALE = Refused("knows no Scale", ValueError, r"Unknown node type .*Scale")
THRESHOLD = Refused(
    "knows no Threshold, Scale, Delay and I",
    ValueError,
    r"Unknown node type .*(Threshold|Scale|Delay|\.I')",
)
GAIN = Refused(
    "takes no IF with `r` = 1/dt; one with `r` = 1 gets a decay of 0.9",
    AssertionError,
    "r != 1 not supported",
)
EARLY = Wrong(
    "runs a node before all that it reads, wherever a path around it has a node of its own",
    (RuntimeError,),
)
LOST = Refused(
    "knows no Scale, Threshold, Delay and I, and loses their edges", KeyError, "stage|stem"
)
EXACT = "exact"
Outcome = str | Wrong | Refused


@dataclass(frozen=True)
class Network:
    """`name-t{steps}{data}` at each of the sizes, and what comes of it, by the importers in the
    order of `COLUMNS`.
    """

    name: str
    cases: tuple[tuple[int, int], ...]  # steps, pixels
    outcomes: tuple[Outcome, ...]
    data: str = ".fmnist"
    config: Mapping[str, Any] = field(default_factory=SMALL.copy)
    note: str = ""
    profile: Profile = "portable"


CIFAR, LARGE = ((4, 12), (8, 13)), ((2, 33),)
BOTTLENECK = {"depths": (1, 1), "widths": (8, 12)}
LONG = {"depths": (17, 1, 1), "widths": (4, 6, 8)}
ALL_BUT_NORSE = (EXACT, EXACT, EARLY, EXACT, EXACT)
NETWORKS = [
    *(Network(f"danet20{order}", CIFAR, ALL_BUT_NORSE) for order in ("", "b", "c", "d")),
    *(Network(name, CIFAR, ALL_BUT_NORSE) for name in ("ms-resnet20", "spiking-resnet20")),
    *(Network(f"sew-resnet20{join}", CIFAR, ALL_BUT_NORSE) for join in ("", "and", "iand")),
    Network("danet20", ((4, 12),), ALL_BUT_NORSE, config=LONG, note=", 17 blocks in a stage"),
    Network("danet18", ((4, 17),), ALL_BUT_NORSE, ".tin200", SHORT),
    Network("danet18", LARGE, ALL_BUT_NORSE, ".in1k", SHORT),
    Network("danet50", LARGE, ALL_BUT_NORSE, ".in1k", BOTTLENECK),
    Network("sew-resnet18", LARGE, ALL_BUT_NORSE, ".in1k", SHORT),
    Network(
        "danet20b",
        ((4, 12),),
        (SCALE, SCALE, LOST, SCALE, EXACT),
        note=", native",
        profile="native",
    ),
    Network(
        "sew-resnet20",
        ((4, 12),),
        (GAIN, EXACT, EARLY, EXACT, EXACT),
        note=", native",
        profile="native",
    ),
    Network(
        "speck-danet8", CIFAR, (THRESHOLD, THRESHOLD, LOST, THRESHOLD, EXACT), note=", subtract"
    ),
]


@dataclass(frozen=True)
class Neuron:
    """The spikes of the second of two neurons for `currents`, by the importers in the order of
    `COLUMNS`.
    """

    what: str
    node: nir.NIRNode
    currents: tuple[float, ...]
    outcomes: tuple[str | Refused, ...]


def _neurons(kind: type, **fields: float | tuple[float, float]) -> nir.NIRNode:
    return kind(
        **{
            name: np.broadcast_to(np.reshape(np.float32(value), (-1, 1, 1)), (2, 1, 1))
            for name, value in fields.items()
        }
    )


LIF = {"tau": 2e-4, "r": 1.0, "v_leak": 0.0, "v_reset": 0.0, "v_threshold": 0.25}
LEAK = Refused("v_leak", ValueError, "v_leak must equal v_reset")
NO_LEAK = Refused("v_leak", AssertionError, "v_leak not supported")
UNIFORM = Refused("uniform", ValueError, "must be uniform across all neurons")
ONE_THRESHOLD = Refused("uniform", AssertionError, "v_threshold must be same for all neurons")
SHORT_TAU = Refused("tau", ValueError, "must be finite and greater than 1")
NEURONS = [
    Neuron(
        "a LIF of our files",
        _neurons(nir.LIF, **LIF),
        (0.375, 0.375, 0.375, 1, 0, 0.25),
        ("010100",) * 5,
    ),
    Neuron(
        "an IF of our files",
        _neurons(nir.IF, r=1e4, v_threshold=1, v_reset=0),
        (0.75,) * 4,
        (GAIN, *("0101",) * 4),
    ),
    Neuron(
        "a membrane exactly on the threshold",
        _neurons(nir.LIF, **LIF),
        (0.5,) * 3,
        ("010", "111", *("010",) * 3),
    ),
    Neuron(
        "`v_reset` = -1",
        _neurons(nir.LIF, **LIF | {"v_reset": -1}),
        (1,) * 4,
        ("1111", LEAK, "1111", "1111", "1010"),
    ),
    Neuron(
        "`r` = 2",
        _neurons(nir.LIF, **LIF | {"r": 2}),
        (0.375,) * 4,
        ("1111", "1111", "0101", "0101", "1111"),
    ),
    Neuron(
        "`v_leak` = 0.25",
        _neurons(nir.LIF, **LIF | {"v_leak": 0.25}),
        (0.3,) * 4,
        (NO_LEAK, LEAK, *("1111",) * 3),
    ),
    Neuron(
        "`tau` = dt",
        _neurons(nir.LIF, **LIF | {"tau": 1e-4}),
        (0.2, 0.3) * 2,
        ("0101", SHORT_TAU, *("0101",) * 3),
    ),
    Neuron(
        "two `tau` in one node",
        _neurons(nir.LIF, **LIF | {"tau": (4e-4, 2e-4)}),
        (0.375,) * 4,
        ("0000", UNIFORM, *("0101",) * 3),
    ),
    Neuron(
        "two thresholds in one node",
        _neurons(nir.LIF, **LIF | {"v_threshold": (0.25, 0.125)}),
        (0.375,) * 4,
        (ONE_THRESHOLD, UNIFORM, *("1111",) * 3),
    ),
]


def networks_table() -> str:
    """Markdown: a row for each network, and the reasons below."""
    reasons: list[str] = []
    rows = []
    for network in NETWORKS:
        cells = [f"`{network.name}{network.data}`{network.note}"]
        for outcome in network.outcomes:
            if isinstance(outcome, str):
                cells.append(outcome)
                continue
            if outcome.why not in reasons:
                reasons.append(outcome.why)
            cells.append(
                f"{'wrong' if isinstance(outcome, Wrong) else 'refused'} ({reasons.index(outcome.why) + 1})"
            )
        rows.append(cells)
    return (
        _markdown("network", rows)
        + "\n"
        + "\n".join(f"{i}. {why[0].upper()}{why[1:]}." for i, why in enumerate(reasons, 1))
    )


def neurons_table() -> str:
    """Markdown: a row for each neuron, with its spikes."""
    rows = []
    for neuron in NEURONS:
        rows.append(
            [neuron.what, *(o if isinstance(o, str) else "refused" for o in neuron.outcomes)]
        )
    return _markdown("neuron", rows)


def _markdown(first: str, rows: list[list[str]]) -> str:
    lines = [[first, *COLUMNS], ["---"] * (len(COLUMNS) + 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(networks_table(), neurons_table(), sep="\n\n")
