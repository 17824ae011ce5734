"""Does a NIR graph fit a neuromorphic chip, layer by layer, against published limits: `check(graph, "speck2e")`."""

from export.targets.checks import Check, check, to_html
from export.targets.limits import Target, targets
from export.targets.rules import Finding

__all__ = ["Check", "Finding", "Target", "check", "targets", "to_html"]
