"""Records: what is filled in, and the one line that refuses what cannot be."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import pytest

from zoo.errors import ConfigError
from zoo.records import (
    NOT_EMPTY,
    CheckedRecord,
    Keys,
    Line,
    RecordError,
    above,
    at_least,
    between,
    read_record,
    read_value,
    shown,
)

Size = Annotated[int, between(1, 64, "pixels")]


@dataclass(frozen=True)
class Price:
    low: Annotated[float, at_least(0)]
    high: float
    source: Line

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError(f"low, high = {self.low:g}, {self.high:g} must not fall")


@dataclass(frozen=True)
class Part:
    name: Line
    count: int = 1


@dataclass(frozen=True)
class Chip:
    name: Line
    title: str
    sizes: tuple[Size, ...]
    kind: Literal["analog", "digital"] = "digital"
    rate: Annotated[float, above(0)] = 0.5
    fast: bool = False
    automatic: bool | Literal["auto"] = "auto"
    pairs: tuple[tuple[int, int], ...] = ()
    words: tuple[Literal["a", "b"], ...] = ()
    revision: Line | None = None
    parts: Annotated[dict[str, Part], NOT_EMPTY] = field(default_factory=lambda: {"a": Part("a")})
    best: Price | None = None
    history: tuple[Price, ...] = ()
    more: dict[str, Any] = field(default_factory=dict)
    prices: Annotated[dict[str, Price], Keys(("add", "multiply"), beside=True)] = field(
        default_factory=dict
    )
    LIMIT: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if "multiply" in self.prices and "add" not in self.prices:
            raise RecordError("multiply has a price, but add has none", ("multiply",))


PRICE = {"low": 1, "high": 2, "source": "a paper"}
GOOD = {"title": "a chip", "sizes": [8, 64]}


def chip(**values: Any) -> Chip:
    return read_record(Chip, GOOD | values, "chip 'one'", name="one")


def refusal(**values: Any) -> str:
    """Return the message without the place, which every one begins with."""
    with pytest.raises(RecordError) as error:
        chip(**values)
    message = str(error.value)
    assert message.startswith("chip 'one'") and len(message.splitlines()) == 1
    assert len(message) < 500
    return message.removeprefix("chip 'one'").removeprefix(": ").removeprefix(", ")


def test_defaults_and_names_are_filled_in() -> None:
    record = chip()
    assert (record.name, record.title, record.sizes) == ("one", "a chip", (8, 64))
    assert (record.kind, record.parts, record.prices) == ("digital", {"a": Part("a")}, {})


def test_plain_values_become_those_of_the_annotations() -> None:
    record = chip(
        rate=1,
        pairs=[[0, 1], [2, 3]],
        automatic=True,
        revision="b",
        best=PRICE,
        history=[PRICE, PRICE],
        parts={"core": {"count": 3}, "bus": {}},
        more={"anything": [1, {"at": "all"}]},
        add=PRICE,
    )
    price = Price(1.0, 2.0, "a paper")
    assert isinstance(record.rate, float) and record.pairs == ((0, 1), (2, 3))
    assert (record.automatic, record.revision, record.best) == (True, "b", price)
    assert record.history == (price, price) and record.prices == {"add": price}
    assert record.parts == {"core": Part("core", 3), "bus": Part("bus", 1)}
    assert record.more == {"anything": [1, {"at": "all"}]}


def test_a_record_is_taken_as_it_is() -> None:
    price, part = Price(1, 2, "a paper"), Part("bus")
    record = chip(best=price, parts={"core": part})
    assert record.best is price and record.parts["core"] is part


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"title": 3}, "title = 3 must be text"),
        ({"title": None}, "title = None must be text"),
        ({"sizes": 8}, "sizes = 8 must be a list of whole numbers"),
        ({"sizes": [8, True]}, "entry 2 of sizes = true must be a whole number"),
        ({"sizes": [8, 65]}, "entry 2 of sizes = 65 must be from 1 to 64 pixels"),
        ({"kind": "quantum"}, "kind = 'quantum' must be one of 'analog', 'digital'"),
        ({"words": ["a", "c"]}, "entry 2 of words = 'c' must be one of 'a', 'b'"),
        ({"history": 3}, "history = 3 must be a list of tables"),
        ({"kind": ["analog"]}, "kind = ['analog'] must be one of 'analog', 'digital'"),
        ({"rate": "fast"}, "rate = 'fast' must be a number"),
        ({"rate": False}, "rate = false must be a number"),
        ({"rate": 0}, "rate = 0 must be above 0"),
        ({"rate": math.inf}, "rate = inf must be finite and above 0"),
        ({"rate": math.nan}, "rate = nan must be finite and above 0"),
        ({"rate": 10**400}, "rate = 0x"),
        ({"fast": 1}, "fast = 1 must be true or false"),
        ({"automatic": "yes"}, "automatic = 'yes' must be true or false, or 'auto'"),
        ({"automatic": 1}, "automatic = 1 must be true or false, or 'auto'"),
        ({"pairs": [0, 1]}, "entry 1 of pairs = 0 must be a list of 2 whole numbers"),
        ({"pairs": [[0, 1, 2]]}, "entry 1 of pairs = [0, 1, 2] must be a list of 2 whole numbers"),
        ({"pairs": [[0, 1], [2, "3"]]}, "entry 2 of entry 2 of pairs = '3' must be a whole number"),
        ({"pairs": 3}, "pairs = 3 must be a list of lists of 2 whole numbers"),
        ({"words": 3}, "words = 3 must be a list of 'a', 'b'"),
        ({"revision": "two\nlines"}, r"revision = 'two\nlines' must be a line of text"),
        ({"revision": 2}, "revision = 2 must be text"),
        ({"parts": 3}, "parts = 3 must be a table"),
        ({"parts": {}}, "parts = {} must be non-empty"),
        ({"parts": {"core": 3}}, "parts: core = 3 must be a table of count"),
        ({"parts": {"core": {"count": 1.5}}}, "parts, core: count = 1.5 must be a whole number"),
        ({"parts": {" ": {}}}, "parts, ' ': name = ' ' must be a line of text"),
        ({"best": [1, 2]}, "best = [1, 2] must be a table of low, high, source"),
        ({"best": {"low": 1}}, "best: high is missing; needed are low, high, source"),
        ({"best": PRICE | {"low": -1}}, "best: low = -1 must be at least 0"),
        ({"best": PRICE | {"low": 3}}, "best: low, high = 3, 2 must not fall"),
        ({"best": PRICE | {"lo": 3}}, "best: unknown key 'lo'; did you mean low? valid are low, "),
        (
            {"history": [PRICE, {}]},
            "history, entry 2: low is missing; needed are low, high, source",
        ),
        ({"history": [3]}, "entry 1 of history = 3 must be a table of low, high, source"),
        ({"add": PRICE | {"source": ""}}, "add: source = '' must be a line of text"),
        ({"multiply": PRICE}, "multiply has a price, but add has none"),
        (
            {"multiplies": PRICE},
            "unknown key 'multiplies'; did you mean multiply? valid are title, ",
        ),
        ({"LIMIT": 4}, "unknown key 'LIMIT'; valid are title, sizes, "),
        ({"name": "two"}, "unknown key 'name'; valid are title, "),
        ({"a\nb": 1}, r"unknown key 'a\nb'; valid are title, "),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_refused(values: dict[str, Any], message: str) -> None:
    assert refusal(**values).startswith(message)


def test_a_missing_key_is_asked_for() -> None:
    with pytest.raises(RecordError, match=r"^title is missing; needed are title, sizes$"):
        read_record(Chip, {"sizes": []}, name="one")


@pytest.mark.parametrize("values", [3, None, "text", [GOOD]], ids=str)
def test_what_is_no_table_is_refused(values: Any) -> None:
    with pytest.raises(RecordError, match=r"^chip = .* must be a table of low, high, source$"):
        read_record(Price, values, "chip")


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({"rate": 0}, ("rate",)),
        ({"parts": {"core": {"count": ""}}}, ("parts", "core", "count")),
        ({"add": PRICE | {"low": -1}}, ("add", "low")),
        ({"add": {"low": 1}}, ("add",)),
        ({"add": PRICE | {"unit": 1}}, ("add", "unit")),
        ({"multiply": PRICE}, ("multiply",)),
        ({"history": [PRICE | {"low": ""}]}, ("history", "low")),
    ],
    ids=str,
)
def test_an_error_knows_the_keys_that_lead_to_it(
    values: dict[str, Any], keys: tuple[str, ...]
) -> None:
    with pytest.raises(RecordError) as error:
        chip(**values)
    assert error.value.keys == keys


def test_a_field_that_the_caller_gives_is_checked_too() -> None:
    with pytest.raises(RecordError, match=r"^part: name = '' must be a line of text$") as error:
        read_record(Part, {}, "part", name="")
    assert error.value.keys == ()  # nothing in the table leads to it


@dataclass(frozen=True)
class Recipe(CheckedRecord):
    epochs: Annotated[int, at_least(1)]
    rate: float = 0.1
    sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.sizes) > self.epochs:
            raise ConfigError("more sizes than epochs")


def test_a_record_that_is_made_in_code_is_checked_alike() -> None:
    made = Recipe(3, rate=1, sizes=[4, 8])  # type: ignore[arg-type]
    assert (made.rate, made.sizes) == (1.0, (4, 8)) and isinstance(made.rate, float)
    with pytest.raises(RecordError, match=r"^epochs = 0 must be at least 1$"):
        Recipe(0)
    with pytest.raises(RecordError, match=r"^recipe: epochs = 0 must be at least 1$") as error:
        read_record(Recipe, {"epochs": 0}, "recipe")
    assert error.value.keys == ("epochs",)


def test_a_place_is_named_once() -> None:
    with pytest.raises(RecordError, match=r"^recipe: more sizes than epochs$"):
        read_record(Recipe, {"epochs": 1, "sizes": [1, 2]}, "recipe")


def test_a_single_value() -> None:
    assert read_value(tuple[int, ...], [1, 2], "strides") == (1, 2)
    with pytest.raises(RecordError, match=r"^entry 1 of strides = 1.5 must be a whole") as error:
        read_value(tuple[int, ...], [1.5], "strides")
    assert error.value.keys == ("strides",)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"x": value}
    return value


@pytest.mark.parametrize(
    "value",
    [
        "x" * 10_000,
        "two\nlines",
        10**5000,
        -(10**5000),
        list(range(10_000)),
        [["x" * 90] * 90] * 90,
        deep(100_000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_is_shown_on_one_short_line(value: Any) -> None:
    text = shown(value)
    assert len(text) <= 200 and len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "'a'"),
        ([1, (2, 3)], "[1, [2, 3]]"),
        ({"a": 1}, "{'a': 1}"),
        (1e-4, "0.0001"),
        ((), "[]"),
    ],
    ids=str,
)
def test_a_value_is_shown_as_it_is_written(value: Any, text: str) -> None:
    assert shown(value) == text
