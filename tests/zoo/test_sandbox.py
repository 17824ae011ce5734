"""A child process that reads foreign files: what comes back of it, and how it ends."""

import os
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo import sandbox
from zoo.sandbox import Crashed, Limits, Refused, Sender, receive, run, send

LIMITS = Limits(memory_bytes=1 << 29, result_bytes=1 << 20, seconds=60)
NUMBERS = [
    np.arange(6, dtype=">i2").reshape(2, 3),
    np.array(2.5),
    np.zeros((0, 3)),
    np.array([True]),
]


def everything(path: Path, sender: Sender) -> None:
    print("a library that prints")
    with sender.group("numbers"):
        for i, array in enumerate(NUMBERS):
            sender.array(str(i), array)
    sender.text("one", [path.read_text()], ())
    sender.text("many", ["a", "b", "c", "\u00e9\n"], (2, 2))


def refusing(path: Path, sender: Sender) -> None:
    raise Refused("is not to be read")


def dying(path: Path, sender: Sender) -> None:
    sender.array("half", np.zeros(3))
    os.abort()


def sleeping(path: Path, sender: Sender) -> None:
    time.sleep(600)


def greedy(path: Path, sender: Sender) -> None:
    sender.array("much", np.ones(1 << 28))


def talkative(path: Path, sender: Sender) -> None:
    for i in range(3):
        sender.array(str(i), np.zeros(1 << 16))


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # The child finds this module as these tests do.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    (tmp_path / "file").write_text("content")
    return tmp_path / "file"


def test_arrays_and_text_come_back(path: Path) -> None:
    tree = run(everything, path, LIMITS)
    assert tree["one"] == "content" and tree["many"] == [["a", "b"], ["c", "\u00e9\n"]]
    for i, array in enumerate(NUMBERS):
        received = tree["numbers"][str(i)]
        assert received.dtype.kind == array.dtype.kind and np.shape(received) == array.shape
        assert np.array_equal(received, array)


def test_a_refusal_comes_back_in_its_own_words(path: Path) -> None:
    with pytest.raises(Refused, match=r"^is not to be read$"):
        run(refusing, path, LIMITS)


@pytest.mark.parametrize(("worker", "status"), [(dying, -6), (greedy, 1)])
def test_a_child_that_dies_is_told_by_its_status(worker: Any, status: int, path: Path) -> None:
    with pytest.raises(Crashed, match=f"^exit status {status}$") as raised:
        run(worker, path, LIMITS)
    assert not raised.value.too_slow


def test_a_child_that_is_too_slow_is_killed(path: Path) -> None:
    limits = Limits(memory_bytes=1 << 29, result_bytes=1 << 20, seconds=1)
    with pytest.raises(Crashed, match=r"^no answer within 1 seconds$") as raised:
        run(sleeping, path, limits)
    assert raised.value.too_slow


def test_results_are_bounded(path: Path) -> None:
    out = BytesIO()
    send(talkative, path, out)
    for most, whole in ((3 << 19, True), ((3 << 19) - 1, False)):
        out.seek(0)
        assert (receive(out, most) is not None) == whole
    with pytest.raises(Crashed):
        run(talkative, path, LIMITS)


@pytest.mark.parametrize(
    "line",
    [
        b'{"array": "x", "dtype": "<f4", "shape": [1267650600228229401496703205376, 0]}',
        b'{"text": "x", "shape": [1], "bytes": 1000000000000}',
        b'{"text": "x", "shape": [1], "bytes": -1}',
        b"[" * 60_000,
    ],
)
def test_a_stream_of_somebody_else_is_none(line: bytes) -> None:
    try:
        assert receive(BytesIO(line + b"\n"), 1 << 20) is None
    except sandbox.NO_STREAM:
        pass
