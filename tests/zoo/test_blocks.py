"""Joins, pools and projections, each against its definition."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.blocks import ORDERS, Add, And, Block, IAnd, Projection, SamePool
from zoo.neurons import Lif


def neuron() -> Lif:
    return Lif(2)


@pytest.mark.parametrize(("join", "expected"), [(Add(), [0, 1, 1, 2]), (And(), [0, 0, 0, 1]), (IAnd(), [0, 1, 0, 0])])
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
    assert [name for name, _ in block.named_children()] == expected + ([] if order == "d" else ["shortcut", "add"])
    assert block(torch.rand(4, 8, 9, 8)).shape == (4, 16, 5, 4)


@pytest.mark.parametrize("order", ["a", "b", "c", "post"])
def test_a_block_that_keeps_the_shape_has_an_identity_shortcut(order: str) -> None:
    assert Block(8, 8, 1, order=order, bottleneck=False, neuron=neuron).shortcut is None


@pytest.mark.parametrize("order", ORDERS)
def test_opened_is_what_the_block_computes_itself(order: str) -> None:
    block, x = Block(8, 16, 2, order=order, bottleneck=True, neuron=neuron).eval(), torch.randn(4, 8, 6, 6)
    opened: Tensor = block.open(x)
    assert torch.equal(block(x, opened), block(x))
    assert torch.equal(opened, x) is (order in ("c", "post"))
