"""An ONNX file is verified against its model, layer by layer.

It is run in a runtime piece by piece, each piece on the file's own values. A file of the `step`
form is run T times, from membranes of zero, and its values are joined over time.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.onnx.engines import ERRORS, FRAMES, Engine, reason
from export.onnx.file import read_file, read_metadata
from export.onnx.qdq import integer_weights
from export.onnx.runtime import Runtime
from export.onnx.step_form import NEXT, STATE
from export.prepare.fold import event_frames, folded_norms, fused, noise, still_image
from export.prepare.quantize import as_weight_format, quantize_weights
from export.prepare.trace import INPUT, Call, trace
from export.verification import LayerCheck, Verification
from zoo.activity import eval_mode
from zoo.arrays import Shape
from zoo.danet import DANet
from zoo.errors import ExportError, InputError, VerificationError
from zoo.neurons import Lif

__all__ = ["verify_onnx"]

BATCHES = (1, 2)  # of a file of any batch; its export was made with 2
PIECE_BYTES = 1 << 26  # of values held at once


def verify_onnx(
    model: DANet, path: str | Path, images: Tensor | None = None, *, runtime: Runtime | None = None
) -> Verification:
    """Compare the ONNX file at `path` with `model` on normalised `images` `[B, C, H, W]`.

    A network of events is compared on frames of them, `[T, B, C, H, W]`.

    The file is computed by `runtime` (onnxruntime), and `model` rounded as the file's weights are.
    There must be at least 3 images, or as many as a file of a fixed batch takes; noise is taken if
    none are given.

    Raises `InputError` if it is no ONNX file, `ExportError` if it is no export of the zoo,
    `VerificationError` if it cannot even be run as this model.
    """
    path = Path(path)
    proto = _read(path)
    weight_format = read_metadata(proto, path).get_weight_format("float32")
    if model.origin and model.origin.weight_format != weight_format:
        model = quantize_weights(model, as_weight_format(weight_format))
    try:
        with eval_mode(model):
            return _verify(model, proto, path, images, runtime or Runtime())
    except ERRORS as error:
        raise VerificationError(f"{path} cannot be run as this model: {reason(error)}") from None


def _read(path: Path) -> onnx.ModelProto:
    proto = read_file(path)
    inputs = [value.name for value in proto.graph.input]
    outputs = [value.name for value in proto.graph.output]
    others = [name for name in inputs if not name.endswith(STATE)]
    if others != ["images"] or "logits" not in outputs:
        raise ExportError(
            f"{path} is none of the zoo's exports: those go from images to logits, "
            f"this from {inputs} to {outputs[:3]}"
        )
    return proto


def _verify(
    model: DANet, proto: onnx.ModelProto, path: Path, images: Tensor | None, runtime: Runtime
) -> Verification:
    sizes = _batch_sizes(proto)
    needed = sum(sizes)
    shape = _image_shape(proto)
    takes_events = len(shape) == 5
    image = event_frames(model) if takes_events else still_image(model)
    # the number of images, which may be free, is none of their shape
    ours, theirs = ([n for i, n in enumerate(s) if i != len(s) - 4] for s in (image.shape, shape))
    if ours != theirs:
        raise VerificationError(
            f"{path} cannot be run as this model: it is an export of "
            f"{read_metadata(proto, path).name}, for images {theirs}, "
            f"and {model.known_origin.name} takes {ours}"
        )
    if images is None:
        steps = len(image) if takes_events else 1
        images = noise(model, steps * needed)
        images = images.reshape(steps, needed, *image.shape[2:]) if takes_events else images
    batch_axis = int(takes_events)
    if images.dim() != image.dim():
        axes = [str(size) for size in theirs]
        axes.insert(batch_axis, "B")
        raise InputError(f"images of shape {[*images.shape]}: {path} takes [{', '.join(axes)}]")
    count = images.shape[batch_axis]
    if count < needed:
        raise InputError(
            f"{count} images: {path} is verified at batch {' and '.join(map(str, sizes))}, "
            f"give {needed} or more"
        )
    batches = [*torch.split(images.narrow(batch_axis, 0, needed), list(sizes), batch_axis)]
    calls = trace(model, image)
    export = _Export(
        proto, _states(proto), model.config.steps, _exported_names(calls, proto), runtime
    )
    checks = tuple(_compare(export, calls, batches))
    return Verification(
        checks,
        _missing(calls, {check.path for check in checks}),
        _changed_parameters(calls, proto),
        sizes,
        _same_predictions(model, export, path, batches),
        needed,
    )


def _batch_sizes(proto: onnx.ModelProto) -> tuple[int, ...]:
    """Return the sizes at which a file is verified: its own, if that is fixed."""
    shape = _image_shape(proto)
    size = shape[len(shape) - 4] if len(shape) >= 4 else 0
    return (size,) if size else BATCHES


def _image_shape(proto: onnx.ModelProto) -> list[int]:
    """Return the shape of the images that a file takes, 0 where a size is not fixed."""
    (images,) = (value for value in proto.graph.input if value.name == "images")
    return [dim.dim_value for dim in images.type.tensor_type.shape.dim]


def _states(proto: onnx.ModelProto) -> dict[str, Shape]:
    """Return the membranes that are inputs, with the shape of one image's, `[1, ...]`."""
    inputs = {value.name: value.type.tensor_type.shape.dim for value in proto.graph.input}
    return {
        name: (1, *(dim.dim_value for dim in dims[1:]))
        for name, dims in inputs.items()
        if name.endswith(STATE)
    }


