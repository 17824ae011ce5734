"""A training recipe: data, not code. `recipes/*.toml` holds one for each data set."""

import difflib
import math
import tomllib
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from typing import Any, ClassVar, Literal, Union, get_args, get_origin

from zoo.errors import ConfigError

__all__ = ["Recipe", "parse_value", "recipes"]


MAX_NUMBER = 1e300  # a number beyond is taken for infinite
MAX_SHOWN = 200  # characters of a value in a message
RECIPES = files("zoo.training") / "recipes"


def recipes() -> list[str]:
    """Return the tags of the data sets that there are recipes for.

    A file without the key `dataset` serves others to inherit from.
    """
    files = sorted(path.name for path in RECIPES.iterdir() if path.name.endswith(".toml"))
    names = [file.removesuffix(".toml") for file in files]
    return [name for name in names if "dataset" in _read(name)]


@dataclass(frozen=True)
class Recipe:
    """The values that decide a training by SGD with Nesterov momentum.

    The learning rate warms up linearly, then falls to zero along a cosine or a line. Images are
    augmented in this order: `resized_crop`, the policies, `sizes`, `crop_padding`, `flip` or
    `flip_alternating`, `erase`, `random_erase`, and for the batch `mixup` or `cutmix`. A value of
    zero or an empty one turns its method off. Raises `ConfigError` for a value that cannot be.
    """

    # the data
    dataset: str
    epochs: int
    source: str = ""  # a folder, or a hub id `org/name`
    images: int = 0  # in the training split; needed only where they cannot be counted (shards)
    # share of the training images that is held out and evaluated instead of the test split
    validation: float = 0.0
    batch_size: int = 128  # over all processes together

    # the optimiser
    lr: float = 0.1  # peak of the learning rate
    warmup_epochs: float = 1.0
    schedule: Literal["cosine", "linear"] = "cosine"  # of the learning rate after the warm-up
    momentum: float = 0.9
    weight_decay: float = 5e-4  # not on normalisation, bias or neuron parameters
    clip: float = 0.0  # greatest norm of the gradient of all parameters together
    norm_bias_rate: float = 1.0  # factor on the rate of the biases of BatchNorm
    # initialise the first convolution so that its outputs are decorrelated
    whiten: bool = False
    # decay per step of an average of weights and BatchNorm statistics, which becomes the result
    ema: float = 0.0

    # the images
    # least and greatest share of the area that is cut out and resized
    resized_crop: tuple[float, ...] = ()
    # [epoch, pixels]: from that epoch on, the side of the training images
    sizes: tuple[tuple[int, int], ...] = ()
    crop_padding: int = 0  # random crop of the image padded by this many pixels
    crop_mode: Literal["zeros", "reflect"] = "zeros"  # the padding is zero, or mirrors the image
    flip: bool = False  # random horizontal mirror
    # mirror each image in every other epoch, half of them in the first
    flip_alternating: bool = False
    auto_augment: Literal["", "imagenet", "cifar10"] = ""  # the policy learnt on that data set
    # [operations, magnitude]: operations for each image, and their magnitude from 0 to 30
    rand_augment: tuple[int, ...] = ()
    erase: int = 0  # side of a random square set to zero (Cutout)
    random_erase: float = 0.0  # probability of a random rectangle set to zero
    mixup: float = 0.0  # alpha of the Beta distribution
    cutmix: float = 0.0  # alpha of the Beta distribution

    # the loss
    label_smoothing: float = 0.0
    # cross entropy of the mean logits, or temporal efficient training on all steps
    loss: Literal["mean", "tet"] = "mean"
    tet_weight: float = 0.05  # of TET's second term, which pulls logits towards the threshold
    distill: float = 0.5  # share of the teacher in the loss, where there is one
    temperature: float = 4.0  # of teacher and student

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

    # The least and the greatest value of a key; math.ulp(0) is the least number above 0.
    LIMITS: ClassVar[dict[str, tuple[float, float]]] = {
        "epochs": (1, math.inf), "images": (0, math.inf), "validation": (0, 0.9),
        "batch_size": (1, math.inf), "lr": (math.ulp(0), math.inf),
        "warmup_epochs": (0, math.inf), "momentum": (math.ulp(0), 1),
        "weight_decay": (0, math.inf), "clip": (0, math.inf),
        "norm_bias_rate": (math.ulp(0), 1000), "ema": (0, 1),
        "crop_padding": (0, 4096), "erase": (0, 4096), "random_erase": (0, 1),
        "mixup": (0, 100), "cutmix": (0, 100),
        "label_smoothing": (0, 1), "tet_weight": (0, 1),
        "distill": (0, 1), "temperature": (math.ulp(0), math.inf),
    }  # fmt: skip

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not _fits(value, field.type):
                raise ConfigError(
                    f"recipe: {field.name} = {_shown(value)} is not {_described(field.type)}"
                )
            low, high = self.LIMITS.get(field.name, (-math.inf, math.inf))
            if isinstance(value, int | float) and not max(low, -MAX_NUMBER) <= value <= min(
                high, MAX_NUMBER
            ):
                bounds = (
                    "above 0"
                    if low == math.ulp(0)
                    else f"at least {low:g}"
                    if high == math.inf
                    else f"from {low:g} to {high:g}"
                )
                finite = ", and finite" if value > MAX_NUMBER else ""
                raise ConfigError(
                    f"recipe: {field.name} = {_shown(value)} must be {bounds}{finite}"
                )
        if self.resized_crop and not (
            len(self.resized_crop) == 2 and 0 < self.resized_crop[0] <= self.resized_crop[1] <= 1
        ):
            raise ConfigError(
                f"recipe: resized_crop = {_shown(self.resized_crop)} "
                "must be [least, greatest] share of the area"
            )
        if self.rand_augment and not (
            len(self.rand_augment) == 2 and self.rand_augment[0] > 0 <= self.rand_augment[1] <= 30
        ):
            raise ConfigError(
                f"recipe: rand_augment = {_shown(self.rand_augment)} "
                "must be [operations, magnitude from 0 to 30]"
            )
        for key, what in (("t_schedule", "T"), ("sizes", "pixels")):
            pairs = getattr(self, key)
            starts = [pair[0] for pair in pairs if len(pair) == 2 and pair[1] > 0]
            if (
                len(starts) < len(pairs)
                or starts != sorted(set(starts))
                or starts[:1] not in ([], [0])
            ):
                raise ConfigError(
                    f"recipe: {key} = {_shown(pairs)} must be [[0, {what}], [epoch, {what}], "
                    f"...], epochs rising, {what} above 0"
                )
        if self.flip and self.flip_alternating:
            raise ConfigError(
                "recipe: flip and flip_alternating exclude each other: "
                "set one of them to false (of shards: the latter)"
            )

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
        valid = [f.name for f in fields(cls)]
        for key in values:
            if key not in valid:
                near = difflib.get_close_matches(key, valid, 1, cutoff=0.6)
                hint = f"did you mean {near[0]}? " if near else ""
                raise ConfigError(
                    f"recipe: unknown key {key!r}; {hint}valid are {', '.join(valid)}"
                )
        for key in ("dataset", "epochs"):
            if key not in values:
                raise ConfigError(f"recipe: {key} is missing")
        return cls(**{key: _tuple(value) for key, value in values.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return the value of each key."""
        return asdict(self)

    @property
    def evaluated(self) -> str:
        """Return what the accuracy is measured on: `test`, or the `validation` share of `train`."""
        return "validation" if self.validation else "test"

    def steps_at(self, epoch: int, steps: int) -> int:
        """Return the time steps T in an epoch, for a network of `steps` time steps."""
        return _at(self.t_schedule, epoch, steps)

    def size_at(self, epoch: int, size: int) -> int:
        """Return the pixels a side of training images in an epoch, for a data set of `size`."""
        return _at(self.sizes, epoch, size)


def _read(name: str) -> dict[str, Any]:
    """Return the values of a recipe's file, on top of the file that its key `inherits` names."""
    values = tomllib.loads((RECIPES / f"{name}.toml").read_text(encoding="utf-8"))
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


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) is Union:
        return any(_fits(value, option) for option in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind)
    if get_origin(kind) is tuple:
        item = get_args(kind)[0]
        return isinstance(value, tuple) and all(_fits(v, item) for v in value)
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    return isinstance(value, int | float if kind is float else kind)


def _described(kind: Any) -> str:
    if get_origin(kind) is Union:
        return " or ".join(map(_described, get_args(kind)))
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    return f"of type {kind if get_origin(kind) else kind.__name__}".replace("tuple", "list")


def _shown(value: Any) -> str:
    """Return a value as TOML writes it, cut where it is long."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_shown, value)) + "]"
    # Python refuses to write such a number in decimals.
    huge = isinstance(value, int) and value.bit_length() > 1000
    text = hex(value) if huge else repr(value)
    return text if len(text) < MAX_SHOWN else text[:80] + "..."
