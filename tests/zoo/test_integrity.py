"""sha256 of files: remembered by identity, compared, and what becomes of a file that differs."""

import os
import time
from pathlib import Path

import pytest

from zoo import integrity
from zoo.errors import WeightsError
from zoo.integrity import check_files, digest, remembered_sha256, sha256, state_folder
from zoo.manifest import FileSpec


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is old enough to be remembered, and nothing remembered yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"weights")
    time.sleep(2 * integrity.CLOCK_TICK_NANOSECONDS / 1e9)
    return path


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read whole."""
    seen: list[Path] = []
    monkeypatch.setattr(integrity, "sha256", lambda path: seen.append(path) or sha256(path))
    return seen


def test_a_file_is_read_once(path: Path, reads: list[Path]) -> None:
    assert remembered_sha256(path) == remembered_sha256(path) == sha256(path)
    assert reads == [path]


def test_a_changed_file_is_read_again(path: Path, reads: list[Path]) -> None:
    before, at = remembered_sha256(path), path.stat()
    path.write_bytes(b"WEIGHTS")  # of the same length
    os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))  # and seemingly as old
    assert remembered_sha256(path) == sha256(path) != before


def test_a_replaced_file_is_read_again(path: Path, reads: list[Path]) -> None:
    before = remembered_sha256(path)
    other = path.with_name("other")
    other.write_bytes(b"WEIGHTS")
    other.replace(path)
    assert remembered_sha256(path) == sha256(path) != before


def test_a_file_just_written_is_not_remembered(
    path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        integrity, "CLOCK_TICK_NANOSECONDS", 10**9 * 3600
    )  # however slow the machine is
    path.write_bytes(b"more")
    remembered_sha256(path), remembered_sha256(path)
    assert reads == [path, path]


def test_what_is_remembered_may_be_lost_or_nonsense(path: Path) -> None:
    remembered_sha256(path)
    (mark,) = (state_folder() / "sha256").iterdir()
    for nonsense in (b"", b"no sha256", b"\xff" * 64):
        mark.write_bytes(nonsense)
        assert remembered_sha256(path) == sha256(path)


def test_nowhere_to_remember(
    path: Path, reads: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # a file
    assert remembered_sha256(path) == remembered_sha256(path) == sha256(path)
    assert reads == [path, path]


def test_digest(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"more")
    assert digest(()) == "" and digest((path,)) == sha256(path)
    assert len({digest((path,)), digest((path, other)), digest((other, path))}) == 3


def test_check_files(path: Path) -> None:
    folder, files = path.parent, {path.name: FileSpec(sha256(path), 7)}
    check_files(folder, files, remedy="")
    check_files(folder, files, remedy="", again=True)
    path.write_bytes(b"WEIGHTS")
    found = sha256(path)
    with pytest.raises(WeightsError) as error:
        check_files(folder, files, remedy="ask for another")
    aside = path.with_name(f"model.safetensors.bad-{found[:8]}")
    assert str(error.value) == (
        f"{path} has sha256 {found}, expected {files[path.name].sha256}; "
        f"moved to {aside}: ask for another"
    )
    assert aside.read_bytes() == b"WEIGHTS" and not path.exists()
    with pytest.raises(WeightsError, match="is missing: ask for another"):
        check_files(folder, files, remedy="ask for another")


def test_check_files_says_both_sizes(path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected 0{64} and 6 bytes instead of 7; moved to"):
        check_files(path.parent, {path.name: FileSpec("0" * 64, 6)}, remedy="")


def test_check_files_trusts_nothing_when_asked_again(path: Path) -> None:
    files = {path.name: FileSpec(remembered_sha256(path), 7)}
    (mark,) = (state_folder() / "sha256").iterdir()
    path.write_bytes(b"WEIGHTS")
    time.sleep(2 * integrity.CLOCK_TICK_NANOSECONDS / 1e9)
    remembered_sha256(path)
    for later in (state_folder() / "sha256").iterdir():
        later.write_text(mark.read_text())  # a memory that lies
    check_files(path.parent, files, remedy="")
    with pytest.raises(WeightsError, match="sha256"):
        check_files(path.parent, files, remedy="", again=True)


def test_a_bad_file_that_cannot_be_moved(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    aside = path.with_name(f"{path.name}.bad-{sha256(path)[:8]}")
    aside.mkdir()
    with pytest.raises(WeightsError, match="it could not be moved aside"):
        check_files(path.parent, {path.name: FileSpec("0" * 64, 7)}, remedy="")
    assert path.exists()
