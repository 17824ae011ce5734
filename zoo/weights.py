"""Model folders in the layout of `zoo.layout`: read, write and save. Nothing is unpickled."""

import json
import re
import shutil
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.configuration import configuration_of
from zoo.danet import WRAPPER_PREFIX, DANet, DANetConfig
from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, WeightsError, one_line
from zoo.files import read_json, replacing
from zoo.integrity import sha256
from zoo.layout import CONFIG_FILE, INDEX_FILE, WEIGHTS_FILE, weight_files
from zoo.manifest import FileSpec
from zoo.names import GRAMMAR
from zoo.provenance import RECORD_FILES, Origin
from zoo.records import Line, read_value, shown

__all__ = ["read_model", "save_model", "write_model"]

FORMAT = 1  # of config.json
MAX_MAPPED_BYTES = 2**25  # of a file of weights, before it is mapped anew
NAME = re.compile(r"\w[\w.-]{0,99}", re.ASCII)  # exports are named after the model


def read_model(folder: Path) -> DANet:
    """Return the model of a folder in eval mode, built without a random number drawn.

    Raises `WeightsError` naming the file or key that is wrong.
    """
    if folder.is_dir() and not (folder / CONFIG_FILE).exists():
        if (folder / "model" / CONFIG_FILE).is_file():
            inside = folder / "model"
            raise WeightsError(f"{folder} is the folder of a run: its model lies in {inside}")
        raise WeightsError(f"{folder} is no model folder: it has no {CONFIG_FILE}")
    name, config, data = _read_config(folder)
    files = weight_files(folder)
    with torch.device("meta"):
        model = DANet(config)
    _load_tensors(model, folder, files)
    model.origin = Origin(name, data, tuple(files))
    return model.eval()


def _load_tensors(model: DANet, folder: Path, files: list[Path]) -> None:
    """Give a model on the meta device the tensors of `files`.

    This is `load_state_dict(assign=True)` in an eighth of its time. Raises `WeightsError` for a
    tensor that is missing, unexpected, there twice, or of another shape.
    """
    modules, expected = dict(model.named_modules()), model.state_dict()
    missing = dict.fromkeys(expected)
    for path, stored_key, tensor in _read_tensors(files):
        key = WRAPPER_PREFIX.sub("", stored_key)
        if key not in expected:
            raise WeightsError(
                f"{path}: unexpected key {stored_key!r}; the model has none of that name"
            )
        if key not in missing:
            raise WeightsError(f"{path}: key {stored_key!r} is there twice")
        shape = expected[key].shape
        if tensor.shape != shape:
            raise WeightsError(
                f"{path}: {key} has shape {list(tensor.shape)}, expected {list(shape)}"
            )
        # A view of the file would keep all of its mapping in memory. A large tensor that needs no
        # conversion may be one; the many small ones are copied.
        tensor = tensor.to(expected[key].dtype, copy=tensor.dim() < 2)
        owner, _, attribute = key.rpartition(".")
        if attribute in modules[owner]._parameters:
            modules[owner]._parameters[attribute] = nn.Parameter(tensor)
        else:
            modules[owner]._buffers[attribute] = tensor
        del missing[key]
    if missing:
        raise WeightsError(
            f"{folder}: {len(missing)} of {len(expected)} tensors are missing, "
            f"the first is {next(iter(missing))}"
        )


def _read_tensors(files: list[Path]) -> Iterator[tuple[Path, str, Tensor]]:
    """Yield file, key and tensor of all that `files` hold.

    What was touched of a mapped file stays in memory as long as the mapping, so a file is mapped
    anew after every `MAX_MAPPED_BYTES`.
    """
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                keys = deque(file.keys())
            while keys:
                mapped = 0
                with safe_open(path, framework="pt") as file:
                    while keys and mapped < MAX_MAPPED_BYTES:
                        tensor = file.get_tensor(keys[0])
                        mapped += tensor.nbytes
                        yield path, keys.popleft(), tensor
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"{path} is not a whole safetensors file: {one_line(error)}"
            ) from None


def _read_config(folder: Path) -> tuple[str, DANetConfig, DatasetSpec]:
    """Return name, network and data of a model folder.

    Raises `WeightsError` for a file that does not say them, or contradicts itself.
    """
    path = folder / CONFIG_FILE
    values = read_json(path, WeightsError)
    for key in (keys := ("format", "name", "model", "data")):
        if key not in values:
            raise WeightsError(
                f"{path} is of no model folder of the zoo: it lacks {key!r}, "
                f"one of the keys {', '.join(keys)}"
            )
    if (number := values["format"]) != FORMAT:
        raise WeightsError(
            f"{path}: format = {shown(number)}, but this zoo reads format {FORMAT}: "
            "load it with the version of the zoo that wrote it"
        )
    try:
        name = read_value(Line, values["name"], "name")
        config, data = DANetConfig.from_dict(values["model"]), DatasetSpec.from_dict(values["data"])
        _check_together(name, config, data)
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from None
    return name, config, data


