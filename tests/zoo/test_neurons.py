"""The fused neuron is snnTorch's, spike for spike and gradient for gradient, and both are the
hard-reset LIF of the literature.

What autograd keeps of spikes and currents is less than they are, and enough for the same gradients.
"""

import copy
import weakref
from collections.abc import Callable
from contextlib import nullcontext

import pytest
import snntorch as snn
import torch
from snntorch import surrogate
from torch import Tensor, nn

from zoo import autograd, fused_lif
from zoo.autograd import call_norm, kept_as_bytes
from zoo.danet import DANet
from zoo.errors import ConfigError
from zoo.neurons import Lif
from zoo.surrogates import ATan, Rectangle, Surrogate

JUST_BELOW_ONE = 1 - 2**-24
SURROGATES = [ATan(), ATan(alpha=3.0), Rectangle(), Rectangle(half_width=0.25, height=2.0)]


def currents(steps: int, batch: int = 5, threshold: float = 1.0) -> Tensor:
    """`[T*B, 6, 3, 4]`: half random, half multiples of a quarter of the threshold, whose membranes
    meet it exactly.
    """
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


@pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "channels_last"]
)
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
def test_fused_gradient_is_the_loop(
    beta: float, steps: int, threshold: float, spike_grad: Surrogate
) -> None:
    x = currents(steps, threshold=threshold)
    lif = Lif(steps, beta=beta, threshold=threshold, spike_grad=spike_grad)
    assert_same_gradient(backward(lif, x), backward(lambda x: loop(lif.neuron, x, steps), x))


@pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["nchw", "channels_last"]
)
@pytest.mark.parametrize("elements", [1, 6 * 3 * 4 * 2, 6 * 3 * 4 * 3])
def test_a_batch_larger_than_the_cache_is_cut(
    elements: int, layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = currents(4, batch=7).to(memory_format=layout)
    lif = Lif(4)
    whole, gradient = lif(x), backward(lif, x)
    monkeypatch.setattr(fused_lif, "CACHED_ELEMENTS", elements)
    assert len(fused_lif._batch_slices(x.unflatten(0, (4, -1)))) == {1: 7, 144: 4, 216: 3}[elements]
    assert torch.equal(lif(x), whole)
    assert torch.equal(backward(lif, x), gradient)


def test_bfloat16_gradient_is_the_rounded_float32_one() -> None:
    x = currents(4).bfloat16()
    found, expected = backward(Lif(4), x), backward(Lif(4), x.float())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected.bfloat16(), rtol=2**-7, atol=0)


def test_bfloat16_gradient_of_spikes_of_another_height_is_rounded_once() -> None:
    x, lif = currents(1).bfloat16(), Lif(1)
    # with T = 1 nothing is added up: only the last rounding is left
    lif.neuron.graded_spikes_factor.fill_(0.3)
    assert torch.equal(backward(lif, x), backward(lif, x.float()).bfloat16())


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
    alone = torch.cat(
        [lif(x[:, i : i + 1].flatten(0, 1)).unflatten(0, (3, 1)) for i in range(4)], dim=1
    )
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


class ThreeOutputs(snn.Leaky):
    def forward(self, input_: Tensor, mem: Tensor | None = None) -> tuple[Tensor, ...]:
        return *super().forward(input_, mem), input_


OTHER_CALLS = {
    "snntorch.RLeaky": lambda: snn.RLeaky(0.9, all_to_all=False),
    "snntorch.RSynaptic": lambda: snn.RSynaptic(0.9, 0.5, all_to_all=False),
    "snntorch.Synaptic": lambda: snn.Synaptic(0.9, 0.5),
    "snntorch.Alpha": lambda: snn.Alpha(0.9, 0.5),
    "snntorch.LeakyParallel": lambda: snn.LeakyParallel(4, 4),
    "snntorch.Leaky with init_hidden=True": lambda: snn.Leaky(0.9, init_hidden=True),
    r"\w+.ThreeOutputs": lambda: ThreeOutputs(0.9),
    "torch.ReLU": nn.ReLU,
}


@pytest.mark.parametrize("said", OTHER_CALLS)
def test_a_neuron_of_another_call_is_refused(said: str) -> None:
    lif = Lif(4)
    lif.neuron = OTHER_CALLS[said]()
    with pytest.raises(ConfigError, match=f"^{said} cannot be the neuron of a Lif") as error:
        lif(currents(4))
    assert "\n" not in str(error.value)


def test_lapicque_has_the_same_call() -> None:
    lif, x = Lif(4), currents(4)
    lif.neuron = snn.Lapicque(0.7)
    assert torch.equal(lif(x), loop(lif.neuron, x, 4))


