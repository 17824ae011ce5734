"""Joins, pools and projections, each against its definition; blocks that are computed again in the
backward pass.
"""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo import autograd
from zoo.blocks import ORDERS, SPIKING_STREAM, Add, And, Block, IAnd, Projection, SamePool, Stage
from zoo.danet import DANet
from zoo.neurons import Lif
from zoo.training.parallel import SyncNorm


def neuron() -> Lif:
    return Lif(2)


@pytest.mark.parametrize(
    ("join", "expected"), [(Add(), [0, 1, 1, 2]), (And(), [0, 0, 0, 1]), (IAnd(), [0, 1, 0, 0])]
)
def test_joins_of_spikes(join: torch.nn.Module, expected: list[float]) -> None:
    """SEW-ResNet, table 1; the columns are (branch, shortcut) = 00, 01, 10, 11."""
    branch, shortcut = torch.tensor([0.0, 0, 1, 1]), torch.tensor([0.0, 1, 0, 1])
    assert join(branch, shortcut).tolist() == expected


def test_add_takes_any_number_of_inputs() -> None:
    one = torch.ones(3)
    assert Add()(one).tolist() == [1.0] * 3
    assert Add()(one, 2 * one, 4 * one).tolist() == [7.0] * 3


@pytest.mark.parametrize("window", [1, 2, 4, 8])
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (13, 5), (27, 29)])
def test_pool_arrives_where_strided_convolutions_do(window: int, size: tuple[int, int]) -> None:
    x = strided = torch.zeros(1, 1, *size)
    for _ in range(window.bit_length() - 1):
        strided = F.conv2d(strided, torch.zeros(1, 1, 3, 3), stride=2, padding=1)
    assert SamePool(window)(x).shape == strided.shape


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (5, 10)])
@pytest.mark.parametrize("window", [2, 4])
def test_pool_and_1x1_are_one_convolution(window: int, size: tuple[int, int]) -> None:
    """What an export relies on: the pool folds into the convolution behind it."""
    pool, x, weight = SamePool(window), torch.randn(2, 3, *size), torch.randn(4, 3, 1, 1)
    folded = (weight / window**2).expand(-1, -1, window, window)
    expected = F.conv2d(x, folded, stride=window, padding=pool.padding(*size))
    torch.testing.assert_close(F.conv2d(pool(x), weight), expected)


@pytest.mark.parametrize("size", [(8, 8), (16, 4)])
def test_pool_drops_no_spike(size: tuple[int, int]) -> None:
    spikes = torch.randint(0, 2, (2, 3, *size)).float()
    assert SamePool(4)(spikes).sum() * 16 == spikes.sum()


