"""A check in words, the same in a terminal and on a page."""

from collections.abc import Iterable

from export.targets.layers import Layer
from export.targets.limits import Limit
from export.targets.result import Check
from export.targets.rules import Finding

__all__ = [
    "core",
    "cores",
    "grouped",
    "limit",
    "neuron",
    "several",
    "use",
    "value",
    "verdict",
    "weights",
]


def verdict(check: Check) -> str:
    """Whether it fits, and how much does not."""
    if check.fits:
        return "fits the published limits"
    layers = len({finding.layer for finding in check.findings})
    return f"does not fit: {len(check.findings)} findings in {layers} places"


def cores(check: Check) -> str:
    """Cores needed and present; nothing where no formula is published."""
    return f"{check.placement.needed} of {check.placement.present} cores" if check.placement else ""


def core(check: Check, layer: Layer) -> str:
    """The core that takes a layer, or how many do."""
    if check.placement is None or check.target.cores is None:
        return ""
    spot = check.placement.places[layer.name]
    if check.target.cores.placement == "split":
        return f"{spot.cores} core" + "s" * (spot.cores > 1)
    return "none" if spot.core is None else f"core {spot.core}"


def use(check: Check, layer: Layer) -> str:
    """Of the scarcest resource of its cores."""
    return f"{100 * check.placement.places[layer.name].use:.0f} %" if check.placement else ""


def weights(layer: Layer) -> str:
    """The weighted nodes of a layer."""
    return " + ".join(w.node for w in layer.weights) or "none"


def neuron(layer: Layer) -> str:
    """Model and reset."""
    return (
        "no memory"
        if layer.neuron.model == "memoryless"
        else f"{layer.neuron.model}, {layer.neuron.reset}"
    )


def limit(name: str) -> str:
    """`kernel_size` -> `kernel size`."""
    return name.replace("_", " ")


def value(limit: Limit) -> str:
    """What a limit allows."""
    if isinstance(limit.value, tuple):
        return ", ".join(map(str, limit.value))
    return f"{limit.value:,}" if isinstance(limit.value, int) else limit.value


def grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Findings that say the same of several layers, together, in the order of the first."""
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault(
            (finding.limit, finding.found, finding.allowed, finding.change), []
        ).append(finding)
    return list(groups.values())


def several(rows: list[Finding]) -> str:
    """The layers of findings that say the same."""
    names = [finding.layer for finding in rows]
    return (
        names[0]
        if len(names) == 1
        else f"{len(names)} layers: {', '.join(names[:2])}{', ...' if len(names) > 2 else ''}"
    )
