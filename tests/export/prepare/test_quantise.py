"""Weights on a grid of 255 levels for each output channel, and nothing else changed."""

import torch
from support.networks import lively
from torch import nn

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
    layers = {
        "stem.conv": "stem.lif",
        "stage2.block0.conv2": "stage2.block0.lif2",
        "stage3.link2.conv": "stage3.link2.lif",
    }
    for conv, lif in layers.items():
        before, after = (m.get_submodule(conv) for m in (folded, found))
        scale = max(before.weight.abs().max(), before.bias.abs().max()) / 127
        threshold = found.get_submodule(lif).neuron.threshold
        for numbers in (after.weight, after.bias, threshold):
            torch.testing.assert_close(
                numbers / scale, (numbers / scale).round(), atol=1e-3, rtol=0
            )
        assert abs(threshold - 1) <= scale / 2 and not torch.equal(before.weight, after.weight)
    assert quantize_weights(model, "float32") is model


def test_rounding_again_changes_nothing_and_zero_stays_zero() -> None:
    model = lively("danet20-t2.fmnist", 12, widths=(4, 6, 8))
    with torch.no_grad():
        model.get_submodule("head.fc").weight[3] = 0
    once = quantize_weights(model)
    twice = quantize_weights(once)
    assert (once.get_submodule("head.fc").weight[3] == 0).all()
    for path, value in once.state_dict().items():
        torch.testing.assert_close(twice.state_dict()[path], value, rtol=1e-6, atol=0)
