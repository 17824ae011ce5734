"""What docs/architecture.md says of adding things, followed once in a copy of the sources.

One throw-away family, data set, recipe, chip, device, convention and NIR node is added, each by the
edits that the page names and no other; then commands and public functions use them.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.pictures import picture

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent

FAMILY = """\
    "toy-net": Family({8: Depth((1, 1), width=8)}, _danet, ("", "b")),
"""
DATASET = """\
        PublishedDataset(
            DatasetSpec("toys", "Toys", 32, 3, 2, (0.5,) * 3, (0.25,) * 3, ("ball", "cube")),
            reference="nobody",
        ),
"""
DATASET_RECIPE = """\
dataset = "toys"
inherits = "short"
"""
RECIPE = """\
inherits = "fast"
epochs = 1
batch_size = 4
"""
CHIP = """
[toy]
title = "A chip of integrate-and-fire neurons"
note = "It does not exist."

[toy.limits]
neuron_models = { value = ["IF"], source = "a test" }
"""
DEVICE = """
[toy]
title = "A device"
scope = "all in"
note = "It does not exist."
ac = { lo = 1.0, typ = 1.0, hi = 1.0, evidence = "measured", source = "a test" }
"""
CONVENTION = """\
        Convention(
            name="toy",
            explanation="Synapses alone.",
            reference="a test",
            others="none",
        ),
"""
NODE = """\
@dataclass(eq=False)
class Negate(nir.ir.node.NIRNode):
    input_shape: Any

    def __post_init__(self) -> None:
        self.input_type = {"input": np.asarray(self.input_shape)}
        self.output_type = {"output": np.asarray(self.input_shape)}


"""
NEURON = """\
@dataclass(eq=False)
class Leaky(nir.ir.node.NIRNode):
    time: Any
    factor: Any
    v_threshold: Any
    v_reset: Any

    def __post_init__(self) -> None:
        self.input_type = {"input": np.asarray(self.time.shape)}
        self.output_type = {"output": np.asarray(self.time.shape)}


"""
NODE_KIND = """\
    Negate: NodeKind("elementwise", _elementwise_shape),
    Leaky: _neuron(
        "time", "factor", *FIRING, integrators=(Integrator("membrane", "factor", "time"),)
    ),
"""
IMPORT_NODE = """\
from export.nir.nodes import Negate
"""
INTERPRETED = """\
        case Negate():
            return lambda x: -x
"""
MODULE = """\
        case Negate():
            return Scale(torch.tensor(-1.0))
"""
ONNX = """\
            case Negate():
                self._node("Neg", [x], name)
