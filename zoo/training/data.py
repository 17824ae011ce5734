"""Data sets that fit into memory, decoded once into bytes.

Fashion-MNIST (Xiao et al. 2017, MIT licence) is read from its four IDX files, as Debian's package `dataset-fashion-mnist` installs
them.
"""

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from zoo.datasets import DATASETS
from zoo.errors import InputError

__all__ = ["FOLDERS", "Images", "load_images"]


# Where a data set lies if nobody says otherwise.
FOLDERS = {"fmnist": Path("/usr/share/datasets/fashion-mnist")}


@dataclass(frozen=True)
class Images:
    """A labelled set of images: pixels uint8 `[N, C, H, W]`, labels int64 `[N]`."""

    pixels: Tensor
    labels: Tensor


def load_images(dataset: str, split: str, folder: Path | None = None) -> Images:
    """A split (`train` or `test`) of a data set. Raises `InputError` where its files are missing or are not what they should be."""
    if dataset not in FOLDERS:
        raise InputError(f"data set {dataset!r} cannot be read; valid are {', '.join(FOLDERS)}")
    spec = DATASETS[dataset]
    folder = folder or FOLDERS[dataset]
    prefix = {"train": "train", "test": "t10k"}[split]
    pixels = _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", 3)
    labels = _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 1)
    if len(pixels) != len(labels) or pixels.shape[1:] != (spec.size, spec.size):
        raise InputError(f"{folder}: {tuple(pixels.shape)} images and {len(labels)} labels are not {spec.title}")
    return Images(torch.from_numpy(pixels).unsqueeze(1), torch.from_numpy(labels).long())


def _read_idx(path: Path, dims: int) -> np.ndarray:
    """A gzipped IDX file of bytes: magic 0x0000_08dd, `dd` sizes as big-endian uint32, the bytes."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: install Debian's dataset-fashion-mnist, or name the folder with --data") from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    sizes = np.frombuffer(raw, ">u4", dims, 4) if len(raw) >= 4 + 4 * dims else np.zeros(dims, int)
    if raw[:4] != bytes((0, 0, 8, dims)) or len(raw) != 4 + 4 * dims + int(np.prod(sizes.astype(np.int64))):
        raise InputError(f"{path} is not a complete IDX file of bytes with {dims} dimensions")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * dims).reshape(sizes).copy()
