"""What can go wrong for a user.

Every message is one line: what was given, what is valid, what to do.
"""

__all__ = [
    "ConfigError",
    "ExportError",
    "HubError",
    "InputError",
    "UnknownName",
    "VerificationError",
    "WeightsError",
    "ZooError",
    "first_line",
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
    """What the Hub was asked for and did not give, or did not take."""


class ExportError(ZooError):
    """A model that cannot be exported."""


class VerificationError(ExportError):
    """An export that is not the model."""


def first_line(error: BaseException) -> str:
    """Return the first line of what another library says, or the kind of its error if it says nothing."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