"""
# File, the text before which the addition goes ("": at the end), and the addition.
EDITS = [
    ("zoo/families.py", '    "danet": Family(', FAMILY),
    ("zoo/datasets.py", '        PublishedDataset(\n            DatasetSpec("in1k"', DATASET),
    ("zoo/training/recipes/toys.toml", "", DATASET_RECIPE),
    ("zoo/training/recipes/short.toml", "", RECIPE),
    ("export/targets/targets.toml", "", CHIP),
    ("export/energy/devices.toml", "", DEVICE),
    ("export/energy/conventions.py", '        Convention(\n            name="exact"', CONVENTION),
    ("export/nir/nodes.py", "# The shape of a node's output. A rule", NODE + NEURON),
    ("export/nir/nodes.py", '    nir.Scale: NodeKind("elementwise"', NODE_KIND),
    ("export/nir/interpreter.py", "from export.nir.nodes import", IMPORT_NODE),
    ("export/nir/interpreter.py", "        case nir.Scale():\n", INTERPRETED),
    ("export/nir/modules.py", "from export.nir.nodes import", IMPORT_NODE),
    ("export/nir/modules.py", "        case nir.Scale():\n", MODULE),
    ("export/onnx/nir_step.py", "from export.nir.nodes import", IMPORT_NODE),
    ("export/onnx/nir_step.py", "            case nir.Scale():\n", ONNX),
]


def insert(path: Path, before: str, text: str) -> None:
    if not before:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
        return
    source = path.read_text(encoding="utf-8")
    assert source.count(before) == 1, f"{path.name} has {source.count(before)} times {before!r}"
    path.write_text(source.replace(before, text + before), encoding="utf-8")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages, with one more of everything."""
    folder = tmp_path_factory.mktemp("sources")
    for package in ("zoo", "export", "weights"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    for file, before, text in EDITS:
        insert(folder / file, before, text)
    return folder


def python(sources: Path, *arguments: str, cwd: Path | None = None) -> str:
    environment = os.environ | {"PYTHONPATH": str(sources), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(
        command, cwd=cwd or sources, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def zoo_json(sources: Path, *words: str) -> Any:
    return json.loads(python(sources, "-m", "zoo", *words, "--json"))


def test_a_family_is_listed_built_and_exported(sources: Path, tmp_path: Path) -> None:
    names = python(sources, "-m", "zoo", "list", "--all").split()
    assert {"toy-net8-t4", "toy-net8b-t4"} <= set(names)
    code = "import zoo; m = zoo.create('toy-net8-t2.fmnist'); print(m.config.depths); m.save('toy')"
    assert python(sources, "-c", code, cwd=tmp_path).strip() == "(1, 1)"
    (tmp_path / "out").mkdir()
    text = python(
        sources,
        "-m",
        "zoo",
        "export",
        str(tmp_path / "toy"),
        "--to",
        "onnx",
        "nir",
        "--out",
        str(tmp_path / "out"),
    )
    assert text.count("verified") >= 2


def test_a_data_set_is_trained_on_by_its_recipe(sources: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label, name in enumerate(("ball", "cube")):
            (tmp_path / "toys" / split / name).mkdir(parents=True)
            for number in range(4):
                picture(number + 100 * label, 32, 32).save(
                    tmp_path / "toys" / split / name / f"{number}.png"
                )
    python(
        sources,
        "-m",
        "zoo",
        "train",
        "toy-net8-t1.toys",
        "--data",
        "toys",
        "--run",
        "run",
        cwd=tmp_path,
    )
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())["recipe"]
    assert (recipe["dataset"], recipe["epochs"], recipe["batch_size"], recipe["whiten"]) == (
        "toys",
        1,
        4,
        True,
    )


def test_a_chip_is_checked(sources: Path) -> None:
    text = json.dumps(zoo_json(sources, "check", "speck-danet8-t2.fmnist", "--target", "toy"))
    assert "A chip of integrate-and-fire neurons" in text and '"fits": true' in text


def test_a_device_prices_what_a_convention_counts(sources: Path) -> None:
    words = (
        "energy",
        "danet20-t4.fmnist",
        "--first",
        "2",
        "--convention",
        "toy",
        "--device",
        "toy",
    )
    report = zoo_json(sources, *words)
    assert report["convention"] == "toy" and [p["name"] for p in report["profiles"]] == ["toy"]
    ours = next(c for c in report["conventions"] if c["name"] == "toy")
    assert set(ours["operations"]) == {"mac", "ac"}


def test_a_nir_node_is_interpreted_trained_and_exported(sources: Path) -> None:
    code = """
import nir, numpy as np, onnxruntime, torch
from export.nir.graph import check_graph
from export.nir.interpreter import run
from export.nir.nodes import Negate
from export.onnx.from_nir import nir_to_onnx
import zoo
shape = np.array([2])
nodes = {"input": nir.Input(shape), "minus": Negate(shape), "output": nir.Output(shape)}
graph = nir.NIRGraph(nodes, [("input", "minus"), ("minus", "output")], type_check=False)
x = np.array([[[1.0, -2.0]], [[3.0, 0.5]]], np.float32)
print(np.array_equal(run(graph, x)["output"], -x))
print(torch.equal(zoo.from_nir(graph)(torch.from_numpy(x)), torch.from_numpy(-x)))
proto = nir_to_onnx(graph)
session = onnxruntime.InferenceSession(proto.SerializeToString())
y = session.run(None, {session.get_inputs()[0].name: x})[0]
print(np.array_equal(y.reshape(x.shape), -x))
"""
    assert python(sources, "-c", code).split() == ["True"] * 3


def test_a_nir_neuron_is_its_integrators_everywhere(sources: Path) -> None:
    code = """
import nir, numpy as np, onnxruntime, torch
from export.energy import read_structure
from export.nir.graph import check_graph
from export.nir.interpreter import run
from export.nir.nodes import Leaky
from export.onnx.from_nir import nir_to_onnx
from export.targets.find_layers import find_layers
import zoo
shape, two = np.array([2]), np.full(2, 2.0)
neuron = Leaky(time=two, factor=two, v_threshold=two / 2, v_reset=two - 2)
nodes = {"input": nir.Input(shape), "neuron": neuron, "output": nir.Output(shape)}
edges = [("input", "neuron"), ("neuron", "output")]
graph = nir.NIRGraph(nodes, edges, {"dt": 1.0}, type_check=False)
x = np.array([[[0.75, 1.5]], [[0.75, 0.5]]], np.float32)
print(run(graph, x)["output"].ravel())
print(zoo.from_nir(graph)(torch.from_numpy(x)).numpy().ravel())
session = onnxruntime.InferenceSession(nir_to_onnx(graph).SerializeToString())
print(session.run(None, {session.get_inputs()[0].name: x})[0].ravel())
layer = next(layer for layer in read_structure(graph) if layer.name == "neuron")
print(layer.neuron, layer.leaks, find_layers(check_graph(graph)).layers["neuron"].neuron.model)
"""
    spikes, counted = ["[0. 1. 1. 0.]"] * 3, "True True LIF"
    assert python(sources, "-c", code).splitlines() == [*spikes, counted]
