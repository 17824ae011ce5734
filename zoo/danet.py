"""DANet: a deep spiking residual network whose stages are joined by densely additive (DA) links.

Paper: Yudong Li, Yunlin Lei, Xu Yang, *Rethinking Residual Connection in Training Large-Scale
Spiking Neural Networks*, arXiv 2311.05171 (2023). Its abstract is all that is established here;
block orders, neuron and stem are our reconstruction, and MODEL_CARD.md says which is which.

    x -> stem -> stage1 -> ... -> stageN -> head -> logits,   with links from the stem and every stage to each later one

One network and one frozen config: the Spiking, SEW and MS ResNets of `zoo.families` are other words
in the same config.

Shapes: `T` time steps, `B` images, `C` channels, `H` x `W` pixels, `K` classes. Inside, time is
folded into the batch.
"""

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args, get_origin

import torch
from torch import Tensor, nn

from zoo.autograd import is_recorded, is_transformed
from zoo.blocks import SPIKING_STREAM, Block, Neuron, Order, Projection, Stage
from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, InputError
from zoo.images import Transform
from zoo.neurons import Lif, Reset
from zoo.provenance import Origin
from zoo.surrogates import ATan, Rectangle

if TYPE_CHECKING:
    from zoo.summary import Summary

__all__ = ["DANet", "DANetConfig", "Head", "Readout", "Repeat", "Stem", "set_steps"]

# What DataParallel, DistributedDataParallel and torch.compile put before each key of a state.
WRAPPED = re.compile(r"(?:(?:module|_orig_mod)\.)*")

StemWord = Literal["imagenet", "small", "medium", "sew", "ms", "ms104"]


@dataclass(frozen=True)
class DANetConfig:
    """Everything that determines the network but its weights. `config.json` of a model folder holds
    these fields.
    """

    depths: tuple[int, ...] = (2, 2, 2, 2)  # blocks in each stage
    widths: tuple[int, ...] = (64, 128, 256, 512)  # output channels of each stage
    bottleneck: bool = False
    order: Order = "a"
    links: bool = True  # densely additive links between the stages
    # links from every earlier source; False: from the stage before alone, for chips of little
    # fan-out
    dense: bool = True
    stem: StemWord = "imagenet"
    steps: int = 4  # T
    in_channels: int = 3
    num_classes: int = 1000
    join: Literal["add", "and", "iand"] = "add"
    down: Literal["pool", "stride"] = "pool"  # how a shortcut changes resolution
    shortcut_reads: Literal["spikes", "stream"] = "spikes"
    beta: float = 0.5  # membrane decay per step
    threshold: float = 1.0
    reset: Reset = "zero"
    surrogate: Literal["atan", "rectangle"] = "atan"

    def __post_init__(self) -> None:
        for field in fields(self):
            value, words = getattr(self, field.name), get_args(field.type)
            kind: Any = get_origin(field.type) or field.type
            if kind is Literal:
                if value not in words:
                    raise ConfigError(
                        f"{field.name} = {value!r} is not one of {', '.join(map(repr, words))}"
                    )
            elif isinstance(value, bool) != (kind is bool) or not isinstance(
                value, {float: int | float}.get(kind, kind)
            ):
                # as config.json and TOML have it
                written = "list" if kind is tuple else kind.__name__
                raise ConfigError(f"{field.name} = {value!r} is not of type {written}")
        if len(self.depths) != len(self.widths) or not 1 <= len(self.depths) <= 8:
            raise ConfigError(
                f"depths {self.depths[:9]}, widths {self.widths[:9]}: expected one of each for every stage, and 1 to 8 stages"
            )
        sizes = {
            "depths": self.depths,
            "widths": self.widths,
            "steps": (self.steps,),
            "in_channels": (self.in_channels,),
        }
        limits = {
            "depths": 256,
            "widths": 16384,
            "steps": 1024,
            "in_channels": 4096,
            "num_classes": 1_000_000,
        }
        for name, values in {**sizes, "num_classes": (self.num_classes,)}.items():
            for value in values:
                if (
                    not isinstance(value, int)
                    or isinstance(value, bool)
                    or not 1 <= value <= limits[name]
                ):
                    raise ConfigError(
                        f"{name} = {value!r} is not an integer from 1 to {limits[name]}"
                    )
        if self.bottleneck and any(width % 4 for width in self.widths):
            raise ConfigError(f"widths {self.widths} of bottleneck blocks must be multiples of 4")
        if not 0 <= self.beta <= 1 or not self.threshold > 0:
            raise ConfigError(
                f"beta = {self.beta} must lie in [0, 1] and threshold = {self.threshold} above 0"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DANetConfig":
        """From `config.json`. Raises `ConfigError` for a field that does not exist or a value that
        cannot be.
        """
        cls.check_names(values)
        kwargs: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**kwargs)

    @classmethod
    def check_names(cls, names: Iterable[str]) -> None:
        """Raises `ConfigError` for a name that is none of a field."""
        unknown = sorted(set(names) - {f.name for f in fields(cls)})
        if unknown:
            raise ConfigError(
                f"unknown config field {unknown[0]!r}; valid are {', '.join(f.name for f in fields(cls))}"
            )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def neuron(self) -> Lif:
        return Lif(
            self.steps,
            beta=self.beta,
            threshold=self.threshold,
            reset=self.reset,
            spike_grad=ATan() if self.surrogate == "atan" else Rectangle(),
        )


