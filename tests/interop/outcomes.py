"""Expected outcomes: which simulator computes which of our files, or why it does not.

They are the data of the tests and of the tables in docs/interop.md, which
`python tests/interop/outcomes.py` prints.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import nir
import numpy as np

from export.nir.exporter import Dialect

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
    "networks_table",
    "neurons_table",
]

VERSIONS = {
    "snntorch": "1.0.0",
    "spikingjelly": "2.0.0",
    "norse": "1.1.0",
    "nirtorch": "2.6",
    "nir": "1.0.8",
}
COLUMNS = ("snnTorch", "SpikingJelly", "Norse", "Norse's modules", "nirtorch")
# Where no membrane lies nearer to its threshold than this, no spike depends on the order of a sum,
# or on whether `>` or `>=` is computed.
MARGIN = 5e-6
SMALL = {"widths": (4, 6, 8)}
SHORT = {"depths": (1, 1), "widths": (4, 6)}


@dataclass(frozen=True)
class Wrong:
    """The simulator computes other spikes or another output.

    In some orders of its sets it raises one of the errors instead.
    """

    why: str
    error: tuple[type[Exception], ...] = ()


@dataclass(frozen=True)
class Refused:
    """The simulator raises an error, whose message matches the pattern."""

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
    """A network, `{name}-t{steps}{data}`, and its outcomes."""

    name: str
    cases: tuple[tuple[int, int], ...]  # steps, and pixels of a side
    outcomes: tuple[Outcome, ...]  # in the order of `COLUMNS`
    data: str = ".fmnist"
    config: Mapping[str, Any] = field(default_factory=SMALL.copy)
    note: str = ""
    dialect: Dialect = "portable"


CIFAR, LARGE = ((4, 12), (8, 13)), ((2, 33),)
BOTTLENECK = {"depths": (1, 1), "widths": (8, 12)}
LONG = {"depths": (17, 1, 1), "widths": (4, 6, 8)}
ALL_BUT_NORSE = (EXACT, EXACT, EARLY, EXACT, EXACT)
NATIVE_SCALE = (SCALE, SCALE, LOST, SCALE, EXACT)
NATIVE_GAIN = (GAIN, EXACT, EARLY, EXACT, EXACT)
SUBTRACTIVE = (THRESHOLD, THRESHOLD, LOST, THRESHOLD, EXACT)
NETWORKS = [
    *(Network(f"danet20{order}", CIFAR, ALL_BUT_NORSE) for order in ("", "b", "c", "d")),
    *(Network(name, CIFAR, ALL_BUT_NORSE) for name in ("ms-resnet20", "spiking-resnet20")),
    *(Network(f"sew-resnet20{join}", CIFAR, ALL_BUT_NORSE) for join in ("", "and", "iand")),
    Network("danet20", ((4, 12),), ALL_BUT_NORSE, config=LONG, note=", 17 blocks in a stage"),
    Network("danet18", ((4, 17),), ALL_BUT_NORSE, ".tin200", SHORT),
    Network("danet18", LARGE, ALL_BUT_NORSE, ".in1k", SHORT),
    Network("danet50", LARGE, ALL_BUT_NORSE, ".in1k", BOTTLENECK),
    Network("sew-resnet18", LARGE, ALL_BUT_NORSE, ".in1k", SHORT),
    Network("danet20b", ((4, 12),), NATIVE_SCALE, note=", native", dialect="native"),
    Network("sew-resnet20", ((4, 12),), NATIVE_GAIN, note=", native", dialect="native"),
    Network("speck-danet8", CIFAR, SUBTRACTIVE, note=", subtract"),
]


@dataclass(frozen=True)
class Neuron:
    """A node of two neurons, and the spikes that its second one fires for `currents`."""

    what: str
    node: nir.NIRNode
    currents: tuple[float, ...]  # one a step
    outcomes: tuple[str | Refused, ...]  # in the order of `COLUMNS`


def _neurons(kind: type, **fields: float | tuple[float, float]) -> nir.NIRNode:
    """Return a node of two neurons, from values for both or for each."""

    def pair(value: float | tuple[float, float]) -> np.ndarray:
        return np.broadcast_to(np.reshape(np.array(value, np.float32), (-1, 1, 1)), (2, 1, 1))

    return kind(**{name: pair(value) for name, value in fields.items()})


def _lif(**changes: float | tuple[float, float]) -> nir.NIRNode:
    """Return a LIF as our files hold it, with some of its fields changed."""
    fields = {"tau": 2e-4, "r": 1.0, "v_leak": 0.0, "v_reset": 0.0, "v_threshold": 0.25}
    return _neurons(nir.LIF, **fields | changes)


LEAK = Refused("v_leak", ValueError, "v_leak must equal v_reset")
NO_LEAK = Refused("v_leak", AssertionError, "v_leak not supported")
UNIFORM = Refused("uniform", ValueError, "must be uniform across all neurons")
ONE_THRESHOLD = Refused("uniform", AssertionError, "v_threshold must be same for all neurons")
SHORT_TAU = Refused("tau", ValueError, "must be finite and greater than 1")
NEURONS = [
    Neuron("a LIF of our files", _lif(), (0.375, 0.375, 0.375, 1, 0, 0.25), ("010100",) * 5),
    Neuron(
        "an IF of our files",
        _neurons(nir.IF, r=1e4, v_threshold=1, v_reset=0),
        (0.75,) * 4,
        (GAIN, *("0101",) * 4),
    ),
    Neuron(
        "a membrane exactly on the threshold", _lif(), (0.5,) * 3, ("010", "111", *("010",) * 3)
    ),
    Neuron("`v_reset` = -1", _lif(v_reset=-1), (1,) * 4, ("1111", LEAK, "1111", "1111", "1010")),
    Neuron("`r` = 2", _lif(r=2), (0.375,) * 4, ("1111", "1111", "0101", "0101", "1111")),
    Neuron("`v_leak` = 0.25", _lif(v_leak=0.25), (0.3,) * 4, (NO_LEAK, LEAK, *("1111",) * 3)),
    Neuron("`tau` = dt", _lif(tau=1e-4), (0.2, 0.3) * 2, ("0101", SHORT_TAU, *("0101",) * 3)),
    Neuron(
        "two `tau` in one node",
        _lif(tau=(4e-4, 2e-4)),
        (0.375,) * 4,
        ("0000", UNIFORM, *("0101",) * 3),
    ),
    Neuron(
        "two thresholds in one node",
        _lif(v_threshold=(0.25, 0.125)),
        (0.375,) * 4,
        (ONE_THRESHOLD, UNIFORM, *("1111",) * 3),
    ),
]


def networks_table() -> str:
    """Return a Markdown table with a row for each network, and the reasons below it."""
    failures = [o for network in NETWORKS for o in network.outcomes if not isinstance(o, str)]
    reasons = list(dict.fromkeys(failure.why for failure in failures))

    def cell(outcome: Outcome) -> str:
        if isinstance(outcome, str):
            return outcome
        kind = "wrong" if isinstance(outcome, Wrong) else "refused"
        return f"{kind} ({reasons.index(outcome.why) + 1})"

    rows = [
        [f"`{network.name}{network.data}`{network.note}", *map(cell, network.outcomes)]
        for network in NETWORKS
    ]
    notes = [f"{i}. {why[0].upper()}{why[1:]}." for i, why in enumerate(reasons, 1)]
    return "\n".join([_markdown("network", rows), *notes])


def neurons_table() -> str:
    """Return a Markdown table with a row for each neuron and its spikes."""
    rows = [
        [neuron.what, *(o if isinstance(o, str) else "refused" for o in neuron.outcomes)]
        for neuron in NEURONS
    ]
    return _markdown("neuron", rows)


def _markdown(first: str, rows: list[list[str]]) -> str:
    lines = [[first, *COLUMNS], ["---"] * (len(COLUMNS) + 1), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    print(networks_table(), neurons_table(), sep="\n\n")
