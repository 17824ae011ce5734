"""Does a network fit a chip, and why not.

Checked is what is published of a chip, nothing was run on one: a network that fits here may still
fail there.
"""

import math

import nir

from export.nir.graph import check_graph
from export.targets.layers import Network, network
from export.targets.limits import Target, targets
from export.targets.placement import Placement, most_features, place
from export.targets.result import Check
from export.targets.rules import CHIP, Finding, chip_findings, layer_findings, plural
from zoo.errors import ExportError, InputError

__all__ = ["check"]


def check(graph: nir.NIRGraph, target: str, *, dt: float | None = None) -> Check:
    """Compare a graph with what is published of `target`. `dt`: seconds a step, of a graph whose
    metadata have none.

    Raises `InputError` for a target that is not known and `ExportError` for a graph that is not
    sound or has no neuron.
    """
    known = targets()
    if target not in known:
        raise InputError(f"target {target!r} is not known; valid are {', '.join(known)}")
    ready = check_graph(graph, dt=dt)
    chip, found = known[target], network(ready)
    if not found.layers:
        raise ExportError(
            "the graph has no spiking neuron, so that there is nothing to place on a chip"
        )
    placement = place(found, chip.cores) if chip.cores else None
    findings = [
        *chip_findings(found, chip.chip),
        *(_core_findings(chip, found, placement) if placement else ()),
    ]
    for layer in found.layers.values():
        limits = chip.limits | chip.input if found.entry in layer.reads else chip.limits
        findings += layer_findings(layer, found, limits)
    return Check(chip, found, tuple(findings), placement, ready.dt if ready.dt_assumed else None)


def _core_findings(chip: Target, found: Network, placement: Placement) -> list[Finding]:
    assert chip.cores
    findings = []
    if placement.needed > placement.present:
        excess = placement.needed - placement.present
        change = (
            plural(excess, "layer") + " fewer"
            if chip.cores.placement == "whole"
            else _chips(placement)
        )
        findings.append(
            Finding(
                CHIP, "cores", f"{placement.needed:,} cores", f"{placement.present:,} cores", change
            )
        )
    elif placement.left_out:
        taken = f"{', '.join(placement.left_out)}: every core that is large enough is taken"
        change = "fewer channels in a layer that shares its kind of core"
        findings.append(Finding(CHIP, "cores", taken, "a core for each layer", change))
    for name in placement.too_large:
        layer, needs = found.layers[name], placement.places[name].needs
        fewer = most_features(layer, chip.cores)
        change = (
            f"at most {fewer} output channels, now {layer.channels}"
            if fewer
            else "fewer input channels, or a smaller image"
        )
        words = ", ".join(f"{number:,} {key.replace('_', ' ')}" for key, number in needs.items())
        findings.append(Finding(name, "core", words, "no core has as much", change))
    return findings


def _chips(placement: Placement) -> str:
    return f"at least {math.ceil(placement.needed / placement.present)} chips, or a smaller network"
