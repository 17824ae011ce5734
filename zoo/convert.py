"""Checkpoints of the published SEW, Spiking and MS ResNets become model folders of ours.

They are pickles: nothing of them is run. A child process with limited memory and time
(`zoo.sandbox`) reads the tensors with torch's restricted unpickler and sends each as safetensors;
here they are renamed, and must then fit the network key for key.

| family | keys of | in the form of |
|---|---|---|
| sew-resnet, spiking-resnet | github.com/fangwei123456/Spike-Element-Wise-ResNet | SpikingJelly's, of 2021 (`module.k`) and since |
| ms-resnet | github.com/Ariande1/MS-ResNet | its own (`residual_function.k`) |
"""  # noqa: E501 -- a table

import argparse
import json
import pickle
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

import zoo
from zoo import sandbox
from zoo.danet import DANet
from zoo.errors import InputError, WeightsError, first_line
from zoo.integrity import sha256
from zoo.names import ModelSpec
from zoo.provenance import CONVERTED_FILE
from zoo.weights import write_model

__all__ = ["SOURCES", "convert", "rename"]

_FANG = "Fang et al., NeurIPS 2021, github.com/fangwei123456/Spike-Element-Wise-ResNet"
SOURCES = {  # who published checkpoints with these keys
    "sew-resnet": _FANG,
    "spiking-resnet": _FANG,
    "ms-resnet": "Hu et al. 2021, github.com/Ariande1/MS-ResNet",
}

NO_CHECKPOINT = "it is not a checkpoint saved by torch.save"

Rules = tuple[tuple[str, str], ...]
# Theirs -> ours; the first pattern that matches the whole key.
_DOWN = r"layer(\d)\.(\d+)\.downsample(?:(?:\.0)?\.module|\.0(?=\.[01]\.))?"
_SEW: Rules = (
    (r"(conv|bn)1\.(\w+)", r"stem.\1.\2"),
    (r"layer(\d)\.(\d+)\.conv(\d)(?:\.module)?\.0\.(\w+)", r"stage\1.block\2.conv\3.\4"),
    (r"layer(\d)\.(\d+)\.conv(\d)(?:\.module)?\.1\.(\w+)", r"stage\1.block\2.bn\3.\4"),
    (r"layer(\d)\.(\d+)\.((?:conv|bn)\d\.\w+)", r"stage\1.block\2.\3"),
    (rf"{_DOWN}\.0\.(\w+)", r"stage\1.block\2.shortcut.conv.\3"),
    (rf"{_DOWN}\.1\.(\w+)", r"stage\1.block\2.shortcut.bn.\3"),
    (r"fc\.(\w+)", r"head.fc.\1"),
)
_MS: Rules = (
    (r"conv1\.0\.(\w+)", r"stem.conv.\1"),
    (r"conv1\.1\.bn\.(\w+)", r"stem.bn.\1"),
    *(
        (rf"conv{stage + 1}_x\.(\d+)\.{theirs}\.(\w+)", rf"stage{stage}.block\1.{ours}.\2")
        for stage in range(1, 5)
        for theirs, ours in (
            (r"residual_function\.1", "conv1"),
            (r"residual_function\.2\.bn", "bn1"),
            (r"residual_function\.4", "conv2"),
            (r"residual_function\.5\.bn", "bn2"),
            (r"shortcut\.[01]", "shortcut.conv"),
            (r"shortcut\.[12]\.bn", "shortcut.bn"),
        )
    ),
    (r"fc\.(\w+)", r"head.fc.\1"),
)
_MS104: Rules = (  # whose stem has three convolutions
    *((rf"conv1\.{k}\.(\w+)", rf"stem.conv{k + 1}.\1") for k in range(3)),
    (r"conv1\.3\.bn\.(\w+)", r"stem.bn.\1"),
    *_MS[2:],
)

SPARE_BYTES = 512 * 2**20  # that the child may take besides thrice the checkpoint
MAX_SECONDS = 600


