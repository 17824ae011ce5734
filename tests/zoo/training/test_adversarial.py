"""Adversarial training finds worse pictures near an image, and learns from them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small import RECIPE, data, network
from torch.nn import functional as F

from zoo.datasets import DATASETS
from zoo.errors import ConfigError
from zoo.images import normalise
from zoo.training.adversarial import worst_near
from zoo.training.config import Recipe
from zoo.training.sampler import generator
from zoo.training.train import TrainingRun, train

DATA = replace(DATASETS["fmnist"], size=8)


@pytest.mark.parametrize("steps", [1, 7])
def test_a_worse_picture_lies_within_eps_and_within_the_range(steps: int) -> None:
    net = network()
    recipe = Recipe.from_dict(
        RECIPE | {"adversarial_eps": 8.0, "adversarial_steps": steps, "epochs": 1}
    )
    pixels, labels = data().pixels, data().labels
    x = normalise(pixels, DATA)
    statistics = {key: value.clone() for key, value in net.state_dict().items()}
    worse = worst_near(net, x, labels, recipe, DATA, generator(0, 0))
    assert all(torch.equal(value, statistics[key]) for key, value in net.state_dict().items())
    assert net.training
    moved = (worse - x) * DATA.std[0] * 255
    assert 7.9 < float(moved.abs().max()) < 8.001
    assert torch.equal(worse, worst_near(net, x, labels, recipe, DATA, generator(0, 0)))
    bytes_ = (worse * DATA.std[0] + DATA.mean[0]) * 255
    assert -0.001 < float(bytes_.min()) and float(bytes_.max()) < 255.001
    net.eval()
    with torch.no_grad():
        before, after = (F.cross_entropy(net(at), labels) for at in (x, worse))
    assert after > before


def test_the_network_learns_from_the_worse_pictures(tmp_path: Path) -> None:
    """The loss is the higher, the farther pixels may move."""
    losses = []
    for eps in (0.0, 8.0, 32.0):
        recipe = Recipe.from_dict(RECIPE | {"epochs": 6, "adversarial_eps": eps})
        last = train(network(), TrainingRun(recipe, data(), data(), tmp_path / str(eps)))
        losses.append(last["train_loss"])
    assert losses[0] < losses[1] < losses[2] - 0.1, losses


def test_what_cannot_be_attacked_in_training_is_one_line() -> None:
    with pytest.raises(ConfigError, match="adversarial_steps need adversarial_eps"):
        Recipe.from_dict(RECIPE | {"adversarial_steps": 7})
    with pytest.raises(ConfigError, match=r"adversarial_eps = 500\.0 must be from 0 to 127"):
        Recipe.from_dict(RECIPE | {"adversarial_eps": 500.0})
