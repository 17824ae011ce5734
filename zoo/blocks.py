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

from zoo.autograd import average_pool, call_norm, is_recorded, kept_as_bytes, recomputed
from zoo.neurons import Lif
from zoo.small_maps import call_conv

__all__ = [
    "ORDERS",
    "SPIKING_STREAM",
    "Add",
    "And",
    "Block",
    "IAnd",
    "NeuronFactory",
    "Order",
    "Projection",
    "SamePool",
    "Stage",
    "children_named",
]

Layer = nn.Conv2d | nn.BatchNorm2d | Lif
NeuronFactory = Callable[[], Lif]
Order = Literal["a", "b", "c", "d", "plain", "post"]

ORDERS: dict[str, tuple[str, ...]] = {
    "a": ("lif", "conv", "bn"),  # every convolution sees binary spikes, the stream carries currents
    "b": ("bn", "lif", "conv"),  # full pre-activation
    "c": ("conv", "bn", "lif"),  # SEW: the stream carries integer spike counts
    "d": ("lif", "conv", "bn"),  # as a, without shortcuts
    "plain": ("conv", "bn", "lif"),  # as c, without shortcuts
    "post": ("conv", "bn", "lif"),  # Spiking ResNet: the block's last neuron fires after the sum
}
# The orders in which spikes travel from block to block, and not currents.
SPIKING_STREAM = ("c", "plain", "post")


def children_named(parent: nn.Module, *prefixes: str) -> list[Any]:
    """Return the children of `parent` whose names begin with one of `prefixes`, in their order.

    Keys of a state, as `stage1.block0.conv1.weight`, say a child's name, so that children lie in no
    ModuleList, which would number them. They are looked up anew each time, as tools replace them.
    """
    return [child for name, child in parent._modules.items() if name.startswith(prefixes)]


class Add(nn.Module):
    """The sum of its inputs. A module, so that every sum of the network has a name."""

    def forward(self, first: Tensor, *others: Tensor) -> Tensor:
        """Return the sum of tensors of one shape."""
        for other in others:
            first = first + other
        return first


class And(nn.Module):
    """`branch * shortcut`, the AND of two spike trains (SEW-ResNet, Fang et al. 2021, table 1)."""

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Return the product of two tensors of one shape."""
        return branch * shortcut


class IAnd(nn.Module):
    """`(1 - branch) * shortcut`, the inhibitory AND (SEW-ResNet, Fang et al. 2021, table 1)."""

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Return `(1 - branch) * shortcut` of two tensors of one shape."""
        return (1 - branch) * shortcut


JOINS: dict[str, type[nn.Module]] = {"add": Add, "and": And, "iand": IAnd}


class SamePool(nn.Module):
    """Average over `window` x `window` pixels with stride `window`.

    The output, `[N, C, ceil(H/window), ceil(W/window)]`, has the size that stride-2 convolutions
    arrive at, so that a link lines up with the stage it joins. The sum is always divided by
    `window`^2, so pool and following 1x1 convolution are together one plain convolution.
    """

    def __init__(self, window: int) -> None:
        super().__init__()
        self.window = window

    def padding(self, height: int, width: int) -> tuple[int, int]:
        """Return the zeros added on each side of rows and columns, as a convolution takes them."""
        return (-height % self.window + 1) // 2, (-width % self.window + 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Return the averages of `[N, C, H, W]`."""
        padding = self.padding(x.shape[-2], x.shape[-1])
        if is_recorded(self):
            return average_pool(x, self.window, padding)
        return F.avg_pool2d(x, self.window, padding=padding)

    def extra_repr(self) -> str:
        """Return the options that `print(model)` shows."""
        return f"window={self.window}"


class Projection(nn.Sequential):
    """`[pool -] conv1x1 - bn [- lif]`, which brings a tensor to another stage's shape.

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
        neuron: NeuronFactory | None = None,
    ) -> None:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if stride > 1 and down == "pool":
            layers["pool"] = SamePool(stride)
        conv_stride = stride if down == "stride" else 1
        layers["conv"] = nn.Conv2d(cin, cout, 1, conv_stride, bias=False)
        layers["bn"] = nn.BatchNorm2d(cout)
        if neuron:
            layers["lif"] = neuron()
        super().__init__(layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[T*B, cout, ceil(H/stride), ceil(W/stride)]` of `[T*B, cin, H, W]`."""
        for layer in self:
            with kept_as_bytes(x):
                x = layer(x)
        return x


