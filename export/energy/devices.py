"""Devices: what one operation costs on each, as data with sources (`devices.toml`).

A price is a band (lo, typ, hi) in picojoules. An operation that a device has no price for has none
anywhere: no default stands in. A device of scope "all in" has one price, of an accumulate, that
holds everything the device does for it.

To add a device, add a table to `devices.toml`.
"""

import re
import tomllib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from export.energy.operations import OPERATIONS, Operation
from zoo.errors import ConfigError, first_line, nearest
from zoo.records import Keys, Line, RecordError, between, read_record, shown

__all__ = ["EVIDENCE", "SCOPES", "TERMS", "Band", "Device", "Term", "find_devices", "read_devices"]

# Bytes of the memories that have prices; an access to any other size lies between or beyond.
MEMORIES = {"sram_8k": 2**13, "sram_32k": 2**15, "sram_1m": 2**20}
TERMS = (*OPERATIONS[:-1], *MEMORIES, "dram")
DEVICES = Path(__file__).with_name("devices.toml")
Scope = Literal["per term", "all in"]
Evidence = Literal["measured", "simulated", "derived", "unstated"]
SCOPES, EVIDENCE = get_args(Scope), get_args(Evidence)
MAX_PICOJOULES = 10**12  # of an operation: a joule
MAX_FILE_BYTES = 2**20
Picojoules = Annotated[float, between(0, MAX_PICOJOULES, "picojoules")]


@dataclass(frozen=True)
class Band:
    """The least, the typical and the greatest energy, in picojoules."""

    lo: float
    typ: float
    hi: float


@dataclass(frozen=True)
class Term:
    """The price of one operation, or of one access of 64 bits to a memory."""

    lo: Picojoules
    typ: Picojoules
    hi: Picojoules
    evidence: Evidence
    source: Line

    def __post_init__(self) -> None:
        if not self.lo <= self.typ <= self.hi:
            raise RecordError(f"lo, typ, hi = {self.lo:g}, {self.typ:g}, {self.hi:g} must not fall")

    @property
    def band(self) -> Band:
        """The price without its evidence."""
        return Band(self.lo, self.typ, self.hi)


