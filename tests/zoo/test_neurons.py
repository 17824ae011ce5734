"""The fused neuron is snnTorch's, spike for spike and gradient for gradient, and both are the hard-reset LIF of the literature."""

from collections.abc import Callable

import pytest
import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn

from zoo import neurons
from zoo.danet import DANet
from zoo.neurons import ATan, Lif, Rectangle

JUST_BELOW_ONE = 1 - 2**-24
SURROGATES = [ATan(), ATan(alpha=3.0), Rectangle(), Rectangle(half_width=0.25, height=2.0)]


def currents(steps: int, batch: int = 5, threshold: float = 1.0) -> Tensor:
    """`[T*B, 6, 3, 4]`: half random, half multiples of a quarter of the threshold, whose membranes meet it exactly."""
    x = torch.randn(steps * batch, 6, 3, 4) * threshold
    x[:, ::2] = torch.randint(-2, 7, x[:, ::2].shape) * (threshold / 4)
    return x


def loop(neuron: nn.Module, x: Tensor, steps: int) -> Tensor:
    """snnTorch as its tutorials use it: one call a step, the membrane handed on."""
    mem, spikes = torch.zeros_like(x.unflatten(0, (steps, -1))[0], dtype=torch.float32), []
    for current in x.unflatten(0, (steps, -1)):
        spike, mem = neuron(current, mem)
        spikes.append(spike)
    return torch.cat(spikes).to(x.dtype)


def backward(run: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The gradient of a weighted sum of the spikes, the weights being the same at every call."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    weights = torch.arange(x.numel()).remainder(7).view(x.shape) - 3  # exact in bfloat16
    (run(x) * weights).sum().backward()
    return x.grad


def assert_same_gradient(found: Tensor, expected: Tensor) -> None:
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("steps", [1, 2, 3, 8])
@pytest.mark.parametrize("threshold", [1.0, 0.5, JUST_BELOW_ONE])
@pytest.mark.parametrize("beta", [0.5, 0.75, 0.9, 1.0])
def test_fused_spikes_are_the_loop(
    beta: float, threshold: float, steps: int, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x = currents(steps, threshold=threshold).to(dtype=dtype, memory_format=layout)
    lif = Lif(steps, beta=beta, threshold=threshold)
    spikes = lif(x)
    assert torch.equal(spikes, loop(lif.neuron, x, steps))
    assert torch.equal(spikes, Lif(steps, beta=beta, threshold=threshold, fused=False)(x))
    assert spikes.dtype == dtype and spikes.is_contiguous(memory_format=layout)
    assert 0.05 < spikes.float().mean() < 0.95


@pytest.mark.parametrize("spike_grad", SURROGATES, ids=repr)
@pytest.mark.parametrize("threshold", [1.0, 0.5, JUST_BELOW_ONE])
@pytest.mark.parametrize("steps", [1, 4, 8])
@pytest.mark.parametrize("beta", [0.5, 0.9, 1.0])
def test_fused_gradient_is_the_loop(beta: float, steps: int, threshold: float, spike_grad: ATan | Rectangle) -> None:
    x = currents(steps, threshold=threshold)
    lif = Lif(steps, beta=beta, threshold=threshold, spike_grad=spike_grad)
    assert_same_gradient(backward(lif, x), backward(lambda x: loop(lif.neuron, x, steps), x))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "channels_last"])
@pytest.mark.parametrize("elements", [1, 6 * 3 * 4 * 2, 6 * 3 * 4 * 3])
def test_a_batch_larger_than_the_cache_is_cut(elements: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    x = currents(4, batch=7).to(memory_format=layout)
    lif = Lif(4)
    whole, gradient = lif(x), backward(lif, x)
    monkeypatch.setattr(neurons, "CACHED_ELEMENTS", elements)
    assert len(neurons._parts(x.unflatten(0, (4, -1)))) == {1: 7, 144: 4, 216: 3}[elements]
    assert torch.equal(lif(x), whole)
    assert torch.equal(backward(lif, x), gradient)


def test_bfloat16_gradient_is_the_rounded_float32_one() -> None:
    x = currents(4).bfloat16()
    found, expected = backward(Lif(4), x), backward(Lif(4), x.float())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected.bfloat16(), rtol=2**-7, atol=0)


@pytest.mark.parametrize("threshold", [1.0, 0.5, 1.5])
@pytest.mark.parametrize("beta", [0.25, 0.5, 0.75, 1.0])
def test_hard_reset_lif_in_plain_python(beta: float, threshold: float) -> None:
    steps = 6
    x = torch.randint(-4, 17, (steps, 200)) / 8  # exact in float32 and in Python's floats
    expected, on_threshold = [], 0
    for currents_of_one in x.T.tolist():
        membrane = 0.0
        for current in currents_of_one:
            membrane = beta * membrane + current
            on_threshold += membrane == threshold
            expected.append(float(membrane > threshold))
            membrane = 0.0 if membrane > threshold else membrane
    assert on_threshold > 0
    assert Lif(steps, beta=beta, threshold=threshold)(x).T.flatten().tolist() == expected


