"""The sha256 of files, computed once and remembered by a file's identity. Imports no torch.

What is remembered lies in `$XDG_CACHE_HOME/danet-zoo` (`~/.cache/danet-zoo`). Losing it costs time,
nothing else.
"""

import hashlib
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from zoo.errors import WeightsError
from zoo.files import write_text
from zoo.manifest import FileSpec

__all__ = [
    "check_files",
    "digest",
    "file_spec",
    "mismatch",
    "remembered_sha256",
    "sha256",
    "state_folder",
]

# A file that is changed twice within one tick of the file system's clock keeps its times, so a file
# this young is not remembered.
CLOCK_TICK_NANOSECONDS = 50_000_000


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_sha256(path: Path) -> str:
    """Return what `sha256` does, and read the file only if it is new or changed.

    A file that was read before and has kept its path, inode, size and times is not read again.
    """
    identity = _identity(path)
    memory = state_folder() / "sha256" / hashlib.sha256(repr(identity).encode()).hexdigest()
    with suppress(OSError, UnicodeDecodeError):
        remembered = memory.read_text(encoding="ascii")
        if re.fullmatch("[0-9a-f]{64}", remembered):
            return remembered
    computed = sha256(path)
    age = time.time_ns() - path.stat().st_ctime_ns
    if _identity(path) == identity and age > CLOCK_TICK_NANOSECONDS:
        with suppress(OSError):  # without a place to remember it, it is computed again
            write_text(memory, computed)
    return computed


def file_spec(path: Path) -> FileSpec:
    """Return the sha256 and the size of a file as it is."""
    return FileSpec(remembered_sha256(path), path.stat().st_size)


def digest(files: tuple[Path, ...]) -> str:
    """Return one sha256 for the weights of a model.

    It is the file's own, the sha256 of the shards' digests in their order, or "" for random
    weights.
    """
    digests = [remembered_sha256(path) for path in files]
    if len(digests) < 2:
        return "".join(digests)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def check_files(
    folder: Path, files: Mapping[str, FileSpec], *, remedy: str, again: bool = False
) -> None:
    """Compare every file with its size and sha256.

    The first that differs is moved aside and named by a `WeightsError`, whose message ends with
    `remedy`: how to get the file again. With `again` nothing remembered is trusted.
    """
    for file, spec in files.items():
        path = folder / file
        if not path.is_file():
            raise WeightsError(f"{path} is missing: {remedy}")
        actual = sha256(path) if again else remembered_sha256(path)
        if actual != spec.sha256:
            size = path.stat().st_size
            sizes = f" and {spec.bytes} bytes instead of {size}" if size != spec.bytes else ""
            raise mismatch(path, "sha256", actual, f"{spec.sha256}{sizes}", remedy)


def mismatch(path: Path, kind: str, actual: str, expected: str, remedy: str) -> WeightsError:
    """Move a file that is not what it has to be out of the way, and return the error that says so.

    `kind` names the digest that differs. Nothing is deleted, and a good copy can take the file's
    place.
    """
    real = path.resolve()  # in the Hub's cache, a blob
    aside = real.with_name(f"{real.name}.bad-{actual[:8]}")
    try:
        real.rename(aside)
        moved = f"moved to {aside}"
    except OSError as error:
        moved = f"it could not be moved aside ({error.strerror})"
    return WeightsError(f"{path} has {kind} {actual}, expected {expected}; {moved}: {remedy}")


def state_folder() -> Path:
    """Return the folder in which the zoo remembers what it has verified."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "danet-zoo"


def _identity(path: Path) -> tuple[object, ...]:
    """Return what changes when a file is replaced or written to."""
    stat = path.stat()
    times = stat.st_mtime_ns, stat.st_ctime_ns
    return str(path.resolve()), stat.st_dev, stat.st_ino, stat.st_size, *times
