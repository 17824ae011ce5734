"""A model as ONNX, of any batch size or of one, in one of two forms.

    sequence   images [B, C, H, W] -> logits [B, K]; all T time steps inside, time folded into the
               batch
    step       images [B, C, H, W] and for every neuron layer `<path>.membrane` -> logits [B, K] of
               one step, `<path>.membrane.next`

Every value that is a module's output carries that module's dotted path, and may be an output too:
`counts` gives `<path>.count` [B], a layer's spikes summed over time and space, `trains` the spikes
`<path>` [T*B, ...] themselves. The neuron is one custom operator for `torch.export`, translated to
plain ONNX: Split over time, for each step the equation of `zoo.neurons` in its order of rounding,
and Concat.

Importers that compile (WebGPU's, IREE, TVM) need every shape and axis as a constant: the batch
alone may be free. So time gets an axis of its own before it is split, [T*B, ...] -> [T, B, ...],
unless the batch is fixed and [T*B, ...] has T parts of a known size.
"""

import ast
import contextlib
import copy
import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnxscript import opset20 as op
from torch import Tensor, nn

from export.metadata import Form, Metadata
from export.onnx.engines import FRAMES, TIME_PARTS
from export.onnx.file import OPSET, write_verified
from export.onnx.qdq import with_integers
from export.onnx.step_form import add_state
from export.onnx.verify import verify_onnx
from export.prepare.fold import event_frames, fold, still_image
from export.prepare.neurons import check_modules, lif_constants
from export.prepare.quantize import weight_scales
from export.prepare.trace import Call, leaves, trace
from export.verification import Verification
from zoo.danet import DANet, set_steps
from zoo.errors import ExportError
from zoo.neurons import Lif

__all__ = ["COUNT", "Form", "Outputs", "to_onnx", "write_onnx"]

Outputs = Literal["none", "counts", "trains"]
COUNT = ".count"


def to_onnx(
    model: DANet, *, form: Form = "sequence", outputs: Outputs = "counts", batch: int | None = None
) -> onnx.ModelProto:
    """Return `model` as a graph for images of its own size.

    It takes any number of images, or `batch` at a time. Raises `ExportError` for a neuron that
    ONNX has no form for.
    """
    if batch is not None and batch < 1:
        raise ExportError(f"batch {batch}: it is 1 or more, or None for one that is free")
    for name, word, kind in (("form", form, Form), ("outputs", outputs, Outputs)):
        if word not in get_args(kind):
            valid = ", ".join(get_args(kind))
            raise ExportError(f"{name} {word!r}: no such one; valid are {valid}")
    check_modules(model)
    metadata = Metadata.of_onnx(model, form)
    if form == "step":
        model = copy.deepcopy(model)
        set_steps(model, 1)
    steps = model.config.steps
    folded = fold(model)
    scales = {name: scale.numpy() for name, scale in weight_scales(folded).items()}
    neurons = {path: module for path, module in folded.named_modules() if isinstance(module, Lif)}
    for path, lif in neurons.items():
        folded.set_submodule(path, _Neuron(lif, free=batch is None))
    takes_events = form == "sequence" and model.known_origin.data.events
    example, folds = still_image(model, batch=batch or 2), 1
    if takes_events:  # which come to the stem with time folded into the batch
        folded.stem.repeat = nn.Identity()
        example, folds = event_frames(model, batch or 2).flatten(0, 1), steps
    proto = _translate(folded, example, folds=folds, free=batch is None)
    graph = proto.graph
    # The last module's output keeps the name `logits`.
    _name(graph, {path for path, _ in leaves(folded)} - {"head.fc"})
    _store_constants(graph)
    _split_sizes(graph, steps, batch or 1)
    image = event_frames(model) if takes_events else still_image(model)
    _declare_shapes(graph, trace(model, image), steps, batch)
    if takes_events:
        _take_frames(graph, image, batch)
    if form == "step":
        add_state(graph, neurons)
    if model.origin and model.origin.weight_format != "float32":
        with_integers(graph, scales)
    if outputs == "counts":
        _count(graph, [*neurons], steps, batch)
    elif outputs == "trains":
        values = {value.name: value for value in graph.value_info}
        graph.output.extend(values[path] for path in neurons)
    _describe(proto, metadata)
    return proto