def _check_together(name: str, config: DANetConfig, data: DatasetSpec) -> None:
    """Raise `ConfigError` for name, network and data that one model folder cannot hold."""
    if (data.channels, data.num_classes) != (config.in_channels, config.num_classes):
        raise ConfigError(
            f"a model of {config.in_channels} channels and {config.num_classes} classes "
            f"for data of {data.channels} channels and {data.num_classes} classes"
        )
    if not NAME.fullmatch(name):
        raise ConfigError(f"name {name[:100]!r} is not one of letters, digits, '.', '_' and '-'")
    match = GRAMMAR.fullmatch(name)
    if match and int(match["steps"]) != config.steps:
        raise ConfigError(
            f"name {name!r} says T = {match['steps']}, but the network has steps = {config.steps}: "
            "give it another name, or the steps of its name"
        )


def write_model(
    folder: Path, model: DANet, *, name: str, data: DatasetSpec, half: bool = True
) -> dict[str, FileSpec]:
    """Write `config.json` and `model.safetensors`, and return the sha256 and size of each.

    Weights of two or more dimensions are float16 if `half`. The configuration follows the modules
    where it can: as many classes as the head tells, and the time steps that were set. Surrogate
    gradients are not stored. Raises `WeightsError`, and writes nothing, for a network of other
    spikes than a configuration builds, as one with another kind of neuron, and `ConfigError` for a
    name or data that do not fit it.
    """
    config = configuration_of(model)
    data = data.with_classes(config.num_classes)
    _check_together(name, config, data)
    values = {"format": FORMAT, "name": name, "model": config.to_dict(), "data": data.to_dict()}
    tensors = {
        key: (tensor.half() if half and tensor.dim() > 1 else tensor).contiguous()
        for key, tensor in model.state_dict().items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    config_path, weights_path = folder / CONFIG_FILE, folder / WEIGHTS_FILE
    # Both blocks end after both files are whole, so that an error leaves both as they were.
    with replacing(config_path) as config_file, replacing(weights_path) as weights_file:
        config_file.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, weights_file, metadata={"format": "pt"})
        written = {CONFIG_FILE: config_file, WEIGHTS_FILE: weights_file}
        return {file: FileSpec(sha256(path), path.stat().st_size) for file, path in written.items()}


def save_model(
    folder: Path, model: DANet, *, name: str | None = None, data: DatasetSpec | None = None
) -> Origin:
    """Write a model folder of exact weights, and return the origin of a model read from it.

    Weights are float16 where that rounds none. `name` and `data` are the origin's unless given.
    Where the model is what the folder of its origin holds, the record of its training is copied
    too. Raises what `write_model` raises, `ConfigError` for a model without name or data, and
    `WeightsError` for a folder that holds a record of other weights.
    """
    config = configuration_of(model)
    if model.origin is not None:
        origin = model.origin.with_classes(config.num_classes)
        name, data = name or origin.name, data or origin.data
    if name is None or data is None:
        raise ConfigError(
            "this network has neither a name nor data: give both, as in "
            "model.save(folder, name=..., data=...)"
        )
    _check_together(name, config, data)
    source = _folder_of(model, name, config, data)
    in_place = source is not None and folder.resolve() == source.resolve()
    if not in_place:
        _check_no_record(folder)
    matrices = [tensor for tensor in model.state_dict().values() if tensor.dim() > 1]
    half = all(torch.equal(tensor.half().to(tensor.dtype), tensor) for tensor in matrices)
    write_model(folder, model, name=name, data=data, half=half)
    for file in RECORD_FILES:
        if source is not None and not in_place and (source / file).is_file():
            with replacing(folder / file) as copy:
                shutil.copyfile(source / file, copy)
    return Origin(name, data, (folder / WEIGHTS_FILE,))


def _folder_of(model: DANet, name: str, config: DANetConfig, data: DatasetSpec) -> Path | None:
    """Return the folder that the model was read from, if it holds exactly this model.

    A folder that cannot be read holds nothing.
    """
    files = model.origin.weights if model.origin else ()
    if not files:
        return None
    folder, remaining = files[0].parent, model.state_dict()
    with suppress(WeightsError):
        if _read_config(folder) != (name, config, data):
            return None
        for _, key, stored in _read_tensors([*files]):
            tensor = remaining.pop(WRAPPER_PREFIX.sub("", key), None)
            if tensor is None or not torch.equal(tensor.cpu().double(), stored.double()):
                return None
        return None if remaining else folder
    return None


def _check_no_record(folder: Path) -> None:
    """Raise `WeightsError` for what is no folder, or holds files that speak of other weights."""
    if folder.exists() and not folder.is_dir():
        raise WeightsError(f"{folder} is a file: a model is saved to a folder")
    for file in (*RECORD_FILES, INDEX_FILE):
        if (folder / file).exists():
            raise WeightsError(
                f"{folder} holds {file}, which is about other weights: save to another folder"
            )
