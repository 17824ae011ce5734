"""Residual blocks, shortcuts and densely additive (DA) links of spiking ResNets.

A block is ResNet's basic (3x3, 3x3) or bottleneck (1x1, 3x3, 1x1) convolutions; what makes it a
spiking one is the order in which neuron, convolution and normalisation follow each other, and that
order is data (`ORDERS`).

Shapes: `T` time steps folded into the batch `B`, `C` channels, `H` x `W` pixels: `[T*B, C, H, W]`
everywhere.
"""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from zoo.autograd import call_norm, is_recorded, kept_as_bytes
from zoo.neurons import Lif
from zoo.small_maps import call_conv

__all__ = [
    "ORDERS",
    "SPIKING_STREAM",
    "Add",
    "And",
    "Block",
    "IAnd",
    "Neuron",
    "Order",
    "Projection",
    "SamePool",
    "Stage",
]

Neuron = Callable[[], Lif]
Order = Literal["a", "b", "c", "d", "plain", "post"]

ORDERS: dict[str, tuple[str, ...]] = {
    "a": ("lif", "conv", "bn"),  # every convolution sees binary spikes, the stream carries currents
    "b": ("bn", "lif", "conv"),  # full pre-activation
    "c": ("conv", "bn", "lif"),  # SEW: the stream carries integer spike counts
    "d": ("lif", "conv", "bn"),  # as a, without shortcuts
    "plain": ("conv", "bn", "lif"),  # as c, without shortcuts
    "post": ("conv", "bn", "lif"),  # Spiking ResNet: the block's last neuron fires after the sum
}
# orders in which spikes travel from block to block, and not currents
SPIKING_STREAM = ("c", "plain", "post")


class Add(nn.Module):
    """The sum of its inputs. A module, so that every sum of the network has a name."""

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            first = first + other
        return first


class And(nn.Module):
    """`branch * shortcut`, the AND of two spike trains (SEW-ResNet, Fang et al. 2021, table 1)."""

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        return branch * shortcut


class IAnd(nn.Module):
    """`(1 - branch) * shortcut`, the inhibitory AND (SEW-ResNet, Fang et al. 2021, table 1)."""

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        return (1 - branch) * shortcut


JOINS: dict[str, type[nn.Module]] = {"add": Add, "and": And, "iand": IAnd}


class SamePool(nn.Module):
    """Average over `window` x `window` pixels, stride `window`: `[N, C, H, W]` -> `[N, C,
    ceil(H/window), ceil(W/window)]`.

    The output has the size that stride-2 convolutions arrive at, so that a link lines up with the
    stage it joins. The sum is always divided by `window`^2, so pool and following 1x1 convolution
    are together one plain convolution.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def padding(self, height: int, width: int) -> tuple[int, int]:
        """Zeros added on each side, as a convolution takes them."""
        return (-height % self.window + 1) // 2, (-width % self.window + 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding(x.shape[-2], x.shape[-1])
        if is_recorded(self):
            pool = _AveragePool.apply  # autograd's apply is untyped
            averages: Tensor = pool(x, self.window, padding)  # type: ignore[no-untyped-call]
            return averages
        return F.avg_pool2d(x, self.window, padding=padding)

    def extra_repr(self) -> str:
        return f"window={self.window}"


class _AveragePool(torch.autograd.Function):
    """`F.avg_pool2d` with the same gradient, written once: torch's fills it with zeros, then adds.
    Keeps nothing of its input.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, window: int, padding: tuple[int, int]) -> Tensor:
        ctx.size, ctx.window, ctx.padding = x.shape[-2:], window, padding
        return F.avg_pool2d(x, window, padding=padding)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        spread = F.interpolate(grad / ctx.window**2, scale_factor=ctx.window, mode="nearest")
        (height, width), (top, left) = ctx.size, ctx.padding
        return spread[:, :, top : top + height, left : left + width], None, None


