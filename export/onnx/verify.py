"""An ONNX file against its model: it is run in a runtime piece by piece, each piece on the file's
own values.

A file of the `step` form is run T times, from membranes of zero, and its values are put together
over time.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from export.onnx.engines import ERRORS, Engine, reason
from export.onnx.file import described, read_file
from export.onnx.qdq import integer_weights
from export.onnx.runtime import Runtime
from export.onnx.step_form import NEXT, STATE
from export.prepare.fold import folded_norms, fused, still_image
from export.prepare.quantize import as_precision, quantize_weights
from export.prepare.trace import INPUT, Call, trace
from export.verification import LayerCheck, Verification
from zoo.danet import DANet
from zoo.errors import ExportError, InputError, VerificationError
from zoo.neurons import Lif

__all__ = ["verify_onnx"]

BATCHES = (1, 2)  # of a file of any batch; its export was made with 2
PIECE_BYTES = 1 << 26  # of values held at once


def verify_onnx(
    model: DANet, path: str | Path, images: Tensor | None = None, *, runtime: Runtime | None = None
) -> Verification:
    """Compare the ONNX file at `path`, computed by `runtime` (onnxruntime), with `model` on
    `images` (normalised, at least 3, or as many as a file of a fixed batch takes; noise if none are
    given).

    Raises `InputError` if it is no ONNX file, `ExportError` if it is no export of the zoo,
    `VerificationError` if it cannot even be run as this model.
    """
    path = Path(path)
    proto = _read(path)
    said = described(proto).get("precision", "float32")
    if model.origin and model.origin.precision != said:
        model = quantize_weights(model, as_precision(said))
    try:
        return _verify(model.eval(), proto, path, images, runtime or Runtime())
    except ERRORS as error:
        raise VerificationError(f"{path} cannot be run as this model: {reason(error)}") from None


def _read(path: Path) -> onnx.ModelProto:
    proto = read_file(path)
    inputs, outputs = (
        [value.name for value in values] for values in (proto.graph.input, proto.graph.output)
    )
    if [name for name in inputs if not name.endswith(STATE)] != [
        "images"
    ] or "logits" not in outputs:
        raise ExportError(
            f"{path} is none of the zoo's exports: those go from images to logits, this from {inputs} to {outputs[:3]}"
        )
    return proto


def _verify(
    model: DANet, proto: onnx.ModelProto, path: Path, images: Tensor | None, runtime: Runtime
) -> Verification:
    sizes = _batches(proto)
    needed = sum(sizes)
    if images is None:
        images = torch.randn(
            still_image(model, needed).shape, generator=torch.Generator().manual_seed(0)
        )
    if len(images) < needed:
        raise InputError(
            f"{len(images)} images: {path} is verified at batch {' and '.join(map(str, sizes))}, give {needed} or more"
        )
    exported = {name for node in proto.graph.node for name in node.output}
    calls = trace(model, still_image(model))
    names = _exported_names(calls, exported)
    batches: list[Tensor] = []
    same = start = 0
    for batch in sizes:
        batches.append(images[start : start + batch])
        start += batch
    stepped = any(value.name.endswith(STATE) for value in proto.graph.input)
    steps = model.config.steps if stepped else 1
    lines = tuple(_compare(proto, calls, names, batches, runtime, steps))
    whole, states = runtime.load(path), _states(proto)
    with torch.inference_mode():
        for x in batches:
            logits = _run(whole, ["logits"], {"images": x}, states, steps, set())["logits"]
            same += int((model(x).argmax(1) == logits.argmax(1)).sum())
    weighted = {c.path for c in calls if isinstance(c.module, nn.Conv2d | nn.Linear)}
    covered = {line.path for line in lines}
    # conv inside its bn
    covered |= {
        c.inputs[0] for c in calls if c.path in covered and isinstance(c.module, nn.BatchNorm2d)
    }
    wanted = weighted | {c.path for c in calls if isinstance(c.module, Lif)}
    missing = tuple(sorted(wanted - covered))
    return Verification(lines, missing, _altered(calls, proto), sizes, same, needed)


def _batches(proto: onnx.ModelProto) -> tuple[int, ...]:
    """The sizes at which a file is verified: its own, if that is fixed."""
    (images,) = (
        value.type.tensor_type.shape for value in proto.graph.input if value.name == "images"
    )
    return (fixed,) if images.dim and (fixed := images.dim[0].dim_value) > 0 else BATCHES


def _altered(calls: list[Call], proto: onnx.ModelProto) -> tuple[str, ...]:
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    integers = {name: weight for name, (weight, _) in integer_weights(proto.graph).items()}
    norms = {conv: norm for norm, conv in folded_norms(calls).items()}
    modules = {call.path: call.module for call in calls}
    altered = []
    for path, layer in modules.items():
        if not isinstance(layer, nn.Conv2d | nn.Linear):
            continue
        expected = (fused(layer, modules[norms[path]]) if path in norms else layer).weight
        name = f"{path}.weight"
        found = numpy_helper.to_array(stored[name]) if name in stored else integers.get(name)
        if found is None or not np.array_equal(found, expected.detach().numpy()):
            altered.append(f"other weights for {path}")
    return tuple(altered)


def _exported_names(calls: list[Call], exported: set[str]) -> dict[str, str]:
    """The export's name for each module's output, where it has one: a folded BatchNorm's output is
    its convolution's.
    """
    merged = folded_norms(calls)
    names = (
        {call.path: call.path for call in calls if call.path not in merged.values()}
        | merged
        | {calls[-1].path: "logits"}
    )
    return {INPUT: "images"} | {path: name for path, name in names.items() if name in exported}


def _compare(
    proto: onnx.ModelProto,
    calls: list[Call],
    names: dict[str, str],
    batches: list[Tensor],
    runtime: Runtime,
    steps: int,
) -> Iterator[LayerCheck]:
    """Run the export piece by piece, each piece on the export's own values, and every module on the
    same; compare their outputs.
    """
    states = _states(proto)
    # of one image
    folded = {
        names[c.path]
        for c in calls
        if c.path in names and len(c.out_shape) == 4 and c.out_shape[0] > 1
    }
    batch_values = [{"images": x} for x in batches]
    last_use = {
        names[path]: i for i, call in enumerate(calls) for path in call.inputs if path in names
    }
    done = 0
    for piece in _pieces(calls, sum(map(len, batches))):
        wanted = sorted({names[call.path] for call in piece if call.path in names})
        own = {
            name: shape
            for name, shape in states.items()
            if name.removesuffix(STATE) in {call.path for call in piece}
        }
        known = {name: value.dim() for name, value in batch_values[0].items()} | {
            name: len(shape) for name, shape in own.items()
        }
        inputs, cut = _cut(
            proto, known, [*wanted, *(name.removesuffix(STATE) + NEXT for name in own)], runtime
        )
        done += len(piece)
        for i, values in enumerate(batch_values):
            values |= _run(
                cut,
                wanted,
                {name: values[name] for name in inputs - own.keys()},
                own,
                steps,
                folded,
            )
            yield from _compare_piece(piece, names, values)
            batch_values[i] = {
                name: value for name, value in values.items() if last_use.get(name, 0) >= done
            }


def _states(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """The membranes that are inputs, with the shape of one image's, `[1, ...]`."""
    inputs = {value.name: value.type.tensor_type.shape.dim for value in proto.graph.input}
    return {
        name: (1, *(dim.dim_value for dim in dims[1:]))
        for name, dims in inputs.items()
        if name.endswith(STATE)
    }


