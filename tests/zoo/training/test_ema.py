"""The moving average of a network against its closed formula, in float64."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from zoo.neurons import Lif
from zoo.training import checkpoint, parallel
from zoo.training.ema import ModelEma

UPDATES = 12


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), Lif(1))


def move(net: nn.Module) -> None:
    """A step of some optimiser, and a batch that is counted."""
    for parameter in net.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    net(torch.randn(4, 2, 3, 3))


def averaged(net: nn.Module, average: ModelEma, steps: range) -> list[dict[str, Tensor]]:
    """The states that were averaged."""
    states = []
    for step in steps:
        move(net)
        average.update(net, step)
        states.append({key: value.clone() for key, value in net.state_dict().items()})
    return states


@pytest.mark.parametrize("first", [0, 1000], ids=["warm-up", "later"])
@pytest.mark.parametrize("decay", [0.05, 0.3, 0.9, 0.9999])
def test_the_average_is_the_closed_formula(decay: float, first: int) -> None:
    """Of states `x_1 ... x_n`, `sum_i (1 - d_i) prod_{j>i} d_j x_i`, where the start is `x_0` and
    `d_0 = 0`.
    """
    net = network()
    start = {key: value.clone() for key, value in net.state_dict().items()}
    average = ModelEma(net, decay)
    states = [start, *averaged(net, average, range(first, first + UPDATES))]
    decays = [
        0.0,
        *(min(decay, (1 + step) / (10 + step)) for step in range(first, first + UPDATES)),
    ]
    assert (decay in decays) is (decay < 0.5 or (first == 1000 and decay == 0.9))
    weights = [
        (1 - d) * torch.tensor(decays[i + 1 :], dtype=torch.float64).prod()
        for i, d in enumerate(decays)
    ]
    assert sum(weights).item() == pytest.approx(1)
    for key, found in average.values.items():
        if found.is_floating_point():
            expected = sum(
                weight * state[key].double() for weight, state in zip(weights, states, strict=True)
            )
            torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_statistics_are_averaged_and_counters_copied() -> None:
    net = network()
    average = ModelEma(net, 0.9)
    averaged(net, average, range(3))
    now = net.state_dict()
    assert average.values.keys() == now.keys()
    for key in ("0.weight", "0.bias", "1.weight", "1.running_mean", "1.running_var"):
        assert not torch.equal(average.values[key], now[key]), key
    assert average.values["1.num_batches_tracked"] == now["1.num_batches_tracked"] == 3
    assert all(torch.equal(average.values[key], now[key]) for key in now if key.startswith("2.")), (
        "a neuron is a constant"
    )


def test_what_does_not_move_is_its_own_average() -> None:
    net = network()
    average = ModelEma(net, 0.999)
    for step in range(50):
        average.update(net, step)
    assert all(torch.equal(average.values[key], value) for key, value in net.state_dict().items())


def test_the_first_update_takes_nine_tenths() -> None:
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    average = ModelEma(net, 0.999)
    nn.init.ones_(net.weight)
    average.update(net, 0)
    assert average.values["weight"].item() == pytest.approx(0.9)


def test_the_average_is_a_copy_without_gradient() -> None:
    net = network()
    average = ModelEma(net, 0.9)
    before = {key: value.clone() for key, value in average.values.items()}
    move(net)
    assert all(torch.equal(average.values[key], before[key]) for key in before)
    now = {key: value.clone() for key, value in net.state_dict().items()}
    average.update(net, 0)
    assert all(torch.equal(value, now[key]) for key, value in net.state_dict().items()), (
        "the network is left alone"
    )
    assert not any(value.requires_grad for value in average.values.values())
    net.load_state_dict(average.values)


def test_without_decay_nothing_is_kept() -> None:
    net = network()
    average = ModelEma(net, 0.0)
    averaged(net, average, range(3))
    assert average.values == {}


def optimizer(net: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)


def test_a_saved_average_goes_on_as_if_never_stopped(tmp_path: Path) -> None:
    """Through the checkpoint of a run, into a network and an average that were something else."""
    net = network()
    average, trained = ModelEma(net, 0.9), optimizer(net)
    averaged(net, average, range(3))
    net(torch.randn(4, 2, 3, 3)).sum().backward()
    trained.step()
    checkpoint.save(
        tmp_path, 3, {**parallel.full_state_dict(net, trained, average.values), "step": 3}
    )

    resumed = network()
    again = ModelEma(resumed, 0.9)
    assert not torch.equal(again.values["0.weight"], average.values["0.weight"])
    loaded = checkpoint.latest(tmp_path)
    assert loaded is not None
    parallel.load_full_state_dict(resumed, optimizer(resumed), again.values, loaded)
    for one, values in ((net, average), (resumed, again)):
        torch.manual_seed(1)
        averaged(one, values, range(3, 6))
    assert all(torch.equal(again.values[key], value) for key, value in average.values.items())
