"""Networks that are trained to be small: zeros, few bits, few SynOps; the exact counter judges."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper
from small import data, network
from support.networks import lively
from torch import Tensor

from export.energy import estimate
from export.nir.exporter import to_nir
from export.onnx.exporter import write_onnx
from export.prepare.fold import fold
from export.prepare.quantize import quantize_weights
from zoo.danet import DANet
from zoo.errors import ConfigError
from zoo.provenance import WeightFormat
from zoo.training import pruning
from zoo.training.config import Recipe
from zoo.training.pruning import Pruning, zeros
from zoo.training.synops import SpikeShares, pruned_convolutions, read_events, weight_costs
from zoo.training.train import TrainingRun, train
from zoo.weights import read_model, write_model

RECIPE = {"dataset": "fmnist", "epochs": 6, "batch_size": 8, "lr": 0.05, "bf16": False}


def trained(folder: Path, model: DANet | None = None, **values: Any) -> DANet:
    """A network after thirty steps."""
    model = model or network()
    train(model, TrainingRun(Recipe.from_dict(RECIPE | values), data(), data(), folder))
    return model


# -- what spikes and weights cost


@pytest.mark.parametrize(
    "name",
    [f"{name}-t2.fmnist" for name in ("danet20", "danet20b", "danet20c", "ms-resnet18")],
)
def test_spikes_and_weights_cost_what_the_exact_counter_counts(name: str) -> None:
    model = lively(name, 20, widths=(4, 6, 8) if "20" in name else (4, 6, 8, 8))
    with torch.no_grad():
        for weight in pruned_convolutions(model).values():
            weight.weight[torch.rand_like(weight.weight) < 0.4] = 0
    x = torch.randn(3, 1, 20, 20)
    with torch.no_grad(), read_events(model) as events:
        model(x)
    rows = {layer.name: layer.counts["acs"] for layer in estimate(model, x).layers}
    counted, possible = 0.0, 0.0
    for weight_name, conv in pruned_convolutions(model).items():
        costs = weight_costs(conv, events[weight_name])
        row = rows[weight_name.removesuffix(".weight").replace(".", "_")]
        assert float((costs * (conv.weight != 0)).sum()) == row
        counted += row
        full = events[weight_name]._replace(
            values=torch.full_like(events[weight_name].values, events[weight_name].summed)
        )
        possible += float((weight_costs(conv, full) * (conv.weight != 0)).sum())
    assert float(SpikeShares(model).synops(events)) == pytest.approx(counted / possible)


def test_the_share_of_spikes_is_the_mean_firing_rate_of_what_is_read() -> None:
    model = lively("danet20-t2.fmnist", 16, widths=(4, 6, 8))
    with torch.no_grad(), read_events(model) as events:
        model(torch.randn(2, 1, 16, 16))
    rates = [(float(x.mean()) / summed, x.numel() * summed) for x, summed in events.values()]
    total = sum(n for _, n in rates)
    expected = sum(rate * n for rate, n in rates) / total
    assert float(SpikeShares(model).spikes(events)) == pytest.approx(expected)


@pytest.mark.parametrize("key", ["synops_weight", "spikes_weight"])
def test_a_loss_that_pays_for_spikes_makes_fewer(key: str, tmp_path: Path) -> None:
    def synops(model: DANet) -> float:
        x = model.transform if model.origin else None
        assert x is None
        pixels = data().pixels.float() / 255
        with torch.no_grad(), read_events(model) as events:
            model(pixels)
        return float(SpikeShares(model).synops(events))

    plain, paid = trained(tmp_path / "plain"), trained(tmp_path / "paid", **{key: 5.0})
    assert synops(paid) < 0.8 * synops(plain)


# -- pruning


@pytest.mark.parametrize("method", ["magnitude", "gradr"])
@pytest.mark.parametrize("scope", ["global", "layer", "synops"])
def test_the_share_of_zeros_is_the_one_asked_for(method: str, scope: str, tmp_path: Path) -> None:
    model = trained(tmp_path, prune=0.7, prune_method=method, prune_scope=scope)
    weights = [conv.weight for conv in pruned_convolutions(model).values()]
    each_rounds = 0.5 * len(weights) / sum(w.numel() for w in weights)
    assert zeros(model) == pytest.approx(0.7, abs=0.01 if method == "gradr" else each_rounds)
    assert model.stem.conv.weight.all() and model.head.fc.weight.all()
    shares = {round(float((w == 0).float().mean()), 2) for w in weights}
    assert (shares == {0.7}) is (scope == "layer")


def test_the_average_of_the_weights_has_the_same_zeros(tmp_path: Path) -> None:
    assert zeros(trained(tmp_path, prune=0.7, ema=0.9)) == pytest.approx(0.7, abs=0.01)


def test_frozen_parts_are_not_pruned(tmp_path: Path) -> None:
    model = trained(tmp_path, prune=0.7, freeze=["stage1"])
    assert all(
        bool(conv.weight.all()) is name.startswith("stage1")
        for name, conv in pruned_convolutions(model).items()
    )


def test_what_is_zero_at_the_start_stays_so(tmp_path: Path) -> None:
    model = trained(tmp_path / "once", prune=0.7)
    before = {name: c.weight == 0 for name, c in pruned_convolutions(model).items()}
    again = trained(tmp_path / "again", model, prune=0.9)
    after = {name: c.weight == 0 for name, c in pruned_convolutions(again).items()}
    assert zeros(again) == pytest.approx(0.9, abs=0.01)
    assert all(bool(after[name][zero].all()) for name, zero in before.items())


def test_the_share_grows_along_a_cube() -> None:
    recipe = Recipe.from_dict(RECIPE | {"prune": 0.8, "prune_epochs": (1, 5)})
    plan = Pruning(network(), recipe, per_epoch=10)
    assert [plan.share_at(step) for step in (0, 10, 30, 50, 60)] == pytest.approx(
        [0, 0, 0.8 * (1 - 1 / 8), 0.8, 0.8]
    )
    assert [step for step in range(61) if plan.chooses(step)] == [20, 40, 50]


def test_grad_r_lets_weights_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    came_back = 0
    pull = Pruning._pull

    def watched(self: Pruning, step: int) -> None:
        nonlocal came_back
        before = {name: mask.clone() for name, mask in self.masks.items()}
        pull(self, step)
        came_back += sum(int((self.masks[name] & ~mask).sum()) for name, mask in before.items())

    monkeypatch.setattr(Pruning, "_pull", watched)
    monkeypatch.setattr(pruning, "STEPS_PER_MASK", 1)
    start = network()
    signs = {name: c.weight.sign() for name, c in pruned_convolutions(start).items()}
    model = trained(tmp_path, prune=0.7, prune_method="gradr")
    assert came_back > 2
    for name, conv in pruned_convolutions(model).items():
        assert ((conv.weight == 0) | (conv.weight.sign() == signs[name])).all()


def test_zeros_survive_storage_and_every_export(tmp_path: Path) -> None:
    model = lively("danet20-t2.fmnist", 20, widths=(4, 6, 8))
    with torch.no_grad():
        for conv in pruned_convolutions(model).values():
            conv.weight[torch.rand_like(conv.weight) < 0.7] = 0
    shares = {
        name.removesuffix(".weight"): float((conv.weight == 0).float().mean())
        for name, conv in pruned_convolutions(model).items()
    }
    write_model(tmp_path, model, name="danet20-t2.fmnist", data=model.known_origin.data)
    stored = read_model(tmp_path)
    assert zeros(stored) == zeros(fold(stored)) == zeros(model)
    for form in ("int8", "int8-layer"):  # which rounds a few more to zero
        assert zeros(quantize_weights(stored, form)) >= zeros(model)
    graph = to_nir(stored)
    for name, share in shares.items():
        weight = graph.nodes[name.replace(".", "_")].weight
        assert float((weight == 0).mean()) == pytest.approx(share)
    write_onnx(stored, tmp_path / "model.onnx")
    proto = onnx.load(tmp_path / "model.onnx").graph
    values = {value.name: numpy_helper.to_array(value) for value in proto.initializer}
    weights = [values[node.input[1]] for node in proto.node if node.op_type == "Conv"]
    found = sorted(float((weight == 0).mean()) for weight in weights)
    assert found[-len(shares) :] == pytest.approx(sorted(shares.values()))


# -- few bits


def levels(weight: Tensor) -> Tensor:
    """The weights of each output channel in units of the largest over 127."""
    rows = weight.flatten(1)
    return rows / (rows.abs().amax(1, keepdim=True) / 127)


@pytest.mark.parametrize(("scale", "form"), [("channel", "int8"), ("layer", "int8-layer")])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_eight_bits_are_those_of_the_export(
    scale: str, form: WeightFormat, share: float, tmp_path: Path
) -> None:
    model = trained(tmp_path, weight_bits=8, weight_scale=scale, prune=share)
    if scale == "channel":
        for weight in (p for p in model.parameters() if p.dim() > 1):
            assert (levels(weight) - levels(weight).round()).abs().max() < 1e-3
    origin = lively("danet20-t2.fmnist", 8, widths=(4, 6, 8)).known_origin
    classes = replace(origin.data, num_classes=5, classes=origin.data.classes[:5])
    model.origin = replace(origin, data=classes)
    exported, folded = quantize_weights(model, form), fold(model)
    for name, weight in exported.named_parameters():
        if weight.dim() > 1:
            assert torch.allclose(weight, folded.get_parameter(name), atol=1e-5), name
    assert zeros(exported) == zeros(folded) == zeros(model) >= share * 0.99


def test_one_bit_is_a_sign_times_a_size(tmp_path: Path) -> None:
    model = trained(tmp_path, weight_bits=1, prune=0.3)
    for conv in pruned_convolutions(model).values():
        for row in conv.weight.flatten(1):
            assert len({float(v) for v in row.detach().abs() if v}) <= 1
    assert len(model.stem.conv.weight.abs().unique()) > 100
    assert zeros(model) == pytest.approx(0.3, abs=0.01)


def test_the_parameters_behind_the_levels_learn(tmp_path: Path) -> None:
    """Of a rate so small that no weight leaves its level, the parameters move all the same."""
    state = torch.load
    model = trained(tmp_path, weight_bits=8, lr=1e-6, weight_decay=0.0)
    saved = state(tmp_path / "checkpoint-000000030.pt", weights_only=True)["model"]
    name = "stage1.block0.conv1.weight"
    assert not torch.equal(saved[name], network().state_dict()[name])
    assert not torch.equal(saved[name], model.state_dict()[name])


# -- what is refused


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prune": 1.0}, "prune = 1.0 must be from 0 to 0.999"),
        ({"prune": -0.1}, "prune = -0.1 must be from 0 to 0.999"),
        (
            {"prune": 0.5, "prune_epochs": [0, 7]},
            r"prune_epochs = \[0.0, 7.0\] must be \[from, to\], two epochs of the 6",
        ),
        ({"prune": 0.5, "prune_epochs": [3, 3]}, r"must be \[from, to\], two epochs of the 6"),
        ({"prune": 0.5, "prune_epochs": [3]}, r"must be \[from, to\], two epochs of the train"),
        (
            {"prune_scope": "block"},
            "'block' must be one of 'global', 'layer', 'synops'",
        ),
        ({"weight_bits": 3}, "weight_bits = 3 .* 0, 1, 8"),
        ({"synops_weight": 1.0, "checkpointing": True}, "checkpointing keeps no spikes"),
        ({"weight_scale": "layer"}, "is for 8 bits: set weight_bits=8 too"),
        ({"prune_epochs": [0, 3]}, "prune_epochs is for a share of zeros"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Recipe.from_dict(RECIPE | values)
    assert len(str(caught.value).splitlines()) == 1


def test_a_share_of_nothing_is_nothing() -> None:
    model = network()
    assert zeros(model) == 0 and not math.isnan(zeros(model))