@pytest.mark.slow
# dynamo's way with snnTorch's surrogates
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_a_neuron_that_is_looped_over_is_compiled_whole() -> None:
    lif, x = Lif(4, reset="subtract"), currents(4)
    assert torch.equal(torch.compile(lif, fullgraph=True, backend="eager")(x), lif(x))


def test_a_reset_renamed_after_the_fact_is_still_the_old_one() -> None:
    """Setting `reset_mechanism` on a finished snn.Leaky changes its buffer and not what it does."""
    lif, x = Lif(4), currents(4)
    lif.neuron = snn.Leaky(beta=0.5, spike_grad=ATan(), reset_mechanism="subtract")
    lif.neuron.reset_mechanism = "zero"
    assert lif.reset == "subtract"
    assert torch.equal(lif(x), loop(lif.neuron, x, 4))


def test_a_network_trains_a_learnable_beta(tiny: Callable[..., DANet]) -> None:
    model = tiny()
    learnt = [m for m in model.modules() if isinstance(m, Lif)]
    for lif in learnt:
        lif.neuron = snn.Leaky(beta=0.5, learn_beta=True, spike_grad=ATan(), reset_mechanism="zero")
    model(torch.randn(4, 1, 8, 8) * 3).square().sum().backward()
    assert all(lif.neuron.beta.grad is not None and lif.neuron.beta.grad != 0 for lif in learnt)


def test_state_dict_keys() -> None:
    """Files of weights hold these keys."""
    keys = {
        "neuron.beta",
        "neuron.threshold",
        "neuron.graded_spikes_factor",
        "neuron.reset_mechanism_val",
    }
    assert set(Lif(2).state_dict()) == keys


FORMATS = [torch.contiguous_format, torch.channels_last]
READERS: dict[str, Callable[[], list[nn.Module]]] = {
    "conv": lambda: [nn.Conv2d(6, 4, 3, padding=1, bias=False)],
    "strided": lambda: [nn.Conv2d(6, 4, 1, stride=2)],
    "pool": lambda: [nn.AvgPool2d(2)],
    "max pool": lambda: [nn.MaxPool2d(3, 2, 1)],
    "several": lambda: [
        nn.Conv2d(6, 4, 3, padding=1),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 6, 1),
        nn.Conv2d(6, 2, 3, stride=2),
    ],
}


def graded(steps: int, height: float) -> Lif:
    lif = Lif(steps)
    lif.neuron = snn.Leaky(
        beta=0.5, spike_grad=ATan(), reset_mechanism="zero", graded_spikes_factor=height
    )
    return lif


def read(
    lif: Lif, readers: list[nn.Module], x: Tensor, as_bytes: bool, autocast: bool
) -> list[Tensor]:
    """The readers' outputs, and the gradients of the currents and of the readers' weights."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    outputs = []
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        spikes = lif(x)
        for reader in readers:
            reader.zero_grad()
            with kept_as_bytes(spikes) if as_bytes else nullcontext():
                outputs.append(reader(spikes))
    weights = [torch.arange(y.numel()).remainder(5).view(y.shape) - 1.0 for y in outputs]
    del spikes
    sum((y.float() * w).sum() for y, w in zip(outputs, weights, strict=True)).backward()
    return [*outputs, x.grad, *(p.grad.clone() for reader in readers for p in reader.parameters())]


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "channels_last"])
@pytest.mark.parametrize("kind", ["f32", "f32 autocast", "bf16 autocast"])
@pytest.mark.parametrize("height", [1.0, 0.5])
@pytest.mark.parametrize("readers", READERS.values(), ids=READERS)
def test_spikes_kept_as_bytes_give_the_same_gradients(
    readers: Callable[[], list[nn.Module]], height: float, kind: str, layout: torch.memory_format
) -> None:
    x = currents(4).to(
        dtype=torch.bfloat16 if kind.startswith("bf16") else torch.float32, memory_format=layout
    )
    lif, modules = graded(4, height), [module.to(memory_format=layout) for module in readers()]
    expected, found = (
        read(lif, modules, x, as_bytes, "autocast" in kind) for as_bytes in (False, True)
    )
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(tensor.any() for tensor in expected)


@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("height", [1.0, 0.5])
def test_what_the_readers_find_in_the_backward_pass_are_the_spikes(
    height: float, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x = currents(4).to(dtype=dtype, memory_format=layout).requires_grad_()
    lif, conv = graded(4, height), nn.Conv2d(6, 4, 3).to(dtype)
    spikes = lif(x)
    with kept_as_bytes(spikes):
        y = conv(spikes)
    found = y.grad_fn._saved_input
    assert torch.equal(found, spikes) and found.dtype == dtype and found.stride() == spikes.stride()
    assert found.data_ptr() != spikes.data_ptr()
    assert torch.equal(y.grad_fn._saved_weight, conv.weight)  # anything else is kept as it is
    assert y.grad_fn._saved_weight.data_ptr() == conv.weight.data_ptr()


def bytes_kept(run: Callable[[], Tensor]) -> int:
    """The bytes that are there after `run` and were not before, its result among them."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        result = run()
    assert result.requires_grad
    return sum(event.self_cpu_memory_usage for event in profile.function_events)


