"""Weights on a grid of 255 levels for each output channel, and nothing else changed."""

import torch
from support.networks import lively
from torch import nn

from export import check, to_nir
from export.prepare.fold import fold
from export.prepare.quantize import quantize_weights


def test_weights_are_integers_times_a_scale_per_channel() -> None:
    model = lively("danet20-t2.fmnist", 12, widths=(4, 6, 8))
    folded, found = fold(model), quantize_weights(model)
    assert found.origin is not None and (
        found.origin.weight_format,
        model.origin.weight_format,
    ) == (
        "int8",
        "float32",
    )
    layers = [
        path for path, module in folded.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    assert len(layers) == 20
    for path in layers:
        before, after = (m.get_submodule(path).weight.detach().flatten(1) for m in (folded, found))
        scale = before.abs().amax(1, keepdim=True) / 127
        levels = after / scale
        torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
        assert (levels.abs().amax(1).round() == 127).all() and (
            (after - before).abs() <= scale * 0.5001
        ).all(), path
        assert torch.equal(folded.get_submodule(path).bias, found.get_submodule(path).bias)


def test_a_scale_per_layer_holds_for_biases_and_thresholds() -> None:
    model = lively("speck-danet8-t2.fmnist", 12, widths=(4, 6, 8))
    folded, found = fold(model), quantize_weights(model, "int8-layer")
    # each with how many values its inputs are the average of: a chip adds these up
    layers = {
        "stem.conv": ("stem.lif", 1),
        "stage2.block0.conv2": ("stage2.block0.lif2", 1),
        "stage3.link2.conv": ("stage3.link2.lif", 4),
    }
    for conv, (lif, parts) in layers.items():
        before, after = (m.get_submodule(conv) for m in (folded, found))
        scale = max(before.weight.abs().max(), parts * before.bias.abs().max()) / 127
        threshold = found.get_submodule(lif).neuron.threshold
        for numbers, step in (
            (after.weight, scale),
            (after.bias, scale / parts),
            (threshold, scale / parts),
        ):
            torch.testing.assert_close(numbers / step, (numbers / step).round(), atol=1e-3, rtol=0)
        assert abs(threshold - 1) <= scale / 2 and not torch.equal(before.weight, after.weight)
    assert quantize_weights(model, "float32") is model


def test_biases_behind_a_pool_fit_the_chip() -> None:
    """A weight behind a pool is a part of itself, in whose steps the bias has 8 bits too."""
    model = lively("speck-danet8-t2.fmnist", 28)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.bias.data.uniform_(-2, 2)
    graph = to_nir(quantize_weights(model, "int8-layer"), dialect="native")
    assert check(graph, "speck2e").fits


def test_rounding_again_changes_nothing_and_zero_stays_zero() -> None:
    model = lively("danet20-t2.fmnist", 12, widths=(4, 6, 8))
    with torch.no_grad():
        model.get_submodule("head.fc").weight[3] = 0
    once = quantize_weights(model)
    twice = quantize_weights(once)
    assert (once.get_submodule("head.fc").weight[3] == 0).all()
    for path, value in once.state_dict().items():
        torch.testing.assert_close(twice.state_dict()[path], value, rtol=1e-6, atol=0)
