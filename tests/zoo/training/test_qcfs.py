"""Trained as an ANN, the network fires as the ANN computes."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small import data, network
from support.networks import lively
from torch import Tensor

import zoo
from zoo.blocks import Order
from zoo.danet import DANet, set_steps
from zoo.errors import ConfigError
from zoo.neurons import Lif
from zoo.training.config import Recipe
from zoo.training.qcfs import Qcfs, as_ann, check_config, norms_before, settle
from zoo.training.train import RunOptions, TrainingRun, train

RECIPE = {
    "dataset": "fmnist",
    "epochs": 3,
    "batch_size": 8,
    "lr": 0.05,
    "bf16": False,
    "activation": "qcfs",
}
IF = {"beta": 1.0, "reset": "subtract"}


def integrate_and_fire(**fields: Any) -> DANet:
    return DANet(replace(network().config, **IF, **fields))


def run(model: DANet, folder: Path, options: RunOptions | None = None, **values: Any) -> DANet:
    recipe = Recipe.from_dict(RECIPE | values)
    train(model, TrainingRun(recipe, data(), data(), folder, options=options or RunOptions()))
    return model


@pytest.mark.parametrize("steps", [1, 4, 8])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_neurons_fire_as_often_as_the_ann_says(steps: int, shift: float) -> None:
    """With the shift as a current of a T-th of it a step, for any constant current."""
    lif = Lif(steps, beta=1.0, threshold=0.7, reset="subtract")
    current = 3 * torch.randn(200_000, dtype=torch.float64)
    charge = shift * lif.neuron.threshold.double() / steps
    spikes = lif((current + charge).repeat(steps, 1))
    levels = torch.floor(current * steps / lif.neuron.threshold.double() + shift).clamp(0, steps)
    assert torch.equal(spikes.view(steps, -1).sum(0), levels)
    rates = Qcfs(lif, steps, shift)(current.float()).detach()
    assert float((rates * steps - levels).abs().mean()) < 1e-5  # float32 decides a few
    assert len(set(levels.tolist())) == steps + 1


def test_the_gradient_is_that_of_a_floor_of_slope_one() -> None:
    layer = Qcfs(Lif(4, threshold=0.8, **IF), 4, 0.5)
    x = torch.randn(50, requires_grad=True)
    weights = torch.randn(50)
    (layer(x) * weights).sum().backward()
    given = x.grad, layer.neuron.threshold.grad
    threshold = torch.tensor(0.8, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    level = (y * 4 / threshold + 0.5).clamp(0, 4)
    (((level + (level.floor() - level).detach()) / 4) * weights).sum().backward()
    for found, expected in zip(given, (y.grad, threshold.grad), strict=True):
        assert found is not None and expected is not None
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("order", "without"),
    [
        ("a", ["stage1.block0.lif1", "stage2.block0.lif1", "stage2.block1.lif1", "head.lif"]),
        *((order, []) for order in ("b", "c", "plain", "post")),
    ],
)
def test_what_has_a_batchnorm_of_its_own_rounds_in_the_middle(
    order: Order, without: list[str]
) -> None:
    net = integrate_and_fire(order=order)
    neurons = [path for path, module in net.named_modules() if isinstance(module, Lif)]
    assert [path for path in neurons if path not in norms_before(net)] == without


@pytest.mark.parametrize("name", ["spiking-resnet20-t4.fmnist", "danet20b-t4.fmnist"])
def test_the_first_neurons_of_the_network_fire_as_the_ann_computes(name: str) -> None:
    """Exactly, as their current is constant; what follows sees spikes that come unevenly."""
    model = lively(name, 12, widths=(4, 6, 8), **IF)
    ann = lively(name, 12, widths=(4, 6, 8), **IF)
    as_ann(ann, 4)
    set_steps(ann, 1)
    assert ann.state_dict().keys() == model.state_dict().keys()
    settle(model)
    first = next(path for path, module in model.named_modules() if isinstance(module, Lif))
    x = torch.randn(5, 1, 12, 12)
    seen: list[Tensor] = []
    for net in (model, ann):
        net.get_submodule(first).register_forward_hook(lambda *args: seen.append(args[-1]))
        with torch.no_grad():
            net(x)
    spikes, rates = seen
    assert torch.equal(spikes.view(4, *rates.shape).mean(0), rates)
    assert 0.1 < float(rates.mean()) < 0.9


def test_thresholds_of_frozen_parts_stay() -> None:
    net = integrate_and_fire(order="post")
    net.freeze("stage1")
    as_ann(net, 4)
    thresholds = {path: p for path, p in net.named_parameters() if path.endswith("threshold")}
    frozen = {path for path, p in thresholds.items() if not p.requires_grad}
    assert frozen == {path for path in thresholds if path.startswith("stage1.")}
    assert 0 < len(frozen) < len(thresholds)


def test_a_run_leaves_a_network_of_spikes_with_learnt_thresholds(tmp_path: Path) -> None:
    model = run(integrate_and_fire(order="post", steps=4), tmp_path)
    neurons = [module for module in model.modules() if isinstance(module, Lif)]
    assert not any(isinstance(neuron, Qcfs) for neuron in neurons)
    thresholds = [float(neuron.neuron.threshold) for neuron in neurons]
    assert len(set(thresholds)) == len(thresholds)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["ann_top1"] > 0.5 and abs(last["ann_top1"] - last["test_top1"]) < 0.3


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    def stop(step: int, total: int, shown: dict[str, float]) -> None:
        if step == 7:
            raise KeyboardInterrupt

    whole = run(integrate_and_fire(order="post"), tmp_path / "whole", ema=0.5)
    with pytest.raises(KeyboardInterrupt):
        options = RunOptions(save_every=1, progress=stop)
        run(integrate_and_fire(order="post"), tmp_path / "killed", options, ema=0.5)
    resumed = run(integrate_and_fire(order="post"), tmp_path / "killed", ema=0.5)
    states = zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True)
    assert all(key == other and torch.equal(a, b) for (key, a), (other, b) in states)


def test_what_no_ann_stands_for_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"give --config beta=1 reset=subtract$"):
        run(network(), tmp_path)
    with pytest.raises(ConfigError, match=r"no maximum of spikes.*--config stem=imagenet"):
        check_config(zoo.create("spiking-resnet18-t4", reset="subtract"))
    for values, words in (
        ({"activation": "spikes", "levels": 8}, 'levels are of activation = "qcfs"'),
        ({"t_schedule": ((0, 1),)}, "an ANN has one time step"),
        ({"levels": 300}, "levels = 300 must be from 1 to 255"),
    ):
        with pytest.raises(ConfigError, match=words):
            Recipe.from_dict(RECIPE | values)
