"""A training recipe: data, not code. `recipes/*.toml` holds one for each data set."""

import tomllib
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from typing import Any

from zoo.errors import ConfigError

__all__ = ["Recipe", "recipes"]


RECIPES = files("zoo.training") / "recipes"


def recipes() -> list[str]:
    """The data sets that there are recipes for."""
    return sorted(path.name.removesuffix(".toml") for path in RECIPES.iterdir() if path.name.endswith(".toml"))


@dataclass(frozen=True)
class Recipe:
    """SGD with Nesterov momentum; the rate warms up linearly, then falls along a cosine to zero."""

    dataset: str
    epochs: int
    batch_size: int = 128
    lr: float = 0.1  # at its peak
    warmup_epochs: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4  # not on normalisation, bias or neuron parameters
    label_smoothing: float = 0.0
    crop_padding: int = 0  # random crop of the image padded by this many zeros
    flip: bool = False  # random horizontal mirror
    erase: int = 0  # side of a random square set to zero; 0 erases nothing
    bf16: bool = False  # bfloat16 autocast; membranes stay float32
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            wanted = {"int": int, "float": int | float, "bool": bool, "str": str}[str(getattr(field.type, "__name__", field.type))]
            if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
                raise ConfigError(f"recipe: {field.name} = {value!r} is not of type {getattr(field.type, '__name__', field.type)}")
        for name in ("epochs", "batch_size", "lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"recipe: {name} = {getattr(self, name)} must be above 0")

    @classmethod
    def load(cls, dataset: str, overrides: dict[str, str] | None = None) -> "Recipe":
        """The recipe of a data set, with `--set key=value` overrides (values as TOML writes them)."""
        if dataset not in recipes():
            raise ConfigError(f"no recipe for data set {dataset!r}; there are recipes for {', '.join(recipes())}")
        values: dict[str, Any] = tomllib.loads((RECIPES / f"{dataset}.toml").read_text(encoding="utf-8"))
        for key, text in (overrides or {}).items():
            try:
                values[key] = tomllib.loads(f"value = {text}")["value"]
            except tomllib.TOMLDecodeError:
                values[key] = text
        unknown = sorted(set(values) - {f.name for f in fields(cls)})
        if unknown:
            raise ConfigError(f"recipe: unknown key {unknown[0]!r}; valid are {', '.join(f.name for f in fields(cls))}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
