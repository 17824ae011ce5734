"""A few real images for each data set whose licence lets us ship them, so that everything can be
tried at once.

`fmnist`: the first 256 test images of Fashion-MNIST, (c) 2017 Zalando SE, MIT licence
(LICENSE.fmnist beside this file).
"""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from zoo.errors import InputError

__all__ = ["samples"]


def samples(tag: str) -> tuple[Tensor, Tensor]:
    """Pixels uint8 `[N, C, H, W]` and labels int64 `[N]`. Raises `InputError` for a data set
    without bundled images.
    """
    path = Path(__file__).parent / f"{tag}.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.safetensors")))
        raise InputError(
            f"no bundled images of {tag!r}; there are some of {known}: name images of your own"
        )
    tensors = load_file(path)
    return tensors["pixels"], tensors["labels"]
