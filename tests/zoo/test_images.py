"""Images are read as the model takes them, or refused with what they are and should be."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.pictures import encoded, picture

from zoo.datasets import DATASETS, DatasetSpec
from zoo.errors import InputError
from zoo.images import Transform, normalise, read_image
from zoo.samples import drawings, samples
from zoo.training.data import Images, load_split


def save(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    array = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(array).save(path)
    return array


def test_grey_and_colour_images(tmp_path: Path) -> None:
    grey, colour = save(tmp_path / "grey.png", (28, 28)), save(tmp_path / "colour.png", (32, 32, 3))
    changes: list[str] = []
    assert np.array_equal(
        read_image(tmp_path / "grey.png", DATASETS["fmnist"], changes=changes).numpy(), grey[None]
    )
    shown = read_image(str(tmp_path / "colour.png"), DATASETS["cifar10"], changes=changes)
    assert np.array_equal(shown.numpy(), colour.transpose(2, 0, 1)) and changes == []


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "RGBA"), ("GIF", "P"), ("JPEG", "L"), ("WEBP", "RGB")],
)
@pytest.mark.parametrize("tag", ["fmnist", "cifar10", "in1k"])
def test_an_image_is_what_an_evaluation_sees(
    kind: str, mode: str, tag: str, tmp_path: Path
) -> None:
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
    refused(
        tmp_path / "image.png", DATASETS["fmnist"], "image.png", "not an image that can be read"
    )


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
    refused(
        tmp_path / "image.npy",
        DATASETS["fmnist"],
        "image.npy",
        "unknown format; valid are JPEG, PNG",
    )


def test_a_model_of_events_takes_no_images(tmp_path: Path) -> None:
    save(tmp_path / "image.png", (34, 34))
    refused(
        tmp_path / "image.png",
        DATASETS["nmnist"],
        "a model of N-MNIST takes recordings of events, files .npy, ",
    )


def test_an_image_that_claims_to_be_huge_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "image.png", (64, 64))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    refused(tmp_path / "image.png", DATASETS["fmnist"], "image.png")


@pytest.mark.parametrize("tag", ["fmnist", "cifar10"])
def test_normalise(tag: str) -> None:
    data = DATASETS[tag]
    pixels = torch.randint(0, 256, (2, data.channels, 4, 4), dtype=torch.uint8)
    for c in range(data.channels):
        expected = (pixels[:, c].double() / 255 - data.mean[c]) / data.std[c]
        torch.testing.assert_close(
            normalise(pixels, data)[:, c].double(), expected, rtol=1e-5, atol=1e-6
        )


def test_bundled_samples_fit_their_data_set() -> None:
    data = DATASETS["fmnist"]
    pixels, labels = samples("fmnist")
    assert pixels.dtype == torch.uint8 and pixels.shape[1:] == (data.channels, data.size, data.size)
    assert len(labels) == len(pixels) and set(labels.tolist()) == set(range(data.num_classes))
    for tag in ("in1k", "cifar10"):
        with pytest.raises(InputError, match=f"no bundled test images of '{tag}', only of fmnist:"):
            samples(tag)


def test_bundled_drawings_show_each_class_and_are_no_samples() -> None:
    data, drawn = DATASETS["cifar10"], drawings("cifar10")
    assert drawn is not None and drawings("fmnist") is None
    pixels, labels = drawn
    assert pixels.dtype == torch.uint8 and pixels.shape == (19, data.channels, data.size, data.size)
    assert labels[:10].tolist() == list(range(data.num_classes))


@pytest.mark.parametrize("tag", ["fmnist", "cifar10", "in1k"])
@pytest.mark.parametrize(("width", "height"), [(28, 28), (40, 30)])
def test_a_transform_takes_a_picture_in_any_form(
    tag: str, width: int, height: int, tmp_path: Path
) -> None:
    """As a file, Pillow's image, and arrays of either order, of numpy and torch: the same input."""
    data, image = DATASETS[tag], picture(9, width, height)
    image.save(tmp_path / "image.png")
    array = np.asarray(image)
    forms = [
        tmp_path / "image.png",
        str(tmp_path / "image.png"),
        image,
        array,
        array.transpose(2, 0, 1),
    ]
    forms += [torch.from_numpy(array.copy()), torch.from_numpy(array.transpose(2, 0, 1).copy())]
    expected = normalise(read_image(image, data)[None], data)
    transform = Transform(data)
    assert expected.shape == (1, data.channels, data.size, data.size)
    for form in forms:
        assert torch.equal(transform(form), expected)
    assert torch.equal(transform(forms), expected.expand(len(forms), -1, -1, -1))
    assert torch.equal(transform(np.stack([array, array])), expected.expand(2, -1, -1, -1))


def test_a_transform_takes_grey_pictures_and_transparent_ones() -> None:
    pixels, _ = samples("fmnist")
    transform = Transform(DATASETS["fmnist"])
    expected = normalise(pixels[:3], DATASETS["fmnist"])
    assert torch.equal(transform(pixels[:3]), expected)
    assert torch.equal(transform(list(pixels[:3, 0].numpy())), expected)
    assert torch.equal(transform(tuple(pixels[:3].permute(0, 2, 3, 1).numpy())), expected)
    clear = np.zeros((28, 28, 4), np.uint8)
    assert torch.equal(
        transform(clear),
        normalise(torch.full((1, 1, 28, 28), 255, dtype=torch.uint8), DATASETS["fmnist"]),
    )


def test_a_transform_goes_to_the_processes_of_a_loader() -> None:
    transform = Transform(DATASETS["cifar10"])
    assert pickle.loads(pickle.dumps(transform)) == transform


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((8, 8, 3)), r"an array of float64 \[8, 8, 3\] is no picture: give bytes, uint8"),
        (torch.zeros(3, 8, 8), r"an array of float32 \[3, 8, 8\] is no picture"),
        (
            np.zeros((3, 8, 3), np.uint8),
            r"may be \[C, H, W\] or \[H, W, C\]: give Pillow's Image\.fromarray",
        ),
        (
            np.zeros((8, 8, 5), np.uint8),
            r"expected \[H, W\], \[H, W, C\] or \[C, H, W\] with 1, 3 or 4 channels",
        ),
        (np.zeros(8, np.uint8), r"an array of uint8 \[8\] is no picture: expected"),
        (np.zeros((0, 8, 3), np.uint8), r"an array of uint8 \[0, 8, 3\] is no picture: expected"),
        (np.zeros((0, 3, 8, 8), np.uint8), "there are no pictures to transform"),
        ([], "there are no pictures to transform: give at least one"),
        ([None], "a NoneType is no picture: give a file, Pillow's image, or an array of bytes"),
        ("missing.png", "missing.png does not exist"),
        (Image.new("F", (4, 4)), "the image is not an image that can be read .*mode F"),
    ],
)
def test_what_is_no_picture_is_refused(given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        Transform(DATASETS["cifar10"])(given)
    assert "\n" not in str(error.value)
