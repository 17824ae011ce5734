"""Published checkpoints, imitated: their keys, what training scripts leave beside them, and files
that mean harm.

That the converted network computes what SpikingJelly's does is tested in
`tests/interop/test_convert_peers.py`.
"""

import argparse
import json
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.networks import lively, same
from torch import Tensor

import zoo
from zoo.cli import main
from zoo.convert import SOURCES, convert, rename
from zoo.danet import DANet
from zoo.errors import InputError, UnknownName, WeightsError
from zoo.integrity import sha256
from zoo.names import ModelSpec
from zoo.provenance import CONVERTED_FILE
from zoo.publishing.entry import describe

Key = Callable[[str], str]


def sew_key(key: str, *, old: bool, post: bool = False) -> str:
    """Ours -> that of the SEW-ResNet code: SpikingJelly's containers of 2021 (`old`), or its
    networks of today.
    """
    key = re.sub(r"^stem\.(conv|bn)\.", r"\g<1>1.", key).replace("head.", "")
    key = re.sub(r"^stage(\d)\.block(\d+)\.", r"layer\1.\2.", key)
    if old:
        key = re.sub(r"\.conv(\d)\.", r".conv\1.module.0.", key)
        key = re.sub(r"\.bn(\d)\.", r".conv\1.module.1.", key)
    down = "downsample" if not old else "downsample.module" if post else "downsample.0.module"
    return key.replace("shortcut.conv", f"{down}.0").replace("shortcut.bn", f"{down}.1")


def ms_key(key: str, *, deep: bool) -> str:
    """Ours -> that of the MS-ResNet code."""
    key = re.sub(r"^stem\.conv(\d)\.", lambda m: f"conv1.{int(m[1]) - 1}.", key).replace(
        "stem.conv.", "conv1.0."
    )
    key = key.replace("stem.bn.", f"conv1.{3 if deep else 1}.bn.").replace("head.", "")
    key = re.sub(r"^stage(\d)\.block(\d+)\.", lambda m: f"conv{int(m[1]) + 1}_x.{m[2]}.", key)
    for ours, theirs in (("conv1", "1"), ("bn1", "2.bn"), ("conv2", "4"), ("bn2", "5.bn")):
        key = re.sub(rf"(_x\.\d+)\.{ours}\.", rf"\1.residual_function.{theirs}.", key)
    return key.replace("shortcut.conv", f"shortcut.{int(deep)}").replace(
        "shortcut.bn", f"shortcut.{1 + deep}.bn"
    )


CASES: list[tuple[str, Key]] = [
    ("sew-resnet18-t4", lambda key: sew_key(key, old=True)),
    ("sew-resnet18-t4", lambda key: sew_key(key, old=False)),
    ("sew-resnet50and-t4", lambda key: sew_key(key, old=True)),
    ("spiking-resnet34-t4", lambda key: sew_key(key, old=True, post=True)),
    ("ms-resnet18-t6", lambda key: ms_key(key, deep=False)),
    ("ms-resnet34-t6", lambda key: "module." + ms_key(key, deep=False)),
    ("ms-resnet104-t5", lambda key: ms_key(key, deep=True)),
]


def theirs(model: DANet, key: Key) -> dict[str, Tensor]:
    return {key(name): t for name, t in model.state_dict().items() if ".neuron." not in name}


@pytest.mark.parametrize(("name", "key"), CASES)
def test_every_key_finds_its_place(name: str, key: Key) -> None:
    with torch.device("meta"):
        model = zoo.create(name)
    expected = {ours for ours in model.state_dict() if ".neuron." not in ours}
    assert model.origin is not None
    assert rename(theirs(model, key), ModelSpec.parse(name)).keys() == expected


@pytest.fixture
def sew() -> DANet:
    return lively("sew-resnet18-t4", 32, depths=(2, 2, 2, 2))


@pytest.fixture
def checkpoint(tmp_path: Path, sew: DANet) -> Path:
    """As the SEW-ResNet code saves it."""
    path = tmp_path / "checkpoint_max_acc1.pth"
    arguments = argparse.Namespace(lr=0.1, device="cuda:0")
    torch.save(
        {
            "model": theirs(sew, CASES[0][1]),
            "optimizer": {"state": {}, "groups": [{"lr": 0.1}]},
            "args": arguments,
        },
        path,
    )
    return path


