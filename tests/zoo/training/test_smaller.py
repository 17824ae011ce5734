"""Networks that are trained to be small: zeros, few bits, few SynOps; the exact counter judges."""

import json
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

import zoo
from export.energy import estimate
from export.nir.exporter import to_nir
from export.onnx.exporter import write_onnx
from export.prepare.fold import fold, folded_norms, still_image
from export.prepare.quantize import quantize_weights
from export.prepare.trace import trace
from zoo.danet import DANet
from zoo.errors import ConfigError
from zoo.provenance import WeightFormat
from zoo.training import pruning
from zoo.training.config import Recipe
from zoo.training.pruning import Pruning, zeros
from zoo.training.synops import (
    convolutions_of_spikes,
    read_events,
    spikes_share,
    synops_share,
    weight_costs,
)
from zoo.training.train import TrainingRun, train
from zoo.training.weight_forms import norms_behind
from zoo.warmstart import warm_start
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
        for weight in convolutions_of_spikes(model).values():
            weight.weight[torch.rand_like(weight.weight) < 0.4] = 0
    x = torch.randn(3, 1, 20, 20)
    with torch.no_grad(), read_events(model) as events:
        model(x)
    rows = {layer.name: layer.counts["acs"] for layer in estimate(model, x).layers}
    counted, possible = 0.0, 0.0
    for path, conv in convolutions_of_spikes(model).items():
        costs = weight_costs(conv, events[path])
        row = rows[path.replace(".", "_")]
        assert float((costs * (conv.weight != 0)).sum()) == row
        counted += row
        full = events[path]._replace(
            values=torch.full_like(events[path].values, events[path].summed)
        )
        possible += float((weight_costs(conv, full) * (conv.weight != 0)).sum())
    assert float(synops_share(model, events)) == pytest.approx(counted / possible)


def test_the_share_of_spikes_is_the_mean_firing_rate_of_what_is_read() -> None:
    model = lively("danet20-t2.fmnist", 16, widths=(4, 6, 8))
    with torch.no_grad(), read_events(model) as events:
        model(torch.randn(2, 1, 16, 16))
    rates = [(float(x.mean()) / summed, x.numel() * summed) for x, summed in events.values()]
    total = sum(n for _, n in rates)
    expected = sum(rate * n for rate, n in rates) / total
    assert float(spikes_share(events)) == pytest.approx(expected)


@pytest.mark.parametrize("key", ["synops_weight", "spikes_weight"])
def test_a_loss_that_pays_for_spikes_makes_fewer(key: str, tmp_path: Path) -> None:
    def synops(model: DANet) -> float:
        pixels = data().pixels.float() / 255
        with torch.no_grad(), read_events(model) as events:
            model(pixels)
        return float(synops_share(model, events))

    plain, paid = trained(tmp_path / "plain"), trained(tmp_path / "paid", **{key: 5.0})
    assert synops(paid) < 0.8 * synops(plain)


# -- pruning


@pytest.mark.parametrize(
    ("method", "scope"),
    [
        ("magnitude", "global"),
        ("magnitude", "layer"),
        ("magnitude", "synops"),
        ("gradr", "global"),
        ("gradr", "layer"),
    ],
)
def test_the_share_of_zeros_follows_the_cube_and_ends_as_asked_for(
    method: str, scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "STEPS_PER_CHOICE", 1)
    off: list[float] = []
    update = Pruning.update

    def watched(self: Pruning, optimizer: Any, step: int, events: Any) -> None:
        update(self, optimizer, step, events)
        # Grad R's prior acts at the next step
        wanted = self.share_at(step - 1 if method == "gradr" and step < self.last else step)
        off.append(abs(self.share() - wanted))

    monkeypatch.setattr(Pruning, "update", watched)
    model = trained(tmp_path, prune=0.7, prune_method=method, prune_scope=scope)
    weights = [conv.weight for conv in convolutions_of_spikes(model).values()]
    rounding = len(weights) / sum(w.numel() for w in weights)
    assert max(off) < (0.15 if method == "gradr" else rounding)
    assert zeros(model) == pytest.approx(0.7, abs=0.005 if method == "gradr" else rounding)
    assert model.stem.conv.weight.all() and model.head.fc.weight.all()
    shares = {round(float((w == 0).float().mean()), 1) for w in weights}
    assert (shares == {0.7}) is (scope == "layer")


def test_the_average_of_the_weights_has_the_same_zeros(tmp_path: Path) -> None:
    assert zeros(trained(tmp_path, prune=0.7, ema=0.9)) == pytest.approx(0.7, abs=0.01)


def test_frozen_parts_are_neither_pruned_nor_rounded(tmp_path: Path) -> None:
    rounded = trained(tmp_path / "rounded", weight_bits=8, freeze=["stem", "stage1"])
    for name, weight in network().named_parameters():
        if weight.dim() > 1:
            stays = name.startswith(("stem.", "stage1."))
            assert torch.equal(rounded.get_parameter(name), weight) is stays, name
    model = trained(tmp_path / "pruned", prune=0.7, freeze=["stage1"])
    assert all(
        bool(conv.weight.all()) is name.startswith("stage1")
        for name, conv in convolutions_of_spikes(model).items()
    )


def test_what_is_zero_at_the_start_stays_so(tmp_path: Path) -> None:
    model = trained(tmp_path / "once", prune=0.7)
    before = {name: c.weight == 0 for name, c in convolutions_of_spikes(model).items()}
    again = trained(tmp_path / "again", model, prune=0.9)
    after = {name: c.weight == 0 for name, c in convolutions_of_spikes(again).items()}
    assert zeros(again) == pytest.approx(0.9, abs=0.01)
    assert all(bool(after[name][zero].all()) for name, zero in before.items())


def test_blocks_that_were_added_as_the_identity_learn(tmp_path: Path) -> None:
    """Order b adds a block by a last convolution of zeros, which are not pruned ones."""
    config = replace(network().config, order="b")
    deeper = DANet(replace(config, depths=(1, 3)))
    grown = warm_start(deeper, DANet(config)).grown
    assert not deeper.stage2.block2.conv2.weight.any()
    recipe = Recipe.from_dict(RECIPE | {"prune": 0.3})
    masks = Pruning(deeper, recipe, 5, grown).masks
    assert masks["stage2.block2.conv2"].all()
    assert not Pruning(deeper, recipe, 5).masks["stage2.block2.conv2"].any()


def test_epochs_without_a_step_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prune_epochs = \[0, 0.05\] hold no step, of 5 an epo"):
        trained(tmp_path, prune=0.7, prune_epochs=(0, 0.05))


def test_the_log_says_how_small_a_network_is(tmp_path: Path) -> None:
    trained(tmp_path, prune=0.7, synops_weight=1.0, spikes_weight=1.0)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["zeros"] for line in lines] == sorted(line["zeros"] for line in lines)
    assert lines[-1]["zeros"] == pytest.approx(0.7, abs=0.001)
    assert all(0 < line["synops_share"] < 1 and 0 < line["spikes_share"] < 1 for line in lines)


def test_the_share_grows_along_a_cube() -> None:
    recipe = Recipe.from_dict(RECIPE | {"prune": 0.8, "prune_epochs": (1, 5)})
    plan = Pruning(network(), recipe, per_epoch=10)
    assert [plan.share_at(step) for step in (0, 10, 30, 50, 60)] == pytest.approx(
        [0, 0, 0.8 * (1 - 1 / 8), 0.8, 0.8]
    )
    assert [step for step in range(61) if plan.chooses(step)] == [10, 30, 50]


def test_grad_r_lets_weights_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    came_back = 0
    pull = Pruning._pull

    def watched(self: Pruning, step: int) -> None:
        nonlocal came_back
        before = {name: mask.clone() for name, mask in self.masks.items()}
        pull(self, step)
        came_back += sum(int((self.masks[name] & ~mask).sum()) for name, mask in before.items())

    monkeypatch.setattr(Pruning, "_pull", watched)
    monkeypatch.setattr(pruning, "STEPS_PER_CHOICE", 1)
    start = network()
    signs = {name: c.weight.sign().detach() for name, c in convolutions_of_spikes(start).items()}
    model = trained(tmp_path, prune=0.7, prune_method="gradr", ema=0.9)
    assert came_back > 2
    for name, conv in convolutions_of_spikes(model).items():
        assert ((conv.weight == 0) | (conv.weight.sign() == signs[name])).all()


def test_zeros_survive_storage_and_every_export(tmp_path: Path) -> None:
    model = lively("danet20-t2.fmnist", 20, widths=(4, 6, 8))
    with torch.no_grad():
        for conv in convolutions_of_spikes(model).values():
            conv.weight[torch.rand_like(conv.weight) < 0.7] = 0
    shares = {
        name: float((conv.weight == 0).float().mean())
        for name, conv in convolutions_of_spikes(model).items()
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
@pytest.mark.parametrize("order", ["a", "b", "c"])
def test_eight_bits_are_those_of_the_export(
    scale: str, form: WeightFormat, share: float, order: str, tmp_path: Path
) -> None:
    start = DANet(replace(network().config, order=order))
    model = trained(tmp_path, start, weight_bits=8, weight_scale=scale, prune=share)
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


@pytest.mark.parametrize("name", ["danet20", "danet20b", "danet20c", "sew-resnet18", "danet50"])
def test_the_norms_behind_are_those_that_the_export_folds(name: str) -> None:
    model = zoo.create(f"{name}-t1.fmnist")
    behind = {norm.path: conv for conv, norm in norms_behind(model).items()}
    assert behind == folded_norms(trace(model, still_image(model)))


def test_one_bit_is_a_sign_times_a_size(tmp_path: Path) -> None:
    model = trained(tmp_path, weight_bits=1, prune=0.3)
    for conv in convolutions_of_spikes(model).values():
        for row in conv.weight.flatten(1):
            assert len({float(v) for v in row.detach().abs() if v}) <= 1
    assert len(model.stem.conv.weight.abs().unique()) > 100
    assert zeros(model) == pytest.approx(0.3, abs=0.01)


def test_the_parameters_behind_the_levels_learn(tmp_path: Path) -> None:
    """The parameters move even at a rate so small that no weight leaves its level."""
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
            r"prune_epochs = \[0.0, 7.0\] must be \[from, to\], rising, of the 6 epochs",
        ),
        ({"prune": 0.5, "prune_epochs": [3, 3]}, r"must be \[from, to\], rising, of the 6 epochs"),
        ({"prune": 0.5, "prune_epochs": [3]}, r"must be \[from, to\], epochs of the training"),
        (
            {"prune_scope": "block"},
            "'block' must be one of 'global', 'layer', 'synops'",
        ),
        ({"weight_bits": 3}, "weight_bits = 3 .* 0, 1, 8"),
        ({"synops_weight": 1.0, "checkpointing": True}, "checkpointing keeps no spikes"),
        ({"prune_method": "gradr"}, "prune_epochs, prune_method and prune_scope need"),
        ({"prune": 0.5, "prune_method": "gradr", "prune_scope": "synops"}, "chooses by theta al"),
        ({"weight_scale": "layer"}, "is for 8 bits: set weight_bits=8 too"),
        ({"prune_epochs": [0, 3]}, "prune_epochs, prune_method and prune_scope need"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Recipe.from_dict(RECIPE | values)
    assert len(str(caught.value).splitlines()) == 1
