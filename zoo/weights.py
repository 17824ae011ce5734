"""Model folders in Hub layout: `config.json` and `model.safetensors` (one file, or shards with an
index). Nothing is unpickled.

`config.json`: `{"format": 1, "name": ..., "model": {DANetConfig}, "data": {DatasetSpec}}`.
"""

import json
import re
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.danet import WRAPPER_PREFIX, DANet, DANetConfig
from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, WeightsError
from zoo.files import replacing
from zoo.integrity import sha256
from zoo.manifest import FileSpec
from zoo.neurons import Lif
from zoo.provenance import RECORD_FILES, Origin

__all__ = [
    "CONFIG",
    "INDEX",
    "SINGLE",
    "read_model",
    "save_model",
    "shard_names",
    "weight_files",
    "write_model",
]

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
LARGEST = 2**26  # bytes of JSON: an index of a million tensors
PORTION = 2**25  # bytes of a file that are mapped at a time


def read_model(folder: Path) -> DANet:
    """The model of a folder, built without a random number drawn. Raises `WeightsError` naming the
    file or key that is wrong.
    """
    if not (folder / CONFIG).exists() and (folder / "model" / CONFIG).is_file():
        raise WeightsError(f"{folder} is the folder of a run: its model lies in {folder / 'model'}")
    name, config, data = _read_config(folder)
    with torch.device("meta"):
        model = DANet(config)
    files, modules, expected = weight_files(folder), dict(model.named_modules()), model.state_dict()
    missing = dict.fromkeys(expected)
    for path, stored, tensor in _read_tensors(files):
        key = WRAPPER_PREFIX.sub("", stored)
        if key not in expected:
            raise WeightsError(
                f"{path}: unexpected key {stored!r}; the model has none of that name"
            )
        if key not in missing:
            raise WeightsError(f"{path}: key {stored!r} is there twice")
        if tensor.shape != expected[key].shape:
            raise WeightsError(
                f"{path}: {key} has shape {list(tensor.shape)}, expected {list(expected[key].shape)}"
            )
        # As `load_state_dict(assign=True)`, in an eighth of its time. A view of the file would keep
        # all of its mapping in memory: of a large tensor that needs no conversion it may, of the
        # many small ones not.
        owner, _, held = key.rpartition(".")
        tensor = tensor.to(expected[key].dtype, copy=tensor.dim() < 2)
        if held in modules[owner]._parameters:
            modules[owner]._parameters[held] = nn.Parameter(tensor)
        else:
            modules[owner]._buffers[held] = tensor
        missing.pop(key, None)
    if missing:
        raise WeightsError(
            f"{folder}: {len(missing)} of {len(expected)} tensors are missing, the first is {next(iter(missing))}"
        )
    model.origin = Origin(name, data, tuple(files))
    return model.eval()


def _read_config(folder: Path) -> tuple[str, DANetConfig, DatasetSpec]:
    """Name, network and data of a model folder. Raises `WeightsError` for a file that does not say
    them, or contradicts itself.
    """
    values = _read_json(folder / CONFIG)
    try:
        config, data = DANetConfig.from_dict(values["model"]), DatasetSpec.from_dict(values["data"])
        name = str(values["name"])
        _check(name, config, data)
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"{folder / CONFIG} lacks {error}: expected the keys name, model and data"
        ) from None
    except ConfigError as error:
        raise WeightsError(f"{folder / CONFIG}: {error}") from None
    return name, config, data


def _check(name: str, config: DANetConfig, data: DatasetSpec) -> None:
    """Raises `ConfigError` for what no model folder holds together."""
    if (data.channels, data.num_classes) != (config.in_channels, config.num_classes):
        takes = f"{config.in_channels} channels and {config.num_classes} classes"
        raise ConfigError(
            f"a model of {takes} for data of {data.channels} channels and {data.num_classes} classes"
        )
    if not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):  # exports are named after it
        raise ConfigError(f"name {name[:100]!r} is not one of letters, digits, '.', '_' and '-'")


def write_model(
    folder: Path, model: DANet, *, name: str, data: DatasetSpec, half: bool = True
) -> dict[str, FileSpec]:
    """Write `config.json` and `model.safetensors` (weights of two or more dimensions as float16 if
    `half`).

    The configuration follows the modules where it can: as many classes as the head tells, and the
    time steps that were set. Raises `WeightsError`, and writes nothing, for a network of other
    spikes than a configuration builds, as one with another kind of neuron, and `ConfigError` for a
    name or data that do not fit it. Surrogate gradients are not stored.
    """
    built = _configuration(model)
    data = data.with_classes(built.num_classes)
    _check(name, built, data)
    config = {"format": 1, "name": name, "model": built.to_dict(), "data": data.to_dict()}
    tensors = {
        key: (t.half() if half and t.dim() > 1 else t).contiguous()
        for key, t in model.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    # neither replaced before both are whole
    with replacing(folder / CONFIG) as config_file, replacing(folder / SINGLE) as weights_file:
        config_file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, weights_file, metadata={"format": "pt"})
        written = {CONFIG: config_file, SINGLE: weights_file}
        return {name: FileSpec(sha256(file), file.stat().st_size) for name, file in written.items()}