def _run(
    engine: Engine,
    wanted: list[str],
    values: dict[str, Tensor],
    states: dict[str, tuple[int, ...]],
    steps: int,
    folded: set[str],
) -> dict[str, Tensor]:
    """The wanted values of `steps` calls. Those `folded`, `[T*B, ...]`, are dealt to the calls, and
    put together of them; of others, which are the same in each call but for what the head reads
    out, the mean.
    """
    if steps == 1 and not states:
        found = engine.run(wanted, {name: value.numpy() for name, value in values.items()})
        return {name: torch.from_numpy(value) for name, value in zip(wanted, found, strict=True)}
    parts = {
        name: value.chunk(steps) if name in folded else (value,) * steps
        for name, value in values.items()
    }
    batch = len(next(iter(parts.values()))[0])
    carried = {name: np.zeros((batch, *shape[1:]), np.float32) for name, shape in states.items()}
    after = [name.removesuffix(STATE) + NEXT for name in states]
    calls: list[list[Tensor]] = []
    for step in range(steps):
        found = engine.run(
            [*wanted, *after],
            {name: value[step].numpy() for name, value in parts.items()} | carried,
        )
        carried = dict(zip(states, found[len(wanted) :], strict=True))
        calls.append([torch.from_numpy(value) for value in found[: len(wanted)]])
    together: dict[str, Tensor] = {}
    for name, *over in zip(wanted, *calls, strict=True):
        same = all(torch.equal(over[0], value) for value in over[1:])
        together[name] = (
            torch.cat(over) if name in folded else over[0] if same else torch.stack(over).mean(0)
        )
    return together


def _pieces(calls: list[Call], batch: int) -> Iterator[list[Call]]:
    """Consecutive calls whose values fit into `PIECE_BYTES` together; a convolution stays with its
    BatchNorm.
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
    proto: onnx.ModelProto, known: dict[str, int], wanted: list[str], runtime: Runtime
) -> tuple[set[str], Engine]:
    """The part of the export that computes `wanted` from values `known`, with so many axes, and
    which of these it needs.
    """
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    maker = {output: i for i, node in enumerate(proto.graph.node) for output in node.output}
    nodes: set[int] = set()
    inputs: set[str] = set()
    weights: set[str] = set()
    queue = list(wanted)
    while queue:
        name = queue.pop()
        if name in known:
            inputs.add(name)
        elif name in stored:
            weights.add(name)
        # a name that nobody makes is onnxruntime's to refuse
        elif name in maker and maker[name] not in nodes:
            nodes.add(maker[name])
            queue += proto.graph.node[maker[name]].input
    graph = helper.make_graph(
        [proto.graph.node[i] for i in sorted(nodes)],
        "piece",
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * known[name])
            for name in inputs
        ],
        [helper.make_empty_tensor_value_info(name) for name in wanted],
        [stored[name] for name in weights],
    )
    piece = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    return inputs, runtime.load(piece.SerializeToString())


@torch.inference_mode()
def _compare_piece(
    calls: list[Call], names: dict[str, str], values: dict[str, Tensor]
) -> Iterator[LayerCheck]:
    local: dict[str, Tensor] = {}  # outputs that the export does not have
    for call in calls:
        expected = call.module(*(values[names[p]] if p in names else local[p] for p in call.inputs))
        if call.path not in names:
            local[call.path] = expected
            continue
        found = values[names[call.path]]
        if found.shape != expected.shape:
            raise VerificationError(
                f"{call.path}: the export's value has shape {list(found.shape)}, the model's {list(expected.shape)}"
            )
        neuron = isinstance(call.module, Lif)
        deviation = (
            0.0
            if neuron
            else float((found - expected).abs().max() / expected.std().clamp_min(1e-12))
        )
        wrong, fired = (
            (int((found != expected).sum()), int(found.count_nonzero())) if neuron else (0, 0)
        )
        yield LayerCheck(
            call.path, neuron, len(expected), expected.numel(), wrong, deviation, fired
        )
