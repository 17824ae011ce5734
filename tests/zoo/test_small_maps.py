"""Convolutions on small maps by products over used taps: the results of torch's own, and taken only
where they may be.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize, prune
from torch.utils.flop_counter import FlopCounterMode

from zoo import small_maps
from zoo.autograd import kept_as_bytes
from zoo.blocks import Block
from zoo.neurons import Lif
from zoo.small_maps import SmallConv, call_conv

# images, input and output channels, pixels, stride
SHAPES = {
    "one pixel": (5, 64, 64, (1, 1), 1),
    "2x2": (6, 64, 128, (2, 2), 1),
    "2x2 to one": (3, 128, 64, (2, 2), 2),
    "3x3 to 2x2": (3, 64, 64, (3, 3), 2),
    "4x4 to 2x2": (4, 64, 128, (4, 4), 2),
    "2x1": (4, 64, 64, (2, 1), 1),
    "3x2 to 2x1": (1, 64, 64, (3, 2), 2),
    "4x4, weight gradient alone": (2, 256, 256, (4, 4), 1),
    "8x8 to 4x4, weight gradient alone": (2, 256, 256, (8, 8), 2),
    "4x4, wide, many images": pytest.param((128, 512, 512, (4, 4), 1), marks=pytest.mark.slow),
}
FORMATS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


def conv_and_input(
    shape: tuple[int, int, int, tuple[int, int], int],
    input_format: torch.memory_format = torch.channels_last,
) -> tuple[nn.Conv2d, Tensor]:
    images, cin, cout, pixels, stride = shape
    torch.manual_seed(1)
    conv = nn.Conv2d(cin, cout, 3, stride, padding=1, bias=False).to(
        memory_format=torch.channels_last
    )
    return conv, torch.randn(images, cin, *pixels).contiguous(
        memory_format=input_format
    ).requires_grad_()


def is_by_products(out: Tensor) -> bool:
    return type(out.grad_fn).__name__ == "SmallConvBackward"


@pytest.mark.parametrize("input_format", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_output_and_gradients_are_those_of_torch_to_rounding(
    shape: tuple[int, int, int, tuple[int, int], int], input_format: torch.memory_format
) -> None:
    conv, x = conv_and_input(shape, input_format)
    out = call_conv(conv, x)
    assert is_by_products(out) and out.is_contiguous(memory_format=torch.channels_last)
    grad = torch.randn_like(out)
    out.backward(grad)

    exact_x, exact_weight = (
        x.detach().double().requires_grad_(),
        conv.weight.detach().double().requires_grad_(),
    )
    exact = F.conv2d(exact_x, exact_weight, None, conv.stride, 1)
    exact.backward(grad.double())
    for given, expected in (
        (out, exact),
        (x.grad, exact_x.grad),
        (conv.weight.grad, exact_weight.grad),
    ):
        assert given.shape == expected.shape
        assert (given - expected).norm() <= 2e-6 * expected.norm()


@pytest.mark.parametrize("frozen", ["x", "weight"])
def test_a_gradient_that_nobody_needs_is_not_computed(
    frozen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv, x = conv_and_input(SHAPES["2x2"])
    kept, gone = (conv.weight, x) if frozen == "x" else (x, conv.weight)
    gone.requires_grad_(False)
    # not to be called
    monkeypatch.setattr(
        small_maps, {"x": "_input_gradient", "weight": "_weight_gradient"}[frozen], None
    )
    call_conv(conv, x).sum().backward()
    assert kept.grad is not None and gone.grad is None


@pytest.mark.parametrize(("pixels", "stride"), [(1, 1), (2, 1), (2, 2), (4, 2), (3, 1)])
def test_gradients_of_first_and_second_order_are_those_of_finite_differences(
    pixels: int, stride: int
) -> None:
    x = torch.randn(2, 2, pixels, pixels, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    function: Callable[[Tensor, Tensor], Any] = lambda x, weight: SmallConv.apply(x, weight, stride)  # noqa: E731
    assert torch.autograd.gradcheck(function, (x, weight))
    assert torch.autograd.gradgradcheck(function, (x, weight))


def test_spikes_stay_kept_as_bytes() -> None:
    conv, x = conv_and_input(SHAPES["2x2"])
    spikes = Lif(2).train()(x)
    with kept_as_bytes(spikes):
        out = call_conv(conv, spikes)
    assert is_by_products(out)
    kept = out.grad_fn.saved_tensors[0]
    # made anew from bytes
    assert torch.equal(kept, spikes) and kept.data_ptr() != spikes.data_ptr()


def test_a_weight_changed_before_the_backward_pass_is_refused() -> None:
    conv, x = conv_and_input(SHAPES["2x2"])
    out = call_conv(conv, x)
    with torch.no_grad():
        conv.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


class OtherConv(nn.Conv2d):
    """A convolution of a user's own."""


def patch_forward(conv: nn.Conv2d) -> None:
    conv.forward = lambda x: nn.Conv2d.forward(conv, x) * 0.5  # type: ignore[method-assign]


