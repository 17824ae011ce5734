"""Image files: read as the model takes them, or refused with what they are and what they should be."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import encoded, picture
from PIL import Image

from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import InputError
from zoo.images import normalise, read_image
from zoo.samples import samples
from zoo.training.data import Images, load_split


def save(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(array).save(path)
    return array


def test_grey_and_colour_images(tmp_path: Path) -> None:
    grey, colour = save(tmp_path / "grey.png", (28, 28)), save(tmp_path / "colour.png", (32, 32, 3))
    changes: list[str] = []
    assert np.array_equal(read_image(tmp_path / "grey.png", DATASETS["fmnist"], changes=changes).numpy(), grey[None])
    shown = read_image(str(tmp_path / "colour.png"), DATASETS["cifar10"], changes=changes)
    assert np.array_equal(shown.numpy(), colour.transpose(2, 0, 1)) and changes == []


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "RGBA"), ("GIF", "P"), ("JPEG", "L"), ("WEBP", "RGB")]
)
@pytest.mark.parametrize("tag", ["fmnist", "cifar10", "in1k"])
def test_an_image_is_what_an_evaluation_sees(kind: str, mode: str, tag: str, tmp_path: Path) -> None:
    """The reader of data sets and that of `classify`, and Pillow's image itself: equal pixels."""
    data = replace(DATASETS[tag], num_classes=1, classes=())
    path = tmp_path / "val" / "a" / f"image.{kind.lower()}"
    path.parent.mkdir(parents=True)
    path.write_bytes(encoded(picture(5, 300, 200).convert(mode), kind))
    split = load_split(data, "test", tmp_path)
    assert isinstance(split, Images)
    assert torch.equal(split.pixels[0], read_image(path, data))
    with Image.open(path) as image:
        assert torch.equal(split.pixels[0], read_image(image, data))


def refused(path: Path, data: DatasetSpec, *said: str) -> None:
    with pytest.raises(InputError) as error:
        read_image(path, data)
    message = str(error.value)
    assert "\n" not in message and all(part in message for part in said), message


@pytest.mark.parametrize("raw", [b"", b"not an image", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_refused(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "image.png").write_bytes(raw)
    refused(tmp_path / "image.png", DATASETS["fmnist"], "image.png", "not an image that can be read")


def test_a_truncated_image_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "image.png", (28, 28))
    (tmp_path / "image.png").write_bytes((tmp_path / "image.png").read_bytes()[:-200])
    refused(tmp_path / "image.png", DATASETS["fmnist"], "image.png")


def test_a_missing_image_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "image.png", DATASETS["fmnist"], "image.png does not exist")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, DATASETS["fmnist"], f"{tmp_path} is a folder: name image files")
    refused(Path("-"), DATASETS["fmnist"], "- does not exist; images are read from files alone")
    np.save(tmp_path / "image.npy", np.zeros((28, 28), np.uint8))
    refused(tmp_path / "image.npy", DATASETS["fmnist"], "image.npy", "unknown format; valid are JPEG, PNG")


def test_a_model_of_events_takes_no_images(tmp_path: Path) -> None:
    save(tmp_path / "image.png", (34, 34))
    refused(tmp_path / "image.png", DATASETS["nmnist"], "a model of N-MNIST takes 2 channels of events, not images")


def test_an_image_that_claims_to_be_huge_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "image.png", (64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refused(tmp_path / "image.png", DATASETS["fmnist"], "image.png")


@pytest.mark.parametrize("tag", ["fmnist", "cifar10"])
def test_normalise(tag: str) -> None:
    data = DATASETS[tag]
    pixels = torch.randint(0, 256, (2, data.channels, 4, 4), dtype=torch.uint8)
    for c in range(data.channels):
        expected = (pixels[:, c].double() / 255 - data.mean[c]) / data.std[c]
        torch.testing.assert_close(normalise(pixels, data)[:, c].double(), expected, rtol=1e-5, atol=1e-6)


def test_bundled_samples_fit_their_data_set() -> None:
    data = DATASETS["fmnist"]
    pixels, labels = samples("fmnist")
    assert pixels.dtype == torch.uint8 and pixels.shape[1:] == (data.channels, data.size, data.size)
    assert len(labels) == len(pixels) and set(labels.tolist()) == set(range(data.num_classes))
    with pytest.raises(InputError, match="no bundled images of 'in1k'; there are some of fmnist"):
        samples("in1k")
