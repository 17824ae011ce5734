"""Functions that print for commands and check where they write."""

import json
import sys
from pathlib import Path
from typing import Any

from zoo.errors import InputError

__all__ = ["check_output_file", "check_output_folder", "note", "print_json"]


def note(text: str) -> None:
    """Print what a person has to know beside the result, as a line on stderr."""
    print(f"zoo: note: {text}", file=sys.stderr)


def print_json(value: Any) -> int:
    """Print `value` as JSON and return the exit status of success."""
    print(json.dumps(value, indent=2))
    return 0


def check_output_folder(option: str, path: Path | None) -> None:
    """Raise `InputError` if a file lies where `option` names a folder to write to."""
    if path is not None and path.exists() and not path.is_dir():
        raise InputError(f"{path} is a file: {option} names a folder")


def check_output_file(option: str, path: Path | None) -> None:
    """Raise `InputError` if a folder lies where `option` names a file to write."""
    if path is not None and path.is_dir():
        raise InputError(f"{path} is a folder: {option} names a file")
