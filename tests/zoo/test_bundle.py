"""From a finished run's folder to an entry of the manifest, and back through `zoo.load`."""

import json
from pathlib import Path

import pytest
import torch

import zoo
from zoo import names
from zoo.bundle import FILES, bundle, main, write_manifest
from zoo.danet import DANet
from zoo.datasets import DatasetSpec
from zoo.errors import WeightsError
from zoo.integrity import check_files
from zoo.names import Manifest
from zoo.weights import write_model


@pytest.fixture
def finished(tmp_path: Path, tiny: type[DANet], digits: DatasetSpec) -> Path:
    """What a finished `zoo train danet18-t2.fmnist` leaves, small."""
    folder = tmp_path / "run" / "model"
    write_model(folder, tiny(), name="danet18-t2.fmnist", data=digits)
    (folder / "metrics.json").write_text(json.dumps({"top1": 0.125, "split": "test", "images": 1000}))
    (folder / "metrics.jsonl").write_text("{}\n")
    (folder / "recipe.json").write_text("{}\n")
    return folder


def test_a_finished_run_becomes_an_entry(finished: Path, tmp_path: Path, digits: DatasetSpec) -> None:
    entry = bundle(finished, tmp_path / "weights")
    assert (entry.name, entry.data, entry.provenance, entry.metrics["top1"]) == ("danet18-t2.fmnist", digits, "trained", 0.125)
    assert entry.files.keys() == {*FILES, "README.md"}
    check_files(tmp_path / "weights" / entry.name, entry.files, remedy="")
    card = (tmp_path / "weights" / entry.name / "README.md").read_text()
    assert "12.50%" in card and f"{entry.parameters:,}" in card


@pytest.mark.parametrize("file", FILES)
def test_an_unfinished_run_is_refused(finished: Path, tmp_path: Path, file: str) -> None:
    (finished / file).unlink()
    with pytest.raises(WeightsError, match=rf"lacks {file}"):
        bundle(finished, tmp_path / "weights")
    assert not (tmp_path / "weights").exists()


def test_the_manifest_reads_back_what_it_wrote(finished: Path, tmp_path: Path) -> None:
    entry = bundle(finished, tmp_path)
    before = Manifest({entry.name: entry}, {"danet18-t2": "fmnist"})
    write_manifest(tmp_path / "manifest.json", before)
    assert Manifest.read(tmp_path / "manifest.json") == before


def test_what_is_bundled_can_be_loaded(
    bundled: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("zoo.bundle.weights_folder", lambda: bundled)
    main(str(finished))
    names.manifest.cache_clear()
    assert capsys.readouterr().out.startswith("danet18-t2.fmnist: ")
    assert zoo.list_models(pretrained=True) == ["danet18-t2.fmnist", "danet20-t2.fmnist"]
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(zoo.load("danet18-t2")(x), zoo.load(str(finished))(x))
