"""Models of events: a file takes all frames, and is their model frame by frame."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support.networks import lively
from torch import Tensor

from export.energy import estimate, executor
from export.nir.writer import write_nir
from export.onnx.exporter import write_onnx
from export.onnx.runtime import OnnxModel, Runtime
from export.onnx.streaming import StreamingSession
from export.onnx.verify import verify_onnx
from zoo.danet import DANet
from zoo.errors import InputError, VerificationError

STEPS = 3


@pytest.fixture(scope="module")
def model() -> DANet:
    return lively(f"danet20-t{STEPS}.i2e-fmnist", 12, widths=(4, 6, 8))


@pytest.fixture(scope="module")
def events() -> Tensor:
    random = torch.Generator().manual_seed(0)
    return (torch.rand(STEPS, 5, 2, 12, 12, generator=random) < 0.2).float()


@pytest.fixture(scope="module")
def file(model: DANet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("events") / "model.onnx"
    assert str(write_onnx(model, path)).startswith("verified at batch 1 and 2")
    return path


def test_a_file_takes_the_frames_of_any_number_of_recordings(
    model: DANet, events: Tensor, file: Path
) -> None:
    (images,) = onnx.load(file).graph.input
    shape = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert shape == [STEPS, "batch", 2, 12, 12]
    with torch.inference_mode():
        expected = model(events).numpy()
    for workers in (1, 2):
        logits = OnnxModel(file, Runtime(threads=1, workers=workers)).run(events.numpy()).logits
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    # the frames count, and their order
    assert not np.allclose(OnnxModel(file).run(events.numpy()[::-1].copy()).logits, expected)


def test_a_fixed_batch(model: DANet, events: Tensor, tmp_path: Path) -> None:
    write_onnx(model, tmp_path / "two.onnx", batch=2)
    with torch.inference_mode():
        expected = model(events).numpy()
    logits = OnnxModel(tmp_path / "two.onnx").run(events.numpy()).logits
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_one_frame_after_the_other_gives_the_same(
    model: DANet, events: Tensor, tmp_path: Path
) -> None:
    write_onnx(model, tmp_path / "step.onnx", form="step")
    session = StreamingSession(tmp_path / "step.onnx", streams=5)
    for frame in events:
        session.step(frame.numpy())
    with torch.inference_mode():
        np.testing.assert_allclose(session.logits, model(events), rtol=1e-5, atol=1e-5)


def test_counts_and_energy_are_the_model_s(model: DANet, events: Tensor, file: Path) -> None:
    ours, theirs = estimate(model, events), estimate(executor(file), events)
    assert ours.layers == theirs.layers and ours.total("macs") == 0
    priced = {e.device.name for e in ours.energies if e.total}
    assert {"truenorth", "odin"} <= priced  # no multiplication by real pixels stands in their way


def test_nir_is_verified_on_frames(model: DANet, events: Tensor, tmp_path: Path) -> None:
    result = write_nir(model, tmp_path / "model.nir", events[:, :2])
    assert result.ok and "spike for spike" in str(result)


def test_what_is_no_recording_of_so_many_frames(
    model: DANet, events: Tensor, file: Path, tmp_path: Path
) -> None:
    for wrong in (events[0], events[:2]):
        with pytest.raises(InputError, match=r"takes \[3, B, 2, 12, 12\]"):
            OnnxModel(file).run(wrong.numpy())
    other = lively("danet20-t2.i2e-fmnist", 12, widths=(4, 6, 8))
    with pytest.raises(VerificationError, match=r"for images \[3, 2, 12, 12\], and .* takes \[2, "):
        verify_onnx(other, file)
    with pytest.raises(
        InputError, match=r"images of shape \[5, 2, 12, 12\]: .* takes \[3, B, 2, 12"
    ):
        verify_onnx(model, file, events[0])
    with pytest.raises(InputError, match=r"2 images: .* is verified at batch 1 and 2, give 3"):
        verify_onnx(model, file, events[:, :2])