def test_a_checkpoint_becomes_a_model_folder(checkpoint: Path, sew: DANet, tmp_path: Path) -> None:
    model = convert(checkpoint, "sew-resnet18-t4", tmp_path / "out", licence="mit")
    assert same(model, sew) and not model.training
    assert same(zoo.load(str(tmp_path / "out")), sew)
    entry = describe(tmp_path / "out")
    assert (entry.name, entry.provenance, entry.licence, entry.metrics) == (
        "sew-resnet18-t4.in1k",
        "converted",
        "mit",
        {},
    )
    assert entry.source == SOURCES["sew-resnet"]
    said = json.loads((tmp_path / "out" / CONVERTED_FILE).read_text())
    assert (said["checkpoint"], said["sha256"]) == (checkpoint.name, sha256(checkpoint))
    assert {path.name for path in tmp_path.iterdir()} == {"out", checkpoint.name}


def test_a_bare_state_dict_of_another_data_set(tmp_path: Path) -> None:
    model = zoo.create("ms-resnet18-t6.cifar10")
    path = tmp_path / "ms.pth"
    torch.save(theirs(model, lambda key: ms_key(key, deep=False)), path)
    assert same(convert(path, "ms-resnet18-t6.cifar10", tmp_path / "out", source="somebody"), model)
    assert describe(tmp_path / "out").source == "somebody"


def test_the_command(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "convert",
        str(checkpoint),
        "--arch",
        "sew-resnet18-t4",
        "--out",
        str(tmp_path / "out"),
        "--json",
    ]
    assert main(arguments) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "name": "sew-resnet18-t4.in1k",
        "parameters": 11_689_512,
        "folder": str(tmp_path / "out"),
    }


def refused(tmp_path: Path, path: Path, *said: str, arch: str = "sew-resnet18-t4") -> None:
    before = set(tmp_path.rglob("*"))
    with pytest.raises(WeightsError) as error:
        convert(path, arch, tmp_path / "out")
    assert "\n" not in str(error.value)
    for part in said:
        assert part in str(error.value)
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("fc.bias"), "head.fc.bias is missing in the checkpoint"),
        (
            lambda t: t.update({"layer1.0.sn1.w": torch.zeros(1)}),
            "key 'layer1.0.sn1.w' is not one of a published sew-resnet",
        ),
        (
            lambda t: t.update({"fc.more": torch.zeros(1)}),
            "head.fc.more of the checkpoint is none of the network",
        ),
        (
            lambda t: t.update({"fc.weight": torch.zeros(10, 512)}),
            "head.fc.weight has shape [10, 512], expected [1000, 512]",
        ),
        (lambda t: t.clear(), "it holds no state dict"),
        (lambda t: t.update({"epoch": 3}), "it holds no state dict"),
    ],
)
@pytest.mark.slow
def test_what_does_not_fit_is_named(
    checkpoint: Path, tmp_path: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    content = torch.load(checkpoint, weights_only=False)
    change(content["model"])
    torch.save(content, checkpoint)
    refused(tmp_path, checkpoint, said)


def test_another_depth(checkpoint: Path, tmp_path: Path) -> None:
    refused(
        tmp_path,
        checkpoint,
        "stage1.block2.",
        "is missing in the checkpoint: is it another depth or family?",
        arch="sew-resnet34-t4",
    )


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_of_a_pickle_is_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"model": {"fc.weight": torch.zeros(1)}, "args": Evil(tmp_path / "touched")}, path)
    refused(tmp_path, path, "and only tensors are read")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"no checkpoint at all", b"\x80\x02}q\x00."]
)
def test_what_is_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no.pth"
    path.write_bytes(content)
    refused(tmp_path, path, str(path), "cannot be read")


@pytest.mark.slow
def test_a_small_file_that_wants_much_memory(tmp_path: Path) -> None:
    """Eight gigabytes of zeros take eight megabytes in a compressed archive."""
    small, bomb = tmp_path / "small.pth", tmp_path / "bomb.pth"
    torch.save({"fc.weight": torch.zeros(4)}, small)
    with (
        zipfile.ZipFile(small) as source,
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target,
    ):
        for name in source.namelist():
            if not name.endswith("data/0"):
                target.writestr(name, source.read(name))
                continue
            with target.open(name, "w", force_zip64=True) as file:
                for _ in range(32):
                    file.write(bytes(2**26))
    refused(tmp_path, bomb, "cannot be read")


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    refused(tmp_path, tmp_path / "nowhere.pth", "is not a file")


def test_what_cannot_be_asked(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match="checkpoints are known of sew-resnet, spiking-resnet, ms-resnet"
    ):
        convert(checkpoint, "danet18-t4", tmp_path / "out")
    with pytest.raises(UnknownName):
        convert(checkpoint, "sew-resnet19-t4", tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists already"):
        convert(checkpoint, "sew-resnet18-t4", tmp_path / "out")
