"""An ONNX file of the zoo, read back as a model: the file knows its configuration, its data and every parameter.

The export has folded BatchNorms into convolutions, so the model is in the form in which `export.fold.fold` leaves it.
"""

import json
import re
from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import Tensor, nn

from zoo.danet import DANet, DANetConfig
from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, InputError
from zoo.names import Origin
from zoo.neurons import Lif

__all__ = ["read_onnx"]


def read_onnx(path: Path) -> DANet:
    """The model in a file that `write_onnx` wrote, in eval mode. Raises `InputError` for any other file, naming what it lacks."""
    if not path.is_file():
        raise InputError(f"{path} does not exist: write it with `zoo export NAME --to onnx`")
    try:
        proto = onnx.load(path)
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise InputError(f"{path} is not an ONNX file: {(str(error) or 'it ends early').splitlines()[0]}") from None
    config, origin = _described(path, {entry.key: entry.value for entry in proto.metadata_props})
    with torch.device("meta"):
        model = DANet(config)
    _fill(path, model, proto, config.neuron().state_dict())
    model.origin = origin
    return model.eval()


def _described(path: Path, meta: dict[str, str]) -> tuple[DANetConfig, Origin]:
    try:
        config, data = DANetConfig.from_dict(json.loads(meta["config"])), DatasetSpec.from_dict(json.loads(meta["data"]))
        name = meta["name"]
    except KeyError as error:
        raise InputError(
            f"{path} has no metadata {error}: it is none of the zoo's, or an old one; write it with `zoo export NAME --to onnx`"
        ) from None
    except (ValueError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise InputError(f"{path} has metadata of no network: {(str(error) or type(error).__name__).splitlines()[0]}") from None
    if not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):  # reports are named after it
        raise InputError(f"{path}: name {name[:100]!r} is not one of letters, digits, '.', '_' and '-'")
    return config, Origin(name, data)


def _fill(path: Path, model: DANet, proto: onnx.ModelProto, neuron: dict[str, Tensor]) -> None:
    """Give every module its tensors; `neuron` has those of a neuron that the file need not say."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    norms = {node.input[1].removesuffix(".weight"): node for node in proto.graph.node if node.op_type == "BatchNormalization"}

    def take(name: str, shape: tuple[int, ...], default: Tensor | None = None) -> Tensor:
        if name not in stored:
            if default is not None:
                return default.clone()
            raise InputError(f"{path} lacks the tensor {name}: it is not a whole export of the zoo")
        found = stored.pop(name)
        if found.data_type != onnx.TensorProto.FLOAT or tuple(found.dims) != shape:
            kind = onnx.TensorProto.DataType.Name(found.data_type)
            raise InputError(f"{path}: {name} is {kind} {list(found.dims)}, expected FLOAT {list(shape)}")
        try:
            return torch.from_numpy(numpy_helper.to_array(found).copy())
        except ValueError as error:
            raise InputError(f"{path}: {name} cannot be read: {str(error).splitlines()[0]}") from None

    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            if isinstance(module, nn.Conv2d) and f"{name}.bias" in stored:
                module.bias = nn.Parameter(torch.empty(module.out_channels, device="meta"))  # where a BatchNorm went
            for key, value in list(module.named_parameters()):
                setattr(module, key, nn.Parameter(take(f"{name}.{key}", tuple(value.shape))))
        elif isinstance(module, nn.BatchNorm2d) and name in norms:
            module.eps = next((a.f for a in norms[name].attribute if a.name == "epsilon"), module.eps)
            shape = (module.num_features,)
            module.weight, module.bias = (nn.Parameter(take(f"{name}.{key}", shape)) for key in ("weight", "bias"))
            module.running_mean, module.running_var = (take(f"{name}.{key}", shape) for key in ("running_mean", "running_var"))
            module.num_batches_tracked = torch.zeros((), dtype=torch.long)
        elif isinstance(module, nn.BatchNorm2d):
            model.set_submodule(name, nn.Identity())
        elif isinstance(module, Lif):
            state = {key: take(f"{name}.{key.removeprefix('neuron.')}", tuple(v.shape), v) for key, v in neuron.items()}
            module.load_state_dict(state, assign=True)
    if left := sorted(name for name in stored if name.rpartition(".")[0] in dict(model.named_modules())):
        raise InputError(f"{path} has a tensor {left[0]}, which its network has no place for")
