"""What people do to a network in training: the fused path has the gradients of the loop over time,
or says why not.
"""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.utils.checkpoint import checkpoint

from zoo.blocks import Block
from zoo.danet import DANet
from zoo.neurons import Lif

NETWORKS: dict[str, dict[str, Any]] = {
    **{order: {"order": order} for order in "abcd"},
    "spiking": {"order": "post", "links": False, "down": "stride"},
    "ms": {"links": False, "down": "stride", "shortcut_reads": "stream", "surrogate": "rectangle"},
}
LAYERS = (nn.Conv2d, nn.BatchNorm2d, Lif, nn.Linear)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def layers(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, LAYERS)]


def hook_every_layer(make: Callable[[nn.Module], object]) -> Callable[[DANet], object]:
    return lambda model: [make(layer) for layer in layers(model)]


def replace_norms(model: DANet) -> None:
    for path in [
        path for path, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)
    ]:
        norm = model.get_submodule(path)
        model.set_submodule(
            path, nn.Sequential(nn.BatchNorm2d(norm.num_features, affine=False), Doubled()).double()
        )


def patch_forwards(model: DANet) -> None:
    for norm in [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]:
        norm.forward = lambda x, norm=norm: nn.BatchNorm2d.forward(norm, x) * 0.7 + 0.2


CHANGES: dict[str, Callable[[DANet], object]] = {
    "nothing": lambda model: None,
    "output": hook_every_layer(
        lambda m: m.register_forward_hook(lambda _, args, out: out * 0.5 + 0.3)
    ),
    "output in place": hook_every_layer(
        lambda m: m.register_forward_hook(lambda _, args, out: out.mul_(0.5).add_(0.3))
    ),
    "input": hook_every_layer(
        lambda m: m.register_forward_pre_hook(lambda _, args: (args[0] * 3 + args[0] ** 3,))
    ),
    "transposed input": hook_every_layer(
        lambda m: m.register_forward_pre_hook(
            lambda _, args: (args[0].transpose(-1, -2),) if args[0].dim() == 4 else None
        )
    ),
    "gradient": hook_every_layer(
        lambda m: m.register_full_backward_hook(
            lambda _, grads, __: tuple(g if g is None else g * 0.5 for g in grads)
        )
    ),
    "neurons' own": lambda model: [
        m.neuron.register_forward_pre_hook(lambda _, args: (args[0] + 0.5, args[1]))
        for m in model.modules()
        if isinstance(m, Lif)
    ],
    "parametrised": hook_every_layer(
        lambda m: (
            None
            if isinstance(m, Lif)
            else parametrize.register_parametrization(m, "weight", Doubled())
        )
    ),
    "pruned": hook_every_layer(
        lambda m: None if isinstance(m, Lif) else prune.random_unstructured(m, "weight", 0.3)
    ),
    "frozen statistics": lambda model: [
        m.eval() for m in model.modules() if isinstance(m, nn.BatchNorm2d)
    ],
    "replaced norms": replace_norms,
    "patched forward": patch_forwards,
    "checkpointed blocks": lambda model: [
        setattr(m, "checkpointing", True) for m in model.modules() if isinstance(m, Block)
    ],
}


def gradients(
    model: DANet, x: Tensor, *, fused: bool, run: Callable[..., Tensor] = lambda model, x: model(x)
) -> list[Tensor]:
    """The logits, and the gradients of the image and of every weight; the same changes and weights
    at every call.
    """
    for module in model.modules():
        if isinstance(module, Lif):
            module.fused = fused
    model.zero_grad()
    x = x.clone().requires_grad_()
    logits = run(model, x)
    nn.functional.cross_entropy(logits, torch.arange(len(x)) % 5).backward()
    return [
        logits.detach(),
        x.grad,
        *(p.grad.clone() for p in model.parameters() if p.grad is not None),
    ]


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= 1e-6 * b.abs().max() + 1e-14  # some are zero but for rounding
    assert expected[1].any()


