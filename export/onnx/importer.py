"""An ONNX file of the zoo, read back as a model: the file knows its configuration, its data and
every parameter.

The export has folded BatchNorms into convolutions, so the model is in the form in which
`export.prepare.fold.fold` leaves it. The configuration says which tensors there must be, each with
its module's path:

    conv, fc    weight, bias; a convolution without a bias of its own has its BatchNorm's
    bn          weight, bias, running_mean, running_var, where it is not folded; `eps` is an attribute of its node
    lif         threshold, and beta unless T is 1; a reset by subtraction is known by the product with the threshold
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from export.onnx.file import described, read_file
from export.onnx.qdq import integer_weights
from export.prepare.fold import Folded, folded_norms, still_image
from export.prepare.quantize import PRECISIONS
from export.prepare.trace import Call, trace
from zoo.danet import DANet, DANetConfig
from zoo.datasets import DatasetSpec
from zoo.errors import ConfigError, InputError, first_line
from zoo.neurons import Lif
from zoo.provenance import Origin

__all__ = ["read_onnx"]


def read_onnx(path: str | Path) -> DANet:
    """The model in a file that `write_onnx` wrote, in eval mode. Raises `InputError` for any other
    file, naming what is wrong.

    Its origin has no files of weights: the digest of those that it was made of is the file's
    metadata `weights_sha256`.
    """
    path = Path(path)
    proto = read_file(path)
    config, origin = _described(path, described(proto))
    with torch.device("meta"):
        model = DANet(config).eval()
        model.origin = origin
        try:
            calls = trace(model, still_image(model))
        except (InputError, RuntimeError, TypeError) as error:
            raise InputError(f"{path} has metadata of no network: {_line(error)}") from None
    stored = _Stored(path, proto.graph)
    _fill(model, calls, stored)
    stored.end()
    return model.eval()


class _Stored:
    """The tensors of a file, each to be taken once."""

    def __init__(self, path: Path, graph: onnx.GraphProto) -> None:
        self.path = path
        # protobuf has bytes where a name is no UTF-8
        named = {str(tensor.name): tensor for tensor in graph.initializer}
        # Of shapes, counts, steps and of integer spikes, as every export has them.
        own = {
            n
            for n in named
            if n.startswith(("constant.", "count.", "time.")) or n.endswith((".step", ".zero"))
        }
        self.tensors = {n: t for n, t in named.items() if n not in own}
        self.scales: dict[str, Tensor] = {}  # of weights that are stored as integers
        self.readers = {(node.op_type, name) for node in graph.node for name in node.input}
        for name, (weight, scale) in integer_weights(graph).items():
            for part in (f"{name}.int8", f"{name}.scale"):
                self.tensors.pop(part, None)
            self.tensors[name] = numpy_helper.from_array(weight, name)
            self.scales[name] = torch.from_numpy(scale.copy())
        norms = [node for node in graph.node if node.op_type == "BatchNormalization"]
        self.eps = {
            name: a.f
            for node in norms
            for a in node.attribute
            if a.name == "epsilon"
            for name in node.input[1:2]
        }

    def take(self, name: str, shape: tuple[int, ...], *, broadcast: bool = False) -> Tensor:
        """The tensor of that `shape`, or with `broadcast` of one that fits it. Raises `InputError`
        if there is none.
        """
        if name not in self.tensors:
            raise InputError(
                f"{self.path} lacks the tensor {name}: it is not a whole export of the zoo"
            )
        found = self.tensors.pop(name)
        dims = tuple(found.dims)
        fits = dims == shape or (broadcast and _broadcasts(dims, shape))
        if found.data_type != TensorProto.FLOAT or not fits:
            kind = {number: word for word, number in TensorProto.DataType.items()}.get(
                found.data_type, "of unknown type"
            )
            raise InputError(
                f"{self.path}: {name} is {kind} {list(dims)}, expected FLOAT {list(shape)}"
            )
        try:
            return torch.from_numpy(numpy_helper.to_array(found).copy())
        except ValueError as error:
            raise InputError(f"{self.path}: {name} cannot be read: {_line(error)}") from None

    def end(self) -> None:
        """Raises `InputError` for a tensor that nobody took."""
        if self.tensors:
            raise InputError(
                f"{self.path} has a tensor {min(self.tensors)}, which its network has no place for"
            )


def _fill(model: DANet, calls: list[Call], stored: _Stored) -> None:
    """Give every module what the file has for it; the BatchNorms that it has nothing for are the
    folded ones.
    """
    folded = folded_norms(calls)
    biased = set(folded.values())
    for call in calls:
        path = call.path
        match call.module:
            case nn.Conv2d() | nn.Linear() as layer:
                shape = tuple(layer.weight.shape)
                layer.weight = nn.Parameter(stored.take(f"{path}.weight", shape))
                if f"{path}.weight" in stored.scales:
                    layer.weight_scale = stored.scales[f"{path}.weight"]
                if layer.bias is not None or path in biased:
                    layer.bias = nn.Parameter(stored.take(f"{path}.bias", shape[:1]))
            case nn.BatchNorm2d() if path in folded:
                model.set_submodule(path, Folded())
            case nn.BatchNorm2d() as norm:
                one = (norm.num_features,)
                norm.eps = stored.eps.get(f"{path}.weight", norm.eps)
                norm.weight, norm.bias = (
                    nn.Parameter(stored.take(f"{path}.{key}", one)) for key in ("weight", "bias")
                )
                norm.running_mean, norm.running_var = (
                    stored.take(f"{path}.running_{key}", one) for key in ("mean", "var")
                )
                norm.num_batches_tracked = torch.zeros((), dtype=torch.long)
            case Lif():
                model.set_submodule(path, _neuron(model.config, call, stored))


def _neuron(config: DANetConfig, call: Call, stored: _Stored) -> Lif:
    """A neuron of its own, as any of a model's may have been replaced; what a single step does not
    need is the configuration's.
    """
    beta, threshold = f"{call.path}.beta", f"{call.path}.threshold"
    if config.steps > 1:
        config = replace(
            config, reset="subtract" if ("Mul", threshold) in stored.readers else "zero"
        )
    lif = config.neuron()
    lif.neuron.threshold = stored.take(threshold, call.out_shape[1:], broadcast=True)
    if config.steps > 1 or beta in stored.tensors:
        lif.neuron.beta = stored.take(beta, call.out_shape[1:], broadcast=True)
    return lif


def _described(path: Path, meta: dict[str, str]) -> tuple[DANetConfig, Origin]:
    try:
        config, data = (
            DANetConfig.from_dict(json.loads(meta["config"])),
            DatasetSpec.from_dict(json.loads(meta["data"])),
        )
        name, precision = meta["name"], meta["precision"]
        if meta.get("form", "sequence") != "sequence":
            raise InputError(
                f"{path} is of the form {meta['form']}: a network is read back from the form sequence"
            )
    except KeyError as error:
        raise InputError(
            f"{path} has no metadata {error}: it is none of the zoo's, or an old one; write it with `zoo export NAME --to onnx`"
        ) from None
    except (ValueError, TypeError, AttributeError, RecursionError, ConfigError) as error:
        raise InputError(f"{path} has metadata of no network: {_line(error)}") from None
    if not re.fullmatch(r"\w[\w.-]{0,99}", name, re.ASCII):  # reports are named after it
        raise InputError(
            f"{path}: name {name[:100]!r} is not one of letters, digits, '.', '_' and '-'"
        )
    if precision not in PRECISIONS:
        raise InputError(
            f"{path}: precision {precision[:100]!r} is not one of {', '.join(PRECISIONS)}"
        )
    return config, Origin(name, data, precision=precision)


def _broadcasts(dims: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    ends = zip(reversed(dims), reversed(shape), strict=False)
    return len(dims) <= len(shape) and all(size in (1, full) for size, full in ends)


def _line(error: Exception) -> str:
    return first_line(error)
