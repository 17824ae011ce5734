"""Records: frozen dataclasses that are filled from the plain values of TOML and JSON.

The annotations of a record say what is valid:

    @dataclass(frozen=True)
    class Core:
        count: Annotated[int, at_least(1)]
        placement: Literal["whole", "split"]
        sizes: tuple[int, ...] = ()

    read_record(Core, {"count": 0, "placement": "whole"}, "core of speck")
    # RecordError: core of speck: count = 0 must be at least 1

They may be int, float, bool, str, Literal, tuple, dict, Any, a union, and another record;
`Annotated` adds a `Rule`, or the `Keys` that a table may have. Lists become tuples, and whole
numbers floats where a float is expected. A record in a table that has a field `name` is named by
its key. A `CheckedRecord` is held to its annotations also where it is made in code. Every refusal
is one line that names where, what was given and what is valid. Imports no torch.
"""

import difflib
import reprlib
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from zoo.errors import ConfigError

__all__ = [
    "NOT_EMPTY",
    "CheckedRecord",
    "Keys",
    "Line",
    "RecordError",
    "Rule",
    "above",
    "at_least",
    "between",
    "read_record",
    "read_value",
    "shown",
]

MAX_NUMBER = 1e300  # a number beyond it counts as infinite
MAX_SHOWN = 200  # characters of a value in a message
Record = TypeVar("Record")


class RecordError(ConfigError):
    """A value that a record cannot hold.

    `where` are the words that lead to it, which begin the line, and `keys` those of them that are
    keys of the outermost table, with that of the value itself.
    """

    def __init__(
        self, message: str, keys: tuple[str, ...] = (), where: tuple[str, ...] = ()
    ) -> None:
        super().__init__(f"{', '.join(where)}: {message}" if where else message)
        self.message, self.keys, self.where = message, keys, where

    def inside(self, where: str, keys: tuple[str, ...] = ()) -> "RecordError":
        """Return the same error as one of the table that `where` and `keys` name."""
        return RecordError(self.message, keys + self.keys, (where, *self.where))


@dataclass(frozen=True)
class Rule:
    """A rule that a value keeps besides its type: `words` complete the sentence "... must be"."""

    words: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Keys:
    """The keys that a table may have; `beside`: its entries lie among the fields of its record."""

    valid: tuple[str, ...]
    beside: bool = False


def at_least(low: float) -> Rule:
    """Return the rule of numbers that are not below `low`."""
    return Rule(f"at least {low:g}", lambda value: value >= low)


def above(low: float) -> Rule:
    """Return the rule of numbers that are greater than `low`."""
    return Rule(f"above {low:g}", lambda value: value > low)


def _plain(number: float) -> str:
    """Return a whole number with all its digits, and any other in short."""
    return f"{number:.0f}" if number == round(number) and abs(number) < 1e9 else f"{number:g}"


def between(low: float, high: float, unit: str = "") -> Rule:
    """Return the rule of numbers from `low` to `high`, both included; `unit` is their plural."""
    return Rule(
        f"from {_plain(low)} to {_plain(high)} {unit}".strip(), lambda value: low <= value <= high
    )


def _is_line(text: str) -> bool:
    return bool(text.strip()) and len(text.splitlines()) == 1


Line = Annotated[str, Rule("a line of text", _is_line)]
NOT_EMPTY = Rule("non-empty", bool)


class CheckedRecord:
    """The base of records that are made in code too: they convert and check their own fields.

    A subclass with conditions of its own calls `super().__post_init__()` before them.
    """

    def __post_init__(self) -> None:
        for name, value in _converted(type(self), vars(self)).items():
            object.__setattr__(self, name, value)  # the record is frozen, and just being made


def read_record(kind: type[Record], values: object, where: str = "", **given: object) -> Record:
    """Return a record of `kind` with the `values` of a table, and fields that the caller knows.

    `where` begins every message. Raises `RecordError` for an unknown key, which names the nearest
    valid one, a missing key, a wrong type, and a value that a rule or the record itself refuses.
    """
    try:
        record: Record = _record(kind, values, given)
    except _Misfit as misfit:
        raise RecordError(misfit.of(where or "value")) from None
    except RecordError as error:
        raise (error.inside(where) if where else error) from None
    return record


def read_value(kind: Any, value: object, name: str) -> Any:
    """Return `value` as the annotation `kind` has it.

    Raises `RecordError`, which calls the value `name`.
    """
    return _field(kind, value, name)