@dataclass(frozen=True)
class Device:
    """The prices of a device, and what a reader must know of them."""

    name: Line
    title: Line
    scope: Scope
    note: Line = ""
    terms: Annotated[dict[str, Term], Keys(TERMS, beside=True)] = field(default_factory=dict)
    # the numbers that its arithmetic is for; empty where nobody says
    arithmetic: Literal["", "float32", "float16", "int8"] = ""

    def __post_init__(self) -> None:
        for key in self.terms:
            if self.scope == "all in" and key != "ac":
                message = f"scope 'all in' forbids {key}: the price of ac holds everything"
                raise RecordError(message, (key,))
        for small, large in pairwise(key for key in MEMORIES if key in self.terms):
            one, two = self.terms[small], self.terms[large]
            # A line through falling prices would go on below zero.
            if one.lo > two.lo or one.typ > two.typ or one.hi > two.hi:
                raise RecordError(f"{large} must cost at least as much as {small}", (large,))

    def price(self, operation: Operation) -> Band | None:
        """Return the picojoules of one operation; None where there is no price.

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
        terms = [self.terms[name] for name in MEMORIES]
        lo = _interpolated(operation.bytes, [term.lo for term in terms])
        typ = _interpolated(operation.bytes, [term.typ for term in terms])
        hi = _interpolated(operation.bytes, [term.hi for term in terms])
        return Band(min(lo, typ), typ, max(typ, hi))  # beyond the last size, slopes may cross


def read_devices(path: str | Path = DEVICES) -> dict[str, Device]:
    """Return the devices of a file, by name.

    Raises `ConfigError`, one line that names file, line, device and term, for what cannot be.
    """
    return _File.read(Path(path)).devices()


def find_devices(words: Sequence[str]) -> dict[str, Device]:
    """Return devices by name, and all those of a file where a word ends in `.toml`.

    Without words these are all shipped ones. Raises `ConfigError`.
    """
    shipped = read_devices()
    devices: dict[str, Device] = {}
    for word in dict.fromkeys(words or shipped):
        if word in shipped:
            devices[word] = shipped[word]
        elif word.endswith(".toml"):
            file = _File.read(Path(word))
            for name, device in file.devices().items():
                if name in shipped or name in devices:
                    other = "a shipped device" if name in shipped else "one of another file"
                    message = f"device {shown(name)}: {other} has this name; choose a new one"
                    raise file.error(message, name)
                devices[name] = device
        else:
            valid = f"{', '.join(shipped)}, or a .toml file"
            near = nearest(word, shipped)
            raise ConfigError(f"device {shown(word)}: no such one{near}; valid are {valid}")
    return devices


def _interpolated(size: int, prices: list[float]) -> float:
    """Return a price, piecewise linear in bytes through those of `MEMORIES`."""
    sizes = list(MEMORIES.values())
    i = 0 if size <= sizes[1] else 1
    share = (max(size, sizes[0]) - sizes[i]) / (sizes[i + 1] - sizes[i])
    return prices[i] + share * (prices[i + 1] - prices[i])


@dataclass(frozen=True)
class _File:
    """The text of a file of devices, to read and to point into."""

    path: Path
    text: str
    tables: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "_File":
        name = repr(str(path))
        content = _read_bytes(path)
        try:
            text = content.decode().replace("\r\n", "\n")
            return cls(path, text, tomllib.loads(text))
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            what = f"byte {content[error.start]:#04x} is not UTF-8, which TOML is written in"
            raise ConfigError(f"{name}, line {line}: {what}") from None
        except tomllib.TOMLDecodeError as error:
            message, line = _located(str(error), text)
            raise ConfigError(f"{name}, line {line}: not TOML: {message}") from None
        except ValueError:
            what = f"a number of more digits than can be read: a price is at most {MAX_PICOJOULES}"
            raise ConfigError(f"{name} holds {what}") from None
        except RecursionError:
            what = "is nested too deeply: a device is a table of terms"
            raise ConfigError(f"{name} {what}") from None

    def devices(self) -> dict[str, Device]:
        if not self.tables:
            raise self.error("no device; each is a table [name] of title, scope and terms")
        return {name: self._device(name, table) for name, table in self.tables.items()}

    def _device(self, name: str, table: object) -> Device:
        try:
            return read_record(Device, table, f"device {shown(name)}", name=name)
        except RecordError as error:
            raise self.error(str(error), name, *error.keys) from None

    def error(self, message: str, *keys: str) -> ConfigError:
        """Return an error about an entry of the file, given by the keys that lead to it."""
        line = _line(self.text, keys) if keys else 1
        return ConfigError(f"{str(self.path)!r}, line {line}: {message}")


def _read_bytes(path: Path) -> bytes:
    name = repr(str(path))
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # a path with a zero in it is a ValueError
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ConfigError(f"{name} cannot be read: {reason}; a file of devices is needed") from None
    if len(content) > MAX_FILE_BYTES:
        what = f"has more than {MAX_FILE_BYTES} bytes: a file of devices is needed"
        raise ConfigError(f"{name} {what}")
    return content


def _line(text: str, keys: Sequence[str]) -> int:
    """Return the line at which the statement starts that makes an entry.

    It comes after the longest beginning of the file that is TOML without the entry.
    """
    lines = text.split("\n")

    def parse(end: int) -> tuple[int, Any]:
        """Return the TOML of the first lines, as many of these `end` as are TOML."""
        while True:
            try:
                return end, tomllib.loads("\n".join(lines[:end]))
            except (tomllib.TOMLDecodeError, RecursionError):  # a value of several lines is cut
                end -= 1

    def has_entry(end: int) -> bool:
        table = parse(end)[1]
        for key in keys:
            if not isinstance(table, dict) or key not in table:
                return False
            table = table[key]
        return True

    return parse(bisect_left(range(1, len(lines)), True, key=has_entry))[0] + 1


def _located(message: str, text: str) -> tuple[str, int]:
    """Return a message of tomllib without its place, and its line."""
    reason, _, place = message.rpartition(" (at ")
    number = re.match(r"line (\d+)", place)
    reason = reason or message
    short = reason if len(reason) < 200 else reason[:80] + "..."
    return short, int(number[1]) if number else text.count("\n") + 1
