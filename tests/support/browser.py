"""Pages in a real browser: Debian's Chromium, headless."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

__all__ = ["CONTRAST", "CUT", "SOFTWARE_GRAPHICS", "WIDTHS", "open_browser", "show"]

WIDTHS = (390, 768, 1280)
BROWSER = (
    "--headless=new",
    "--no-sandbox",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",  # a container may have little shared memory
)

NO_GRAPHICS = ("--disable-gpu",)
SOFTWARE_GRAPHICS = (  # SwiftShader computes WebGPU on the processor
    "--enable-unsafe-webgpu",
    "--enable-features=Vulkan,WebGPU",
    "--use-webgpu-adapter=swiftshader",
    "--use-angle=swiftshader",
)

# Elements with text of their own that lie outside of the window, or are narrower than their text.
CUT = """
const cut = [];
for (const element of document.body.querySelectorAll("*")) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
  const box = element.getBoundingClientRect();
  if (!own || box.width <= 1 || getComputedStyle(element).fontSize === "0px") continue;
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


@contextmanager
def open_browser(graphics: Sequence[str] = NO_GRAPHICS) -> Iterator[webdriver.Chrome]:
    """Start a browser, and end it after the block."""
    driver = shutil.which("chromedriver")
    assert driver, "these tests need Debian's packages chromium and chromium-driver"
    options = webdriver.ChromeOptions()
    for argument in (*BROWSER, *graphics):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def show(browser: webdriver.Chrome, url: str, width: int, scheme: str = "light") -> None:
    """Open a page in a window of a width, in the light or the dark scheme."""
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(url)
