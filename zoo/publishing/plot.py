"""The plot of accuracy against energy."""

from pathlib import Path

from zoo.manifest import Manifest

__all__ = ["plot"]


def plot(manifest: Manifest, path: Path) -> None:
    """Draw top-1 against the energy of an image as PNG.

    There is a mark for each entry that has both, one colour for each data set, and a bar for the
    band of the device.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    measured = [
        (entry, entry.energy["microjoules"], 100 * entry.metrics["top1"])
        for entry in manifest.weights.values()
        if entry.energy and "top1" in entry.metrics
    ]
    for title in sorted({entry.data.title for entry, _, _ in measured}):
        rows = [row for row in measured if row[0].data.title == title]
        x, y = [energy["typ"] for _, energy, _ in rows], [top1 for _, _, top1 in rows]
        band = [
            [abs(energy[edge] - energy["typ"]) for _, energy, _ in rows] for edge in ("lo", "hi")
        ]
        axes.errorbar(x, y, xerr=band, fmt="o", capsize=3, label=title)
        for entry, energy, top1 in rows:
            architecture, point = entry.name.partition(".")[0], (energy["typ"], top1)
            axes.annotate(
                architecture, point, xytext=(8, -3), textcoords="offset points", fontsize=8
            )
    axes.set_xscale("log")
    if measured:  # a decade at least, and room for the names
        edges = [energy[edge] for _, energy, _ in measured for edge in ("lo", "hi")]
        axes.set_xlim(min(edges) / 3, max(edges) * 4)
        axes.legend(frameon=False)
    axes.margins(y=0.15)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(which="minor", labelsize=7)
    axes.set_xlabel("energy of an image, µJ (45 nm, exact counts)")
    axes.set_ylabel("top-1, %")
    axes.grid(visible=True, alpha=0.3)
    figure.savefig(path, metadata={"Software": None})