def _translate(model: nn.Module, images: Tensor, *, folds: int, free: bool) -> onnx.ModelProto:
    """Return what `torch.onnx` makes of a model for such images, with a `free` batch or this.

    Images are `[B, C, H, W]`, or so many `folds` of a batch.
    """
    with _quiet():
        program = torch.onnx.export(
            model,
            (images,),
            dynamo=True,
            dynamic_shapes=({0: folds * torch.export.Dim("batch")},) if free else None,
            opset_version=OPSET,
            custom_translation_table=TRANSLATIONS,
            input_names=["images"],
            output_names=["logits"],
            optimize=False,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def write_onnx(
    model: DANet,
    path: str | Path,
    *,
    form: Form = "sequence",
    outputs: Outputs = "counts",
    batch: int | None = None,
    verify: bool = True,
) -> Verification | None:
    """Write `model` to `path`, verified against it unless told otherwise.

    Weights of more than 2 GB go to a file beside it, `path` with `.data` appended. Raises
    `VerificationError`, and leaves what lay at `path`, if the file is not the model.
    """
    build = partial(to_onnx, model, form=form, outputs=outputs, batch=batch)
    return write_verified(Path(path), build, partial(verify_onnx, model) if verify else None)


@torch.library.custom_op("zoo::lif", mutates_args=())
def _lif(
    x: Tensor, beta: Tensor, threshold: Tensor, steps: int, subtract: bool, unfolded: list[int]
) -> Tensor:
    raise AssertionError("an operator to be translated, not run")


@_lif.register_fake
def _(
    x: Tensor, beta: Tensor, threshold: Tensor, steps: int, subtract: bool, unfolded: list[int]
) -> Tensor:
    return torch.empty_like(x)


class _Neuron(nn.Module):
    """A `Lif` as the custom operator; if the batch is `free`, time gets an axis of its own."""

    def __init__(self, lif: Lif, *, free: bool) -> None:
        super().__init__()
        self.steps, self.subtract = lif.steps, lif.reset == "subtract"
        self.free = free and lif.steps > 1
        for name, values in zip(("beta", "threshold"), lif_constants(lif), strict=True):
            self.register_buffer(name, values)

    def forward(self, x: Tensor) -> Tensor:
        unfolded = [self.steps, -1, *x.shape[1:]] if self.free else []
        spikes: Tensor = torch.ops.zoo.lif(
            x, self.beta, self.threshold, self.steps, self.subtract, unfolded
        )
        return spikes


def _integers(values: Sequence[int]) -> Any:
    return op.Constant(value_ints=values)


def _translate_lif(
    x: Any, beta: Any, threshold: Any, steps: int, subtract: bool, unfolded: Sequence[int]
) -> Any:
    if unfolded:
        x = op.Reshape(x, _integers(unfolded))
    # `_split_sizes` says later of what sizes the parts are.
    currents = op.Split(x, axis=0, num_outputs=steps) if steps > 1 else x
    one = op.Constant(value_float=1.0)
    mem: Any = None
    spikes: list[Any] = []
    for current in currents if isinstance(currents, Sequence) else [currents]:
        if mem is None:
            mem = current
        elif subtract:
            mem = op.Sub(op.Add(op.Mul(beta, mem), current), op.Mul(spikes[-1], threshold))
        else:
            # A Where would take fewer nodes, but onnxruntime does not vectorise it: 1.5 to 1.9
            # times slower.
            decay = op.Mul(op.Sub(one, spikes[-1]), beta)
            mem = op.Add(op.Mul(mem, decay), current)
        spikes.append(op.Cast(op.Greater(mem, threshold), to=TensorProto.FLOAT))
    together = op.Concat(*spikes, axis=0) if steps > 1 else spikes[0]
    return op.Reshape(together, _integers([-1, *unfolded[2:]])) if unfolded else together


def _translate_repeat(x: Any, repeats: Sequence[int]) -> Any:
    return op.Tile(x, _integers(repeats))


def _translate_view(x: Any, size: Sequence[int]) -> Any:
    return op.Reshape(x, _integers(size))


def _translate_mean(x: Any, dim: Sequence[int], keepdim: bool = False) -> Any:
    return op.ReduceMean(x, _integers(dim), keepdims=int(keepdim))


# Of the last three, torch.onnx would compute shapes and axes in the graph, which no compiling
# importer takes.
TRANSLATIONS: dict[Callable[..., Any], Any] = {
    torch.ops.zoo.lif.default: _translate_lif,
    torch.ops.aten.repeat.default: _translate_repeat,
    torch.ops.aten.view.default: _translate_view,
    torch.ops.aten.mean.dim: _translate_mean,
}


def _name(graph: onnx.GraphProto, paths: set[str]) -> None:
    """Give every module's output the module's path, and every node a name under it.

    Traces of this machine, which the exporter leaves, are removed.
    """
    last_outputs: dict[str, str] = {}  # path -> the output of the module's last node
    for node in graph.node:
        scopes = [p.value for p in node.metadata_props if p.key == "pkg.torch.onnx.name_scopes"]
        path = ast.literal_eval(scopes[0])[-2] if scopes else ""
        node.name = f"{path}/{node.name.removeprefix('node_')}"
        if path in paths:
            last_outputs[path] = node.output[0]
        del node.metadata_props[:]
    renamed = {output: path for path, output in last_outputs.items()}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for initializer in graph.initializer:
        del initializer.metadata_props[:]
        initializer.doc_string = ""
    del graph.value_info[:]
    del graph.metadata_props[:]


def _store_constants(graph: onnx.GraphProto) -> None:
    """Store the values of Constant nodes, equal ones once, as `constant.0` and so on.

    Some importers know few of the attributes of these nodes.
    """
    named: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    renamed: dict[str, str] = {}
    nodes = []
    for node in graph.node:
        if node.op_type == "Constant":
            values: Any = ReferenceEvaluator(node).run(None, {})
            tensor = numpy_helper.from_array(values[0])
            key = (tensor.data_type, tuple(tensor.dims), tensor.raw_data)
            if key not in named:
                named[key] = tensor.name = f"constant.{len(named)}"
                graph.initializer.append(tensor)
            renamed[node.output[0]] = named[key]
        else:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)


