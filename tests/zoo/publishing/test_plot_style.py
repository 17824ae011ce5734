"""The labels of a plot: none on another, none on a mark, one for points that are one."""

from itertools import combinations

from zoo.publishing.plot_style import label_points, new_figure


def test_labels_make_way_for_each_other() -> None:
    figure, (axes,) = new_figure()
    points = [(1.0, 1.0 + i / 100, f"network-{i}") for i in range(6)]
    points += [(5.0, 1.02, "at the edge"), (3.0, 1.0, "one"), (3.0, 1.0, "another")]
    axes.plot([x for x, _, _ in points], [y for _, y, _ in points], "o")
    label_points(axes, points)
    figure.draw_without_rendering()
    boxes = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert len(boxes) == 8 and "one, another" in boxes
    for (a, one), (b, other) in combinations(boxes.items(), 2):
        assert not one.overlaps(other), (a, b)
    assert boxes["at the edge"].x1 < axes.transData.transform((5.0, 1.02))[0]
