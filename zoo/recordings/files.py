"""Files of events, and the readers of their formats.

An event says at which time `t` the pixel in column `x` and row `y` became brighter (`p` is true) or
darker. Every reader gives a file's events piece by piece, so that a recording may be longer than
the memory, and as often as they are asked for.

To add a format, write a reader and name it in `READERS`.
"""

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.lib import format as npy

from zoo import sandbox
from zoo.arrays import Array
from zoo.errors import InputError, first_line

__all__ = [
    "EVENT",
    "MICROSECONDS",
    "READ_ERRORS",
    "SUFFIXES",
    "EventFile",
    "Sensor",
    "is_recording",
    "open_file",
]

COLUMNS = ("t", "x", "y", "p")
EVENT = np.dtype([("t", np.int64), ("x", np.int32), ("y", np.int32), ("p", np.bool_)])
PIECE = 1 << 18  # events that are read at once
MICROSECONDS = 1_000_000  # of a second
MAX_SECONDS = 1e12  # beyond it, microseconds do not fit 64 bits
MAX_FRAME_ELEMENTS = 1 << 28  # of an array of frames
PROBE_SECONDS = 120
PROBE_SECONDS_OF_A_MEGABYTE = 10
# What the libraries raise for a damaged file.
READ_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    EOFError,
    MemoryError,
    RuntimeError,
    lzma.LZMAError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)

Pieces: TypeAlias = Callable[[], Iterator[Array]]
Take: TypeAlias = Callable[[int, int], Array]  # values from an index to another of a column

# Other names of the four columns, as recordings and libraries have them.
ALIASES = {"timestamp": "t", "timestamps": "t", "ts": "t", "polarity": "p", "pol": "p", "on": "p"}


class Sensor(NamedTuple):
    """The size of a camera in pixels."""

    width: int
    height: int

    @classmethod
    def of(cls, size: tuple[int, int]) -> "Sensor":
        """Return the sensor of a width and height. Raises `InputError` unless they are such."""
        try:
            width, height = map(int, size)
            valid = (width, height) == tuple(size) and min(width, height) > 0
        except (TypeError, ValueError, OverflowError):
            valid = False
        if not valid:
            raise InputError(f"a camera of {size!r}: give its width and height in pixels")
        return cls(width, height)

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


@dataclass(frozen=True)
class EventFile:
    """A file's events, in pieces of the type `EVENT`, and the camera's size if the file says it."""

    pieces: Pieces
    sensor: Sensor | None = None


def is_recording(path: Path) -> bool:
    """Say whether the name of a file is that of a recording of events."""
    return path.suffix.lower() in SUFFIXES


