"""The reader of HDF5 files that nobody vouches for, a program of its own: `python hdf5.py FILE`
writes what is in `FILE` to stdout.

libhdf5 can run for ever, and take any memory, over a damaged file; here that ends this process, and
not the one that asked. Sizes are checked before they are allocated. No link but a hard one is
followed, so no other file is read.

The stream is a line of JSON for each thing, in the order of the file:

    {"open": name}                                       a group
    {"close": true}                                      its end
    {"numbers": name, "dtype": "<f4", "shape": [2, 3]}   followed by the elements, little-endian
    {"text": name, "shape": [2], "bytes": 9}             followed by a JSON list of the strings
    {"error": "one line"}                                ends the stream
    {"end": true}                                        ends the stream
"""

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import h5py
import numpy as np

__all__ = ["MAX_BYTES", "allowed_bytes", "allowed_seconds", "write_stream"]

MAX_BYTES = 1 << 32  # of all arrays of a file together
MAX_RATIO = 1100  # of these to the size of the file: gzip, the best of the filters, reaches 1032
MAX_DEPTH = 80  # of groups in groups; a graph in a graph is two
MAX_OBJECTS = 1 << 20
MAX_CHUNKS = 1 << 16  # of one array: HDF5 looks for each, even where none was written
# seconds of a processor for a group, or an array beside its bytes; a good one takes a thousandth
PATIENCE = 20
BYTES_A_SECOND = 1 << 24  # a thirtieth of what zeros are unpacked at
MAX_NAME = 1000  # characters
MAX_TEXT = 1 << 16  # bytes of one string
MAX_STRINGS = 1 << 20
# what nir.write can use; others may load code
FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 32000: "lzf"}


class Refused(Exception):
    """What is wrong with a file, in a line."""


def allowed_bytes(size: int) -> int:
    """How much the arrays of a file of `size` bytes may take."""
    return min(MAX_BYTES, MAX_RATIO * size)


def allowed_seconds(size: int) -> int:
    """How many seconds a processor may work on a file of `size` bytes, however its arrays are
    packed and many its nodes are.
    """
    return PATIENCE + allowed_bytes(size) // BYTES_A_SECOND + (size >> 20)


def write_stream(
    path: str, out: BinaryIO, begin: Callable[[int], None] = lambda size: None
) -> None:
    """Write the group `node` of a file to `out` as above. Whatever is wrong with the file is
    written there, too.

    `begin` is called before every group, and every array with the bytes that it will take.
    """
    try:
        sender = _Sender(out, allowed_bytes(os.path.getsize(path)), begin)  # noqa: PTH202 -- pathlib would double the imports
        if not h5py.is_hdf5(path):
            raise Refused("is no HDF5 file, which a NIR file is")
        with h5py.File(path, "r") as file:
            if type(file.get("node", getlink=True)) is not h5py.HardLink or not isinstance(
                file["node"], h5py.Group
            ):
                raise Refused(
                    "is an HDF5 file without the group 'node', which holds the graph of a NIR file"
                )
            sender.group("node", file["node"], 0)
        sender.line({"end": True})
    except Refused as error:
        sender.line({"error": str(error)})
    except MemoryError:
        sender.line({"error": "is damaged: it needs more memory than a file of its size can"})
    except Exception as error:  # h5py raises what it likes where a file is damaged
        sender.line({"error": f"is damaged: {' '.join(str(error).split())[:200]}"})


