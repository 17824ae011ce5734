"""`zoo energy`, as a person types it."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
from support.networks import lively

from export.nir.exporter import to_nir
from export.nir.writer import write_graph
from export.onnx.exporter import write_onnx
from zoo import cli
from zoo.weights import write_model

TINY = {"widths": (4, 6, 8)}
MODEL = "danet20-t2.fmnist"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model: its folder, and its exports."""
    place = tmp_path_factory.mktemp("energy")
    model = lively(MODEL, 28, **TINY)
    write_model(place / "model", model, name=MODEL, data=model.known_origin.data, half=False)
    assert write_onnx(model, place / "model.onnx", verify=False) is None
    write_graph(to_nir(model), place / "model.nir")
    return place


def energy(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    status = cli.main(["energy", *map(str, argv)])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_model_and_its_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = energy(capsys, folder / "model", "--first", 6, "--out", tmp_path / "out")
    assert status == 0 and "45nm-fp32" in out
    assert "Convention exact" in out and "6 of the bundled images of Fashion-MNIST" in out
    names = [f"{MODEL}.{kind}" for kind in ("csv", "html", "json")]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    values = json.loads((tmp_path / "out" / f"{MODEL}.json").read_text())
    assert (values["schema"], values["images"]) == (3, 6)
    rows = list(csv.DictReader((tmp_path / "out" / f"{MODEL}.csv").read_text().splitlines()))
    assert int(rows[-1]["acs"]) == values["counts"]["acs"]
    page = (tmp_path / "out" / f"{MODEL}.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "http" not in page.replace("http://www.w3.org", "")


def test_torch_onnxruntime_and_nir_side_by_side(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [folder / "model", folder / "model.onnx", folder / "model.nir"]
    argv = [*models, "--first", 4, "--device", "45nm-int8", "--out", tmp_path]
    status, out, _ = energy(capsys, *argv)
    assert status == 0
    assert (tmp_path / "energy.html").is_file()
    engines = ("torch", "onnxruntime", "nir")
    reports = [json.loads((tmp_path / f"{MODEL}.{name}.json").read_text()) for name in engines]
    assert len({values["counts"]["macs"] for values in reports}) == 1
    assert "every integer is equal" in " ".join(out.split()) or "differ" in out


def test_all_conventions(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = energy(capsys, folder / "model", "--first", 2, "--convention", "all")
    for word in ("exact", "spikformer", "sew", "syops", "lemaire"):
        assert word in out
    _, out, _ = energy(capsys, folder / "model", "--first", 2, "--convention", "sew", "--json")
    assert json.loads(out)["convention"] == "sew"


def test_several_as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = energy(capsys, folder / "model", folder / "model.nir", "--first", 1, "--json")
    assert [values["source"]["engine"].split()[0] for values in json.loads(out)] == ["torch", "NIR"]


def test_a_profile_of_ones_own(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prices = "\n".join(
        f'{term} = {{ lo = 1, typ = 1, hi = 1, evidence = "measured", source = "us" }}'
        for term in ("ac", "mac", "add", "update", "idle_update")
    )
    (tmp_path / "mine.toml").write_text(f'[mine]\ntitle = "ours"\nscope = "per term"\n{prices}\n')
    argv = [folder / "model", "--first", 2, "--device", tmp_path / "mine.toml", "--json"]
    _, out, _ = energy(capsys, *argv)
    values = json.loads(out)
    counts = values["counts"]
    operations = sum(counts[key] for key in ("acs", "macs", "adds", "bias_adds", "updates"))
    assert values["profiles"][0]["total_pj"]["typ"] == pytest.approx(operations / 2)


def test_the_graph_of_somebody_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ones = np.ones((2, 3, 3), np.float32)
    nodes: dict[str, Any] = {
        "input": nir.Input({"input": np.array([2, 3, 3])}),
        "lif": nir.LIF(tau=ones, r=ones, v_leak=0 * ones, v_threshold=ones / 2, v_reset=0 * ones),
        "output": nir.Output({"output": np.array([2, 3, 3])}),
    }
    foreign = tmp_path / "foreign.nir"
    write_graph(nir.NIRGraph(nodes, [("input", "lif"), ("lif", "output")]), foreign)
    np.save(tmp_path / "frames.npy", np.ones((4, 5, 2, 3, 3), np.int32))
    argv = [foreign, "--input", tmp_path / "frames.npy", "--first", 3, "--json"]
    status, out, _ = energy(capsys, *argv)
    values = json.loads(out)
    assert status == 0 and values["images"] == 3 and values["source"]["steps"] == 4
    assert values["counts"]["updates"] == 3 * 4 * 18
    status, _, err = energy(capsys, foreign, "--steps", 4)
    said = "does not say what it reads: give it an array with --input FILE.npy"
    assert status == 2 and said in err
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "text.npy").write_text("hello")
    for name in ("objects", "text"):
        argv = [foreign, "--input", tmp_path / f"{name}.npy", "--steps", 4]
        status, _, err = energy(capsys, *argv)
        assert status == 2 and err.count("\n") == 1
        assert "is not an array of numbers in a .npy file" in err


@pytest.mark.slow
def test_processes_split_the_images(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three processes, which torchrun starts, give every integer of one; one of them speaks."""
    argv = ["-m", "zoo", "energy", str(folder / "model"), "--first", "70", "--json"]
    torchrun = "-m torch.distributed.run --standalone --nproc-per-node 3".split()
    command = [sys.executable, *torchrun, *argv]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    _, out, _ = energy(capsys, *argv[3:])
    several, one = json.loads(done.stdout), json.loads(out)
    assert several["layers"] == one["layers"] and several["accuracy"] == one["accuracy"]
    assert sorted(several["images_operations"]["ac"]) == sorted(one["images_operations"]["ac"])
