"""Files that are whole or not there: what is written is seen complete under its name, or not at all."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["replacing", "write_text"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a name in the folder of `path` to write to; the file becomes `path` if all goes well.

    If not, it is deleted and what lay at `path` stays. Readers, and other processes that write the
    same, see one whole file or the other.
    """
    file = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")  # others may write the same
    file.touch()
    mode = file.stat().st_mode
    try:
        yield file
        file.chmod(mode)  # safetensors makes its files unreadable to others
        file.replace(path)
    finally:
        file.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole text file, and the folders that lead to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write_text(text, encoding="utf-8")
