"""The command as a user types it: what it prints, what it writes, and its exit status."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from PIL import Image

from zoo import cli, load
from zoo.samples import samples

MODEL = "danet20-t4.fmnist"


def zoo(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    status = cli.main(argv)
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    assert cli.main(["export", "danet20-t4", "--to", "onnx", "nir", "--out", str(folder)]) == 0
    return folder


def test_list_imports_nothing_heavy() -> None:
    code = (
        "import sys; from zoo.cli import main; main(['list', '--all']); "
        "print({'torch', 'numpy', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert {"danet152-t4", "sew-resnet18and-t4", "ms-resnet104-t4"} <= set(done.stdout.split())


def test_list_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = zoo(capsys, "list")
    assert status == 0 and MODEL in out and "trained" in out
    status, out, _ = zoo(capsys, "list", "danet*", "--json")
    assert {entry["name"]: entry["metrics"]["top1"] for entry in json.loads(out)}[MODEL] >= 0.92
    status, out, _ = zoo(capsys, "info", "danet20-t4", "--json")
    info = json.loads(out)
    assert status == 0 and info["name"] == MODEL and info["provenance"] == "trained"
    assert info["model"]["widths"] == [16, 32, 64]
    status, out, _ = zoo(capsys, "info", "danet20-t4")
    assert status == 0 and "widths: 16, 32, 64" in out
    assert "bottleneck: no" in out and "top1: 0.92" in out
    status, out, _ = zoo(capsys, "info", "danet152b-t8")
    assert re.search(r"trained +no", out) and "parameters" not in out


def test_classify_bundled_images(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = zoo(capsys, "classify", "danet20-t4", "--json")
    result = json.loads(out)
    predictions = result["predictions"]
    assert status == 0 and result["images"] == 256 and len(predictions) == 256
    correct = sum(p["prediction"] == p["label"] for p in predictions)
    assert result["correct"] == correct >= 0.9 * 256
    status, out, _ = zoo(capsys, "classify", "danet20-t4")
    assert "256 bundled Fashion-MNIST images right" in out


def test_classify_bundled_drawings(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = zoo(capsys, "classify", "danet20-t4.cifar10")
    assert status == 0 and re.search(r"1[0-9] of 19 bundled drawings \(no test images\) right", out)


def test_classify_a_file_of_ones_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pixels, labels = samples("fmnist")
    Image.fromarray(pixels[0, 0].numpy()).save(tmp_path / "boot.png")
    status, out, _ = zoo(capsys, "classify", "danet20-t4", str(tmp_path / "boot.png"), "--json")
    (prediction,) = json.loads(out)["predictions"]
    assert status == 0 and prediction["prediction"] == "Ankle boot" and int(labels[0]) == 9
    assert "label" not in prediction


def test_a_model_s_transform_is_what_classify_does(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for i, path in enumerate(paths):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 30 + i, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(path)
    _, out, _ = zoo(capsys, "classify", "danet20-t4", *map(str, paths), "--json")
    model = load("danet20-t4")
    with torch.inference_mode():
        confidences = model(model.transform(paths)).softmax(1).amax(1)
    expected = [round(float(c), 4) for c in confidences]
    assert [p["confidence"] for p in json.loads(out)["predictions"]] == expected


def test_pictures_of_any_kind_and_what_was_done_to_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also under a name that would be markup in a table."""
    monkeypatch.chdir(tmp_path)
    boot = Image.fromarray(samples("fmnist")[0][0, 0].numpy())
    path = Path("a [/b].png")
    path.parent.mkdir()
    boot.convert("RGB").resize((56, 56), Image.Resampling.NEAREST).save(path)
    changes = ["converted from RGB to L", "resized from 56x56"]
    status, out, _ = zoo(capsys, "classify", "danet20-t4", str(path), "--json")
    assert status == 0 and json.loads(out)["predictions"][0]["changes"] == changes
    status, out, _ = zoo(capsys, "classify", "danet20-t4", str(path))
    assert status == 0 and "Ankle boot" in out and "a [/b].png" in out and ", ".join(changes) in out
    status, out, err = zoo(capsys, "energy", "danet20-t4", "--images", str(path), "--json")
    assert status == 0 and json.loads(out)["images"] == 1
    assert err == f"{path}: {', '.join(changes)}\n"


def test_the_export_classifies_as_the_model_does(
    capsys: pytest.CaptureFixture[str], exported: Path
) -> None:
    names = {f"{MODEL}.{suffix}" for suffix in ("onnx", "nir", "trains.nir")}
    assert {p.name for p in exported.iterdir()} == names
    capsys.readouterr()
    _, ours, _ = zoo(capsys, "classify", "danet20-t4", "--json")
    _, theirs, _ = zoo(capsys, "classify", str(exported / f"{MODEL}.onnx"), "--json")
    pairs = zip(*(json.loads(o)["predictions"] for o in (ours, theirs)), strict=True)
    same = [a["prediction"] == b["prediction"] for a, b in pairs]
    assert np.mean(same) >= 0.99  # a borderline spike may differ


def test_verify_weights_and_exports(capsys: pytest.CaptureFixture[str], exported: Path) -> None:
    status, out, _ = zoo(capsys, "verify", "danet20-t4")
    assert status == 0 and "sha256" in out
    path = str(exported / f"{MODEL}.onnx")
    status, out, _ = zoo(capsys, "verify", "danet20-t4", "--export", path, "--json")
    assert status == 0 and json.loads(out)[0]["ok"]


def test_a_failed_check_is_status_one(
    capsys: pytest.CaptureFixture[str], exported: Path, tmp_path: Path
) -> None:
    """The export of one model is not another's."""
    import zoo as package
    from zoo.weights import write_model

    other = package.create(MODEL).eval()
    write_model(tmp_path / "other", other, name=MODEL, data=other.known_origin.data)
    path = str(exported / f"{MODEL}.onnx")
    status, out, _ = zoo(capsys, "verify", str(tmp_path / "other"), "--export", path)
    assert status == 1 and "NOT verified" in out


def test_the_export_of_another_model_is_one_line(
    capfd: pytest.CaptureFixture[str], exported: Path
) -> None:
    """It is refused before onnxruntime sees it, whose own log does not go through Python."""
    path = exported / f"{MODEL}.onnx"
    assert cli.main(["verify", "danet20-t4.cifar10", "--export", str(path)]) == 1
    out, err = capfd.readouterr()
    assert not out and err == (
        f"zoo: {path} cannot be run as this model: it is an export of danet20-t4.fmnist, "
        "for images [1, 28, 28], "
        "and danet20-t4.cifar10 takes [3, 32, 32]\n"
    )


