"""The files of a model folder. Imports no torch.

    config.json          {"format": 1, "name": ..., "model": DANetConfig, "data": DatasetSpec}
    model.safetensors    the weights in one file, or instead of it:
    model.safetensors.index.json    {"weight_map": {tensor: shard}}, with the shards beside it

`zoo.weights` reads and writes them.
"""

import json
from pathlib import Path
from typing import Any

from zoo.errors import WeightsError

__all__ = [
    "CONFIG_FILE",
    "INDEX_FILE",
    "WEIGHTS_FILE",
    "read_json",
    "shard_names",
    "weight_files",
]

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_JSON_BYTES = 2**26  # an index of a million tensors


def weight_files(folder: Path) -> list[Path]:
    """List the files that hold the weights of a model folder.

    Raises `WeightsError` if there are none.
    """
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if not (folder / INDEX_FILE).is_file():
        raise WeightsError(f"{folder} holds neither {WEIGHTS_FILE} nor {INDEX_FILE}")
    return [folder / shard for shard in shard_names(folder / INDEX_FILE)]


def shard_names(index: Path) -> list[str]:
    """Return the names of the files among which an index divides the weights.

    Raises `WeightsError` for names that could leave the folder.
    """
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(map(_is_shard, shards.values())):
        raise WeightsError(
            f"{index}: weight_map must map tensors to safetensors file names in the same folder"
        )
    return sorted(set(shards.values()))


def _is_shard(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of the folder. Raises `WeightsError` for anything else."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise WeightsError(
                f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB: it cannot be what its name says"
            )
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise WeightsError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise WeightsError(f"{path} holds no JSON object")
    return values
