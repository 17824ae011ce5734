"""A check in words, the same in a terminal and on a page."""

from collections.abc import Iterable

from export.targets.layers import ChipLayer
from export.targets.limits import Limit
from export.targets.result import Check
from export.targets.rules import Finding
from zoo.errors import first_few

__all__ = [
    "core",
    "cores",
    "exceeded",
    "grouped",
    "limit",
    "neuron",
    "several",
    "short_verdict",
    "unchecked",
    "use",
    "value",
    "verdict",
    "weights",
]


def verdict(check: Check) -> str:
    """Return whether the network fits, and how much does not."""
    if unchecked(check):
        return "exceeds no published limit; how many cores it needs is not known"
    if check.fits:
        return "fits the published limits"
    layers = len({finding.layer for finding in check.findings})
    return f"does not fit: {len(check.findings)} findings in {layers} places"


def short_verdict(check: Check) -> str:
    """Return the verdict in two or three words."""
    if unchecked(check):
        return "no limit exceeded"
    return "fits" if check.fits else "does not fit"


def exceeded(check: Check) -> str:
    """Return the limits that are exceeded, in a line; empty where none is."""
    return ", ".join(dict.fromkeys(limit(finding.limit) for finding in check.findings))


def unchecked(check: Check) -> bool:
    """Return whether nothing is exceeded, but no formula for cores was there to check."""
    return check.fits and check.placement is None


def cores(check: Check) -> str:
    """Return the cores needed and present; empty where no formula is published."""
    return f"{check.placement.needed} of {check.placement.present} cores" if check.placement else ""


def core(check: Check, layer: ChipLayer) -> str:
    """Return the core that takes a layer, or how many do."""
    if check.placement is None or check.target.cores is None:
        return ""
    spot = check.placement.places[layer.name]
    if check.target.cores.placement == "split":
        return f"{spot.cores} core" + "s" * (spot.cores > 1)
    return "none" if spot.core is None else f"core {spot.core}"


def use(check: Check, layer: ChipLayer) -> str:
    """Return how much a layer uses of the scarcest resource of its cores."""
    return f"{100 * check.placement.places[layer.name].use:.0f} %" if check.placement else ""


def weights(layer: ChipLayer) -> str:
    """Return the weighted nodes of a layer."""
    return " + ".join(w.node for w in layer.weights) or "none"


def neuron(layer: ChipLayer) -> str:
    """Return model and reset of the neurons of a layer."""
    if layer.neuron.model == "memoryless":
        return "no memory"
    return f"{layer.neuron.model}, {layer.neuron.reset}"


def limit(name: str) -> str:
    """Return `kernel size` for `kernel_size`."""
    return name.replace("_", " ")


def value(limit: Limit) -> str:
    """Return the number or the words that a limit allows."""
    if isinstance(limit.value, tuple):
        return ", ".join(map(str, limit.value))
    return f"{limit.value:,}" if isinstance(limit.value, int) else str(limit.value)


def grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Return findings grouped by what they say, in the order of the first of each."""
    groups: dict[tuple[str, str, str, str], list[Finding]] = {}
    for finding in findings:
        same = (finding.limit, finding.found, finding.allowed, finding.change)
        groups.setdefault(same, []).append(finding)
    return list(groups.values())


def several(rows: list[Finding]) -> str:
    """Return the layers of findings that say the same."""
    names = [finding.layer for finding in rows]
    if len(names) == 1:
        return names[0]
    return f"{len(names)} layers: {first_few(names, 2)}"