@pytest.fixture
def build(tiny: Callable[..., DANet]) -> Callable[..., DANet]:
    """In float64 but for snnTorch's surrogate, which gives float32; currents high enough for spikes
    everywhere.
    """

    def make(**fields: Any) -> DANet:
        model = tiny(widths=(4, 8), **fields)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.bias, 0.3, 0.7)
        return model.double()

    return make


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("fields", NETWORKS.values(), ids=NETWORKS)
def test_whatever_is_done_to_its_layers_the_fused_network_is_the_loop(
    fields: dict[str, Any], change: Callable[[DANet], object], build: Callable[..., DANet]
) -> None:
    fused = build(**fields)
    looped, x = copy.deepcopy(fused), torch.randn(4, 1, 8, 8, dtype=torch.float64)
    for model in (fused, looped):
        torch.manual_seed(1)  # of the pruned weights
        change(model)
    assert_same(gradients(fused, x, fused=True), gradients(looped, x, fused=False))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("order", ["a", "b", "c"])
def test_a_network_within_torch_s_checkpoint(
    order: str, reentrant: bool, build: Callable[..., DANet]
) -> None:
    model, x = build(order=order), torch.randn(4, 1, 8, 8, dtype=torch.float64)

    def run(model: DANet, x: Tensor) -> Tensor:
        return checkpoint(model, x, use_reentrant=reentrant)

    assert_same(gradients(model, x, fused=True, run=run), gradients(model, x, fused=False))


def test_weights_changed_before_the_backward_pass_are_refused(build: Callable[..., DANet]) -> None:
    """Of every layer, as autograd itself refuses them."""
    model = build()
    for name in ("stage1.block0.conv1", "stage1.block0.bn1", "stage2.link0.conv"):
        loss = model(torch.randn(4, 1, 8, 8, dtype=torch.float64)).sum()
        with torch.no_grad():
            model.get_submodule(name).weight.mul_(2)
        with pytest.raises(RuntimeError, match=r"in.?place"):
            loss.backward()


@pytest.mark.parametrize("order", ["a", "b", "c"])
def test_a_gradient_can_be_differentiated(order: str, build: Callable[..., DANet]) -> None:
    """As by a penalty on the gradient."""
    model, found = build(order=order), []
    for fused in (True, False):
        for module in model.modules():
            if isinstance(module, Lif):
                module.fused = fused
        torch.manual_seed(2)
        x = torch.randn(4, 1, 8, 8, dtype=torch.float64, requires_grad=True)
        first = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)[0]
        found.append(
            [
                first,
                *torch.autograd.grad(
                    first.square().sum(), [x, *model.stage1.parameters()], allow_unused=True
                ),
            ]
        )
    reached = [[grad.detach() for grad in grads if grad is not None] for grads in found]
    assert_same(*reached)


# torch's own jvp of a convolution's batch
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("order", ["a", "c"])
def test_functional_transforms(order: str, build: Callable[..., DANet]) -> None:
    """`torch.func`: grad as autograd's, jvp as grad says, vmap as a batch; afterwards the network
    is what it was.
    """
    model, x = build(order=order).eval(), torch.randn(4, 1, 8, 8, dtype=torch.float64)
    weights = dict(model.named_parameters())

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(model, weights, (x,)).square().sum()

    expected = torch.autograd.grad(loss(weights, x), list(weights.values()))
    found = torch.func.grad(loss)(weights, x)
    assert_same(list(found.values()), list(expected))
    tangents = {key: torch.randn_like(value) for key, value in weights.items()}
    _, slope = torch.func.jvp(lambda w: loss(w, x), (weights,), (tangents,))
    torch.testing.assert_close(
        slope, sum((found[key] * tangents[key]).sum() for key in weights), rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(torch.func.vmap(lambda x: model(x[None])[0])(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))


def test_torch_export_takes_any_batch(build: Callable[..., DANet]) -> None:
    model = build().eval()
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(
        model, (torch.randn(8, 1, 8, 8, dtype=torch.float64),), dynamic_shapes=batch
    ).module()
    for images in (1, 3, 9):
        x = torch.randn(images, 1, 8, 8, dtype=torch.float64)
        assert torch.equal(program(x), model(x))
