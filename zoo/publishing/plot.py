"""The plot of accuracy against energy."""

from pathlib import Path

from zoo.manifest import Manifest, WeightsSpec
from zoo.names import ModelSpec
from zoo.publishing.plot_style import COLOURS, label_points, new_figure

__all__ = ["plot"]


def plot(manifest: Manifest, path: Path) -> None:
    """Draw top-1 against the energy of an image as PNG: a panel for each data set.

    There is a mark for each entry that has both, and a bar where the device has a band.
    """
    measured = [
        (entry, entry.energy["microjoules"], 100 * entry.metrics["top1"])
        for entry in manifest.weights.values()
        if entry.energy and "top1" in entry.metrics
    ]
    titles = sorted({entry.data.title for entry, _, _ in measured})
    figure, panels = new_figure(max(1, len(titles)))
    for title, axes in zip(titles, panels, strict=False):
        rows = [row for row in measured if row[0].data.title == title]
        for _, energy, top1 in rows:
            axes.plot(energy["typ"], top1, "o", color=COLOURS[0])
            if energy["lo"] < energy["hi"]:
                axes.plot([energy["lo"], energy["hi"]], [top1, top1], lw=2, color=COLOURS[0])
        edges = [energy[edge] for _, energy, _ in rows for edge in ("lo", "hi")]
        axes.set(title=title, xscale="log", xlim=(min(edges) / 3, max(edges) * 3))
        axes.margins(y=0.25)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xticks(_marks(*axes.get_xlim()))
        axes.set_xlabel("energy of an image, µJ (45 nm, exact counts)")
        label_points(axes, [(e["typ"], y, _label(entry)) for entry, e, y in rows])
    panels[0].set_ylabel("top-1, %")
    figure.savefig(path, metadata={"Software": None})


def _label(entry: WeightsSpec) -> str:
    """Return the name without its data set, which is the panel's title."""
    spec = ModelSpec.parse(entry.name)
    return f"{spec.architecture}{spec.smaller}"


def _marks(low: float, high: float) -> list[float]:
    """Return the marks 1, 2 and 5 of every decade between two values."""
    marks = (m * 10.0**decade for decade in range(-3, 7) for m in (1, 2, 5))
    return [mark for mark in marks if low <= mark <= high]
