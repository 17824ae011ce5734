"""The parser of the command line: how options are stored, repeated and refused.

`Parser` parses the `zoo` command and all of its subcommands, so that no option can be stored in
another way. An option with a list of values may be repeated and adds up; a second single value is
refused. Options may stand before, after and among names and files.

The namespace holds `given`: for each option on the command line, by its destination, the word that
was written. It tells an option that was given from one that has its default.
"""

import argparse
import re
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NoReturn

from zoo.errors import InputError, nearest

if TYPE_CHECKING:
    from zoo.recordings import Sensor

__all__ = [
    "Assign",
    "Flag",
    "Parser",
    "Store",
    "add_alias",
    "licence",
    "positive",
    "seconds",
    "sensor",
]


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` of `Store` and `Flag`, whose usage errors are raised as `InputError`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("action", None, Store)
        self.register("action", "store_true", Flag)
        self.set_defaults(given={})
        self._intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the options first and then the names and files.

        In a single pass `classify MODEL --json IMAGE` would not accept the image.
        """
        # argparse calls this method for each of its two passes, and for the name of the command
        if self._intermixed or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._intermixed = True
        try:
            return self.parse_known_intermixed_args(self._names_first(list(args)), namespace)
        finally:
            self._intermixed = False

    def _names_first(self, words: list[str]) -> list[str]:
        """Return the words of a command line with names before options that would take them.

        `--to onnx nir NAME` names the network last: a word that is none of an option's choices, and
        like none of them, is no value of the option.
        """
        names: list[str] = []
        for action in self._actions:
            if action.nargs != "+" or action.choices is None:
                continue
            choices = [str(choice) for choice in action.choices]
            for option in set(action.option_strings) & set(words):
                second = words.index(option) + 2  # the first value is left to argparse
                values = list(takewhile(lambda w: not w.startswith("-"), words[second:]))
                # `nri` is a typing error, `net.nir` a file
                near = [w for w in values if "." not in w and get_close_matches(w, choices)]
                names += [w for w in values if w not in near]
                words = words[:second] + near + words[second + len(values) :]
        return names + words

    def error(self, message: str) -> NoReturn:
        """Raise `InputError` of one line with `message` and the command that shows the help."""
        if choice := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            near = nearest(choice[1], re.findall(r"[\w.-]+", choice[2]))
            message = message.replace(" (choose from", f"{near} (choose from")
        raise InputError(f"{' '.join(message.splitlines())}; see `{self.prog} --help`")


class Store(argparse.Action):
    """An action that stores the value of an argument.

    Raises `InputError` for an option with an empty value, or one that was given before, unless
    `merge` can join the two.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store `values`, joined with those of the same option before."""
        if self.option_strings:
            values = self._merge_with_earlier(namespace, values)
        setattr(namespace, self.dest, values)

    def merge(self, before: Any, values: Any) -> Any:
        """Return the value of an option that had the value `before`, or None if it had none.

        Lists are joined. Raises `InputError` for a second single value.
        """
        if before is None:
            return values
        if not isinstance(values, list):
            raise _given_twice(self.option_strings[-1], before, values)
        return before + values

    def _merge_with_earlier(self, namespace: argparse.Namespace, values: Any) -> Any:
        option = self.option_strings[-1]
        # a variable of the shell that is not set; an empty path would be the current folder
        if values == "":
            raise InputError(f"{option} is empty: give it a value, or leave it out")
        earlier = namespace.given.get(self.dest)
        if earlier not in (None, option):
            raise InputError(
                f"{earlier} and {option} are the same option, given twice: give it once"
            )
        _record(namespace, self)
        return self.merge(getattr(namespace, self.dest) if earlier else None, values)


class Assign(Store):
    """An action that stores `KEY=VALUE ...` as a dict of strings.

    Raises `InputError` for a value of another form, or a key that is given twice.
    """

    def merge(self, before: dict[str, str] | None, values: list[str]) -> dict[str, str]:
        """Return the assignments of `before` and `values` together."""
        option, assigned = self.option_strings[-1], dict(before or {})
        for item in values:
            key, equals, value = item.partition("=")
            if not key or not equals:
                raise InputError(
                    f"{option} {item!r} is not KEY=VALUE: "
                    "put an equals sign between a name and its value"
                )
            if key in assigned:
                raise _given_twice(f"{option} {key}", assigned[key], value)
            assigned[key] = value
        return assigned


class Flag(argparse.Action):
    """An action that stores True for an option without a value."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=False, help=help)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Store True."""
        _record(namespace, self)
        setattr(namespace, self.dest, True)


def _record(namespace: argparse.Namespace, action: argparse.Action) -> None:
    # a new dict: the one before may be the parser's default
    namespace.given = namespace.given | {action.dest: action.option_strings[-1]}


def _given_twice(option: str, first: object, second: object) -> InputError:
    return InputError(
        f"{option} is given twice, as {str(first)!r} and {str(second)!r}: give it once"
    )


def add_alias(parser: "argparse._ActionsContainer", word: str, option: argparse.Action) -> None:
    """Accept the former name `word` of an option until 1.0; the help does not show it."""
    parser.add_argument(
        word,
        dest=option.dest,
        nargs=option.nargs,
        type=option.type or str,
        choices=option.choices,
        metavar=option.metavar,
        default=argparse.SUPPRESS,  # the option has one
        help=argparse.SUPPRESS,
    )


def seconds(text: str) -> float:
    """Return the number of seconds above 0 that an option was given."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def licence(text: str) -> str:
    """Return the identifier of a licence that an option was given, as the Hub and SPDX have it."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the identifier of a licence, as mit, apache-2.0 or unknown"
        )
    return text


def positive(text: str) -> int:
    """Return the whole number above 0 that an option was given."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def sensor(text: str) -> "Sensor":
    """Return the width and height of a camera that an option was given."""
    from zoo.recordings import Sensor

    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no WIDTHxHEIGHT, as in 346x260")
    return Sensor(int(match[1]), int(match[2]))
