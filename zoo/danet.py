"""DANet: a deep spiking residual network whose stages are joined by densely additive (DA) links.

Paper: Yudong Li, Yunlin Lei, Xu Yang, *Rethinking Residual Connection in Training Large-Scale
Spiking Neural Networks*, arXiv 2311.05171 (2023). Its abstract is all that is established here;
block orders, neuron and stem are our reconstruction, and MODEL_CARD.md says which is which.

    x -> stem -> stage1 -> ... -> stageN -> head -> logits
           |        |                |
           +--------+--> links to each later stage

One network and one frozen config (`zoo.danet_config`): the Spiking, SEW and MS ResNets of
`zoo.families` are other values of the same config. Stages and blocks are in `zoo.blocks`, the
neuron in `zoo.neurons`.

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels, `K` classes. Inside, time is
folded into the batch.
"""

import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor, nn

from zoo.autograd import is_recorded, is_transformed
from zoo.blocks import (
    SPIKING_STREAM,
    Block,
    NeuronFactory,
    Order,
    Projection,
    Stage,
    children_named,
)
from zoo.danet_config import DANetConfig, StemKind
from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, InputError
from zoo.images import Transform
from zoo.neurons import Lif
from zoo.provenance import Origin

if TYPE_CHECKING:
    from zoo.summary import Summary

__all__ = ["DANet", "DANetConfig", "Head", "Readout", "Repeat", "Stem", "set_steps"]

# What DataParallel, DistributedDataParallel and torch.compile put before each key of a state.
WRAPPER_PREFIX = re.compile(r"(?:(?:module|_orig_mod)\.)*")


class Repeat(nn.Module):
    """The repetition of a still image, which is the input of every step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """Return `[T*B, C, H, W]` of `[B, C, H, W]`."""
        # Not a concatenation, whose backward pass would round T times. `repeat` does not keep the
        # memory format.
        if is_recorded(self) and x.is_contiguous(memory_format=torch.channels_last):
            return x.permute(0, 2, 3, 1).repeat(self.steps, 1, 1, 1).permute(0, 3, 1, 2)
        return x.repeat(self.steps, 1, 1, 1)


class Stem(nn.Module):
    """The stem leads from pixels to the first stage's resolution.

    All that comes before the first neuron runs once for a still image. Where the stream carries
    spikes (orders c, plain and post), the stem ends in a neuron:

        imagenet    conv7x7/2 - bn - avgpool3x3/2    (a max pool of real currents has no NIR form)
        small       conv3x3 - bn                     32 pixels
        medium      conv3x3/2 - bn                   64 pixels
        sew         conv7x7/2 - bn - lif - maxpool3x3/2
        ms          conv7x7/2 - bn
        ms104       three conv3x3 with bias, the first strided, - bn
    """

    # kind -> (kernel, stride) of each convolution, and the pool
    LAYOUTS: ClassVar[dict[str, tuple[tuple[tuple[int, int], ...], str | None]]] = {
        "imagenet": (((7, 2),), "avg"),
        "small": (((3, 1),), None),
        "medium": (((3, 2),), None),
        "sew": (((7, 2),), "max"),
        "ms": (((7, 2),), None),
        "ms104": (((3, 2), (3, 1), (3, 1)), None),
    }

    def __init__(
        self, kind: StemKind, cin: int, cout: int, steps: int, neuron: NeuronFactory | None
    ) -> None:
        super().__init__()
        convs, pool = self.LAYOUTS[kind]
        several = len(convs) > 1
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (kernel, stride) in enumerate(convs, 1):
            conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=several)
            layers[f"conv{i}" if several else "conv"] = conv
            cin = cout
        layers["bn"] = nn.BatchNorm2d(cout)
        if pool == "avg":
            layers["pool"] = nn.AvgPool2d(3, 2, 1)
        layers["repeat"] = Repeat(steps)
        if neuron:
            layers["lif"] = neuron()
        if pool == "max":
            layers["pool"] = nn.MaxPool2d(3, 2, 1)
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor, still: bool) -> Tensor:
        """Return the first stream `[T*B, C, H, W]`.

        `x` is `[B, C, H, W]` if the images are still, and `[T*B, C, H, W]` otherwise.
        """
        for layer in self.children():
            if still or layer is not self.repeat:
                x = layer(x)
        return x


class Readout(nn.Module):
    """The mean over time and pixels."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, C]` of `[T*B, C, H, W]`."""
        return x.reshape(self.steps, -1, *x.shape[1:]).mean((0, 3, 4))  # [T, B, C, H, W] -> [B, C]


