"""Is the exported graph the model? Layer by layer, teacher-forced.

Comparing logits proves nothing in a deep spiking network: one borderline spike cascades. So each of the model's modules is given
the *exported* graph's own values as input. A neuron must then give the same spikes, every one; any other module must agree to
2e-5 of its output's standard deviation (float32 sums in another order).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import Tensor, nn

from export.fold import fold, folded_norms, still_image
from export.runtime import session
from export.trace import INPUT, Call, leaves, trace
from zoo.danet import DANet
from zoo.errors import ExportError
from zoo.neurons import Lif

__all__ = ["TOLERANCE", "Line", "Verification", "verify_onnx"]

TOLERANCE = 2e-5  # of the standard deviation
BATCHES = (1, 2)  # the export was made with 2
TAP_BYTES = 1 << 28  # of values fetched from one run


@dataclass(frozen=True)
class Line:
    """One module's output at one batch size."""

    path: str
    neuron: bool
    batch: int
    elements: int
    wrong_spikes: int  # of a neuron
    deviation: float  # of any other module: largest difference over the standard deviation

    @property
    def ok(self) -> bool:
        return self.wrong_spikes == 0 if self.neuron else self.deviation <= TOLERANCE

    def __str__(self) -> str:
        what = (
            f"{self.wrong_spikes} of {self.elements} spikes differ"
            if self.neuron
            else f"off by {self.deviation:.1e} of its deviation"
        )
        return f"{self.path} at batch {self.batch}: {what}"


@dataclass(frozen=True)
class Verification:
    lines: tuple[Line, ...]
    missing: tuple[str, ...]  # neurons and weighted layers of the model without a value in the export
    altered: tuple[str, ...]  # weighted layers whose stored weights are not the model's, whether or not a spike reached them
    batches: tuple[int, ...]
    same_argmax: int  # images whose end-to-end prediction agrees, a report and not a condition
    images: int

    @property
    def ok(self) -> bool:
        return not (self.missing or self.altered) and all(line.ok for line in self.lines)

    @property
    def neurons(self) -> int:
        return len({line.path for line in self.lines if line.neuron})

    @property
    def spikes(self) -> int:
        """Compared values of neurons."""
        return sum(line.elements for line in self.lines if line.neuron)

    @property
    def deviation(self) -> float:
        return max(line.deviation for line in self.lines)

    def worst(self) -> str:
        if self.missing:
            return f"it has no value for {self.missing[0]}"
        if self.altered:
            return f"it stores other weights for {self.altered[0]}"
        return str(max(self.lines, key=lambda line: (not line.ok, line.wrong_spikes / line.elements, line.deviation)))

    def __str__(self) -> str:
        if not self.ok:
            return f"NOT verified: {self.worst()}"
        return (
            f"verified at batch {' and '.join(map(str, self.batches))}: {self.neurons} neuron layers spike for spike "
            f"({self.spikes:,} values), the rest to {self.deviation:.1e} of the standard deviation; "
            f"same prediction for {self.same_argmax} of {self.images} images"
        )


def verify_onnx(model: DANet, path: Path, images: Tensor | None = None) -> Verification:
    """Compare the ONNX file at `path` with `model` on `images` (normalised, at least 3; noise if none are given)."""
    model.eval()
    if images is None:
        images = torch.randn(still_image(model, sum(BATCHES)).shape, generator=torch.Generator().manual_seed(0))
    try:
        proto = onnx.load(path)
    except (OSError, DecodeError) as error:
        raise ExportError(f"{path} is not an ONNX file: {str(error).splitlines()[0]}") from None
    if not proto.opset_import:
        raise ExportError(f"{path} is not an ONNX file: it names no operator set")
    exported = {name for node in proto.graph.node for name in node.output}
    calls = trace(model, still_image(model))
    names = _exported_names(calls, exported)
    lines: list[Line] = []
    same, start = 0, 0
    for batch in BATCHES:
        x = images[start : start + batch]
        start += batch
        for group in _groups(calls, batch):
            lines += _compare(proto, group, names, x)
        with torch.inference_mode():
            logits = session(str(path)).run(["logits"], {"images": x.numpy()})[0]
            same += int((model(x).argmax(1) == torch.from_numpy(np.asarray(logits)).argmax(1)).sum())
    weighted = {c.path for c in calls if isinstance(c.module, nn.Conv2d | nn.Linear)}
    covered = {line.path for line in lines}
    covered |= {c.inputs[0] for c in calls if c.path in covered and isinstance(c.module, nn.BatchNorm2d)}  # conv inside its bn
    wanted = weighted | {c.path for c in calls if isinstance(c.module, Lif)}
    return Verification(tuple(lines), tuple(sorted(wanted - covered)), _altered(model, proto), BATCHES, same, sum(BATCHES))


