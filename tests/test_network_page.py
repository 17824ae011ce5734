"""The page that runs networks in a browser: the same spikes, counts and pixels as in Python."""

import json
import re
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait
from support.browser import CONTRAST, CUT, SOFTWARE_GRAPHICS, WIDTHS, open_browser, show
from support.networks import lively
from torch import Tensor

import zoo
from export.energy import estimate
from export.page import write_page
from zoo.cli import main
from zoo.danet import DANet, set_steps
from zoo.images import read_image, to_input
from zoo.samples import samples

pytestmark = pytest.mark.slow
NETWORK, EVENTS = "danet20-t4.fmnist", "danet20-t3.i2e-fmnist"
SECONDS = 120  # that a page may take on a busy machine


class Quiet(SimpleHTTPRequestHandler):
    """Serves files that no browser keeps, and prints nothing."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with open_browser() as chrome:
        yield chrome


@pytest.fixture(scope="module")
def events() -> DANet:
    return lively(EVENTS, 28, widths=(4, 6, 8))


@pytest.fixture(scope="module")
def folder(events: DANet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_page([zoo.load(NETWORK), events], folder)
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def text(browser: webdriver.Chrome, name: str) -> str:
    script: Any = f"return document.getElementById('{name}').textContent"
    found: str = browser.execute_script(script)
    return found


def wait(browser: webdriver.Chrome, condition: str) -> None:
    script: Any = f"return Boolean({condition})"
    WebDriverWait(browser, SECONDS).until(lambda b: b.execute_script(script))


READY = (
    "document.getElementById('buys').tBodies[0].rows.length == "
    "document.getElementById('step').max && "
    "document.getElementById('picture-text').textContent.includes({title!r})"
)


def opened(
    browser: webdriver.Chrome, address: str, width: int = 1280, scheme: str = "light"
) -> None:
    show(browser, address, width, scheme)
    wait(browser, READY.format(title="Fashion-MNIST"))


def choose(browser: webdriver.Chrome, name: str) -> None:
    Select(browser.find_element(By.ID, "model")).select_by_value(name)
    wait(browser, f"document.getElementById('about').textContent.startsWith('{name}')")
    steps = re.search(r"-t(\d+)", name)
    assert steps
    wait(browser, f"document.getElementById('buys').tBodies[0].rows.length == {steps[1]}")


def give(browser: webdriver.Chrome, path: Path) -> None:
    browser.find_element(By.ID, "file").send_keys(str(path))


def cells(browser: webdriver.Chrome) -> dict[str, list[int]]:
    """The whole numbers of each row of the table of layers: MACs, SynOps, additions, updates."""
    script: Any = """
      const exact = cell => cell.firstElementChild?.title ?? "0";
      return [...document.getElementById("rows").tBodies[0].rows]
        .map(row => [...row.cells].map((cell, i) => i ? exact(cell) : cell.textContent));
    """
    rows = browser.execute_script(script)
    return {name: [int(n.replace(",", "")) for n in numbers[:4]] for name, *numbers in rows}


def counted(model: DANet, x: Tensor) -> dict[str, list[int]]:
    """The same of Python's report."""
    report = estimate(model, x)
    rows = {}
    for layer, operations in zip(report.layers, report.operations["exact"].by_layer, strict=True):
        n = {operation.kind: number for operation, number in operations.items()}
        updates = n.get("update", 0) + n.get("idle_update", 0)
        rows[layer.name] = [n.get("mac", 0), n.get("ac", 0), n.get("add", 0), updates]
    return rows


def first_picture(model: DANet) -> Tensor:
    """The picture that a page shows first: that of the first class."""
    pixels, labels = samples("fmnist")
    return model.transform(list(pixels[int((labels == 0).nonzero()[0])][None]))


def test_spikes_and_counts_are_those_of_python(browser: webdriver.Chrome, address: str) -> None:
    opened(browser, address)
    assert text(browser, "proof").startswith("0 of 19 layers differ from the spikes")
    model = zoo.load(NETWORK)
    x = first_picture(model)
    assert cells(browser) == counted(model, x)
    logits = model(x)[0].detach().softmax(0)
    best = model.known_origin.data.label(int(logits.argmax()))
    assert text(browser, "answer") == f"{best}, {float(logits.max()):.1%} sure"
    energy = estimate(model, x, device="45nm-fp32").energies[0].total
    assert energy is not None and text(browser, "energy").startswith(f"{energy.typ / 1e6:.3g} µJ")


def test_every_step_has_its_counts(browser: webdriver.Chrome, address: str) -> None:
    opened(browser, address)
    model = zoo.load(NETWORK)
    x = first_picture(model)
    for steps in (1, 3):
        script: Any = (
            f"const s = document.getElementById('step'); s.value = {steps};"
            "s.dispatchEvent(new Event('input'))"
        )
        browser.execute_script(script)
        set_steps(model, steps)
        assert cells(browser) == counted(model, x)