def convert(
    checkpoint: str | Path,
    arch: str,
    out: str | Path,
    *,
    source: str | None = None,
    licence: str = "unknown",
) -> DANet:
    """Write the model folder `out` from a published checkpoint, and return the model.

    `arch` is a name of the zoo, as `sew-resnet18-t4`. `source` says who trained it, if not the
    authors in `SOURCES`; `licence` is an identifier of SPDX. The weights are kept in the precision
    they have. Raises `InputError` for an architecture without published checkpoints or an `out`
    that exists, `WeightsError` for a file that is no such checkpoint; then there is no `out`.
    """
    checkpoint, out = Path(checkpoint), Path(out)
    model = zoo.create(arch)
    spec = ModelSpec.parse(model.known_origin.name)
    if spec.family not in SOURCES:
        raise InputError(
            f"{arch}: checkpoints are known of {', '.join(SOURCES)}, as in sew-resnet18-t4"
        )
    if out.exists():
        raise InputError(f"{out} exists already: name a folder that does not")
    if not checkpoint.is_file():
        raise WeightsError(f"{checkpoint} is not a file: expected a checkpoint saved by torch.save")
    _fill(model, rename(_read_tensors(checkpoint), spec), checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside:
        folder = Path(beside) / out.name
        write_model(
            folder, model, name=model.known_origin.name, data=model.known_origin.data, half=False
        )
        provenance = {
            "provenance": "converted",
            "source": source or SOURCES[spec.family],
            "licence": licence,
            "checkpoint": checkpoint.name,
            "sha256": sha256(checkpoint),
        }
        text = json.dumps(provenance, indent=2) + "\n"
        (folder / CONVERTED_FILE).write_text(text, encoding="utf-8")
        folder.rename(out)
    return model.eval()


def rename(tensors: Mapping[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """Return the tensors of the published code by our keys.

    Raises `WeightsError` that names a key which that code does not have.
    """
    rules = _SEW
    if spec.family == "ms-resnet":
        rules = _MS104 if spec.depth == 104 else _MS
    # DistributedDataParallel puts "module." before every key.
    parallel = bool(tensors) and all(key.startswith("module.") for key in tensors)
    renamed: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        ours = _our_key(key.removeprefix("module.") if parallel else key, rules)
        if ours is None or ours in renamed:
            raise WeightsError(f"key {key!r} is not one of a published {spec.family}")
        renamed[ours] = tensor
    return renamed


def _our_key(theirs: str, rules: Rules) -> str | None:
    """Return our key for one of theirs, by the first rule that matches all of it."""
    for pattern, into in rules:
        if re.fullmatch(pattern, theirs):
            return re.sub(pattern, into, theirs)
    return None


def _fill(model: DANet, tensors: dict[str, Tensor], checkpoint: Path) -> None:
    """Load exactly the tensors of the network; only what a neuron is made of is its own.

    Raises `WeightsError` for a key that is missing, or too many, and for another shape.
    """
    state = model.state_dict()
    expected = {key for key in state if ".neuron." not in key}
    for key in sorted(expected ^ tensors.keys()):
        if key in expected:
            wrong = f"{key} is missing in the checkpoint"
        else:
            wrong = f"{key} of the checkpoint is none of the network"
        raise WeightsError(f"{checkpoint}: {wrong}: is it another depth or family?")
    for key, tensor in tensors.items():
        if tensor.shape != state[key].shape:
            shape, valid = list(tensor.shape), list(state[key].shape)
            raise WeightsError(f"{checkpoint}: {key} has shape {shape}, expected {valid}")
    model.load_state_dict(state | tensors)


def _read_tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Return the tensors of a pickle, which a child process reads."""
    most = 3 * checkpoint.stat().st_size + SPARE_BYTES
    limits = sandbox.Limits(memory_bytes=most, result_bytes=most, seconds=MAX_SECONDS)
    tensors: dict[str, Tensor] = {}
    try:
        for packed in sandbox.run(_send_tensors, checkpoint, limits).values():
            tensors |= safetensors.torch.load(packed.tobytes())
    except sandbox.Crashed as error:
        why = f" within {MAX_SECONDS} seconds" if error.too_slow else f": {error}"
        raise WeightsError(f"{checkpoint} cannot be read{why}") from None
    except (sandbox.Refused, SafetensorError, AttributeError) as error:
        raise WeightsError(f"{checkpoint} cannot be read: {first_line(error)}") from None
    return tensors


def _send_tensors(checkpoint: Path, sender: sandbox.Sender) -> None:
    """Send each tensor of a checkpoint's state dict as safetensors, from the child process."""
    try:
        for number, (key, tensor) in enumerate(_state_dict(checkpoint).items()):
            packed = safetensors.torch.save({key: tensor.detach().clone().contiguous()})
            sender.array(str(number), np.frombuffer(packed, np.uint8))
    except MemoryError:
        raise sandbox.Refused("it needs more memory than its size explains") from None
    except pickle.UnpicklingError as error:  # whose own advice is to run what the file says
        strange = re.search(r"[Gg]lobal:?\s+(?:GLOBAL )?([\w.]+)", str(error))
        raise sandbox.Refused(
            f"it holds {strange[1]}, and only tensors are read" if strange else NO_CHECKPOINT
        ) from None
    except LookupError:  # the bytes of another file, taken for those of a pickle
        raise sandbox.Refused(NO_CHECKPOINT) from None
    except Exception as error:  # whatever a hostile file makes the reader raise
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise sandbox.Refused(why) from None


def _state_dict(checkpoint: Path) -> dict[str, Tensor]:
    # Training scripts keep their command line beside the weights.
    with torch.serialization.safe_globals([argparse.Namespace]):
        content = torch.load(checkpoint, map_location="cpu", weights_only=True)
    for name in ("model", "state_dict"):
        content = content.get(name, content)
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if len(tensors) < len(content) or not tensors:
        raise ValueError(
            "it holds no state dict: expected tensors by name, or those under 'model' or "
            "'state_dict'"
        )
    return tensors
