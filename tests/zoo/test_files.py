"""A file is seen whole or not at all when it is written; a damaged one is refused in one line."""

import os
import stat
from pathlib import Path

import pytest

from zoo.errors import ConfigError, WeightsError, first_line, one_line
from zoo.files import read_json, read_json_if_whole, read_toml, replacing, write_text


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


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "does not exist"),
        (b"", "is not JSON: Expecting value"),
        (b"{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[1]", "holds no JSON object"),
        (b"\xff", "is not JSON"),
    ],
    ids=str,
)
def test_what_is_no_json_object_is_refused_or_empty(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    for kind in (ConfigError, WeightsError):
        with pytest.raises(kind) as error:
            read_json(path, kind)
        assert f"{path} {said}" in str(error.value) and "\n" not in str(error.value)
    assert read_json_if_whole(path) == {}


def test_a_json_object_and_a_toml_table_are_read(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text('{"a": 1}')
    (tmp_path / "file.toml").write_text("a = 1")
    assert read_json(tmp_path / "file.json") == read_json_if_whole(tmp_path / "file.json")
    assert read_toml(tmp_path / "file.toml", "a plan") == {"a": 1}
    for path in (tmp_path / "none.toml", tmp_path / "file.json"):
        with pytest.raises(ConfigError, match=r"(none.toml|file.json) cannot be read as a plan: "):
            read_toml(path, "a plan")