def test_a_network_of_events(browser: webdriver.Chrome, address: str, events: DANet) -> None:
    opened(browser, address)
    choose(browser, EVENTS)
    assert text(browser, "proof").startswith("0 of ")
    assert cells(browser) == counted(events, first_picture(events))
    assert browser.find_element(By.ID, "frame").is_displayed()


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_the_pixels_of_a_file_are_those_that_classify_sees(
    mode: str, browser: webdriver.Chrome, address: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    shape = (61, 90) if mode == "L" else (61, 90, len(mode))
    array = rng.integers(0, 256, shape, np.uint8)
    if mode == "RGBA":
        array[..., 3] = np.where(array[..., 3] > 128, 255, 0)  # a canvas rounds what is between
    path = tmp_path / f"{mode}.png"
    Image.fromarray(array).save(path)
    opened(browser, address)
    give(browser, path)
    wait(browser, READY.format(title=path.name))
    script: Any = """
      const canvas = document.getElementById("picture");
      const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
      return [...data].filter((_, i) => i % 4 === 0);
    """
    model = zoo.load(NETWORK)
    pixels = read_image(path, model.known_origin.data)
    assert browser.execute_script(script) == pixels.flatten().tolist()
    assert cells(browser) == counted(model, to_input(pixels[None], model.known_origin.data))


def test_a_photograph_of_40_megapixels(
    browser: webdriver.Chrome, address: str, tmp_path: Path
) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (8000, 5000), (200, 30, 30)).save(path)
    opened(browser, address)
    give(browser, path)
    wait(browser, READY.format(title="photo.jpg"))
    assert text(browser, "problem") == ""


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("notes.txt", b"hello", "“notes.txt” is not a picture: it is text/plain."),
        ("broken.png", b"\x89PNG", "“broken.png” is not a picture that this browser can read."),
    ],
)
def test_what_is_no_picture_is_said_in_a_sentence(
    name: str,
    content: bytes,
    words: str,
    browser: webdriver.Chrome,
    address: str,
    tmp_path: Path,
) -> None:
    (tmp_path / name).write_bytes(content)
    opened(browser, address)
    before = text(browser, "answer")
    give(browser, tmp_path / name)
    wait(browser, "!document.getElementById('problem').hidden")
    assert text(browser, "problem") == words and text(browser, "answer") == before


def test_a_file_that_is_missing_or_another_is_said_in_a_sentence(
    browser: webdriver.Chrome, address: str, folder: Path
) -> None:
    path = folder / "models" / f"{NETWORK}.onnx"
    whole = path.read_bytes()
    try:
        for content, words in (
            (None, "cannot be loaded: 404"),
            (whole[:1000], "has 1000 of the "),
            (whole + b"x", "is longer than the "),
            (b"x" * len(whole), "protobuf"),
        ):
            path.unlink(missing_ok=True)
            if content is not None:
                path.write_bytes(content)
            show(browser, f"{address}?{words[:3].strip()}", 1280)
            wait(browser, "!document.getElementById('problem').hidden")
            assert words in text(browser, "problem")
    finally:
        path.write_bytes(whole)


def test_a_layer_opens_with_the_keyboard(browser: webdriver.Chrome, address: str) -> None:
    opened(browser, address)
    button = browser.find_element(By.CSS_SELECTOR, "#map .map")
    button.send_keys("\ue007")  # Enter
    assert browser.find_element(By.ID, "layer").is_displayed()
    assert text(browser, "layer-title") == "stage1_block0_lif1"
    assert re.search(r"of 28 x 28 neurons; [\d.k ]+ of 12.5 k fire", text(browser, "layer-text"))
    browser.find_element(By.CSS_SELECTOR, "#layer button").send_keys("\ue00c")  # Escape
    assert not browser.find_element(By.ID, "layer").is_displayed()


def test_networks_side_by_side(browser: webdriver.Chrome, address: str) -> None:
    opened(browser, address)
    browser.find_element(By.ID, "compare").click()
    wait(browser, "!document.getElementById('compare').disabled")
    script: Any = (
        "return [...document.getElementById('networks').tBodies[0].rows]"
        ".map(row => [row.cells[0].textContent, row.cells[6].textContent])"
    )
    (one, said), (two, other) = browser.execute_script(script)
    assert (one, two) == (NETWORK, EVENTS)
    assert re.fullmatch(r"T-shirt/top, 9\d\.\d%, 31\.\d µJ", said) and " µJ" in other
    browser.find_element(By.CSS_SELECTOR, "#networks thead button").click()
    browser.find_element(By.CSS_SELECTOR, "#networks thead button").click()
    assert browser.execute_script(script)[0][0] == NETWORK  # from the last letter to the first


@pytest.mark.parametrize("width", (*WIDTHS, 1600))
def test_nothing_is_cut_or_beside_the_window(
    width: int, browser: webdriver.Chrome, address: str
) -> None:
    opened(browser, address, width)
    script: Any = "return [innerWidth, document.documentElement.scrollWidth]"
    assert browser.execute_script(script) == [width, width]
    assert browser.execute_script(CUT) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(scheme: str, browser: webdriver.Chrome, address: str) -> None:
    opened(browser, address, 1280, scheme)
    ratio, words = browser.execute_script(CONTRAST)
    assert ratio >= 4.5, words


