"""Model folders in Hub layout: `config.json` and `model.safetensors` (one file, or shards with an index). Nothing is unpickled.

`config.json`: `{"format": 1, "name": ..., "model": {DANetConfig}, "data": {DatasetSpec}}`.
"""

import json
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.danet import DANet, DANetConfig
from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, WeightsError
from zoo.integrity import beside, sha256, write_whole
from zoo.names import FileSpec, Origin

__all__ = ["CONFIG", "INDEX", "SINGLE", "read_model", "shard_names", "write_model"]

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
LARGEST = 2**26  # bytes of JSON: an index of a million tensors
PORTION = 2**25  # bytes of a file that are mapped at a time


def read_model(folder: Path) -> DANet:
    """The model of a folder, built without a random number drawn. Raises `WeightsError` naming the file or key that is wrong."""
    values = _read_json(folder / CONFIG)
    try:
        config, data = DANetConfig.from_dict(values["model"]), DatasetSpec.from_dict(values["data"])
        name = str(values["name"])
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder / CONFIG} lacks {error}: expected the keys name, model and data") from None
    except ConfigError as error:
        raise WeightsError(f"{folder / CONFIG}: {error}") from None
    if not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):  # exports are named after it
        raise WeightsError(f"{folder / CONFIG}: name {name[:100]!r} is not one of letters, digits, '.', '_' and '-'")
    with torch.device("meta"):
        model = DANet(config)
    files, modules, expected = _weight_files(folder), dict(model.named_modules()), model.state_dict()
    missing = dict.fromkeys(expected)
    for path, key, tensor in _read_tensors(files):
        if key not in expected:
            raise WeightsError(f"{path}: unexpected key {key!r}; the model has none of that name")
        if tensor.shape != expected[key].shape:
            raise WeightsError(f"{path}: {key} has shape {list(tensor.shape)}, expected {list(expected[key].shape)}")
        # As `load_state_dict(assign=True)`, in an eighth of its time. A view of the file would keep all of its mapping in memory:
        # of a large tensor that needs no conversion it may, of the many small ones not.
        owner, _, held = key.rpartition(".")
        tensor = tensor.to(expected[key].dtype, copy=tensor.dim() < 2)
        if held in modules[owner]._parameters:
            modules[owner]._parameters[held] = nn.Parameter(tensor)
        else:
            modules[owner]._buffers[held] = tensor
        missing.pop(key, None)
    if missing:
        raise WeightsError(f"{folder}: {len(missing)} of {len(expected)} tensors are missing, the first is {next(iter(missing))}")
    model.origin = Origin(name, data, tuple(files))
    return model.eval()


def write_model(folder: Path, model: DANet, *, name: str, data: DatasetSpec, half: bool = True) -> dict[str, FileSpec]:
    """Write `config.json` and `model.safetensors` (weights of two or more dimensions as float16 if `half`)."""
    config = {"format": 1, "name": name, "model": model.config.to_dict(), "data": data.to_dict()}
    write_whole(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    tensors = {key: (t.half() if half and t.dim() > 1 else t).contiguous() for key, t in model.state_dict().items()}
    with beside(folder / SINGLE) as file:
        save_file(tensors, file, metadata={"format": "pt"})
    return {file: FileSpec(sha256(folder / file), (folder / file).stat().st_size) for file in (CONFIG, SINGLE)}


def shard_names(index: Path) -> list[str]:
    """The files among which an index divides the weights. Raises `WeightsError` for names that could leave the folder."""
    shards = _read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(map(_is_shard, shards.values())):
        raise WeightsError(f"{index}: weight_map must map tensors to safetensors file names in the same folder")
    return sorted(set(shards.values()))


def _weight_files(folder: Path) -> list[Path]:
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if not (folder / INDEX).is_file():
        raise WeightsError(f"{folder} holds neither {SINGLE} nor {INDEX}")
    return [folder / shard for shard in shard_names(folder / INDEX)]


def _is_shard(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")


def _read_tensors(files: list[Path]) -> Iterator[tuple[Path, str, Tensor]]:
    """What was touched of a mapped file stays in memory as long as the mapping, so now and then it is made anew."""
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
            raise WeightsError(f"{path} is larger than {LARGEST >> 20} MiB: it cannot be what its name says")
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds no JSON object")
    return values
