"""What a network is made of, layer by layer: shapes, parameters, and the work that an image costs.

MACs are those of a dense network that multiplies at every time step, padding included, and need no
data. SynOps are the additions that spikes cause; they depend on the images, and are counted by
`export.energy`, whose figures `zoo energy` reports too: a second way to count would be a second
truth. It is imported only where they are asked for.

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.activity import evaluating, watching
from zoo.errors import ConfigError
from zoo.neurons import Lif

if TYPE_CHECKING:
    from zoo.danet import DANet

__all__ = ["LayerSummary", "Summary", "summarise"]

# modules that are one layer, whatever they consist of
WHOLE = (Lif, nn.Conv2d, nn.Linear, nn.BatchNorm2d)


@dataclass(frozen=True)
class LayerSummary:
    """One layer, and the work that it does for one image."""

    name: str  # path of the module, as in `stage1.block0.conv1`
    kind: str  # class of the module
    shape: tuple[int, ...]  # of the output, without time and batch
    parameters: int
    macs: int  # multiplications of a dense network, over all time steps
    # mean over the images given; None where nothing was counted, or the layer reads no spikes
    synops: float | None = None
    # spikes per neuron and time step, over the images given; None of what has no neurons
    rate: float | None = None


@dataclass(frozen=True)
class Summary:
    """A network's layers in the order in which they are computed; as text, a table with the totals
    below.
    """

    name: str
    steps: int  # T
    parameters: int
    layers: tuple[LayerSummary, ...]

    @property
    def macs(self) -> int:
        """Multiplications of a dense network for one image, over all time steps."""
        return sum(layer.macs for layer in self.layers)

    @property
    def synops(self) -> float | None:
        """Additions that the spikes of one image cause, on average over the images given; None
        where there were none.
        """
        counted = [layer.synops for layer in self.layers if layer.synops is not None]
        return sum(counted) if counted else None

    def __str__(self) -> str:
        counted = self.synops is not None
        rows = [
            (
                "layer",
                "kind",
                "output",
                "parameters",
                "MACs",
                *(("SynOps", "rate") if counted else ()),
            )
        ]
        for layer in self.layers:
            numbers = (
                f"{layer.parameters:,}" if layer.parameters else "",
                f"{layer.macs:,}" if layer.macs else "",
            )
            synops = "" if layer.synops is None else f"{layer.synops:,.0f}"
            rate = "" if layer.rate is None else f"{layer.rate:.1%}"
            shape = "x".join(map(str, layer.shape))
            rows.append(
                (layer.name, layer.kind, shape, *numbers, *((synops, rate) if counted else ()))
            )
        total = f"{self.name}: {self.parameters:,} parameters, T = {self.steps}; an image is {self.macs:,} MACs if computed densely"
        return "\n".join(
            [*_aligned(rows), "", total + (f", {self.synops:,.0f} SynOps" if counted else "")]
        )


def summarise(model: "DANet", x: Tensor | None = None) -> Summary:
    """The layers of a model for images of its own size, or of the size of `x`; `DANet.summary`
    returns it.

    With `x`, normalised images `[B, C, H, W]` or frames `[T, B, C, H, W]`, it also has the SynOps
    of layers and the rates of neurons. Raises `ConfigError` for a model that does not say its
    images, where there is no `x` to say it; and with `x` `ExportError` or `InputError` for a
    network whose operations cannot be counted and for images that it cannot take.
    """
    modules = dict(_layers(model))
    found: dict[str, LayerSummary] = {}

    def measure(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, out: Tensor) -> None:
            parameters = sum(parameter.numel() for parameter in module.parameters())
            macs = (
                out.numel() * module.weight[0].numel()
                if isinstance(module, nn.Conv2d | nn.Linear)
                else 0
            )
            found[name] = LayerSummary(
                name, type(module).__name__, tuple(out.shape[1:]), parameters, macs
            )

        return hook

    with evaluating(model):
        with watching(modules, measure), torch.no_grad():
            model(_black_image(model, x))
        layers = tuple(found.values() if x is None else _counted(model, x, found))
    name = model.origin.name if model.origin else type(model).__name__
    return Summary(
        name,
        model.head.readout.steps,
        sum(parameter.numel() for parameter in model.parameters()),
        layers,
    )


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules that compute, by path: those without children, and those that count as one."""
    last = None
    for name, module in model.named_modules():
        if last is not None and name.startswith(f"{last}."):
            continue
        if isinstance(module, WHOLE) or not any(True for _ in module.children()):
            last = name
            yield name, module


def _black_image(model: "DANet", x: Tensor | None) -> Tensor:
    """One image of zeros, of the shape that the model or `x` says, where the model is."""
    weight = next(model.stem.parameters())
    if x is not None:
        return torch.zeros_like(x[:1] if x.dim() == 4 else x[:, :1])
    if model.origin is None:
        raise ConfigError(
            "this network does not say which images it takes: give some, as in model.summary(x)"
        )
    data = model.origin.data
    shape = (1, data.channels, data.size, data.size)
    return weight.new_zeros((model.head.readout.steps, *shape) if data.events else shape)


def _counted(model: "DANet", x: Tensor, layers: dict[str, LayerSummary]) -> Iterator[LayerSummary]:
    """The layers with the SynOps and rates that `export.energy` counts."""
    from export.energy import estimate
    from export.nir.exporter import node_name

    report = estimate(model, x)
    rows = {row.name: row for row in report.layers}
    for layer in layers.values():
        row = rows.get(node_name(layer.name))
        if row is None:  # it is part of another one: a BatchNorm of its convolution
            yield layer
        else:
            spikes_in = row.input_kind != "real" and row.kind in ("conv", "linear", "scale")
            yield replace(
                layer,
                synops=row.counts["acs"] / report.images if spikes_in else None,
                rate=report.rate(row),
            )


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Rows of a table as lines: three columns of words to the left, the others, of numbers, to the
    right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
