"""Ctrl-C ends a command with one line, and a status that says so, wherever it comes."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["handle_interrupts", "interruptible"]


class _Handler:
    """A handler of SIGINT that `handle_interrupts` installed."""

    def __init__(self, handle: Callable[[], None]) -> None:
        self.handle = handle

    def __call__(self, *_: Any) -> None:
        self.handle()


@contextmanager
def handle_interrupts(handle: Callable[[], None]) -> Iterator[None]:
    """Let `handle` answer SIGINT within the block.

    A handler that is not Python's own, of a program that called this one, keeps its place.
    """
    before = signal.getsignal(signal.SIGINT)
    ours = before is signal.default_int_handler or isinstance(before, _Handler)
    if not ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, _Handler(handle))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `KeyboardInterrupt` after an interrupt within the block, whatever became of it there.

    Some libraries catch it while they are imported, and fail later in words of their own.
    """
    interrupts: list[KeyboardInterrupt] = []

    def note() -> None:
        interrupts.append(KeyboardInterrupt())
        raise interrupts[-1]

    with handle_interrupts(note):
        try:
            yield
        except Exception as error:
            if interrupts:
                raise KeyboardInterrupt from error
            raise
        if interrupts:
            raise KeyboardInterrupt
