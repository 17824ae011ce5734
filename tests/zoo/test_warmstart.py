"""A network starts from another's weights, and computes what that one computed where it can."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from zoo.danet import DANet
from zoo.warmstart import warm_start


@pytest.fixture
def trained(tiny: Callable[..., DANet]) -> Callable[..., DANet]:
    """`trained(**fields)`: a network whose every weight and statistic differs from those of a new one, and whose layers fire."""

    def train(**fields: Any) -> DANet:
        torch.manual_seed(1)
        model = tiny(**{"threshold": 0.5} | fields)
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        for _ in range(3):
            model(torch.randn(8, model.config.in_channels, 8, 8))
        return model

    return train


def images(channels: int = 1) -> Tensor:
    return torch.randn(6, channels, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    "fields",
    [
        {"order": "a"},
        {"order": "a", "join": "and"},
        {"order": "a", "join": "iand"},
        {"order": "b"},
        {"order": "b", "join": "iand"},
        {"order": "c"},
        {"order": "c", "join": "and"},
        {"order": "c", "join": "and", "reset": "subtract", "beta": 0},
        {"order": "c", "join": "and", "reset": "subtract", "beta": 1},
        {"order": "c", "join": "iand"},
        {"bottleneck": True},
        {"bottleneck": True, "order": "b"},
        {"bottleneck": True, "order": "c"},
        {"links": False, "down": "stride", "shortcut_reads": "stream", "surrogate": "rectangle"},
        {"dense": False, "reset": "subtract"},
    ],
    ids=str,
)
def test_a_deeper_network_starts_with_the_logits_of_its_source(
    fields: dict[str, Any], training: bool, trained: Callable[..., DANet], tiny: Callable[..., DANet]
) -> None:
    source = trained(depths=(1, 2), **fields)
    deeper = tiny(**{"threshold": 0.5} | fields | {"depths": (3, 4)})
    start = warm_start(deeper, source)
    assert start.grown == ("stage1.block1", "stage1.block2", "stage2.block2", "stage2.block3") and not start.new
    source.train(training), deeper.train(training)
    expected, logits = source(images()), deeper(images())
    assert torch.equal(logits, expected) and expected.std() > 0

    deeper.train()(images()).square().sum().backward()
    for path in start.grown:
        learns = [p.grad is not None and bool(p.grad.any()) for p in deeper.get_submodule(path).parameters()]
        assert any(learns), f"{path} would stay the identity"
