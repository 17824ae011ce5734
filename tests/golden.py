"""What the bundled weights say: logits, spikes of every neuron layer, and how many images are told
right.

python tests/golden.py      write down what weights say that are new, or changed, in golden.json
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import zoo
from export.energy import TorchExecutor
from zoo.datasets import DatasetSpec
from zoo.errors import InputError
from zoo.images import normalise
from zoo.manifest import read_manifest
from zoo.samples import samples

__all__ = ["PATH", "digests", "measured"]

PATH = Path(__file__).with_suffix(".json")


def measured(name: str) -> dict[str, Any]:
    """The entry of a model, as it is now."""
    model = zoo.load(name)
    assert model.origin is not None
    pixels, labels = _images(model.origin.data)
    logits, spikes = TorchExecutor(model).run(normalise(pixels, model.origin.data))
    return {
        "weights": digests(name),
        "correct": int((logits.argmax(1) == labels).sum()),
        "logits": [[round(value, 4) for value in row] for row in logits[:4].tolist()],
        "spikes": {node: int(pixels.sum()) for node, pixels in spikes.pixels.items()},
    }


def digests(name: str) -> dict[str, str]:
    """sha256 of the files that hold the weights."""
    return {
        file: spec.sha256
        for file, spec in read_manifest().weights[name].files.items()
        if file.endswith(".safetensors")
    }


def _images(data: DatasetSpec) -> tuple[Tensor, Tensor]:
    """The bundled images, or, where none may be, blocks of noise that a generator draws alike
    everywhere.
    """
    with suppress(InputError):
        return samples(data.tag)
    random = torch.Generator().manual_seed(0)
    blocks = torch.randint(
        0,
        256,
        (64, data.channels, data.size // 8, data.size // 8),
        dtype=torch.uint8,
        generator=random,
    )
    return blocks.repeat_interleave(8, 2).repeat_interleave(8, 3), torch.arange(
        64
    ) % data.num_classes


def main() -> None:
    known = json.loads(PATH.read_text(encoding="utf-8"))
    found = {
        name: known[name]
        if name in known and known[name]["weights"] == digests(name)
        else measured(name)
        for name in sorted(read_manifest().weights)
    }
    PATH.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(
        f"new: {', '.join(name for name in found if found[name] is not known.get(name)) or 'none'}"
    )


if __name__ == "__main__":
    main()
