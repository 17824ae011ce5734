"""Recordings of event cameras, written in every format that is read."""

import struct
from pathlib import Path

import flatbuffers
import h5py
import numpy as np

from zoo.arrays import Array

__all__ = ["WRITERS", "random_events", "write_aedat4", "write_events"]

# The fields that tonic's arrays have.
EVENT = np.dtype([("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])


def random_events(count: int, side: int = 128, microseconds: int = 100_000, seed: int = 0) -> Array:
    """Return events in the order of time at random pixels of a square camera."""
    rng = np.random.default_rng(seed)
    events = np.empty(count, EVENT)
    events["t"] = np.sort(rng.integers(0, microseconds, count))
    events["x"], events["y"] = rng.integers(0, side, (2, count))
    events["p"] = rng.integers(0, 2, count)
    return events


def write_events(path: Path, events: Array) -> Path:
    """Write events in the format that the suffix names."""
    WRITERS[path.suffix](path, events)
    return path


def _npy(path: Path, events: Array) -> None:
    np.save(path, events)


def _npz(path: Path, events: Array) -> None:
    np.savez_compressed(path, **{name: events[name] for name in "xytp"})


def _txt(path: Path, events: Array) -> None:
    rows = (f"{e['t'] / 1e6:.6f} {e['x']} {e['y']} {int(e['p'])}\n" for e in events)
    path.write_text("".join(rows))


def _csv(path: Path, events: Array) -> None:
    rows = (f"{e['x']},{e['y']},{2 * int(e['p']) - 1},{e['t']}\n" for e in events)
    path.write_text("x,y,polarity,timestamp\n" + "".join(rows))


def _h5(path: Path, events: Array) -> None:
    with h5py.File(path, "w") as file:
        for name in "xytp":
            file.create_dataset(f"events/{name}", data=events[name], compression="gzip")


def _hdf5(path: Path, events: Array) -> None:
    with h5py.File(path, "w") as file:
        file["CD/events"] = events


def _aedat(path: Path, events: Array) -> None:
    """Write AEDAT 3.1: packets of at most 1000 events, and one that holds none."""
    text = b"#!AER-DAT3.1\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
    no_events = struct.pack("<hhiiiiii", 3, 1, 4, 0, 0, 2, 2, 2) + bytes(8)
    packets = [text, no_events]
    for start in range(0, len(events), 1000):
        part = events[start : start + 1000]
        x, y, p = (part[name].astype(np.uint32) for name in "xyp")
        pairs = np.stack([x << 17 | y << 2 | p << 1 | 1, part["t"].astype(np.uint32)], 1)
        number = len(part)
        packets.append(struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, number, number, number))
        packets.append(pairs.astype("<u4").tobytes())
    path.write_bytes(b"".join(packets))


def write_aedat4(path: Path, events: Array, width: int = 128, height: int = 128) -> None:
    """Write AEDAT 4 without compression: a header of XML, and one packet."""

    def node(name: str, folder: str, inside: str) -> str:
        return f'<node name="{name}" path="{folder}">{inside}</node>'

    def attribute(key: str, kind: str, value: object) -> str:
        return f'<attr key="{key}" type="{kind}">{value}</attr>'

    size = attribute("sizeX", "int", width) + attribute("sizeY", "int", height)
    words = {"compression": "NONE", "originalOutputName": "events", "typeIdentifier": "EVTS"}
    stream = "".join(attribute(key, "string", value) for key, value in words.items())
    stream += node("info", "/outInfo/0/info/", size)
    about = node("outInfo", "/outInfo/", node("0", "/outInfo/0/", stream))

    header = flatbuffers.Builder(0)
    text = header.CreateString(f'<dv version="2.0">{about}</dv>')
    header.StartObject(3)
    header.PrependInt64Slot(1, -1, 0)
    header.PrependUOffsetTRelativeSlot(2, text, 0)
    header.FinishSizePrefixed(header.EndObject(), file_identifier=b"IOHE")

    packet = flatbuffers.Builder(0)
    packet.StartVector(16, len(events), 8)
    for event in events[::-1]:
        packet.Prep(8, 16)
        packet.Pad(3)
        packet.PrependBool(bool(event["p"]))
        packet.PrependInt16(int(event["y"]))
        packet.PrependInt16(int(event["x"]))
        packet.PrependInt64(int(event["t"]))
    vector = packet.EndVector()
    packet.StartObject(1)
    packet.PrependUOffsetTRelativeSlot(0, vector, 0)
    packet.FinishSizePrefixed(packet.EndObject(), file_identifier=b"EVTS")
    body = bytes(packet.Output())
    start = b"#!AER-DAT4.0\r\n" + bytes(header.Output())
    path.write_bytes(start + struct.pack("<ii", 0, len(body)) + body)


WRITERS = {
    ".npy": _npy,
    ".npz": _npz,
    ".txt": _txt,
    ".csv": _csv,
    ".h5": _h5,
    ".hdf5": _hdf5,
    ".aedat": _aedat,
    ".aedat4": write_aedat4,
}
