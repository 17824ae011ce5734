"""What commands say where nothing fires or a time step had to be assumed, and which options they
refuse.
"""

import json
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from support.networks import lively
from support.nir_graphs import a
from support.signals import interruptible

from export import estimate
from export.energy.output import html
from export.nir.exporter import to_nir
from export.nir.network import from_nir
from export.nir.writer import write_graph, write_nir
from export.onnx.exporter import write_onnx
from export.onnx.runtime import OnnxModel
from zoo import cli
from zoo.errors import InputError
from zoo.silence import NO_SPIKES
from zoo.weights import write_model

MODEL = "danet20-t2.fmnist"
ASSUMED = "a time step of 0.0001 s was assumed"


def zoo(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    status = cli.main([str(word) for word in argv])
    out, err = capsys.readouterr()
    return status, out, err


def integrators(**metadata: float) -> nir.NIRGraph:
    """Two layers of IF neurons of r = 1 and a threshold of 1, as tools write them that count time
    in steps.
    """
    ones = a(1, 1, 1)
    nodes = {
        "input": nir.Input({"input": np.array([3])}),
        "first": nir.IF(r=ones, v_threshold=ones, v_reset=0 * ones),
        "second": nir.IF(r=ones, v_threshold=100 * ones, v_reset=0 * ones),
        "output": nir.Output({"output": np.array([3])}),
    }
    names = [*nodes]
    return nir.NIRGraph(nodes, list(pairwise(names)), metadata=metadata)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A foreign graph with and without a time step, its input, and a small model of the zoo all of
    whose weights are zero.
    """
    folder = tmp_path_factory.mktemp("a folder of Übung")
    write_graph(integrators(), folder / "plain.nir")
    write_graph(integrators(dt=1.0), folder / "steps.nir")
    np.save(folder / "x.npy", np.full((4, 2, 3), 0.6, np.float32))
    model = lively(MODEL, 28, widths=(4, 6, 8))
    for parameter in model.parameters():
        parameter.data.zero_()
    write_model(folder / "zero", model, name=MODEL, data=model.known_origin.data)
    return folder


def test_energy_of_silence_is_said_everywhere(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["energy", files / "plain.nir", "--input", files / "x.npy", "--device", "45nm-fp32"]
    status, out, _ = zoo(capsys, *argv, "--out", tmp_path)
    assert status == 0 and NO_SPIKES in " ".join(out.split()) and ASSUMED in " ".join(out.split())
    values = json.loads((tmp_path / "plain.nir.json").read_text())
    assert values["silent"] and values["silent_layers"] == ["first", "second"]
    assert values["source"]["assumed_dt"] == 1e-4
    page = (tmp_path / "plain.nir.html").read_text()
    assert NO_SPIKES in page and ASSUMED in page
    status, out, err = zoo(capsys, *argv, "--json")
    assert json.loads(out)["notes"][0] == NO_SPIKES and NO_SPIKES in err and ASSUMED in err


def test_a_time_step_wakes_them(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for graph, *more in (("plain.nir", "--dt", 1), ("steps.nir",), ("steps.nir", "--dt", 1)):
        argv = ["energy", files / graph, "--input", files / "x.npy", "--json", *more]
        status, out, err = zoo(capsys, *argv)
        values = json.loads(out)
        assert status == 0 and values["counts"]["spikes"] == 2 * 3 * 2
        assert values["source"]["assumed_dt"] is None
        assert not values["silent"] and values["silent_layers"] == ["second"] and ASSUMED not in err
        assert values["notes"] == ["1 of 2 layers of neurons never fired: second"]


def test_a_time_step_that_contradicts_the_graph_is_refused(
    files: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    said = "dt = 0.5 contradicts the graph, whose metadata say dt = 1: leave dt out"
    for argv in (
        ["energy", "--input", files / "x.npy"],
        ["export", "--out", tmp_path],
        ["check"],
        ["verify", "--export", "x.onnx"],
    ):
        status, _, err = zoo(capsys, argv[0], files / "steps.nir", *argv[1:], "--dt", 0.5)
        assert status == 2 and err == f"zoo: {said}\n"
    with pytest.raises(InputError, match=said):
        from_nir(files / "steps.nir", dt=0.5)
    with pytest.raises(InputError, match=said):
        estimate(files / "steps.nir", torch.rand(4, 2, 3), dt=0.5)


def test_an_export_verified_on_silence_says_so(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plain.onnx"
    status, out, err = zoo(capsys, "export", files / "plain.nir", "--out", tmp_path)
    assert status == 0 and "NOTHING FIRED" in out and NO_SPIKES in out
    assert "verified at" not in out and ASSUMED in err
    status, out, _ = zoo(capsys, "verify", files / "plain.nir", "--export", path, "--json")
    assert status == 0 and json.loads(out)[0]["silent"]
    argv = ["export", files / "plain.nir", "--out", tmp_path, "--dt", 1, "--json"]
    status, out, _ = zoo(capsys, *argv)
    (written,) = json.loads(out)
    assert written["verification"].startswith("verified at") and written["silent"] is False
    status, out, _ = zoo(capsys, "verify", files / "plain.nir", "--export", path, "--dt", 1)
    assert status == 0 and "verified at" in out
    status, out, _ = zoo(capsys, "verify", files / "plain.nir", "--export", path)
    said = "NOT verified: it has a time step of 1.0 s, where the graph's is 0.0001 s"
    assert status == 1 and said in out


def test_check_says_it_too_and_whose_weights(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "check.html"
    _, out, err = zoo(capsys, "check", files / "plain.nir", "--target", "loihi2", "--html", page)
    assert NO_SPIKES in err and ASSUMED in err and "weights of unknown training, as stored" in out
    assert NO_SPIKES in page.read_text() and ASSUMED in page.read_text()
    argv = ["check", files / "plain.nir", "--target", "loihi2", "--dt", 1, "--json"]
    _, out, err = zoo(capsys, *argv)
    assert json.loads(out)["silent"] is False and err == ""


@pytest.mark.parametrize(
    ("name", "weights", "said"),
    [("danet20-t4", "int8", "trained"), ("speck-danet8-t2.fmnist", "float32", "random")],
)
def test_whose_weights_a_check_is_of(
    name: str, weights: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "check.html"
    argv = [*f"check {name} --weights {weights} --target truenorth --html".split(), page]
    _, out, _ = zoo(capsys, *argv)
    assert f"{said} weights, {weights}" in out
    assert f"{said.title()} weights, {weights}." in page.read_text()
    _, out, _ = zoo(capsys, *argv, "--json")
    values = json.loads(out)
    assert (values["weights"], values["precision"]) == (said, weights)


def test_weights_of_zero_are_silent_in_every_command(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = files / "zero"
    argv = ["export", model, "--to", "onnx", "nir", "--out", tmp_path, "--json"]
    status, out, _ = zoo(capsys, *argv)
    assert status == 0 and [written["silent"] for written in json.loads(out)] == [True, True, None]
    for network in (model, tmp_path / f"{MODEL}.onnx"):
        status, out, err = zoo(capsys, "classify", network, "--json")
        assert status == 0 and json.loads(out)["silent"] is True and NO_SPIKES in err
    status, out, _ = zoo(capsys, "energy", model, "--first", 1, "--json")
    assert json.loads(out)["silent"] and json.loads(out)["source"]["weights"] == "unknown"
    _, out, err = zoo(capsys, "check", model, "--target", "loihi2", "--json")
    assert json.loads(out)["silent"] is True and NO_SPIKES in err


def test_an_onnx_file_without_spikes_does_not_say_whether_any_fired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = lively(MODEL, 28, widths=(4, 6, 8))
    write_onnx(model, tmp_path / "none.onnx", outputs="none", verify=False)
    status, out, err = zoo(capsys, "classify", tmp_path / "none.onnx", "--json")
    assert status == 0 and json.loads(out)["silent"] is None and err == ""


IGNORED = [
    ("energy danet20-t4 --dt 1", "--dt is for a .nir file"),
    ("energy danet20-t4 --steps 2", "--steps is for a .nir file"),
    ("energy steps.nir --input x.npy --steps 9", "--steps 9 contradicts the frames, of T = 4"),
    ("export danet20-t4 --dt 1", "--dt is for a .nir file"),
    ("export danet20-t4 --to nir --form step", "--form is for ONNX"),
    ("export danet20-t4 --to nir --outputs none", "--outputs is for ONNX"),
    ("export danet20-t4 --to nir --batch 1", "--batch is for ONNX"),
    ("export steps.nir --batch 1", "--batch is for a model of the zoo"),
    ("export danet20-t4 --dialect native", "--dialect is for NIR"),
    ("export danet20-t4 --data .", "--data is for the accuracy of rounded weights"),
    ("export steps.nir --dialect native", "--dialect is for a model of the zoo"),
    ("export steps.nir --outputs none", "--outputs is for a model of the zoo"),
    ("export steps.nir --data .", "--data is for a model of the zoo"),
    ("export danet20-t4 --out x.npy", "x.npy is a file: --out names a folder"),
    ("check danet20-t4 --dt 1", "--dt is for a .nir file"),
    ("check steps.nir --html .", ". is a folder: --html names a file"),
    (
        "check steps.nir --html other.nir",
        "--html other.nir is no page: give a name that ends in .html",
    ),
    ("verify danet20-t4 --dt 1", "--dt is for a .nir file"),
    ("verify steps.nir", "steps.nir: .nir files are for `zoo energy`"),
    ("classify steps.nir", "steps.nir: .nir files are for `zoo energy`"),
    ("evaluate steps.nir", "steps.nir: .nir files are for `zoo energy`"),
    ("push danet20-t4 --repo a/b --dry-run --pin", "--pin is for what is sent"),
]


@pytest.mark.parametrize(("command", "said"), IGNORED)
def test_an_option_that_would_be_ignored_is_refused(
    command: str,
    said: str,
    files: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(files)
    before = sorted(files.iterdir())
    status, out, err = zoo(capsys, *command.split())
    assert status == 2 and err.startswith("zoo: ") and said in err
    assert err.count("\n") == 1 and not out
    assert sorted(files.iterdir()) == before


@pytest.mark.parametrize("step", ["0", "-1", "nan", "inf", "fast"])
def test_a_time_step_is_a_number_of_seconds(step: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = zoo(capsys, "check", "x.nir", f"--dt={step}")
    assert status == 2 and f"'{step}' is not a number of seconds above 0" in err


def test_bytes_are_no_normalised_images(tmp_path: Path) -> None:
    model = lively(MODEL, 20, widths=(4, 6, 8))
    pixels = torch.randint(0, 256, (2, 1, 20, 20), dtype=torch.uint8)
    write_onnx(model, tmp_path / "model.onnx", verify=False)
    for what in (model, to_nir(model), tmp_path / "model.onnx"):
        for images in (pixels, pixels.long(), pixels.float()):
            said = r"are bytes of pixels: .* `zoo.images.normalise\(pixels, data\)`"
            with pytest.raises(InputError, match=said):
                estimate(what, images)
    with pytest.raises(InputError, match="images of uint8 are bytes of pixels"):
        estimate(model, [(pixels, None)])
    with pytest.raises(InputError, match="images of uint8 are bytes of pixels"):
        OnnxModel(tmp_path / "model.onnx").run(pixels.numpy())
    assert estimate(model, torch.zeros(1, 1, 20, 20)).images == 1


def test_other_modules_are_refused_in_a_line() -> None:
    other: Any = torch.nn.Sequential(torch.nn.Linear(2, 2))
    said = "a Sequential cannot be counted: give a model of the zoo, a nir.NIRGraph, or the path"
    with pytest.raises(InputError, match=said):
        estimate(other, torch.zeros(1, 2))


def test_two_writers_of_one_file_do_not_meet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one export writes, another of the same name comes and goes."""
    import export.nir.writer as module

    model, once = lively(MODEL, 20, widths=(4, 6, 8)), module.write_graph

    def meanwhile(graph: nir.NIRGraph, path: Path) -> None:
        once(graph, path)
        monkeypatch.setattr(module, "write_graph", once)
        assert write_nir(model, tmp_path / "model.nir").ok

    monkeypatch.setattr(module, "write_graph", meanwhile)
    assert write_nir(model, tmp_path / "model.nir").ok
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.nir", "model.trains.nir"]


def test_a_page_of_two_reports_has_the_notes_of_each(files: Path) -> None:
    frames = torch.full((4, 2, 3), 0.6)
    reports = [estimate(files / name, frames) for name in ("plain.nir", "steps.nir")]
    page = html.render(reports)
    assert page.count(NO_SPIKES) == 1
    assert page.count("1 of 2 layers of neurons never fired: second") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["export danet20-t4 --to onnx nir --out {}", "energy danet20-t4 --out {}"]
)
def test_an_interrupted_command_says_so_and_leaves_nothing(command: str, tmp_path: Path) -> None:
    """The signal comes when the model has been loaded, which the command is made to wait after."""
    out = tmp_path / "out"
    code = (
        "import sys, time, zoo, zoo.cli\n"
        "load = zoo.load\n"
        "def slow(*args, **options):\n"
        "    model = load(*args, **options)\n"
        "    def wait(*_):\n"
        "        print('running', flush=True)\n"
        "        time.sleep(60)\n"
        "    model.register_forward_pre_hook(wait)\n"
        "    return model\n"
        "zoo.load = slow\n"
        "sys.exit(zoo.cli.main(sys.argv[1:]))\n"
    )
    argv = [sys.executable, "-c", code, *command.format(out).split()]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv, stdout=pipe, stderr=pipe, text=True, preexec_fn=interruptible
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130 and err == "zoo: interrupted\n"
    assert not out.exists() or not [*out.rglob("*")]