class Head(nn.Module):
    """`[[bn -] lif -] readout - fc`; the neuron is there where the stream is real."""

    def __init__(
        self, width: int, classes: int, steps: int, *, order: Order, neuron: NeuronFactory
    ) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(width) if order == "b" else None
        self.lif = None if order in SPIKING_STREAM else neuron()
        self.readout = Readout(steps)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `[B, K]` of the stream `[T*B, C, H, W]`."""
        logits: Tensor = self.fc(self.readout(self.spikes(x)))
        return logits

    def spikes(self, x: Tensor) -> Tensor:
        """Return what is read out of the stream `x`: spikes, or in order c sums of spikes."""
        if self.bn is not None:
            x = self.bn(x)
        if self.lif is not None:
            x = self.lif(x)
        return x

    def per_step(self, x: Tensor) -> Tensor:
        """Return the logits of every step, `[T, B, K]`; up to rounding their mean is `forward`."""
        x = self.spikes(x)
        x = x.reshape(self.readout.steps, -1, *x.shape[1:]).mean((3, 4))  # [T, B, C]
        logits: Tensor = self.fc(x)
        return logits


class DANet(nn.Module):
    """Still images `[B, C, H, W]` or events `[T, B, C, H, W]` -> logits `[B, K]`."""

    def __init__(self, config: DANetConfig) -> None:
        super().__init__()
        self.config = c = config
        width = c.widths[0] // 4 if c.bottleneck else c.widths[0]
        spiking = c.neuron if c.order in SPIKING_STREAM else None
        self.stem = Stem(c.stem, c.in_channels, width, c.steps, spiking)
        # Channels and resolution (as a divisor of the stem's) of every source of links: source 0 is
        # what the stem gives, source j what stage j gives.
        sources = [(width, 1)]
        for k, (depth, cout) in enumerate(zip(c.depths, c.widths, strict=True), 1):
            cin, divisor = sources[-1]
            stride = 1 if k == 1 and not c.stem.startswith("ms") else 2
            divisor *= stride
            blocks = _stage_blocks(c, cin, cout, stride, depth)
            first = 0 if c.dense else max(1, k - 1)
            links = {
                j: Projection(channels, cout, divisor // its_divisor, neuron=spiking)
                for j, (channels, its_divisor) in enumerate(sources)
                if c.links and j >= first
            }
            self.add_module(f"stage{k}", Stage(blocks, links))
            sources.append((cout, divisor))
        self.head = Head(c.widths[-1], c.num_classes, c.steps, order=c.order, neuron=c.neuron)
        self.initialise()
        self.register_load_state_dict_pre_hook(_unwrap)  # type: ignore[no-untyped-call]  # torch's
        self.origin: Origin | None = None  # set by `zoo.load` and `zoo.create`
        self.frozen: tuple[str, ...] = ()  # set by `freeze`

    def initialise(self) -> None:
        """Draw the weights of convolutions by fan-out (He et al. 2015).

        Normalisations start at one and zero, as torch makes them.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @property
    def stages(self) -> list[Stage]:
        """Return the stages, in the order in which they run."""
        return children_named(self, "stage")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `[B, K]` of normalised images or events.

        That images were normalised is not checked.

        Raises:
            InputError: if `x` is not a tensor of floats of the model's shape and type, or in eval
                mode holds values that are not finite.
        """
        logits: Tensor = self.head(self._stream(x))
        return logits

    def per_step(self, x: Tensor) -> Tensor:
        """Return the logits of every step, `[T, B, K]`.

        Losses that look at each step read them (TET, Deng et al. 2022).
        """
        return self.head.per_step(self._stream(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Return what the head averages over time and pixels, `[T, B, C, H, W]`.

        These are spikes, or in order c sums of spikes.
        """
        features = self.head.spikes(self._stream(x))  # [T*B, C, H, W]
        return features.reshape(self.head.readout.steps, -1, *features.shape[1:])

    def forward_head(self, features: Tensor) -> Tensor:
        """Return the logits `[B, K]` of what `forward_features` returns.

        `features.mean((0, 3, 4))` is an embedding, `[B, C]`.
        """
        logits: Tensor = self.head.fc(features.mean((0, 3, 4)))
        return logits

    def _stream(self, x: Tensor) -> Tensor:
        """Return the stream that the head reads, `[T*B, C, H, W]`."""
        self._check(x)
        still = x.dim() == 4
        stream: Tensor = self.stem(x if still else x.flatten(0, 1), still)  # [T*B, C, H, W]
        sources: list[Tensor] = []  # what links read, each [T*B, C, H, W] of its stage
        for stage in self.stages:
            stream, sources = stage(stream, sources)
        return stream

    def _check(self, x: Tensor) -> None:
        """Raise `InputError` unless `x` is `[B, C, H, W]` or `[T, B, C, H, W]` of finite floats."""
        self._check_type(x)
        channels, steps = self.config.in_channels, self.head.readout.steps
        if x.dim() != 4 and (x.dim() != 5 or x.shape[0] != steps):
            raise InputError(
                f"input of shape {list(x.shape)}: expected [B, C, H, W] or [{steps}, B, C, H, W]"
            )
        if x.shape[-3] != channels:
            raise InputError(f"input has {x.shape[-3]} channels: this model takes {channels}")
        if not torch.compiler.is_compiling() and not x.shape[-4]:
            raise InputError(f"input of shape {list(x.shape)} holds no images")
        if not (self.training or torch.compiler.is_compiling() or is_transformed() or x.is_meta):
            self._check_values(x)

    def _check_type(self, x: Tensor) -> None:
        if isinstance(x, Tensor) and x.is_floating_point():
            return
        kind = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
        events = self.origin is not None and self.origin.data.events
        made = (
            "counts of events as floats"
            if events
            else "as `model.transform(pixels)` makes of bytes"
        )
        raise InputError(f"input of type {kind}: a network takes a tensor of floats, {made}")

    def _check_values(self, x: Tensor) -> None:
        own = next(self.stem.parameters(), x).dtype
        if x.dtype != own and not torch.is_autocast_enabled(x.device.type):
            raise InputError(f"input of type {x.dtype} for weights of {own}: convert one of them")
        # A membrane of NaN never fires, so the logits would look as if nothing were wrong.
        if not torch.isfinite(x).all():
            raise InputError("input holds NaN or infinite values")

    def freeze(self, *parts: str) -> None:
        """Keep `parts`, as `stem` or `stage1.block0`, as they are.

        Their parameters need no gradient, and their BatchNorms stay in eval mode whatever `train`
        is told. Calls add up.

        Raises:
            ConfigError: for a part without parameters, or if nothing is left to train; the network
                is then unchanged.
        """
        with_parameters = {
            path for path, module in self.named_modules() if any(True for _ in module.parameters())
        }
        unknown = [part for part in parts if part not in with_parameters or not part]
        if unknown:
            children = ", ".join(path for path, _ in self.named_children())
            raise ConfigError(
                f"{unknown[0]!r} cannot be frozen: valid are {children}, and their parts, "
                "as stage1.block0"
            )
        frozen = tuple(dict.fromkeys([*self.frozen, *parts]))
        inside = {id(p) for part in frozen for p in self.get_submodule(part).parameters()}
        if all(id(p) in inside for p in self.parameters()):
            raise ConfigError(
                f"with {', '.join(frozen)} frozen nothing is left to train: leave out one of them"
            )
        self.frozen = frozen
        for part in parts:
            self.get_submodule(part).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or eval mode, as of every module, but for the BatchNorms of frozen parts."""
        super().train(mode)
        for part in self.frozen:
            for module in self.get_submodule(part).modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by one of random weights for `num_classes` classes without names.

        Raises:
            ConfigError: if `num_classes` is not valid: a network without a head is
                `forward_features`.
        """
        self.config = replace(self.config, num_classes=num_classes)
        like, width = next(self.stem.parameters()), self.config.widths[-1]
        self.head.fc = nn.Linear(width, num_classes, device=like.device, dtype=like.dtype)
        self.frozen = tuple(part for part in self.frozen if part not in ("head", "head.fc"))
        if self.origin:  # the files no longer hold these weights
            self.origin = self.origin.with_classes(num_classes)

    @property
    def known_origin(self) -> Origin:
        """Name, data and weights files of this network. Raises `ConfigError` if it has none."""
        if self.origin is None:
            raise ConfigError(
                "this network has neither a name nor data: make it with zoo.create or zoo.load, "
                "or set model.origin = zoo.provenance.Origin(name, data)"
            )
        return self.origin

    @property
    def transform(self) -> Transform:
        """Return what turns pictures into input: `model(model.transform("cat.jpg"))`.

        Raises `ConfigError` for a network without an origin.
        """
        return Transform(self.known_origin.data, self.config.steps)

    def summary(self, x: Tensor | None = None) -> "Summary":
        """Return shapes, parameters and MACs of each layer, and with images `x` its SynOps.

        See `zoo.summary.summarise`.
        """
        from zoo.summary import summarise

        return summarise(self, x)

    def save(
        self, folder: str | Path, *, name: str | None = None, data: DatasetSpec | None = None
    ) -> None:
        """Write a model folder that `zoo.load` takes, with every weight exact.

        `name` and `data` are those of the origin unless given, and the folder is the network's
        origin from then on. See `zoo.weights.save_model` for what is refused.
        """
        from zoo.weights import save_model

        self.origin = save_model(Path(folder), self, name=name, data=data)

    def push_to_hub(self, repo: str, *, licence: str | None = None, private: bool = False) -> str:
        """Publish the network with its card as `repo`, `org/name`, in one commit of the Hub.

        It is what `zoo push` does. `licence` is one of the Hub, as `"mit"`; if there is none, the
        record's or unknown. Returns `hf:org/name@commit`, which `zoo.load` takes. Raises `HubError`
        where the Hub refuses, and what `save` raises.
        """
        from zoo.publishing.push import push_model

        return push_model(self, repo, licence=licence, private=private)


def _stage_blocks(c: DANetConfig, cin: int, cout: int, stride: int, depth: int) -> list[Block]:
    """Return the blocks of a stage, the first of which changes channels and resolution."""
    return [
        Block(
            cin if i == 0 else cout,
            cout,
            stride if i == 0 else 1,
            order=c.order,
            bottleneck=c.bottleneck,
            neuron=c.neuron,
            join=c.join,
            down=c.down,
            shortcut_reads=c.shortcut_reads,
        )
        for i in range(depth)
    ]


def _unwrap(network: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Take a state whose keys begin with what wraps a network, as in `module.stem.conv.weight`."""
    for key in [] if prefix else [*state]:
        bare = WRAPPER_PREFIX.sub("", key)
        if bare not in state:  # or it is there twice, and torch names it
            state[bare] = state.pop(key)


def set_steps(model: nn.Module, steps: int) -> None:
    """Let `model` take `steps` time steps from now on.

    No parameter depends on T, and training may begin with fewer steps.
    """
    for module in model.modules():
        if isinstance(module, Lif | Repeat | Readout):
            module.steps = steps
        elif isinstance(module, DANet):  # exports say what it holds
            module.config = replace(module.config, steps=steps)
