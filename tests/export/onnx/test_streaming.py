"""The `step` form: T calls are one `sequence` call spike for spike, and streams do not hear of each
other.
"""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.networks import lively

from export.onnx.exporter import to_onnx, write_onnx
from export.onnx.runtime import OnnxModel, Runtime
from export.onnx.step_form import NEXT, STATE
from export.onnx.streaming import StreamingSession
from export.onnx.verify import verify_onnx
from export.prepare.quantize import quantize_weights
from zoo.cli import main
from zoo.danet import DANet
from zoo.errors import InputError

NARROW = {"widths": (8, 16, 16, 16)}
FAMILIES = [
    "danet18-t4",
    "danet18b-t3",
    "danet18c-t3",
    "ms-resnet18-t6",
    "sew-resnet18iand-t3",
    "speck-danet8-t4",
    "danet18-t1",
]
RUNTIMES = [Runtime(threads=1), Runtime("openvino", threads=1)]


def narrow(name: str) -> DANet:
    return lively(f"{name}.cifar10", 16, **({} if "speck" in name else NARROW))


@pytest.fixture(scope="module")
def model() -> DANet:
    return narrow("danet18-t4")


@pytest.fixture(scope="module")
def file(model: DANet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("streaming") / "model.step.onnx"
    write_onnx(model, path, form="step")
    return path


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.slow
def test_every_family_spike_for_spike(name: str, tmp_path: Path) -> None:
    model = narrow(name)
    for form in ("sequence", "step"):
        onnx.save(to_onnx(model, form=form, outputs="trains"), tmp_path / f"{form}.onnx")  # type: ignore[arg-type]
    result = verify_onnx(model, tmp_path / "step.onnx")
    assert result.ok, str(result)
    x = torch.randn(2, 3, 16, 16).numpy()
    whole = OnnxModel(tmp_path / "sequence.onnx", RUNTIMES[0]).run(x)
    session = StreamingSession(tmp_path / "step.onnx", 2, RUNTIMES[0])
    steps = [session.step(x) for _ in range(model.config.steps)]
    for path, spikes in whole.spikes.items():
        assert np.array_equal(spikes, np.concatenate([step.spikes[path] for step in steps])), path
    np.testing.assert_allclose(session.logits, whole.logits, atol=1e-5)
    assert any(spikes.any() for spikes in whole.spikes.values())


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
@pytest.mark.parametrize("precision", ["float32", pytest.param("int8", marks=pytest.mark.slow)])
def test_verified_in_both_runtimes(
    model: DANet, runtime: Runtime, precision: str, tmp_path: Path
) -> None:
    model = quantize_weights(model, precision)  # type: ignore[arg-type]  # a parameter of the test
    write_onnx(model, tmp_path / "model.onnx", form="step")
    assert verify_onnx(model, tmp_path / "model.onnx", runtime=runtime).ok


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
def test_frames_of_events(model: DANet, file: Path, runtime: Runtime) -> None:
    """Another frame at each step, as the torch network takes events `[T, B, C, H, W]`."""
    frames = torch.randn(4, 2, 3, 16, 16)
    session = StreamingSession(file, 2, runtime)
    counts = [session.step(frame.numpy()).spikes for frame in frames]
    with torch.inference_mode():
        expected = model(frames)
    # a spike may flip between torch and a runtime
    np.testing.assert_allclose(session.logits, expected, atol=0.2)
    assert sum(sum(step["stage1.block0.lif1"]) for step in counts) > 0


def test_streams_do_not_hear_of_each_other(file: Path) -> None:
    frames = torch.randn(6, 3, 3, 16, 16).numpy()
    together = StreamingSession(file, 3, RUNTIMES[0])
    alone = StreamingSession(file, 1, RUNTIMES[0])
    for step, frame in enumerate(frames):
        if step == 2:
            together.reset([1])
        counts = together.step(frame).spikes
        if step >= 2:
            assert all(
                np.array_equal(count, counts[path][1:2])
                for path, count in alone.step(frame[1:2]).spikes.items()
            )
    assert together.steps.tolist() == [6, 4, 6]
    np.testing.assert_allclose(together.logits[1:2], alone.logits, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
def test_reset_begins_again(file: Path, runtime: Runtime) -> None:
    x = torch.randn(1, 3, 16, 16).numpy()
    session = StreamingSession(file, 1, runtime)
    with pytest.raises(InputError, match="no step was made since the reset"):
        _ = session.logits
    first = [session.step(x).logits for _ in range(3)]
    session.reset()
    again = [session.step(x).logits for _ in range(3)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0], first[2])  # membranes matter


@pytest.mark.parametrize("runtime", RUNTIMES, ids=str)
def test_a_state_can_be_kept(file: Path, runtime: Runtime) -> None:
    x = torch.randn(1, 3, 16, 16).numpy()
    session, other = (StreamingSession(file, 1, runtime) for _ in range(2))
    session.step(x)
    kept = session.membranes
    expected = session.step(x).logits
    session.step(x)
    other.restore(kept)
    assert np.array_equal(other.step(x).logits, expected)
    other.restore(kept)  # a copy: the steps above left it as it was
    assert np.array_equal(other.step(x).logits, expected)


def test_a_state_of_another_network(file: Path, tmp_path: Path) -> None:
    session = StreamingSession(file, 1, RUNTIMES[0])
    kept = session.membranes
    name = "stage1.block0.lif1.membrane"
    for state, said in (
        (
            {key: value for key, value in kept.items() if key != name},
            f"{name} is missing: this is the state of another network",
        ),
        (
            kept | {"stage9.lif.membrane": kept[name]},
            "stage9.lif.membrane is none of danet18-t4.cifar10",
        ),
        (
            kept | {name: kept[name][:, :1]},
            f"{name} is float32 .1, 1, 16, 16., expected float32 .1, 8, 16, 16.",
        ),
        (kept | {name: kept[name].astype(np.float64)}, f"{name} is float64"),
    ):
        with pytest.raises(InputError, match=said):
            session.restore(state)


def test_what_cannot_be_asked(file: Path, model: DANet, tmp_path: Path) -> None:
    session = StreamingSession(file, 2, RUNTIMES[0])
    for frames, said in (
        (np.zeros((1, 3, 16, 16), np.float32), r"takes \[2, 3, 16, 16\]"),
        (np.zeros((2, 1, 16, 16), np.float32), r"takes \[2, 3, 16, 16\]"),
        (np.full((2, 3, 16, 16), np.nan, np.float32), "NaN"),
    ):
        with pytest.raises(InputError, match=said):
            session.step(frames)
    with pytest.raises(InputError, match="stream 2: there are 2, from 0"):
        session.reset([0, 2])
    with pytest.raises(InputError, match="0 streams"):
        StreamingSession(file, 0)
    with pytest.raises(
        InputError,
        match="is of the form step: write another with `zoo export NAME --form sequence`",
    ):
        OnnxModel(file)
    write_onnx(model, tmp_path / "sequence.onnx", verify=False)
    with pytest.raises(InputError, match="is of the form sequence"):
        StreamingSession(tmp_path / "sequence.onnx")


def test_the_graph_names_its_state(file: Path) -> None:
    proto = onnx.load(file)
    onnx.checker.check_model(proto, full_check=True)
    states = {value.name.removesuffix(STATE) for value in proto.graph.input} - {"images"}
    assert states == {
        value.name.removesuffix(NEXT) for value in proto.graph.output if value.name.endswith(NEXT)
    }
    assert "stage1.block0.lif1" in states and not any(
        node.op_type == "Split" for node in proto.graph.node
    )


def test_an_altered_decay_is_found(file: Path, model: DANet, tmp_path: Path) -> None:
    proto = onnx.load(file)
    tensor = next(t for t in proto.graph.initializer if t.name == "stage2.block0.lif1.beta")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(0.75, np.float32), tensor.name))
    onnx.save(proto, tmp_path / "altered.onnx")
    result = verify_onnx(model, tmp_path / "altered.onnx")
    assert not result.ok and "stage2.block0.lif1" in str(result)


@pytest.mark.slow
def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = ["export", "danet20-t4", "--out", str(tmp_path), "--form", "step", "--outputs", "none"]
    assert main(export) == 0
    path = str(tmp_path / "danet20-t4.fmnist.step.logits.onnx")
    assert path in capsys.readouterr().out
    assert main(["verify", "danet20-t4", "--export", path]) == 0
    capsys.readouterr()
    for command in ("classify", "energy"):
        assert main([command, path]) == 2
        assert "is of the form step" in capsys.readouterr().err
