import copy
import csv
import dataclasses
import io
import json
from dataclasses import replace

import pytest
import torch
from jsonschema import Draft202012Validator, ValidationError
from support.networks import lively

from export.energy import CONVENTIONS, COUNTS, LayerTotals, estimate
from export.energy.devices import EVIDENCE, SCOPES, TERMS
from export.energy.output.json_csv import Difference, differences, same_images, schema
from export.nir.exporter import to_nir

TINY = {"widths": (4, 6, 8)}
VALIDATOR = Draft202012Validator(schema())


def images(n, *, channels=1, size=20):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(4))


def frames(steps, n):
    """Counts of events."""
    return torch.poisson(
        torch.full((steps, n, 2, 20, 20), 0.3), generator=torch.Generator().manual_seed(4)
    )


@pytest.fixture(scope="module")
def report(tiny):
    return estimate(tiny, images(10), list(range(10)), batch=2)


@pytest.fixture(scope="module")
def document(report):
    return report.to_json()


KINDS = {
    "one image without a label": lambda tiny: estimate(tiny, images(1)),
    "no total": lambda tiny: estimate(tiny, images(2), device="loihi2"),
    "memories": lambda tiny: estimate(
        tiny, images(2), convention="lemaire", device=["45nm-int8", "truenorth"]
    ),
    "events": lambda tiny: estimate(lively("danet20-t2.nmnist", 20, **TINY), frames(2, 3)),
    "sums of spikes": lambda tiny: estimate(
        lively("sew-resnet20-t2.fmnist", 20, **TINY), images(2), convention="syops"
    ),
    "currents": lambda tiny: estimate(lively("ms-resnet20-t2.fmnist", 20, **TINY), images(2)),
}


def test_the_schema_is_one():
    Draft202012Validator.check_schema(schema())
    assert "3" in schema()["$id"]


def test_the_schema_knows_all_that_is_counted():
    kinds = schema()["$defs"]
    assert tuple(kinds["counts"]["required"]) == COUNTS
    assert {field.name for field in dataclasses.fields(LayerTotals)} <= set(
        kinds["layer"]["required"]
    )
    assert tuple(kinds["profile"]["properties"]["terms"]["properties"]) == TERMS
    assert tuple(kinds["profile"]["properties"]["scope"]["enum"]) == SCOPES
    assert tuple(kinds["term"]["properties"]["evidence"]["enum"]) == EVIDENCE


def test_every_object_is_closed_and_every_number_described():
    def walk(node):
        if isinstance(node, dict):
            yield node
        for child in (
            node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        ):
            yield from walk(child)

    for node in walk(schema()):
        if node.get("type") == "object":
            assert "additionalProperties" in node
            assert sorted(node.get("required", ())) == sorted(
                node["properties"] if "required" in node else ()
            )
        for name, value in node.get("properties", {}).items():
            if isinstance(value, dict) and value.get("type") in ("number", "integer"):
                assert value.get("description"), name


@pytest.mark.parametrize("kind", KINDS)
def test_schema_and_round_trip(tiny, kind):
    document = KINDS[kind](tiny).to_json()
    VALIDATOR.validate(document)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_schema_of_a_labelled_report(document):
    VALIDATOR.validate(document)
    assert json.loads(json.dumps(document, allow_nan=False)) == document