class Block(nn.Module):
    """One residual block: `[T*B, cin, H, W]` -> `[T*B, cout, H/stride, W/stride]`.

    The layers are `lif1, conv1, bn1, lif2, ...` in the order's sequence, then `shortcut` where the
    shape changes, then `add` (the join). The first of them open the block: in orders a, b and d
    they compute the first neuron's spikes, which the shortcut and the links of later stages read
    too. In order post the last neuron closes it: it fires after the join.
    """

    def __init__(
        self,
        cin: int,
        cout: int,
        stride: int,
        *,
        order: Order,
        bottleneck: bool,
        neuron: NeuronFactory,
        join: str = "add",
        down: Literal["pool", "stride"] = "pool",
        shortcut_reads: Literal["spikes", "stream"] = "spikes",
    ) -> None:
        super().__init__()
        self.shortcut_reads = shortcut_reads
        # In training, keep only what comes in, and compute the rest again in the backward pass.
        self.checkpointing = False
        layers = _block_layers(cin, cout, stride, order, bottleneck, neuron)
        for name, layer in layers.items():
            self.add_module(name, layer)
        # `layers[:opening]` open the block, `layers[closing:]` close it.
        self.opening = 0 if order in SPIKING_STREAM else [*layers].index("lif1") + 1
        self.closing = len(layers) - 1 if order == "post" else len(layers)
        self.shortcut: Projection | None = None
        self.add: nn.Module | None = None
        if order not in ("d", "plain"):
            if stride != 1 or cin != cout:
                spiking = neuron if order == "c" else None
                self.shortcut = Projection(cin, cout, stride, down=down, neuron=spiking)
            self.add = JOINS[join]()

    @property
    def layers(self) -> list[Layer]:
        """Return the convolutions, normalisations and neurons, in the order in which they run."""
        return children_named(self, "conv", "bn", "lif")

    def open(self, x: Tensor) -> Tensor:
        """Return what the convolutions read of the stream `x`, of its shape.

        These are spikes (orders a, b, d), or the stream itself (c, plain, post).
        """
        return self._run(self.layers[: self.opening], x)

    def forward(self, x: Tensor, opened: Tensor | None = None) -> Tensor:
        """Return the block's output; `opened`, where the caller has it, is `self.open(x)`."""
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return recomputed(self, self._forward, x, opened)
        return self._forward(x, opened)

    def _forward(self, x: Tensor, opened: Tensor | None) -> Tensor:
        opened = self.open(x) if opened is None else opened
        branch = self._run(self.layers[self.opening : self.closing], opened)
        if self.add is None:
            return branch
        if self.shortcut is None:
            shortcut = x
        else:
            shortcut = self.shortcut(x if self.shortcut_reads == "stream" else opened)
        return self._run(self.layers[self.closing :], self.add(branch, shortcut))

    def _run(self, layers: list[Layer], x: Tensor) -> Tensor:
        for layer in layers:
            # What is computed again is not kept, as bytes or otherwise.
            with nullcontext() if self.checkpointing else kept_as_bytes(x):
                x = self._call(layer, x)
        return x

    def _call(self, layer: Layer, x: Tensor) -> Tensor:
        if isinstance(layer, nn.Conv2d):
            return call_conv(layer, x)
        if isinstance(layer, Lif) or self.checkpointing:
            out: Tensor = layer(x)
            return out
        return call_norm(layer, x)


def _block_layers(
    cin: int, cout: int, stride: int, order: Order, bottleneck: bool, neuron: NeuronFactory
) -> dict[str, Layer]:
    """Return the layers of a block by name, `lif1`, `conv1`, `bn1`, ..., as they run."""
    mid = cout // 4 if bottleneck else cout
    if bottleneck:
        convs = [(cin, mid, 1, 1), (mid, mid, 3, stride), (mid, cout, 1, 1)]
    else:
        convs = [(cin, mid, 3, stride), (mid, cout, 3, 1)]
    layers: dict[str, Layer] = {}
    for i, (before, after, kernel, step) in enumerate(convs, 1):
        for kind in ORDERS[order]:
            if kind == "conv":
                layer: Layer = nn.Conv2d(before, after, kernel, step, kernel // 2, bias=False)
            elif kind == "bn":
                layer = nn.BatchNorm2d(before if order == "b" else after)
            else:
                layer = neuron()
            layers[f"{kind}{i}"] = layer
    return layers


class Stage(nn.Module):
    """Blocks of one width, `block0` to `blockN`, and the DA links that end here.

    `link0` comes from the stem, `linkJ` from stage J. The densely additive connection is

        f'_k = f_k + sum_{j<k} P_jk(f'_j)

    (Li, Lei and Yang 2023; see MODEL_CARD.md): `f_k` is what the blocks make, `P_jk` the projection
    of source `j`, and there is no term of the stage's own.
    """

    def __init__(self, blocks: list[Block], links: dict[int, Projection]) -> None:
        super().__init__()
        for i, block in enumerate(blocks):
            self.add_module(f"block{i}", block)
        self.sources = tuple(links)  # j of each link
        for j, link in links.items():
            self.add_module(f"link{j}", link)
        self.add = Add() if links else None

    @property
    def blocks(self) -> list[Block]:
        """Return the blocks, in the order in which they run."""
        return children_named(self, "block")

    @property
    def links(self) -> list[Projection]:
        """Return the links, in the order of `sources`."""
        return children_named(self, "link")

    def forward(self, x: Tensor, earlier: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Return the stream behind the stage, and what later stages' links may read.

        `x` is the stream and `earlier` what earlier stages offered to links; the list that is
        returned has one more, what the first block opens.
        """
        first, *others = self.blocks
        opened = first.open(x)
        sources = [*earlier, opened]
        x = first(x, opened)
        for block in others:
            x = block(x)
        if self.add is not None:
            links = zip(self.links, self.sources, strict=True)
            x = self.add(x, *(link(sources[j]) for link, j in links))
        return x, sources