class Repeat(nn.Module):
    """A still image is the input of every step: `[B, C, H, W]` -> `[T*B, C, H, W]`."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        # Not a concatenation, whose backward pass would round T times. `repeat` does not keep the
        # memory format.
        if is_recorded(self) and x.is_contiguous(memory_format=torch.channels_last):
            return x.permute(0, 2, 3, 1).repeat(self.steps, 1, 1, 1).permute(0, 3, 1, 2)
        return x.repeat(self.steps, 1, 1, 1)


class Stem(nn.Module):
    """From pixels to the first stage's resolution. All that comes before the first neuron runs once
    for a still image.

    `imagenet` conv7x7/2 - bn - avgpool3x3/2 (a max pool of real currents has no NIR form); `small`
    conv3x3 - bn (32 pixels); `medium` conv3x3/2 - bn (64); `sew` conv7x7/2 - bn - lif -
    maxpool3x3/2; `ms` conv7x7/2 - bn; `ms104` three conv3x3 with bias, the first strided, - bn.
    Where the stream carries spikes (orders c, plain and post), a neuron follows.
    """

    # convolutions (kernel, stride), and the pool
    LAYOUTS: ClassVar[dict[str, tuple[tuple[tuple[int, int], ...], str | None]]] = {
        "imagenet": (((7, 2),), "avg"),
        "small": (((3, 1),), None),
        "medium": (((3, 2),), None),
        "sew": (((7, 2),), "max"),
        "ms": (((7, 2),), None),
        "ms104": (((3, 2), (3, 1), (3, 1)), None),
    }

    def __init__(
        self, word: StemWord, cin: int, cout: int, steps: int, neuron: Neuron | None
    ) -> None:
        super().__init__()
        convs, pool = self.LAYOUTS[word]
        currents: OrderedDict[str, nn.Module] = OrderedDict()
        for i, (kernel, stride) in enumerate(convs):
            name = f"conv{i + 1}" if len(convs) > 1 else "conv"
            currents[name] = nn.Conv2d(
                cin if i == 0 else cout, cout, kernel, stride, kernel // 2, bias=len(convs) > 1
            )
        currents["bn"] = nn.BatchNorm2d(cout)
        if pool == "avg":
            currents["pool"] = nn.AvgPool2d(3, 2, 1)
        spikes: OrderedDict[str, nn.Module] = OrderedDict()
        if neuron:
            spikes["lif"] = neuron()
        if pool == "max":
            spikes["pool"] = nn.MaxPool2d(3, 2, 1)
        for name, module in {**currents, "repeat": Repeat(steps), **spikes}.items():
            self.add_module(name, module)
        self._currents, self._spikes = list(currents), list(spikes)

    def forward(self, x: Tensor, still: bool) -> Tensor:
        for name in [*self._currents, *(["repeat"] if still else []), *self._spikes]:
            x = self.get_submodule(name)(x)
        return x


class Readout(nn.Module):
    """Mean over time and pixels: `[T*B, C, H, W]` -> `[B, C]`."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(self.steps, -1, *x.shape[1:]).mean((0, 3, 4))


