import math
from dataclasses import astuple

import pytest

from export.energy.devices import Band, Device, Term, find_devices, read_devices
from export.energy.operations import OPERATIONS, Operation
from zoo.errors import ConfigError

SRAM = {"sram_8k": 10, "sram_32k": 20, "sram_1m": 100, "dram": (1300, 1950, 2600)}
SAME_TERMS = ("update", "idle_update")


def arithmetic(update, **prices):
    """The prices of a device at 45 nm, where an idle update costs as much as any other."""
    return prices | dict.fromkeys(SAME_TERMS, update) | SRAM


CONSTANTS = {  # a number, or lo, typ, hi
    "45nm-fp32": arithmetic(5.5, mac=4.6, ac=0.9, add=0.9, multiply=3.7),
    "45nm-fp16": arithmetic(1.9, mac=1.5, ac=0.4, add=0.4, multiply=1.1),
    "45nm-int8": arithmetic(
        (0.26, 0.26, 0.4),
        mac=(0.23, 0.23, 0.3),
        ac=(0.03, 0.03, 0.1),
        add=(0.03, 0.03, 0.1),
        multiply=0.2,
    ),
    "loihi1": {
        "ac": 23.6,
        "add": (0, 23.6, 23.6),
        "update": 81,
        "idle_update": 52,
        "hop": (3, 3.5, 4),
    },
    "truenorth": {"ac": 26},
    "odin": {"ac": (8.43, 12.7, 12.7)},
    "darwin3": {"ac": 5.47},
    "tianjic": {"ac": 1.54},
    "seneca": {"ac": 2.8},
    "reckon": {"ac": 5.3},
    "ubrain": {"ac": 26},
    "neuronflow": {"ac": 20},
    "spinnaker1": {
        "ac": 13_300,
        "add": (0, 13_300, 13_300),
        "update": 26_000,
        "idle_update": 26_000,
    },
    "spinnaker2": {"ac": (10, 67, 450)},
    "rolls": {"ac": 0.077},
    "cpu": {"mac": 8_600},
    "gpu": {"mac": 300},
    "arm": {"mac": 900},
    "loihi2": {},
    "speck": {},
    "akida": {},
    "xylo": {},
}
EVIDENCE = {
    "measured": {"truenorth", "odin", "darwin3"},
    "simulated": {"loihi1"},
    "derived": {"spinnaker2"},
}

GOOD = 'lo = 1, typ = 2, hi = 3, evidence = "measured", source = "a paper"'
HEAD = '[chip]\ntitle = "a chip"\nscope = "per term"\n'


def device(scope="per term", **prices):
    bands = {
        name: price if isinstance(price, Band) else Band(price, price, price)
        for name, price in prices.items()
    }
    return Device(
        "chip",
        "a chip",
        scope,
        "",
        {name: Term(*astuple(band), "measured", "a paper") for name, band in bands.items()},
    )


