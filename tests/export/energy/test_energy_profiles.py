import numpy as np
import pytest

from export.energy import Band, LayerCounts, Profile, Term, energy, read_profiles
from zoo.errors import ConfigError


def row(**counts):
    zero = np.zeros(3, np.int64)
    arrays = {key: counts.pop(key, zero) for key in ("acs", "adds", "spikes")}
    return LayerCounts("layer", "conv", "real", None, 10, **arrays, **counts)


def profile(**prices):
    return Profile("device", "a device", {name: Term(Band(p / 2, p, 2 * p), "measured", "a paper") for name, p in prices.items()})


def test_constants():
    profiles = read_profiles()
    assert list(profiles) == ["45nm-fp32", "45nm-int8", "loihi1"]
    typ = {name: {key: term.band.typ for key, term in p.terms.items()} for name, p in profiles.items()}
    assert typ["45nm-fp32"] == {"mac": 4.6, "ac": 0.9, "add": 0.9, "multiply": 3.7, "update": 5.5}
    assert typ["45nm-int8"] == {"mac": 0.23, "ac": 0.03, "add": 0.03, "multiply": 0.2, "update": 0.26}
    assert typ["loihi1"] == {"ac": 23.6, "update": 81.0}


def test_energy_of_counts():
    rows = [row(acs=np.array([1, 2, 3]), bias_adds=4), row(macs=5, updates=10)]
    e = energy(rows, profile(ac=1.0, add=10.0, mac=100.0, update=1000.0))
    assert e.layers == (Band(21.0, 42.0, 84.0), Band(5250.0, 10500.0, 21000.0))
    assert e.total == Band(5271.0, 10542.0, 21084.0)
    assert e.standard_error == pytest.approx(1 / np.sqrt(3))
    assert e.unpriced == ()


def test_a_term_without_price_leaves_the_total_empty():
    rows = [row(acs=np.array([1, 2, 3])), row(macs=5), row(bias_adds=1)]
    e = energy(rows, profile(ac=1.0))
    assert (e.total, e.standard_error, e.unpriced) == (None, None, ("mac", "add"))
    assert e.layers == (Band(1.0, 2.0, 4.0), None, None)
    assert energy(rows[:1], profile(ac=1.0)).unpriced == ()  # what is not done needs no price


def test_one_image_has_no_standard_error():
    one = np.ones(1, np.int64)
    e = energy([row(acs=one, adds=one, spikes=one)], profile(ac=1.0, add=1.0))
    assert (e.total, e.standard_error) == (Band(1.0, 2.0, 4.0), None)


GOOD = 'lo = 1, typ = 2, hi = 3, evidence = "measured", source = "a paper"'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[chip]\nac = 3", "profile 'chip': needs a title"),
        (f'[chip]\ntitle = "t"\nspike = {{{GOOD}}}', "profile 'chip', term 'spike': no such operation; valid are mac, ac"),
        ('[chip]\ntitle = "t"\nac = 3', "profile 'chip', term 'ac': needs exactly lo, typ, hi, evidence and source"),
        (f'[chip]\ntitle = "t"\nac = {{{GOOD.replace("typ = 2", "typ = 4")}}}', "term 'ac': lo, typ, hi = \\[1, 4, 3\\] must be"),
        (f'[chip]\ntitle = "t"\nac = {{{GOOD.replace("hi = 3", "hi = inf")}}}', "term 'ac': lo, typ, hi = "),
        (f'[chip]\ntitle = "t"\nac = {{{GOOD.replace("lo = 1", "lo = true")}}}', "term 'ac': lo, typ, hi = "),
        (
            f'[chip]\ntitle = "t"\nac = {{{GOOD.replace("measured", "rumour")}}}',
            "term 'ac': evidence 'rumour' must be one of measured",
        ),
        (f'[chip]\ntitle = "t"\nac = {{{GOOD.replace("a paper", "")}}}', "source a text"),
        ("[chip", "is not a file of profiles"),
    ],
)
def test_bad_profiles(tmp_path, text, message):
    path = tmp_path / "profiles.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_profiles(path)