def shown(value: object) -> str:
    """Return a value on one line, as TOML writes it, cut where it is long or deep."""
    lines = _SHORT.repr(value).splitlines()  # several of an array
    text = " ".join(map(str.strip, lines))
    return text if len(text) <= MAX_SHOWN else text[:80] + "..."


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 80, 80
        self.maxlist = self.maxtuple = self.maxdict = 10

    def repr_int(self, value: int, level: int) -> str:
        # Python refuses to write very long ones in decimals.
        return repr(value) if value.bit_length() <= 1000 else hex(value)[:80] + "..."

    def repr_bool(self, value: bool, level: int) -> str:
        return str(value).lower()

    def repr_tuple(self, value: tuple[Any, ...], level: int) -> str:
        return self.repr_list(list(value), level)


_SHORT = _Short()


class _Misfit(Exception):
    """A value that is not what it must be: `words` say that, `entry` where in a list it lies."""

    def __init__(self, value: object, words: str, entry: str = "") -> None:
        super().__init__(words)
        self.value, self.words, self.entry = value, words, entry

    def of(self, name: str) -> str:
        """Return the message about a value of this name: `entry 2 of sizes = 0 must be ...`."""
        return f"{self.entry}{name} = {shown(self.value)} must be {self.words}"


class _NotFinite(_Misfit):
    """A number that is infinite or none."""


def _record(kind: Any, values: object, given: Mapping[str, object]) -> Any:
    """Return a record of `kind`; `given` are the fields that are not read from the table."""
    kinds, checks_itself = _kinds(kind), issubclass(kind, CheckedRecord)
    if not checks_itself:
        given = _converted(kind, given, is_in_table=False)
    own = [name for name, one in kinds.items() if name not in given and not _beside(one)]
    tables = {name: keys for name, one in kinds.items() if (keys := _beside(one))}
    valid = [*own, *(key for keys in tables.values() for key in keys)]
    if not isinstance(values, Mapping):
        raise _Misfit(values, f"a table of {', '.join(valid)}")
    _check_keys(values, valid)
    needed = [field.name for field in fields(kind) if field.name in own and _is_needed(field)]
    for name in needed:
        if name not in values:
            raise RecordError(f"{name} is missing; needed are {', '.join(needed)}")
    filled = {name: values[name] for name in own if name in values}
    for name, keys in tables.items():
        filled[name] = {key: value for key, value in values.items() if key in keys}
    if not checks_itself:
        filled = _converted(kind, filled)
    try:
        return kind(**filled, **given)
    except RecordError:
        raise
    except ConfigError as error:
        raise RecordError(str(error)) from None


def _converted(
    kind: Any, values: Mapping[str, object], *, is_in_table: bool = True
) -> dict[str, Any]:
    """Return values of fields as their annotations have them."""
    kinds = _kinds(kind)
    return {
        name: _convert(kinds[name], value)
        if _beside(kinds[name])
        else _field(kinds[name], value, name, is_in_table=is_in_table)
        for name, value in values.items()
    }


def _check_keys(values: Mapping[str, object], valid: Sequence[str]) -> None:
    for key in values:
        if key not in valid:
            near = difflib.get_close_matches(key, valid, 1, cutoff=0.6)
            hint = f"did you mean {near[0]}? " if near else ""
            message = f"unknown key {shown(key)}; {hint}valid are {', '.join(valid)}"
            raise RecordError(message, (key,))


def _is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _field(
    kind: Any, value: object, name: str, *, is_in_table: bool = True, own_name: bool = False
) -> Any:
    """Return the value of a field, or of an entry of a table.

    With `is_in_table`, `name` is its key there; a record with `own_name` is named so too.
    """
    word = name if name.isidentifier() else shown(name)
    keys = (name,) if is_in_table else ()
    try:
        return _nested(kind, value, {"name": name}) if own_name else _convert(kind, value)
    except _Misfit as misfit:
        raise RecordError(misfit.of(word), keys) from None
    except RecordError as error:
        raise error.inside(word, keys) from None


@cache
def _kinds(record: Any) -> dict[str, Any]:
    """Return the annotation of each field."""
    hints = get_type_hints(record, include_extras=True)
    return {field.name: hints[field.name] for field in fields(record) if field.init}


def _is_record(kind: Any) -> bool:  # unlike `is_dataclass`, it leaves the type of `kind` as it is
    return is_dataclass(kind)