class Head(nn.Module):
    """`[[bn -] lif -] readout - fc`: `[T*B, C, H, W]` -> logits `[B, K]`. The neuron is there where
    the stream is real.
    """

    def __init__(
        self, width: int, classes: int, steps: int, *, order: Order, neuron: Neuron
    ) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(width) if order == "b" else None
        self.lif = None if order in SPIKING_STREAM else neuron()
        self.readout = Readout(steps)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.readout(self.spikes(x)))
        return logits

    def spikes(self, x: Tensor) -> Tensor:
        """What is read out, `[T*B, C, H, W]`."""
        for module in (self.bn, self.lif):
            x = x if module is None else module(x)
        return x

    def per_step(self, x: Tensor) -> Tensor:
        """The logits of every step, `[T, B, K]`; their mean over T is `forward`, up to rounding."""
        x = self.spikes(x)
        x = x.reshape(self.readout.steps, -1, *x.shape[1:]).mean((3, 4))  # [T, B, C]
        logits: Tensor = self.fc(x)
        return logits


class DANet(nn.Module):
    """`[B, C, H, W]` (still images) or `[T, B, C, H, W]` (events) -> logits `[B, K]`."""

    def __init__(self, config: DANetConfig) -> None:
        super().__init__()
        self.config = c = config
        width = c.widths[0] // 4 if c.bottleneck else c.widths[0]
        spiking = c.neuron if c.order in SPIKING_STREAM else None
        self.stem = Stem(c.stem, c.in_channels, width, c.steps, spiking)
        # channels and resolution (as a divisor of the stem's) of every source of links
        sources = [(width, 1)]
        for k, (depth, cout) in enumerate(zip(c.depths, c.widths, strict=True)):
            cin, divisor = sources[-1]
            stride = 1 if k == 0 and not c.stem.startswith("ms") else 2
            blocks = [
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
            divisor *= stride
            first = 0 if c.dense else max(1, k)  # source 0 is the stem, source k the stage before
            links = {
                j: Projection(s, cout, divisor // d, neuron=spiking)
                for j, (s, d) in enumerate(sources)
                if c.links and j >= first
            }
            self.add_module(f"stage{k + 1}", Stage(blocks, links))
            sources.append((cout, divisor))
        self.head = Head(c.widths[-1], c.num_classes, c.steps, order=c.order, neuron=c.neuron)
        self.initialise()
        self.register_load_state_dict_pre_hook(_unwrapped)  # type: ignore[no-untyped-call]  # torch's own
        self.origin: Origin | None = None  # set by `zoo.load` and `zoo.create`
        self.frozen: tuple[str, ...] = ()  # set by `freeze`

    def initialise(self) -> None:
        """He's initialisation by fan-out for convolutions (He et al. 2015); normalisations start at
        one and zero.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and not module.weight.is_meta:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def freeze(self, *parts: str) -> None:
        """Keep `parts`, as `stem` or `stage1.block0`, as they are: their parameters need no
        gradient, and their BatchNorms stay in eval mode whatever `train` is told. Calls add up.

        Raises `ConfigError`, and changes nothing, for a part without parameters, or if nothing is
        left to train.
        """
        with_parameters = {
            path for path, module in self.named_modules() if any(True for _ in module.parameters())
        }
        unknown = [part for part in parts if part not in with_parameters or not part]
        if unknown:
            children = ", ".join(path for path, _ in self.named_children())
            raise ConfigError(
                f"{unknown[0]!r} cannot be frozen: valid are {children}, and their parts, as stage1.block0"
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
        super().train(mode)
        for part in self.frozen:
            for module in self.get_submodule(part).modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Floats are taken as they are: that they were normalised is not checked. Raises
        `InputError` for any other input.
        """
        logits: Tensor = self.head(self._stream(x))
        return logits

    def per_step(self, x: Tensor) -> Tensor:
        """The logits of every step, `[T, B, K]`, for losses that look at each (TET, Deng et al.
        2022).
        """
        return self.head.per_step(self._stream(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Compute what the head averages over time and pixels, `[T, B, C, H, W]`: spikes, or in
        order c sums of spikes.
        """
        features = self.head.spikes(self._stream(x))
        return features.reshape(self.head.readout.steps, -1, *features.shape[1:])

    def forward_head(self, features: Tensor) -> Tensor:
        """The logits `[B, K]` of what `forward_features` returns. `features.mean((0, 3, 4))` is an
        embedding, `[B, C]`.
        """
        logits: Tensor = self.head.fc(features.mean((0, 3, 4)))
        return logits

    def _stream(self, x: Tensor) -> Tensor:
        """What the head reads, `[T*B, C, H, W]`."""
        still = self._check(x)
        stream: Tensor = self.stem(x if still else x.flatten(0, 1), still)
        sources: list[Tensor] = []
        for k in range(len(self.config.depths)):
            stream, sources = self.get_submodule(f"stage{k + 1}")(stream, sources)
        return stream

    def _check(self, x: Tensor) -> bool:
        """True for still images, False for events; raises `InputError` for anything else."""
        c, steps = self.config, self.head.readout.steps
        if not isinstance(x, Tensor) or not x.is_floating_point():
            given = str(x.dtype) if isinstance(x, Tensor) else type(x).__name__
            events = self.origin is not None and self.origin.data.events
            taken = (
                "counts of events as floats"
                if events
                else "as `model.transform(pixels)` makes of bytes"
            )
            raise InputError(f"input of type {given}: a network takes a tensor of floats, {taken}")
        still = x.dim() == 4
        if not still and (x.dim() != 5 or x.shape[0] != steps):
            raise InputError(
                f"input of shape {list(x.shape)}: expected [B, C, H, W] or [{steps}, B, C, H, W]"
            )
        if x.shape[-3] != c.in_channels:
            raise InputError(f"input has {x.shape[-3]} channels: this model takes {c.in_channels}")
        if not torch.compiler.is_compiling() and not x.shape[-4]:
            raise InputError(f"input of shape {list(x.shape)} holds no images")
        # A membrane of NaN never fires, so the logits would look as if nothing were wrong.
        checkable = not (
            self.training or torch.compiler.is_compiling() or is_transformed() or x.is_meta
        )
        own = next(self.stem.parameters(), x).dtype
        if checkable and x.dtype != own and not torch.is_autocast_enabled(x.device.type):
            raise InputError(f"input of type {x.dtype} for weights of {own}: convert one of them")
        if checkable and not torch.isfinite(x).all():
            raise InputError("input holds NaN or infinite values")
        return still

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the last layer by one of random weights for `num_classes` classes, which have no
        names.

        Raises `ConfigError` for a number that cannot be: a network without a head is
        `forward_features`.
        """
        self.config = replace(self.config, num_classes=num_classes)
        like = next(self.stem.parameters())
        self.head.fc = nn.Linear(
            self.config.widths[-1], num_classes, device=like.device, dtype=like.dtype
        )
        self.frozen = tuple(part for part in self.frozen if part not in ("head", "head.fc"))
        if self.origin:  # the files no longer hold these weights
            data = replace(self.origin.data, num_classes=num_classes, classes=())
            self.origin = replace(self.origin, data=data, weights=())

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
        return Transform(self.known_origin.data)

    def summary(self, x: Tensor | None = None) -> "Summary":
        """Shapes, parameters and MACs of each layer, and with images `x` its SynOps; see
        `zoo.summary.summarise`.
        """
        from zoo.summary import summarise

        return summarise(self, x)

    def save(
        self, folder: str | Path, *, name: str | None = None, data: DatasetSpec | None = None
    ) -> None:
        """Write a model folder that `zoo.load` takes, with every weight exact; see
        `zoo.weights.save_model` for what is refused.

        `name` and `data` are those of the origin unless given, and the folder is the network's
        origin from then on.
        """
        from zoo.weights import save_model

        self.origin = save_model(Path(folder), self, name=name, data=data)

    def push_to_hub(self, repo: str, *, licence: str | None = None, private: bool = False) -> str:
        """Publish the network with its card as `repo`, `org/name`, in one commit of the Hub, as
        `zoo push` does.

        `licence` is one of the Hub, as `"mit"`; if there is none, the record's or unknown. Returns
        `hf:org/name@commit`, which `zoo.load` takes. Raises `HubError` where the Hub refuses, and
        what `save` raises.
        """
        from zoo.publishing.publish import push_model

        return push_model(self, repo, licence=licence, private=private)


def _unwrapped(network: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Take a state whose keys begin with what wraps a network, as in `module.stem.conv.weight`."""
    for key in [] if prefix else [*state]:
        if (bare := WRAPPED.sub("", key)) not in state:  # or it is there twice, and torch names it
            state[bare] = state.pop(key)


def set_steps(model: nn.Module, steps: int) -> None:
    """Let `model` take `steps` time steps from now on: no parameter depends on T, and training may
    begin with fewer.
    """
    for module in model.modules():
        if isinstance(module, Lif | Repeat | Readout):
            module.steps = steps
        elif isinstance(module, DANet):  # exports say what it holds
            module.config = replace(module.config, steps=steps)
