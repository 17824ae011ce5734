"""The files of a model folder. Imports no torch.

    config.json          {"format": 1, "name": ..., "model": DANetConfig, "data": DatasetSpec};
                         T of the name is that of the network
    model.safetensors    the weights in one file, or instead of it:
    model.safetensors.index.json    {"weight_map": {tensor: shard}}, with the shards beside it

`zoo.weights` reads and writes them.
"""

from pathlib import Path

from zoo.errors import WeightsError
from zoo.files import read_json

__all__ = [
    "CONFIG_FILE",
    "INDEX_FILE",
    "WEIGHTS_FILE",
    "shard_names",
    "weight_files",
]

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


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
    shards = read_json(index, WeightsError).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(map(_is_shard, shards.values())):
        raise WeightsError(
            f"{index}: weight_map must map tensors to safetensors file names in the same folder"
        )
    return sorted(set(shards.values()))


def _is_shard(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")
