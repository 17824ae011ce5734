"""The folder of a page: its pictures, and what an earlier page left in it."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.networks import lively

from export.page import write_page
from zoo.errors import ConfigError, ExportError, InputError
from zoo.images import read_image

SMALL = {"widths": (4, 6, 8)}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pictures_of_ones_own_stand_in_for_bundled_ones(tmp_path: Path) -> None:
    model = lively("danet20-t2.tin200", 24, **SMALL)
    with pytest.raises(ExportError, match=r"none of Tiny-ImageNet are bundled: .* --images FILE"):
        write_page([model], tmp_path / "page")
    assert not (tmp_path / "page").exists()
    files = [tmp_path / f"{name}.png" for name in ("cat", "dog")]
    for seed, file in enumerate(files):
        pixels = np.random.default_rng(seed).integers(0, 256, (50, 40, 3), np.uint8)
        Image.fromarray(pixels).save(file)
    write_page([model], tmp_path / "page", pictures=files)
    pictures = json.loads((tmp_path / "page" / "samples" / "tin200-3x24x24.json").read_text())
    assert pictures["titles"] == ["cat.png", "dog.png"] and pictures["shape"] == [3, 24, 24]
    first = base64.b64decode(pictures["pixels"][0])
    assert first == read_image(files[0], model.known_origin.data).numpy().tobytes()
    before = contents(tmp_path / "page")
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(InputError, match=r"notes\.png is not an image that can be read"):
        write_page([model], tmp_path / "page", pictures=[tmp_path / "notes.png"])
    events = lively("danet20-t2.nmnist", 34, **SMALL)
    with pytest.raises(ExportError, match="networks of N-MNIST take recordings"):
        write_page([model, events], tmp_path / "page", pictures=files[::-1])  # the second fails
    assert contents(tmp_path / "page") == before


def test_a_tag_of_a_stranger_names_no_file_elsewhere() -> None:
    data = lively("danet20-t1.fmnist", 28, **SMALL).known_origin.data
    for tag in ("../../x", "/etc/x", "a/b", "..", ""):
        with pytest.raises(ConfigError, match=r"tag = .* must be a word of letters"):
            replace(data, tag=tag)


def test_a_page_replaces_the_one_before(tmp_path: Path) -> None:
    for name in ("danet20-t1.fmnist", "danet20b-t1.fmnist"):
        write_page([lively(name, 28, **SMALL)], tmp_path)
    (tmp_path / "models" / "own.onnx").write_text("of somebody")
    write_page([lively("danet20b-t1.fmnist", 28, **SMALL)], tmp_path)
    found = sorted(path.name for path in (tmp_path / "models").iterdir())
    assert found == ["danet20b-t1.fmnist.json", "danet20b-t1.fmnist.onnx", "own.onnx"]


def test_what_is_no_page_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "page.json").write_text('{"title": "my blog"}')
    with pytest.raises(ExportError, match="holds files that are no page"):
        write_page([lively("danet20-t1.fmnist", 28, **SMALL)], tmp_path)
    assert contents(tmp_path).keys() == {str(tmp_path / "page.json")}
