"""Profiles: what one operation costs on a device, as data with sources.

A price is a band (lo, typ, hi) in picojoules. An operation that a profile has no price for has none
anywhere: no default stands in. A profile of scope "all in" has one price, of an accumulate, that
holds everything the device does for it.
"""

import re
import tomllib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from zoo.errors import ConfigError

__all__ = ["OPERATIONS", "Band", "Operation", "Profile", "Term", "find_profiles", "read_profiles"]

# every kind that counts speak of
OPERATIONS = ("mac", "ac", "add", "multiply", "update", "idle_update", "hop", "access")
# bytes; an access to any other size lies between or beyond
MEMORIES = {"sram_8k": 2**13, "sram_32k": 2**15, "sram_1m": 2**20}
TERMS = (*OPERATIONS[:-1], *MEMORIES, "dram")
PROFILES = Path(__file__).with_name("profiles.toml")
SCOPES = ("per term", "all in")
EVIDENCE = ("measured", "simulated", "derived", "unstated")
JOULE = 10**12  # picojoules; no operation costs more
LARGEST = 2**20  # bytes of a file of profiles


class Operation(NamedTuple):
    """What is counted and priced: one of `OPERATIONS`, and of an access the size of the memory that
    is read or written.
    """

    kind: str
    bytes: int = 0


@dataclass(frozen=True)
class Band:
    """Picojoules."""

    lo: float
    typ: float
    hi: float


@dataclass(frozen=True)
class Term:
    """The price of one operation."""

    band: Band
    evidence: str
    source: str


@dataclass(frozen=True)
class Profile:
    """A device's prices."""

    name: str
    title: str  # which device it is
    scope: str  # "per term" or "all in"
    note: str  # what a reader must know; may be empty
    terms: dict[str, Term]  # operation or memory -> price

    def price(self, operation: Operation) -> Band | None:
        """Picojoules of one operation; None where there is no price.

        An access is one word of 64 bits or one value, as the convention has it. Its price is linear
        between the sizes of Horowitz (ISSCC 2014), and that of 8 KiB below. He gives none above 1
        MiB, where the last slope goes on: Lemaire et al. (ICONIP 2022) assume a linear law. All in,
        an accumulate pays for the rest, and a device that only accumulates has no MAC.
        """
        if self.scope == "all in":
            if "ac" not in self.terms or operation.kind in ("mac", "multiply"):
                return None
            return self.terms["ac"].band if operation.kind == "ac" else Band(0.0, 0.0, 0.0)
        if operation.kind != "access":
            return self.terms[operation.kind].band if operation.kind in self.terms else None
        if not MEMORIES.keys() <= self.terms.keys():
            return None
        bands = [self.terms[name].band for name in MEMORIES]
        lo, typ, hi = (
            _at(operation.bytes, [getattr(band, key) for band in bands])
            for key in ("lo", "typ", "hi")
        )
        return Band(min(lo, typ), typ, max(typ, hi))  # beyond the last size, slopes may cross


def read_profiles(path: str | Path = PROFILES) -> dict[str, Profile]:
    """Raises `ConfigError`, one line that names file, line, profile and term, for what cannot be."""
    return _File.read(Path(path)).profiles()


def find_profiles(words: Sequence[str]) -> dict[str, Profile]:
    """Profiles by name; all those of a file whose path ends in `.toml`; without words, all shipped
    ones. Raises `ConfigError`.
    """
    shipped = read_profiles()
    found: dict[str, Profile] = {}
    for word in dict.fromkeys(words or shipped):
        if word in shipped:
            found[word] = shipped[word]
        elif word.endswith(".toml"):
            file = _File.read(Path(word))
            for name, profile in file.profiles().items():
                if name in shipped or name in found:
                    other = "a shipped profile" if name in shipped else "one of another file"
                    raise file.error(
                        f"profile {_shown(name)}: {other} has this name; choose a new one", name
                    )
                found[name] = profile
        else:
            raise ConfigError(
                f"profile {_shown(word)}: no such one; valid are {', '.join(shipped)}, or a .toml file"
            )
    return found


def _at(size: int, prices: list[float]) -> float:
    """Piecewise linear in bytes through the prices of `MEMORIES`."""
    sizes = list(MEMORIES.values())
    i = 0 if size <= sizes[1] else 1
    share = (max(size, sizes[0]) - sizes[i]) / (sizes[i + 1] - sizes[i])
    return prices[i] + share * (prices[i + 1] - prices[i])


