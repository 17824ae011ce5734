"""A few real images of each data set whose licence lets us ship them.

They let a newcomer try every command at once. `fmnist`: the first 256 test images of Fashion-MNIST,
(c) 2017 Zalando SE, MIT licence (LICENSE.fmnist beside this file).
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from zoo.errors import InputError

__all__ = ["samples"]


def samples(tag: str) -> tuple[Tensor, Tensor]:
    """Return the bundled pixels uint8 `[N, C, H, W]` and labels int64 `[N]` of a data set.

    Raises `InputError` for a data set without bundled images.
    """
    path = Path(__file__).parent / f"{tag}.safetensors"
    if not path.is_file():
        tags = ", ".join(sorted(file.stem for file in path.parent.glob("*.safetensors")))
        raise InputError(
            f"no bundled images of {tag!r}, only of {tags}: give image files, or a data set "
            "(--images FILE ... or --data SOURCE)"
        )
    tensors = load_file(path)
    return tensors["pixels"], tensors["labels"]
