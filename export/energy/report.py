"""The energy report: the results of an estimate with their renderings.

Every rendering names convention and device.
"""

from typing import Any

from rich.console import Console

from export.energy.output import html, json_csv, terminal
from export.energy.output.text import quotation
from export.energy.results import EnergyResults

__all__ = ["EnergyReport"]


class EnergyReport(EnergyResults):
    """Exact counts and their energy, rendered for a terminal, a machine and a browser."""

    def print(self, console: Console) -> None:
        """Print the costliest layers and the totals."""
        terminal.render(self, console)

    def quote(self) -> str:
        """Return the energy in a sentence for a paper, with all that the figure stands on.

        Raises `ValueError` where no device has a total.
        """
        return quotation(self)

    def to_json(self) -> dict[str, Any]:
        """Return plain values for `json.dump`, as `report.schema.json` describes them.

        Counts are exact sums over all images; energies are picojoules an image.
        """
        return json_csv.to_json(self)

    def to_csv(self) -> str:
        """Return a line for each layer: counts over all images, picojoules an image by device."""
        return json_csv.to_csv(self)

    def to_html(self) -> str:
        """Return one page that needs nothing else."""
        return html.render([self])
