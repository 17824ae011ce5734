"""The errors that a user may meet, and the words of their messages.

Every message is one line: what was given, what is valid, what to do.
"""

import difflib
from collections.abc import Iterable, Sequence

__all__ = [
    "ConfigError",
    "ExportError",
    "HubError",
    "InputError",
    "UnknownName",
    "VerificationError",
    "WeightsError",
    "ZooError",
    "first_few",
    "first_line",
    "nearest",
    "one_line",
]


class ZooError(Exception):
    """The base of every error that the zoo raises on purpose."""


class UnknownName(ZooError):
    """A model name that does not exist."""


class ConfigError(ZooError, ValueError):
    """A configuration that describes no network."""


class InputError(ZooError, ValueError):
    """An image, tensor or data set that the model cannot take."""


class WeightsError(ZooError):
    """Weights that are missing, damaged, or do not belong to the model."""


class HubError(WeightsError):
    """A request that the Hub did not grant: a file it did not give, or files it did not take."""


class ExportError(ZooError):
    """A model that cannot be exported."""


class VerificationError(ExportError):
    """An export that is not the model."""


def first_line(error: BaseException) -> str:
    """Return the first line of a foreign error's message, or the error's type if it has none."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def one_line(error: BaseException, max_characters: int = 300) -> str:
    """Return a foreign error's whole message as one line, or the error's type if it has none."""
    return " ".join(str(error).split())[:max_characters] or type(error).__name__


def first_few(values: Sequence[object], most: int) -> str:
    """Return the first values, `most` at most, separated by commas."""
    return ", ".join([*map(str, values[:most]), *["..."] * (len(values) > most)])


def nearest(word: str, words: Iterable[str]) -> str:
    """Return the end of a message that names up to three `words` like `word`, if there are any."""
    near = difflib.get_close_matches(word, list(words), n=3)
    return f"; nearest are {', '.join(near)}" if near else ""
