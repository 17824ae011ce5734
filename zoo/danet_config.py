"""The config of a DANet: everything that determines the network but its weights."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from zoo.blocks import Order
from zoo.errors import ConfigError
from zoo.neurons import Lif, Reset
from zoo.records import CheckedRecord, above, between, read_record
from zoo.surrogates import ATan, Rectangle

__all__ = ["DANetConfig", "StemKind"]

StemKind = Literal["imagenet", "small", "medium", "sew", "ms", "ms104"]

MAX_STAGES = 8
Blocks = Annotated[int, between(1, 256)]
Channels = Annotated[int, between(1, 16384)]


@dataclass(frozen=True)
class DANetConfig(CheckedRecord):
    """The fields of one network, as `config.json` of a model folder holds them.

    Raises:
        ConfigError: if the fields describe no network.
    """

    depths: tuple[Blocks, ...] = (2, 2, 2, 2)  # blocks in each stage
    widths: tuple[Channels, ...] = (64, 128, 256, 512)  # output channels of each stage
    bottleneck: bool = False  # 1x1, 3x3, 1x1 convolutions in a block instead of two 3x3
    order: Order = "a"  # of neuron, convolution and normalisation, see `zoo.blocks.ORDERS`
    links: bool = True  # densely additive links between the stages
    dense: bool = True  # links from all earlier stages, or (small fan-out) from the one before
    stem: StemKind = "imagenet"
    steps: Annotated[int, between(1, 1024)] = 4  # T
    in_channels: Annotated[int, between(1, 4096)] = 3
    num_classes: Annotated[int, between(1, 1_000_000)] = 1000
    join: Literal["add", "and", "iand"] = "add"  # of a block's branch and its shortcut
    down: Literal["pool", "stride"] = "pool"  # how a shortcut changes resolution
    shortcut_reads: Literal["spikes", "stream"] = "spikes"
    beta: Annotated[float, between(0, 1)] = 0.5  # membrane decay per step
    threshold: Annotated[float, above(0)] = 1.0
    reset: Reset = "zero"
    surrogate: Literal["atan", "rectangle"] = "atan"

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.depths) != len(self.widths) or not 1 <= len(self.depths) <= MAX_STAGES:
            depths, widths = self.depths[: MAX_STAGES + 1], self.widths[: MAX_STAGES + 1]
            raise ConfigError(
                f"depths {depths}, widths {widths}: expected one of each for every stage, "
                f"and 1 to {MAX_STAGES} stages"
            )
        if self.bottleneck and any(width % 4 for width in self.widths):
            raise ConfigError(f"widths {self.widths} of bottleneck blocks must be multiples of 4")

    @classmethod
    def from_dict(cls, values: object) -> "DANetConfig":
        """Return the config that `config.json` holds, whose lists become tuples.

        Raises:
            ConfigError: for a field that does not exist, or a value that is not valid.
        """
        return read_record(cls, values, "model")

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
