"""Faults of a `HubServer`: what happens instead of an answer.

A fault takes the connection's handler. If it returns False, the server goes on to answer.
"""

import threading
from collections.abc import Callable

from support.hub_server import Handler

__all__ = ["changed", "cut", "stalled", "status", "times"]


def status(code: int, error: str = "") -> Callable[[Handler], None]:
    """Answer with this status and the Hub's code of an error."""
    return lambda handler: handler.fail(code, error, "as the test wants it")


def cut(after: int | None) -> Callable[[Handler], None]:
    """Close the connection before an answer (None), or after so many bytes of a large file.

    The length of the whole file is announced before.
    """

    def fault(handler: Handler) -> None:
        handler.close_connection = True
        if after is not None:
            handler.send_response(200)
            data = handler.large_file()
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data[:after])
            handler.wfile.flush()
        handler.connection.close()

    return fault


def changed(change: Callable[[bytes], bytes]) -> Callable[[Handler], bool]:
    """Answer with other content, whose own length is announced."""

    def fault(handler: Handler) -> bool:
        handler.change = change
        return False

    return fault


def stalled(until: threading.Event) -> Callable[[Handler], bool]:
    """Send nothing before the event is set, then answer."""

    def fault(_: Handler) -> bool:
        until.wait()
        return False

    return fault


def times(n: int, fault: Callable[[Handler], bool | None]) -> Callable[[Handler], bool | None]:
    """Let a fault happen the first `n` times only."""
    left = iter(range(n))
    return lambda handler: fault(handler) if next(left, None) is not None else False
