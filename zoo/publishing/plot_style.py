"""The style of every picture: colours that all tell apart, on white; labels that make way."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "label_points", "new_figure"]

# Okabe and Ito (2008), which readers with any kind of colour vision can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
FONT_SIZE, LINE = 8, 11  # of labels, in points; LINE is the height that one needs


def new_figure(panels: int = 1, height: float = 4.0) -> "tuple[Figure, list[Axes]]":
    """Return a figure of panels side by side.

    Its background is white, so that a page in dark colours shows it as it is.
    """
    from cycler import cycler
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(7.0, 4.5 * panels), height), dpi=120, layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    for panel in axes:
        panel.set_prop_cycle(cycler(color=COLOURS))
        panel.grid(visible=True, alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def label_points(axes: "Axes", points: Sequence[tuple[float, float, str]]) -> None:
    """Write the name of every point `(x, y, name)` beside it, on no other name and no mark.

    Call it when the limits of the axes stand. Points at one place share a label.
    """
    names: dict[tuple[float, float], list[str]] = {}
    for x, y, name in points:
        names.setdefault((x, y), []).append(name)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # which gives the axes their places
    scale = 72 / figure.dpi
    left, right = axes.get_window_extent().x0 * scale, axes.get_window_extent().x1 * scale
    places = {point: axes.transData.transform(point) * scale for point in names}
    # begin, end and height of each mark, and of the labels
    taken = [(across - 4, across + 4, up) for across, up in places.values()]
    for (x, y), here in sorted(names.items(), key=lambda item: item[0][1]):
        text = ", ".join(here)
        across, up = places[x, y]
        width = 0.62 * FONT_SIZE * len(text)
        behind = across + 8 + width > right and across - 8 - width > left
        begin = across - 8 - width if behind else across + 8
        height = up
        while any(a < begin + width and begin < b and abs(h - height) < LINE for a, b, h in taken):
            height += 1
        taken.append((begin, begin + width, height))
        axes.annotate(
            text, (x, y), xytext=(-8 if behind else 8, height - up), textcoords="offset points",
            ha="right" if behind else "left", va="center", fontsize=FONT_SIZE,
        )  # fmt: skip
