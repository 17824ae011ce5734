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
        (count, kind["kernel_words"] >> 10, kind["neuron_words"] >> 10, kind["biases"])
        for count, kind in speck.cores.kinds
    ]
    assert words == [(3, 16, 64, 1024), (2, 32, 32, 1024), (2, 64, 16, 1024), (2, 16, 16, 1024)]
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
        for _, kind in target.cores.kinds
        for key in kind
    }
    assert used <= set(NEEDS)
    assert all(set(target.chip) <= set(CHIP_LIMITS) for target in targets().values())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[x]\ntitle = 1", "target 'x': needs a title"),
        (f"[x]\n{GOOD}[x.other]", "target 'x': has no part 'other'"),
        (f"[x]\n{GOOD}limits = 3", "target 'x', limits: must be a table"),
        (
            f'[x]\n{GOOD}[x.limits]\ncolour = {{ value = 3, source = "s" }}',
            "target 'x', limits, 'colour': no such limit",
        ),
        (
            f"[x]\n{GOOD}[x.limits]\nfan_out = {{ value = 3 }}",
            "target 'x', limits, 'fan_out': needs exactly source, value",
        ),
        (
            f"[x]\n{GOOD}[x.limits]\nfan_out = 3",
            "target 'x', limits, 'fan_out': needs exactly source, value",
        ),
        (
            f'[x]\n{GOOD}[x.limits]\nfan_out = {{ value = 3, source = " " }}',
            "'fan_out': source must be a text",
        ),
        (
            f'[x]\n{GOOD}[x.limits]\nfan_out = {{ value = 3, source = "s", secondary = 1 }}',
            "secondary true or false",
        ),
        (
            f'[x]\n{GOOD}[x.limits]\nfan_out = {{ value = -3, source = "s" }}',
            "value = -3, where a number is expected",
        ),
        (
            f'[x]\n{GOOD}[x.limits]\nfan_out = {{ value = true, source = "s" }}',
            "value = True, where a number is expected",
        ),
        (
            f'[x]\n{GOOD}[x.limits]\nstrides = {{ value = 3, source = "s" }}',
            "value = 3, where a list of numbers is expected",
        ),
        (
            f'[x]\n{GOOD}[x.limits]\nneuron_models = {{ value = ["lif"], source = "s" }}',
            "where a list of IF, LIF",
        ),
        (
            f'[x]\n{GOOD}[x.limits]\nweight_scale = {{ value = "chip", source = "s" }}',
            "where layer or channel is expected",
        ),
        (
            f'[x]\n{GOOD}[x.chip]\nfan_out = {{ value = 3, source = "s" }}',
            "target 'x', chip, 'fan_out': no such limit",
        ),
        (
            f'[x]\n{GOOD}[x.cores]\nplacement = "p"\nkinds = []\nformula = "f"\nsource = "s"',
            "placement must be one of whole, split",
        ),
        (
            f'[x]\n{GOOD}[x.cores]\nplacement = "whole"\nkinds = []\nformula = "f"\nsource = "s"',
            "needs kinds of cores",
        ),
        (
            f'[x]\n{GOOD}[x.cores]\nplacement = "whole"\nkinds = 3\nformula = "f"\nsource = "s"',
            "None is no kind of core",
        ),
        (
            f'[x]\n{GOOD}[x.cores]\nplacement = "whole"\nkinds = [{{ count = 3 }}]\nformula = "f"\nsource = "s"',
            "is no kind of core",
        ),
        (
            f'[x]\n{GOOD}[x.cores]\nplacement = "whole"\nkinds = [{{ count = 3, words = 1 }}]\nformula = "f"\nsource = "s"',
            "no such resource 'words'",
        ),
        ("[x", "is not a file of targets"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path, text, words):
    path = tmp_path / "targets.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"^[^\n]+$") as error:
        read_targets(path)
    assert words in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.toml is not a file of targets"):
        read_targets(tmp_path / "none.toml")