CHANGES: dict[str, Callable[[nn.Conv2d], object]] = {
    "forward hook": lambda conv: conv.register_forward_hook(lambda _, args, out: out * 0.5),
    "forward pre-hook": lambda conv: conv.register_forward_pre_hook(lambda _, args: (args[0] * 3,)),
    "backward hook": lambda conv: conv.register_full_backward_hook(
        lambda _, grads, __: (grads[0] * 2,)
    ),
    "parametrised": lambda conv: parametrize.register_parametrization(conv, "weight", Doubled()),
    "pruned": lambda conv: prune.custom_from_mask(conv, "weight", torch.ones_like(conv.weight)),
    "patched forward": patch_forward,
    "subclass": lambda conv: setattr(conv, "__class__", OtherConv),
    "evaluation": lambda conv: conv.eval(),
    "weights not channels last": lambda conv: conv.to(memory_format=torch.contiguous_format),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_convolution_is_called_as_a_module(change: Callable[[nn.Conv2d], object]) -> None:
    conv, x = conv_and_input(SHAPES["2x2"])
    change(conv)
    out = call_conv(conv, x)
    assert not is_by_products(out)
    assert torch.equal(out, conv(x))
    out.sum().backward()
    assert x.grad is not None


OTHER_CONVOLUTIONS = {
    "bias": nn.Conv2d(64, 64, 3, padding=1),
    "1x1": nn.Conv2d(64, 64, 1, bias=False),
    "groups": nn.Conv2d(64, 64, 3, padding=1, groups=2, bias=False),
    "dilation": nn.Conv2d(64, 64, 3, padding=2, dilation=2, bias=False),
    "padding": nn.Conv2d(64, 64, 3, padding=2, bias=False),
    "padding by a word": nn.Conv2d(64, 64, 3, padding="same", bias=False),
    "circular": nn.Conv2d(64, 64, 3, padding=1, padding_mode="circular", bias=False),
    "unequal strides": nn.Conv2d(64, 64, 3, (1, 2), padding=1, bias=False),
    "few channels": nn.Conv2d(64, 32, 3, padding=1, bias=False),
    "float64": nn.Conv2d(64, 64, 3, padding=1, bias=False).double(),
    "a norm": nn.BatchNorm2d(64),
}


@pytest.mark.parametrize("module", OTHER_CONVOLUTIONS.values(), ids=OTHER_CONVOLUTIONS)
def test_another_layer_is_called_as_a_module(module: nn.Module) -> None:
    module = module.to(memory_format=torch.channels_last)
    x = torch.randn(4, 64, 2, 2, dtype=next(module.parameters()).dtype).contiguous(
        memory_format=torch.channels_last
    )
    out = call_conv(module, x)
    assert not is_by_products(out) and torch.equal(out, module(x))


def test_larger_maps_are_left_to_torch() -> None:
    conv, x = conv_and_input((2, 64, 64, (3, 3), 1))
    assert not is_by_products(call_conv(conv, x))
    conv, x = conv_and_input((2, 256, 256, (5, 5), 1))
    assert not is_by_products(call_conv(conv, x))


def test_a_batch_of_no_images() -> None:
    conv, x = conv_and_input((0, 64, 64, (2, 2), 1))
    assert call_conv(conv, x).shape == (0, 64, 2, 2)


def test_autocast_gets_its_own_convolution() -> None:
    conv, x = conv_and_input(SHAPES["2x2"])
    with torch.autocast("cpu", torch.bfloat16):
        assert call_conv(conv, x).dtype == torch.bfloat16


def test_who_looks_at_operators_sees_a_convolution() -> None:
    conv, x = conv_and_input(SHAPES["2x2"])
    with FlopCounterMode(display=False) as counter:
        call_conv(conv, x)
    assert counter.get_total_flops() == 2 * conv(x).numel() * conv.weight[0].numel()


def test_functional_transforms_see_the_module() -> None:
    conv, x = conv_and_input(SHAPES["2x2"])
    expected = conv(x)
    assert torch.equal(
        torch.func.vmap(lambda image: call_conv(conv, image))(x[:, None])[:, 0], expected
    )
    assert torch.equal(torch.func.vjp(lambda x: call_conv(conv, x), x)[0], expected)


def test_torch_compile_and_trace_see_the_module() -> None:
    conv, x = conv_and_input(SHAPES["2x2"])
    expected = conv(x)
    compiled = torch.compile(lambda x: call_conv(conv, x), backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), expected)
    conv.requires_grad_(False)
    with pytest.warns(DeprecationWarning, match="trace"):
        traced = torch.jit.trace(lambda x: call_conv(conv, x), x.detach())
    assert "convolution" in str(traced.graph) and "PythonOp" not in str(traced.graph)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("order", ["a", "b", "c", "d", "plain", "post"])
def test_a_block_on_a_small_map_has_the_gradients_it_has_with_hooks(
    order: Any, checkpointing: bool
) -> None:
    torch.manual_seed(3)
    block = Block(64, 128, 2, order=order, bottleneck=False, neuron=lambda: Lif(2)).to(
        memory_format=torch.channels_last
    )
    block.train().checkpointing = checkpointing
    x = torch.randn(8, 64, 4, 4).contiguous(memory_format=torch.channels_last).requires_grad_()
    weights = list(block.parameters())
    given = block(x)
    grad = torch.randn_like(given)
    given_grads = torch.autograd.grad(given, (x, *weights), grad)

    calls: list[nn.Module] = []
    convs = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    for conv in convs:
        conv.register_forward_hook(lambda module, args, out: calls.append(module))
    expected = block(x)
    expected_grads = torch.autograd.grad(expected, (x, *weights), grad)
    assert {id(module) for module in calls} == {id(conv) for conv in convs}
    for one, other in zip((given, *given_grads), (expected, *expected_grads), strict=True):
        assert (one - other).norm() <= 1e-4 * other.norm()
