"""Fashion-MNIST's IDX files: read whole, or refused with the file's name."""

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo.errors import InputError
from zoo.training.data import load_images

IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 28, 28))


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    (tmp_path / IMAGES).write_bytes(gzip.compress(idx(pixels)))
    (tmp_path / LABELS).write_bytes(gzip.compress(idx(np.arange(7))))
    return tmp_path


def test_pixels_and_labels(folder: Path, pixels: np.ndarray) -> None:
    images = load_images("fmnist", "test", folder)
    assert (images.pixels.dtype, images.labels.dtype) == (torch.uint8, torch.int64)
    assert np.array_equal(images.pixels.squeeze(1).numpy(), pixels)
    assert images.labels.tolist() == list(range(7))


def refused(folder: Path, *said: str) -> None:
    with pytest.raises(InputError) as error:
        load_images("fmnist", "test", folder)
    message = str(error.value)
    assert "\n" not in message and all(part in message for part in said)


@pytest.mark.parametrize("file", [IMAGES, LABELS])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    refused(folder, file, "does not exist", "--data")


@pytest.mark.parametrize("file", [IMAGES, LABELS])
@pytest.mark.parametrize("keep", [0, 5, 20, -1])
def test_a_truncated_download_is_refused(folder: Path, file: str, keep: int) -> None:
    path = folder / file
    path.write_bytes(path.read_bytes()[:keep])
    refused(folder, file)


@pytest.mark.parametrize("position", range(12, 60, 7))
def test_edited_bytes_are_refused(folder: Path, position: int) -> None:
    """gzip's own checksum, or its decoder, notices."""
    raw = bytearray((folder / IMAGES).read_bytes())
    raw[position] ^= 0xFF
    (folder / IMAGES).write_bytes(raw)
    refused(folder, IMAGES)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0\0\x08",
        idx(np.zeros((7, 28, 28)))[:-1],
        idx(np.zeros((7, 28, 28))) + b"\0",
        idx(np.zeros((7, 28, 28))).replace(b"\x08", b"\x0d", 1),
        idx(np.zeros(7)),
        b"\0\0\x08\x03" + b"\xff" * 12,
    ],
    ids=["empty", "short header", "short", "long", "floats", "one dimension", "huge"],
)
def test_a_file_that_is_not_idx_images_is_refused(folder: Path, raw: bytes) -> None:
    (folder / IMAGES).write_bytes(gzip.compress(raw))
    refused(folder, IMAGES, "not a complete IDX file of bytes with 3 dimensions")


@pytest.mark.parametrize("shape", [(6, 28, 28), (7, 28, 27), (7, 32, 32)])
def test_images_that_are_not_the_data_set_are_refused(folder: Path, shape: tuple[int, ...]) -> None:
    (folder / IMAGES).write_bytes(gzip.compress(idx(np.zeros(shape))))
    refused(folder, str(folder), "7 labels are not Fashion-MNIST")


def test_a_data_set_that_cannot_be_read_is_answered_with_those_that_can() -> None:
    with pytest.raises(InputError, match="'in1k' cannot be read; valid are fmnist"):
        load_images("in1k", "test")
