"""The page's own scripts, in Node: spikes, logits and operations equal Python's."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.networks import lively
from torch import nn

from export.energy import estimate
from export.energy.operations import Operation
from export.page import write_page
from export.prepare.quantize import quantize_weights
from zoo.danet import DANet
from zoo.images import to_input
from zoo.saccades import with_saccades

SCRIPT = Path(__file__).with_name("exactness.mjs")
# Block orders, joins, neurons that leak or not, events, and pools that sum spikes.
NETWORKS = {
    "danet20b-t2.fmnist": {},
    "danet20c-t2.fmnist": {},
    "danet20-t3.i2e-fmnist": {},
    "speck-danet8-t2.i2e-fmnist": {},
    "sew-resnet18-t2.cifar10": {"widths": (8, 8, 8, 8)},
}


def picture(model: DANet, folder: Path, index: int) -> torch.Tensor:
    """One of the pictures of a page, as the network takes it."""
    data = model.known_origin.data
    about = json.loads((folder / "samples" / f"{summary(folder)['pictures']}.json").read_text())
    raw = bytearray(base64.b64decode(about["pixels"][index]))
    pixels = torch.frombuffer(raw, dtype=torch.uint8).view(1, *about["shape"])
    return to_input(with_saccades(pixels, data, model.config.steps), data)


def summary(folder: Path) -> dict[str, Any]:
    """What a page of one network says of it: its name, and that of its pictures."""
    found: dict[str, Any] = json.loads((folder / "page.json").read_text())["models"][0]
    return found


def ran(model: DANet, folder: Path) -> dict[str, Any]:
    """Return what the scripts of a page make of its recorded picture."""
    write_page([model], folder)
    node = shutil.which("node")
    assert node, "this test needs Node.js, Debian's package nodejs"
    command = [node, str(SCRIPT), str(folder), summary(folder)["name"]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def check(model: DANet, folder: Path) -> None:
    """Compare the spikes of every layer, the logits, and what each row does by every convention."""
    result = ran(model, folder)
    record = json.loads((folder / "models" / f"{summary(folder)['name']}.json").read_text())
    x = picture(model, folder, record["recorded"]["picture"])
    assert result["spikes"] == record["recorded"]["spikes"]
    assert sum(places[0] for step in result["spikes"] for places in step.values()) > 100
    np.testing.assert_allclose(result["logits"], model(x)[0].detach(), atol=1e-4)
    report = estimate(model, x)
    assert result["counted"].keys() == report.operations.keys()
    for convention, found in result["counted"].items():
        layers = zip(report.layers, report.operations[convention].by_layer, strict=True)
        expected = [
            [layer.name, {key(operation): n for operation, n in operations.items()}]
            for layer, operations in layers
        ]
        assert found == expected, convention


def key(operation: Operation) -> str:
    """The page's name of an operation."""
    return f"access:{operation.bytes}" if operation.kind == "access" else operation.kind


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_a_page_computes_and_counts_what_python_does(name: str, tmp_path: Path) -> None:
    size = 32 if "cifar10" in name else 28
    check(lively(name, size, **NETWORKS[name]), tmp_path)


@pytest.mark.slow
def test_rounded_weights_run_as_they_are_exported(tmp_path: Path) -> None:
    check(quantize_weights(lively("danet20-t2.fmnist", 28, widths=(4, 6, 8)), "int8"), tmp_path)


@pytest.mark.slow
def test_missing_weights_do_no_work(tmp_path: Path) -> None:
    """Half of the weights are zero, so that channels differ in what they reach."""
    model = lively("danet20-t2.fmnist", 28, widths=(4, 6, 8))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data *= torch.rand_like(module.weight) > 0.5
    check(model, tmp_path)
