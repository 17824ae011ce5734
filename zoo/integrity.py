"""Is a file what it has to be? The sha256 of its bytes, computed once and remembered by the file's
identity. Imports no torch.

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
    "mismatch",
    "remembered_sha256",
    "sha256",
    "state_folder",
]

# A file changed twice within one tick of the file system's clock keeps its times, so a file this
# young is not remembered.
TICK = 50_000_000  # nanoseconds


def sha256(path: Path) -> str:
    """Of the file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_sha256(path: Path) -> str:
    """As `sha256`, without reading a file that was read before and has kept its path, inode, size
    and times.
    """
    identity = _identity(path)
    mark = state_folder() / "sha256" / hashlib.sha256(repr(identity).encode()).hexdigest()
    with suppress(OSError, UnicodeDecodeError):
        known = mark.read_text(encoding="ascii")
        if re.fullmatch("[0-9a-f]{64}", known):
            return known
    found = sha256(path)
    if _identity(path) == identity and time.time_ns() - path.stat().st_ctime_ns > TICK:
        with suppress(OSError):  # no place to remember it
            write_text(mark, found)
    return found


def digest(files: tuple[Path, ...]) -> str:
    """One sha256 for the weights of a model: the file's own, or that of its shards' in order; empty
    for random weights.
    """
    digests = [remembered_sha256(path) for path in files]
    return (
        "".join(digests)
        if len(digests) < 2
        else hashlib.sha256("".join(digests).encode()).hexdigest()
    )


def check_files(
    folder: Path, files: Mapping[str, FileSpec], *, remedy: str, again: bool = False
) -> None:
    """Every file against its size and sha256. The first that differs is moved aside and named by a
    `WeightsError`.

    `remedy` ends the message: how to get the file again. With `again` nothing remembered is
    trusted.
    """
    for file, spec in files.items():
        path = folder / file
        if not path.is_file():
            raise WeightsError(f"{path} is missing: {remedy}")
        found = sha256(path) if again else remembered_sha256(path)
        if found != spec.sha256:
            size = path.stat().st_size
            sizes = f" and {spec.bytes} bytes instead of {size}" if size != spec.bytes else ""
            raise mismatch(path, "sha256", found, f"{spec.sha256}{sizes}", remedy)


def mismatch(path: Path, kind: str, found: str, expected: str, remedy: str) -> WeightsError:
    """The error for a file that is not what it has to be, after it was moved out of the way of a
    good copy. Nothing is deleted.
    """
    real = path.resolve()  # in the Hub's cache, a blob
    aside = real.with_name(f"{real.name}.bad-{found[:8]}")
    try:
        real.rename(aside)
        moved = f"moved to {aside}"
    except OSError as error:
        moved = f"it could not be moved aside ({error.strerror})"
    return WeightsError(f"{path} has {kind} {found}, expected {expected}; {moved}: {remedy}")


def state_folder() -> Path:
    """Where the zoo remembers what it has verified."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "danet-zoo"


def _identity(path: Path) -> tuple[object, ...]:
    at = path.stat()
    return str(path.resolve()), at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns
