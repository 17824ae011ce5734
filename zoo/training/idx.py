"""IDX files: Fashion-MNIST (Xiao et al. 2017) as Debian installs it."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from zoo.datasets import DatasetSpec
from zoo.errors import InputError
from zoo.training.sources import check_labels

__all__ = ["read_idx"]

PREFIXES = {"train": "train", "test": "t10k"}  # of the names of a split's files


def read_idx(data: DatasetSpec, split: str, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels uint8 `[N, C, H, W]` and labels uint8 `[N]`.

    Raises `InputError` for files that are missing, damaged, or not the data set.
    """
    pixels = _read(folder / f"{PREFIXES[split]}-images-idx3-ubyte.gz", 3)
    labels = _read(folder / f"{PREFIXES[split]}-labels-idx1-ubyte.gz", 1)
    fits = pixels.shape[1:] == (data.size, data.size) and data.channels == 1
    if len(pixels) != len(labels) or not fits:
        raise InputError(
            f"{folder}: {tuple(pixels.shape)} images and {len(labels)} labels are not {data.title}"
        )
    check_labels(labels, data, str(folder))
    return pixels[:, None], labels


def _read(path: Path, dims: int) -> np.ndarray:
    """Return the bytes of a gzipped IDX file.

    It holds the magic number 0x0000_08dd, `dd` sizes as big-endian uint32, and the bytes.
    """
    try:
        raw = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist: install Debian's dataset-fashion-mnist, "
            "or name the folder with --data"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    header = 4 + 4 * dims
    sizes = np.frombuffer(raw, ">u4", dims, 4) if len(raw) >= header else np.zeros(dims, int)
    length = header + int(np.prod(sizes.astype(np.int64)))
    if raw[:4] != bytes((0, 0, 8, dims)) or len(raw) != length:
        raise InputError(f"{path} is not a complete IDX file of bytes with {dims} dimensions")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(sizes).copy()