CHANGES = [
    lambda d: d.update(images=2.5),
    lambda d: d.update(accuracy=1.5),
    lambda d: d.update(schema=1),
    lambda d: d.pop("convention"),
    lambda d: d.update(extra=1),
    lambda d: d["counts"].update(acs=-1),
    lambda d: d["counts"].pop("spikes"),
    lambda d: d["source"].update(steps=0),
    lambda d: d["profiles"][0]["total_pj"].update(typ="1"),
    lambda d: d["profiles"][0]["terms"].update(
        laser={"lo": 1, "typ": 1, "hi": 1, "evidence": "measured", "source": "x"}
    ),
    lambda d: d["profiles"][0]["terms"]["mac"].update(evidence="felt"),
    lambda d: d["profiles"][0]["interval_pj"].pop("lo"),
    lambda d: d["conventions"][0]["operations"].update(ac=0.5),
    lambda d: d["conventions"][0]["operations"].update(access=1),
    lambda d: d["comparison"]["alternatives"][0].update(ratio=2),
    lambda d: d["layers"][0].update(kind="attention"),
    lambda d: d["layers"][0].pop("weight_bytes"),
    lambda d: d["images_operations"]["ac"].append(None),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_document_fails(document, change):
    wrong = copy.deepcopy(document)
    change(wrong)
    with pytest.raises(ValidationError):
        VALIDATOR.validate(wrong)


def test_what_it_says(report, document):
    assert (document["schema"], document["convention"], document["images"]) == (3, "exact", 10)
    assert document["source"]["data"] == "Fashion-MNIST"
    assert document["accuracy"] == report.accuracy
    assert [c["name"] for c in document["conventions"]] == list(CONVENTIONS)
    assert document["counts"] == {
        key: sum(layer["counts"][key] for layer in document["layers"]) for key in COUNTS
    }
    assert sum(document["firing_rate_per_step"]) / 2 == pytest.approx(document["firing_rate"])
    fp32 = document["profiles"][0]
    assert fp32["total_pj"]["typ"] == pytest.approx(
        sum(layer["energy_pj"]["45nm-fp32"]["typ"] for layer in document["layers"])
    )
    assert fp32["interval_pj"]["lo"] <= fp32["total_pj"]["typ"] <= fp32["interval_pj"]["hi"]
    loihi = next(p for p in document["profiles"] if p["name"] == "loihi1")
    assert (loihi["total_pj"], loihi["interval_pj"], loihi["images_for_1_percent"]) == (
        None,
        None,
        None,
    )
    assert "mac" in loihi["unpriced"]
    assert document["comparison"]["profile"] == "45nm-fp32"
    assert {other["accuracy"] for other in document["comparison"]["alternatives"]} == {None}


def test_conventions_are_those_of_the_report(report, document):
    for convention in document["conventions"]:
        for device in report.devices:
            total = report.energy(device, convention["name"]).total
            assert convention["energy_pj"][device.name] == (
                pytest.approx(total.typ, rel=1e-12) if total else None
            )
    exact = document["conventions"][0]["operations"]
    assert {key: sum(n) for key, n in document["images_operations"].items()} == exact
    assert exact["ac"] == document["counts"]["acs"]
    assert exact["update"] + exact["idle_update"] == document["counts"]["updates"]
    assert any(key.startswith("access:") for key in document["conventions"][-1]["operations"])


def test_without_any_total(tiny):
    document = KINDS["no total"](tiny).to_json()
    assert document["comparison"] is None
    assert document["profiles"][0]["total_pj"] is None


def test_one_image_has_no_deviation(tiny):
    document = KINDS["one image without a label"](tiny).to_json()
    assert document["accuracy"] is None
    assert {(p["deviation_pj"], p["interval_pj"]) for p in document["profiles"]} == {(None, None)}


def test_csv_adds_up(report):
    *layers, total = csv.DictReader(io.StringIO(report.to_csv()))
    assert [row["layer"] for row in layers] == [layer.name for layer in report.layers]
    assert total["layer"] == "TOTAL"
    for key in COUNTS:
        assert int(total[key]) == report.total(key) == sum(int(row[key]) for row in layers)
    for e in report.energies:
        column = f"pJ {e.device.name}"
        assert total[column] == ("" if e.total is None else repr(e.total.typ))
        if e.total:
            assert sum(float(row[column]) for row in layers) == pytest.approx(e.total.typ)
    assert {(row["model"], row["images"], row["convention"]) for row in (*layers, total)} == {
        ("danet20-t2.fmnist", "10", "exact")
    }
    assert float(total["firing_rate"]) == report.mean_rate


def test_csv_holds_no_formula_and_survives_quotes(report):
    names = ["=1+1", "+1", "-1", "@SUM(A1)", 'a "b", c\nd']
    layers = (
        *(replace(layer, name=name) for layer, name in zip(report.layers, names, strict=False)),
        *report.layers[len(names) :],
    )
    odd = replace(report, layers=layers, source=replace(report.source, name="=cmd()"))
    rows = list(csv.reader(io.StringIO(odd.to_csv())))
    assert {len(row) for row in rows} == {len(rows[0])}
    assert [row[5] for row in rows[1:6]] == ["'=1+1", "'+1", "'-1", "'@SUM(A1)", 'a "b", c\nd']
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row)


def test_csv_of_an_unlabelled_report_leaves_accuracy_empty(tiny):
    (first, *_) = csv.DictReader(io.StringIO(KINDS["no total"](tiny).to_csv()))
    assert (first["accuracy"], first["pJ loihi2"]) == ("", "")


def test_differences(report):
    assert differences(report, report) == []
    assert same_images(report, report)
    i = next(i for i, layer in enumerate(report.layers) if layer.kind == "neuron")
    layer = report.layers[i]
    changed = replace(layer, counts=layer.counts | {"spikes": layer.counts["spikes"] + 2})
    other = replace(report, layers=(*report.layers[:i], changed, *report.layers[i + 1 :]))
    spikes = layer.counts["spikes"]
    assert differences(report, other) == [Difference(layer.name, (spikes, spikes + 2))]
    shorter = replace(report, layers=(*report.layers[:i], *report.layers[i + 1 :]))
    assert differences(report, shorter) == [Difference(layer.name, (spikes, None))]


def test_batches_change_no_integer(tiny, report):
    again = estimate(tiny, images(10), batch=10)
    assert differences(report, again) == []
    assert same_images(report, again)


def test_the_same_sums_of_other_images(tiny, report):
    turned = estimate(tiny, images(10).flip(0))
    assert differences(report, turned) == []
    assert not same_images(report, turned)


def test_graphs_for_chips_and_for_simulators_agree():
    model = lively("sew-resnet20-t2.fmnist", 20, **TINY)
    chip, simulator = (
        estimate(to_nir(model, dialect=dialect), images(2)) for dialect in ("native", "portable")
    )
    assert differences(chip, simulator) == []
    assert same_images(chip, simulator)
