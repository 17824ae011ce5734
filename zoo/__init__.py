"""A zoo of deep spiking residual networks: `zoo.load("danet20-t4")` is a trained one.

    list_models()      the names of all models
    info(name)         configuration, data, weights and measurements of one
    load(name)         a model with its weights, in eval mode
    create(name)       the same architecture with random weights
    features(model, x) the spikes of its layers, and how often they fire
    from_nir(path)     any NIR graph as a network of snnTorch neurons, to run and to train

Importing `zoo` does not import torch; the first `load`, `create` or `from_nir` does.
"""

from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import hub
from zoo.datasets import DatasetSpec
from zoo.errors import (
    ConfigError,
    ExportError,
    HubError,
    InputError,
    UnknownName,
    VerificationError,
    WeightsError,
    ZooError,
)
from zoo.manifest import WeightsSpec, read_manifest
from zoo.names import ModelSpec, architectures, as_name
from zoo.provenance import RANDOM, UNKNOWN, Origin, provenance_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nir import NIRGraph
    from torch import Tensor

    from export.nir.network import NirNetwork
    from zoo.activity import LayerSpikes
    from zoo.danet import DANet

__version__ = "0.1.0"
__all__ = [
    "ConfigError",
    "ExportError",
    "HubError",
    "InputError",
    "ModelInfo",
    "UnknownName",
    "VerificationError",
    "WeightsError",
    "ZooError",
    "create",
    "features",
    "from_nir",
    "info",
    "list_models",
    "load",
]


@dataclass(frozen=True)
class ModelInfo:
    """The meaning of a model's name, and what its weights are worth if they exist."""

    name: str
    config: dict[str, Any]  # fields of `DANetConfig`
    data: DatasetSpec
    weights: WeightsSpec | None
    provenance: str = RANDOM  # of the weights: trained, converted, random or unknown


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """List the names of all architectures at T = 4, or of all trained weights if `pretrained`.

    `pattern` is a shell wildcard. Any other T may be asked for too.
    """
    names = list(read_manifest().weights) if pretrained else architectures()
    return [name for name in names if fnmatch(name, pattern)]


def info(name: str | Path) -> ModelInfo:
    """Return what is known of a name, a local model folder, or `hf:org/repo[@revision]`.

    Raises `UnknownName` for a name that means nothing, `WeightsError` for a folder that holds no
    model.
    """
    name = as_name(name)
    if hub.is_location(name):
        return _folder_info(hub.resolve(name))
    spec = ModelSpec.parse(name).resolved()
    config, weights = spec.config(spec.data), read_manifest().weights.get(spec.name)
    if weights is None:
        return ModelInfo(spec.name, config, spec.data, None)
    return ModelInfo(spec.name, config, weights.data, weights, weights.provenance)


def _folder_info(folder: Path) -> ModelInfo:
    from zoo.publishing.entry import describe
    from zoo.weights import read_model

    model = read_model(folder)
    origin = model.known_origin
    provenance = provenance_of(origin)
    weights = None if provenance == UNKNOWN else describe(folder)
    return ModelInfo(origin.name, model.config.to_dict(), origin.data, weights, provenance)


def load(
    name: str | Path,
    *,
    num_classes: int | None = None,
    pretrained: bool = True,
    revision: str | None = None,
    cache_dir: Path | str | None = None,
    offline: bool = False,
    device: str = "cpu",
) -> "DANet":
    """Return a model with its weights, in eval mode.

    `name` is a name of `list_models`, with or without data set, a local model folder, or
    `hf:org/repo[@revision]`, anybody's model in our layout on the Hugging Face Hub.

    Weights that are not part of the installation are downloaded once, verified, and kept in the
    Hub's cache (`cache_dir`, or what `HF_HOME` says); with `offline` nothing is fetched. `revision`
    is a branch, tag or commit, for what the manifest pins otherwise. Where `num_classes` is another
    number than the weights have, the last layer is new and random (`DANet.reset_classifier`).

    Raises `UnknownName`, `ConfigError` for a number of classes that cannot be, `HubError` for what
    the Hub does not give, or `WeightsError` where the weights do not exist or are not what the
    manifest says.
    """
    name = as_name(name)
    if not pretrained:
        model = create(name) if num_classes is None else create(name, num_classes=num_classes)
        return model.eval().to(device)
    from zoo.weights import read_model

    folder = hub.resolve(name, revision=revision, cache_dir=cache_dir, offline=offline)
    model = read_model(folder)
    if num_classes not in (None, model.config.num_classes):
        model.reset_classifier(num_classes)
    return model.to(device)


def create(name: str, *, data: DatasetSpec | None = None, **overrides: Any) -> "DANet":
    """Return the architecture of `name` with random weights, in training mode.

    `overrides` are fields of `DANetConfig`. Another `num_classes` than that of the name's data set
    leaves the classes without names, another `steps` is another T in the name. `data` describes
    images of your own, whose tag then is in the name. Raises `UnknownName`, or `ConfigError` for a
    field that cannot be, or does not fit the images of the data set.
    """
    from zoo.danet import DANet, DANetConfig

    spec = ModelSpec.parse(name, own_data=data is not None)
    if data is None:
        spec = spec.resolved()
        data = spec.data
    elif spec.dataset not in (None, data.tag):
        raise UnknownName(
            f"{name!r} names the data {spec.dataset!r}, and the data given are {data.tag!r}: "
            "give one of them"
        )
    config = DANetConfig.from_dict(spec.config(data) | overrides)
    if config.in_channels != data.channels:
        raise ConfigError(
            f"in_channels = {config.in_channels}, but {data.title} has {data.channels}: "
            "name other data, or build a DANet"
        )
    data = data.with_classes(config.num_classes)
    # random weights are as large as any
    spec = replace(spec, dataset=data.tag, steps=config.steps, smaller="")
    model = DANet(config)
    model.origin = Origin(spec.name, data)
    return model


def features(
    model: "DANet", x: "Tensor", layers: "str | Sequence[str]" = "*"
) -> "dict[str, LayerSpikes]":
    """Return the spikes `[T, B, C, H, W]` and the firing rate of each layer of neurons, by name.

    `x` is an input of the model. `layers` are the names of layers, or patterns such as
    `"stage4.*"`; only their spikes are kept, in a byte each. The model runs once, as in eval mode
    and without gradients, and is left as it was. Raises `InputError` for a pattern that matches no
    layer, and for an input that the model cannot take.
    """
    from zoo.activity import layer_spikes

    return layer_spikes(model, x, layers)


def from_nir(
    source: "Path | str | NIRGraph",
    *,
    dt: float | None = None,
    spike_grad: Any = None,
    shape: tuple[int, ...] | None = None,
) -> "NirNetwork":
    """Return the network that a NIR file or graph describes, whoever wrote it, as snnTorch neurons.

    It takes `x` `[T, B, ...]` and gives `[T, B, ...]`; that of a graph of the zoo also takes still
    images `[B, C, H, W]` and gives logits `[B, K]`. Weights and biases are parameters, gradients
    flow through surrogate spikes (`spike_grad`, a surrogate of snnTorch or the zoo;
    `zoo.surrogates.ATan()` if none is given).

    `dt` is the time step in seconds: by default that of the graph's metadata, or 1e-4 where they
    have none; one that contradicts them is refused. `shape`, without time and batch, is for an
    `Input` that declares none. Raises `InputError` for what is no NIR file, `ExportError` for a
    graph that is not sound.
    """
    from export.nir.network import from_nir

    return from_nir(source, dt=dt, spike_grad=spike_grad, shape=shape)
