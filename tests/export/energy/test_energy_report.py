import io
import json
import re
from dataclasses import replace

import pytest
import torch
from rich.console import Console

import export.energy
from export.energy import energy_report
from export.energy.units import count, joules
from zoo.errors import InputError


@pytest.fixture(scope="module")
def report(tiny):
    images = torch.randn(5, 1, 20, 20, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        labels = tiny(images).argmax(1)
    labels[0] = (labels[0] + 1) % 10
    return energy_report(tiny, images, labels, batch=2)


def test_report(report):
    assert report.accuracy == 0.8
    assert (report.model, report.images, report.steps, report.data) == ("danet20-t2.fmnist", 5, 2, "Fashion-MNIST")
    assert len(report.step_rates) == 2
    assert sum(report.step_rates) / 2 == pytest.approx(report.mean_rate)
    assert [e.unpriced for e in report.energies] == [(), (), ("mac", "add")]


def test_json_round_trip(report):
    values = report.to_json()
    assert json.loads(json.dumps(values)) == values
    assert values["schema"] == 1
    assert values["convention"]["name"] == "exact"
    assert values["counts"]["acs"] == sum(layer["counts"]["acs"] for layer in values["layers"])
    fp32, _, loihi = values["energies"]
    assert fp32["total_pj"]["typ"] == pytest.approx(sum(layer["energy_pj"]["45nm-fp32"]["typ"] for layer in values["layers"]))
    assert (loihi["total_pj"], loihi["unpriced"]) == (None, ["mac", "add"])


def test_terminal_names_convention_profiles_and_accuracy(report):
    console = Console(file=io.StringIO(), width=140)
    report.print(console)
    text = console.file.getvalue()
    for words in (
        "Convention exact",
        "45nm-fp32",
        "45nm-int8",
        "loihi1",
        "no price for mac, add",
        "accuracy 80.0 %",
        "stage1_block0_conv1",
    ):
        assert words in text


def test_html_is_one_page_that_fetches_nothing(report):
    page = report.to_html()
    assert not re.search(r"(src|href)=|url\(|@import|<script", page)
    assert page.count("<svg") == 3
    for words in ("convention <strong>exact</strong>", "45nm-int8", "no published price for mac, add", "80.0 %", "Davies et al."):
        assert words in page


def test_html_and_terminal_escape(report):
    odd = replace(report, model="<b>[red]", accuracy=None)
    assert "<b>" not in odd.to_html()
    assert "&lt;b&gt;[red]" in odd.to_html()
    console = Console(file=io.StringIO(), width=140)
    odd.print(console)
    assert "<b>[red]" in console.file.getvalue()


def test_without_any_total(report):
    unpriced = replace(report, energies=report.energies[2:])
    assert unpriced.to_html().count("<svg") == 2
    unpriced.print(Console(file=io.StringIO()))


def test_labels_as_a_list_and_progress(tiny):
    seen = []
    report = energy_report(
        tiny, torch.zeros(3, 1, 20, 20), [0, 0, 0], batch=2, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(2, 3), (3, 3)]
    assert report.accuracy in (0.0, 1.0)


def test_the_model_keeps_its_mode(tiny):
    tiny.train()
    energy_report(tiny, torch.zeros(1, 1, 20, 20))
    assert tiny.training
    tiny.eval()


@pytest.mark.parametrize(
    "arguments",
    [
        (torch.zeros(1, 20, 20),),
        (torch.zeros(0, 1, 20, 20),),
        (torch.zeros(2, 1, 20, 20), torch.zeros(3)),
        (torch.zeros(2, 3, 20, 20),),
    ],
)
def test_images_that_do_not_fit(tiny, arguments):
    with pytest.raises(InputError, match=r"expected|takes"):
        energy_report(tiny, *arguments)


def test_units():
    assert [count(n) for n in (0, 7, 12.5, 999, 1234567, 1814073344)] == ["0", "7", "12.50", "999", "1.235 M", "1.814 G"]
    assert [joules(n) for n in (0, 0.5, 2808315.6, 1.3e10)] == ["0 pJ", "0.50 pJ", "2.81 µJ", "13.0 mJ"]


def test_public_names():
    assert all(getattr(export.energy, name).__doc__ or name == "CONVENTIONS" for name in export.energy.__all__)
