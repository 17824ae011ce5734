"""Files that are written whole or not at all, and the readers of JSON and TOML files."""

import json
import tomllib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.errors import ConfigError, ZooError, first_line

__all__ = ["read_json", "read_json_if_whole", "read_toml", "replacing", "write_text"]

MAX_JSON_BYTES = 2**26  # an index of a million tensors


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to, which becomes `path` if no error is raised.

    After an error the temporary file is deleted, and what lay at `path` stays. Readers, and other
    processes that write the same file, see one whole file or the other.
    """
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.touch()
    mode = temporary.stat().st_mode
    try:
        yield temporary
        temporary.chmod(mode)  # safetensors makes its files unreadable to others
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all, and create the folders that lead to it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path, error: type[ZooError] = ConfigError) -> dict[str, Any]:
    """Return the object that a JSON file holds. Raises `error` for anything else."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise error(
                f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB: it cannot be what its name says"
            )
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise error(f"{path} does not exist") from None
    except OSError as cause:
        raise error(f"{path} cannot be read: {cause.strerror}") from None
    except (ValueError, RecursionError) as cause:
        raise error(f"{path} is not JSON: {first_line(cause)}") from None
    if not isinstance(values, dict):
        raise error(f"{path} holds no JSON object")
    return values


def read_json_if_whole(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds, empty if the file is missing, damaged, or none."""
    try:
        return read_json(path)
    except ConfigError:
        return {}


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return the tables of a TOML file, which a message calls `what`. Raises `ConfigError`."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read as {what}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as {what}: {first_line(error)}") from None
