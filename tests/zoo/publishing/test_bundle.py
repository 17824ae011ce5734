"""From a finished run's folder to an entry of the manifest, and back through `zoo.load`."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import zoo
from zoo.danet import DANet
from zoo.datasets import DatasetSpec
from zoo.errors import WeightsError
from zoo.integrity import check_files
from zoo.manifest import Manifest
from zoo.provenance import TRAINED_FILES
from zoo.publishing import cards
from zoo.publishing.bundle import best_datasets, bundle, main
from zoo.publishing.entry import describe
from zoo.publishing.figures import energy_figures, exported_figures
from zoo.publishing.model_card import model_card
from zoo.weights import write_model


@pytest.fixture
def finished(tmp_path: Path, tiny: type[DANet], digits: DatasetSpec) -> Path:
    """What a finished `zoo train danet18-t2.fmnist` leaves, small."""
    folder = tmp_path / "run" / "model"
    write_model(folder, tiny(), name="danet18-t2.fmnist", data=digits)
    (folder / "metrics.json").write_text(
        json.dumps({"top1": 0.125, "split": "test", "images": 1000, "weights": "last step"})
    )
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "recipe.json").write_text("{}\n")
    return folder


def test_a_finished_run_becomes_an_entry(
    finished: Path, tmp_path: Path, digits: DatasetSpec
) -> None:
    entry = bundle(finished, tmp_path / "weights")
    assert (entry.name, entry.data, entry.provenance, entry.metrics["top1"]) == (
        "danet18-t2.fmnist",
        digits,
        "trained",
        0.125,
    )
    assert entry.files.keys() == {
        *TRAINED_FILES,
        "config.json",
        "model.safetensors",
    } and entry == describe(finished)
    check_files(tmp_path / "weights" / entry.name, entry.files, remedy="")


@pytest.mark.parametrize("file", TRAINED_FILES)
def test_an_unfinished_run_is_refused(finished: Path, tmp_path: Path, file: str) -> None:
    (finished / file).unlink()
    with pytest.raises(WeightsError, match=rf"lacks {file}"):
        bundle(finished, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_weights_of_unknown_training_are_described_and_not_taken_in(
    finished: Path, tmp_path: Path
) -> None:
    for file in TRAINED_FILES:
        (finished / file).unlink()
    entry = describe(finished)
    assert (entry.provenance, entry.licence, entry.recipe, entry.metrics) == (
        "unknown",
        "unknown",
        "",
        {},
    )
    assert entry.files.keys() == {"config.json", "model.safetensors"}
    with pytest.raises(
        WeightsError, match=r"lacks metrics\.json: it is neither what a finished `zoo train` leaves"
    ):
        bundle(finished, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_the_manifest_reads_back_what_it_wrote(finished: Path, tmp_path: Path) -> None:
    entry = bundle(finished, tmp_path)
    before = Manifest({entry.name: entry}, {"danet18-t2": "fmnist"})
    before.write(tmp_path / "manifest.json")
    assert Manifest.read(tmp_path / "manifest.json") == before


def test_what_is_bundled_can_be_loaded(
    bundled: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pages = [bundled.parent / page for page in cards.PAGES]
    for page in pages:
        page.write_text(f"{cards.BEGIN}\n{cards.END}\n")
    main([str(finished)])
    assert all("danet18-t2.fmnist" in page.read_text() for page in pages)
    assert (bundled.parent / cards.PLOT).read_bytes().startswith(b"\x89PNG")
    assert (bundled / "danet18-t2.fmnist" / "README.md").is_file()
    assert capsys.readouterr().out.startswith("danet18-t2.fmnist: ")
    assert zoo.list_models(pretrained=True) == ["danet18-t2.fmnist", "danet20-t2.fmnist"]
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(zoo.load("danet18-t2")(x), zoo.load(str(finished))(x))


@pytest.mark.parametrize("command", [main, cards.main])
def test_the_commands_explain_themselves(
    command: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        command(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "For maintainers" in said


REPORT: dict[str, Any] = {
    "profiles": [
        {"name": "loihi1", "total_pj": None},
        {
            "name": "45nm-int8",
            "total_pj": {"lo": 1e6, "typ": 2e6, "hi": 3e6},
            "interval_pj": {"lo": 1.9e6, "hi": 2.1e6},
        },
    ],
    "images": 10,
    "accuracy": 0.5,
    "convention": "exact",
    "counts": {"acs": 1000, "macs": 20},
    "firing_rate": 0.25,
}


def test_an_energy_report_goes_into_the_entry(finished: Path, tmp_path: Path) -> None:
    entry = bundle(finished, tmp_path / "weights", REPORT)
    assert entry.energy == energy_figures(REPORT) == {
        "profile": "45nm-int8", "convention": "exact",
        "images": 10, "split": "test", "accuracy": 0.5,
        "microjoules": {"lo": 1.0, "typ": 2.0, "hi": 3.0}, "interval": {"lo": 1.9, "hi": 2.1},
        "synops": 100.0, "macs": 2.0, "firing_rate": 0.25,
    }  # fmt: skip
    assert "energy.json" in entry.files
    assert bundle(tmp_path / "weights" / entry.name, tmp_path / "weights") == entry  # onto itself


EVALUATION = {
    "model": "danet18-t2.fmnist (onnxruntime 1.32.0)",
    "images": 1000,
    "top1": 0.1255,
    "images_per_second": 400.0,
    "processor": "CPU, 2 cores",
}


def test_what_the_exported_file_reached_goes_into_the_entry(finished: Path, tmp_path: Path) -> None:
    entry = bundle(finished, tmp_path / "weights", None, EVALUATION)
    assert entry.metrics == exported_figures(
        {"top1": 0.125, "split": "test", "images": 1000, "weights": "last step"}, EVALUATION
    )
    assert (entry.metrics["onnx_top1"], entry.metrics["onnx_milliseconds"]) == (0.1255, 2.5)
    assert entry.metrics["onnx_on"] == "onnxruntime 1.32.0, CPU, 2 cores"
    for change in ({"top1": 0.127}, {"images": 999}):
        with pytest.raises(WeightsError, match="these are not the same network"):
            bundle(finished, tmp_path / "other", None, EVALUATION | change)
    with pytest.raises(WeightsError, match="the evaluation lacks images_per_second"):
        bundle(
            finished,
            tmp_path / "other",
            None,
            {key: value for key, value in EVALUATION.items() if key != "images_per_second"},
        )
    with pytest.raises(WeightsError, match=r"the folder's metrics\.json lacks top1"):
        exported_figures({"images": 1000}, EVALUATION)
    assert not (tmp_path / "other").exists()


def test_what_withstood_attacks_goes_into_the_entry_and_its_card(
    finished: Path, tmp_path: Path
) -> None:
    attacked = {
        "model": describe(finished).name,
        "holds": True,
        "robust_top1": 0.034,
        "eps": 8.0,
        "images": 500,
        "attacks": ["pgd", "square"],
        "weights_sha256": describe(finished).files["model.safetensors"].sha256,
    }
    entry = bundle(finished, tmp_path / "weights", None, None, attacked)
    assert (entry.metrics["robust_top1"], entry.metrics["robust_eps"]) == (0.034, 8.0)
    said = "3.4% of 500 images at 8/255 (pgd, square)"
    assert f"| under attack | {said}: right under every one" in model_card(entry, steps=2)
    assert f"; under attack {said} |" in cards.table(Manifest({entry.name: entry}, {}))
    for change, words in (
        ({"holds": False}, "is too high: a check failed"),
        ({"attacks": ["fgsm"]}, "or it lacks pgd and square"),
        ({"weights_sha256": "0" * 64}, "the attack was on other weights of danet18-t2.fmnist"),
    ):
        with pytest.raises(WeightsError, match=words):
            bundle(finished, tmp_path / "other", None, None, attacked | change)
    with pytest.raises(WeightsError, match="the record of the attack lacks attacks"):
        bundle(finished, tmp_path / "other", None, None, {"model": "x"})
    assert not (tmp_path / "other").exists()


def test_a_bare_name_means_the_best_weights(finished: Path) -> None:
    entry = describe(finished)
    known = {
        name: replace(entry, name=name, metrics={"top1": top1} if top1 else {})
        for name, top1 in {
            "danet18-t2.in1k": 0.0,
            "danet18-t2.cifar10": 0.9,
            "danet18-t2.fmnist": 0.8,
            "danet34-t2.tin200": 0.0,
        }.items()
    }
    assert best_datasets(known) == {"danet18-t2": "cifar10", "danet34-t2": "tin200"}


@pytest.mark.parametrize(
    "change", [{"accuracy": None}, {"profiles": []}, {"profiles": REPORT["profiles"][1:] * 2}]
)
def test_a_report_that_cannot_be_kept(change: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="one priced device on labelled images"):
        energy_figures(REPORT | change)


def test_a_report_that_cannot_be_kept_leaves_nothing(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="the report lacks accuracy"):
        bundle(finished, tmp_path / "weights", {})
    assert not (tmp_path / "weights").exists()


def test_what_is_no_report() -> None:
    with pytest.raises(WeightsError, match="the report lacks accuracy: it is what"):
        energy_figures({})


def test_a_link_out_of_the_folder_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "passwords").write_text("{}")
    (finished / "recipe.json").unlink()
    (finished / "recipe.json").symlink_to(tmp_path / "passwords")
    with pytest.raises(
        WeightsError, match=r"recipe\.json is a link to .*passwords, outside of the folder"
    ):
        describe(finished)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_metrics_that_are_none(finished: Path, text: str) -> None:
    (finished / "metrics.json").write_text(text)
    with pytest.raises(WeightsError, match=r"metrics\.json"):
        describe(finished)
