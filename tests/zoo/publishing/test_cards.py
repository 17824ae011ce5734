"""What is written of the manifest says what the manifest says; `python -m zoo.publishing.cards`
writes it again.
"""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from zoo.errors import ConfigError
from zoo.manifest import Manifest, WeightsSpec, read_manifest, weights_folder
from zoo.names import ModelSpec
from zoo.publishing import cards
from zoo.publishing.figures import microjoules
from zoo.publishing.model_card import model_card

ROOT = Path(__file__).parents[3]


@pytest.fixture
def entry() -> WeightsSpec:
    return read_manifest().weights["danet20-t4.fmnist"]


def test_the_pages_of_this_checkout_do_not_drift() -> None:
    for name in cards.PAGES:
        page = (ROOT / name).read_text()
        assert page.partition(cards.BEGIN)[2].partition(cards.END)[0].strip() == cards.table(
            read_manifest()
        )
    assert (ROOT / "weights" / "results.csv").read_text() == cards.results(read_manifest())
    for name, entry in read_manifest().weights.items():
        if (weights_folder() / name).is_dir():
            card = model_card(entry, steps=ModelSpec.parse(name).steps)
            assert (weights_folder() / name / "README.md").read_text() == card


def test_writing_them_again_repairs_a_drift(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "weights", tmp_path / "weights")
    before = {page: (ROOT / page).read_text() for page in cards.PAGES}
    for page, text in before.items():
        (tmp_path / page).write_text(text.replace("| 92.27% on", "| 99.99% on", 1))
    (tmp_path / "weights" / "results.csv").unlink()
    monkeypatch.setattr(cards, "weights_folder", lambda: tmp_path / "weights")
    cards.write(tmp_path)
    assert {page: (tmp_path / page).read_text() for page in cards.PAGES} == before
    assert (tmp_path / "weights" / "results.csv").read_text() == (
        ROOT / "weights" / "results.csv"
    ).read_text()
    with Image.open(tmp_path / cards.PLOT) as plot:
        assert plot.size == (2160, 480) and len(plot.convert("RGB").getcolors(2**16) or []) > 10


@pytest.mark.parametrize("page", ["no place for a table", cards.BEGIN, cards.END])
def test_a_page_without_a_place_for_the_table_is_left_alone(tmp_path: Path, page: str) -> None:
    (tmp_path / "README.md").write_text(f"{cards.BEGIN}\n{cards.END}\n")
    (tmp_path / "MODEL_CARD.md").write_text(page)
    with pytest.raises(ConfigError, match="lacks the lines"):
        cards.write(tmp_path)
    assert (tmp_path / "MODEL_CARD.md").read_text() == page and cards.table(
        read_manifest()
    ) not in (tmp_path / "README.md").read_text()


def test_results_are_figures(entry: WeightsSpec) -> None:
    unmeasured = replace(
        entry,
        name="sew-resnet18-t6.in1k",
        metrics={},
        energy=None,
        provenance="converted",
        source="somebody",
    )
    rows = list(
        csv.DictReader(
            cards.results(Manifest({e.name: e for e in (entry, unmeasured)}, {})).splitlines()
        )
    )
    assert rows[0].keys() == set(cards.COLUMNS)
    assert entry.energy is not None
    assert (
        float(rows[0]["top1"]) == entry.metrics["top1"]
        and float(rows[0]["energy_uj"]) == entry.energy["microjoules"]["typ"]
    )
    assert (rows[1]["steps"], rows[1]["top1"], rows[1]["energy_uj"], rows[1]["repo"]) == (
        "6",
        "",
        "",
        "",
    )


def test_a_card_of_what_was_measured(entry: WeightsSpec) -> None:
    card = ModelCard(model_card(entry, steps=4))
    (result,) = card.data.eval_results or []
    assert (result.metric_value, result.dataset_split, card.data.datasets) == (
        entry.metrics["top1"], "test", ["zalando-datasets/fashion_mnist"],
    )  # fmt: skip
    for said in (
        'zoo.load("danet20-t4.fmnist")',
        "92.27%",
        "31.4 µJ",
        "24.1%",
        "MIT, (c) 2017 Zalando SE",
        "@article{li2025rethinking",
    ):
        assert said in card.text
    assert "ORG/NAME" not in card.text and "| not measured |" not in card.text


def test_a_card_of_what_was_not(entry: WeightsSpec) -> None:
    data = replace(entry.data, tag="mine", title="my data", licence="")
    unmeasured = replace(entry, name="sew-resnet18-t4.in1k", data=data, metrics={}, energy=None)
    converted = replace(unmeasured, provenance="converted", source="Fang et al.", licence="unknown")
    card = ModelCard(model_card(converted, steps=4, repo="me/mine"))
    assert (
        card.data.eval_results is None
        and card.data.datasets is None
        and card.data.license == "unknown"
    )
    for said in (
        "**Converted**, not trained by this project: Fang et al.",
        'zoo.load("hf:me/mine")',
        "not measured",
        "@inproceedings{fang2021deep",
    ):
        assert said in card.text
    assert "None" not in card.text


def test_the_device_s_band_and_the_images_interval_are_shown_where_there_are_such() -> None:
    wide, one = {"lo": 1.1, "typ": 1.1, "hi": 3.352}, {"lo": 31.4, "typ": 31.4, "hi": 31.4}
    assert microjoules({"microjoules": one, "interval": None}) == "31.4 µJ"
    assert (
        microjoules({"microjoules": one, "interval": {"lo": 31.32, "hi": 31.531}})
        == "31.4 µJ (images 31.32 to 31.53)"
    )
    spans = "device 1.1 to 3.35; images 1.096 to 1.104"
    assert (
        microjoules({"microjoules": wide, "interval": {"lo": 1.0963, "hi": 1.1041}})
        == f"1.1 µJ ({spans})"
    )