class Projection(nn.Sequential):
    """A 1x1 convolution that brings a tensor to another stage's shape: `[pool] - conv - bn [-
    lif]`.

    `down="pool"` averages first, so that no spike is dropped; `down="stride"` is ResNet's strided
    convolution.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        stride: int,
        *,
        down: Literal["pool", "stride"] = "pool",
        neuron: Neuron | None = None,
    ) -> None:
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        if stride > 1 and down == "pool":
            parts["pool"] = SamePool(stride)
        parts["conv"] = nn.Conv2d(
            cin, cout, 1, stride=stride if down == "stride" else 1, bias=False
        )
        parts["bn"] = nn.BatchNorm2d(cout)
        if neuron:
            parts["lif"] = neuron()
        super().__init__(parts)

    def forward(self, x: Tensor) -> Tensor:
        for part in self:
            with kept_as_bytes(x):
                x = part(x)
        return x


class Block(nn.Module):
    """One residual block: `[T*B, cin, H, W]` -> `[T*B, cout, H/stride, W/stride]`.

    The parts are `lif1, conv1, bn1, lif2, ...` in the order's sequence, then `shortcut` where the
    shape changes, then `add` (the join). `open` computes what the convolutions read: in orders a, b
    and d the first neuron's spikes, which the shortcut and the DA links of later stages read too.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        stride: int,
        *,
        order: Order,
        bottleneck: bool,
        neuron: Neuron,
        join: str = "add",
        down: Literal["pool", "stride"] = "pool",
        shortcut_reads: Literal["spikes", "stream"] = "spikes",
    ) -> None:
        super().__init__()
        self.shortcut_reads = shortcut_reads
        # in training, keep only what comes in, and compute the rest again in the backward pass
        self.checkpointing = False
        mid = cout // 4 if bottleneck else cout
        convs = (
            [(cin, mid, 1, 1), (mid, mid, 3, stride), (mid, cout, 1, 1)]
            if bottleneck
            else [(cin, mid, 3, stride), (mid, cout, 3, 1)]
        )
        names: list[str] = []
        for i, (before, after, kernel, step) in enumerate(convs, 1):
            for part in ORDERS[order]:
                if part == "conv":
                    module: nn.Module = nn.Conv2d(
                        before, after, kernel, step, padding=kernel // 2, bias=False
                    )
                elif part == "bn":
                    module = nn.BatchNorm2d(before if order == "b" else after)
                else:
                    module = neuron()
                names.append(f"{part}{i}")
                self.add_module(names[-1], module)
        opening = 0 if order in SPIKING_STREAM else names.index("lif1") + 1
        closing = len(names) - 1 if order == "post" else len(names)
        self._opening, self._branch, self._closing = (
            names[:opening],
            names[opening:closing],
            names[closing:],
        )

        self.shortcut: nn.Module | None = None
        self.add: nn.Module | None = None
        if order not in ("d", "plain"):
            if stride != 1 or cin != cout:
                self.shortcut = Projection(
                    cin, cout, stride, down=down, neuron=neuron if order == "c" else None
                )
            self.add = JOINS[join]()

    def _run(self, names: list[str], x: Tensor) -> Tensor:
        for name in names:
            module = self.get_submodule(name)
            with nullcontext() if self.checkpointing else kept_as_bytes(x):
                x = self._call(module, x)
        return x

    def _call(self, module: nn.Module, x: Tensor) -> Tensor:
        if isinstance(module, nn.Conv2d):
            return call_conv(module, x)
        out: Tensor = module(x) if self.checkpointing else call_norm(module, x)
        return out

    def open(self, x: Tensor) -> Tensor:
        """What the block's convolutions read of the stream `x`: spikes (a, b, d), or the stream
        itself (c, plain, post).
        """
        return self._run(self._opening, x)

    def forward(self, x: Tensor, opened: Tensor | None = None) -> Tensor:
        """`opened`, where the caller already has it, is `self.open(x)`."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            again = (nullcontext(), _WithoutStatistics(self))
            out: Tensor = checkpoint(
                self._forward, x, opened, use_reentrant=False, context_fn=lambda: again
            )
            return out
        return self._forward(x, opened)

    def _forward(self, x: Tensor, opened: Tensor | None) -> Tensor:
        opened = self.open(x) if opened is None else opened
        branch = self._run(self._branch, opened)
        if self.add is None:
            return branch
        if self.shortcut is None:
            shortcut = x
        else:
            shortcut = self.shortcut(x if self.shortcut_reads == "stream" else opened)
        return self._run(self._closing, self.add(branch, shortcut))


class _WithoutStatistics:
    """Inside, the BatchNorms of `block` normalise by their batch without counting it: it was
    counted when it came first.
    """

    def __init__(self, block: Block) -> None:
        self.norms = [
            module
            for module in block.modules()
            if isinstance(module, nn.modules.batchnorm._BatchNorm)
        ]
        self.before: list[tuple[float | None, Tensor | None]] = []

    def __enter__(self) -> None:
        # Not `track_running_stats = False`, with which autograd keeps other tensors than the first
        # time.
        for norm in self.norms:
            counted = norm.num_batches_tracked
            self.before.append((norm.momentum, counted if counted is None else counted.clone()))
            norm.momentum = 0.0

    def __exit__(self, *_: object) -> None:
        for norm, (momentum, counted) in zip(self.norms, self.before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None and counted is not None:
                norm.num_batches_tracked.copy_(counted)
        self.before.clear()


class Stage(nn.Module):
    """Blocks of one width, `block0` to `blockN`, and the DA links that end here: `link0` comes from
    the stem, `linkJ` from stage J.

    The densely additive connection `f'_k = f_k + sum_{j<k} P_jk(f'_j)` (Li, Lei and Yang 2023; see
    MODEL_CARD.md): `f_k` is what the blocks make, `P_jk` the projection of source `j`, and there is
    no term of the stage's own.
    """

    def __init__(self, blocks: list[Block], links: dict[int, Projection]) -> None:
        super().__init__()
        self.depth = len(blocks)
        for i, block in enumerate(blocks):
            self.add_module(f"block{i}", block)
        self.sources = tuple(links)
        for j, link in links.items():
            self.add_module(f"link{j}", link)
        self.add = Add() if links else None

    def forward(self, x: Tensor, earlier: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """`x`, the stream, and `earlier`, what earlier sources offer to links -> the stream, and
        the same list with one more.
        """
        first = self.get_submodule("block0")
        assert isinstance(first, Block)
        opened = first.open(x)
        sources = [*earlier, opened]
        x = first(x, opened)
        for i in range(1, self.depth):
            x = self.get_submodule(f"block{i}")(x)
        if self.add is not None:
            x = self.add(x, *(self.get_submodule(f"link{j}")(sources[j]) for j in self.sources))
        return x, sources
