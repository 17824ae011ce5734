"""A network of the zoo, read back from an ONNX file alone.

The file has its configuration, its data and every parameter. The export has folded BatchNorms into
convolutions, so the model is in the form in which `export.prepare.fold.fold` leaves it. The
configuration says which tensors there must be, each with its module's path:

    conv, fc   weight, bias; a convolution without a bias of its own has its BatchNorm's
    bn         weight, bias, running_mean, running_var, where it is not folded; `eps` is an
               attribute of its node
    lif        threshold, and beta unless T is 1; a reset by subtraction is known by the product
               with the threshold
"""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from export.metadata import Metadata
from export.onnx.file import read_file, read_metadata
from export.onnx.qdq import integer_weights
from export.prepare.fold import Folded, folded_norms, still_image
from export.prepare.quantize import as_weight_format, keep_scale
from export.prepare.trace import Call, trace
from zoo.danet import DANet, DANetConfig
from zoo.errors import ConfigError, InputError, first_line
from zoo.neurons import Lif
from zoo.provenance import Origin

__all__ = ["read_onnx"]

# Prefixes and suffixes of tensors that every export has besides the network's: shapes, counts,
# steps of time, and grids of integer spikes.
OWN_PREFIXES, OWN_SUFFIXES = ("constant.", "count.", "time."), (".step", ".zero")
NAME = r"\w[\w.-]{0,99}"  # of a network: reports are files named after it


def read_onnx(path: str | Path) -> DANet:
    """Return the model of a file that `write_onnx` wrote, in eval mode.

    Its origin has no files of weights: the digest of those that it was made of is the file's
    metadata `weights_sha256`. Raises `InputError` for any other file, naming what is wrong.
    """
    path = Path(path)
    proto = read_file(path)
    metadata = read_metadata(proto, path)
    config = metadata.parse("config", _config)
    origin = _origin(path, metadata)
    with torch.device("meta"):
        model = DANet(config).eval()
        model.origin = origin
        try:
            calls = trace(model, still_image(model))
        except (InputError, RuntimeError, TypeError) as error:
            raise InputError(f"{path} has metadata of no network: {first_line(error)}") from None
    tensors = _Tensors(path, proto.graph)
    _fill(model, calls, tensors)
    tensors.check_all_taken()
    return model.eval()


def _config(text: Any) -> DANetConfig:
    return DANetConfig.from_dict(json.loads(text))


def _origin(path: Path, metadata: Metadata) -> Origin:
    """Return the origin that the metadata tell; raise `InputError` where they tell none."""
    data, name, weight_format = metadata.data, metadata.name, metadata.weight_format
    metadata.check_form("sequence")
    if not re.fullmatch(NAME, name, re.ASCII):
        raise InputError(
            f"{path}: name {name[:100]!r} is not one of letters, digits, '.', '_' and '-'"
        )
    try:
        return Origin(name, data, weight_format=as_weight_format(weight_format))
    except ConfigError as error:
        raise InputError(f"{path}: {error}") from None