def _split_sizes(graph: onnx.GraphProto, steps: int, size: int) -> None:
    """Store how large the parts of every Split over time are.

    Not every runtime derives the size from their number alone.
    """
    splits = [node for node in graph.node if node.op_type == "Split"]
    for node in splits:
        node.CopyFrom(
            helper.make_node("Split", [*node.input, TIME_PARTS], node.output, node.name, axis=0)
        )
    if splits:
        graph.initializer.append(
            helper.make_tensor(TIME_PARTS, TensorProto.INT64, [steps], [size] * steps)
        )


def _declare_shapes(
    graph: onnx.GraphProto, calls: list[Call], steps: int, batch: int | None
) -> None:
    """Declare the shape of every module's output.

    Viewers show it, and onnxruntime fuses more of a graph whose shapes it knows.
    """
    values = {name for node in graph.node for name in node.output}
    for call in calls:
        images, *rest = call.out_shape  # 1, or T where time is folded into the batch
        if call.path in values:
            free = "batch" if images == 1 else f"{steps}*batch"
            shape: list[str | int | None] = [images * batch if batch else free, *rest]
            graph.value_info.append(
                helper.make_tensor_value_info(call.path, TensorProto.FLOAT, shape)
            )


def _take_frames(graph: onnx.GraphProto, image: Tensor, batch: int | None) -> None:
    """Let a graph that takes images `[T*B, C, H, W]` take events `[T, B, C, H, W]`."""
    steps, _, *shape = image.shape
    for node in graph.node:
        node.input[:] = [FRAMES if name == "images" else name for name in node.input]
    sizes = numpy_helper.from_array(np.array([-1, *shape], np.int64), "time.fold")
    graph.initializer.append(sizes)
    fold = helper.make_node("Reshape", ["images", sizes.name], [FRAMES], f"{FRAMES}/fold")
    graph.node.insert(0, fold)
    axes: list[str | int | None] = [steps, batch or "batch", *shape]
    graph.input[0].CopyFrom(helper.make_tensor_value_info("images", TensorProto.FLOAT, axes))


def _count(graph: onnx.GraphProto, paths: list[str], steps: int, batch: int | None) -> None:
    """Add the outputs `<path>.count`: `[T*B, C, H, W]` -> `[T*B]` -> `[T, B]` -> `[B]`.

    Raises `ExportError` for so many neurons and steps that a float32 might round their spikes.
    """
    sizes = {
        value.name: math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim[1:])
        for value in graph.value_info
    }
    for path in paths:
        if steps * sizes[path] >= 2**24:
            raise ExportError(
                f"{path}: {sizes[path]} neurons in {steps} steps may send more spikes than a "
                "float32 counts (2^24): take the outputs 'trains' or 'none' in place of 'counts'"
            )
    axes = {"count.space": [1, 2, 3], "count.fold": [steps, batch or -1], "count.time": [0]}
    for name, values in axes.items():
        graph.initializer.append(helper.make_tensor(name, TensorProto.INT64, [len(values)], values))
    for path in paths:
        count = path + COUNT
        by_step, unfolded = f"{count}.steps", f"{count}.fold"
        graph.node.extend(
            [
                helper.make_node(
                    "ReduceSum", [path, "count.space"], [by_step], f"{path}/sum", keepdims=0
                ),
                helper.make_node("Reshape", [by_step, "count.fold"], [unfolded], f"{path}/fold"),
                helper.make_node(
                    "ReduceSum", [unfolded, "count.time"], [count], f"{path}/count", keepdims=0
                ),
            ]
        )
        shape = [batch or "batch"]
        graph.output.append(helper.make_tensor_value_info(count, TensorProto.FLOAT, shape))


def _describe(proto: onnx.ModelProto, metadata: Metadata) -> None:
    proto.graph.name = metadata.name
    proto.graph.doc_string = proto.doc_string = ""
    helper.set_model_props(proto, metadata.to_strings())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence torch.onnx, which warns of torchvision's absence and prints its progress."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
