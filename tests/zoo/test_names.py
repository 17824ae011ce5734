"""The grammar of names, the manifest, and what a name costs: no torch."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo.danet import DANetConfig
from zoo.datasets import DATASETS, PUBLISHED
from zoo.errors import ConfigError, UnknownName
from zoo.families import FAMILIES
from zoo.manifest import Manifest, read_manifest
from zoo.names import ModelSpec, architectures

ALL = [
    (family, depth, variant)
    for family in FAMILIES
    for depth in FAMILIES[family].depths
    for variant in FAMILIES[family].variants
]


@pytest.mark.parametrize("dataset", [None, *DATASETS])
@pytest.mark.parametrize("steps", [1, 4, 1024])
def test_every_name_parses_back(steps: int, dataset: str | None) -> None:
    for family, depth, variant in ALL:
        spec = ModelSpec(family, depth, variant, steps, dataset)
        assert ModelSpec.parse(spec.name) == spec
        assert spec.name == f"{family}{depth}{variant}-t{steps}" + (
            f".{dataset}" if dataset else ""
        )


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("danet50a-t4", "danet50-t4"),
        ("danet20a-t2.fmnist", "danet20-t2.fmnist"),
        ("sew-resnet18add-t4", "sew-resnet18-t4"),
    ],
)
def test_the_understood_variant_may_be_said(long: str, short: str) -> None:
    assert ModelSpec.parse(long).name == short


@pytest.mark.parametrize(
    ("smaller", "zeros", "bits", "fewer_synops"),
    [
        ("", 0, 0, False),
        ("-p90", 0.9, 0, False),
        ("-w8", 0, 8, False),
        ("-s50", 0, 0, True),
        ("-p5-w1-s30", 0.05, 1, True),
    ],
)
@pytest.mark.parametrize("data", ["cifar10", "i2e-fmnist"])
def test_a_name_says_how_a_network_was_made_smaller(
    smaller: str, zeros: float, bits: int, fewer_synops: bool, data: str
) -> None:
    spec = ModelSpec.parse(f"danet20-t4.{data}{smaller}")
    assert (spec.zeros, spec.weight_bits, spec.fewer_synops) == (zeros, bits, fewer_synops)
    assert (spec.dataset, spec.name) == (data, f"danet20-t4.{data}{smaller}")
    assert spec.config(spec.data) == ModelSpec.parse(f"danet20-t4.{data}").config(spec.data)


@pytest.mark.parametrize("smaller", ["-p0", "-p100", "-w4", "-w8-p90", "-p", "-x5"])
def test_no_other_words_follow_the_data(smaller: str) -> None:
    with pytest.raises(UnknownName, match=r"unknown model|after the data come -p1 to -p99"):
        ModelSpec.parse(f"danet20-t4.fmnist{smaller}")
    with pytest.raises(UnknownName, match="unknown model"):
        ModelSpec.parse(f"danet20-t4{smaller}")


@pytest.mark.parametrize(("family", "depth", "variant"), ALL)
def test_every_name_means_a_network(family: str, depth: int, variant: str) -> None:
    for data in DATASETS.values():
        config = DANetConfig.from_dict(ModelSpec(family, depth, variant, 3).config(data))
        assert (config.in_channels, config.num_classes, config.steps) == (
            data.channels,
            data.num_classes,
            3,
        )
        # ResNet counts the stem, the convolutions and the classifier
        blocks = (depth - 2) // (3 if config.bottleneck else 2)
        assert sum(config.depths) == blocks


UNKNOWN = [
    *(
        "",
        "danet",
        "danet18",
        "danet-t4",
        "danet18-t",
        "resnet18-t4",
        "danet18-t4.",
        "danet18-t4.in1k.in1k",
        "danet18-t-4",
    ),
    *(
        "DANet18-t4",
        " danet18-t4",
        "danet18-t4\n",
        "danet18e-t4",
        "danet19-t4",
        "danet18and-t4",
        "danet18add-t4",
        "sew-resnet18b-t4",
    ),
    *(
        "sew-resnet18a-t4",
        "spiking-resnet18a-t4",
        "ms-resnet50-t4",
        "danet9999-t4",
        "danet" + "9" * 5000 + "-t4",
        "danet18-t99999",
    ),
    *("danet１８-t4", "💥"),  # noqa: RUF001  # full-width digits, on purpose
]


@pytest.mark.parametrize("name", ["../danet18-t4", "danet18-t4/", "org/pets", "a\nb/c"], ids=repr)
def test_a_path_is_no_unknown_model_but_a_folder_that_is_not_there(name: str) -> None:
    with pytest.raises(UnknownName) as error:
        zoo.info(name)
    hub = "; a model on the Hub is hf:org/pets" if name == "org/pets" else ""
    assert str(error.value) == f"{name!r}: there is no such model folder{hub}"


@pytest.mark.parametrize("name", UNKNOWN, ids=lambda name: repr(name[:24]))
def test_an_unknown_name_is_answered_with_names_that_are_near(name: str) -> None:
    with pytest.raises(
        UnknownName,
        match=r"^unknown model .*(; nearest are \S+(, \S+)*)? \(see `zoo list --all`\)$",
    ) as error:
        ModelSpec.parse(name)
    assert repr(name) in str(error.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("danet51-t4", "danet50-t4"),
        ("dannet18-t4", "danet18-t4"),
        ("sewresnet34-t4", "sew-resnet34-t4"),
    ],
)
def test_a_typing_error_finds_the_name_meant(name: str, meant: str) -> None:
    with pytest.raises(UnknownName, match=rf"\b{meant}\b"):
        ModelSpec.parse(name)


def test_nothing_is_near_to_nonsense() -> None:
    with pytest.raises(UnknownName, match=r"^unknown model 'xyzzy' \(see `zoo list --all`\)$"):
        ModelSpec.parse("xyzzy")


def test_nearest_names_include_those_with_weights(bundled: Path) -> None:
    with pytest.raises(UnknownName, match=r"danet20-t2\.fmnist"):
        ModelSpec.parse("danet20-t2-fmnist")


@pytest.mark.parametrize("steps", [0, 1025, 9999])
def test_steps_out_of_range_are_said_to_be(steps: int) -> None:
    with pytest.raises(UnknownName, match=rf"T = {steps} time steps; valid are 1 to 1024"):
        ModelSpec.parse(f"danet18-t{steps}")


def test_an_unknown_data_set_is_answered_with_the_known() -> None:
    with pytest.raises(
        UnknownName,
        match="unknown data set 'mnist'; nearest are nmnist, fmnist, ",
    ):
        ModelSpec.parse("danet18-t4.mnist")


def test_a_bare_name_means_the_default_data_set(bundled: Path) -> None:
    known = read_manifest()
    assert ModelSpec.parse("danet20-t2").resolved().name == "danet20-t2.fmnist"
    assert ModelSpec.parse("danet20-t2.cifar10").resolved().name == "danet20-t2.cifar10"
    assert ModelSpec.parse("danet18-t4").resolved().name == "danet18-t4.in1k"
    assert (known.tags("danet20-t2"), known.tags("danet18-t4")) == (["fmnist"], [])


def test_list_models(bundled: Path) -> None:
    assert zoo.list_models() == architectures() == [ModelSpec(*spec, 4).name for spec in ALL]
    assert zoo.list_models("sew-resnet18*") == [
        "sew-resnet18-t4",
        "sew-resnet18and-t4",
        "sew-resnet18iand-t4",
    ]
    assert zoo.list_models(pretrained=True) == ["danet20-t2.fmnist"]
    assert zoo.list_models("*.in1k", pretrained=True) == []


def test_info(bundled: Path) -> None:
    known, unknown = zoo.info("danet20-t2"), zoo.info("danet50b-t8")
    assert (known.name, known.data.tag, known.config["order"]) == (
        "danet20-t2.fmnist",
        "fmnist",
        "a",
    )
    assert known.weights is not None and known.weights.metrics["top1"] == 0.2
    assert (unknown.name, unknown.weights, unknown.config["steps"], unknown.config["order"]) == (
        "danet50b-t8.in1k",
        None,
        8,
        "b",
    )


def broken(values: dict[str, Any], **changes: Any) -> str:
    entry = values["weights"]["danet20-t2.fmnist"] | changes
    return json.dumps(values | {"weights": {"danet20-t2.fmnist": entry}})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda _: "{", "manifest.json is not JSON"),
        (lambda _: "[]", "manifest.json holds no JSON object"),
        (
            lambda values: json.dumps(values | {"version": 2}),
            "version = 2, but this zoo reads version 1",
        ),
        (lambda values: json.dumps({"version": 1, "weights": {}}), "defaults is missing"),
        (
            lambda values: broken(values, provenance="borrowed"),
            "'danet20-t2.fmnist': provenance = 'borrowed' must be 'trained' or 'converted'",
        ),
        (
            lambda values: broken(values, provenance="unknown"),
            "'danet20-t2.fmnist': provenance = 'unknown' must be 'trained' or 'converted'",
        ),
        (
            lambda values: broken(values, files={"a": {}}),
            "'danet20-t2.fmnist', files, a: sha256 is missing",
        ),
        (
            lambda values: broken(values, files={"a": {"sha256": "0", "bytes": 1}}),
            "files, a: sha256 = '0' must be 64 hexadecimal digits",
        ),
        (
            lambda values: broken(values, colour="red"),
            "'danet20-t2.fmnist': unknown key 'colour'; valid are files, data, metrics",
        ),
    ],
)
def test_a_broken_manifest_is_refused(bundled: Path, change: Any, said: str) -> None:
    path = bundled / "manifest.json"
    path.write_text(change(json.loads(path.read_text())))
    with pytest.raises(ConfigError) as error:
        Manifest.read(path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_manifest_of_this_installation_fits_its_networks() -> None:
    known = read_manifest()
    for name, weights in known.weights.items():
        assert weights.name == name == ModelSpec.parse(name).name
        data = DATASETS[weights.data.tag]
        assert weights.data in (data, data.stored_as("JPEG"))
        assert {"config.json", "model.safetensors"} <= weights.files.keys()
    for architecture, tag in known.defaults.items():
        reached = {
            name: entry.metrics["top1"]
            for name, entry in known.weights.items()
            if name.partition(".")[0] == architecture
        }
        assert f"{architecture}.{tag}" == max(reached, key=lambda name: reached[name])


def test_a_data_set_is_one_entry_and_one_recipe() -> None:
    recipes = Path(zoo.__file__).parent / "training" / "recipes"
    for tag, published in PUBLISHED.items():
        assert published.spec is DATASETS[tag] and published.spec.tag == tag
        assert published.reference and (recipes / f"{tag}.toml").is_file()
        # Facts of the publication are not stored in model folders.
        assert published.spec.to_dict().keys().isdisjoint({"hub", "lossless", "reference"})


QUICK = [
    "import zoo",
    "import zoo.names",
    "import zoo.hub",
    "import zoo; zoo.list_models(); zoo.info('danet152-t4')",
]


@pytest.mark.parametrize("statement", QUICK)
def test_names_are_known_without_torch(statement: str) -> None:
    code = f"{statement}; import sys; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(zoo.__file__).parents[1]).returncode
        == 0
    )
