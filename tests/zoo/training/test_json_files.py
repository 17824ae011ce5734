"""A JSON file that is missing or damaged holds nothing."""

from pathlib import Path

import pytest

from zoo.training.json_files import read_object


@pytest.mark.parametrize(
    ("content", "values"),
    [(b'{"a": 1}', {"a": 1}), (None, {}), (b"", {}), (b"{", {}), (b"[1]", {}), (b"\xff", {})],
    ids=str,
)
def test_an_object_is_read_or_empty(
    content: bytes | None, values: dict[str, int], tmp_path: Path
) -> None:
    path = tmp_path / "file.json"
    if content is not None:
        path.write_bytes(content)
    assert read_object(path) == values
