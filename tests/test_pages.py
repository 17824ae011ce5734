"""The pages that commands write, in a real browser: nothing cut, hidden or too faint to read."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

import zoo
from export.onnx.exporter import write_onnx
from zoo.cli import main

pytestmark = pytest.mark.slow
NETWORK = "danet20-t4.fmnist"
PAGES = ("energy", "comparison", "check")
WIDTHS = (390, 768, 1280)
BROWSER = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",  # a container may have little shared memory
)

# Elements with text of their own that lie outside of the window, or are narrower than their text.
CUT = """
const cut = [];
for (const element of document.body.querySelectorAll("*")) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  const box = element.getBoundingClientRect();
  if (!own || !box.width || getComputedStyle(element).fontSize === "0px") continue;
  const clipped = element.scrollWidth > element.clientWidth + 1
    && getComputedStyle(element).display !== "inline" && element.clientWidth > 0;
  if (box.left < -1 || box.right > innerWidth + 1 || clipped)
    cut.push(`${element.tagName} ${element.className}: ${element.textContent.trim().slice(0, 40)}`);
}
return cut;
"""

# The least contrast of any text against the nearest background that is opaque (WCAG 2.2, 1.4.3).
CONTRAST = """
const channels = color => color.match(/[\\d.]+/g).map(Number);
const luminance = color => {
  const [r, g, b] = channels(color).map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const background = element => {
  for (let at = element; at; at = at.parentElement) {
    const color = getComputedStyle(at).backgroundColor;
    if ((channels(color)[3] ?? 1) > 0.99) return color;
  }
  return "rgb(255, 255, 255)";
};
let least = [99, ""];
for (const element of document.body.querySelectorAll("*")) {
  const own = [...element.childNodes].filter(node => node.nodeType === 3);
  const text = own.map(node => node.data).join("").trim();
  if (!text || !element.getClientRects().length) continue;
  const pair = [luminance(getComputedStyle(element).color), luminance(background(element))];
  const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
  if (ratio < least[0]) least = [ratio, text.slice(0, 40)];
}
return least;
"""

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
    driver = shutil.which("chromedriver")
    assert driver, "these tests need Debian's packages chromium and chromium-driver"
    options = webdriver.ChromeOptions()
    for argument in BROWSER:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    yield chrome
    chrome.quit()


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


def show(browser: webdriver.Chrome, page: Path, width: int, scheme: str = "light") -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(page.as_uri())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_cut_or_beside_the_window(
    name: str, width: int, browser: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    show(browser, pages[name], width)
    script: Any = "return [innerWidth, document.documentElement.scrollWidth]"
    assert browser.execute_script(script) == [width, width]
    assert browser.execute_script(CUT) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_every_text_can_be_read(
    name: str, scheme: str, browser: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    show(browser, pages[name], 1280, scheme)
    ratio, text = browser.execute_script(CONTRAST)
    assert ratio >= 4.5, text


@pytest.mark.parametrize("width", WIDTHS)
def test_the_label_of_each_bar_is_in_the_window(
    width: int, browser: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    show(browser, pages["energy"], width)
    marks, outside = browser.execute_script(LABELS)
    assert marks > 50 and outside == []


@pytest.mark.parametrize("name", PAGES)
def test_a_page_asks_for_nothing_and_complains_of_nothing(
    name: str, browser: webdriver.Chrome, pages: dict[str, Path]
) -> None:
    browser.get_log("performance"), browser.get_log("browser")
    show(browser, pages[name], 1280)
    sent = [line["message"] for line in browser.get_log("performance")]
    requests = [line for line in sent if '"Network.requestWillBeSent"' in line]
    assert len(requests) == 1 and pages[name].as_uri() in requests[0]
    assert browser.get_log("browser") == []
