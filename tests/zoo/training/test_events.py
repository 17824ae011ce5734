"""Event data sets: the frames hold the events that the files hold."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refused

from zoo.datasets import DATASETS
from zoo.images import normalise
from zoo.training.data import Images, load_split

NMNIST, GESTURE = DATASETS["nmnist"], DATASETS["dvsgesture"]
OVERFLOW = 240  # as y: no event, but 2**13 microseconds that the following ones lie later


def recording(seed: int, count: int = 500) -> np.ndarray:
    """Random events x, y, p, t `[count, 4]` in the order of time."""
    rng = np.random.default_rng(seed)
    events = rng.integers(0, (34, 34, 2, 300_000), (count, 4))
    return events[np.argsort(events[:, 3], kind="stable")]


def write_nmnist(path: Path, events: np.ndarray, overflows: int = 0) -> None:
    """Five bytes an event: x, y, then polarity in the top bit of 24, and the microseconds in the
    rest, most significant first.
    """
    rows = [[x, y, p << 7 | (t >> 16), t >> 8 & 255, t & 255] for x, y, p, t in events]
    half = len(rows) // 2
    rows[half:half] = [[0, OVERFLOW, 0, 0, 0]] * overflows
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.array(rows, np.uint8).tobytes())


def counted(events: np.ndarray, steps: int, size: int) -> np.ndarray:
    """Events a bin, polarity and pixel `[T, P, H, W]`, one after the other."""
    frames = np.zeros((steps, 2, size, size), int)
    first, last = events[0, 3], events[-1, 3]
    length = (last - first) // steps
    for x, y, p, t in events:
        if t < first + steps * length:
            frames[(t - first) // length, p, y, x] += 1
    return frames


def load(*args: Any, **options: Any) -> Images:
    split = load_split(*args, **options)
    assert isinstance(split, Images)
    return split


@pytest.fixture
def nmnist(tmp_path: Path) -> Path:
    for digit in (0, 3, 9):
        for number in range(2):
            write_nmnist(
                tmp_path / f"NMNIST/Train/{digit}/{number:05}.bin", recording(10 * digit + number)
            )
    write_nmnist(tmp_path / "NMNIST/Test/7/00001.bin", recording(77))
    return tmp_path


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_nmnist_counts_every_event(steps: int, nmnist: Path) -> None:
    split = load(NMNIST, "train", nmnist, steps=steps)
    assert (split.pixels.dtype, split.pixels.shape) == (torch.uint8, (6, steps, 2, 34, 34))
    assert split.labels.tolist() == [0, 0, 3, 3, 9, 9]
    expected = [
        counted(recording(10 * digit + number), steps, 34)
        for digit in (0, 3, 9)
        for number in range(2)
    ]
    assert np.array_equal(split.pixels.numpy(), expected)
    assert split.pixels.sum() >= 6 * (500 - 1) - steps, "but for the last microseconds"


def test_nmnist_is_found_by_its_own_folder_too(nmnist: Path) -> None:
    split = load(NMNIST, "test", nmnist / "NMNIST", steps=2)
    assert split.labels.tolist() == [7] and np.array_equal(
        split.pixels[0].numpy(), counted(recording(77), 2, 34)
    )


def test_nmnist_s_clock_overflows(tmp_path: Path) -> None:
    events = recording(1)
    write_nmnist(tmp_path / "NMNIST/Test/0/0.bin", events, overflows=3)
    events[250:, 3] += 3 * 2**13
    assert np.array_equal(
        load(NMNIST, "test", tmp_path, steps=5).pixels[0].numpy(), counted(events, 5, 34)
    )


def test_more_events_than_a_byte_counts_are_255(tmp_path: Path) -> None:
    events = np.array(
        [[3, 4, 1, t] for t in range(1000)] + [[5, 6, 0, t] for t in range(1000, 1010)]
    )
    write_nmnist(tmp_path / "NMNIST/Test/0/0.bin", events)
    frames = load(NMNIST, "test", tmp_path).pixels[0]
    assert (int(frames[0, 1, 4, 3]), int(frames[0, 0, 6, 5])) == (255, 9)


def test_gestures(tmp_path: Path) -> None:
    """Stored as x, y, p and milliseconds."""
    recorded = {}
    for user, lighting, label in ((2, "led", 10), (1, "fluorescent", 0), (1, "fluorescent", 7)):
        events = recording(label, 300)
        events[:, 3] //= 1000
        path = tmp_path / f"DVSGesture/ibmGestureTrain/user{user:02}_{lighting}/{label}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, events.astype(np.float64))
        recorded[label] = events * (1, 1, 1, 1000)
    split = load(GESTURE, "train", tmp_path, steps=3)
    assert split.labels.tolist() == [0, 7, 10], "in the order of their paths"
    assert np.array_equal(
        split.pixels.numpy(), [counted(recorded[label], 3, 128) for label in (0, 7, 10)]
    )


def test_a_model_of_events_takes_their_number(nmnist: Path) -> None:
    frames = load(NMNIST, "train", nmnist, steps=2).pixels
    assert torch.allclose(normalise(frames, NMNIST), frames.float())


def test_files_that_are_missing_are_not_downloaded(tmp_path: Path) -> None:
    said = "holds no N-MNIST: expected are files NMNIST/Train/[0-9]/*.bin, as tonic stores them"
    refused(f"{tmp_path} {said}", load_split, NMNIST, "train", tmp_path)
    (tmp_path / "NMNIST/Train/3").mkdir(parents=True)
    refused(f"{tmp_path} {said}", load_split, NMNIST, "train", tmp_path)
    refused(
        "expected are files DVSGesture/ibmGestureTest/*/*.npy",
        load_split,
        GESTURE,
        "test",
        tmp_path,
    )
    refused("org/name holds no N-MNIST", load_split, NMNIST, "train", "org/name")


@pytest.mark.parametrize("damage", ["empty", "cut", "outside"])
def test_a_damaged_recording_is_named_or_left_out(damage: str, nmnist: Path) -> None:
    path = nmnist / "NMNIST/Train/3/00000.bin"
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-2])
    else:
        write_nmnist(path, np.array([[200, 3, 0, t] for t in range(50)]))
    refused(f"{path} is not a recording that can be read (", load_split, NMNIST, "train", nmnist)
    split = load(NMNIST, "train", nmnist, skip_bad=True)
    assert (split.labels.tolist(), split.skipped) == ([0, 0, 3, 9, 9], 1)


def test_a_label_that_is_no_class_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "DVSGesture/ibmGestureTrain/user01_led/11.npy"
    path.parent.mkdir(parents=True)
    np.save(path, recording(0).astype(np.float64))
    refused(
        "the label of row 0 is 11; valid for DVS128 Gesture are 0 to 10",
        load_split,
        GESTURE,
        "train",
        tmp_path,
    )


def test_nothing_but_damaged_recordings_is_an_error(tmp_path: Path) -> None:
    write_nmnist(tmp_path / "NMNIST/Test/0/0.bin", np.empty((0, 4), int))
    refused(
        f"none of the 1 recordings in {tmp_path} can be read",
        load_split,
        NMNIST,
        "test",
        tmp_path,
        skip_bad=True,
    )


def test_a_missing_extra_is_named(nmnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tonic", None)
    monkeypatch.setitem(sys.modules, "tonic.datasets", None)
    refused(
        "read by the package tonic: pip install 'danet-zoo[events]'",
        load_split,
        NMNIST,
        "train",
        nmnist,
    )
