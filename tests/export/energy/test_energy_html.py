"""The page: it needs nothing else, says everything, and is well formed."""

import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import torch
from support.networks import lively

import zoo
from export import units
from export.energy import estimate, find_devices
from export.energy.output import charts, html, text
from export.prepare.quantize import quantize_weights
from zoo.danet import set_steps

VOID = {"meta", "br"}  # elements that are never closed, or close themselves


class Page(HTMLParser):
    """What a page consists of; notes tags that do not balance."""

    def __init__(self, text):
        super().__init__()
        self.open, self.odd, self.elements, self.headings = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag in ("h1", "h2", "h3"):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID and (not self.open or self.open.pop() != tag):
            self.odd.append(tag)

    def of(self, *tags):
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module")
def reports(tiny):
    images = torch.randn(10, 1, 20, 20, generator=torch.Generator().manual_seed(4))
    other = lively("danet20c-t2.fmnist", 20, widths=(4, 6, 8))
    labels = (tiny(images).argmax(1) + torch.arange(10) % 5) % 10  # two of ten are right
    return [estimate(model, images, labels) for model in (tiny, other)]


def variants(reports):
    one, two = reports
    short = {
        name: replace(counts, by_image={o: n[:1] for o, n in counts.by_image.items()})
        for name, counts in one.operations.items()
    }
    return {
        "one": [one],
        "two": [one, two],
        "no labels": [replace(one, accuracy=None), two],
        "nobody has labels": [replace(one, accuracy=None), replace(two, accuracy=None)],
        "no total": [replace(one, devices=tuple(find_devices(["loihi1", "speck"]).values()))],
        "one image": [replace(one, images=1, operations=short)],
        "equal accuracies": [one, one],
    }


