"""What is written is seen whole, or not at all."""

import os
import stat
from pathlib import Path

import pytest

from zoo.errors import first_line, one_line
from zoo.files import replacing, write_text


def test_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    write_text(path, "whole")
    assert path.read_text() == "whole"
    with pytest.raises(UnicodeEncodeError):
        write_text(path, "\ud800")
    assert path.read_text() == "whole" and [p.name for p in path.parent.iterdir()] == [path.name]


def test_a_file_is_as_readable_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    with replacing(tmp_path / "file") as file:
        os.close(os.open(file.with_name("private"), os.O_CREAT, 0o600))
        file.with_name("private").replace(file)  # as safetensors does
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "other")}
    assert len(modes) == 1


def test_what_another_library_says_is_one_line() -> None:
    error = ValueError("  first\n\tsecond " + "x" * 400)
    assert first_line(error) == "first" and one_line(error).startswith("first second xx")
    assert len(one_line(error)) == 300 and len(one_line(error, 20)) == 20
    assert first_line(ValueError()) == one_line(ValueError(" \n")) == "ValueError"
