"""Signals of processes that tests start."""

import signal

__all__ = ["interruptible"]


def interruptible() -> None:
    """Let a new process end at SIGINT, as one started from a terminal does.

    Tests that run in the background inherit that the signal is ignored.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
