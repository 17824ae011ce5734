"""What decides that nothing fired, and the sentences that say it."""

import torch
from support.networks import lively

from zoo.silence import NO_SPIKES, is_silent, silence_note, silent_layers, watch_spikes


def test_a_network_is_silent_if_it_has_neurons_and_none_fires() -> None:
    assert is_silent({"a": 0, "b": 0}) and silence_note({"a": 0}) == NO_SPIKES
    assert not is_silent({}) and silence_note({}) == ""
    assert not is_silent({"a": 0, "b": 1})


def test_silent_layers_are_named_and_not_too_many() -> None:
    assert silent_layers({"a": 0, "b": 1}) == ("a",)
    assert silence_note({"a": 0, "b": 1}) == "1 of 2 layers of neurons never fired: a"
    spikes = dict.fromkeys("vwxyz", 0) | {"a": 3}
    assert silence_note(spikes) == "5 of 6 layers of neurons never fired: v, w, x, ..."
    assert silence_note({"a": 3}) == ""


def test_the_first_spike_ends_the_watch() -> None:
    model = lively("danet20-t2.fmnist", 20, widths=(4, 6, 8))
    plain = sum(len(module._forward_hooks) for module in model.modules())
    fired = watch_spikes(model)
    assert not fired() and sum(len(module._forward_hooks) for module in model.modules()) > plain
    model(torch.ones(1, 1, 20, 20))
    assert fired() and sum(len(module._forward_hooks) for module in model.modules()) == plain


def test_zero_weights_never_fire() -> None:
    model = lively("danet20-t2.fmnist", 20, widths=(4, 6, 8))
    for parameter in model.parameters():
        parameter.data.zero_()
    fired = watch_spikes(model)
    model(torch.ones(1, 1, 20, 20))
    assert not fired()
