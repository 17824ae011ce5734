"""A training recipe: data, not code. `recipes/*.toml` holds one for each data set."""

import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from zoo.errors import ConfigError
from zoo.files import read_toml
from zoo.records import CheckedRecord, above, at_least, between, read_record, shown

__all__ = ["Recipe", "parse_value", "recipes"]

Count = Annotated[int, at_least(1)]
Number = Annotated[float, at_least(0)]  # or none, where it is zero
Positive = Annotated[float, above(0)]
Share = Annotated[float, between(0, 1)]
Pixels = Annotated[int, between(0, 4096)]
Alpha = Annotated[float, between(0, 100)]

RECIPES = Path(__file__).with_name("recipes")


def recipes() -> list[str]:
    """Return the tags of the data sets that there are recipes for.

    A file without the key `dataset` serves others to inherit from.
    """
    names = sorted(path.stem for path in RECIPES.glob("*.toml"))
    return [name for name in names if "dataset" in _read(name)]


@dataclass(frozen=True)
class Recipe(CheckedRecord):
    """The values that decide a training by SGD with Nesterov momentum.

    The learning rate warms up linearly, then falls to zero along a cosine or a line. Images are
    augmented in this order: `resized_crop`, the policies, `sizes`, `crop_padding`, `flip` or
    `flip_alternating`, `erase`, `random_erase`, and for the batch `mixup` or `cutmix`. A value of
    zero or an empty one turns its method off. Raises `ConfigError` for a value that cannot be.
    """

    # the data
    dataset: str
    epochs: Count
    source: str = ""  # a folder, or a hub id `org/name`
    # in the training split; needed only where they cannot be counted (shards)
    images: Annotated[int, at_least(0)] = 0
    # share of the training images that is held out and evaluated instead of the test split
    validation: Annotated[float, between(0, 0.9)] = 0.0
    batch_size: Count = 128  # over all processes together

    # the optimiser
    lr: Positive = 0.1  # peak of the learning rate
    warmup_epochs: Number = 1.0
    schedule: Literal["cosine", "linear"] = "cosine"  # of the learning rate after the warm-up
    momentum: Annotated[float, above(0), between(0, 1)] = 0.9
    weight_decay: Number = 5e-4  # not on normalisation, bias or neuron parameters
    clip: Number = 0.0  # greatest norm of the gradient of all parameters together
    # factor on the rate of the biases of BatchNorm
    norm_bias_rate: Annotated[float, above(0), between(0, 1000)] = 1.0
    # initialise the first convolution so that its outputs are decorrelated
    whiten: bool = False
    # decay per step of an average of weights and BatchNorm statistics, which becomes the result
    ema: Share = 0.0

    # the images
    # least and greatest share of the area that is cut out and resized
    resized_crop: tuple[Share, ...] = ()
    # [epoch, pixels]: from that epoch on, the side of the training images
    sizes: tuple[tuple[int, int], ...] = ()
    crop_padding: Pixels = 0  # random crop of the image padded by this many pixels
    crop_mode: Literal["zeros", "reflect"] = "zeros"  # the padding is zero, or mirrors the image
    flip: bool = False  # random horizontal mirror
    # mirror each image in every other epoch, half of them in the first
    flip_alternating: bool = False
    auto_augment: Literal["", "imagenet", "cifar10"] = ""  # the policy learnt on that data set
    # [operations, magnitude]: operations for each image, and their magnitude from 0 to 30
    rand_augment: tuple[int, ...] = ()
    erase: Pixels = 0  # side of a random square set to zero (Cutout)
    random_erase: Share = 0.0  # probability of a random rectangle set to zero
    mixup: Alpha = 0.0  # alpha of the Beta distribution
    cutmix: Alpha = 0.0  # alpha of the Beta distribution

    # the loss
    label_smoothing: Share = 0.0
    # cross entropy of the mean logits, or temporal efficient training on all steps
    loss: Literal["mean", "tet"] = "mean"
    tet_weight: Share = 0.05  # of TET's second term, which pulls logits towards the threshold
    distill: Share = 0.5  # share of the teacher in the loss, where there is one
    temperature: Positive = 4.0  # of teacher and student

    # learn from the worst picture whose pixels differ by at most so many steps of 1/255
    adversarial_eps: Annotated[float, between(0, 127)] = 0.0
    adversarial_steps: Annotated[int, between(1, 100)] = 1  # of the search: FGSM, or more: PGD

    # what makes the network smaller
    prune: Annotated[float, between(0, 0.999)] = 0.0  # share of zeros at the end
    prune_method: Literal["magnitude", "gradr"] = "magnitude"
    # [from, to]: the epochs between which the share grows; none: the first two thirds
    prune_epochs: tuple[Number, ...] = ()
    # what the least weights are chosen among: all, those of a layer, or all by size and SynOps
    prune_scope: Literal["global", "layer", "synops"] = "global"
    weight_bits: Literal[0, 1, 8] = 0  # of the weights that are computed with; 0: all
    # what a scale of 8 bits is of: an output channel, or a layer, as Speck wants it
    weight_scale: Literal["channel", "layer"] = "channel"
    # weight in the loss of the SynOps, or of the spikes, as shares of those that could be
    synops_weight: Number = 0.0
    spikes_weight: Number = 0.0

    # the computation
    # parts of the network that keep their initial weights, as stem or stage1.block0
    freeze: tuple[str, ...] = ()
    # [epoch, steps]: from that epoch on, the time steps T in training
    t_schedule: tuple[tuple[int, int], ...] = ()
    # recompute each block in the backward pass: less memory, a third more time
    checkpointing: bool = False
    # bfloat16 autocast, with membranes in float32; auto: if the device computes in it
    bf16: bool | Literal["auto"] = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, holds, what in self._conditions():
            if not holds:
                raise ConfigError(f"{key} = {shown(getattr(self, key))} must be {what}")
        chosen = (self.prune_epochs, self.prune_method, self.prune_scope)
        if not self.prune and chosen != ((), "magnitude", "global"):
            raise ConfigError(
                "prune_epochs, prune_method and prune_scope need prune: set it too, as 0.9"
            )
        if not self.adversarial_eps and self.adversarial_steps != 1:
            raise ConfigError("adversarial_steps need adversarial_eps: set it too, as 4")
        if self.prune_method == "gradr" and self.prune_scope == "synops":
            raise ConfigError("Grad R chooses by theta alone: set prune_scope to global or layer")
        if self.weight_scale == "layer" and self.weight_bits != 8:
            raise ConfigError('weight_scale = "layer" is for 8 bits: set weight_bits=8 too')
        if self.checkpointing and (self.synops_weight or self.spikes_weight):
            raise ConfigError(
                "checkpointing keeps no spikes that a loss could pay for: set it to false, or "
                "synops_weight and spikes_weight to 0"
            )
        if self.flip and self.flip_alternating:
            raise ConfigError(
                "flip and flip_alternating exclude each other: "
                "set one of them to false (of shards: the latter)"
            )

    def _conditions(self) -> Iterator[tuple[str, bool, str]]:
        """Yield lists that may be empty, whether they are valid, and what they must be."""
        match self.resized_crop:
            case () | (float(), float()):
                low, high = self.resized_crop or (1, 1)
                yield "resized_crop", 0 < low <= high <= 1, "[least, greatest] share of the area"
            case _:
                yield "resized_crop", False, "[least, greatest] share of the area"
        match self.rand_augment:
            case () | (int(), int()):
                operations, magnitude = self.rand_augment or (1, 1)
                valid = operations > 0 <= magnitude <= 30
                yield "rand_augment", valid, "[operations, magnitude from 0 to 30]"
            case _:
                yield "rand_augment", False, "[operations, magnitude from 0 to 30]"
        match self.prune_epochs:
            case () | (float() | int(), float() | int()):
                first, last = self.pruned_epochs
                valid = first < last <= self.epochs
                what = f"[from, to], rising, of the {self.epochs} epochs of the training"
                yield "prune_epochs", valid, what
            case _:
                yield "prune_epochs", False, "[from, to], epochs of the training"
        for key, what in (("t_schedule", "T"), ("sizes", "pixels")):
            pairs = getattr(self, key)
            starts = [epoch for epoch, _ in pairs]
            rising = starts == sorted(set(starts)) and starts[:1] in ([], [0])
            valid = rising and all(value > 0 for _, value in pairs)
            yield key, valid, f"[[0, {what}], [epoch, {what}], ...], epochs rising, {what} above 0"

    @classmethod
    def load(cls, dataset: str, overrides: dict[str, str] | None = None) -> "Recipe":
        """Return the recipe of a data set, with overrides whose values are as TOML writes them.

        Raises `ConfigError` for a data set without one, and as `from_dict` does.
        """
        if dataset not in recipes():
            raise ConfigError(
                f"recipe: none for data set {dataset!r}; "
                f"there are recipes for {', '.join(recipes())}"
            )
        return cls._overridden(_read(dataset), overrides)

    @classmethod
    def own(cls, fitting: dict[str, Any], overrides: dict[str, str] | None = None) -> "Recipe":
        """Return the recipe of own data: `own.toml` with values that fit them, and overrides."""
        return cls._overridden(_read("own") | fitting, overrides)

    @classmethod
    def _overridden(cls, values: dict[str, Any], overrides: dict[str, str] | None) -> "Recipe":
        for key, text in (overrides or {}).items():
            values[key] = parse_value(text)
        return cls.from_dict(values)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """Return the recipe of these values.

        Raises `ConfigError` for a key that does not exist, naming the nearest, for one that is
        missing, and for a value that cannot be.
        """
        return read_record(cls, values, "recipe")

    def to_dict(self) -> dict[str, Any]:
        """Return the value of each key."""
        return asdict(self)

    @property
    def evaluated(self) -> str:
        """Return what the accuracy is measured on: `test`, or the `validation` share of `train`."""
        return "validation" if self.validation else "test"

    @property
    def pruned_epochs(self) -> tuple[float, float]:
        """Return the epochs between which the share of zeros grows."""
        first, last = self.prune_epochs or (0.0, 2 * self.epochs / 3)
        return first, last

    def steps_at(self, epoch: int, steps: int) -> int:
        """Return the time steps T in an epoch, for a network of `steps` time steps."""
        return _at(self.t_schedule, epoch, steps)

    def size_at(self, epoch: int, size: int) -> int:
        """Return the pixels a side of training images in an epoch, for a data set of `size`."""
        return _at(self.sizes, epoch, size)


def _read(name: str) -> dict[str, Any]:
    """Return the values of a recipe's file, on top of the file that its key `inherits` names."""
    values = read_toml(RECIPES / f"{name}.toml", "a recipe")
    base = values.pop("inherits", None)
    return (_read(base) if base else {}) | values


def _at(schedule: tuple[tuple[int, int], ...], epoch: int, default: int) -> int:
    """Return the value of the last entry that starts at `epoch` or before."""
    return next((value for start, value in reversed(schedule) if start <= epoch), default)


def parse_value(text: str) -> Any:
    """Return a value that is written as in TOML, lists as tuples.

    Anything else is a string, which needs no quotes here.
    """
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return _tuple(parsed["value"]) if len(parsed) == 1 else text


def _tuple(value: Any) -> Any:
    return tuple(map(_tuple, value)) if isinstance(value, list) else value
