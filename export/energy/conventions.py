"""Conventions: the published ways of counting operations, as data. Between them, the same network on the same profile differs
eight-fold, so every report names its own."""

from dataclasses import dataclass

__all__ = ["CONVENTIONS", "Convention"]


@dataclass(frozen=True)
class Convention:
    """One named way of counting, explained in a line."""

    name: str
    explanation: str
    reference: str


CONVENTIONS: dict[str, Convention] = {
    convention.name: convention
    for convention in (
        Convention(
            "exact",
            "One accumulate per event and connection that exists (an event of value v is v of them); what depends on a still image "
            "alone is computed once; batch norms are folded; biases, residual sums and neuron updates are counted, memory is not.",
            "Connections counted as in NeuroBench (Yik et al., Nature Communications 2025), per layer from the NIR graph",
        ),
    )
}
