"""Recordings of event cameras on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.recordings import random_events, write_events

import zoo
from zoo.cli import main
from zoo.images import to_input
from zoo.saccades import saccades
from zoo.samples import samples

NETWORK = "speck-danet8-t8.i2e-fmnist"


def test_the_events_of_a_picture_are_told_as_the_picture_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An event camera that saw the saccades gives the frames that the network was trained on."""
    data = zoo.info(NETWORK).data
    frames = saccades(samples("fmnist")[0][:1], data.ratio)[0].numpy()
    step, channel, row, column = frames.nonzero()
    events = np.empty(len(step) + 1, [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "?")])
    events["t"][:-1], events["x"][:-1], events["y"][:-1] = 1000 * step, column, row
    events["p"][:-1] = channel == data.on_channel
    events[-1] = (8000, 0, 0, False)  # the last event is in no bin
    np.save(tmp_path / "events.npy", events)
    np.save(tmp_path / "frames.npy", frames)
    files = [str(tmp_path / name) for name in ("events.npy", "frames.npy")]
    assert main(["classify", NETWORK, *files, "--json"]) == 0
    one, two = json.loads(capsys.readouterr().out)["predictions"]
    assert (one["prediction"], one["confidence"]) == (two["prediction"], two["confidence"])
    model = zoo.load(NETWORK)
    logits = model(to_input(saccades(samples("fmnist")[0][:1], data.ratio), data))
    assert one["prediction"] == data.label(int(logits.argmax()))


def test_a_camera_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write_events(tmp_path / "events.npz", random_events(3000, side=100)))
    assert main(["classify", NETWORK, path, "--sensor", "140x100", "--json"]) == 0
    (prediction,) = json.loads(capsys.readouterr().out)["predictions"]
    assert prediction["changes"][0] == "scaled from 140x100"
    assert main(["energy", NETWORK, "--images", path, "--sensor", "140x100", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 1


WRONG = {
    "classify": ("outside", "give the camera's size (--sensor WIDTHxHEIGHT)"),
    "classify --sensor 100": ("outside", "'100' is no WIDTHxHEIGHT, as in 346x260"),
    "classify --sensor 20x20": ("outside", "a camera of 20x20 pixels is smaller than the 28x28"),
    "energy --sensor 128x128 --images": (
        "picture.png",
        "size of a recording of events, and none",
    ),
    "evaluate --sensor 128x128": ("outside", "unrecognized arguments: --sensor"),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_is_wrong_is_one_line(
    words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, message = WRONG[words]
    path = tmp_path / name
    if name == "outside":
        path = write_events(tmp_path / "events.npy", random_events(100))
    command, *options = words.split()
    assert main([command, NETWORK, *options, str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_network_of_images_takes_no_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_events(tmp_path / "events.npy", random_events(100))
    assert main(["classify", "danet20-t4.fmnist", str(path)]) == 2
    assert "files are recordings of events, and a model of Fashion-MNIST takes images" in (
        capsys.readouterr().err
    )
