"""The layers of a network: their shapes, parameters, and the work that an image costs.

MACs are those of a dense network that multiplies at every time step, padding included, and need no
data. SynOps are the additions that spikes cause; they depend on the images, and are counted by
`export.energy`, so that they are the figures of `zoo energy`. It is imported only where they are
asked for.

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.activity import eval_mode, forward_hooks
from zoo.errors import ConfigError
from zoo.neurons import Lif

if TYPE_CHECKING:
    from zoo.danet import DANet

__all__ = ["LayerSummary", "Summary", "summarise"]

# Modules that are one layer, whatever they consist of.
LAYER_TYPES = (Lif, nn.Conv2d, nn.Linear, nn.BatchNorm2d)


@dataclass(frozen=True)
class LayerSummary:
    """One layer, and the work that it does for one image.

    `synops` and `rate` are None where no images were given, `synops` also where the layer reads no
    spikes, and `rate` where it has no neurons.
    """

    name: str  # path of the module, as in `stage1.block0.conv1`
    kind: str  # class of the module
    shape: tuple[int, ...]  # of the output, without time and batch
    parameters: int
    macs: int  # multiplications of a dense network, over all time steps
    synops: float | None = None  # mean over the images
    rate: float | None = None  # spikes per neuron and time step, mean over the images


@dataclass(frozen=True)
class Summary:
    """A network's layers in the order in which they are computed.

    As text it is a table with the totals below.
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
        """Additions that the spikes of one image cause, on average; None without images."""
        counted = [layer.synops for layer in self.layers if layer.synops is not None]
        return sum(counted) if counted else None

    def __str__(self) -> str:
        header = ("layer", "kind", "output", "parameters", "MACs", "SynOps", "rate")
        rows = [header, *(_cells(layer) for layer in self.layers)]
        total = (
            f"{self.name}: {self.parameters:,} parameters, T = {self.steps}; "
            f"an image is {self.macs:,} MACs if computed densely"
        )
        if self.synops is None:
            rows = [row[:-2] for row in rows]  # without SynOps and rate
        else:
            total += f", {self.synops:,.0f} SynOps"
        return "\n".join([*_aligned(rows), "", total])


def summarise(model: "DANet", x: Tensor | None = None) -> Summary:
    """Return the layers of a model for images of its own size, or of the size of `x`.

    With `x`, normalised images `[B, C, H, W]` or frames `[T, B, C, H, W]`, it also has the SynOps
    of layers and the rates of neurons. `DANet.summary` is this function.

    Raises:
        ConfigError: without `x`, for a model that does not say its images.
        ExportError: with `x`, for a network whose operations cannot be counted.
        InputError: for images that the network cannot take.
    """
    modules = dict(_layers(model))
    layers: dict[str, LayerSummary] = {}

    def measure(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, args: Any, out: Tensor) -> None:
            macs = 0
            if isinstance(module, nn.Conv2d | nn.Linear):
                macs = out.numel() * module.weight[0].numel()
            kind, shape = type(module).__name__, tuple(out.shape[1:])
            layers[name] = LayerSummary(name, kind, shape, _parameters(module), macs)

        return hook

    with eval_mode(model):
        with forward_hooks(modules, measure), torch.no_grad():
            model(_black_image(model, x))
        if x is not None:
            layers = _with_counts(model, x, layers)
    name = model.origin.name if model.origin else type(model).__name__
    return Summary(name, model.head.readout.steps, _parameters(model), tuple(layers.values()))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _layers(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules that compute, by path: those without children, and `LAYER_TYPES`."""
    last = None
    for name, module in model.named_modules():
        if last is not None and name.startswith(f"{last}."):
            continue
        if isinstance(module, LAYER_TYPES) or not any(True for _ in module.children()):
            last = name
            yield name, module


def _black_image(model: "DANet", x: Tensor | None) -> Tensor:
    """Return one image of zeros, of the shape that the model or `x` says."""
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


def _with_counts(
    model: "DANet", x: Tensor, layers: dict[str, LayerSummary]
) -> dict[str, LayerSummary]:
    """Return the layers with the SynOps and rates that `export.energy` counts."""
    from export.energy import estimate
    from export.nir.exporter import node_name

    report = estimate(model, x)
    rows = {row.name: row for row in report.layers}
    counted = dict(layers)
    for name, layer in layers.items():
        # A BatchNorm has no row: it is part of its convolution.
        if (row := rows.get(node_name(name))) is not None:
            spikes_in = row.input_kind != "real" and row.kind in ("conv", "linear", "scale")
            synops = row.counts["acs"] / report.images if spikes_in else None
            counted[name] = replace(layer, synops=synops, rate=report.rate(row))
    return counted


def _cells(layer: LayerSummary) -> tuple[str, ...]:
    """Return a layer's row of the table."""
    return (
        layer.name,
        layer.kind,
        "x".join(map(str, layer.shape)),
        f"{layer.parameters:,}" if layer.parameters else "",
        f"{layer.macs:,}" if layer.macs else "",
        "" if layer.synops is None else f"{layer.synops:,.0f}",
        "" if layer.rate is None else f"{layer.rate:.1%}",
    )


def _aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Yield the rows of a table as lines, with three columns of words and the others of numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