def written(tmp_path, text, name="mine.toml"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refused(call):
    """The message, which is one line."""
    with pytest.raises(ConfigError) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and len(message) < 1000
    return message


def test_every_constant():
    found = read_devices()
    assert list(found) == list(CONSTANTS)
    for name, terms in CONSTANTS.items():
        bands = {
            key: Band(*(price if isinstance(price, tuple) else (price,) * 3))
            for key, price in terms.items()
        }
        assert {key: term.band for key, term in found[name].terms.items()} == bands, name
    assert {name for name, p in found.items() if p.scope == "all in"} == {"truenorth", "odin"}
    assert {name for name, p in found.items() if not p.terms and "no total" in p.note} == {
        "loihi2",
        "speck",
        "akida",
        "xylo",
    }
    assert round(math.sqrt(10 * 450)) == 67
    for name in found.keys() - {"45nm-fp32", "45nm-fp16", "45nm-int8"}:
        expected = next((key for key, names in EVIDENCE.items() if name in names), "unstated")
        evidence = {key: term.evidence for key, term in found[name].terms.items()}
        if name in {"loihi1", "spinnaker1"}:  # an addition is a synaptic operation at most
            assert evidence.pop("add") == "derived"
        assert set(evidence.values()) <= {expected}, name


def test_a_device_of_45_nm_prices_all_but_hops():
    for name in ("45nm-fp32", "45nm-fp16", "45nm-int8"):
        unpriced = [
            kind for kind in OPERATIONS if read_devices()[name].price(Operation(kind, 8192)) is None
        ]
        assert unpriced == ["hop"]


@pytest.mark.parametrize(
    ("size", "picojoules"),
    [
        (0, 10),
        (8191, 10),
        (8192, 10),
        (20480, 15),  # halfway
        (32768, 20),
        (540672, 60),  # halfway
        (1048576, 100),
        (2064384, 180),  # as far again
    ],
)
def test_an_access_is_linear_in_the_size_of_its_memory(size, picojoules):
    prices = device(sram_8k=Band(5, 10, 20), sram_32k=Band(10, 20, 40), sram_1m=Band(50, 100, 200))
    assert prices.price(Operation("access", size)) == Band(
        picojoules / 2, picojoules, picojoules * 2
    )


def test_a_band_stays_one_beyond_the_last_size():
    prices = device(sram_8k=Band(1, 9, 9), sram_32k=Band(1, 9, 9), sram_1m=Band(9, 9, 9))
    assert prices.price(Operation("access", 2**24)) == Band(9, 9, 9)


def test_what_has_no_price():
    partial = device(ac=1, sram_8k=1, sram_1m=2)
    assert partial.price(Operation("ac")) == Band(1, 1, 1)
    assert partial.price(Operation("mac")) is None
    assert partial.price(Operation("access", 8192)) is None  # one of the three sizes is missing


def test_all_in_pays_for_everything_but_multiplications():
    everything = device("all in", ac=26)
    assert {kind: everything.price(Operation(kind, 64)) for kind in OPERATIONS} == {
        "mac": None,
        "ac": Band(26, 26, 26),
        "add": Band(0, 0, 0),
        "multiply": None,
        "update": Band(0, 0, 0),
        "idle_update": Band(0, 0, 0),
        "hop": Band(0, 0, 0),
        "access": Band(0, 0, 0),
    }
    # nothing pays
    assert {device("all in").price(Operation(kind)) for kind in OPERATIONS} == {None}


def test_a_file_of_ones_own(tmp_path):
    text = (
        HEAD
        + f'note = "mine"\nac = {{ {GOOD} }}\n["other chip"]\ntitle = "another"\nscope = "all in"\n'
    )
    found = read_devices(written(tmp_path, text.replace("\n", "\r\n")))
    assert found["chip"] == Device(
        "chip", "a chip", "per term", "mine", {"ac": Term(1, 2, 3, "measured", "a paper")}
    )
    assert found["other chip"] == Device("other chip", "another", "all in", "", {})


def test_find_profiles(tmp_path):
    shipped = read_devices()
    path = written(tmp_path, HEAD + f"ac = {{ {GOOD} }}\n")
    assert list(find_devices([])) == list(shipped)
    found = find_devices(["loihi1", str(path), "45nm-fp32", "loihi1", str(path)])
    assert found == {
        "loihi1": shipped["loihi1"],
        "chip": read_devices(path)["chip"],
        "45nm-fp32": shipped["45nm-fp32"],
    }
    assert list(found) == ["loihi1", "chip", "45nm-fp32"]


def test_find_profiles_refuses(tmp_path):
    message = refused(lambda: find_devices(["loihi3"]))
    valid = f"valid are {', '.join(CONSTANTS)}, or a .toml file"
    assert message == f"device 'loihi3': no such one; nearest are loihi2, loihi1; {valid}"
    mine = written(tmp_path, HEAD + '\n["loihi1"]\ntitle = "t"\nscope = "all in"\n')
    assert f"{mine}', line 5: device 'loihi1': a shipped device has this name" in refused(
        lambda: find_devices([str(mine)])
    )
    first, second = (written(tmp_path, HEAD, name) for name in ("first.toml", "second.toml"))
    assert f"{second}', line 1: device 'chip': one of another file" in refused(
        lambda: find_devices([str(first), str(second)])
    )


AC = "device 'chip', ac"
CHIP = "device 'chip'"
OTHER = "device 'other'"


def term(name="ac", old="", new=""):
    """A good term, with one text in it replaced."""
    return f"{name} = {{ {GOOD.replace(old, new)} }}"


@pytest.mark.parametrize(
    ("body", "line", "message"),
    [
        (
            "spike = 3",
            4,
            f"{CHIP}: unknown key 'spike'; did you mean scope? valid are title, scope,",
        ),
        (
            "spike = 3",
            4,
            ", note, arithmetic, mac, ac, add, multiply, update, idle_update, hop, ",
        ),
        (
            term("access"),
            4,
            f"{CHIP}: unknown key 'access'; valid are title, scope, note, ",
        ),
        ("ac = 3", 4, f"{CHIP}: ac = 3 must be a table of lo, typ, hi, evidence, source"),
        ("ac = [1, 2, 3]", 4, f"{CHIP}: ac = [1, 2, 3] must be a table of lo, typ, hi, evidence"),
        (
            f"{term('mac')}\n\n  {term('ac', 'typ = 2, ')}",
            6,
            f"{AC}: typ is missing; needed are lo, typ,",
        ),
        (
            f"ac = {{ {GOOD}, unit = 1 }}",
            4,
            f"{AC}: unknown key 'unit'; valid are lo, typ, hi, evidence, source",
        ),
        (term("ac", "lo = 1", "lo = -1"), 4, f"{AC}: lo = -1 must be from 0 to 1e+12 picojoules"),
        (term("ac", "typ = 2", "typ = nan"), 4, f"{AC}: typ = nan must be finite"),
        (term("ac", "hi = 3", "hi = inf"), 4, f"{AC}: hi = inf must be finite"),
        (term("ac", "hi = 3", "hi = 1e13"), 4, f"{AC}: hi = 10000000000000.0 must be from 0 to"),
        (term("ac", "hi = 3", "hi = 0x" + "f" * 9000), 4, f"{AC}: hi = 0xffff"),
        (term("ac", "lo = 1", "lo = true"), 4, f"{AC}: lo = true must be a number"),
        (term("ac", "lo = 1", "lo = {}"), 4, f"{AC}: lo = {{}} must be a number"),
        (term("ac", "typ = 2", "typ = 4"), 4, f"{AC}: lo, typ, hi = 1, 4, 3 must not fall"),
        (
            term("ac", "measured", "rumour"),
            4,
            f"{AC}: evidence = 'rumour' must be one of 'measured', 'simulated', 'derived', ",
        ),
        (term("ac", "a paper", ""), 4, f"{AC}: source = '' must be a line of text"),
        ("note = 3", 4, f"{CHIP}: note = 3 must be text"),
        (
            'note = """\ntwo\nlines"""',
            4,
            f"{CHIP}: note = 'two\\nlines' must be a line of text",
        ),
        (
            f"{term('sram_1m')}\n{term('sram_8k', 'hi = 3', 'hi = 4')}",
            4,
            f"{CHIP}: sram_1m must cost at least as much as sram_8k",
        ),
        ("ac.lo = 1\nac.typ = 2", 4, f"{AC}: hi is missing"),
        (
            '[ chip . "ac" ]  # a table\nlo = 1\n\n"typ" = -2\nhi = 3\n'
            'evidence = "derived"\nsource = "s"',
            7,
            f"{AC}: typ = -2",
        ),
        (
            "[chip.ac]\nlo = 1\ntyp = 2\nevidence = 'derived'\nsource = 's'\n[chip.mac]",
            4,
            f"{AC}: hi is missing",
        ),
        ('note = "[chip.ac]"\n# [chip.ac]\n[chip.ac]\nlo = 1', 6, f"{AC}: typ is missing"),
        (
            f'[other]\ntitle = """\\\n[other]\\\nhop = 1"""\nscope = "all in"\n{term("hop")}',
            9,
            f"{OTHER}: scope 'all in' forbids hop: ",
        ),
        (
            "[other]\nscope = 'all in'",
            4,
            f"{OTHER}: title is missing; needed are title, scope",
        ),
        ("['other']\ntitle = 't'", 4, f"{OTHER}: scope is missing"),
        ("[other]\ntitle = 3\nscope = 'all in'", 5, f"{OTHER}: title = 3 must be text"),
        (
            "[other]\ntitle = 't'\nscope = 'some'",
            6,
            f"{OTHER}: scope = 'some' must be one of 'per term', 'all in'",
        ),
        (
            "[other]\ntitle = 't'\nscope = ['all in']",
            6,
            f"{OTHER}: scope = ['all in'] must be one of 'per term', 'all in'",
        ),
        (
            "[[other]]\ntitle = 't'",
            4,
            f"{OTHER} = [{{'title': 't'}}] must be a table of title, scope, note, ",
        ),
        ('["a\\nb"]', 4, "device 'a\\nb': name = 'a\\nb' must be a line of text"),
        (f"ac = {{ {GOOD}", 4, "not TOML: Unclosed inline table"),
        ("[chip]", 4, "not TOML: Cannot declare ('chip',) twice"),
        ("note = '''", 4, "not TOML: "),
    ],
)
def test_an_error_names_its_line(tmp_path, body, line, message):
    path = written(tmp_path, HEAD + body)
    found = refused(lambda: read_devices(path))
    assert found.startswith(f"'{path}', line {line}: ") and message in found


@pytest.mark.parametrize("name", ["mac", "update", "sram_8k"])
def test_all_in_forbids_other_terms(tmp_path, name):
    text = f'[chip]\ntitle = "t"\nscope = "all in"\n{term("ac")}\n{term(name)}'
    path = written(tmp_path, text)
    what = f"scope 'all in' forbids {name}: the price of ac holds everything"
    assert refused(lambda: read_devices(path)) == f"'{path}', line 5: device 'chip': {what}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "line 1: no device"),
        ("# nothing\n", "line 1: no device"),
        ("chip = 3", "line 1: device 'chip' = 3 must be a table"),
        (b"[chip]\r\n\xff", "line 2: byte 0xff is not UTF-8"),
        ("a = " + "[" * 100_000, "is nested too deeply"),
        (HEAD + "ac" + ".x" * 5_000 + " = 1", "line 4: device 'chip', ac: unknown key 'x'"),
        ("a = " + "9" * 5_000, "holds a number of more digits than can be read"),
        ("#" * 2**20 + "\n", "has more than 1048576 bytes"),
        ("[" + "x" * 5_000 + "]\n" * 2 + "[" + "x" * 5_000 + "]\n", "line 2: not TOML: "),
    ],
)
def test_files_that_are_none(tmp_path, content, message):
    path = written(tmp_path, content)
    assert message in refused(lambda: read_devices(path))


def test_paths_that_are_none(tmp_path):
    assert (
        refused(lambda: read_devices(tmp_path))
        == f"'{tmp_path}' cannot be read: Is a directory; a file of devices is needed"
    )
    assert "cannot be read: No such file" in refused(
        lambda: find_devices([str(tmp_path / "no\nfile.toml")])
    )
    assert "cannot be read" in refused(lambda: find_devices(["zero\0.toml"]))