@pytest.mark.parametrize(
    ("stride", "down", "spiking", "parts"),
    [
        (1, "pool", False, ["conv", "bn"]),
        (2, "pool", False, ["pool", "conv", "bn"]),
        (2, "stride", False, ["conv", "bn"]),
        (2, "pool", True, ["pool", "conv", "bn", "lif"]),
    ],
)
def test_parts_of_a_projection(stride: int, down: str, spiking: bool, parts: list[str]) -> None:
    projection = Projection(3, 5, stride, down=down, neuron=neuron if spiking else None)
    assert [name for name, _ in projection.named_children()] == parts
    assert projection(torch.rand(4, 3, 7, 8)).shape == (4, 5, -(-7 // stride), 8 // stride)


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("order", ORDERS)
def test_parts_of_a_block_follow_the_order(order: str, bottleneck: bool) -> None:
    block = Block(8, 16, 2, order=order, bottleneck=bottleneck, neuron=neuron)
    expected = [f"{part}{i}" for i in range(1, 4 if bottleneck else 3) for part in ORDERS[order]]
    assert [name for name, _ in block.named_children()] == expected + (
        [] if order in ("d", "plain") else ["shortcut", "add"]
    )
    assert block(torch.rand(4, 8, 9, 8)).shape == (4, 16, 5, 4)


@pytest.mark.parametrize("order", ["a", "b", "c", "post"])
def test_a_block_that_keeps_the_shape_has_an_identity_shortcut(order: str) -> None:
    assert Block(8, 8, 1, order=order, bottleneck=False, neuron=neuron).shortcut is None


@pytest.mark.parametrize("order", ORDERS)
def test_opened_is_what_the_block_computes_itself(order: str) -> None:
    block, x = (
        Block(8, 16, 2, order=order, bottleneck=True, neuron=neuron).eval(),
        torch.randn(4, 8, 6, 6),
    )
    opened: Tensor = block.open(x)
    assert torch.equal(block(x, opened), block(x))
    assert torch.equal(opened, x) is (order in SPIKING_STREAM)


def checkpointed(net: nn.Module) -> nn.Module:
    """The same network, that computes each block again in the backward pass."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, Block):
            module.checkpointing = True
    return net


def trained(
    net: nn.Module, x: Tensor, call: Callable[[Tensor], Tensor] | None = None
) -> dict[str, Tensor]:
    """What a step of training leaves: outputs, gradients, statistics."""
    x = x.detach().clone().requires_grad_()
    y = (call or net)(x)
    (y.float() * (torch.arange(y.numel()).remainder(5).view(y.shape) - 1)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())
    return {
        "output": y,
        "input": x.grad,
        **dict(net.named_buffers()),
        **{f"{n}.grad": p.grad for n, p in net.named_parameters()},
    }


def differing(found: dict[str, Tensor], expected: dict[str, Tensor]) -> list[str]:
    assert found.keys() == expected.keys()
    return [key for key in expected if not torch.equal(found[key], expected[key])]


@pytest.mark.parametrize("opens", ["itself", "its caller"])
@pytest.mark.parametrize(("cin", "stride"), [(16, 1), (8, 2)], ids=["identity", "projection"])
@pytest.mark.parametrize("bottleneck", [False, True], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_block_computed_again_is_the_same_block(
    order: str, bottleneck: bool, cin: int, stride: int, opens: str
) -> None:
    block, x = (
        Block(cin, 16, stride, order=order, bottleneck=bottleneck, neuron=neuron),
        torch.randn(4, cin, 6, 6) * 2,
    )
    found, expected = (
        trained(one, x, (lambda x, one=one: one(x, one.open(x))) if opens == "its caller" else None)
        for one in (checkpointed(block), block)
    )
    assert differing(found, expected) == []
    assert (
        expected["bn1.num_batches_tracked"] == 1
        and expected["conv1.weight.grad"].any()
        and expected["input"].any()
    )


@pytest.mark.parametrize("bf16", [False, True], ids=["f32", "bf16"])
@pytest.mark.parametrize("bottleneck", [False, True], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_network_computed_again_is_the_same_network(
    order: str, bottleneck: bool, bf16: bool, tiny: Callable[..., DANet]
) -> None:
    """With links, and blocks that read what the last one fired or normalised; for two steps."""
    plain = tiny(order=order, bottleneck=bottleneck, depths=(2, 2), threshold=0.5)
    again, x = checkpointed(plain), torch.randn(3, 1, 8, 8)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            found, expected = trained(again, x), trained(plain, x)
        assert differing(found, expected) == []


def bytes_kept(run: Callable[[], Tensor]) -> int:
    """The bytes that are there after `run` and were not before, its result among them."""
    with torch.autograd.profiler.profile(profile_memory=True) as profile:
        result = run()
    assert result.requires_grad
    return sum(event.self_cpu_memory_usage for event in profile.function_events)


@pytest.mark.parametrize("bottleneck", [False, True], ids=["basic", "bottleneck"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_block_computed_again_keeps_what_came_in_and_no_more(
    order: str, bottleneck: bool
) -> None:
    row = nn.Sequential(
        *(Block(16, 16, 1, order=order, bottleneck=bottleneck, neuron=neuron) for _ in range(3))
    )
    again, x = checkpointed(row), torch.randn(8, 16, 16, 16, requires_grad=True)
    kept = bytes_kept(lambda: again(x)) - 3 * torch.get_rng_state().nbytes
    assert kept < 0.8 * bytes_kept(lambda: row(x))
    # the streams, and a byte for each spike where a stream is spikes
    assert 3 * x.nbytes <= kept <= 3 * x.nbytes * 1.3


@pytest.mark.parametrize("mode", ["eval", "no_grad"])
@pytest.mark.parametrize("order", ORDERS)
def test_without_training_nothing_is_computed_again(
    order: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("checkpointed")

    monkeypatch.setattr(autograd, "checkpoint", never)
    block, x = (
        Block(8, 16, 2, order=order, bottleneck=False, neuron=neuron),
        torch.randn(4, 8, 6, 6),
    )
    block.train(mode == "no_grad")
    again = checkpointed(block)
    with torch.set_grad_enabled(mode == "eval"):
        assert torch.equal(again(x), block(x))
    assert all(torch.equal(a, b) for a, b in zip(again.buffers(), block.buffers(), strict=True))
    with pytest.raises(AssertionError, match="checkpointed"):
        again.train()(x)


@pytest.mark.parametrize("failing", ["conv1", "conv2"])
@pytest.mark.parametrize("order", ORDERS)
def test_an_exception_in_between_leaves_the_norms_as_they_were(order: str, failing: str) -> None:
    block = checkpointed(Block(8, 8, 1, order=order, bottleneck=False, neuron=neuron))
    loss = block(torch.randn(4, 8, 6, 6, requires_grad=True)).sum()
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    before = {key: value.clone() for key, value in block.named_buffers()}
    options = [(norm.momentum, norm.track_running_stats) for norm in norms]
    assert before["bn1.num_batches_tracked"] == before["bn2.num_batches_tracked"] == 1

    def fail(*_: object) -> None:
        raise KeyError(failing)

    handle = block.get_submodule(failing).register_forward_pre_hook(fail)
    with pytest.raises(KeyError, match=failing):
        loss.backward()
    handle.remove()
    assert [(norm.momentum, norm.track_running_stats) for norm in norms] == options
    assert differing(dict(block.named_buffers()), before) == []


def test_a_graph_that_is_kept_is_computed_again_twice() -> None:
    block = checkpointed(Block(8, 8, 1, order="a", bottleneck=False, neuron=neuron))
    loss = block(torch.randn(4, 8, 6, 6)).square().sum()
    first, second = (
        torch.autograd.grad(loss, block.conv1.weight, retain_graph=True)[0] for _ in range(2)
    )
    assert torch.equal(first, second) and first.any()
    assert block.bn1.num_batches_tracked == 1


@pytest.mark.parametrize("order", ORDERS)
def test_statistics_over_processes_are_counted_once_too(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The norm that stands in for BatchNorm where several processes share a batch; here there is
    one.
    """
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda sums: None)
    block = Block(8, 16, 2, order=order, bottleneck=False, neuron=neuron)
    for module in block.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncNorm
    x = torch.randn(4, 8, 6, 6) * 2
    found, expected = (trained(one, x) for one in (checkpointed(block), block))
    assert differing(found, expected) == []
    assert expected["bn1.num_batches_tracked"] == 1 and expected["bn1.running_mean"].any()


def test_a_stage_computed_again_opens_its_first_block_once(
    record: Callable[..., dict[str, list[object]]],
) -> None:
    """The first block's spikes are read by links too, and come in from without."""
    stage = checkpointed(
        Stage([Block(8, 8, 1, order="a", bottleneck=False, neuron=neuron) for _ in range(2)], {})
    )
    calls = record(stage, nn.Module)
    stage(torch.randn(4, 8, 6, 6), [])[0].sum().backward()
    counts = {name: len(made) for name, made in calls.items()}
    assert counts["block0.lif1"] == 1
    assert counts["block0.conv1"] == counts["block1.lif1"] == counts["block1.conv2"] == 2