class _Sender:
    def __init__(self, out: BinaryIO, bytes_left: int, begin: Callable[[int], None]) -> None:
        self.out, self.begin = out, begin
        self.allowed = self.bytes_left = bytes_left
        self.objects_left = MAX_OBJECTS
        self.strings_left = MAX_STRINGS

    def line(self, header: dict[str, Any]) -> None:
        self.out.write(json.dumps(header).encode() + b"\n")

    def group(self, name: str, group: h5py.Group, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise Refused(f"has groups more than {MAX_DEPTH} deep")
        self.begin(0)
        self.line({"open": name})
        for key in group:
            self.objects_left -= 1
            if self.objects_left < 0:
                raise Refused(f"has more than {MAX_OBJECTS} objects")
            if len(key) > MAX_NAME or not key.isprintable():
                raise Refused(
                    f"has a name that is not printable text of at most {MAX_NAME} characters: {ascii(key)[:80]}"
                )
            where = f"{group.name}/{key}"[-MAX_NAME:]
            link = group.get(key, getlink=True)
            if type(link) is not h5py.HardLink:
                raise Refused(
                    f"has a {type(link).__name__} at {where!r}, which is not followed: store the data itself"
                )
            thing = group[key]
            if isinstance(thing, h5py.Group):
                self.group(key, thing, depth + 1)
            elif isinstance(thing, h5py.Dataset):
                self.dataset(key, where, thing)
            else:
                raise Refused(
                    f"has a {type(thing).__name__} at {where!r}, where a group or an array is expected"
                )
        self.line({"close": True})

    def dataset(self, name: str, where: str, data: h5py.Dataset) -> None:
        plist = data.id.get_create_plist()
        if data.is_virtual or plist.get_external_count():
            raise Refused(
                f"keeps the data of {where!r} in another file, which is not read: store them in this one"
            )
        unknown = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())} - FILTERS.keys()
        if unknown:
            raise Refused(
                f"compresses {where!r} by filter {min(unknown)}; valid are {', '.join(FILTERS.values())}"
            )
        if data.shape is None:
            raise Refused(f"has no data at {where!r}")
        chunks = math.prod(
            -(-n // c) for n, c in zip(data.shape, data.chunks or data.shape, strict=True) if n
        )
        if 0 not in data.shape and chunks > MAX_CHUNKS:
            raise Refused(
                f"declares {chunks:.1e} chunks at {where!r}; at most {MAX_CHUNKS} are allowed"
            )
        if h5py.check_string_dtype(data.dtype) is not None:
            self.text(name, where, data)
        elif data.dtype.kind in "fiub" and data.dtype.itemsize <= 8:
            self.numbers(name, where, data)
        else:
            raise Refused(
                f"has data of the type {str(data.dtype)[:80]} at {where!r}; valid are numbers of at most 64 bits and strings"
            )

    def take(self, where: str, shape: tuple[int, ...], itemsize: int) -> None:
        """Count what is about to be read."""
        size = math.prod(shape) * itemsize
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise Refused(
                f"declares {size:.1e} bytes at {where!r}; all data of a file of its size can take {self.allowed:.1e}"
            )
        self.begin(size)

    def numbers(self, name: str, where: str, data: h5py.Dataset) -> None:
        self.take(where, data.shape, data.dtype.itemsize)
        array = np.asarray(data[()])
        array = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        self.line({"numbers": name, "dtype": array.dtype.str, "shape": data.shape})
        self.out.write(array.data if array.size else b"")

    def text(self, name: str, where: str, data: h5py.Dataset) -> None:
        self.take(where, data.shape, data.dtype.itemsize)
        count = math.prod(data.shape)
        self.strings_left -= count
        if self.strings_left < 0:
            raise Refused(f"has more than {MAX_STRINGS} strings, {count} of them at {where!r}")
        strings = []
        for part in _parts(data):
            for value in np.ravel(part):
                if len(value) > MAX_TEXT:
                    raise Refused(
                        f"has a string of {len(value)} bytes at {where!r}; at most {MAX_TEXT} are allowed"
                    )
                self.take(where, (len(value),), 1)
                strings.append(bytes(value).decode())
        packed = json.dumps(strings).encode()
        self.line({"text": name, "shape": data.shape, "bytes": len(packed)})
        self.out.write(packed)


def _parts(data: h5py.Dataset) -> Iterator[Any]:
    """Strings a few at a time, since only reading tells how long they are."""
    if data.shape == ():
        yield [data[()]]
    else:
        yield from (data[i : i + 64] for i in range(0, len(data), 64))


def _limited(size: int) -> Callable[[int], None]:
    """Limit the memory and time of this process, for a file of `size` bytes; and what gives it time
    for the next group or array.

    A processor's time is counted from one to the next, so that a file may take as long as it is
    large while HDF5, which never comes back from some damaged ones, is soon given up.
    """
    try:
        import resource
    except ImportError:  # no such thing on this system: the caller's clock remains
        return lambda size: None

    def limit(kind: int, most: int) -> None:
        _, hard = resource.getrlimit(kind)
        resource.setrlimit(
            kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard)
        )

    def begin(more: int) -> None:
        spent = int(sum(os.times()[:2]))
        limit(
            resource.RLIMIT_CPU,
            min(allowed_seconds(size), spent + PATIENCE + more // BYTES_A_SECOND),
        )

    # an array beside a filter's buffer
    limit(resource.RLIMIT_AS, (1 << 30) + 2 * allowed_bytes(size))
    limit(resource.RLIMIT_CORE, 0)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    begin(0)
    return begin


if __name__ == "__main__":
    begin = _limited(os.path.getsize(sys.argv[1]))  # noqa: PTH202 -- as above
    write_stream(sys.argv[1], sys.stdout.buffer, begin)
    sys.stdout.buffer.flush()
