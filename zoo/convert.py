"""Checkpoints of the published SEW, Spiking and MS ResNets as model folders of ours. They are
pickles: nothing of them is run.

A child process with limited memory and time reads the tensors with torch's restricted unpickler and
writes them as safetensors; here they are renamed, and must then fit the network key for key.

| family | keys of | in the form of | |---|---|---| | sew-resnet, spiking-resnet |
github.com/fangwei123456/Spike-Element-Wise-ResNet | SpikingJelly's, of 2021 (`module.k`) and since
| | ms-resnet | github.com/Ariande1/MS-ResNet | its own (`residual_function.k`) |
"""

import argparse
import contextlib
import json
import os
import pickle
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

import zoo
from zoo.danet import DANet
from zoo.errors import InputError, WeightsError
from zoo.integrity import sha256
from zoo.names import ModelSpec
from zoo.provenance import CONVERTED_FILE
from zoo.weights import write_model

__all__ = ["SOURCES", "convert", "rename"]

SOURCES = {  # who published checkpoints with these keys
    "sew-resnet": "Fang et al., NeurIPS 2021, github.com/fangwei123456/Spike-Element-Wise-ResNet",
    "spiking-resnet": "Fang et al., NeurIPS 2021, github.com/fangwei123456/Spike-Element-Wise-ResNet",
    "ms-resnet": "Hu et al. 2021, github.com/Ariande1/MS-ResNet",
}

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

MARGIN = 512 * 2**20  # bytes that the child may take beside the checkpoint
PATIENCE = 600  # seconds


def convert(
    checkpoint: str | Path,
    arch: str,
    out: str | Path,
    *,
    source: str | None = None,
    licence: str = "unknown",
) -> DANet:
    """Write the model folder `out` from a published checkpoint of architecture `arch`
    (`sew-resnet18-t4`), and return the model.

    `source` says who trained it, if not the authors in `SOURCES`; `licence` is an identifier of
    SPDX. The weights are kept in the precision they have. Raises `InputError` for an architecture
    without published checkpoints or an `out` that exists, `WeightsError` for a file that is no such
    checkpoint; then there is no `out`.
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
    with tempfile.TemporaryDirectory() as scratch:
        tensors = _read_apart(checkpoint, Path(scratch) / "tensors")
        _fill(model, rename(tensors, spec), checkpoint)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as beside:
        folder = Path(beside) / out.name
        write_model(
            folder, model, name=model.known_origin.name, data=model.known_origin.data, half=False
        )
        said = {
            "provenance": "converted",
            "source": source or SOURCES[spec.family],
            "licence": licence,
            "checkpoint": checkpoint.name,
            "sha256": sha256(checkpoint),
        }
        (folder / CONVERTED_FILE).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        folder.rename(out)
    return model.eval()


def rename(tensors: Mapping[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """Keys of the published code -> keys of ours. Raises `WeightsError` naming a key that the code
    does not have.
    """
    rules = _SEW
    if spec.family == "ms-resnet":
        rules = _MS104 if spec.depth == 104 else _MS
    # saved from within DistributedDataParallel
    parallel = bool(tensors) and all(key.startswith("module.") for key in tensors)
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        theirs = key.removeprefix("module.") if parallel else key
        ours = next(
            (
                re.sub(pattern, into, theirs)
                for pattern, into in rules
                if re.fullmatch(pattern, theirs)
            ),
            None,
        )
        if ours is None or ours in found:
            raise WeightsError(f"key {key!r} is not one of a published {spec.family}")
        found[ours] = tensor
    return found


def _fill(model: DANet, tensors: dict[str, Tensor], checkpoint: Path) -> None:
    """Strictly: only what a neuron is made of is the network's own."""
    state = model.state_dict()
    expected = {key for key in state if ".neuron." not in key}
    for key in sorted(expected ^ tensors.keys()):
        whose = (
            "is missing in the checkpoint"
            if key in expected
            else "of the checkpoint is none of the network"
        )
        raise WeightsError(f"{checkpoint}: {key} {whose}: is it another depth or family?")
    for key, tensor in tensors.items():
        if tensor.shape != state[key].shape:
            raise WeightsError(
                f"{checkpoint}: {key} has shape {list(tensor.shape)}, expected {list(state[key].shape)}"
            )
    model.load_state_dict(state | tensors)


def _read_apart(checkpoint: Path, out: Path) -> dict[str, Tensor]:
    """The tensors of a pickle, read in a child process."""
    environment = os.environ | {"PYTHONPATH": str(Path(zoo.__file__).parent.parent)}
    command = [sys.executable, "-P", "-m", "zoo.convert", str(checkpoint.resolve()), str(out)]
    try:
        child = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        said = child.stderr.strip().splitlines() or [f"exit status {child.returncode}"]
        if child.returncode:
            raise WeightsError(f"{checkpoint} cannot be read: {said[-1]}")
        return load_file(out)
    except subprocess.TimeoutExpired:
        raise WeightsError(f"{checkpoint} cannot be read within {PATIENCE} seconds") from None
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{checkpoint} cannot be read: {error}") from None


def _child(checkpoint: Path, out: Path) -> None:
    """In a process of its own: from the checkpoint's state dict to safetensors, or one line on
    stderr.
    """
    _limit_memory(3 * checkpoint.stat().st_size + MARGIN)
    try:
        # Training scripts keep their command line beside the weights.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for name in ("model", "state_dict"):
            content = content.get(name, content)
        tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
        if len(tensors) < len(content) or not tensors:
            raise ValueError(
                "it holds no state dict: expected tensors by name, or those under 'model' or 'state_dict'"
            )
        save_file(
            {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}, out
        )
    except MemoryError:
        sys.exit("it needs more memory than its size explains")
    except pickle.UnpicklingError as error:  # whose own advice is to run what the file says
        strange = re.search(r"[Gg]lobal:?\s+(?:GLOBAL )?([\w.]+)", str(error))
        sys.exit(
            f"it holds {strange[1]}, and only tensors are read"
            if strange
            else "it is not a checkpoint saved by torch.save"
        )
    except Exception as error:  # whatever a hostile file makes the reader raise
        sys.exit(" ".join(str(error).split())[:300] or type(error).__name__)


def _limit_memory(more: int) -> None:
    """Let this process take so many bytes more, where the system can limit it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    _child(*map(Path, sys.argv[1:]))
