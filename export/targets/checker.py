"""Whether a network fits a chip, and why not.

What is published of a chip is checked, and nothing was run on one: a network that fits here may
still fail there.
"""

import math

import nir

from export.nir.graph import check_graph
from export.targets.find_layers import find_layers
from export.targets.layers import Network
from export.targets.limits import Cores, targets
from export.targets.placement import Placement, most_features, place
from export.targets.result import Check
from export.targets.rules import CHIP, Finding, chip_findings, layer_findings, plural
from zoo.errors import ExportError, InputError

__all__ = ["check"]


def check(graph: nir.NIRGraph, target: str, *, dt: float | None = None) -> Check:
    """Compare a graph with what is published of the chip `target`.

    `dt` is the seconds a step of a graph whose metadata have none. Raises `InputError` for a target
    that is not known and `ExportError` for a graph that is not sound or has no neuron.
    """
    if target not in targets():
        raise InputError(f"target {target!r} is not known; valid are {', '.join(targets())}")
    chip, checked = targets()[target], check_graph(graph, dt=dt)
    network = find_layers(checked)
    if not network.layers:
        what = "the graph has no spiking neuron"
        raise ExportError(f"{what}, so that there is nothing to place on a chip")
    findings = list(chip_findings(network, chip.chip))
    placement = place(network, chip.cores) if chip.cores else None
    if chip.cores and placement:
        findings += _core_findings(chip.cores, network, placement)
    for layer in network.layers.values():
        limits = chip.limits | chip.input if network.entry in layer.reads else chip.limits
        findings += layer_findings(layer, network, limits)
    assumed_dt = checked.dt if checked.dt_assumed else None
    return Check(chip, network, tuple(findings), placement, assumed_dt)


def _core_findings(cores: Cores, network: Network, placement: Placement) -> list[Finding]:
    """Return what does not fit of the number of cores, and of the size of each."""
    findings = []
    if placement.needed > placement.present:
        needed, present = (f"{n:,} cores" for n in (placement.needed, placement.present))
        findings.append(Finding(CHIP, "cores", needed, present, _fewer_cores(cores, placement)))
    elif placement.left_out:
        taken = f"{', '.join(placement.left_out)}: every core that is large enough is taken"
        change = "fewer channels in a layer that shares its kind of core"
        findings.append(Finding(CHIP, "cores", taken, "a core for each layer", change))
    for name in placement.too_large:
        layer, needs = network.layers[name], placement.places[name].needs
        channels = most_features(layer, cores)
        change = "fewer input channels, or a smaller image"
        if channels:
            change = f"at most {channels} output channels, now {layer.channels}"
        words = ", ".join(f"{number:,} {key.replace('_', ' ')}" for key, number in needs.items())
        findings.append(Finding(name, "core", words, "no core has as much", change))
    return findings


def _fewer_cores(cores: Cores, placement: Placement) -> str:
    """Return the smallest change after which there are enough cores."""
    if cores.placement == "whole":
        return plural(placement.needed - placement.present, "layer") + " fewer"
    chips = math.ceil(placement.needed / placement.present)
    return f"at least {chips} chips, or a smaller network"