SLACK = 512  # numbers and vectors of a channel each


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
@pytest.mark.parametrize("readers", READERS.values(), ids=READERS)
def test_all_readers_share_one_byte_for_each_spike(
    readers: Callable[[], list[nn.Module]], dtype: torch.dtype
) -> None:
    x, modules = (
        currents(4, batch=20).to(dtype).requires_grad_(),
        [module.to(dtype) for module in readers()],
    )
    lif, indexes = Lif(4), 0
    if isinstance(modules[0], nn.MaxPool2d):
        indexes = modules[0](x)[0].numel() * len(x) * 8

    def run(as_bytes: bool) -> Tensor:
        spikes = lif(x)
        total = torch.zeros(())
        for reader in modules:
            with kept_as_bytes(spikes) if as_bytes else nullcontext():
                y = reader(spikes)
            total = total + y.sum()
        return total

    assert x.numel() <= bytes_kept(lambda: run(True)) - indexes <= x.numel() + SLACK
    assert bytes_kept(lambda: run(False)) - indexes >= x.nbytes


def test_nothing_keeps_the_spikes_alive() -> None:
    lif, conv, pool = Lif(4), nn.Conv2d(6, 4, 3), nn.AvgPool2d(2)
    alive = []
    for as_bytes in (False, True):
        spikes = lif(currents(4).requires_grad_())
        with kept_as_bytes(spikes) if as_bytes else nullcontext():
            outputs = [conv(spikes), pool(spikes)]
        watched = weakref.ref(spikes)
        del spikes
        alive.append(watched() is not None)
        del outputs
    assert alive == [True, False]


def test_the_bytes_are_gone_after_the_backward_pass() -> None:
    x, conv = currents(4).requires_grad_(), nn.Conv2d(6, 4, 3)
    spikes = Lif(4)(x)
    watched = weakref.ref(getattr(spikes, autograd.SPIKES_NOTE)[0][0])
    with kept_as_bytes(spikes):
        loss = conv(spikes).sum()
    del spikes
    assert watched() is not None
    loss.backward()
    assert watched() is None