def test_just_below_one_fires_at_one_and_not_below() -> None:
    below = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0)).item()
    assert below == JUST_BELOW_ONE
    x = torch.tensor([1.0, below])
    assert Lif(1, threshold=JUST_BELOW_ONE)(x).tolist() == [1.0, 0.0]
    assert Lif(1, threshold=1.0)(x).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("fused", [True, False])
def test_no_state_leaks_into_the_next_call(fused: bool) -> None:
    lif, x = Lif(3, fused=fused), currents(3)
    first = lif(x)
    lif(currents(3, batch=2) + 1)
    assert torch.equal(lif(x), first)
    assert torch.equal(lif(x[:, :, :2, :2]), first[:, :, :2, :2])


def test_images_of_a_batch_do_not_meet() -> None:
    lif, x = Lif(3), currents(3, batch=4).unflatten(0, (3, 4))
    alone = torch.cat([lif(x[:, i : i + 1].flatten(0, 1)).unflatten(0, (3, 1)) for i in range(4)], dim=1)
    assert torch.equal(lif(x.flatten(0, 1)), alone.flatten(0, 1))


def test_no_neuron_is_kept_alive_by_snntorch(tiny: Callable[..., DANet]) -> None:
    before = len(snn.SpikingNeuron.instances)
    tiny()(torch.zeros(2, 1, 8, 8))
    assert len(snn.SpikingNeuron.instances) == before


REPLACEMENTS = {
    "other beta": {"beta": 0.8, "spike_grad": ATan()},
    "other surrogate": {"beta": 0.5, "spike_grad": surrogate.fast_sigmoid()},
    "soft reset": {"beta": 0.7, "reset_mechanism": "subtract"},
    "no reset": {"beta": 0.7, "reset_mechanism": "none"},
    "graded spikes": {"beta": 0.5, "graded_spikes_factor": 2.0},
    "graded spikes, fused": {"beta": 0.5, "graded_spikes_factor": 2.0, "spike_grad": ATan()},
    "learnable beta": {"beta": 0.6, "learn_beta": True},
    "learnable threshold": {"beta": 0.6, "threshold": 0.8, "learn_threshold": True},
}


@pytest.mark.parametrize("options", REPLACEMENTS.values(), ids=REPLACEMENTS.keys())
def test_a_replaced_neuron_behaves_as_itself(options: dict[str, object]) -> None:
    lif, x = Lif(4), currents(4)
    lif.neuron = snn.Leaky(**{"reset_mechanism": "zero"} | options)
    found, found_beta = backward(lif, x), lif.neuron.beta.grad
    lif.zero_grad()
    assert torch.equal(lif(x), loop(lif.neuron, x, 4))
    assert_same_gradient(found, backward(lambda x: loop(lif.neuron, x, 4), x))
    if options.get("learn_beta"):
        assert found_beta != 0
        torch.testing.assert_close(found_beta, lif.neuron.beta.grad)


def test_a_reset_renamed_after_the_fact_is_still_the_old_one() -> None:
    """Setting `reset_mechanism` on a finished snn.Leaky changes its buffer and not what it does."""
    lif, x = Lif(4), currents(4)
    lif.neuron = snn.Leaky(beta=0.5, spike_grad=ATan(), reset_mechanism="subtract")
    lif.neuron.reset_mechanism = "zero"
    assert not lif.exportable
    assert torch.equal(lif(x), loop(lif.neuron, x, 4))


def test_a_network_trains_a_learnable_beta(tiny: Callable[..., DANet]) -> None:
    model = tiny()
    learnt = [m for m in model.modules() if isinstance(m, Lif)]
    for lif in learnt:
        lif.neuron = snn.Leaky(beta=0.5, learn_beta=True, spike_grad=ATan(), reset_mechanism="zero")
    model(torch.randn(4, 1, 8, 8) * 3).square().sum().backward()
    assert all(lif.neuron.beta.grad is not None and lif.neuron.beta.grad != 0 for lif in learnt)


@pytest.mark.parametrize(
    ("options", "exportable"),
    [
        ({}, True),
        ({"spike_grad": surrogate.fast_sigmoid()}, True),
        ({"learn_beta": True}, True),
        ({"reset_mechanism": "subtract"}, False),
        ({"graded_spikes_factor": 2.0}, False),
        ({"init_hidden": True}, False),
        ({"state_quant": torch.round}, False),
    ],
)
def test_exportable_is_this_equation_and_no_other(options: dict[str, object], exportable: bool) -> None:
    lif = Lif(2)
    lif.neuron = snn.Leaky(**{"beta": 0.5, "reset_mechanism": "zero"} | options)
    assert lif.exportable is exportable


def test_state_dict_keys() -> None:
    """Files of weights hold these keys."""
    keys = {"neuron.beta", "neuron.threshold", "neuron.graded_spikes_factor", "neuron.reset_mechanism_val"}
    assert set(Lif(2).state_dict()) == keys
