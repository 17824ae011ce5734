"""Options of all commands: a list given twice adds up, and a second single value is refused.
Options may stand before, after and among names and files.

`Parser` parses the `zoo` command and all of its subcommands, so that no option can forget it. What
was given is kept in `args.given`, by which `zoo.cli.common.only_for` tells an option that was given
from one that has its default.
"""

import argparse
from typing import Any

from zoo.errors import InputError

__all__ = ["Assign", "Parser", "Store"]


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose arguments are stored by `Store` unless they name another action."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.register("action", None, Store)
        self.set_defaults(given={})
        self._intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse options first and then the rest, without which `classify MODEL --json IMAGE` would
        not know the image.
        """
        # called by argparse for one of the two, or for the command's name
        if self._intermixed or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._intermixed = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False


class Store(argparse.Action):
    """Store the value of an argument; an option may be given again where `merge` says so."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if self.option_strings:
            # as of a variable of the shell that is not set; a folder would be the current one
            if values == "":
                raise InputError(
                    f"{self.option_strings[-1]} is empty: give it a value, or leave it out"
                )
            values = self.merge(namespace.given.get(self.dest), values)
            namespace.given = namespace.given | {self.dest: values}
        setattr(namespace, self.dest, values)

    def merge(self, before: Any, values: Any) -> Any:
        """The value of an option that now has `values`; `before` is None, or what it was given
        before.

        Lists are joined. Raises `InputError` for a second single value.
        """
        if before is None:
            return values
        if not isinstance(values, list):
            raise _given_twice(self.option_strings[-1], before, values)
        return before + values


class Assign(Store):
    """Store `KEY=VALUE ...` as a dict of strings. Raises `InputError` for another form, or a key
    that is given twice.
    """

    def merge(self, before: dict[str, str] | None, values: list[str]) -> dict[str, str]:
        """The assignments of `before` and `values` together."""
        option, assigned = self.option_strings[-1], dict(before or {})
        for item in values:
            key, equals, value = item.partition("=")
            if not key or not equals:
                raise InputError(
                    f"{option} {item!r} is not KEY=VALUE: put an equals sign between a name and its value"
                )
            if key in assigned:
                raise _given_twice(f"{option} {key}", assigned[key], value)
            assigned[key] = value
        return assigned


def _given_twice(what: str, first: object, second: object) -> InputError:
    return InputError(f"{what} is given twice, as {str(first)!r} and {str(second)!r}: give it once")
