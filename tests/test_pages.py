"""The pages that commands write, in a real browser: nothing cut, hidden or too faint to read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from support.browser import CONTRAST, CUT, WIDTHS, open_browser, show

import zoo
from export.onnx.exporter import write_onnx
from zoo.cli import main

pytestmark = pytest.mark.slow
NETWORK = "danet20-t4.fmnist"
PAGES = ("energy", "comparison", "check")
# Labels that a bar or a cell shows when it has the focus, and that leave the window.
LABELS = """
const outside = [];
for (const mark of document.querySelectorAll(".plot > a")) {
  mark.focus({preventScroll: true});
  const label = getComputedStyle(mark, "::after"), box = mark.getBoundingClientRect();
  const width = parseFloat(label.width) + parseFloat(label.paddingLeft) * 2;
  const left = mark.classList.contains("late") ? box.right - width : box.left;
  if (!(width > 20) || left < 0 || left + width > innerWidth)
    outside.push(`${mark.getAttribute("aria-label")}: ${left} + ${width}`);
}
return [document.querySelectorAll(".plot > a").length, outside];
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with open_browser() as chrome:
        yield chrome


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages as the commands write them."""
    folder = tmp_path_factory.mktemp("pages")
    main(["energy", NETWORK, "--first", "10", "--out", str(folder / "one")])
    graph = folder / f"{NETWORK}.onnx"
    write_onnx(zoo.load(NETWORK), graph, verify=False)
    main(["energy", NETWORK, str(graph), "--first", "10", "--out", str(folder / "two")])
    main(["check", NETWORK, "--html", str(folder / "check.html")])
    (energy,), (comparison,) = ((folder / name).glob("*.html") for name in ("one", "two"))
    return {"energy": energy, "comparison": comparison, "check": folder / "check.html"}


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_or_beside_the_window(
    name: str, width: int, browser: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    show(browser, pages[name].as_uri(), width)
    script: Any = "return [innerWidth, document.documentElement.scrollWidth]"
    assert browser.execute_script(script) == [width, width]
    assert browser.execute_script(CUT) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_every_text_can_be_read(
    name: str, scheme: str, browser: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    show(browser, pages[name].as_uri(), 1280, scheme)
    ratio, text = browser.execute_script(CONTRAST)
    assert ratio >= 4.5, text


@pytest.mark.parametrize("width", WIDTHS)
def test_the_label_of_each_bar_is_in_the_window(
    width: int, browser: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    show(browser, pages["energy"].as_uri(), width)
    marks, outside = browser.execute_script(LABELS)
    assert marks > 50 and outside == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_for_nothing_and_complains_of_nothing(
    name: str, browser: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    browser.get_log("performance"), browser.get_log("browser")
    show(browser, pages[name].as_uri(), 1280)
    sent = [line["message"] for line in browser.get_log("performance")]
    requests = [line for line in sent if '"Network.requestWillBeSent"' in line]
    assert len(requests) == 1 and pages[name].as_uri() in requests[0]
    assert browser.get_log("browser") == []
