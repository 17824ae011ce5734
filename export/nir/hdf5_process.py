"""The child process that reads an HDF5 file of anyone: a worker of `zoo.sandbox`.

libhdf5 can run for ever, and take any memory, over a damaged file, so it never reads one in the
process that asked. Sizes are checked before they are allocated. No link but a hard one is
followed, so no other file is read.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from zoo.sandbox import BYTES_PER_CPU_SECOND, Limits, Refused, Sender

__all__ = ["MAX_BYTES", "allowed_bytes", "allowed_seconds", "limits_for", "send_graph"]

MAX_BYTES = 1 << 32  # of all arrays of a file together
MAX_RATIO = 1100  # of these to the size of the file: gzip, the best of the filters, reaches 1032
MAX_DEPTH = 80  # of groups in groups; a graph in a graph is two
MAX_OBJECTS = 1 << 20
MAX_CHUNKS = 1 << 16  # of one array: HDF5 looks for each, even where none was written
MAX_NAME = 1000  # characters
MAX_TEXT_BYTES = 1 << 16  # of one string
MAX_STRINGS = 1 << 20
BUFFER_BYTES = 3 << 28  # for HDF5 and for strings, besides the arrays
# Seconds of a processor for a group, or an array besides its bytes; a good one takes a thousandth.
STEP_CPU_SECONDS = 20
SLOWDOWN = 10  # On a busy machine a second of a processor takes several on the clock.
# Filters that nir.write can use, by HDF5's numbers; others may load code.
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 32000: "lzf"}


def allowed_bytes(size: int) -> int:
    """Return how many bytes the arrays of a file of `size` bytes may take."""
    return min(MAX_BYTES, MAX_RATIO * size)


def allowed_seconds(size: int) -> int:
    """Return how many seconds a processor may work on a file of `size` bytes.

    It is enough however its arrays are packed and many its nodes are.
    """
    return STEP_CPU_SECONDS + allowed_bytes(size) // BYTES_PER_CPU_SECOND + (size >> 20)


def limits_for(size: int) -> Limits:
    """Return the limits of the child that reads a file of `size` bytes."""
    return Limits(
        memory_bytes=BUFFER_BYTES + 2 * allowed_bytes(size),  # an array beside a filter's buffer
        result_bytes=allowed_bytes(size),
        seconds=SLOWDOWN * allowed_seconds(size),
        cpu_seconds=allowed_seconds(size),
        step_cpu_seconds=STEP_CPU_SECONDS,
    )


def send_graph(path: Path, sender: Sender) -> None:
    """Send the group `node` of a file; raise `Refused` for whatever is wrong with the file."""
    try:
        if not h5py.is_hdf5(path):
            raise Refused("is no HDF5 file, which a NIR file is")
        with h5py.File(path, "r") as file:
            link = file.get("node", getlink=True)
            if type(link) is not h5py.HardLink or not isinstance(file["node"], h5py.Group):
                raise Refused(
                    "is an HDF5 file without the group 'node', which holds the graph of a NIR file"
                )
            _GroupSender(sender, allowed_bytes(path.stat().st_size)).group("node", file["node"], 0)
    except Refused:
        raise
    except MemoryError:
        raise Refused("is damaged: it needs more memory than a file of its size can") from None
    except Exception as error:  # h5py raises what it likes where a file is damaged
        raise Refused(f"is damaged: {' '.join(str(error).split())[:200]}") from None


class _GroupSender:
    """Sends a group with all that is in it, and counts what is left of each limit."""

    def __init__(self, sender: Sender, max_bytes: int) -> None:
        self.sender = sender
        self.max_bytes = self.bytes_left = max_bytes
        self.objects_left = MAX_OBJECTS
        self.strings_left = MAX_STRINGS

    def group(self, name: str, group: h5py.Group, depth: int) -> None:
        """Send a group that lies in `depth` others."""
        if depth > MAX_DEPTH:
            raise Refused(f"has groups more than {MAX_DEPTH} deep")
        with self.sender.group(name):
            for key in group:
                self._member(key, group, depth)

    def _member(self, key: str, group: h5py.Group, depth: int) -> None:
        self.objects_left -= 1
        if self.objects_left < 0:
            raise Refused(f"has more than {MAX_OBJECTS} objects")
        if len(key) > MAX_NAME or not key.isprintable():
            raise Refused(
                f"has a name that is not printable text of at most {MAX_NAME} characters: "
                f"{ascii(key)[:80]}"
            )
        where = f"{group.name}/{key}"[-MAX_NAME:]
        link = group.get(key, getlink=True)
        if type(link) is not h5py.HardLink:
            kind = type(link).__name__
            raise Refused(
                f"has a {kind} at {where!r}, which is not followed: store the data itself"
            )
        member = group[key]
        if isinstance(member, h5py.Group):
            self.group(key, member, depth + 1)
        elif isinstance(member, h5py.Dataset):
            self._dataset(key, where, member)
        else:
            kind = type(member).__name__
            raise Refused(f"has a {kind} at {where!r}, where a group or an array is expected")

    def _dataset(self, name: str, where: str, data: h5py.Dataset) -> None:
        _check_storage(where, data)
        if h5py.check_string_dtype(data.dtype) is not None:
            self._text(name, where, data)
        elif data.dtype.kind in "fiub" and data.dtype.itemsize <= 8:
            self._take(where, data.shape, data.dtype.itemsize)
            self.sender.array(name, np.asarray(data[()]))
        else:
            raise Refused(
                f"has data of the type {str(data.dtype)[:80]} at {where!r}; valid are numbers of "
                "at most 64 bits and strings"
            )

    def _text(self, name: str, where: str, data: h5py.Dataset) -> None:
        self._take(where, data.shape, data.dtype.itemsize)
        count = math.prod(data.shape)
        self.strings_left -= count
        if self.strings_left < 0:
            raise Refused(f"has more than {MAX_STRINGS} strings, {count} of them at {where!r}")
        strings = []
        for part in _parts(data):
            for value in np.ravel(part):
                if len(value) > MAX_TEXT_BYTES:
                    raise Refused(
                        f"has a string of {len(value)} bytes at {where!r}; at most "
                        f"{MAX_TEXT_BYTES} are allowed"
                    )
                self._take(where, (len(value),), 1)
                strings.append(bytes(value).decode())
        self.sender.text(name, strings, data.shape)

    def _take(self, where: str, shape: tuple[int, ...], itemsize: int) -> None:
        """Count the bytes that are about to be read."""
        size = math.prod(shape) * itemsize
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise Refused(
                f"declares {size:.1e} bytes at {where!r}; all data of a file of its size can take "
                f"{self.max_bytes:.1e}"
            )
        self.sender.begin(size)


def _check_storage(where: str, data: h5py.Dataset) -> None:
    """Raise `Refused` for data that lie elsewhere, are packed strangely, or are not there."""
    properties = data.id.get_create_plist()
    if data.is_virtual or properties.get_external_count():
        raise Refused(
            f"keeps the data of {where!r} in another file, which is not read: store them in this "
            "one"
        )
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    if unknown := filters - FILTERS.keys():
        valid = ", ".join(FILTERS.values())
        raise Refused(f"compresses {where!r} by filter {min(unknown)}; valid are {valid}")
    if data.shape is None:
        raise Refused(f"has no data at {where!r}")
    sizes = zip(data.shape, data.chunks or data.shape, strict=True)
    chunks = math.prod(-(-axis // chunk) for axis, chunk in sizes if axis)
    if 0 not in data.shape and chunks > MAX_CHUNKS:
        raise Refused(
            f"declares {chunks:.1e} chunks at {where!r}; at most {MAX_CHUNKS} are allowed"
        )


def _parts(data: h5py.Dataset) -> Iterator[Any]:
    """Give strings a few at a time, since only reading tells how long they are."""
    if data.shape == ():
        yield [data[()]]
    else:
        yield from (data[i : i + 64] for i in range(0, len(data), 64))