WRONG = [
    ("classify danet51-t4", "nearest are danet50-t4"),
    ("classify danet50-t4.tin200", "was never trained"),
    ("classify danet20-t0.fmnist", "T = 0 time steps; valid are 1 to 1024"),
    ("classify ./large.png", "'./large.png' is a file: a name, a model folder or hf:ORG/REPO"),
    ("clasify danet20-t4", "invalid choice: 'clasify'; nearest are classify (choose from"),
    ("info danet20-t4.fmnits", "unknown data set 'fmnits'; nearest are fmnist, nmnist, "),
    ("train danet20-t9.i2e-fmnist", "T = 9: there are simulated saccades for T = 1 to 8"),
    ("train danet20-t2.i2e-pets --data .", "unknown data set 'i2e-pets'; "),
    ("info ./absent", "'./absent': there is no such model folder"),
    ("info somebody/pets", "no such model folder; a model on the Hub is hf:somebody/pets"),
    ("info text.onnx", "text.onnx: .onnx files are for `zoo classify`, `zoo evaluate`"),
    ("info text.nir", "text.nir: .nir files are for `zoo energy`, `zoo check`"),
    ("check text.onnx", "give a name, a model folder, or hf:ORG/REPO; or a .nir file"),
    ("export text.onnx", "give a name, a model folder, or hf:ORG/REPO; or a .nir file"),
    (
        "push danet20-t4 --repo a/b --licence no=licence --dry-run",
        "argument --licence: 'no=licence' is not the identifier of a licence, as mit, apache-2.0",
    ),
    (
        "train danet20-t4.fmnist --config nope=1",
        "--config: unknown key 'nope'; valid are depths, widths, bottleneck, order, links, dense, "
        "stem, join,",
    ),
    (
        "info danet20-t4.mnist",
        "unknown data set 'mnist'; nearest are nmnist, fmnist, ",
    ),
    ("classify danet20-t4 text.png", "text.png is not an image"),
    ("classify danet20-t4 absent.png", "absent.png does not exist"),
    ("classify danet20-t4 large.png .", ". is a folder: name image files"),
    ("classify danet20-t4 -", "- does not exist; images are read from files alone"),
    (
        "classify danet20-t4 empty.png",
        "empty.png is not an image that can be read (the file is empty)",
    ),
    (
        "classify danet20-t4 array.npy",
        "array.npy: .npy files are recordings of events, and a model of Fashion-MNIST takes",
    ),
    ("classify absent.onnx", "absent.onnx does not exist"),
    ("classify text.onnx", "text.onnx is not an ONNX file"),
    ("energy danet20-t4 --images text.png", "text.png is not an image"),
    ("energy danet20-t4 --out text.png", "text.png is a file: --out names a folder"),
    ("page danet20-t4 --out text.png/sub", "text.png is a file: --out names a folder"),
    ("energy text.onnx --out out", "text.onnx is not an ONNX file"),
    ("energy text.nir --out out", "text.nir"),
    ("energy danet20-t4 absent.nir --first 1 --out out", "absent.nir"),
    (
        "energy danet20-t4 --convention honest",
        "convention 'honest': no such one; valid are exact, spikformer, sew",
    ),
    ("energy danet20-t4 --device abacus", "device 'abacus': no such one; valid are 45nm-fp32"),
    ("energy danet20-t4 --device 45nm", "no such one; nearest are 45nm-int8, "),
    ("convert large.png --arch sew-resnet18-t4 --out x", "is not a checkpoint saved by torch.save"),
    ("info .", ". is no model folder: it has no config.json"),
    ("energy danet20-t4 --device absent.toml", "absent.toml"),
    (
        "energy danet20-t4 --device bad.toml --out out",
        "bad.toml', line 4: device 'chip', ac: lo = -1 must be from 0 to",
    ),
    ("energy danet20-t4 --data . --out out", ". holds no images in a valid layout"),
    (
        "energy danet20-t4 --data . --images large.png",
        "--images and --data are two sources of images",
    ),
    (
        "energy danet20-t4 --images empty.png",
        "empty.png is not an image that can be read (the file is empty)",
    ),
    ("energy danet20-t4 --input text.png", "--input is for a .nir file"),
    ("energy danet20-t4 danet20-t4 --first 1 --out out", "is given twice: give every model once"),
    ("export danet20-t4 --out text.png/below", "text.png"),
    ("export sew-resnet20and-t4.fmnist --to nir", "was never trained"),
    ("verify danet20-t4 --export text.onnx", "text.onnx is not an ONNX file"),
    ("verify danet20-t4 --export text.nir", "text.nir"),
    ("verify --export text.onnx", "--export text.onnx is compared with one model: name it"),
    ("verify danet99-t4", "unknown model 'danet99-t4'"),
    ("verify hf:one", "'hf:one' is not hf:org/repo or hf:org/repo@revision"),
    ("push danet20-t4 --repo alone", "'alone' is not a repository of the Hub: expected org/name"),
    (
        "push . --repo a/b --dry-run",
        ". lacks metrics.json: it is neither what a finished `zoo train` leaves",
    ),
    ("convert absent.pth --arch sew-resnet18-t4 --out out", "absent.pth is not a file"),
    (
        "convert text.png --arch sew-resnet18-t4 --out out",
        "text.png cannot be read: it is not a checkpoint",
    ),
    (
        "convert text.png --arch danet18-t4 --out out",
        "checkpoints are known of sew-resnet, spiking-resnet",
    ),
    (
        "convert text.png --arch sew-resnet18-t4 --out text.nir",
        "text.nir exists already: name a folder",
    ),
    ("export danet20-t4 --to nir --weights int8 --data absent", "absent"),
    (
        "check danet20-t4 --target speck3",
        "target 'speck3' is not known; valid are speck2e, loihi1, loihi2",
    ),
    ("check danet99-t4", "unknown model 'danet99-t4'"),
    ("check text.nir", "text.nir"),
    ("check absent.nir", "absent.nir"),
    ("check text.nir --weights int8", "--weights int8 rounds a model: give its name"),
    ("evaluate danet20-t4 --data .", ". holds no images in a valid layout: train/CLASS/IMAGE"),
    ("train danet20-t4", "names no data set"),
    (
        "train danet20-t4.in1k --data absent",
        "absent is no folder: name one, or a data set on the Hub as ORG/NAME",
    ),
    (
        "train danet20-t4.nmnist",
        "N-MNIST has no default place: name its folder or hub id with --data",
    ),
    (
        "train danet20-t4.fmnist --set epoch=1",
        "unknown key 'epoch'; did you mean epochs? valid are dataset",
    ),
    ("energy danet20-t4.cifar10", "no bundled test images of 'cifar10', only of fmnist: give"),
    ("train danet20-t4.fmnist --data .", ". holds no images in a valid layout: train/CLASS/IMAGE"),
    ("train danet20-t4.fmnist --teacher danet99-t4", "unknown model 'danet99-t4'"),
    ("train danet20-t4.fmnist --teacher absent:build", "teacher 'absent:build' cannot be imported"),
    ("train danet20-t4.fmnist --init nonsense", "unknown model 'nonsense'"),
    ("train danet20-t4.fmnist --init danet20b-t4.fmnist", "danet20b-t4.fmnist was never trained"),
    ("train danet20b-t4.fmnist --init danet20-t4.fmnist", "it has order a instead of b, "),
    ("train danet20-t4.fmnist --freeze stem", "freeze = ['stem']: random weights would stay so"),
    (
        "train danet20-t4.fmnist --freeze stem --set freeze=[]",
        "given twice, by --freeze and by --set",
    ),
    (
        "train danet20-t4.fmnist --shard",
        "--shard needs several processes: start them with torchrun",
    ),
]