def _exported_names(calls: list[Call], proto: onnx.ModelProto) -> dict[str, str]:
    """Return the export's name for each module's output, where it has one.

    The output of a folded BatchNorm is its convolution's.
    """
    exported = {name for node in proto.graph.node for name in node.output}
    merged = folded_norms(calls)
    names = {call.path: call.path for call in calls if call.path not in merged.values()}
    names |= merged | {calls[-1].path: "logits"}
    first = FRAMES if FRAMES in exported else "images"
    return {INPUT: first} | {path: name for path, name in names.items() if name in exported}


def _missing(calls: list[Call], compared: set[str]) -> tuple[str, ...]:
    """Return the neurons and weighted layers that no comparison covers."""
    # A convolution that has no value of its own is covered by the BatchNorm behind it.
    folded = {
        call.inputs[0]
        for call in calls
        if call.path in compared and isinstance(call.module, nn.BatchNorm2d)
    }
    required = {call.path for call in calls if isinstance(call.module, nn.Conv2d | nn.Linear | Lif)}
    return tuple(sorted(required - compared - folded))


def _changed_parameters(calls: list[Call], proto: onnx.ModelProto) -> tuple[str, ...]:
    """Return in words the layers whose stored weights are not the model's."""
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    integers = {name: weight for name, (weight, _) in integer_weights(proto.graph).items()}
    norms = {conv: norm for norm, conv in folded_norms(calls).items()}
    modules = {call.path: call.module for call in calls}
    changed = []
    for path, layer in modules.items():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        expected = (fused(layer, modules[norms[path]]) if path in norms else layer).weight
        name = f"{path}.weight"
        weight = numpy_helper.to_array(stored[name]) if name in stored else integers.get(name)
        if weight is None or not np.array_equal(weight, expected.detach().numpy()):
            changed.append(f"other weights for {path}")
    return tuple(changed)


@dataclass(frozen=True)
class _Export:
    """The file that is verified: its graph, how it is run, and what it calls its values."""

    proto: onnx.ModelProto
    states: dict[str, Shape]  # of the `step` form; of the `sequence` form none
    steps: int  # T
    names: dict[str, str]  # a module's path -> the name of its output
    runtime: Runtime

    def run(
        self,
        engine: Engine,
        outputs: list[str],
        values: Mapping[str, Tensor],
        states: Mapping[str, Shape],
        folded: set[str],
    ) -> dict[str, Tensor]:
        """Return the outputs of a graph with these states: of one call, or of T joined.

        Values named in `folded`, `[T*B, ...]`, are divided among the T calls of the `step` form,
        and joined from them. Others are the same in each call, but for what the head reads out:
        of that, the mean.
        """
        if not self.states:
            arrays = engine.run(outputs, {name: value.numpy() for name, value in values.items()})
            return {
                name: torch.from_numpy(array) for name, array in zip(outputs, arrays, strict=True)
            }
        steps = self._run_steps(engine, outputs, values, states, folded)
        joined: dict[str, Tensor] = {}
        for name in outputs:
            first, *others = by_step = [step[name] for step in steps]
            if name in folded:
                joined[name] = torch.cat(by_step)
            elif all(torch.equal(first, value) for value in others):
                joined[name] = first
            else:
                joined[name] = torch.stack(by_step).mean(0)
        return joined

    def _run_steps(
        self,
        engine: Engine,
        outputs: list[str],
        values: Mapping[str, Tensor],
        states: Mapping[str, Shape],
        folded: set[str],
    ) -> list[dict[str, Tensor]]:
        """Return the outputs of each of T calls, the first of which begins with states of zero."""
        by_step = {
            name: value.chunk(self.steps) if name in folded else (value,) * self.steps
            for name, value in values.items()
        }
        batch = len(next(iter(by_step.values()))[0])
        carried = {
            name: np.zeros((batch, *shape[1:]), np.float32) for name, shape in states.items()
        }
        next_states = [name.removesuffix(STATE) + NEXT for name in states]
        steps: list[dict[str, Tensor]] = []
        for t in range(self.steps):
            inputs = {name: value[t].numpy() for name, value in by_step.items()} | carried
            arrays = engine.run([*outputs, *next_states], inputs)
            carried = dict(zip(states, arrays[len(outputs) :], strict=True))
            steps.append(
                {name: torch.from_numpy(a) for name, a in zip(outputs, arrays, strict=False)}
            )
        return steps


