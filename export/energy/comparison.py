"""The same network without spikes: what an artificial network of the same layers would cost on the
same device.

    dense           every weight meets its input once: a MAC
    zero-skipping   the same, but inputs of zero are skipped; a neuron that never fires stands for an activation of zero
    b-bit           b = ceil(log2(T + 1)) bits hold the number of spikes that a neuron can send in T steps. A product with so few
                    bits is b accumulates, one for each bit, so that it needs no price but that of an accumulate

All of them run once for an image, layers that read the image as MAC, and pay for biases, residual
sums, pools and one comparison for each activation. None of them has been trained here, so none has
an accuracy, and no energy is said to be so many times another.

The break-even rate is the firing rate at which the spiking network would cost as much, if all of
its event-driven operations grew in proportion to it. Yan et al. (Reconsidering the Energy
Efficiency of SNNs, 2024) find about b / (8 T) in a model with memories.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from export.energy.profiles import Band, Operation, Profile
from export.energy.totals import LayerTotals

__all__ = ["Alternative", "compare", "memory_inclusive_rate"]

MAC, AC, ADD, MULTIPLY = (Operation(kind) for kind in ("mac", "ac", "add", "multiply"))


@dataclass(frozen=True)
class Alternative:
    """One network without spikes, on one profile; picojoules an image."""

    name: str
    explanation: str
    operations: dict[str, float]  # mean over images
    energy: Band | None  # None without a price
    break_even: float | None  # firing rate; None where none would do, or without a price
    # top-1 on the images counted; none is known of a network that was never trained
    accuracy: float | None = None


def compare(
    layers: Sequence[LayerTotals],
    images: int,
    steps: int,
    rate: float,
    spiking: Band | None,
    profile: Profile,
) -> tuple[Alternative, ...]:
    """The three, beside a spiking network of energy `spiking` at the mean firing rate `rate`."""
    bits = math.ceil(math.log2(steps + 1))
    adds = float(sum(layer.dense_adds for layer in layers))
    scales = float(sum(layer.outputs for layer in layers if layer.kind == "scale"))
    real = float(sum(layer.connections for layer in layers if layer.input_kind == "real"))
    fed = [layer for layer in layers if layer.input_kind != "real"]
    dense = float(sum(layer.connections for layer in fed))
    active = sum(layer.counts["active_acs"] for layer in fed) / images
    fixed = {"add": adds, "multiply": scales}
    found = [
        ("dense ANN", "every weight meets its input once", {"mac": real + dense, **fixed}),
        (
            "zero-skipping ANN",
            "no MAC for an input of zero: a neuron that never fires",
            {"mac": real + active, **fixed},
        ),
        (
            f"{bits}-bit ANN",
            f"{bits} accumulates for each weight: one for each bit",
            {"mac": real, "ac": bits * dense, **fixed},
        ),
    ]
    driven = _cost({"ac": _mean(fed, "acs", images), "add": _mean(fed, "adds", images)}, profile)
    alternatives = []
    for name, explanation, operations in found:
        energy = _cost(operations, profile)
        even = None
        if energy and spiking and driven and driven.typ:
            even = rate * (1 + (energy.typ - spiking.typ) / driven.typ)
        alternatives.append(
            Alternative(name, explanation, operations, energy, even if even and even > 0 else None)
        )
    return tuple(alternatives)


def memory_inclusive_rate(steps: int) -> float:
    """The break-even rate of Yan et al. 2024 against a network of ceil(log2(T + 1)) bits."""
    return math.ceil(math.log2(steps + 1)) / (8 * steps)


def _mean(layers: Sequence[LayerTotals], key: str, images: int) -> float:
    return sum(layer.counts[key] for layer in layers) / images


def _cost(operations: dict[str, float], profile: Profile) -> Band | None:
    prices = {kind: profile.price(Operation(kind)) for kind, n in operations.items() if n}
    bands = [(operations[kind], price) for kind, price in prices.items() if price]
    if len(bands) < len(prices):
        return None
    return Band(
        *(math.fsum(n * getattr(band, key) for n, band in bands) for key in ("lo", "typ", "hi"))
    )