@dataclass(frozen=True)
class _File:
    """The text of a file of profiles, to read and to point into."""

    path: Path
    text: str
    tables: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "_File":
        name = _quoted(path)
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST + 1)
        except (OSError, ValueError) as error:  # a path with a zero in it is a ValueError
            raise ConfigError(
                f"{name} cannot be read: {getattr(error, 'strerror', error)}; a file of profiles is needed"
            ) from None
        if len(content) > LARGEST:
            raise ConfigError(f"{name} has more than {LARGEST} bytes: a file of profiles is needed")
        try:
            text = content.decode().replace("\r\n", "\n")
            return cls(path, text, tomllib.loads(text))
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ConfigError(
                f"{name}, line {line}: byte {content[error.start]:#04x} is not UTF-8, which TOML is written in"
            ) from None
        except tomllib.TOMLDecodeError as error:
            message, line = _located(str(error), text)
            raise ConfigError(f"{name}, line {line}: not TOML: {message}") from None
        except ValueError:
            raise ConfigError(
                f"{name} holds a number of more digits than can be read: a price is at most {JOULE}"
            ) from None
        except RecursionError:
            raise ConfigError(
                f"{name} is nested too deeply: a profile is a table of terms"
            ) from None

    def profiles(self) -> dict[str, Profile]:
        if not self.tables:
            raise ConfigError(
                f"{_quoted(self.path)}, line 1: no profile; each is a table [name] of title, scope and terms"
            )
        return {name: self._profile(name, table) for name, table in self.tables.items()}

    def error(self, message: str, *entry: str) -> ConfigError:
        """About an entry of the file, given by the keys that lead to it."""
        return ConfigError(f"{_quoted(self.path)}, line {_line(self.text, entry)}: {message}")

    def _profile(self, name: str, table: Any) -> Profile:
        where = f"profile {_shown(name)}"
        if not _is_line(name):
            raise self.error(f"{where}: a name must be a line of text", name)
        if not isinstance(table, dict):
            raise self.error(
                f"{where} = {_shown(table)} must be a table of title, scope and terms", name
            )
        for key in ("title", "scope"):
            if key not in table:
                raise self.error(
                    f"{where}: {key} is missing; needed are a title and a scope ({' or '.join(SCOPES)})",
                    name,
                )
        for key in ("title", "note"):
            if key in table and not _is_line(table[key]):
                raise self.error(
                    f"{where}: {key} = {_shown(table[key])} must be a line of text", name, key
                )
        if table["scope"] not in SCOPES:
            raise self.error(
                f"{where}: scope = {_shown(table['scope'])} must be one of {', '.join(SCOPES)}",
                name,
                "scope",
            )
        terms = {
            key: self._term(name, key, values)
            for key, values in table.items()
            if key not in ("title", "scope", "note")
        }
        for key in terms:
            if table["scope"] == "all in" and key != "ac":
                raise self.error(
                    f"{where}, term {key!r}: scope 'all in' forbids adding terms to ac", name, key
                )
        for small, large in pairwise(key for key in MEMORIES if key in terms):
            one, two = terms[small].band, terms[large].band
            # the line would go on below zero
            if one.lo > two.lo or one.typ > two.typ or one.hi > two.hi:
                raise self.error(
                    f"{where}, term {large!r}: must cost at least as much as the smaller {small}",
                    name,
                    large,
                )
        return Profile(name, table["title"], table["scope"], table.get("note", ""), terms)

    def _term(self, profile: str, name: str, values: Any) -> Term:
        where, keys = (
            f"profile {_shown(profile)}, term {_shown(name)}",
            ("lo", "typ", "hi", "evidence", "source"),
        )
        if name not in TERMS:
            raise self.error(
                f"{where}: no such term; valid are title, scope, note, {', '.join(TERMS)}",
                profile,
                name,
            )
        if not isinstance(values, dict):
            raise self.error(
                f"{where} = {_shown(values)} must be a table of {', '.join(keys)}", profile, name
            )
        for key in values:
            if key not in keys:
                raise self.error(
                    f"{where}: unknown key {_shown(key)}; valid are {', '.join(keys)}",
                    profile,
                    name,
                    key,
                )
        for key in keys:
            if key not in values:
                raise self.error(
                    f"{where}: {key} is missing; needed are {', '.join(keys)}", profile, name
                )
        lo, typ, hi = prices = [values[key] for key in keys[:3]]
        for key, price in zip(keys, prices, strict=False):
            if type(price) not in (int, float) or not 0 <= price <= JOULE:
                raise self.error(
                    f"{where}: {key} = {_shown(price)} must be picojoules, from 0 to {JOULE}",
                    profile,
                    name,
                    key,
                )
        if not lo <= typ <= hi:
            raise self.error(
                f"{where}: lo, typ, hi = {lo}, {typ}, {hi} must not fall", profile, name
            )
        if values["evidence"] not in EVIDENCE:
            message = f"{where}: evidence = {_shown(values['evidence'])} must be one of {', '.join(EVIDENCE)}"
            raise self.error(message, profile, name, "evidence")
        if not _is_line(values["source"]):
            raise self.error(
                f"{where}: source = {_shown(values['source'])} must be a line of text",
                profile,
                name,
                "source",
            )
        return Term(Band(float(lo), float(typ), float(hi)), values["evidence"], values["source"])


def _line(text: str, entry: Sequence[str]) -> int:
    """Where the statement starts that makes an entry: after the longest beginning of the file that
    is TOML without it.
    """
    lines = text.split("\n")

    def whole(end: int) -> tuple[int, Any]:
        while True:
            try:
                return end, tomllib.loads("\n".join(lines[:end]))
            except (tomllib.TOMLDecodeError, RecursionError):  # a value of several lines is cut
                end -= 1

    def has(end: int) -> bool:
        table = whole(end)[1]
        for key in entry:
            if not isinstance(table, dict) or key not in table:
                return False
            table = table[key]
        return True

    return whole(bisect_left(range(1, len(lines)), True, key=has))[0] + 1


def _located(message: str, text: str) -> tuple[str, int]:
    """A message of tomllib without its place, and its line."""
    reason, _, place = message.rpartition(" (at ")
    number = re.match(r"line (\d+)", place)
    return _cut(reason or message), int(number[1]) if number else text.count("\n") + 1


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value.splitlines()) == 1


def _shown(value: Any) -> str:
    """On one line, cut where it is long."""
    if isinstance(value, dict | list):
        return "a table" if isinstance(value, dict) else "a list"
    # Python refuses to write it in decimals
    huge = isinstance(value, int) and value.bit_length() > 1000
    return _cut(hex(value) if huge else repr(value))


def _cut(text: str) -> str:
    return text if len(text) < 200 else text[:80] + "..."


def _quoted(path: Path) -> str:
    return repr(str(path))
