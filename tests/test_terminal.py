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


def test_no_cell_is_cut_beside_a_column_that_is_left_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    table = terminal.table("layer", "empty", "share", "so far")
    for column in table.columns:
        column.no_wrap = True
    terminal.add_row(table, "stem", "", "16.0 %", "100.0 %")
    terminal.show(table, terminal.console())
    out = capsys.readouterr().out
    assert "16.0 %" in out and "100.0 %" in out and "empty" not in out


def test_a_table_too_wide_for_a_terminal_is_a_paragraph_for_each_row(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays a table in a pipe, which nobody looks at."""

    def shown() -> list[str]:
        table = terminal.table("name", "words", "empty", "number", title="title")
        terminal.add_row(table, "[a]" + "x" * 30, "some words that go on, one-by-one", "", "12.5 k")
        terminal.show(table, terminal.console())
        return capsys.readouterr().out.splitlines()

    monkeypatch.setenv("COLUMNS", "40")
    assert shown() == [
        "title",
        "[a]" + "x" * 30,
        "  words: some words that go on,",
        "    one-by-one",
        "  number: 12.5 k",
        "",
    ]
    monkeypatch.delenv("COLUMNS")
    lines = shown()
    assert any("[a]" in line and "12.5 k" in line for line in lines)
    assert not any("empty" in line for line in lines)


@pytest.mark.parametrize("command", ["check", "energy"])
def test_no_report_is_wider_than_the_terminal(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    options = {"check": ["--target", "speck2e"], "energy": ["--first", "1"]}[command]
    cli.main([command, "danet20-t4.fmnist", *options])
    out = capsys.readouterr().out
    assert "stage1_block0_conv1" in out and max(map(len, out.splitlines())) <= 60


def test_progress_without_a_terminal_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0, 10, 20, 30, 39, 40])
    with terminal.progress() as bar:
        monkeypatch.setattr("zoo.terminal.time.monotonic", lambda: next(clock))
        move = terminal.advance(bar, "images")
        move(500, 2000)
        move(1000, 2000, {"loss": 0.5})
        move(1500, 2000)
        monkeypatch.undo()
    assert capsys.readouterr() == ("", "images: 1,000 of 2,000  loss 0.500\n")