@pytest.mark.parametrize(("command", "message"), WRONG)
def test_bad_input_is_one_line_and_status_two(
    command: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.png").write_text("not an image")
    Path("text.onnx").write_text("not a protobuf")
    Path("text.nir").write_text("not HDF5")
    price = '{ lo = -1, typ = 1, hi = 1, evidence = "measured", source = "x" }'
    Path("bad.toml").write_text(f'[chip]\ntitle = "t"\nscope = "per term"\nac = {price}\n')
    Path("empty.png").touch()
    np.save("array.npy", np.zeros((28, 28), np.uint8))
    Image.fromarray(np.zeros((29, 30), np.uint8)).save("large.png")
    before = sorted(tmp_path.iterdir())
    status, out, err = zoo(capsys, *command.split())
    assert status == 2 and message in err
    assert err.count("\n") == 1 and not out
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.slow
def test_nir_of_rounded_weights_says_both_accuracies(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = "export danet20-t4 --to nir --weights int8 --json --out".split()
    status, out, _ = zoo(capsys, *argv, str(tmp_path))
    graph, trains = json.loads(out)
    assert status == 0 and graph["file"].endswith(f"{MODEL}.int8.nir")
    assert trains["file"].endswith(f"{MODEL}.int8.trains.nir")
    assert graph["images"] == "256 bundled images of Fashion-MNIST"
    assert 0.93 < graph["int8"] < graph["float32"] + 0.02
    status, out, _ = zoo(capsys, "verify", "danet20-t4", "--export", graph["file"])
    assert status == 0 and "19 neuron layers spike for spike" in out


@pytest.mark.slow
def test_what_an_export_is_stands_in_its_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = "export danet20-t4 --to onnx nir --dialect native --outputs trains --json --out".split()
    status, out, _ = zoo(capsys, *argv, str(tmp_path))
    files = [Path(file["file"]).name.removeprefix(MODEL) for file in json.loads(out)]
    assert (status, files) == (0, [".trains.onnx", ".native.nir", ".native.trains.nir"])


def test_verify_finds_another_models_nir(
    capsys: pytest.CaptureFixture[str], exported: Path, tmp_path: Path
) -> None:
    path = exported / f"{MODEL}.nir"
    status, out, _ = zoo(capsys, "verify", "danet20-t4", "--export", str(path), "--json")
    assert status == 0 and json.loads(out)[0]["ok"]
    graph = nir.read(path)
    graph.edges.remove(("stage1_link0_conv", "stage2_block0_lif1"))
    nir.write(tmp_path / "less.nir", graph)
    status, out, _ = zoo(capsys, "verify", "danet20-t4", "--export", str(tmp_path / "less.nir"))
    said = "NOT verified: it has no edge 'stage1_link0_conv' -> 'stage2_block0_lif1'"
    assert status == 1 and said in out


def test_check_a_network_that_fits_and_one_that_does_not(
    capsys: pytest.CaptureFixture[str], exported: Path, tmp_path: Path
) -> None:
    speck = ("check", "speck-danet8-t4.fmnist", "--target", "speck2e")
    status, out, _ = zoo(capsys, *speck, "--weights", "int8-layer", "--json")
    values = json.loads(out)
    assert status == 0 and values["checks"][0]["fits"]
    assert values["about"] == "random weights, int8-layer"
    status, out, _ = zoo(capsys, *speck)
    assert status == 1 and "`--weights int8-layer`" in out and "not validated on the chip" in out
    page = tmp_path / "check.html"
    status, out, _ = zoo(capsys, "check", str(exported / f"{MODEL}.nir"), "--html", str(page))
    assert status == 1 and "not validated on the chip" not in out and "--target CHIP" in out
    assert all(chip in out for chip in ("speck2e", "loihi1", "xylo", "truenorth"))
    assert f"written to {page}" in out
    assert f"{MODEL}.nir" in page.read_text() and "Speck 2e" in page.read_text()


@pytest.mark.parametrize("name", ["cifar10", "fmnist", "nmnist"])
def test_the_network_for_speck_fits_at_every_small_size(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = f"check speck-danet8-t4.{name} --target speck2e --weights int8-layer".split()
    status, _, _ = zoo(capsys, *argv)
    assert status == 0


def test_an_unusable_command_line_is_status_two(capsys: pytest.CaptureFixture[str]) -> None:
    for argv in (
        [],
        ["paint"],
        ["export", "x", "--to", "caffe"],
        ["train", "x", "--save-every", "0"],
        ["train", "x", "--evaluate-every", "0"],
    ):
        status, out, err = zoo(capsys, *argv)
        assert status == 2 and err.startswith("zoo: ") and err.count("\n") == 1 and not out
        command = " ".join(["zoo", *argv[: len(argv) > 1]])
        assert err.endswith(f"; see `{command} --help`\n")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_are_no_errors(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main([option])
    assert stop.value.code == 0 and capsys.readouterr().out


def test_another_package_called_export_is_noticed(tmp_path: Path) -> None:
    """As the package index has one: here it lies before ours on the path."""
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "__init__.py").write_text("")
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "zoo", "energy", "danet20-t4"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    said = "is not the zoo's: `pip uninstall export`, then install danet-zoo again"
    assert done.returncode == 2
    assert done.stderr == f"zoo: {tmp_path / 'export'} {said}\n"


@pytest.mark.parametrize(("module", "argv"), [("zoo", ["info", MODEL]), ("export", ["--help"])])
def test_both_packages_run_as_modules(module: str, argv: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *argv], capture_output=True, text=True, check=True
    )
    assert ("usage: zoo export" if module == "export" else MODEL) in done.stdout


def test_evaluate_reads_the_split(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import gzip

    pixels, labels = samples("fmnist")
    arrays = {
        "t10k-images-idx3-ubyte.gz": pixels[:50, 0].numpy(),
        "t10k-labels-idx1-ubyte.gz": labels[:50].numpy().astype(np.uint8),
    }
    for name, array in arrays.items():
        sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
        header = bytes((0, 0, 8, array.ndim)) + sizes
        (tmp_path / name).write_bytes(gzip.compress(header + array.tobytes()))
    status, out, _ = zoo(capsys, "evaluate", "danet20-t4", "--data", str(tmp_path), "--json")
    _, predictions, _ = zoo(capsys, "classify", "danet20-t4", "--json")
    expected = [p["prediction"] == p["label"] for p in json.loads(predictions)["predictions"][:50]]
    values = json.loads(out)
    assert status == 0
    assert values["top1_by_step"][-1] == values.pop("top1") == pytest.approx(np.mean(expected))
    assert len(values.pop("top1_by_step")) == 4
    assert values.pop("images_per_second") > 0 and values.pop("processor")
    assert values == {
        "model": MODEL,
        "data": "Fashion-MNIST",
        "split": "test",
        "images": 50,
        "skipped": 0,
        "silent": False,
    }


def test_a_list_of_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    for line, said in (
        (["list", "nothing"], "no trained model matches 'nothing': leave it out to see all; --all"),
        (["list", "nothing", "--all"], "no architecture matches 'nothing': leave it out to see"),
    ):
        assert zoo(capsys, *line, "--json")[:2] == (1, "[]\n")
        status, out, err = zoo(capsys, *line)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert err.startswith(f"zoo: note: {said}")


def test_an_export_of_another_kind_is_not_overwritten(
    exported: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Both would have the same name, as a NIR file is called after its model."""
    model, graph = exported / "danet20-t4.fmnist.onnx", exported / "danet20-t4.fmnist.nir"
    before = model.read_bytes()
    status, out, err = zoo(capsys, "export", str(graph), "--out", str(exported))
    assert status == 2 and not out and model.read_bytes() == before
    assert err == (
        f"zoo: {model} is the export of a model, and would be overwritten by that of a NIR file: "
        "give another folder with --out\n"
    )
    assert zoo(capsys, "export", str(graph), "--out", str(tmp_path))[0] == 0
    status, out, err = zoo(capsys, "export", "danet20-t4", "--to", "onnx", "--out", str(tmp_path))
    assert status == 2 and "is the export of a NIR file, and would be overwritten by that of" in err


def test_a_reader_that_left_is_no_verdict() -> None:
    """The status 1 would say that a check found otherwise."""
    argv = [sys.executable, "-m", "zoo", "list", "--all"]
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        error = process.stderr.read()
    assert (process.returncode, error) == (141, "")