def open_file(path: Path) -> EventFile | Array:
    """Return the events of a file, or the frames that an array in it holds as they are.

    Raises `InputError` for a suffix that is none of `SUFFIXES` or a package that is missing, and
    one of `READ_ERRORS` for a file that is damaged or none of its format. What is wrong with the
    events themselves is found where the pieces are read.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise InputError(f"{path} is no recording: those are files {', '.join(SUFFIXES)}")
    return READERS[suffix](path)


def _probe(path: Path) -> None:
    """Read a file to its end in a child process. Raises `ValueError` if that cannot be done.

    The libraries of HDF5 and AEDAT 4 may crash, or run for ever, over a damaged file.
    """
    size = path.stat().st_size
    limits = sandbox.Limits(
        memory_bytes=(1 << 30) + 2 * size,
        result_bytes=0,
        seconds=PROBE_SECONDS + PROBE_SECONDS_OF_A_MEGABYTE * (size >> 20),
    )
    try:
        sandbox.run(read_to_the_end, path, limits)
    except (sandbox.Refused, sandbox.Crashed) as error:
        raise ValueError(first_line(error)) from None


def read_to_the_end(path: Path, sender: sandbox.Sender) -> None:
    """Read all events of a file and send none, as a worker of `zoo.sandbox`."""
    try:
        read = _aedat4 if path.suffix.lower() in (".aedat", ".aedat4") else _hdf5
        for _ in read(path).pieces():
            pass
    except READ_ERRORS as error:
        raise sandbox.Refused(first_line(error)) from None


# numpy's files


def _npy(path: Path) -> EventFile | Array:
    array = npy.open_memmap(path, mode="r")
    if array.dtype.names is None:
        return np.asarray(array)
    return EventFile(_of_array(array))


def _npz(path: Path) -> EventFile | Array:
    with zipfile.ZipFile(path) as archive:
        names = [Path(name).stem for name in archive.namelist() if name.endswith(".npy")]
        sizes = {n: int(_whole(archive, n, 1)) for n in ("width", "height") if n in names}
        if len(sizes) == 1:
            raise ValueError(f"it has a {next(iter(sizes))} alone: give both, or neither")
        arrays = [name for name in names if name not in sizes]
        if len(arrays) == 1:
            with archive.open(f"{arrays[0]}.npy") as stream:
                holds_frames = _Member(stream).dtype.names is None
            if holds_frames:
                return _whole(archive, arrays[0], MAX_FRAME_ELEMENTS)
        else:
            arrays = [name for name in arrays if _column(name) in COLUMNS]
    return EventFile(partial(_npz_pieces, path, arrays), Sensor(**sizes) if sizes else None)


def _npz_pieces(path: Path, names: list[str]) -> Iterator[Array]:
    with ExitStack() as stack:
        # An archive for each array: they are unpacked side by side.
        archives = [stack.enter_context(zipfile.ZipFile(path)) for _ in names]
        streams = [
            stack.enter_context(archive.open(f"{name}.npy"))
            for name, archive in zip(names, archives, strict=True)
        ]
        members = dict(zip(names, map(_Member, streams), strict=True))
        columns: dict[str, Take] = {name: member.take for name, member in members.items()}
        if len(members) == 1:
            (member,) = members.values()
            columns = _structured(member.dtype, member.take)
        lengths = {name: member.length for name, member in members.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"columns of different lengths: {lengths}")
        yield from _in_pieces(columns, next(iter(lengths.values()), 0))


class _Member:
    """An array of a `.npz` file, which is read from its start to its end."""

    def __init__(self, stream: IO[bytes]) -> None:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        self.shape, _, self.dtype = read(stream)
        if self.dtype.hasobject:
            raise ValueError("it holds Python objects, which are never loaded")
        self._stream = stream
        self.length = self.shape[0] if self.shape else 0

    def take(self, start: int, stop: int) -> Array:
        if len(self.shape) != 1:
            raise ValueError(f"a column of shape {[*self.shape]}")
        size = (stop - start) * self.dtype.itemsize
        data = self._stream.read(size)
        if len(data) < size:
            raise EOFError("the file is cut short")
        return np.frombuffer(data, self.dtype)


def _whole(archive: zipfile.ZipFile, name: str, most: int) -> Array:
    """Return an array of at most so many elements."""
    with archive.open(f"{name}.npy") as stream:
        shape = _Member(stream).shape
    if math.prod(shape) > most:
        raise ValueError(f"{name} has shape {[*shape]}")
    with archive.open(f"{name}.npy") as stream:
        array: Array = npy.read_array(stream, allow_pickle=False)
        return array


# Text


def _text(path: Path) -> EventFile:
    return EventFile(partial(_text_pieces, path))


def _text_pieces(path: Path) -> Iterator[Array]:
    """Yield the events of lines `t x y p`, or of columns that a first line names.

    Times with a decimal point are seconds (Mueggler et al. 2017), others microseconds.
    """
    with path.open(encoding="utf-8-sig") as stream:
        lines = (line for line in stream if line.strip() and not line.startswith("#"))
        first = next(lines, "")
        comma = "," if "," in first else None
        words = [word.strip().strip('"') for word in first.split(comma)]
        names = [*COLUMNS]
        if first and not _is_number(words[0]):
            names, first = [_column(word) for word in words], next(lines, "")
            if sorted(names) != sorted(COLUMNS):
                found = "".join(filter(str.isprintable, ", ".join(names)))
                raise ValueError(f"columns {found[:80]}, where t, x, y and p are needed")
        in_seconds = bool(first) and "." in _words(first, comma, names)[names.index("t")]
        rows = chain([first] if first else [], lines)
        while piece := list(islice(rows, PIECE)):
            for line in piece:
                _words(line, comma, names)
            values = np.loadtxt(piece, delimiter=comma, ndmin=2)
            columns = dict(zip(names, values.T, strict=True))
            yield _as_events(columns, in_seconds=in_seconds)


def _words(line: str, comma: str | None, names: list[str]) -> list[str]:
    """Return the words of a line. Raises `ValueError` unless there is one for each name."""
    words = line.partition("#")[0].split(comma)
    if len(words) != len(names):
        raise ValueError(f"{len(words)} numbers in a line for {', '.join(names)}")
    return words


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


# HDF5


def _hdf5(path: Path) -> EventFile:
    """Read datasets x, y, t and p: in `events` (DSEC), `CD/events` (Prophesee), or at the top."""
    import h5py

    with h5py.File(path) as file:
        return EventFile(partial(_hdf5_pieces, path), _hdf5_sensor(file.attrs))


def _probed_hdf5(path: Path) -> EventFile:
    _probe(path)
    return _hdf5(path)


def _hdf5_sensor(attributes: Mapping[str, object]) -> Sensor | None:
    match attributes.get("width"), attributes.get("height"):
        case np.integer() as width, np.integer() as height:
            return Sensor(int(width), int(height))
    return None


def _hdf5_pieces(path: Path) -> Iterator[Array]:
    import h5py

    with h5py.File(path) as file:
        found = file
        for name in ("CD/events", "events"):
            if name in file:
                found = _own(file, name)
                break
        if isinstance(found, h5py.Dataset):
            yield from _of_array(found)()
        else:
            wanted = {n: _own(found, n) for n in found if _column(n) in COLUMNS}
            if not wanted:
                raise ValueError("no t, x, y and p in `events`, in `CD/events` or at the top")
            lengths = {len(column) for column in wanted.values()}
            if len(lengths) > 1:
                raise ValueError(f"columns of different lengths: {sorted(lengths)}")
            takes = {name: partial(_slice, column) for name, column in wanted.items()}
            yield from _in_pieces(takes, next(iter(lengths), 0))


def _own(group: Any, name: str) -> Any:
    """Return a member of a group. Raises `ValueError` for what lies in another file."""
    import h5py

    for part in name.split("/"):
        if not isinstance(group.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{part} is a link, and none is followed")
        group = group[part]
    if isinstance(group, h5py.Dataset) and (group.external or group.is_virtual):
        raise ValueError(f"{name} lies in another file, and none is followed")
    return group


def _slice(column: Array, start: int, stop: int) -> Array:
    piece: Array = column[start:stop]
    return piece


# AEDAT

AEDAT3_HEADER = np.dtype(
    [
        ("type", "<i2"),
        ("source", "<i2"),
        ("size", "<i4"),  # bytes of an event
        ("offset", "<i4"),
        ("overflow", "<i4"),  # how often the 31 bits of the times ran over
        ("capacity", "<i4"),
        ("number", "<i4"),  # events that follow
        ("valid", "<i4"),
    ]
)
AEDAT3_EVENT = np.dtype([("address", "<u4"), ("t", "<u4")])
POLARITY_EVENT = 1  # the type of a packet of events, in libcaer
COORDINATE = 0x7FFF  # 15 bits


def _aedat(path: Path) -> EventFile:
    with path.open("rb") as stream:
        first = stream.readline(80).strip().decode("latin-1")
    if first.startswith("#!AER-DAT4"):
        if not find_spec("aedat"):
            raise InputError(
                f"{path}: AEDAT 4 is read by the package aedat: pip install 'danet-zoo[events]'"
            )
        _probe(path)
        return _aedat4(path)
    if not first.startswith("#!AER-DAT3"):
        version = "".join(filter(str.isprintable, first)).removeprefix("#!AER-DAT")
        raise ValueError(
            f"AEDAT {version[:20]!r}: versions 3 and 4 are read, whose addresses do not depend "
            "on the camera"
        )
    return EventFile(partial(_aedat3_pieces, path))


def _aedat3_pieces(path: Path) -> Iterator[Array]:
    """Yield the events of a file of AEDAT 3.1, packet by packet (libcaer's polarity events)."""
    with path.open("rb") as stream:
        while not stream.readline(1 << 16).startswith(b"#!END-HEADER"):
            if stream.peek(1)[:1] != b"#":
                raise ValueError("the header does not end")
        while head := stream.read(AEDAT3_HEADER.itemsize):
            if len(head) < AEDAT3_HEADER.itemsize:
                raise EOFError("the file is cut short")
            header = np.frombuffer(head, AEDAT3_HEADER)[0]
            size = int(header["size"]) * int(header["number"])
            if not 0 <= size <= path.stat().st_size - stream.tell():
                raise EOFError("the file is cut short")
            body = stream.read(size)
            if header["type"] != POLARITY_EVENT:
                continue
            if header["size"] != AEDAT3_EVENT.itemsize:
                raise ValueError(f"events of {header['size']} bytes")
            events = np.frombuffer(body, AEDAT3_EVENT)
            events = events[events["address"] & 1 == 1]  # the others are marked as no events
            columns = {
                "t": events["t"].astype(np.int64) + (int(header["overflow"]) << 31),
                "x": events["address"] >> 17 & COORDINATE,
                "y": events["address"] >> 2 & COORDINATE,
                "p": events["address"] >> 1 & 1,
            }
            yield _as_events(columns)


def _aedat4(path: Path) -> EventFile:
    import aedat

    def pieces() -> Iterator[Array]:
        decoder = aedat.Decoder(str(path))
        for packet in decoder:
            if packet["stream_id"] == stream:
                yield from _of_array(packet["events"])()

    streams = aedat.Decoder(str(path)).id_to_stream()
    stream = next((n for n, about in streams.items() if about["type"] == "events"), None)
    if stream is None:
        raise ValueError("it has no stream of events")
    return EventFile(pieces, Sensor(streams[stream]["width"], streams[stream]["height"]))


# N-MNIST

NMNIST_EVENT = np.dtype([("x", np.int16), ("y", np.int16), ("t", np.int64), ("p", np.bool_)])
NMNIST_SENSOR = Sensor(34, 34)


def _nmnist(path: Path) -> EventFile:
    try:
        from tonic.io import read_mnist_file
    except ImportError:
        raise InputError(
            f"{path}: files of N-MNIST are read by the package tonic: "
            "pip install 'danet-zoo[events]'"
        ) from None
    if path.stat().st_size % 5:
        raise EOFError("the file is cut short")
    return EventFile(_of_array(read_mnist_file(str(path), dtype=NMNIST_EVENT)), NMNIST_SENSOR)


READERS: dict[str, Callable[[Path], EventFile | Array]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".txt": _text,
    ".csv": _text,
    ".h5": _probed_hdf5,
    ".hdf5": _probed_hdf5,
    ".aedat": _aedat,
    ".aedat4": _aedat,
    ".bin": _nmnist,
}
SUFFIXES = tuple(READERS)


# Columns of numbers as events


def _of_array(events: Array) -> Pieces:
    """Return the pieces of a structured array in memory."""
    return partial(_in_pieces, _structured(events.dtype, partial(_slice, events)), len(events))


def _structured(dtype: np.dtype[np.void], take: Take) -> dict[str, Take]:
    """Return a column for each field of an array, of which `take` gives a piece.

    The fields of a piece are asked for one after the other; it is taken once.
    """
    pieces: dict[tuple[int, int], Array] = {}

    def field(name: str, start: int, stop: int) -> Array:
        if (start, stop) not in pieces:
            pieces.clear()
            pieces[start, stop] = take(start, stop)
        column: Array = pieces[start, stop][name]
        return column

    return {name: partial(field, name) for name in dtype.names or ()}


def _in_pieces(columns: Mapping[str, Take], length: int) -> Iterator[Array]:
    """Yield `length` events, of which each of `columns` gives one number."""
    for start in range(0, length, PIECE):
        stop = min(start + PIECE, length)
        yield _as_events({name: take(start, stop) for name, take in columns.items()})


def _as_events(columns: Mapping[str, Array], *, in_seconds: bool | None = None) -> Array:
    """Return columns of numbers as events. Times of a floating type are seconds unless it is said.

    Raises `ValueError` for a column that is missing, and for numbers that no event can have.
    """
    named = {_column(name): column for name, column in columns.items()}
    if len(named) < len(columns):
        raise ValueError(f"two of its columns mean the same: {', '.join(columns)}")
    missing = [name for name in COLUMNS if name not in named]
    if missing:
        raise ValueError(
            f"events have columns t, x, y and p, and it has {', '.join(columns) or 'none'}"
        )
    for name in COLUMNS:
        if named[name].ndim != 1 or named[name].dtype.kind not in "biuf":
            kind = f"{named[name].dtype} {[*named[name].shape]}"
            raise ValueError(f"{name} is {kind}: one number for each event")
    events = np.empty(len(named["t"]), EVENT)
    seconds = named["t"].dtype.kind == "f" if in_seconds is None else in_seconds
    events["t"] = _microseconds(named["t"]) if seconds else _checked(named["t"], "t", 1 << 62)
    for name in ("x", "y"):
        events[name] = _checked(named[name], name, 1 << 30)
    polarity = _checked(named["p"], "p", 1)
    events["p"] = polarity > 0
    return events


def _column(name: str) -> str:
    """Return which of `COLUMNS` a name means."""
    return ALIASES.get(name, name)


def _microseconds(seconds: Array) -> Array:
    if not (np.abs(seconds) < MAX_SECONDS).all():
        raise ValueError("a time is no number of seconds")
    rounded: Array = np.rint(seconds.astype(np.float64) * MICROSECONDS).astype(np.int64)
    return rounded


def _checked(values: Array, name: str, limit: int) -> Array:
    """Return whole numbers from -`limit` to `limit` as they are. Raises `ValueError` for others."""
    if values.dtype.kind == "b":
        return values
    wrong = ~((values >= -limit) & (values <= limit))
    if values.dtype.kind == "f":
        wrong |= values != np.trunc(values)
    if wrong.any():
        raise ValueError(f"{name} = {values[wrong][0]:g} of an event")
    return values
