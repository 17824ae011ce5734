"""Synaptic operations in training: what a spike costs, and what a weight costs.

A spike that meets a weight which is not zero is a SynOp. So a spike costs its fan-out, the weights
that it meets; a weight costs the spikes that meet it; and both, added up, are the accumulates that
`export.estimate` counts. They are those of the convolutions behind the stem that read spikes, or
in order c sums of spikes.

Shapes: `T` time steps folded into the batch, `N` = T * B, `C` and `O` input and output channels,
`H` x `W` pixels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input, conv2d_weight

from zoo.activity import forward_hooks
from zoo.blocks import SPIKING_STREAM, SamePool
from zoo.danet import DANet

__all__ = [
    "Events",
    "convolutions_of_spikes",
    "read_events",
    "spikes_share",
    "synops_share",
    "weight_costs",
]


def convolutions_of_spikes(net: DANet) -> dict[str, nn.Conv2d]:
    """Return the convolutions that read spikes, by path: those behind the stem.

    The shortcuts of a network whose shortcuts read the stream of currents are none.
    """
    reads_stream = net.config.shortcut_reads == "stream" and net.config.order not in SPIKING_STREAM
    return {
        path: module
        for path, module in net.named_modules()
        if isinstance(module, nn.Conv2d)
        and not path.startswith("stem.")
        and not (reads_stream and ".shortcut." in path)
    }


class Events(NamedTuple):
    """The events that a convolution reads: spikes, or behind a pool the sums of so many of them."""

    values: Tensor  # [N, C, H, W]
    summed: int  # spikes in a value, at most


@contextmanager
def read_events(net: DANet) -> Iterator[dict[str, Events]]:
    """Give a table of what each convolution of spikes reads in the block, by its path."""
    events: dict[str, Events] = {}
    windows = {
        f"{path}.conv": pool.window**2
        for path, module in net.named_modules()
        if isinstance(pool := getattr(module, "pool", None), SamePool)
    }

    def record(path: str) -> Callable[..., None]:
        n = windows.get(path, 1)

        def hook(_: nn.Module, args: tuple[Tensor]) -> None:
            # a pool gives the average
            events[path] = Events(args[0] * n if n > 1 else args[0], n)

        return hook

    with forward_hooks(convolutions_of_spikes(net), record, before=True):
        yield events


def weight_costs(conv: nn.Conv2d, events: Events) -> Tensor:
    """Return the SynOps that each weight makes, `[1, C, kH, kW]`.

    They are the same for all output channels: the derivative of the sum of all outputs by a weight.
    """
    x = events.values.detach().sum(0, keepdim=True, dtype=torch.float32)
    out = _one_output(conv, x)
    size = (1, *conv.weight.shape[1:])
    # torch does not type its module of gradients.
    costs: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
        x, size, out[:, :1], conv.stride, conv.padding
    )
    return costs


def _fan_out(conv: nn.Module, x: Tensor) -> Tensor:
    """Return how many weights that are not zero an event at each place meets, `[1, C, H, W]`."""
    assert isinstance(conv, nn.Conv2d)
    connected = (conv.weight.detach() != 0).float()
    fan_out: Tensor = conv2d_input(  # type: ignore[no-untyped-call]
        (1, *x.shape[1:]), connected, _one_output(conv, x), conv.stride, conv.padding
    )
    return fan_out


def _one_output(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """Return ones in the shape of the output for one image, `[1, O, H', W']`."""
    with torch.device("meta"):
        shape = nn.functional.conv2d(
            torch.empty(1, *x.shape[1:]), torch.empty(conv.weight.shape), None,
            conv.stride, conv.padding,
        ).shape  # fmt: skip
    return torch.ones(shape, device=x.device)


def synops_share(net: DANet, events: dict[str, Events]) -> Tensor:
    """Return the SynOps over those of one spike at every place and step, a number to pay for.

    It is 1 where every neuron fires at every step, and more than 1 where the stream carries sums
    of spikes (order c).
    """
    made: list[Tensor] = []
    possible: list[Tensor] = []
    for path, (x, summed) in events.items():
        fan_out = _fan_out(net.get_submodule(path), x)
        made.append((x.sum(0, dtype=torch.float32) * fan_out[0]).sum())
        possible.append(summed * len(x) * fan_out.sum())
    return torch.stack(made).sum() / torch.stack(possible).sum()


def spikes_share(events: dict[str, Events]) -> Tensor:
    """Return the spikes that convolutions read over one at every place and step.

    Each counts alike, whatever it costs.
    """
    made = torch.stack([x.sum(dtype=torch.float32) for x, _ in events.values()])
    return made.sum() / sum(summed * x.numel() for x, summed in events.values())