class _Tensors:
    """The tensors of a file, each to be taken once."""

    def __init__(self, path: Path, graph: onnx.GraphProto) -> None:
        self.path = path
        # protobuf has bytes where a name is no UTF-8
        stored = {str(tensor.name): tensor for tensor in graph.initializer}
        self.stored = {
            name: tensor
            for name, tensor in stored.items()
            if not name.startswith(OWN_PREFIXES) and not name.endswith(OWN_SUFFIXES)
        }
        self.scales: dict[str, Tensor] = {}  # of weights that are stored as integers
        self.readers = {(node.op_type, name) for node in graph.node for name in node.input}
        for name, (weight, scale) in integer_weights(graph).items():
            for part in (f"{name}.int8", f"{name}.scale"):
                self.stored.pop(part, None)
            self.stored[name] = numpy_helper.from_array(weight, name)
            self.scales[name] = torch.from_numpy(scale.copy())
        self.eps = {
            name: attribute.f
            for node in graph.node
            if node.op_type == "BatchNormalization"
            for attribute in node.attribute
            if attribute.name == "epsilon"
            for name in node.input[1:2]
        }

    def take(self, name: str, shape: tuple[int, ...], *, broadcast: bool = False) -> Tensor:
        """Return the tensor of that `shape`, or with `broadcast` of one that fits it.

        Raises `InputError` if there is none.
        """
        if name not in self.stored:
            raise InputError(
                f"{self.path} lacks the tensor {name}: it is not a whole export of the zoo"
            )
        tensor = self.stored.pop(name)
        dims = tuple(tensor.dims)
        fits = dims == shape or (broadcast and _broadcasts(dims, shape))
        if tensor.data_type != TensorProto.FLOAT or not fits:
            words = {number: word for word, number in TensorProto.DataType.items()}
            kind = words.get(tensor.data_type, "of unknown type")
            raise InputError(
                f"{self.path}: {name} is {kind} {list(dims)}, expected FLOAT {list(shape)}"
            )
        try:
            return torch.from_numpy(numpy_helper.to_array(tensor).copy())
        except ValueError as error:
            raise InputError(f"{self.path}: {name} cannot be read: {first_line(error)}") from None

    def take_parameter(self, name: str, shape: tuple[int, ...]) -> nn.Parameter:
        """Return the tensor of that `shape` as a parameter; raise `InputError` if there is none."""
        return nn.Parameter(self.take(name, shape))

    def check_all_taken(self) -> None:
        """Raise `InputError` for a tensor that no module took."""
        if self.stored:
            raise InputError(
                f"{self.path} has a tensor {min(self.stored)}, which its network has no place for"
            )


def _fill(model: DANet, calls: list[Call], tensors: _Tensors) -> None:
    """Give every module its parameters.

    The BatchNorms that a convolution was folded with have none, and are replaced by `Folded`.
    """
    folded = folded_norms(calls)
    biased = set(folded.values())
    for call in calls:
        path = call.path
        match call.module:
            case nn.Conv2d() | nn.Linear() as layer:
                shape = tuple(layer.weight.shape)
                layer.weight = tensors.take_parameter(f"{path}.weight", shape)
                if f"{path}.weight" in tensors.scales:
                    keep_scale(layer, tensors.scales[f"{path}.weight"])
                if layer.bias is not None or path in biased:
                    layer.bias = tensors.take_parameter(f"{path}.bias", shape[:1])
            case nn.BatchNorm2d() if path in folded:
                model.set_submodule(path, Folded())
            case nn.BatchNorm2d() as norm:
                _fill_norm(norm, path, tensors)
            case Lif():
                model.set_submodule(path, _neuron(model.config, call, tensors))


def _fill_norm(norm: nn.BatchNorm2d, path: str, tensors: _Tensors) -> None:
    shape = (norm.num_features,)
    norm.eps = tensors.eps.get(f"{path}.weight", norm.eps)
    norm.weight = tensors.take_parameter(f"{path}.weight", shape)
    norm.bias = tensors.take_parameter(f"{path}.bias", shape)
    norm.running_mean = tensors.take(f"{path}.running_mean", shape)
    norm.running_var = tensors.take(f"{path}.running_var", shape)
    norm.num_batches_tracked = torch.zeros((), dtype=torch.long)


def _neuron(config: DANetConfig, call: Call, tensors: _Tensors) -> Lif:
    """Return the neuron of a file, which may differ from those of the configuration.

    Constants that a single step does not need are the configuration's.
    """
    beta, threshold = f"{call.path}.beta", f"{call.path}.threshold"
    if config.steps > 1:
        subtracts = ("Mul", threshold) in tensors.readers
        config = replace(config, reset="subtract" if subtracts else "zero")
    lif = config.neuron()
    shape = call.out_shape[1:]
    lif.neuron.threshold = tensors.take(threshold, shape, broadcast=True)
    if config.steps > 1 or beta in tensors.stored:
        lif.neuron.beta = tensors.take(beta, shape, broadcast=True)
    return lif


def _broadcasts(dims: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    ends = zip(reversed(dims), reversed(shape), strict=False)
    return len(dims) <= len(shape) and all(size in (1, full) for size, full in ends)
