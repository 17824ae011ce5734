"""An ANN's ResNet fires, in many steps, as often as its ReLUs say."""

from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.anns import ResNet, lively_ann

import zoo
from zoo.balance import balance
from zoo.cli import main
from zoo.convert import convert, rename
from zoo.errors import InputError, WeightsError
from zoo.names import ModelSpec
from zoo.neurons import Lif

ARCH = "spiking-resnet20-t8.cifar10"


@pytest.fixture
def ann() -> ResNet:
    return lively_ann(ResNet())


def saved(ann: ResNet, path: Path) -> Path:
    safetensors.torch.save_file(ann.state_dict(), path)
    return path


def test_rates_come_to_what_the_relus_give() -> None:
    """The more steps, the nearer: rates of a few blocks, as errors of many add up."""
    ann = lively_ann(ResNet((1, 2, 1), (8, 16, 32)))
    x = torch.randn(8, 3, 32, 32)
    errors = []
    for steps in (4, 32, 256):
        spec = ModelSpec.parse(f"spiking-resnet20-t{steps}.cifar10")
        small = {"depths": (1, 2, 1), "widths": (8, 16, 32), "reset": "subtract"}
        model = zoo.create(spec.name, **small).eval()
        model.load_state_dict(model.state_dict() | rename(ann.state_dict(), spec))
        balance(model)
        with torch.inference_mode():
            off = model(x) - ann(x)
        errors.append(float(off.std() / ann(x).detach().std()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 0.08, errors


def test_what_is_written_is_the_network_that_is_returned(ann: ResNet, tmp_path: Path) -> None:
    model = convert(saved(ann, tmp_path / "ann.safetensors"), ARCH, tmp_path / "out")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(zoo.load(str(tmp_path / "out"))(x), model(x))
    neurons = [module for module in model.modules() if isinstance(module, Lif)]
    assert len(neurons) == 19 and all(neuron.reset == "subtract" for neuron in neurons)


def test_a_pickle_says_that_it_is_an_ann(ann: ResNet, tmp_path: Path) -> None:
    state = {k: v for k, v in ann.state_dict().items() if "num_batches" not in k}  # as older ones
    torch.save(state, tmp_path / "ann.pth")
    one = convert(tmp_path / "ann.pth", ARCH, tmp_path / "one", ann=True)
    two = convert(saved(ann, tmp_path / "ann.safetensors"), ARCH, tmp_path / "two")
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(one(x), two(x))


def test_a_maximum_is_answered_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "ann.safetensors"
    safetensors.torch.save_file({"conv1.weight": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"no maximum, which its stem takes: --average-pool takes"):
        convert(path, "spiking-resnet18-t8", tmp_path / "out")
    with pytest.raises(InputError, match="takes no maximum: leave out --average-pool"):
        convert(path, ARCH, tmp_path / "out", average_pool=True)
    with pytest.raises(InputError, match="becomes a spiking-resnet, as spiking-resnet50-t8"):
        convert(path, "sew-resnet18-t8", tmp_path / "out")
    with pytest.raises(WeightsError, match="is missing in the checkpoint"):
        convert(path, ARCH, tmp_path / "out")
    path.write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="cannot be read: "):
        convert(path, ARCH, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_converts(
    ann: ResNet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(saved(ann, tmp_path / "ann.safetensors"))
    assert main(["convert", path, "--arch", ARCH, "--out", str(tmp_path / "out")]) == 0
    assert "converted; `zoo evaluate" in capsys.readouterr().out
    pickle = str(tmp_path / "sew.pth")
    arguments = ["convert", pickle, "--arch", "sew-resnet18-t4", "--out", str(tmp_path / "other")]
    assert main([*arguments, "--average-pool"]) == 2
    assert "--average-pool is for the checkpoint of an ANN" in capsys.readouterr().err
