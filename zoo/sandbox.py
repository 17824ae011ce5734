"""Files that nobody vouches for are read in a child process with limited memory and time.

A library that parses a hostile file may crash, run for ever or take any memory. Here that ends the
child, and not the process that asked. `run` starts the child, which calls a *worker*: a function
at the top level of a module that reads one file and sends what is in it. No object and no code
comes back, only names, arrays and text, in a stream with a line of JSON for each:

    {"open": name}                                       a group
    {"close": true}                                      its end
    {"array": name, "dtype": "<f4", "shape": [2, 3]}     followed by the elements, little-endian
    {"text": name, "shape": [2], "bytes": 9}             followed by a JSON list of the strings
    {"error": "one line"}                                ends the stream
    {"end": true}                                        ends the stream

The parent believes none of it: it bounds what it allocates, and takes a stream that is no such one
for that of a crashed child. This module imports neither torch nor anything that reads files.
"""

import importlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Timer
from typing import IO, Any, BinaryIO

import numpy as np

from zoo.arrays import Array

__all__ = ["Crashed", "Limits", "Refused", "Sender", "Tree", "Worker", "receive", "run", "send"]

MAX_LINE_BYTES = 1 << 16
BYTES_PER_CPU_SECOND = 1 << 24  # a thirtieth of the rate at which gzip unpacks zeros
UNKNOWN_MAPPED_BYTES = 1 << 28  # of Python with numpy, where the system does not say it
DTYPES = [f"<{kind}{size}" for kind in "fiu" for size in (2, 4, 8)] + ["|i1", "|u1", "|b1"]
# What `receive` raises, besides `Refused`, for a stream that no `Sender` wrote.
NO_STREAM = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)
# One thread, and no plugins: HDF5 would load the code that a file names.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}

Tree = dict[str, Any]  # a group: name -> group, array, numpy scalar, string or list of strings
Worker = Callable[[Path, "Sender"], None]


class Refused(Exception):
    """A file that a worker does not take; the message is one line that says why."""


class Crashed(Exception):
    """A child that ended without an answer, or had none in time; the message is one line."""

    def __init__(self, why: str, *, too_slow: bool = False) -> None:
        super().__init__(why)
        self.too_slow = too_slow


@dataclass(frozen=True)
class Limits:
    """The memory and time that a child may take, in proportion to the file that it reads."""

    memory_bytes: int  # that it maps besides Python and its libraries
    result_bytes: int  # of all arrays that it sends
    seconds: float  # on the clock, from its start to its answer
    # Of a processor: in total, and for each group, or array besides the time that its bytes take.
    # Counted from one to the next, so that a file may take as long as it is large while a library
    # that never comes back is soon given up. None: only the clock counts.
    cpu_seconds: int | None = None
    step_cpu_seconds: int = 20


# The parent


