"""Golden numbers of the bundled weights: logits, spikes of every neuron layer, images told right.

    python tests/golden.py

measures the weights that are new or changed, and writes them to golden.json.
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
from zoo.images import to_input
from zoo.manifest import read_manifest
from zoo.saccades import with_saccades
from zoo.samples import samples

__all__ = ["PATH", "digests", "measure"]

PATH = Path(__file__).with_suffix(".json")
NOISE_IMAGES, BLOCK = 64, 8  # noise in blocks of so many pixels, like the parts of a picture


def measure(name: str) -> dict[str, Any]:
    """Return the entry of a model in golden.json, as it is now."""
    model = zoo.load(name)
    data = model.known_origin.data
    pixels, labels = _images(data.images)
    x = to_input(with_saccades(pixels, data, model.config.steps), data)
    logits, spikes = TorchExecutor(model).run(x)
    return {
        "weights": digests(name),
        "correct": int((logits.argmax(1) == labels).sum()),
        "logits": [[round(value, 4) for value in row] for row in logits[:4].tolist()],
        "spikes": {node: int(counts.sum()) for node, counts in spikes.pixels.items()},
    }


def digests(name: str) -> dict[str, str]:
    """Return the sha256 of each file that holds weights of a model."""
    return {
        file: spec.sha256
        for file, spec in read_manifest().weights[name].files.items()
        if file.endswith(".safetensors")
    }


def _images(data: DatasetSpec) -> tuple[Tensor, Tensor]:
    """Return the bundled images and labels of a data set, or noise where none may be bundled.

    The noise is the same on every machine.
    """
    with suppress(InputError):
        return samples(data.tag)
    random = torch.Generator().manual_seed(0)
    side = data.size // BLOCK
    shape = (NOISE_IMAGES, data.channels, side, side)
    blocks = torch.randint(0, 256, shape, dtype=torch.uint8, generator=random)
    images = blocks.repeat_interleave(BLOCK, 2).repeat_interleave(BLOCK, 3)
    return images, torch.arange(NOISE_IMAGES) % data.num_classes


def main() -> None:
    """Measure what is new or changed, and write golden.json."""
    old = json.loads(PATH.read_text(encoding="utf-8"))
    names = sorted(read_manifest().weights)
    new = [name for name in names if old.get(name, {}).get("weights") != digests(name)]
    golden = {name: measure(name) if name in new else old[name] for name in names}
    PATH.write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")
    print(f"new: {', '.join(new) or 'none'}")


if __name__ == "__main__":
    main()
