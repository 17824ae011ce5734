import io
import re
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from export.energy import CONVENTIONS, estimate
from export.energy.output.terminal import conventions, several
from export.energy.output.text import quotation
from export.prepare.quantize import quantize_weights

WIDTHS = (80, 140)


@pytest.fixture(scope="module")
def images():
    return torch.randn(10, 1, 20, 20, generator=torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def report(tiny, images):
    with torch.no_grad():
        labels = tiny(images).argmax(1)
    labels[0] = (labels[0] + 1) % 10
    return estimate(tiny, images, labels)


def shown(show, width=140):
    console = Console(file=io.StringIO(), width=width)
    show(console)
    text = console.file.getvalue()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= width
    return text


def words(text):
    """In one line, wherever it was broken."""
    return " ".join(text.split())


def no_ratio(text):
    assert not re.search(r"\d\s?(x|\u00d7|times|-fold)\b|\bbetter\b|\bsaves?\b|less energy", text)


@pytest.mark.parametrize("width", WIDTHS)
def test_report(report, width):
    text = words(shown(report.print, width))
    for expected in (
        "the 12 costliest of",
        "energy of an image, convention exact",
        "45nm-fp32",
        "images for ±1 %" if width > 80 else "±1 %",
        "between ",
        " and ",
        "truenorth",
        "no price for mac",
        "dense ANN",
        "zero-skipping ANN",
        "2-bit ANN",
        "not trained",
        "rate",
        "accuracy 90.0 % on 10 images of Fashion-MNIST",
        "firing rate",
        "SynOps an image",
        "Convention exact: One accumulate per event",
        "Run by torch",
    ):
        assert expected in text
    no_ratio(text)


@pytest.mark.parametrize("width", WIDTHS)
def test_shares_add_up(report, width):
    lines = [
        line
        for line in shown(report.print, width).splitlines()
        if re.match(r" (stem|stage|head)", line)
    ]
    shares = [
        tuple(float(share) for share in re.findall(r"([\d.]+) %", line)[-2:]) for line in lines
    ]
    assert len(shares) == 12
    assert [so_far for _, so_far in shares] == sorted(so_far for _, so_far in shares)
    assert shares[0][0] == shares[0][1]
    assert sum(share for share, _ in shares) == pytest.approx(shares[-1][1], abs=0.7)


def test_one_device_is_a_sentence(tiny, images):
    text = shown(estimate(tiny, images, device="45nm-int8", convention="sew").print)
    assert "Device 45nm-int8, convention sew: " in text
    assert "lo to hi" in text
    assert "95 % over images between" in text
    assert "No total" not in text
    assert "no labels on 10 images" in text


def test_prices_for_other_numbers_than_the_network_s_are_said(tiny, images):
    said = "priced as if it computed in int8"
    text = shown(estimate(tiny, images, device="45nm-int8").print)
    assert said in words(text)
    text = words(shown(estimate(tiny, images).print))
    assert f"45nm-fp16 is priced as if it computed in float16; 45nm-int8 is {said}" in text
    rounded = estimate(quantize_weights(tiny, "int8-layer"), images, device="45nm-int8")
    assert said not in words(shown(rounded.print)) and said not in quotation(rounded)
    quoted = quotation(estimate(tiny, images, device="45nm-int8"))
    assert f"float32 weights, {said})" in quoted


def test_few_images_have_no_interval(tiny, images):
    text = shown(estimate(tiny, images[:1]).print)
    assert "none below 10 images" in text
    assert "no labels on one image of" in text
    assert "95 % over images none below 10 images" in shown(
        estimate(tiny, images[:1], device="45nm-fp32").print
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_without_any_total(tiny, images, width):
    report = estimate(tiny, images, device=["loihi2", "truenorth"])
    text = words(shown(report.print, width))
    assert "the 12 busiest of" in text
    assert "loihi2 (no price for" in text
    assert "truenorth (no price for mac)" in text
    assert "dense ANN" not in text
    assert "no price" in shown(lambda console: conventions(report, console), width)


@pytest.mark.parametrize("width", WIDTHS)
def test_conventions(report, width):
    text = words(shown(lambda console: conventions(report, console), width))
    assert "device 45nm-fp32" in text
    for name, convention in CONVENTIONS.items():
        assert name in text
        assert convention.explanation.split(";")[0][:40] in text
        assert convention.reference[:20] in text
    assert re.search(r"exact ([\d.]+ .J) 1\.00 ", text)


@pytest.mark.parametrize("width", WIDTHS)
def test_several(report, width):
    text = words(shown(lambda console: several([report, report], console), width))
    for expected in (
        "device 45nm-fp32, convention exact",
        "every integer is equal",
        "90.0 %",
        "torch",
    ):
        assert expected in text
    no_ratio(text)


def test_several_with_a_shared_device_alone(tiny, images, report):
    int8 = estimate(tiny, images, device=["45nm-int8", "loihi2"])
    assert "device 45nm-int8" in shown(lambda console: several([report, int8], console))
    assert "no device has a price" in shown(
        lambda console: several([report, estimate(tiny, images, device="loihi2")], console)
    )


def test_several_that_differ(report, tiny, images):
    i = next(i for i, layer in enumerate(report.layers) if layer.kind == "neuron")
    layer = report.layers[i]
    changed = replace(layer, counts=layer.counts | {"spikes": 1234})
    other = replace(report, layers=(*report.layers[:i], changed, *report.layers[i + 1 :]))
    text = words(shown(lambda console: several([report, other], console)))
    spikes = f"({layer.counts['spikes']:,} against 1,234 spikes)"
    assert f"1 of {len(report.layers)} rows differ, first {layer.name} {spikes}" in text
    turned = estimate(tiny, images.flip(0))
    assert "single images are not" in words(
        shown(lambda console: several([report, turned], console))
    )


def test_several_networks_are_not_held_to_agree(report, tiny, images):
    for other in (
        replace(report, source=replace(report.source, name="another")),
        estimate(tiny, images[:2]),
    ):
        text = shown(lambda console, other=other: several([report, other], console))
        assert "equal" not in text
        assert "differ" not in text


@pytest.mark.parametrize("width", WIDTHS)
def test_names_are_no_markup(report, width):
    odd = "[b]"
    devices = tuple(replace(device, name=odd + device.name) for device in report.devices)
    source = replace(report.source, name=odd, engine=odd)
    layers = tuple(replace(layer, name=odd + str(i)) for i, layer in enumerate(report.layers))
    hostile = replace(report, source=source, devices=devices, layers=layers)
    text = shown(hostile.print, width)
    assert f"{odd}, an image" in text
    assert f"Run by {odd}" in text
    assert f"{odd}truenorth" in text
    assert re.search(rf"{re.escape(odd)}\d+ ", text)
    for show in (conventions, lambda report, console: several([report, report], console)):
        assert odd in shown(lambda console, show=show: show(hostile, console), width)
