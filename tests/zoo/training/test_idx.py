"""Fashion-MNIST's IDX files are read exactly, or refused."""

import gzip
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from refusals import refused

from zoo.datasets import DATASETS
from zoo.training import data as module
from zoo.training.data import Images, load_split

pytestmark = pytest.mark.usefixtures("offline")

IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
FMNIST = DATASETS["fmnist"]


def idx(array: np.ndarray) -> bytes:
    return (
        bytes((0, 0, 8, array.ndim))
        + np.array(array.shape, ">u4").tobytes()
        + array.astype(np.uint8).tobytes()
    )


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 28, 28))


@pytest.fixture
def folder(tmp_path: Path, pixels: np.ndarray) -> Path:
    (tmp_path / IMAGES).write_bytes(gzip.compress(idx(pixels)))
    (tmp_path / LABELS).write_bytes(gzip.compress(idx(np.arange(7))))
    return tmp_path


def test_pixels_and_labels(folder: Path, pixels: np.ndarray) -> None:
    images = load_split(FMNIST, "test", folder)
    assert isinstance(images, Images)
    assert (images.pixels.dtype, images.labels.dtype) == (torch.uint8, torch.int64)
    assert np.array_equal(images.pixels.squeeze(1).numpy(), pixels)
    assert images.labels.tolist() == list(range(7))


@pytest.mark.parametrize("file", [IMAGES, LABELS])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    refused(
        f"{file} does not exist: install Debian's dataset-fashion-mnist, "
        "or name the folder with --data",
        load_split,
        FMNIST,
        "test",
        folder,
    )


@pytest.mark.parametrize("file", [IMAGES, LABELS])
@pytest.mark.parametrize("keep", [0, 5, 20, -1])
def test_a_truncated_download_is_refused(folder: Path, file: str, keep: int) -> None:
    path = folder / file
    path.write_bytes(path.read_bytes()[:keep])
    refused(file, load_split, FMNIST, "test", folder)


@pytest.mark.parametrize("position", range(12, 60, 7))
def test_edited_bytes_are_refused(folder: Path, position: int) -> None:
    """gzip's own checksum, or its decoder, notices."""
    raw = bytearray((folder / IMAGES).read_bytes())
    raw[position] ^= 0xFF
    (folder / IMAGES).write_bytes(raw)
    refused(IMAGES, load_split, FMNIST, "test", folder)


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
    refused(
        f"{IMAGES} is not a complete IDX file of bytes with 3 dimensions",
        load_split,
        FMNIST,
        "test",
        folder,
    )


@pytest.mark.parametrize("shape", [(6, 28, 28), (7, 28, 27), (7, 32, 32)])
def test_images_that_are_not_the_data_set_are_refused(folder: Path, shape: tuple[int, ...]) -> None:
    (folder / IMAGES).write_bytes(gzip.compress(idx(np.zeros(shape))))
    refused(
        f"{folder}: {shape} images and 7 labels are not Fashion-MNIST",
        load_split,
        FMNIST,
        "test",
        folder,
    )


def test_a_label_that_is_no_class_of_fashion_is_refused(folder: Path) -> None:
    (folder / LABELS).write_bytes(gzip.compress(idx(np.array([0, 1, 10, 3, 4, 5, 6]))))
    refused(
        f"{folder}: the label of row 2 is 10; valid for Fashion-MNIST are 0 to 9",
        load_split,
        FMNIST,
        "test",
        folder,
    )


def test_fashion_needs_no_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert load_split(FMNIST, "test", folder).images == 7


def test_where_debian_installs_fashion_is_said_if_nothing_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(module.FOLDERS, "fmnist", tmp_path)
    refused("install Debian's dataset-fashion-mnist", load_split, FMNIST, "train", tmp_path)
