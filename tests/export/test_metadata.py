"""The metadata of an exported file: written, read back, and refused in one line."""

import json
from typing import Any

import numpy as np
import pytest
from support.nir_graphs import chain

from export.metadata import STILL_IMAGE, Metadata
from zoo.datasets import DATASETS
from zoo.errors import ExportError, InputError

ENTRIES = {
    "name": "danet20-t4.fmnist",
    "form": "step",
    "steps": "4",
    "data": json.dumps(DATASETS["fmnist"].to_dict()),
    "weights_sha256": "",
    "precision": "int8",
}


def read(**entries: Any) -> Metadata:
    return Metadata.from_strings(ENTRIES | entries, "x.onnx")


def without(key: str) -> Metadata:
    return Metadata({k: v for k, v in ENTRIES.items() if k != key}, "x.onnx")


def test_text_comes_back_as_values() -> None:
    metadata = read()
    assert (metadata.name, metadata.steps, metadata.form) == ("danet20-t4.fmnist", 4, "step")
    assert metadata.data == DATASETS["fmnist"] and metadata.weight_format == "int8"
    assert metadata.provenance == "random" and not metadata.written_by_zoo
    assert metadata.to_strings() == ENTRIES
    metadata.check_network("step")


def test_a_number_is_written_as_python_writes_it() -> None:
    strings = Metadata.of_onnx_graph("toy", "step", 1e-4).to_strings()
    assert [*strings] == ["name", "form", "dt", "zoo_version"] and strings["dt"] == repr(1e-4)


@pytest.mark.parametrize("key", ["name", "steps", "data", "weights_sha256"])
def test_a_missing_entry_is_named(key: str) -> None:
    with pytest.raises(InputError, match=f"^x.onnx has no metadata '{key}': it is none of the zoo"):
        without(key).check_network("step")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"steps": "many"}, "^x.onnx has metadata of no network: invalid literal"),
        ({"data": "{"}, "^x.onnx has metadata of no network: "),
        ({"data": "[]"}, "^x.onnx has metadata of no network: "),
        ({"data": "[" * 100_000}, "^x.onnx has metadata of no network: "),
        ({"form": "sequence"}, "^x.onnx is of the form sequence: write another .* --form step`"),
    ],
)
def test_an_entry_of_another_kind_is_refused_in_one_line(
    entry: dict[str, str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        read(**entry).check_network("step")
    assert "\n" not in str(error.value)


def test_a_file_of_one_form_only_is_a_sequence() -> None:
    assert without("form").form == "sequence"


def test_a_graph_of_somebody_else_says_little() -> None:
    metadata = Metadata.from_graph(chain())
    assert metadata.input_kind is metadata.declared_steps is metadata.get_data() is None
    assert metadata.get_name("graph") == "graph" and metadata.get_weight_format("-") == "-"
    assert metadata.modules == {} and metadata.provenance == "unknown"
    with pytest.raises(ExportError, match="the graph's metadata say dialect = None; an export of"):
        metadata.exported_dialect()


@pytest.mark.parametrize(
    ("steps", "expected"), [(4, 4), (np.int64(4), 4), (0, 0), ("4", 0), (np.array([4, 4]), 0)]
)
def test_steps_of_a_still_image(steps: Any, expected: int) -> None:
    entries = {"input": STILL_IMAGE, "readout": "mean over steps", "steps": steps}
    assert Metadata(entries).still_image_steps == expected
    assert Metadata(entries | {"readout": "last"}).still_image_steps == 0


@pytest.mark.parametrize("modules", ["[]", "{", 3])
def test_modules_are_an_object(modules: Any) -> None:
    with pytest.raises(InputError, match="metadata `modules` must be JSON of an object"):
        _ = Metadata({"modules": modules}, "the graph").modules


def test_time_differs_in_steps_or_dt() -> None:
    ours = Metadata({"dt": 1e-4, "steps": 4})
    assert ours.time_differences(ours) == []
    assert ours.time_differences(Metadata({"dt": 1e-4, "steps": np.array([4, 4])})) == ["steps"]
    assert ours.time_differences(Metadata({"steps": 4})) == ["dt"]