def save_model(
    folder: Path, model: DANet, *, name: str | None = None, data: DatasetSpec | None = None
) -> Origin:
    """Write a model folder of exact weights, float16 where that rounds none; returns the origin of
    a model that is read from it.

    `name` and `data` are the origin's unless given. Where the model is what the folder of its
    origin holds, the record of its training is copied too. Raises what `write_model` raises,
    `ConfigError` for a model without name or data, and `WeightsError` for a folder that holds a
    record of other weights.
    """
    config = _configuration(model)
    if model.origin is not None:
        name, data = (
            name or model.origin.name,
            data or model.origin.data.with_classes(config.num_classes),
        )
    if name is None or data is None:
        raise ConfigError(
            "this network has neither a name nor data: give both, as in model.save(folder, name=..., data=...)"
        )
    _check(name, config, data)
    source = _stored_in(model, name, config, data)
    home = source is not None and folder.resolve() == source.resolve()
    if not home:
        _check_unused(folder)
    matrices = [tensor for tensor in model.state_dict().values() if tensor.dim() > 1]
    half = all(torch.equal(tensor.half().to(tensor.dtype), tensor) for tensor in matrices)
    write_model(folder, model, name=name, data=data, half=half)
    for file in RECORD_FILES:
        if source is not None and not home and (source / file).is_file():
            with replacing(folder / file) as copy:
                shutil.copyfile(source / file, copy)
    return Origin(name, data, (folder / SINGLE,))


def _check_unused(folder: Path) -> None:
    """Raises `WeightsError` for what is no folder, and for one with files that would speak of the
    weights that are saved there.
    """
    if folder.exists() and not folder.is_dir():
        raise WeightsError(f"{folder} is a file: a model is saved to a folder")
    for file in (*RECORD_FILES, INDEX):
        if (folder / file).exists():
            raise WeightsError(
                f"{folder} holds {file}, which is about other weights: save to another folder"
            )


def _stored_in(model: DANet, name: str, config: DANetConfig, data: DatasetSpec) -> Path | None:
    """The folder that the model was read from, if it holds exactly this model; what cannot be read
    holds nothing.
    """
    files, state = model.origin.weights if model.origin else (), model.state_dict()
    with suppress(WeightsError):
        if files and _read_config(files[0].parent) == (name, config, data):
            for _, key, tensor in _read_tensors([*files]):
                ours = state.pop(WRAPPER_PREFIX.sub("", key), None)
                if ours is None or not torch.equal(ours.cpu().double(), tensor.double()):
                    return None
            return None if state else files[0].parent
    return None


def _configuration(model: DANet) -> DANetConfig:
    """The configuration that builds a network of the same modules. Raises `WeightsError` for the
    first module that none builds.
    """
    if not isinstance(model, DANet):
        raise WeightsError(
            f"{type(model).__name__} is no DANet: give the network inside, as model.module or model._orig_mod"
        )
    if model.origin and model.origin.precision != "float32":
        raise WeightsError(
            f"weights of precision {model.origin.precision} belong to an export: save the network they were made of"
        )
    classes = getattr(model.head.fc, "out_features", model.config.num_classes)
    config = replace(model.config, num_classes=classes, steps=model.head.readout.steps)
    with torch.device("meta"):
        like = DANet(config)
    found, expected = _described(model), _described(like)
    for path in [*expected, *found]:
        if found.get(path) != expected.get(path):
            raise WeightsError(
                f"{path} is {found.get(path, 'not there')}, where the configuration has {expected.get(path, 'nothing')}: a model "
                "folder cannot say that; put the module back (pruned weights: torch.nn.utils.prune.remove), or keep its state_dict"
            )
    return config


def _described(model: nn.Module) -> dict[str, str]:
    """What each module computes with, and each tensor that belongs to it, by path."""
    modules: dict[str, str] = {}
    for path, module in model.named_modules():
        match module:
            case Lif():
                kind = (
                    ""
                    if module.reset
                    else f" of snntorch's {type(module.neuron).__name__} with an equation of its own"
                )
                modules[path] = f"Lif(steps={module.steps}, reset={module.reset}){kind}"
            case nn.BatchNorm2d():  # whose momentum is a matter of training
                modules[path] = f"{type(module).__name__}({module.num_features}, eps={module.eps})"
            case _:
                modules[path] = f"{type(module).__name__}({module.extra_repr()})"
    return modules | {
        key: f"a tensor of shape {list(tensor.shape)}" for key, tensor in model.state_dict().items()
    }


def shard_names(index: Path) -> list[str]:
    """The files among which an index divides the weights. Raises `WeightsError` for names that
    could leave the folder.
    """
    shards = _read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(map(_is_shard, shards.values())):
        raise WeightsError(
            f"{index}: weight_map must map tensors to safetensors file names in the same folder"
        )
    return sorted(set(shards.values()))


def weight_files(folder: Path) -> list[Path]:
    """List the files that hold the weights of a model folder. Raises `WeightsError` if there are
    none.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        raise WeightsError(f"{folder} holds neither {SINGLE} nor {INDEX}")
    return [folder / shard for shard in shard_names(folder / INDEX)]


def _is_shard(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")


def _read_tensors(files: list[Path]) -> Iterator[tuple[Path, str, Tensor]]:
    """What was touched of a mapped file stays in memory as long as the mapping, so now and then it
    is made anew.
    """
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                keys = deque(file.keys())
            while keys:
                touched = 0
                with safe_open(path, framework="pt") as file:
                    while keys and touched < PORTION:
                        tensor = file.get_tensor(keys[0])
                        touched += tensor.nbytes
                        yield path, keys.popleft(), tensor
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is not a whole safetensors file: {error}") from None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST:
            raise WeightsError(
                f"{path} is larger than {LARGEST >> 20} MiB: it cannot be what its name says"
            )
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds no JSON object")
    return values