def _altered(model: DANet, proto: onnx.ModelProto) -> tuple[str, ...]:
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    layers = [(path, m) for path, m in leaves(fold(model)) if isinstance(m, nn.Conv2d | nn.Linear)]
    return tuple(
        path
        for path, layer in layers
        if (name := f"{path}.weight") not in stored
        or not np.array_equal(numpy_helper.to_array(stored[name]), layer.weight.detach().numpy())
    )


def _exported_names(calls: list[Call], exported: set[str]) -> dict[str, str]:
    """The export's name for each module's output, where it has one: a folded BatchNorm's output is its convolution's."""
    merged = folded_norms(calls)
    names = {call.path: call.path for call in calls if call.path not in merged.values()} | merged | {calls[-1].path: "logits"}
    return {INPUT: "images"} | {path: name for path, name in names.items() if name in exported}


def _groups(calls: list[Call], batch: int) -> Iterator[list[Call]]:
    """Consecutive calls whose values fit into `TAP_BYTES` together; a convolution stays with its BatchNorm."""
    group: list[Call] = []
    size = 0
    for i, call in enumerate(calls):
        group.append(call)
        size += 8 * batch * int(np.prod(call.out_shape))
        followed = i + 1 < len(calls) and isinstance(calls[i + 1].module, nn.BatchNorm2d)
        if size > TAP_BYTES and not followed:
            yield group
            group, size = [], 0
    if group:
        yield group


@torch.inference_mode()
def _compare(proto: onnx.ModelProto, calls: list[Call], names: dict[str, str], x: Tensor) -> Iterator[Line]:
    """Run each module on the export's values and compare its output with the export's."""
    read = {p for call in calls for p in (*call.inputs, call.path)}
    taps = sorted({names[p] for p in read if p in names} - {"images"})
    values = dict(zip(taps, _tapped(proto, taps, x), strict=True)) | {"images": x}
    local: dict[str, Tensor] = {}  # outputs that the export does not have
    for call in calls:
        inputs = [values[names[p]] if p in names else local[p] for p in call.inputs]
        expected = call.module(*inputs)
        if call.path not in names:
            local[call.path] = expected
            continue
        found = values[names[call.path]]
        if found.shape != expected.shape:
            raise ExportError(f"{call.path}: the export's value has shape {list(found.shape)}, the model's {list(expected.shape)}")
        neuron = isinstance(call.module, Lif)
        deviation = 0.0 if neuron else float((found - expected).abs().max() / expected.std().clamp_min(1e-12))
        yield Line(call.path, neuron, len(x), expected.numel(), int((found != expected).sum()) if neuron else 0, deviation)


def _tapped(proto: onnx.ModelProto, names: list[str], x: Tensor) -> list[Tensor]:
    """The values of `names` in one run of the graph."""
    outputs = list(proto.graph.output)
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    try:
        return [torch.from_numpy(v) for v in session(proto.SerializeToString()).run(names, {"images": x.numpy()})]
    finally:
        del proto.graph.output[:]
        proto.graph.output.extend(outputs)
