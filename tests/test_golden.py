"""The bundled weights give the same logits and spikes as when they were published.

Another processor may round a convolution differently and flip a borderline spike, so totals may
move by a thousandth; a change of the network's meaning moves them by far more.
"""

import json
from pathlib import Path

import pytest
import torch
from golden import PATH, measure

from zoo.integrity import check_files
from zoo.manifest import read_manifest, weights_folder

GOLDEN = json.loads(PATH.read_text())


@pytest.mark.parametrize("name", sorted(read_manifest().weights))
def test_outputs(name: str) -> None:
    golden, measured = GOLDEN[name], measure(name)
    assert measured["weights"] == golden["weights"], "run `python tests/golden.py` for new weights"
    assert measured["correct"] == pytest.approx(golden["correct"], abs=1)
    logits, expected = torch.tensor(measured["logits"]), torch.tensor(golden["logits"])
    torch.testing.assert_close(logits, expected, atol=0.05, rtol=0)
    assert measured["spikes"] == pytest.approx(golden["spikes"], rel=1e-3)


@pytest.mark.parametrize("name", sorted(read_manifest().weights))
def test_the_folder_holds_what_the_manifest_lists(name: str) -> None:
    entry, folder = read_manifest().weights[name], weights_folder() / name
    check_files(folder, entry.files, remedy="")
    assert {file.name for file in folder.iterdir()} == {*entry.files, "README.md"}
    recipe = json.loads((folder / "recipe.json").read_text())
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == list(range(1, recipe["recipe"]["epochs"] + 1))
    # The log was measured with float32 weights. Storing them as float16 flips borderline spikes,
    # and with them a few predictions either way.
    assert log[-1]["test_top1"] == pytest.approx(entry.metrics["top1"], abs=0.005)
    assert entry.metrics == json.loads((folder / "metrics.json").read_text())


def test_the_model_card_and_the_readme_repeat_the_manifest() -> None:
    root = Path(__file__).parent.parent
    for entry in read_manifest().weights.values():
        for page in ("MODEL_CARD.md", "README.md"):
            assert f"{entry.metrics['top1']:.2%}" in (root / page).read_text(), page
        assert f"{entry.parameters:,}" in (root / "MODEL_CARD.md").read_text()
