import pytest

from export.targets.limits import CHIP_LIMITS, LIMITS, read_targets, targets
from export.targets.placement import NEEDS
from export.targets.rules import RULES
from zoo.errors import ConfigError

GOOD = 'title = "a chip"\nnote = "a note"\n'


def test_every_limit_has_a_source():
    known = targets()
    assert list(known) == [
        "speck2e",
        "loihi1",
        "loihi2",
        "spinnaker2",
        "xylo",
        "akida1",
        "truenorth",
    ]
    for target in known.values():
        assert target.title and target.note and target.all_limits()
        assert all(len(limit.source) > 10 for limit in target.all_limits())
        assert target.cores is None or (target.cores.source and target.cores.formula)


def test_speck_2e_is_what_its_documents_say():
    speck = targets()["speck2e"]
    assert speck.cores.count == 9 and speck.cores.placement == "whole"
    words = [
        (kind.count, *(kind.resources[key] >> 10 for key in ("kernel_words", "neuron_words")))
        for kind in speck.cores.kinds
    ]
    assert words == [(3, 16, 64), (2, 32, 32), (2, 64, 16), (2, 16, 16)]
    assert all(kind.resources["biases"] == 1024 for kind in speck.cores.kinds)
    numbers = {
        name: limit.value for name, limit in speck.limits.items() if isinstance(limit.value, int)
    }
    sizes = {
        "kernel_size": 16,
        "padding": 7,
        "input_size": 128,
        "output_size": 64,
        "features": 1024,
        "fan_out": 2,
    }
    assert numbers == sizes | {
        "summed_currents": 1,
        "weights_in_series": 0,
        "weight_bits": 8,
        "bias_bits": 8,
        "state_bits": 16,
    }
    assert speck.limits["strides"].value == (1, 2, 4, 8) and speck.limits["pools"].value == (
        1,
        2,
        4,
    )


def test_every_limit_and_resource_has_a_rule():
    assert set(RULES) == set(LIMITS) - {"weight_scale"}
    used = {
        key
        for target in targets().values()
        if target.cores
        for kind in target.cores.kinds
        for key in kind.resources
    }
    assert used <= set(NEEDS)
    assert all(set(target.chip) <= set(CHIP_LIMITS) for target in targets().values())


def limit(value, part="limits", name="fan_out", source=', source = "s"'):
    """A chip with one limit."""
    return f"[x]\n{GOOD}[x.{part}]\n{name} = {{ value = {value}{source} }}"


def cores(kinds, placement="whole"):
    """A chip with cores."""
    head = f'[x]\n{GOOD}[x.cores]\nplacement = "{placement}"\n'
    return f'{head}kinds = {kinds}\nformula = "f"\nsource = "s"'


LIMITS_OF_X = "target 'x', limits"
CORES_OF_X = "target 'x', cores"
NEEDED = "needed are value, source"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[x]\ntitle = 1", "target 'x': note is missing; needed are title, note"),
        ("[x]\ntitle = 1\nnote = 'n'", "target 'x': title = 1 must be text"),
        ("x = 3", "target 'x' = 3 must be a table of title, note, limits, input, chip, cores"),
        (f"[x]\n{GOOD}[x.other]", "target 'x': unknown key 'other'; did you mean note? valid are"),
        (f"[x]\n{GOOD}limits = 3", "target 'x': limits = 3 must be a table"),
        (limit(3, name="colour"), f"{LIMITS_OF_X}: unknown key 'colour'; valid are operations, "),
        (
            limit(3, name="fan_outs"),
            f"{LIMITS_OF_X}: unknown key 'fan_outs'; did you mean fan_out?",
        ),
        (limit(3, source=""), f"{LIMITS_OF_X}, fan_out: source is missing; {NEEDED}"),
        (
            f"[x]\n{GOOD}[x.limits]\nfan_out = 3",
            f"{LIMITS_OF_X}: fan_out = 3 must be a table of value, source, secondary",
        ),
        (limit(3, source=', source = " "'), "fan_out: source = ' ' must be a line of text"),
        (
            limit(3, source=', source = "s", secondary = 1'),
            "fan_out: secondary = 1 must be true or false",
        ),
        (limit(-3), f"{LIMITS_OF_X}, fan_out: value = -3 must be at least 0"),
        (limit("true"), "fan_out: value = true must be a whole number"),
        (limit(3, name="strides"), "strides: value = 3 must be a list of whole numbers"),
        (limit([], name="strides"), "strides: value = [] must be non-empty"),
        (limit([1, -1], name="strides"), "strides: entry 2 of value = -1 must be at least 0"),
        (
            limit(["lif"], name="neuron_models"),
            "entry 1 of value = 'lif' must be one of 'IF', 'LIF', 'CubaLIF', 'memoryless'",
        ),
        (
            limit('"chip"', name="weight_scale"),
            "weight_scale: value = 'chip' must be one of 'layer', 'channel'",
        ),
        (
            limit(3, part="chip"),
            "target 'x', chip: unknown key 'fan_out'; valid are inputs, neurons, ",
        ),
        (
            cores([], placement="p"),
            f"{CORES_OF_X}: placement = 'p' must be one of 'whole', 'split'",
        ),
        (cores([]), f"{CORES_OF_X}: kinds = [] must be non-empty"),
        (cores(3), f"{CORES_OF_X}: kinds = 3 must be a list of tables"),
        (
            cores("[3]"),
            f"{CORES_OF_X}: entry 1 of kinds = 3 must be a table of count, kernel_words, ",
        ),
        (
            cores("[{ count = 3 }]"),
            f"{CORES_OF_X}, kinds, entry 1: a kind of core needs a resource; valid are kernel",
        ),
        (cores("[{ neurons = 3 }]"), f"{CORES_OF_X}, kinds, entry 1: count is missing"),
        (cores("[{ count = 0, neurons = 1 }]"), "kinds, entry 1: count = 0 must be at least 1"),
        (cores("[{ count = 1, neurons = 0 }]"), "kinds, entry 1: neurons = 0 must be at least 1"),
        (
            cores("[{ count = 3, words = 1 }]"),
            f"{CORES_OF_X}, kinds, entry 1: unknown key 'words'; valid are count, ",
        ),
        (
            cores("[{ count = 1, neurons = 1 }, { count = 1, neurons = 2 }]", placement="split"),
            f"{CORES_OF_X}: cores between which layers are split are of one kind",
        ),
        ("[x", "cannot be read as a file of targets"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, text, words):
    path = tmp_path / "targets.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"^[^\n]+$") as error:
        read_targets(path)
    assert words in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read as a file of targets"):
        read_targets(tmp_path / "none.toml")
