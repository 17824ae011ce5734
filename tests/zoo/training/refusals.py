"""The check that something is refused in one line."""

from collections.abc import Callable
from typing import Any

import pytest

from zoo.errors import InputError


def refused(text: str, call: Callable[..., Any], *args: Any, **options: Any) -> None:
    """Check that `call` raises an `InputError` of one line that holds `text`."""
    with pytest.raises(InputError) as error:
        call(*args, **options)
    assert text in str(error.value) and "\n" not in str(error.value)
