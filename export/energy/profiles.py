"""Profiles: what one operation costs on a device, with its source, and the energy of counted operations.

A term is a band (lo, typ, hi) in picojoules. An operation that a profile has no price for leaves every total it belongs to empty,
and the result says which it was. The band is the device's, the standard error over images the sample's; they are never merged.
"""

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from export.energy.counting import OPERATIONS, LayerCounts
from zoo.errors import ConfigError

__all__ = ["Band", "Energy", "Profile", "Term", "energy", "read_profiles"]

PROFILES = Path(__file__).with_name("profiles.toml")
EVIDENCE = ("measured", "simulated", "derived", "unstated")


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
    title: str
    terms: dict[str, Term]  # operation -> price


@dataclass(frozen=True)
class Energy:
    """Of one image, the mean over all images."""

    profile: Profile
    layers: tuple[Band | None, ...]  # None where a layer needs a term that has no price
    total: Band | None
    standard_error: float | None  # of `total.typ`, over images; None for fewer than two
    unpriced: tuple[str, ...]  # operations that the network does and the profile has no price for


def read_profiles(path: Path = PROFILES) -> dict[str, Profile]:
    """Raises `ConfigError` that names the profile and the term for an entry that cannot be."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not a file of profiles: {error}") from None
    return {name: _profile(name, table) for name, table in tables.items()}


def energy(rows: list[LayerCounts], profile: Profile) -> Energy:
    """The energy of `rows` on the profile's device."""
    operations = [row.operations() for row in rows]
    unpriced = tuple(o for o in OPERATIONS if o not in profile.terms and any(counts[o].any() for counts in operations))
    layers = tuple(_layer(counts, profile) for counts in operations)
    total, standard_error = None, None
    if not unpriced:
        bands = [band for band in layers if band is not None]
        total = Band(*(math.fsum(getattr(band, key) for band in bands) for key in ("lo", "typ", "hi")))
        images = sum(term.band.typ * sum(counts[o] for counts in operations) for o, term in profile.terms.items())  # [N]
        if np.size(images) > 1:
            standard_error = float(np.std(images, ddof=1) / math.sqrt(np.size(images)))
    return Energy(profile, layers, total, standard_error, unpriced)


def _layer(counts: dict[str, Any], profile: Profile) -> Band | None:
    means = {operation: float(counts[operation].mean()) for operation in OPERATIONS if counts[operation].any()}
    if not means.keys() <= profile.terms.keys():
        return None
    return Band(*(math.fsum(n * getattr(profile.terms[o].band, key) for o, n in means.items()) for key in ("lo", "typ", "hi")))


def _profile(name: str, table: Any) -> Profile:
    if not isinstance(table, dict) or not isinstance(table.get("title"), str):
        raise ConfigError(f"profile {name!r}: needs a title, a line that says which device it is")
    return Profile(name, table["title"], {key: _term(name, key, value) for key, value in table.items() if key != "title"})


def _term(profile: str, name: str, values: Any) -> Term:
    where = f"profile {profile!r}, term {name!r}"
    if name not in OPERATIONS:
        raise ConfigError(f"{where}: no such operation; valid are {', '.join(OPERATIONS)}")
    if not isinstance(values, dict) or set(values) != {"lo", "typ", "hi", "evidence", "source"}:
        raise ConfigError(f"{where}: needs exactly lo, typ, hi, evidence and source")
    band = [values[key] for key in ("lo", "typ", "hi")]
    if not all(type(v) in (int, float) and math.isfinite(v) for v in band) or not 0 <= band[0] <= band[1] <= band[2]:
        raise ConfigError(f"{where}: lo, typ, hi = {band} must be picojoules with 0 <= lo <= typ <= hi")
    if values["evidence"] not in EVIDENCE or not values["source"] or not isinstance(values["source"], str):
        raise ConfigError(f"{where}: evidence {values['evidence']!r} must be one of {', '.join(EVIDENCE)}, and source a text")
    return Term(Band(*map(float, band)), values["evidence"], values["source"])