def test_nothing_leaves_and_nothing_complains(browser: webdriver.Chrome, address: str) -> None:
    browser.get_log("performance"), browser.get_log("browser")
    opened(browser, address)
    sent = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    urls = [
        line["params"]["request"]["url"]
        for line in sent
        if line["method"] == "Network.requestWillBeSent"
    ]
    own = [url for url in urls if url.startswith((address, "data:", f"blob:{address}"))]
    assert len(urls) > 8 and own == urls
    said = [line["message"] for line in browser.get_log("browser")]
    # Chromium's own line, where a page asks whether there is a graphics processor
    assert [line for line in said if not line.endswith("No available adapters.")] == []


def test_back_returns_to_the_network_before(browser: webdriver.Chrome, address: str) -> None:
    opened(browser, address)
    choose(browser, EVENTS)
    assert browser.current_url == f"{address}#{EVENTS}"
    browser.back()
    wait(browser, f"document.getElementById('about').textContent.startsWith('{NETWORK}')")
    assert browser.find_element(By.ID, "model").get_attribute("value") == NETWORK


def test_an_unknown_network_is_said_and_the_first_is_shown(
    browser: webdriver.Chrome, address: str
) -> None:
    show(browser, "about:blank", 1280)
    show(browser, f"{address}#danet99", 1280)
    wait(browser, "!document.getElementById('problem').hidden")
    assert text(browser, "problem").startswith("“danet99” is no network of this page")
    wait(browser, f"document.getElementById('about').textContent.startsWith('{NETWORK}')")


def providers(browser: webdriver.Chrome) -> Select:
    return Select(browser.find_element(By.ID, "provider"))


def test_without_a_graphics_processor_none_is_offered(
    browser: webdriver.Chrome, address: str
) -> None:
    opened(browser, address)
    assert [option.get_attribute("value") for option in providers(browser).options] == ["wasm"]


@pytest.fixture(scope="module")
def with_graphics() -> Iterator[webdriver.Chrome]:
    with open_browser(SOFTWARE_GRAPHICS) as chrome:
        yield chrome


def choose_graphics(browser: webdriver.Chrome, address: str) -> None:
    opened(browser, address)
    wait(browser, "document.getElementById('provider').options.length == 2")
    script: Any = "document.getElementById('proof').textContent = ''"
    browser.execute_script(script)
    providers(browser).select_by_value("webgpu")
    wait(browser, "document.getElementById('proof').textContent")


def test_webgpu_computes_the_same_spikes(with_graphics: webdriver.Chrome, address: str) -> None:
    choose_graphics(with_graphics, address)
    assert text(with_graphics, "proof").startswith("0 of 19 layers differ from the spikes")
    assert text(with_graphics, "provider-note").startswith("The graphics processor computes: ")
    assert providers(with_graphics).first_selected_option.get_attribute("value") == "webgpu"
    wait(with_graphics, READY.format(title="Fashion-MNIST"))
    script: Any = (
        "const all = document.querySelectorAll('#samples button');"
        "all[3].click(); setTimeout(() => all[0].click(), 100)"
    )
    with_graphics.execute_script(script)  # the second while the first is computed
    wait(with_graphics, "document.querySelector('#samples button').ariaPressed == 'true'")
    wait(with_graphics, READY.format(title="Fashion-MNIST"))
    model = zoo.load(NETWORK)
    assert cells(with_graphics) == counted(model, first_picture(model))


@pytest.mark.parametrize("fault", ["a file is missing", "a spike differs"])
def test_where_webgpu_fails_the_processor_computes(
    fault: str, with_graphics: webdriver.Chrome, address: str, folder: Path
) -> None:
    missing = fault == "a file is missing"
    file = "runtime/ort.webgpu.bundle.min.mjs" if missing else f"models/{NETWORK}.json"
    whole = (folder / file).read_bytes()
    if missing:
        (folder / file).unlink()
    else:
        record = json.loads(whole)
        next(iter(record["recorded"]["spikes"][0].values()))[0] += 1
        (folder / file).write_text(json.dumps(record))
    try:
        choose_graphics(with_graphics, f"{address}?{fault[2:6]}")
    finally:
        (folder / file).write_bytes(whole)
    reason = "Failed to fetch" if missing else "1 of 19 layers differ"
    note = text(with_graphics, "provider-note")
    assert note.startswith("The processor computes, ") and reason in note
    assert providers(with_graphics).first_selected_option.get_attribute("value") == "wasm"
    wait(with_graphics, READY.format(title="Fashion-MNIST"))


def test_the_command_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["page", NETWORK, "--out", str(tmp_path / "page")]) == 0
    assert f"python -m http.server --directory {tmp_path / 'page'}" in capsys.readouterr().out
    record = json.loads((tmp_path / "page" / "page.json").read_text())
    assert [model["name"] for model in record["models"]] == [NETWORK]
    assert main(["page", NETWORK, NETWORK, "--out", str(tmp_path / "twice")]) == 2
    assert "is given twice" in capsys.readouterr().err
