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
its key. Every refusal is one line that names where, what was given and what is valid. Imports no
torch.
"""

import difflib
import reprlib
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from zoo.errors import ConfigError

__all__ = [
    "NOT_EMPTY",
    "Keys",
    "Line",
    "RecordError",
    "Rule",
    "above",
    "at_least",
    "between",
    "check_fields",
    "read_record",
    "read_value",
    "shown",
]

MAX_NUMBER = 1e300  # a number beyond it counts as infinite
MAX_SHOWN = 200  # characters of a value in a message
Record = TypeVar("Record")


class RecordError(ConfigError):
    """A value that a record cannot hold; `keys` lead to it from the outermost table."""

    def __init__(self, message: str, keys: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.keys = keys


@dataclass(frozen=True)
class Rule:
    """What a value must be besides its type: `words` complete the sentence "... must be"."""

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


def read_record(kind: type[Record], values: object, where: str = "", **given: object) -> Record:
    """Return a record of `kind` with the `values` of a table, and fields that the caller knows.

    `where` begins every message. Raises `RecordError` for an unknown key, which names the nearest
    valid one, a missing key, a wrong type, and a value that a rule or the record itself refuses.
    """
    try:
        record: Record = _record(kind, values, _Place(where), given)
    except _Misfit as misfit:
        raise RecordError(f"{where or 'value'} = {shown(values)} {misfit}") from None
    return record


def read_value(kind: Any, value: object, name: str, where: str = "") -> Any:
    """Return `value` as the annotation `kind` has it.

    Raises `RecordError`, which calls the value `name`.
    """
    return _field(kind, value, name, _Place(where), (name,))


def check_fields(record: Any, where: str = "") -> None:
    """Check the fields of a record that was made in code, as `read_record` does.

    To be called first in `__post_init__`, for records that are made both ways. Lists become tuples
    and whole numbers floats here too. Raises `RecordError`.
    """
    made: Any = type(record)
    for name, kind in _kinds(made).items():
        value = _field(kind, getattr(record, name), name, _Place(where), (name,))
        object.__setattr__(record, name, value)  # the record is frozen, and just being made


def shown(value: object) -> str:
    """Return a value on one line, as TOML writes it, cut where it is long or deep."""
    text = _SHORT.repr(value)
    return text if len(text) <= MAX_SHOWN else text[:80] + "..."


class _Short(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 4, 80, 80
        self.maxlist = self.maxtuple = self.maxdict = 10

    def repr_int(self, value: int, level: int) -> str:
        # Python refuses to write very long ones in decimals.
        return repr(value) if value.bit_length() <= 1000 else hex(value)[:80] + "..."

    def repr_tuple(self, value: tuple[Any, ...], level: int) -> str:
        return self.repr_list(list(value), level)


_SHORT = _Short()


@dataclass(frozen=True)
class _Place:
    """Where a table lies: in words for a message, and by the keys that lead to it."""

    where: str
    keys: tuple[str, ...] = ()

    def inside(self, key: str) -> "_Place":
        name = key if key.isidentifier() else shown(key)
        return _Place(f"{self.where}, {name}" if self.where else name, (*self.keys, key))

    def error(self, message: str, keys: tuple[str, ...] = ()) -> RecordError:
        return RecordError(f"{self.where}: {message}" if self.where else message, self.keys + keys)


class _Misfit(Exception):
    """What is wrong with a value, in words that follow it: "is not of type int"."""


def _record(kind: Any, values: object, place: _Place, given: Mapping[str, object]) -> Any:
    """Return a record of `kind`; `given` are the fields that are not read from the table."""
    kinds = _kinds(kind)
    # No key of the table leads to a field that the caller gives.
    filled = {name: _field(kinds[name], one, name, place, ()) for name, one in given.items()}
    own = [name for name, one in kinds.items() if name not in given and not _beside(one)]
    tables = {name: keys for name, one in kinds.items() if (keys := _beside(one))}
    valid = [*own, *(key for keys in tables.values() for key in keys)]
    if not isinstance(values, Mapping):
        raise _Misfit(f"must be a table of {', '.join(valid)}")
    _check_keys(values, valid, place)
    needed = [field.name for field in fields(kind) if field.name in own and _is_needed(field)]
    for name in needed:
        if name not in values:
            raise place.error(f"{name} is missing; needed are {', '.join(needed)}")
    for name in own:
        if name in values:
            filled[name] = _field(kinds[name], values[name], name, place, (name,))
    for name, keys in tables.items():
        entries = {key: value for key, value in values.items() if key in keys}
        filled[name] = _convert(kinds[name], entries, place)
    try:
        return kind(**filled)
    except ConfigError as error:
        within = error.keys if isinstance(error, RecordError) else ()
        if place.where and str(error).startswith(place.where):  # a record may name the place itself
            raise RecordError(str(error), place.keys + within) from None
        raise place.error(str(error), within) from None


def _check_keys(values: Mapping[str, object], valid: Sequence[str], place: _Place) -> None:
    for key in values:
        if key not in valid:
            near = difflib.get_close_matches(key, valid, 1, cutoff=0.6)
            hint = f"did you mean {near[0]}? " if near else ""
            message = f"unknown key {shown(key)}; {hint}valid are {', '.join(valid)}"
            raise place.error(message, (key,))


def _is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _field(kind: Any, value: object, name: str, place: _Place, keys: tuple[str, ...]) -> Any:
    """Return the value of a field, or of an entry of a table; `keys` lead to it from `place`."""
    try:
        return _convert(kind, value, place.inside(name))
    except _Misfit as misfit:
        raise place.error(f"{name} = {shown(value)} {misfit}", keys) from None


@cache
def _kinds(record: Any) -> dict[str, Any]:
    """Return the annotation of each field."""
    hints = get_type_hints(record, include_extras=True)
    return {field.name: hints[field.name] for field in fields(record) if field.init}


def _is_record(kind: Any) -> bool:
    return is_dataclass(kind)


def _beside(kind: Any) -> tuple[str, ...]:
    """Return the keys of a table whose entries lie among the fields of its record."""
    marks = get_args(kind)[1:]
    return next((mark.valid for mark in marks if isinstance(mark, Keys) and mark.beside), ())


def _convert(kind: Any, value: Any, place: _Place) -> Any:
    """Return `value` as `kind` has it; `place` is its own.

    Raises `_Misfit` for the value itself, `RecordError` for what lies inside of it.
    """
    origin = get_origin(kind)
    if kind is Any:
        return value
    if origin is Annotated:
        return _ruled(kind, value, place)
    if origin is Literal:
        if not any(type(value) is type(word) and value == word for word in get_args(kind)):
            raise _Misfit(f"is not {_described(kind)}")
        return value
    if origin in (Union, types.UnionType):
        return _one_of(kind, value, place)
    if origin is tuple:
        return _items(kind, value, place)
    if origin is dict:
        return _entries(get_args(kind)[1], value, place)
    if _is_record(kind):
        return _nested(kind, value, place, {})
    return _scalar(kind, value)


def _scalar(kind: Any, value: Any) -> Any:
    """Return an int, a float, a bool or a text; True is no number."""
    types_of_value = (int, float) if kind is float else kind
    if not isinstance(value, types_of_value) or isinstance(value, bool) != (kind is bool):
        raise _Misfit(f"is not {_described(kind)}")
    if kind in (int, float) and not abs(value) <= MAX_NUMBER:
        raise _Misfit("must be finite")
    return float(value) if kind is float else value


def _ruled(kind: Any, value: Any, place: _Place) -> Any:
    """Return a value of an `Annotated` type, which keeps its rules."""
    base, *marks = get_args(kind)
    for mark in marks:
        if isinstance(mark, Keys) and isinstance(value, Mapping):
            _check_keys(value, mark.valid, place)
    value = _convert(base, value, place)
    for mark in marks:
        if isinstance(mark, Rule) and not mark.holds(value):
            raise _Misfit(f"must be {mark.words}")
    return value


def _one_of(kind: Any, value: Any, place: _Place) -> Any:
    """Return a value of a union, as its first type that can have it."""
    if value is None and type(None) in get_args(kind):
        return None
    misfits = []
    for option in get_args(kind):
        if option is type(None):
            continue
        try:
            return _convert(option, value, place)
        except _Misfit as misfit:
            misfits.append(misfit)
    # Where there is a single type besides None, its own message says more.
    raise misfits[0] if len(misfits) == 1 else _Misfit(f"is not {_described(kind)}")


def _items(kind: Any, value: Any, place: _Place) -> tuple[Any, ...]:
    """Return a list as a tuple of the types of `kind`."""
    kinds = get_args(kind)
    if isinstance(value, list | tuple) and kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if not isinstance(value, list | tuple) or len(kinds) != len(value):
        raise _Misfit(f"is not {_described(kind)}")
    items = []
    for number, (item, one) in enumerate(zip(value, kinds, strict=True), 1):
        try:
            items.append(_convert(one, item, _Place(f"{place.where}, entry {number}", place.keys)))
        except _Misfit as misfit:
            of_type = str(misfit).startswith("is not")
            raise _Misfit(f"is not {_described(kind)}" if of_type else f"{misfit}, each") from None
    return tuple(items)


def _entries(kind: Any, value: Any, place: _Place) -> dict[str, Any]:
    """Return a table whose entries are of `kind`; records are named by their keys."""
    if not isinstance(value, Mapping):
        raise _Misfit("must be a table")
    if not (_is_record(kind) and "name" in _kinds(kind)):
        return {key: _field(kind, one, key, place, (key,)) for key, one in value.items()}
    records = {}
    for key, one in value.items():
        try:
            records[key] = _nested(kind, one, place.inside(key), {"name": key})
        except _Misfit as misfit:
            raise place.error(f"{key} = {shown(one)} {misfit}", (key,)) from None
    return records


def _nested(kind: Any, value: Any, place: _Place, given: Mapping[str, object]) -> Any:
    return value if isinstance(value, kind) else _record(kind, value, place, given)


def _described(kind: Any) -> str:
    """Return words for an annotation that follow "is not": "of type int or one of 'auto'"."""
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(_described(option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
        return f"a list of {', '.join(map(repr, get_args(get_args(kind)[0])))}"
    return f"of type {_type_name(kind)}"


def _type_name(kind: Any) -> str:
    if kind is Ellipsis:
        return "..."
    if get_origin(kind) is Annotated:
        return _type_name(get_args(kind)[0])
    if get_origin(kind) is tuple:
        return f"list[{', '.join(map(_type_name, get_args(kind)))}]"
    if get_origin(kind) is dict or _is_record(kind):
        return "table"
    return str(getattr(kind, "__name__", kind))