def run(worker: Worker, path: Path, limits: Limits) -> Tree:
    """Return what `worker` sends of the file at `path`, called in a child process.

    Raises:
        Refused: the worker says why it does not take the file.
        Crashed: the child died, broke off, or had no answer within `limits.seconds`.
    """
    late = Event()
    with subprocess.Popen(
        command(worker, path, limits),
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": _python_path()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:

        def stop() -> None:
            late.set()
            child.kill()

        clock = Timer(limits.seconds, stop)
        clock.start()
        tree = None
        try:
            assert child.stdout is not None
            with suppress(*NO_STREAM):
                tree = receive(child.stdout, limits.result_bytes)
            if tree is None and not child.stdout.read(1):
                child.wait()  # A child that says no more has a status; the clock still runs.
        finally:
            clock.cancel()
            child.kill()
    if tree is not None:
        return tree
    if late.is_set():
        raise Crashed(f"no answer within {limits.seconds:g} seconds", too_slow=True)
    raise Crashed(f"exit status {child.returncode}")


def command(worker: Worker, path: Path, limits: Limits) -> list[str]:
    """Return the command line of the child that calls `worker`."""
    program = "from zoo.sandbox import main; main()"
    name = f"{worker.__module__}:{worker.__name__}"
    arguments = [name, str(path.absolute()), json.dumps(asdict(limits))]
    return [sys.executable, "-P", "-c", program, *arguments]


def receive(stream: IO[bytes], max_bytes: int) -> Tree | None:
    """Return the tree that a stream describes, or None for a stream that breaks off.

    Arrays may take `max_bytes` together, and text, as JSON, eight times that. Raises `Refused` for
    a stream that ends with an error, and one of `NO_STREAM` for one that no `Sender` wrote.
    """
    stack: list[Tree] = [{}]
    text_bytes = 8 * max_bytes + MAX_LINE_BYTES  # JSON may take six bytes for one
    while (line := stream.readline(MAX_LINE_BYTES)).endswith(b"\n"):
        match json.loads(line):
            case {"open": str(name)}:
                stack[-1][name] = {}
                stack.append(stack[-1][name])
            case {"close": True}:
                stack.pop()
            case {"array": str(name), "dtype": str(dtype), "shape": [*shape]} if dtype in DTYPES:
                max_bytes -= math.prod(shape) * np.dtype(dtype).itemsize
                if max_bytes < 0:
                    return None
                array = np.empty(shape, dtype)
                target = array.reshape(-1).view(np.uint8).data
                # A pipe and a BytesIO have readinto, which typeshed's IO has not.
                if array.size and stream.readinto(target) != array.nbytes:  # type: ignore[attr-defined]
                    return None
                stack[-1][name] = array if shape else array[()]
            case {"text": str(name), "shape": [*shape], "bytes": int(size)}:
                text_bytes -= size
                if size < 0 or text_bytes < 0:
                    return None
                strings = json.loads(stream.read(size))
                stack[-1][name] = strings if shape else strings[0]
                if len(shape) > 1:
                    stack[-1][name] = np.array(strings, object).reshape(shape).tolist()
            case {"error": str(why)}:
                raise Refused(why)
            case {"end": True}:
                return stack[0]
    return None


def _python_path() -> str:
    """Return the PYTHONPATH by which a child finds this package, wherever it lies."""
    ours, theirs = str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH")
    return f"{ours}{os.pathsep}{theirs}" if theirs else ours


# The child


class Sender:
    """Writes groups, arrays and text to the parent's stream; `begin` is called before each."""

    def __init__(self, out: BinaryIO, begin: Callable[[int], None] = lambda size: None) -> None:
        self.begin = begin  # with the number of bytes that are about to be read
        self._out = out

    @contextmanager
    def group(self, name: str) -> Iterator[None]:
        """Make what is sent inside the `with` block members of a group."""
        self.begin(0)
        self._line({"open": name})
        yield
        self._line({"close": True})

    def array(self, name: str, array: Array) -> None:
        """Send numbers of at most 64 bits, of any byte order."""
        elements = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        self._line({"array": name, "dtype": elements.dtype.str, "shape": array.shape})
        self._out.write(elements.data if elements.size else b"")

    def text(self, name: str, strings: list[str], shape: tuple[int, ...]) -> None:
        """Send the strings of an array of `shape`, the last axis first; `()` for a single one."""
        packed = json.dumps(strings).encode()
        self._line({"text": name, "shape": shape, "bytes": len(packed)})
        self._out.write(packed)

    def end(self, error: str | None = None) -> None:
        """End the stream, with one line that says why if there is no result."""
        self._line({"end": True} if error is None else {"error": error[: MAX_LINE_BYTES // 16]})
        self._out.flush()

    def _line(self, header: dict[str, Any]) -> None:
        self._out.write(json.dumps(header).encode() + b"\n")


def send(
    worker: Worker, path: Path, out: BinaryIO, begin: Callable[[int], None] = lambda size: None
) -> None:
    """Call `worker`, and write what it sends to `out`, or why it refuses the file."""
    sender = Sender(out, begin)
    try:
        worker(path, sender)
    except Refused as error:
        sender.end(str(error))
    else:
        sender.end()


def limit_this_process(limits: Limits) -> Callable[[int], None]:
    """Limit the memory and time of this process where the system can.

    Return a function that gives it time for the next group, or for an array of so many bytes.
    """
    try:
        import resource
    except ImportError:  # on Windows, where the parent's clock and bounds remain
        return lambda size: None

    def limit(kind: int, most: int, *, for_good: bool = True) -> None:
        _, hard = resource.getrlimit(kind)
        if hard != resource.RLIM_INFINITY:
            most = min(most, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (most, most if for_good else hard))

    def begin(size: int) -> None:
        if limits.cpu_seconds is not None:
            spent = int(sum(os.times()[:2]))
            step = limits.step_cpu_seconds + size // BYTES_PER_CPU_SECOND
            limit(resource.RLIMIT_CPU, min(limits.cpu_seconds, spent + step), for_good=False)

    limit(resource.RLIMIT_AS, _mapped_bytes() + limits.memory_bytes)
    limit(resource.RLIMIT_CORE, 0)
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)
    begin(0)
    return begin


def _mapped_bytes() -> int:
    """Return how much memory this process has mapped."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return UNKNOWN_MAPPED_BYTES
    return pages * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Call the worker that the command line names, as the child process."""
    name, path, limits = sys.argv[1:]
    # What a library prints must not get into the stream.
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    module, function = name.split(":")
    worker: Worker = getattr(importlib.import_module(module), function)
    begin = limit_this_process(Limits(**json.loads(limits)))
    send(worker, Path(path), out, begin)
