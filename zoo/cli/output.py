"""Functions that print for commands and check where they write."""

import json
import sys
from pathlib import Path
from typing import Any

from zoo.errors import InputError

__all__ = ["check_output_folder", "check_output_page", "note", "print_json"]


def note(text: str) -> None:
    """Print what a person has to know beside the result, as a line on stderr."""
    print(f"zoo: note: {text}", file=sys.stderr)


def print_json(value: Any) -> int:
    """Print `value` as JSON and return the exit status of success."""
    print(json.dumps(value, indent=2))
    return 0


def check_output_folder(option: str, path: Path | None) -> None:
    """Raise `InputError` if a file lies where `option` names a folder to write to."""
    for place in (path, *path.parents) if path else ():
        if place.exists() and not place.is_dir():
            raise InputError(f"{place} is a file: {option} names a folder")


def check_output_page(option: str, path: Path | None) -> None:
    """Raise `InputError` where the file that `option` names is no page, or a folder lies there."""
    if path is None:
        return
    if path.is_dir():
        raise InputError(f"{path} is a folder: {option} names a file")
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{option} {path} is no page: give a name that ends in .html")
