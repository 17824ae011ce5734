"""Any NIR graph as ONNX: against the interpreter, node by node, in both forms and both runtimes."""

from pathlib import Path
from typing import Any, get_args

import nir
import numpy as np
import onnx
import pytest
from support.networks import lively
from support.nir_graphs import DT, a, chain, grown, kinds

from export.metadata import Form
from export.nir.exporter import to_nir
from export.nir.graph import check_graph
from export.nir.interpreter import run
from export.onnx.file import read_file, read_metadata
from export.onnx.from_nir import nir_to_onnx, verify_nir_onnx, write_nir_onnx
from export.onnx.runtime import Runtime
from zoo.arrays import Array
from zoo.cli import main
from zoo.errors import ExportError, InputError, VerificationError

SHAPES = [(3,), (2, 4, 5), (2, 6)]
ONE = Runtime(threads=1)


def in_onnx(graph: Any, x: Array, *, form: Form = "sequence", runtime: Runtime = ONE) -> Array:
    """The output `[T, B, ...]` that a runtime computes."""
    proto = nir_to_onnx(graph, form=form, dt=DT)
    onnx.checker.check_model(proto, full_check=True)
    engine = runtime.load(proto.SerializeToString())
    if form == "sequence":
        return engine.run(["output"], {"input.in": x})[0]
    state = {
        name: np.zeros((x.shape[1], *shape[1:]), np.float32)
        for name, shape in engine.inputs.items()
        if name != "input.in"
    }
    found = []
    for frame in x:
        values = dict(
            zip(engine.outputs, engine.run(None, {"input.in": frame, **state}), strict=True)
        )
        state = {name: values[f"{name}.next"] for name in state}
        found.append(values["output"])
    return np.stack(found)


def compared(loops: int, seed: int, folder: Path) -> set[type]:
    """Compare a random graph in both forms with the interpreter; return its kinds of node."""
    rng, shape = np.random.default_rng(1000 * loops + seed), SHAPES[seed % 3]
    graph = grown(rng, shape, 6, loops=loops)
    x = rng.integers(-4, 5, (5, 2, *shape)).astype(np.float32) / 4
    expected = run(graph, x, dt=DT)["output"]
    for form in get_args(Form):
        found = in_onnx(graph, x, form=form)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=f"{seed}, {form}")
        file = folder / f"{form}.onnx"
        assert write_nir_onnx(graph, file, name="random", form=form, dt=DT).ok, seed
    return kinds(graph)


