"""Checks of what a user reads when something is refused."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

__all__ = ["check_message", "refused", "refused_command"]

MAX_MESSAGE_CHARACTERS = 1000
E = TypeVar("E", bound=Exception)


@contextmanager
def refused(kind: type[E], *parts: str | re.Pattern[str]) -> Iterator[pytest.ExceptionInfo[E]]:
    """Expect an error of this kind whose message is one line that holds every part.

    A part is the text itself, or a pattern from `re.compile` that is searched for. The error is
    given as by `pytest.raises`:

        with refused(InputError, "image.png", "not an image") as error:
            read_image(path, data)
        assert str(error.value).endswith("...")
    """
    with pytest.raises(kind) as error:
        yield error
    check_message(str(error.value), *parts)


def refused_command(
    capsys: pytest.CaptureFixture[str], status: int, *parts: str | re.Pattern[str]
) -> None:
    """Check that a command ended with status 2 and one line that begins with `zoo: `.

    What stands before that last line of stderr, such as progress bars, is not looked at.
    """
    message = capsys.readouterr().err.splitlines()[-1]
    assert status == 2
    assert message.startswith("zoo: "), message
    check_message(message, *parts)


def check_message(message: str, *parts: str | re.Pattern[str]) -> None:
    """Check that a message is one line of reasonable length that holds every part."""
    assert len(message.splitlines()) == 1, message
    assert len(message) < MAX_MESSAGE_CHARACTERS, message
    for part in parts:
        held = part in message if isinstance(part, str) else part.search(message)
        assert held, f"{part!r} is not in {message!r}"
