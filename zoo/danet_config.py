"""The config of a DANet: everything that determines the network but its weights."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin

from zoo.blocks import Order
from zoo.errors import ConfigError
from zoo.neurons import Lif, Reset
from zoo.surrogates import ATan, Rectangle

__all__ = ["DANetConfig", "StemKind"]

StemKind = Literal["imagenet", "small", "medium", "sew", "ms", "ms104"]

MAX_STAGES = 8
MAX_SIZES = {
    "depths": 256,
    "widths": 16384,
    "steps": 1024,
    "in_channels": 4096,
    "num_classes": 1_000_000,
}


@dataclass(frozen=True)
class DANetConfig:
    """The fields of one network, as `config.json` of a model folder holds them.

    Raises:
        ConfigError: if the fields describe no network.
    """

    depths: tuple[int, ...] = (2, 2, 2, 2)  # blocks in each stage
    widths: tuple[int, ...] = (64, 128, 256, 512)  # output channels of each stage
    bottleneck: bool = False  # 1x1, 3x3, 1x1 convolutions in a block instead of two 3x3
    order: Order = "a"  # of neuron, convolution and normalisation, see `zoo.blocks.ORDERS`
    links: bool = True  # densely additive links between the stages
    dense: bool = True  # links from all earlier stages, or (small fan-out) from the one before
    stem: StemKind = "imagenet"
    steps: int = 4  # T
    in_channels: int = 3
    num_classes: int = 1000
    join: Literal["add", "and", "iand"] = "add"  # of a block's branch and its shortcut
    down: Literal["pool", "stride"] = "pool"  # how a shortcut changes resolution
    shortcut_reads: Literal["spikes", "stream"] = "spikes"
    beta: float = 0.5  # membrane decay per step
    threshold: float = 1.0
    reset: Reset = "zero"
    surrogate: Literal["atan", "rectangle"] = "atan"

    def __post_init__(self) -> None:
        for field in fields(self):
            _check_type(field.name, getattr(self, field.name), field.type)
        if len(self.depths) != len(self.widths) or not 1 <= len(self.depths) <= MAX_STAGES:
            depths, widths = self.depths[: MAX_STAGES + 1], self.widths[: MAX_STAGES + 1]
            raise ConfigError(
                f"depths {depths}, widths {widths}: expected one of each for every stage, "
                f"and 1 to {MAX_STAGES} stages"
            )
        for name, largest in MAX_SIZES.items():
            value = getattr(self, name)
            for size in value if isinstance(value, tuple) else (value,):
                if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= largest:
                    raise ConfigError(f"{name} = {size!r} is not an integer from 1 to {largest}")
        if self.bottleneck and any(width % 4 for width in self.widths):
            raise ConfigError(f"widths {self.widths} of bottleneck blocks must be multiples of 4")
        if not 0 <= self.beta <= 1 or not self.threshold > 0:
            raise ConfigError(
                f"beta = {self.beta} must lie in [0, 1] and threshold = {self.threshold} above 0"
            )

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DANetConfig":
        """Return the config that `config.json` holds, whose lists become tuples.

        Raises:
            ConfigError: for a field that does not exist, or a value that is not valid.
        """
        cls.check_names(values)
        kwargs: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**kwargs)

    @classmethod
    def check_names(cls, names: Iterable[str]) -> None:
        """Raise `ConfigError` for a name that is not a field's."""
        valid = [field.name for field in fields(cls)]
        unknown = sorted(set(names) - set(valid))
        if unknown:
            raise ConfigError(f"unknown config field {unknown[0]!r}; valid are {', '.join(valid)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, for `from_dict`."""
        return asdict(self)

    def neuron(self) -> Lif:
        """Return a new layer of the network's neurons."""
        return Lif(
            self.steps,
            beta=self.beta,
            threshold=self.threshold,
            reset=self.reset,
            spike_grad=ATan() if self.surrogate == "atan" else Rectangle(),
        )


def _check_type(name: str, value: object, annotation: Any) -> None:
    """Raise `ConfigError` unless `value` is of the type, or one of the words, of its annotation."""
    kind = get_origin(annotation) or annotation
    if kind is Literal:
        words = get_args(annotation)
        if value not in words:
            raise ConfigError(f"{name} = {value!r} is not one of {', '.join(map(repr, words))}")
        return
    types = (int, float) if kind is float else kind
    # A bool is an int to Python, and not to a config.
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, types):
        written = "list" if kind is tuple else kind.__name__  # as config.json and TOML have it
        raise ConfigError(f"{name} = {value!r} is not of type {written}")