def _beside(kind: Any) -> tuple[str, ...]:
    """Return the keys of a table whose entries lie among the fields of its record."""
    marks = get_args(kind)[1:]
    return next((mark.valid for mark in marks if isinstance(mark, Keys) and mark.beside), ())


def _convert(kind: Any, value: Any) -> Any:
    """Return `value` as `kind` has it.

    Raises `_Misfit` for the value itself, `RecordError` for what lies inside of it.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _ruled(kind, value)
    if origin is Literal:
        if not any(type(value) is type(word) and value == word for word in get_args(kind)):
            raise _Misfit(value, _described(kind))
        return value
    if origin in (Union, types.UnionType):
        return _one_of(kind, value)
    if origin is tuple:
        return _items(kind, value)
    if origin is dict:
        return _entries(get_args(kind)[1], value)
    if _is_record(kind):
        return _nested(kind, value, {})
    return _scalar(kind, value)


def _scalar(kind: Any, value: Any) -> Any:
    """Return an int, a float, a bool or a text; True is no number."""
    types_of_value = (int, float) if kind is float else kind
    if not isinstance(value, types_of_value) or isinstance(value, bool) != (kind is bool):
        raise _Misfit(value, _described(kind))
    if kind in (int, float) and not abs(value) <= MAX_NUMBER:
        raise _NotFinite(value, "finite")
    return float(value) if kind is float else value


def _ruled(kind: Any, value: Any) -> Any:
    """Return a value of an `Annotated` type, which keeps its rules."""
    base, *marks = get_args(kind)
    rules = [mark for mark in marks if isinstance(mark, Rule)]
    for mark in marks:
        if isinstance(mark, Keys) and isinstance(value, Mapping):
            _check_keys(value, mark.valid)
    try:
        converted = _convert(base, value)
    except _NotFinite:
        words = ["finite", *(rule.words for rule in rules)]
        raise _Misfit(value, " and ".join(words)) from None
    for rule in rules:
        if not rule.holds(converted):
            raise _Misfit(value, rule.words)
    return converted


def _one_of(kind: Any, value: Any) -> Any:
    """Return a value of a union, as its first type that can have it."""
    if value is None and type(None) in get_args(kind):
        return None
    options = [option for option in get_args(kind) if option is not type(None)]
    if len(options) == 1:  # its own message says more
        return _convert(options[0], value)
    for option in options:
        with suppress(_Misfit):
            return _convert(option, value)
    raise _Misfit(value, _described(kind))


def _items(kind: Any, value: Any) -> tuple[Any, ...]:
    """Return a list as a tuple of the types of `kind`."""
    kinds = get_args(kind)
    if isinstance(value, list | tuple) and kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if not isinstance(value, list | tuple) or len(kinds) != len(value):
        raise _Misfit(value, _described(kind))
    items = []
    for number, (item, one) in enumerate(zip(value, kinds, strict=True), 1):
        try:
            items.append(_convert(one, item))
        except _Misfit as misfit:
            entry = f"{misfit.entry}entry {number} of "
            raise _Misfit(misfit.value, misfit.words, entry) from None
        except RecordError as error:
            raise error.inside(f"entry {number}") from None
    return tuple(items)


def _entries(kind: Any, value: Any) -> dict[str, Any]:
    """Return a table whose entries are of `kind`; records are named by their keys."""
    if not isinstance(value, Mapping):
        raise _Misfit(value, "a table")
    named = _is_record(kind) and "name" in _kinds(kind)
    return {key: _field(kind, one, key, own_name=named) for key, one in value.items()}


def _nested(kind: Any, value: Any, given: Mapping[str, object]) -> Any:
    return value if isinstance(value, kind) else _record(kind, value, given)


# The words for each type: of one value, and of several.
WORDS = {
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    bool: ("true or false", "true or false"),
    str: ("text", "texts"),
}


def _described(kind: Any, *, several: bool = False) -> str:
    """Return words for an annotation that follow "must be": "a list of whole numbers"."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _described(arguments[0], several=several)
    if origin in (Union, types.UnionType):
        options = [option for option in arguments if option is not types.NoneType]
        return ", or ".join(_described(option) for option in options)
    if origin is Literal:
        words = ", ".join(map(repr, arguments))
        return words if several or len(arguments) == 1 else f"one of {words}"
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        items = f"{count}{_described(arguments[0], several=True)}"
        return f"lists of {items}" if several else f"a list of {items}"
    return WORDS.get(kind, ("a table", "tables"))[several]