def test_some_random_graphs(tmp_path: Path) -> None:
    for seed in range(3):
        compared(1, seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("loops", [0, 1, 2])
def test_random_graphs(loops: int, tmp_path: Path) -> None:
    seen = set[type]().union(*(compared(loops, seed, tmp_path) for seed in range(24)))
    assert seen >= {
        nir.LIF,
        nir.CubaLIF,
        nir.Delay,
        nir.Conv2d,
        nir.Conv1d,
        nir.SumPool2d,
        nir.NIRGraph,
    }


@pytest.mark.parametrize(
    "name",
    ["danet18-t3", "danet18b-t3", "sew-resnet18iand-t3", "ms-resnet18-t3", "speck-danet8-t4"],
)
@pytest.mark.parametrize("dialect", ["portable", "native"])
@pytest.mark.parametrize("form", ["sequence", "step"])
def test_networks_of_the_zoo(name: str, dialect: str, form: Any, tmp_path: Path) -> None:
    narrow = {} if "speck" in name else {"widths": (8, 16, 16, 16)}
    graph = to_nir(lively(f"{name}.cifar10", 16, **narrow), dialect=dialect)  # type: ignore[arg-type]  # a str
    result = write_nir_onnx(graph, tmp_path / "model.onnx", name=name, form=form)
    assert result.ok and result.compared_spikes > 50_000 and "same prediction" not in str(result)
    metadata = read_metadata(read_file(tmp_path / "model.onnx"), "model.onnx")
    assert (metadata.name, metadata.form) == (name, form)
    nir.write(tmp_path / "model.nir", graph)
    assert (tmp_path / "model.onnx").stat().st_size < 1.5 * (tmp_path / "model.nir").stat().st_size


def test_time_and_batch_are_free() -> None:
    graph = chain(nir.LIF(a(0.5), a(1), a(0), a(0.5)), shape=(1,))
    for steps, batch in ((1, 1), (7, 3)):
        x = np.ones((steps, batch, 1), np.float32)
        assert np.array_equal(in_onnx(graph, x), run(graph, x, dt=DT)["output"])


def test_openvino_reads_the_step_form() -> None:
    graph = to_nir(lively("danet18-t3.cifar10", 16, widths=(8, 16, 16, 16)))
    x = np.random.default_rng(0).uniform(0, 2, (3, 2, 3, 16, 16)).astype(np.float32)
    proto = nir_to_onnx(graph, form="step")
    assert proto.graph.output[0].name == "output"
    engine = Runtime("openvino", threads=1).load(proto.SerializeToString())
    state = {
        name: np.zeros((2, *shape[1:]), np.float32)
        for name, shape in engine.inputs.items()
        if name != "input.in"
    }
    here, there = engine, ONE.load(proto.SerializeToString())
    a_, b_ = (e.run(None, {"input.in": x[0], **state}) for e in (here, there))
    first = (
        here.outputs.index("stage1_block0_lif1.membrane.next"),
        there.outputs.index("stage1_block0_lif1.membrane.next"),
    )
    np.testing.assert_allclose(a_[first[0]], b_[first[1]], atol=1e-5)


def test_weights_are_stored_once() -> None:
    graph = to_nir(lively("danet20-t4.fmnist", 28))
    sizes = {
        form: len(nir_to_onnx(graph, form=form).SerializeToString()) for form in get_args(Form)
    }
    weights = sum(node.weight.nbytes for node in graph.nodes.values() if hasattr(node, "weight"))
    assert max(sizes.values()) < 1.3 * weights


@pytest.mark.parametrize("form", ["sequence", "step"])
def test_what_is_not_the_graph_is_not_written(
    form: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = chain(nir.LIF(a(0.5), a(1), a(0), a(0.5)), shape=(1,))

    def damaged(graph: nir.NIRGraph, **options: Any) -> onnx.ModelProto:
        changed = chain(nir.LIF(a(0.5), a(1), a(0), a(0.75)), shape=(1,))
        return nir_to_onnx(changed, **options)

    monkeypatch.setattr("export.onnx.from_nir.nir_to_onnx", damaged)
    with pytest.raises(
        VerificationError,
        match=r"the export is not the graph: n0 at batch 2: \d+ of 16 spikes differ",
    ):
        write_nir_onnx(graph, tmp_path / "model.onnx", name="toy", form=form, dt=DT)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["sequence", "step"])
def test_a_file_is_held_against_its_graph(form: Any, tmp_path: Path) -> None:
    graph, other = (
        chain(nir.LIF(a(0.5), a(1), a(0), a(level)), shape=(1,)) for level in (0.5, 0.75)
    )
    path = tmp_path / "model.onnx"
    write_nir_onnx(graph, path, name="toy", form=form, dt=DT)
    for runtime in (ONE, Runtime("openvino", threads=1)) if form == "step" else (ONE,):
        assert verify_nir_onnx(graph, path, dt=DT, runtime=runtime).ok
        assert not verify_nir_onnx(other, path, dt=DT, runtime=runtime).ok
    longer = chain(nir.LIF(a(0.5), a(1), a(0), a(0.5)), nir.Threshold(a(0.5)), shape=(1,))
    with pytest.raises(VerificationError, match="cannot be run as this graph"):
        verify_nir_onnx(longer, path, dt=DT)
    of_a_model = Path(__file__).parents[2] / "kept/danet20-t2.insects.onnx"
    with pytest.raises(VerificationError, match="is the export of a model, not of a NIR file"):
        verify_nir_onnx(graph, of_a_model, dt=DT)
    path.write_text("not a protobuf")
    with pytest.raises(InputError, match="is not an ONNX file"):
        verify_nir_onnx(graph, path, dt=DT)


def test_a_graph_that_is_not_sound(tmp_path: Path) -> None:
    graph = chain(nir.LIF(a(0.01), a(1), a(0), a(0.5)), shape=(1,))
    with pytest.raises(ExportError, match="has a time constant below the time step"):
        write_nir_onnx(graph, tmp_path / "model.onnx", name="toy", dt=DT)
    assert not list(tmp_path.iterdir())
    assert check_graph(graph, dt=DT).nodes


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = np.array([1])
    nodes = {
        "input": nir.Input(one),
        "lif": nir.LIF(a(0.5), a(1), a(0), a(0.5)),
        "output": nir.Output(one),
    }
    nir.write(
        tmp_path / "toy.nir", nir.NIRGraph(nodes, [("input", "lif"), ("lif", "output")], {"dt": DT})
    )
    export = ["export", str(tmp_path / "toy.nir"), "--out", str(tmp_path / "out")]
    assert main(export) == 0 and main([*export, "--form", "step"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"toy.onnx", "toy.step.onnx"}
    assert (
        "verified at batch 2: 1 neuron layers spike for spike (16 values)"
        in capsys.readouterr().out
    )
    for form in ("onnx", "step.onnx"):
        assert (
            main(
                [
                    "verify",
                    str(tmp_path / "toy.nir"),
                    "--export",
                    str(tmp_path / "out" / f"toy.{form}"),
                ]
            )
            == 0
        )
    nodes["lif"] = nir.LIF(a(0.5), a(1), a(0), a(0.25))
    nir.write(
        tmp_path / "other.nir",
        nir.NIRGraph(nodes, [("input", "lif"), ("lif", "output")], {"dt": DT}),
    )
    assert (
        main(
            ["verify", str(tmp_path / "other.nir"), "--export", str(tmp_path / "out" / "toy.onnx")]
        )
        == 1
    )
    assert "NOT verified: lif at batch 2" in capsys.readouterr().out
    for more in (["--to", "nir"], ["--weights", "int8"]):
        assert main([*export, *more]) == 2
        assert "is a NIR file: it becomes ONNX" in capsys.readouterr().err