def test_a_graph_that_is_kept_can_be_gone_through_twice() -> None:
    x, conv = currents(4).requires_grad_(), nn.Conv2d(6, 4, 3)
    spikes = Lif(4)(x)
    with kept_as_bytes(spikes):
        loss = conv(spikes).square().sum()
    first, second = (
        torch.autograd.grad(loss, [x, conv.weight], retain_graph=True) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("mode", ["eval", "no_grad", "inference"])
def test_without_training_there_are_no_bytes(mode: str) -> None:
    lif, x = Lif(4).train(mode != "eval"), currents(4, batch=20).requires_grad_()
    expected = lif(x)
    context = {
        "eval": nullcontext(),
        "no_grad": torch.no_grad(),
        "inference": torch.inference_mode(),
    }[mode]
    with context, torch.autograd.profiler.profile(profile_memory=True) as profile:
        spikes = lif(x)
    assert not hasattr(spikes, autograd.SPIKES_NOTE) and isinstance(
        kept_as_bytes(spikes), nullcontext
    )
    assert torch.equal(spikes, expected)
    assert sum(event.self_cpu_memory_usage for event in profile.function_events) <= x.nbytes + SLACK


def test_only_what_a_neuron_just_fired_is_kept_as_bytes() -> None:
    spikes = Lif(4)(currents(4).requires_grad_())
    assert not isinstance(kept_as_bytes(spikes), nullcontext)
    for other in (
        spikes + 1,
        spikes * 1,
        spikes.float().clone(),
        spikes[:2],
        spikes.detach(),
        Lif(4, fused=False)(spikes),
    ):
        assert isinstance(kept_as_bytes(other), nullcontext)
    with torch.no_grad():
        assert isinstance(kept_as_bytes(spikes), nullcontext)


def test_spikes_that_were_changed_in_place_are_not_what_was_fired() -> None:
    """As by a hook that silences neurons."""
    conv, gradients = nn.Conv2d(6, 4, 3), []
    for as_bytes in (False, True):
        spikes = Lif(4)(currents(4).requires_grad_()).mul_(0)
        with kept_as_bytes(spikes) if as_bytes else nullcontext():
            y = conv(spikes)
        gradients.append(torch.autograd.grad(y.sum(), conv.weight)[0])
    assert torch.equal(*gradients) and not gradients[0].any()


def normalised(x: Tensor, norm: nn.BatchNorm2d, lif: Lif, again: bool) -> list[Tensor]:
    """The spikes, the gradients, and the norm's statistics."""
    x, norm = (
        x.detach().clone(memory_format=torch.preserve_format).requires_grad_(),
        copy.deepcopy(norm),
    )
    current = call_norm(norm, x) if again else norm(x)
    spikes = lif(current)
    del current
    (spikes * (torch.arange(x.numel()).remainder(7).view(x.shape) - 3)).sum().backward()
    return [spikes, x.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()]


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("layout", FORMATS, ids=["nchw", "channels_last"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_currents_that_are_normalised_again_give_the_same_gradients(
    dtype: torch.dtype, layout: torch.memory_format, momentum: float | None
) -> None:
    x = (currents(4) * 3 + 1).to(dtype=dtype, memory_format=layout)
    norm = nn.BatchNorm2d(6, eps=1e-3, momentum=momentum)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, 0.2, 1)
    expected, found = (normalised(x, norm, Lif(4), again) for again in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert all(tensor.any() for tensor in expected)
    assert found[-1] == 1, "the batch is counted once"


def test_a_norm_without_weights_is_repeated_too() -> None:
    norm, x, gradients = nn.BatchNorm2d(6, affine=False), currents(4), []
    for again in (False, True):
        x = x.detach().clone().requires_grad_()
        current = call_norm(norm, x) if again else norm(x)
        Lif(4)(current).square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients) and gradients[0].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_currents_that_are_normalised_again_are_not_kept(dtype: torch.dtype) -> None:
    x, norm, lif = currents(4, batch=20).to(dtype).requires_grad_(), nn.BatchNorm2d(6), Lif(4)

    def run(again: bool) -> Tensor:
        current = call_norm(norm, x) if again else norm(x)
        return lif(current).sum()

    assert bytes_kept(lambda: run(True)) <= SLACK
    assert bytes_kept(lambda: run(False)) >= x.nbytes


@pytest.mark.parametrize("mode", ["eval", "no_grad"])
def test_only_a_batch_s_own_normalisation_is_repeated(mode: str) -> None:
    norm, x = nn.BatchNorm2d(6).train(mode != "eval"), currents(4).requires_grad_()
    with torch.no_grad() if mode == "no_grad" else nullcontext():
        current = call_norm(norm, x)
    assert not hasattr(current, autograd.NORM_NOTE)


def test_currents_that_were_changed_in_place_are_not_what_was_normalised() -> None:
    x, norm, gradients = currents(4), nn.BatchNorm2d(6), []
    for again in (False, True):
        x = x.detach().clone().requires_grad_()
        current = call_norm(norm, x) if again else norm(x)
        Lif(4)(current.add_(0.75)).square().sum().backward()
        gradients.append(x.grad)
    assert torch.equal(*gradients) and gradients[0].any()


@pytest.mark.parametrize(("beta", "threshold"), [(1.0, 1.0), (0.5, 0.75)])
def test_reset_by_subtraction(beta: float, threshold: float) -> None:
    """What is above the threshold stays on the membrane: an integrate-and-fire neuron loses no
    current.
    """
    lif, x = Lif(6, beta=beta, threshold=threshold, reset="subtract"), currents(6)
    spikes, mem, spk = (
        lif(x).unflatten(0, (6, -1)),
        torch.zeros_like(x[:1]),
        torch.zeros_like(x[:1]),
    )
    for t, current in enumerate(x.unflatten(0, (6, -1))):
        mem = beta * mem + current - threshold * spk
        spk = (mem > threshold).float()
        assert torch.equal(spikes[t], spk), t
    assert lif.reset == "subtract" and spikes.any()
    assert not torch.equal(spikes, Lif(6, beta=beta, threshold=threshold)(x).unflatten(0, (6, -1)))


def test_reset_by_subtraction_has_the_gradient_of_snntorch() -> None:
    lif, x = Lif(4, reset="subtract"), currents(4)
    assert_same_gradient(backward(lif, x), backward(lambda x: loop(lif.neuron, x, 4), x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_threshold_just_below_one_survives_lower_precision(dtype: torch.dtype) -> None:
    """The neuron of the baselines fires at a membrane of 1, which a threshold rounded to 1 would
    not.
    """
    lif = Lif(1, beta=1.0, threshold=JUST_BELOW_ONE).to(dtype)
    assert lif.neuron.threshold.dtype == torch.float32 and lif(torch.ones(1, 3, dtype=dtype)).all()
    assert lif.double().neuron.threshold == JUST_BELOW_ONE
