"""The page: it needs nothing else, says everything, and is well formed."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import torch
from support.networks import lively

from export.energy import estimate, find_devices
from export.energy.output import html

VOID = {"meta", "br", "line", "rect"}  # elements that are never closed, or close themselves


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
    images = torch.randn(5, 1, 20, 20, generator=torch.Generator().manual_seed(4))
    other = lively("danet20c-t2.fmnist", 20, widths=(4, 6, 8))
    return [estimate(model, images, [0, 1, 2, 3, 4]) for model in (tiny, other)]


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
    for picture in (*page.of("svg"), *(a for a in page.of("div") if a.get("role") == "img")):
        assert picture["role"] == "img" and picture["aria-label"]
    assert all(cell.get("scope") in ("row", "col") for cell in page.of("th"))
    for region in (a for a in page.of("div") if a.get("class") == "scroll"):
        assert (region["tabindex"], region["role"]) == ("0", "region") and region["aria-label"]
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
    "stage2_block0_lif1, step 2:",
    "Yan et al.",
)


def test_it_says_everything(reports):
    text = " ".join(html.render(reports[:1]).split())
    for words in EVERYTHING:
        assert words in text, words
    assert not re.search(r"\d times (better|less|more)", text)


def test_several_on_one_plane(reports):
    text = html.render(reports)
    assert (
        'aria-label="Accuracy against energy: danet20-t2.fmnist (torch): 20.0 %' in text
        or "danet20c-t2.fmnist (torch)" in text
    )
    assert text.count('class="point') == 2
    crowded = html._plane([reports[0]] * 4)
    heights = sorted(point.text for point in crowded.points)
    assert all(b - a >= html.MIN_LABEL_HEIGHT for a, b in pairwise(heights))
    assert html._plane(reports[:1]) is None


def test_names_are_escaped(reports):
    odd = """<b>[x]</b>"'&"""
    report = reports[0]
    layers = (replace(report.layers[0], name=odd), *report.layers[1:])
    text = html.render(
        [replace(report, source=replace(report.source, name=odd), layers=layers), reports[1]]
    )
    assert "<b>[x]" not in text and "&lt;b&gt;[x]&lt;/b&gt;&#34;&#39;&amp;" in text
    assert not Page(text).odd
