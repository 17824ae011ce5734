"""From encoded images to the bytes that a model takes."""

import random
from dataclasses import replace

import numpy as np
import pytest
from pictures import encoded, picture
from PIL import Image

from zoo.datasets import DatasetSpec
from zoo.training.decode import Unreadable, centre, decode, encoding, random_box


def decoded(image: Image.Image, data: DatasetSpec, kind: str = "PNG", **options: object) -> np.ndarray:
    return decode({"bytes": encoded(image, kind, **options), "path": None}, data, centre(data))


def test_an_image_of_the_right_size_is_taken_as_it_is(toy: DatasetSpec) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert np.array_equal(decoded(Image.fromarray(pixels), toy), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(("width", "height"), [(12, 10), (10, 12), (3, 50), (8, 9), (40, 40)])
def test_another_size_is_resized_on_its_shorter_side_and_cropped(width: int, height: int, toy: DatasetSpec) -> None:
    """As two steps do it, but for the rounding of the longer side."""
    image = picture(5, width, height)
    scale = 8 / min(width, height)
    resized = image.resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    left, upper = (resized.width - 8) // 2, (resized.height - 8) // 2
    expected = np.asarray(resized.crop((left, upper, left + 8, upper + 8))).transpose(2, 0, 1)
    assert np.abs(decoded(image, toy).astype(int) - expected).max() <= 255 / min(resized.size) * 0.6


def test_large_images_are_cut_to_seven_eighths(toy: DatasetSpec) -> None:
    data = replace(toy, size=224)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (256, 384, 3), np.uint8))
    assert np.array_equal(decoded(image, data), np.asarray(image.crop((80, 16, 304, 240))).transpose(2, 0, 1))
    assert centre(data)(500, 375) == pytest.approx(((500 - 375 * 0.875) / 2, 375 / 16, (500 + 375 * 0.875) / 2, 375 * 15 / 16))


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG"), ("P", "GIF"), ("RGB", "WEBP")],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_that_of_the_model(mode: str, kind: str, channels: int, toy: DatasetSpec) -> None:
    data = replace(toy, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)
    image = Image.new("RGB", (8, 8), (200, 200, 200))
    image = image.quantize(2) if mode == "P" else image.convert(mode, dither=Image.Dither.NONE)
    pixels = decoded(image, data, kind)
    assert pixels.shape == (channels, 8, 8)
    assert np.abs(pixels.astype(int) - (255 if mode == "1" else 200)).max() <= 4  # JPEG and palettes round


def test_transparent_palettes_do_not_warn(toy: DatasetSpec) -> None:
    image = Image.new("RGB", (8, 8), (200, 10, 30)).quantize(2)
    pixels = decoded(image, toy, transparency=bytes([0, 128]))
    assert pixels[:, 0, 0].tolist() == pytest.approx([200, 10, 30], abs=3)


def test_orientation_is_ignored(toy: DatasetSpec) -> None:
    image = picture(5, 8, 8)
    exif = image.getexif()
    exif[0x0112] = 6
    assert np.array_equal(decoded(image, toy, exif=exif), decoded(image, toy))


def test_random_boxes_are_as_asked_for() -> None:
    """Area and aspect ratio within their bounds, the whole range of both used, inside the image, the same for a seed."""
    boxes = np.array([random_box((0.08, 1.0), str(seed))(500, 375) for seed in range(2000)])
    assert np.array_equal(boxes[7], random_box((0.08, 1.0), "7")(500, 375))
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 500).all() and (boxes[:, 3] <= 375).all()
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    area, ratio = width * height / (500 * 375), width / height
    assert 0.0799 < area.min() < 0.1 and 0.95 < area.max() <= 1
    assert 0.7499 < ratio.min() < 0.76 and 1.32 < ratio.max() < 1.3334
    assert len(np.unique(boxes, axis=0)) == 2000


def test_a_long_strip_gives_its_middle() -> None:
    assert random_box((1, 1), "0")(1000, 30) == (480, 0, 520, 30)
    assert random_box((1, 1), "0")(30, 1000) == (0, 480, 30, 520)
    assert random_box((0.08, 1), "0")(1, 1) is not None


def test_a_draft_is_nearly_the_whole(toy: DatasetSpec) -> None:
    """A JPEG decoded at an eighth of its size shows the same box."""
    data = replace(toy, size=16)
    image = {"bytes": encoded(picture(70, 512, 400), "JPEG", quality=95), "path": None}
    for seed in map(str, range(20)):
        whole, draft = (decode(image, data, random_box((0.3, 1), seed), draft=draft).astype(int) for draft in (False, True))
        assert np.abs(whole - draft).max() <= 6 and np.abs(whole - draft).mean() < 1.5


def test_any_size_can_be_cropped(toy: DatasetSpec) -> None:
    rng = random.Random(0)
    for seed in range(60):
        image = {"bytes": encoded(picture(9, rng.randint(1, 90), rng.randint(1, 90)), "JPEG"), "path": None}
        assert decode(image, toy, random_box((0.01, 1), str(seed)), draft=True).shape == (3, 8, 8)


PNG = encoded(picture(1))
BAD = {
    "no image": None,
    "unknown format": b"not an image",
    "empty": b"",
    "truncated": encoded(picture(1), "JPEG")[:-30],
    "cut header": PNG[:20],
    "cut": PNG[: len(PNG) // 2],
    "16 bits": encoded(Image.fromarray(np.zeros((8, 8), np.uint16))),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_is_unreadable(kind: str, toy: DatasetSpec) -> None:
    with pytest.raises(Unreadable) as error:
        decode({"bytes": BAD[kind], "path": None}, toy, centre(toy))
    assert str(error.value) and "\n" not in str(error.value)
    assert kind != "16 bits" or "convert it to 8 bits" in str(error.value)


def test_too_many_pixels_are_unreadable(toy: DatasetSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(Unreadable, match="too many pixels"):
        decode({"bytes": PNG, "path": None}, toy, centre(toy))


def test_a_file_that_went_away_is_unreadable(toy: DatasetSpec) -> None:
    with pytest.raises(Unreadable, match="No such file"):
        decode({"bytes": None, "path": "/nowhere/a.png"}, toy, centre(toy))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_how_an_image_is_stored(kind: str) -> None:
    assert encoding({"bytes": encoded(picture(1), kind), "path": None}) == kind
    assert encoding({"bytes": b"no image", "path": None}) == ""
    assert encoding({"bytes": None, "path": "absent.png"}) == ""
