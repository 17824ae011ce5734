"""Recordings of event cameras: the frames hold the events that the files hold."""

import math
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from support.recordings import WRITERS, random_events, write_aedat4, write_events

from zoo.arrays import Array
from zoo.datasets import DATASETS
from zoo.errors import InputError
from zoo.images import Transform
from zoo.recordings import SUFFIXES, Recording, Sensor, read_recording
from zoo.recordings import files as formats

GESTURE, SACCADES, STILL = (DATASETS[tag] for tag in ("dvsgesture", "i2e-fmnist", "fmnist"))
STEPS = 8


def counted(events: Array, steps: int, side: int, size: int) -> Array:
    """Events a bin, polarity and pixel `[T, P, H, W]`, one after the other."""
    frames = np.zeros((steps, 2, size, size), int)
    first = events["t"][0]
    length = (events["t"][-1] - first) // steps
    for event in events:
        step = (event["t"] - first) // length
        if step < steps:
            row, column = (int(event[name]) * size // side for name in ("y", "x"))
            frames[step, int(event["p"]), row, column] += 1
    return frames


@pytest.mark.parametrize("suffix", WRITERS)
def test_every_format_gives_the_events_of_the_file(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "PIECE", 700)
    events = random_events(3000)
    path = write_events(tmp_path / f"events{suffix}", events)
    assert (read_recording(path, GESTURE, STEPS) == counted(events, STEPS, 128, 128)).all()
    pieces = [*Recording.open(path, GESTURE).events()]
    assert len(pieces) > 1
    joined = np.concatenate(pieces)
    assert all((joined[name] == events[name]).all() for name in "txyp")


def test_every_suffix_is_tested() -> None:
    """Files of N-MNIST are, where its folder is read."""
    assert set(SUFFIXES) == {*WRITERS, ".bin"}


def test_a_camera_is_scaled_to_the_network(tmp_path: Path) -> None:
    """Events of simulated saccades are 0 or 1, those of brighter pixels first."""
    events = random_events(4000, side=112)
    path = write_events(tmp_path / "events.npy", events)
    changes: list[str] = []
    frames = read_recording(path, SACCADES, STEPS, sensor=(112, 112), changes=changes)
    expected = counted(events, STEPS, 112, 28)[:, ::-1].clip(0, 1)
    assert (frames == expected).all()
    assert changes[0] == "scaled from 112x112" and changes[1].startswith("events of 0.09")
    x = Transform(SACCADES, STEPS)(path, sensor=(112, 112))
    assert (x[:, 0].numpy() == frames).all()
    with pytest.raises(InputError, match="a sensor is of a recording of events, and none is given"):
        Transform(SACCADES, STEPS)(np.zeros((28, 28), np.uint8), sensor=(112, 112))


def test_the_square_centre_is_what_counts(tmp_path: Path) -> None:
    """Both sides of a wide camera are left out; a file that says its size needs no other."""
    events = random_events(2000)
    wide = events.copy()
    wide["x"] += 40
    outside = random_events(2000, side=40, seed=1)
    both = np.concatenate([wide, outside])
    both = both[np.argsort(both["t"], kind="stable")]
    both["t"][[0, -1]] = 0, 100_000
    inside = both[both["x"] >= 40]
    path = tmp_path / "events.npz"
    np.savez(path, **{name: both[name] for name in "xytp"}, width=208, height=128)
    bins = (both["t"] // 12_500).clip(0, 8)
    expected = np.zeros((STEPS, 2, 128, 128), int)
    for event, step in zip(both, bins, strict=True):
        if step < STEPS and event["x"] >= 40:
            expected[step, int(event["p"]), event["y"], event["x"] - 40] += 1
    assert len(inside) < len(both)
    assert (read_recording(path, GESTURE, STEPS) == expected).all()
    write_aedat4(tmp_path / "events.aedat4", both, 208, 128)
    assert (read_recording(tmp_path / "events.aedat4", GESTURE, STEPS) == expected).all()
    with pytest.raises(InputError, match=r"npz says 208x128 itself: leave the cam"):
        read_recording(path, GESTURE, STEPS, sensor=Sensor(128, 128))


def test_times_far_apart(tmp_path: Path) -> None:
    """Their distance does not fit 64 bits; frames of milliseconds would be more than anyone has."""
    events = random_events(3, side=28)
    events["t"] = -(2**62), 0, 2**62
    path = write_events(tmp_path / "events.npy", events)
    assert read_recording(path, SACCADES, STEPS).sum() == 2  # the last is in no bin
    with pytest.raises(InputError, match=r"has no event in 4,\d+.* frames of 1000 microseconds"):
        sum(1 for _ in Recording.open(path, SACCADES).windows(1000))
    with pytest.raises(
        InputError, match="recordings of events, and a model of Fashion-MNIST takes"
    ):
        Recording.open(path, STILL)


def test_windows_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A time without events is a frame of zeros, and no event is lost at the end of a piece."""
    monkeypatch.setattr(formats, "PIECE", 50)
    events = random_events(1000)
    events["t"][500:] += 35_000
    events["t"] += 7
    recording = Recording.open(write_events(tmp_path / "events.npy", events), GESTURE)
    windows = [*recording.windows(10_000)]
    starts = (events["t"] - events["t"][0]) // 10_000
    assert len(windows) == starts[-1] + 1
    for index, frame in enumerate(windows):
        assert frame.sum() == (starts == index).sum()
    assert sum(not frame.any() for frame in windows) >= 2
    for wrong in (0, 1.5, math.nan, math.inf, "10", None, True):
        with pytest.raises(
            InputError, match=f"frames of {wrong!r} microseconds: give a whole numb"
        ):
            next(recording.windows(wrong))  # type: ignore[arg-type]


def test_frames_of_a_file_are_taken_as_they_are(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 2, (STEPS, 2, 28, 28))
    for name, values in {"bytes": frames.astype(np.uint8), "floats": frames.astype(float)}.items():
        np.save(tmp_path / f"{name}.npy", values)
        np.savez(tmp_path / f"{name}.npz", frames=values)
        for suffix in (".npy", ".npz"):
            path = tmp_path / f"{name}{suffix}"
            assert (read_recording(path, SACCADES, STEPS) == frames).all()
    changes: list[str] = []
    np.save(tmp_path / "counts.npy", 3 * frames)
    read = read_recording(tmp_path / "counts.npy", SACCADES, STEPS, changes=changes)
    assert (read == frames).all() and changes == ["counts above 1 taken as 1"]


def test_a_transform_takes_recordings_and_pictures(tmp_path: Path) -> None:
    events = random_events(500, side=28)
    path = write_events(tmp_path / "events.npy", events)
    picture = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    x = Transform(SACCADES, STEPS)([str(path), picture])
    assert x.shape == (STEPS, 2, 2, 28, 28) and x.dtype == torch.float32
    assert torch.equal(x[:, 0], torch.from_numpy(read_recording(path, SACCADES, STEPS)).float())


def save(change: Callable[[Array], None]) -> Callable[[Path], None]:
    """Return what writes events after a change of them."""

    def write(path: Path) -> None:
        events = random_events(100, side=28)
        change(events)
        np.save(path, events)

    return write


def swap(events: Array) -> None:
    events["t"][50:] -= 100_000


def shorten(events: Array) -> None:
    events["t"] = 5


def move(events: Array) -> None:
    events["x"][7] = 31


def linked(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["events"] = h5py.ExternalLink("other.h5", "events")


def external(path: Path) -> None:
    events = random_events(10, side=28)
    with h5py.File(path, "w") as file:
        for name in "typ":
            file[f"events/{name}"] = events[name]
        place = [(str(path.with_suffix(".secret")), 0, 20)]
        file.create_dataset("events/x", (10,), np.int16, external=place)


def save_array(array: object) -> Callable[[Path], None]:
    return lambda path: np.save(path, np.asarray(array))


def save_fields(**fields: object) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **fields)  # type: ignore[arg-type]


def cut(write: Callable[[Path], None], share: float = 0.6) -> Callable[[Path], None]:
    def cut_write(path: Path) -> None:
        write(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(share * len(content))])

    return cut_write


def written(path: Path) -> None:
    write_events(path, random_events(1500, side=28))


def text(content: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(content) and None


FRAMES = np.zeros((STEPS, 2, 28, 28))
DAMAGED = {
    "unsorted.npy": (save(swap), "is not in the order of time: -"),
    "short.npy": (save(shorten), "it lasts 0 microseconds, too short for T = 8"),
    "outside.npy": (save(move), r"an event at \(31, \d+\) lies outside of 28x28 pixels: give"),
    "empty.npy": (save_array(random_events(0)), "empty.npy is empty: it holds no events"),
    "steps.npy": (
        save_array(FRAMES[:4]),
        r"\[4, 2, 28, 28\]: a model of simulated .* frames \[8, ",
    ),
    "size.npy": (save_array(FRAMES[..., :20]), r"float64 \[8, 2, 28, 20\]: a model of simul"),
    "polarities.npy": (save_array(FRAMES[:, :1]), r"float64 \[8, 1, 28, 28\]: a model of sim"),
    "columns.npy": (save_array(np.ones((9, 4))), r"float64 \[9, 4\]: a model of .* fields t, x, y"),
    "negative.npy": (save_array(FRAMES - 1), r"with -1 in it: a frame holds counts of events"),
    "fraction.npy": (save_array(FRAMES + 0.5), r"with 0.5 in it: a frame holds counts"),
    "nan.npy": (save_array(FRAMES * np.nan), r"with nan in it: a frame holds counts"),
    "text.npy": (text("hello"), "is not a recording that can be read"),
    "objects.npy": (save_array(np.array([{}], object)), "is not a recording that can be read"),
    "cut.npy": (cut(written), "is not a recording that can be read"),
    "cut.npz": (cut(written), "is not a recording that can be read"),
    "cut.h5": (cut(written), "is not a recording that can be read"),
    "cut.hdf5": (cut(written), "is not a recording that can be read"),
    "cut.aedat": (cut(written), r"can be read \(the file is cut short\)"),
    "cut.aedat4": (cut(written), "is not a recording that can be read"),
    "cut.txt": (cut(written, 0.9995), "is not a recording that can be read"),
    "cut.bin": (lambda path: path.write_bytes(bytes(12)) and None, "the file is cut short"),
    "lengths.npz": (
        save_fields(t=[1, 2], x=[1], y=[1, 2], p=[0, 1]),
        r"columns of different lengths: \{'t': 2, 'x': 1, ",
    ),
    "missing.npz": (save_fields(t=[1], x=[1], y=[1]), "columns t, x, y and p, and it has t, x, y"),
    "polarity.npz": (save_fields(t=[1], x=[1], y=[1], p=[2]), "p = 2 of an event"),
    "halves.npz": (save_fields(t=[1], x=[1.5], y=[1], p=[1]), "x = 1.5 of an event"),
    "flat.npz": (save_fields(t=[[1]], x=[[1]], y=[[1]], p=[[1]]), r"a column of shape \[1, 1\]"),
    "objects.npz": (
        lambda path: np.savez(path, t=np.array([{}], object), x=[1], y=[1], p=[1]),
        "it holds Python objects, which are never loaded",
    ),
    "words.txt": (text("0.1 3 4 1\n0.2 three 4 1\n"), "is not a recording that can be read"),
    "three.txt": (text("1 2 3\n"), "3 numbers in a line for t, x, y, p"),
    "header.csv": (text("x,y,p,t\n1,2\n"), "2 numbers in a line for x, y, p, t"),
    "mixed.csv": (text("x y p t\n1,2,3,4\n"), "4 numbers|1 numbers"),
    "twice.npz": (save_fields(t=[1], timestamp=[1], x=[1], y=[1], p=[1]), "two of its columns m"),
    "width.npz": (save_fields(t=[1], x=[1], y=[1], p=[1], width=3), "it has a width alone: give"),
    "archive.npy": (lambda path: zipfile.ZipFile(path, "w").close(), "is not a recording that can"),
    "big.aedat": (
        lambda path: (
            path.write_bytes(
                b"#!AER-DAT3.1\r\n#!END-HEADER\r\n"
                + struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, 2**30, 2**30, 2**30)
            )
            and None
        ),
        "the file is cut short",
    ),
    "nothing.h5": (lambda path: h5py.File(path, "w").close(), "no t, x, y and p in `events`, in"),
    "link.h5": (linked, "events is a link, and none is followed"),
    "external.h5": (external, "x lies in another file, and none is followed"),
    "late.txt": (text("soon 2 3 1\n"), "columns soon, 2, 3, 1, where t, x, y and p are need"),
    "forever.txt": (text("0.5 1 1 1\n1e99 2 3 1\n"), "a time is no number of seconds"),
    "none.npz": (lambda path: zipfile.ZipFile(path, "w").close(), "is empty: it holds no ev"),
    "none.txt": (text(""), "none.txt is empty: it holds no events"),
    "old.aedat": (text("#!AER-DAT2.0\n"), "AEDAT '2.0': versions 3 and 4 are read, whose"),
    "endless.aedat": (text("#!AER-DAT3.1\n#x\n\n"), "the header does not end"),
    "odd.aedat": (
        lambda path: (
            path.write_bytes(
                b"#!AER-DAT3.1\r\n#!END-HEADER\r\n"
                + struct.pack("<hhiiiiii", 1, 1, 5, 4, 0, 2, 2, 2)
                + bytes(10)
            )
            and None
        ),
        "events of 5 bytes",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_no_recording_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    write, message = DAMAGED[name]
    path = tmp_path / name
    write(path)
    with pytest.raises(InputError, match=message) as error:
        read_recording(path, SACCADES, STEPS)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_what_fits_no_network_is_refused(tmp_path: Path) -> None:
    path = write_events(tmp_path / "events.npy", random_events(100, side=28))
    with pytest.raises(
        InputError, match="recordings of events, and a model of Fashion-MNIST takes"
    ):
        Transform(STILL)(path)
    with pytest.raises(InputError, match=r"takes recordings of events, files \.npy, .* and no im"):
        Transform(GESTURE, STEPS)(np.zeros((128, 128), np.uint8))
    with pytest.raises(InputError, match="camera of 20x40 pixels is smaller than the 28x28 of a m"):
        read_recording(path, SACCADES, STEPS, sensor=Sensor(20, 40))
    for wrong in (
        (28,),
        (28, 28, 28),
        (28.5, 28),
        (0, 28),
        (math.nan, 3),
        (math.inf, 3),
        ("a", 3),
        5,
    ):
        with pytest.raises(InputError, match=r"a camera of .*: give its width and height in"):
            read_recording(path, SACCADES, STEPS, sensor=wrong)  # type: ignore[arg-type]
    (tmp_path / "ragged.txt").write_text("1 2 3 1  # the first\n2 2 3\n")
    with pytest.raises(InputError, match=r"read \(3 numbers in a line for t, x, y, p\)"):
        read_recording(tmp_path / "ragged.txt", SACCADES, STEPS)
    with pytest.raises(InputError, match=r"absent\.npy does not exist"):
        read_recording(tmp_path / "absent.npy", SACCADES, STEPS)
    with pytest.raises(InputError, match=r"events\.png is no recording: those are files \.npy, "):
        (tmp_path / "events.png").touch()
        read_recording(tmp_path / "events.png", SACCADES, STEPS)
    np.save(tmp_path / "frames.npy", FRAMES)
    with pytest.raises(InputError, match=r"frames\.npy holds frames: the camera's size is for ev"):
        read_recording(tmp_path / "frames.npy", SACCADES, STEPS, sensor=Sensor(28, 28))
    with pytest.raises(InputError, match=r"holds frames \[8, 2, 28, 28\], and no events with ti"):
        Recording.open(tmp_path / "frames.npy", SACCADES)


def test_a_hole_in_a_compressed_file_is_found(tmp_path: Path) -> None:
    path = write_events(tmp_path / "events.npz", random_events(5000, side=28))
    with zipfile.ZipFile(path) as archive:
        offset = archive.getinfo("x.npy").header_offset
    content = bytearray(path.read_bytes())
    content[offset + 3000] ^= 255
    path.write_bytes(content)
    with pytest.raises(InputError, match="is not a recording that can be read"):
        read_recording(path, SACCADES, STEPS)


@pytest.mark.parametrize("package", ["aedat", "tonic"])
def test_a_missing_package_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suffix = {"aedat": ".aedat4", "tonic": ".bin"}[package]
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.io", None)
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    path = tmp_path / f"events{suffix}"
    path.write_bytes(b"#!AER-DAT4.0\r\n")
    with pytest.raises(InputError, match=rf"the package {package}: pip install 'danet-zoo\[events"):
        read_recording(path, SACCADES, STEPS)


LONG = """
import re, sys
from pathlib import Path
import numpy as np
from zoo.datasets import DATASETS
from zoo.recordings import Recording

recording = Recording.open(Path(sys.argv[1]), DATASETS["dvsgesture"])
recording.frames(8)
total = sum(int(frame.sum()) for frame in recording.windows(1_000_000))
print(total, re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_a_recording_longer_than_the_memory_streams(suffix: str, tmp_path: Path) -> None:
    """Thirty million events take 390 megabytes as they are stored."""
    count = 30_000_000
    columns = {
        "t": np.arange(count, dtype=np.int64),
        "x": (np.arange(count) % 128).astype(np.int16),
        "y": (np.arange(count) // 128 % 128).astype(np.int16),
        "p": np.arange(count) % 2 == 0,
    }
    path = tmp_path / f"long{suffix}"
    if suffix == ".npz":
        np.savez(path, **columns)  # type: ignore[arg-type]
    else:
        import h5py

        with h5py.File(path, "w") as file:
            for name, column in columns.items():
                file.create_dataset(f"events/{name}", data=column, chunks=(1 << 18,))
    del columns
    done = subprocess.run(
        [sys.executable, "-c", LONG, str(path)], capture_output=True, text=True, check=True
    )
    total, kilobytes = map(int, done.stdout.split())
    assert total == count and kilobytes < 300_000 < path.stat().st_size // 1000