KINDS = [
    "one",
    "two",
    "no labels",
    "nobody has labels",
    "no total",
    "one image",
    "equal accuracies",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_whole_page_that_fetches_nothing(reports, kind):
    text = html.render(variants(reports)[kind])
    assert not re.search(r"src=|url\(|@import|<script|https?:", text)
    page = Page(text)
    assert not page.open and not page.odd
    assert all(a["href"].startswith("#") for a in page.of("a"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)) and {a["href"][1:] for a in page.of("a")} <= set(ids)
    for picture in (a for a in page.of("div", "span") if a.get("role") in ("img", "group")):
        assert picture["aria-label"]
    assert all(cell.get("scope") in ("row", "col") for cell in page.of("th"))
    columns = set(re.findall(r'<th scope="col"[^>]*>(.*?)</th>', text))
    # which is said where a row is a card
    assert all(unescape(cell["data-title"]) in map(unescape, columns) for cell in page.of("td"))
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert page.of("html") == [{"lang": "en"}]
    assert len(re.findall(r"<table", text)) == len(re.findall(r"</table>", text)) >= 5


EVERYTHING = (
    "convention <strong>exact</strong>",
    "45nm-int8",
    "mac, add",
    "20.0 %",
    "Davies et al.",
    "lemaire",
    "spikformer",
    "zero-skipping ANN",
    "not trained",
    "No ratio is given",
    "Break-even rate",
    "stage1_block0_conv1",
    "device: ",
    "(95 %)",
    "Pre-silicon",
    "stage2_block0_lif1, step by step:",
    "Yan et al.",
)


def test_it_says_everything(reports):
    text = " ".join(html.render(reports[:1]).split())
    for words in EVERYTHING:
        assert words in text, words
    assert not re.search(r"\d times (better|less|more)", text)


def test_every_bar_and_column_of_the_map_leads_to_its_row(reports):
    page = Page(html.render(reports[:1]))
    labels = {a["href"]: a["aria-label"] for a in page.of("a")}
    for i, layer in enumerate(reports[0].layers):
        assert labels[f"#model-1-{i}"].startswith(f"{layer.name}")


def test_a_column_without_a_number_is_not_drawn(reports):
    page = html.render(reports[:1])
    assert 'data-title="SynOps"' in page and "Multiplies" not in page


def test_the_figure_is_quoted_with_all_that_it_stands_on(reports):
    report = replace(reports[0], command="zoo energy x --device 45nm-fp32")
    sentence = text.quotation(report)
    assert re.fullmatch(
        r"danet20-t2\.fmnist with T = 2 \(random weights, float32\) is estimated to need \S+ .J an "
        r"image for arithmetic alone, without memory accesses, on 45 nm CMOS, 0\.9 V, 32-bit "
        r"floating point \(device 45nm-fp32\) by the convention exact \(95 % "
        r"over images .* to .*\), a mean of 10 images, of which 20\.0 % are classified right; "
        r"danet-zoo \S+: zoo energy x --device 45nm-fp32\.",
        sentence,
    )
    assert " ".join(sentence.split()) in " ".join(html.render([report]).split())
    unpriced = replace(report, devices=tuple(find_devices(["loihi1"]).values()))
    with pytest.raises(ValueError, match="no device has a total"):
        text.quotation(unpriced)


def test_weights_of_the_zoo_have_the_accuracy_of_the_whole_split():
    image, said = torch.zeros(1, 1, 28, 28), "top-1 on 10,000 test images"
    page = html.render([estimate(zoo.load("danet20-t4.fmnist"), image, [0])])
    assert said in page and "92.27 %" in page
    model = zoo.load("danet20-t4.fmnist")
    rounded, once = quantize_weights(model, "int8"), zoo.load("danet20-t4.fmnist")
    set_steps(once, 1)
    for other in (zoo.create("danet20-t4.fmnist").eval(), rounded, once):
        assert said not in html.render([estimate(other, image, [0])])


def test_layers_side_by_side(reports):
    page = " ".join(html.render(reports).split())
    assert re.search(r"<td[^>]*the second to the first\">[+-]\d+\.\d %", page)
    three = html.render([*reports, reports[0]])
    assert "Layer by layer" in three and "the second to the first" not in three
    same = " ".join(html.render([reports[0], reports[0]]).split())
    assert "No layer differs" in same and "the second to the first" not in same


def test_several_on_one_plane(reports):
    text = html.render(reports)
    assert (
        'aria-label="Accuracy against energy: danet20-t2.fmnist (torch): 20.0 %' in text
        or "danet20c-t2.fmnist (torch)" in text
    )
    assert text.count('class="point') == 2 and ">Band</th>" not in text
    crowded = charts.plane([replace(reports[0], accuracy=0.2 + i / 1000) for i in range(4)])
    heights = sorted(point.text for point in crowded.points)
    assert len(heights) == 4
    assert all(b - a >= charts.MIN_LABEL_HEIGHT for a, b in pairwise(heights))


def test_an_axis_has_one_unit(reports):
    plot = charts.energy_plot(reports[0], "model-1")
    whole, half = (scale.split() for scale in plot.scale)
    assert whole[1] == half[1] and float(half[0]) == pytest.approx(float(whole[0]) / 2, rel=0.02)
    assert units.joules(954_000, like=1_910_000) == "0.95 µJ" != units.joules(954_000)


def test_models_that_agree_are_one_point(reports):
    three = charts.plane([*reports, reports[0]])
    assert sorted(point.label.count("(torch)") for point in three.points) == [1, 2]
    for alone in (reports[:1], [reports[0]] * 4):
        assert charts.plane(alone) is None and 'class="plane"' not in html.render(alone)


def test_names_are_escaped(reports):
    odd = """<b>[x]</b>"'&"""
    report = reports[0]
    layers = (replace(report.layers[0], name=odd), *report.layers[1:])
    text = html.render(
        [replace(report, source=replace(report.source, name=odd), layers=layers), reports[1]]
    )
    assert "<b>[x]" not in text and "&lt;b&gt;[x]&lt;/b&gt;&#34;&#39;&amp;" in text
    assert not Page(text).odd
