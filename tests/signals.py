"""Signals of processes that tests start."""

import signal

__all__ = ["interruptible"]


def interruptible() -> None:
    """Let a new process take SIGINT as from a terminal. Tests started in the background inherit
    that it is ignored.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
