"""The same layers as networks without spikes, priced on the same device.

Three artificial networks stand beside the spiking one:

    dense           every weight meets its input once: a MAC
    zero-skipping   the same, but inputs of zero are skipped; a neuron that never fires stands for
                    an activation of zero
    b-bit           b = ceil(log2(T + 1)) bits hold the number of spikes that a neuron can send in
                    T steps. A product with so few bits is b accumulates, one for each bit, so that
                    it needs no price but that of an accumulate

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

from export.energy.devices import Band, Device
from export.energy.operations import Operation
from export.energy.totals import LayerTotals, price_of_mean

__all__ = ["Alternative", "compare", "memory_inclusive_rate"]


@dataclass(frozen=True)
class Alternative:
    """One network without spikes, on one device; picojoules an image."""

    name: str
    explanation: str
    operations: dict[str, float]  # mean over images
    energy: Band | None  # None without a price
    break_even: float | None  # firing rate; None where none would do, or without a price
    accuracy: float | None = None  # always None: such a network was never trained


def compare(
    layers: Sequence[LayerTotals],
    images: int,
    steps: int,
    rate: float,
    spiking: Band | None,
    device: Device,
) -> tuple[Alternative, ...]:
    """Return the three networks without spikes, with their energies and break-even rates.

    They are set beside a spiking network of energy `spiking` at the mean firing rate `rate`.
    """
    fed_by_spikes = [layer for layer in layers if layer.input_kind != "real"]
    events = {key: _mean(fed_by_spikes, key + "s", images) for key in ("ac", "add")}
    event_driven = _energy(events, device)
    alternatives = []
    for name, explanation, operations in _networks(layers, images, steps):
        energy = _energy(operations, device)
        break_even = None
        if energy and spiking and event_driven and event_driven.typ:
            even = rate * (1 + (energy.typ - spiking.typ) / event_driven.typ)
            break_even = even if even > 0 else None
        alternatives.append(Alternative(name, explanation, operations, energy, break_even))
    return tuple(alternatives)


def memory_inclusive_rate(steps: int) -> float:
    """Return the break-even rate of Yan et al. 2024, against ceil(log2(T + 1)) bits."""
    return math.ceil(math.log2(steps + 1)) / (8 * steps)


def _networks(
    layers: Sequence[LayerTotals], images: int, steps: int
) -> list[tuple[str, str, dict[str, float]]]:
    """Return name, explanation, and mean operations an image of each network without spikes."""
    fed_by_spikes = [layer for layer in layers if layer.input_kind != "real"]
    real = float(sum(layer.connections for layer in layers if layer.input_kind == "real"))
    dense = float(sum(layer.connections for layer in fed_by_spikes))
    active = _mean(fed_by_spikes, "active_acs", images)
    fixed = {
        "add": float(sum(layer.dense_adds for layer in layers)),
        "multiply": float(sum(layer.outputs for layer in layers if layer.kind == "scale")),
    }
    bits = math.ceil(math.log2(steps + 1))
    skipping = "no MAC for an input of zero: a neuron that never fires"
    accumulates = "an accumulate for each bit and weight"
    return [
        ("dense ANN", "every weight meets its input once", {"mac": real + dense, **fixed}),
        ("zero-skipping ANN", skipping, {"mac": real + active, **fixed}),
        (f"{bits}-bit ANN", accumulates, {"mac": real, "ac": bits * dense, **fixed}),
    ]


def _mean(layers: Sequence[LayerTotals], key: str, images: int) -> float:
    return sum(layer.counts[key] for layer in layers) / images


def _energy(operations: dict[str, float], device: Device) -> Band | None:
    """Return the energy of an image; None where one of its operations has no price."""
    return price_of_mean({Operation(kind): n for kind, n in operations.items() if n}, device)