def _same_predictions(model: DANet, export: _Export, path: Path, batches: list[Tensor]) -> int:
    """Return for how many images the file predicts what the model does."""
    engine = export.runtime.load(path)
    same = 0
    with torch.inference_mode():
        for images in batches:
            output = export.run(engine, ["logits"], {"images": images}, export.states, set())
            same += int((model(images).argmax(1) == output["logits"].argmax(1)).sum())
    return same


def _compare(export: _Export, calls: list[Call], batches: list[Tensor]) -> Iterator[LayerCheck]:
    """Run the export piece by piece, and every module on the export's own values.

    Yields the comparison of their outputs. A value is held until no later piece needs it.
    """
    names = export.names
    folded = {
        names[call.path]
        for call in calls
        if call.path in names and len(call.out_shape) == 4 and call.out_shape[0] > 1
    }
    last_use = {
        names[path]: i for i, call in enumerate(calls) for path in call.inputs if path in names
    }
    values_of_batch = [{"images": images} for images in batches]
    if FRAMES in names.values():
        values_of_batch = [{FRAMES: events.flatten(0, 1)} for events in batches]
    done = 0
    for piece in _pieces(calls, sum(images.shape[-4] for images in batches)):
        paths = {call.path for call in piece}
        outputs = sorted({names[path] for path in paths if path in names})
        states = {
            name: shape
            for name, shape in export.states.items()
            if name.removesuffix(STATE) in paths
        }
        axes = {name: value.dim() for name, value in values_of_batch[0].items()}
        axes |= {name: len(shape) for name, shape in states.items()}
        next_states = [name.removesuffix(STATE) + NEXT for name in states]
        inputs, graph = _cut(export.proto, axes, [*outputs, *next_states])
        engine = export.runtime.load(graph)
        done += len(piece)
        for i, values in enumerate(values_of_batch):
            needed = {name: values[name] for name in inputs - states.keys()}
            values |= export.run(engine, outputs, needed, states, folded)
            yield from _compare_piece(piece, names, values)
            values_of_batch[i] = {
                name: value for name, value in values.items() if last_use.get(name, 0) >= done
            }


def _pieces(calls: list[Call], batch: int) -> Iterator[list[Call]]:
    """Yield consecutive calls whose values fit into `PIECE_BYTES` together.

    A convolution stays with its BatchNorm.
    """
    piece: list[Call] = []
    size = 0
    for i, call in enumerate(calls):
        piece.append(call)
        size += 4 * batch * int(np.prod(call.out_shape))
        followed = i + 1 < len(calls) and isinstance(calls[i + 1].module, nn.BatchNorm2d)
        if (size > PIECE_BYTES and not followed) or i + 1 == len(calls):
            yield piece
            piece, size = [], 0


def _cut(
    proto: onnx.ModelProto, axes: Mapping[str, int], outputs: list[str]
) -> tuple[set[str], bytes]:
    """Return the part of a graph that computes `outputs` of values at hand, and which it needs.

    `axes` has the number of axes of every value at hand.
    """
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    producers = {output: i for i, node in enumerate(proto.graph.node) for output in node.output}
    nodes: set[int] = set()
    inputs: set[str] = set()
    weights: set[str] = set()
    queue = list(outputs)
    while queue:
        name = queue.pop()
        if name in axes:
            inputs.add(name)
        elif name in stored:
            weights.add(name)
        # A name that no node makes is the runtime's to refuse.
        elif name in producers and producers[name] not in nodes:
            nodes.add(producers[name])
            queue += proto.graph.node[producers[name]].input
    graph = helper.make_graph(
        [proto.graph.node[i] for i in sorted(nodes)],
        "piece",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * axes[name])
            for name in inputs
        ],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [stored[name] for name in weights],
    )
    piece = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    return inputs, piece.SerializeToString()


@torch.inference_mode()
def _compare_piece(
    calls: list[Call], names: dict[str, str], values: dict[str, Tensor]
) -> Iterator[LayerCheck]:
    local: dict[str, Tensor] = {}  # outputs that the export does not have
    for call in calls:
        inputs = [values[names[path]] if path in names else local[path] for path in call.inputs]
        expected = call.module(*inputs)
        if call.path not in names:
            local[call.path] = expected
            continue
        exported = values[names[call.path]]
        if exported.shape != expected.shape:
            raise VerificationError(
                f"{call.path}: the export's value has shape {list(exported.shape)}, "
                f"the model's {list(expected.shape)}"
            )
        yield LayerCheck.compare(
            call.path,
            exported.numpy(),
            expected.numpy(),
            batch=len(expected),
            is_neuron=isinstance(call.module, Lif),
        )
