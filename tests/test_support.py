"""The helper that checks refusals fails where a refusal is not as it has to be."""

import re
import sys

import pytest
from support.errors import refused, refused_command

from zoo.errors import ConfigError, InputError


def refuse(message: str) -> None:
    raise InputError(message)


def test_the_error_is_handed_on() -> None:
    with refused(InputError, "no image", re.compile(r"cat\.\w+")) as error:
        refuse("cat.txt is no image")
    assert str(error.value) == "cat.txt is no image"


@pytest.mark.parametrize("message", ["", "another text", "no image\nat all", "no image" * 200])
def test_another_text_more_lines_or_too_long_a_line_fail(message: str) -> None:
    with pytest.raises(AssertionError), refused(InputError, "no image"):
        refuse(message)


def test_a_pattern_that_is_not_found_fails() -> None:
    with pytest.raises(AssertionError, match="is not in"), refused(InputError, re.compile("^no")):
        refuse("this is no image")


def test_another_kind_of_error_is_let_through() -> None:
    with pytest.raises(InputError), refused(ConfigError, "no image"):
        refuse("no image")


def test_no_error_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"), refused(InputError):
        pass


def test_a_command_is_refused_by_status_prefix_and_text(capsys: pytest.CaptureFixture[str]) -> None:
    print("50 %\nzoo: there is no image", file=sys.stderr)
    refused_command(capsys, 2, "no image")
    for status, text, part in (
        (1, "zoo: no image", "no image"),
        (2, "no image", "no image"),
        (2, "zoo: no image", "a cat"),
    ):
        print(text, file=sys.stderr)
        with pytest.raises(AssertionError):
            refused_command(capsys, status, part)
