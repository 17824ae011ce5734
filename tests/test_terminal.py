"""Text for terminals of any encoding and width."""

import io
import sys

import pytest

from zoo import cli, terminal


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_text_goes_out_under_any_encoding(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert cli.main(["energy", "danet20-t4.fmnist", "--first", "1", "--device", "45nm-fp32"]) == 0
    assert cli.main(["info", "\u00b1\u2013\u65e5\udcff"]) == 2
    for stream in (out, err):
        stream.flush()
    text = out.buffer.getvalue().decode(encoding)
    assert ("uJ" if encoding == "ascii" else "\u00b5J") in text
    assert ("+--" if encoding == "ascii" else "\u00b1") in err.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("columns", ["1", "60", "0", "x"])
def test_no_name_and_no_column_is_cut(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert cli.main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(
        word in out for word in ("danet20-t4.fmnist", "danet20-t4.cifar10", "provenance", "278,106")
    )
    table = terminal.table("a" * 30, "[b]")
    terminal.add_row(table, "x" * 70, "[/b] y")
    terminal.show(table, terminal.console())
    out = capsys.readouterr().out
    assert "x" * 70 in out and "[/b]" in out and "\x1b" not in out
