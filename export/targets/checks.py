"""Does a network fit a chip, and why not.

Checked is what is published of a chip, nothing was run on one: a network that fits here may still fail there.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import nir
from rich.console import Console

from export.graph import flow
from export.targets import html, terminal
from export.targets.layers import Layer, Network, network
from export.targets.limits import Target, targets
from export.targets.place import Placement, most_features, place
from export.targets.rules import CHIP, Finding, chip_findings, layer_findings, plural
from zoo.errors import ExportError, InputError

__all__ = ["CAVEAT", "Check", "check", "to_html"]

CAVEAT = "Checked against published limits; not validated on the chip."


@dataclass(frozen=True)
class Check:
    """What of a network does not fit a target, and where its layers would lie."""

    target: Target
    network: Network
    findings: tuple[Finding, ...]
    placement: Placement | None  # None where no formula for it is published
    assumed_dt: float | None = None  # seconds a step, where neither the graph nor the caller gave them and it matters

    @property
    def fits(self) -> bool:
        """No published limit is exceeded."""
        return not self.findings

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing and breaks no limit."""
        copies = ", ".join(f"{node} {len(layers)} times" for node, layers in self.network.shared.items())
        held = f"Held once for each neuron that it reaches: {copies}." if copies else ""
        names = ", ".join(self.network.recurrent)
        back = f"Recurrent: {names}. Each is checked as one more reader; whether spikes can go back to it is not checked."
        return tuple(note for note in (CAVEAT, self.target.note, held, back * bool(names)) if note)

    def of(self, layer: str) -> tuple[Finding, ...]:
        """The findings of a layer."""
        return tuple(finding for finding in self.findings if finding.layer == layer)

    def to_json(self) -> dict[str, Any]:
        """Plain values for `json.dump`."""
        host, placement = self.network.host, self.placement
        return {
            "schema": 1,
            "target": self.target.name,
            "title": self.target.title,
            "fits": self.fits,
            "assumed_dt": self.assumed_dt,
            "validated": "published limits only",
            "cores": {"needed": placement.needed, "present": placement.present} if placement else None,
            "layers": [self._layer_json(layer) for layer in self.network.layers.values()],
            "host": {"nodes": list(host.nodes), "reads": list(host.reads), "macs": host.macs, "parameters": host.parameters},
            "findings": [asdict(finding) for finding in self.findings],
            "notes": list(self.notes),
            "limits": [
                {"limit": limit.name, "value": limit.value, "source": limit.source, "secondary": limit.secondary}
                for limit in self.target.all_limits()
            ],
        }

    def print(self, console: Console) -> None:
        """The verdict, the layers and what does not fit."""
        terminal.render(self, console)

    def _layer_json(self, layer: Layer) -> dict[str, Any]:
        spot = self.placement.places[layer.name] if self.placement else None
        return {
            "name": layer.name,
            "weights": [w.node for w in layer.weights],
            "reads": list(layer.reads),
            "neuron": layer.neuron.model,
            "reset": layer.neuron.reset,
            "neurons": layer.neurons,
            "core": spot.core if spot else None,
            "cores": spot.cores if spot else None,
            "use": round(spot.use, 6) if spot else None,
            "needs": spot.needs if spot else None,
        }


def check(graph: nir.NIRGraph, target: str, *, dt: float | None = None) -> Check:
    """Compare a graph with what is published of `target`. `dt`: seconds a step, of a graph whose metadata have none.

    Raises `InputError` for a target that is not known and `ExportError` for a graph that is not sound or has no neuron.
    """
    known = targets()
    if target not in known:
        raise InputError(f"target {target!r} is not known; valid are {', '.join(known)}")
    ready = flow(graph, dt=dt)
    chip, found = known[target], network(ready)
    if not found.layers:
        raise ExportError("the graph has no spiking neuron, so that there is nothing to place on a chip")
    placement = place(found, chip.cores) if chip.cores else None
    findings = [*chip_findings(found, chip.chip), *(_core_findings(chip, found, placement) if placement else ())]
    for layer in found.layers.values():
        limits = chip.limits | chip.input if found.entry in layer.reads else chip.limits
        findings += layer_findings(layer, found, limits)
    return Check(chip, found, tuple(findings), placement, ready.dt if ready.dt_assumed else None)


def to_html(checks: Sequence[Check], name: str, about: Sequence[str] = ()) -> str:
    """One page that needs nothing else, for one network `name` on one or several targets. `about`: sentences for its head, as
    whose weights they are."""
    return html.render(checks, name, about)


def _core_findings(chip: Target, found: Network, placement: Placement) -> list[Finding]:
    assert chip.cores
    findings = []
    if placement.needed > placement.present:
        excess = placement.needed - placement.present
        change = plural(excess, "layer") + " fewer" if chip.cores.placement == "whole" else _chips(placement)
        findings.append(Finding(CHIP, "cores", f"{placement.needed:,} cores", f"{placement.present:,} cores", change))
    elif placement.left_out:
        taken = f"{', '.join(placement.left_out)}: every core that is large enough is taken"
        change = "fewer channels in a layer that shares its kind of core"
        findings.append(Finding(CHIP, "cores", taken, "a core for each layer", change))
    for name in placement.too_large:
        layer, needs = found.layers[name], placement.places[name].needs
        fewer = most_features(layer, chip.cores)
        change = f"at most {fewer} output channels, now {layer.channels}" if fewer else "fewer input channels, or a smaller image"
        words = ", ".join(f"{number:,} {key.replace('_', ' ')}" for key, number in needs.items())
        findings.append(Finding(name, "core", words, "no core has as much", change))
    return findings


def _chips(placement: Placement) -> str:
    return f"at least {math.ceil(placement.needed / placement.present)} chips, or a smaller network"
