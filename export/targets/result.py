"""The result of checking a network against a chip."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from export.targets.layers import ChipLayer, Network
from export.targets.limits import Limit, Target
from export.targets.placement import Placement
from export.targets.rules import Finding

__all__ = ["CAVEAT", "Check"]

CAVEAT = "Checked against published limits; not validated on the chip."
RECURRENCE = "Each is checked as one more reader; whether spikes can go back to it is not checked."


@dataclass(frozen=True)
class Check:
    """The result of a check: what does not fit a target, and where the layers would lie."""

    target: Target
    network: Network
    findings: tuple[Finding, ...]
    placement: Placement | None  # None where no formula for it is published
    # seconds a step, where neither the graph nor the caller gave them and it matters
    assumed_dt: float | None = None

    @property
    def fits(self) -> bool:
        """Whether no published limit is exceeded."""
        return not self.findings

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what is worth knowing and breaks no limit."""
        copies = ", ".join(
            f"{node} {len(layers)} times" for node, layers in self.network.shared.items()
        )
        held = f"Held once for each neuron that it reaches: {copies}." if copies else ""
        names = ", ".join(self.network.recurrent)
        back = f"Recurrent: {names}. {RECURRENCE}" if names else ""
        return tuple(note for note in (CAVEAT, self.target.note, held, back) if note)

    def of(self, layer: str) -> tuple[Finding, ...]:
        """Return the findings of a layer."""
        return tuple(finding for finding in self.findings if finding.layer == layer)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dump`."""
        host, placement = self.network.host, self.placement
        return {
            "schema": 1,
            "target": self.target.name,
            "title": self.target.title,
            "fits": self.fits,
            "assumed_dt": self.assumed_dt,
            "validated": "published limits only",
            "cores": placement and {"needed": placement.needed, "present": placement.present},
            "layers": [self._layer_json(layer) for layer in self.network.layers.values()],
            "host": {
                "nodes": list(host.nodes),
                "reads": list(host.reads),
                "macs": host.macs,
                "parameters": host.parameters,
            },
            "findings": [asdict(finding) for finding in self.findings],
            "notes": list(self.notes),
            "limits": [_limit_json(limit) for limit in self.target.all_limits()],
        }

    def _layer_json(self, layer: ChipLayer) -> dict[str, Any]:
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


def _limit_json(limit: Limit) -> dict[str, Any]:
    values = asdict(limit)
    return {"limit": values.pop("name")} | values
