"""A few pictures for the data sets of trained networks, so that they can be tried at once.

`fmnist`: the first 256 test images of Fashion-MNIST, (c) 2017 Zalando SE, MIT licence. `cifar10`,
whose images have no licence: drawings of its classes in the public domain. They show that a network
works and measure nothing. LICENSE.* beside this file say where they come from.
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from zoo.errors import InputError

__all__ = ["drawings", "samples"]

FOLDER = Path(__file__).parent
DRAWINGS = ".drawings"


def samples(tag: str) -> tuple[Tensor, Tensor]:
    """Return the bundled test images uint8 `[N, C, H, W]` and labels int64 `[N]` of a data set.

    Raises `InputError` for a data set without bundled test images.
    """
    tags = sorted(file.stem for file in FOLDER.glob("*.safetensors") if DRAWINGS not in file.name)
    if tag not in tags:
        raise InputError(
            f"no bundled test images of {tag!r}, only of {', '.join(tags)}: give image files, or a "
            "data set (--images FILE ... or --data SOURCE)"
        )
    return _read(FOLDER / f"{tag}.safetensors")


def drawings(tag: str) -> tuple[Tensor, Tensor] | None:
    """Return bundled drawings of the classes of a data set, as `samples` does, if there are any."""
    path = FOLDER / f"{tag}{DRAWINGS}.safetensors"
    return _read(path) if path.is_file() else None


def _read(path: Path) -> tuple[Tensor, Tensor]:
    tensors = load_file(path)
    return tensors["pixels"], tensors["labels"]
