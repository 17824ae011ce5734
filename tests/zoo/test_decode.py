"""From encoded images to the bytes that a model takes."""

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from support.pictures import encoded, picture

from zoo.datasets import DatasetSpec
from zoo.decode import TURNS, Unreadable, centre, decode, encoding, random_box


def decoded(
    image: Image.Image, data: DatasetSpec, kind: str = "PNG", **options: object
) -> np.ndarray:
    return decode({"bytes": encoded(image, kind, **options), "path": None}, data, centre(data))


def test_an_image_of_the_right_size_is_taken_as_it_is(toy: DatasetSpec) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert np.array_equal(decoded(Image.fromarray(pixels), toy), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(("width", "height"), [(12, 10), (10, 12), (3, 50), (8, 9), (40, 40)])
def test_another_size_is_resized_on_its_shorter_side_and_cropped(
    width: int, height: int, toy: DatasetSpec
) -> None:
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
    assert np.array_equal(
        decoded(image, data), np.asarray(image.crop((80, 16, 304, 240))).transpose(2, 0, 1)
    )
    assert centre(data)(500, 375) == pytest.approx(
        ((500 - 375 * 0.875) / 2, 375 / 16, (500 + 375 * 0.875) / 2, 375 * 15 / 16)
    )


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "JPEG"),
        ("CMYK", "JPEG"),
        ("P", "PNG"),
        ("RGBA", "PNG"),
        ("LA", "PNG"),
        ("1", "PNG"),
        ("P", "GIF"),
        ("RGB", "WEBP"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_becomes_that_of_the_model(
    mode: str, kind: str, channels: int, toy: DatasetSpec
) -> None:
    data = replace(toy, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)
    image = Image.new("RGB", (8, 8), (200, 200, 200))
    image = image.quantize(2) if mode == "P" else image.convert(mode, dither=Image.Dither.NONE)
    pixels = decoded(image, data, kind)
    assert pixels.shape == (channels, 8, 8)
    # JPEG and palettes round
    assert np.abs(pixels.astype(int) - (255 if mode == "1" else 200)).max() <= 4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_what_is_transparent_lies_on_white(mode: str, channels: int, toy: DatasetSpec) -> None:
    """By an alpha channel, a palette's, or one transparent colour of PNG: here the left half, whose
    hidden colour is black.
    """
    data = replace(toy, channels=channels, mean=(0.5,) * channels, std=(0.5,) * channels)
    pixels = np.full((8, 8, 4), (90, 90, 90, 255), np.uint8)
    pixels[:, :4] = 0
    image, options = Image.fromarray(pixels), {}
    if mode == "P":
        image, options = image.convert("RGB").quantize(2), {"transparency": bytes([255, 255])}
        hidden = image.getpixel((0, 0))
        options["transparency"] = bytes(0 if index == hidden else 255 for index in range(2))
    elif mode in ("RGB", "L"):
        options["transparency"] = 0 if mode == "L" else (0, 0, 0)
    image = image if mode == "P" else image.convert(mode)
    shown = decoded(image, data, **options)
    assert (shown[:, :, :4] == 255).all() and (shown[:, :, 4:] == 90).all()


def test_half_transparent_is_half_white(toy: DatasetSpec) -> None:
    pixels = decoded(
        Image.new("RGB", (8, 8), (200, 10, 30)).quantize(2), toy, transparency=bytes([128, 128])
    )
    assert pixels[:, 0, 0].tolist() == pytest.approx(
        [(c * 128 + 255 * 127) / 255 for c in (200, 10, 30)], abs=3
    )


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("PNG", "grey"), ("TIFF", "grey"), ("PPM", "grey"), ("JPEG2000", "grey"), ("PPM", "colour")],
)
def test_of_sixteen_bits_the_upper_eight_are_kept(kind: str, mode: str, toy: DatasetSpec) -> None:
    """Never clipped: the whole range of 16 bits becomes the whole range of 8."""
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    if mode == "colour":  # which Pillow reads, and does not write
        rgb = np.stack([values, values[::-1], values.T], -1)
        raw = b"P6 8 8 65535\n" + rgb.astype(">u2").tobytes()
        expected = rgb.transpose(2, 0, 1) / 65535 * 255
    else:
        options = {"irreversible": False} if kind == "JPEG2000" else {}
        raw, expected = (
            encoded(Image.fromarray(values), kind, **options),
            np.stack([values >> 8] * 3),
        )
    shown = decode({"bytes": raw, "path": None}, toy, centre(toy))
    assert np.abs(shown.astype(float) - expected).max() < (1 if mode == "colour" else 1e-9)


def test_a_transparent_value_of_sixteen_bits(toy: DatasetSpec) -> None:
    values = np.full((8, 8), 90 * 256, np.uint16)
    values[:, :4] = 7
    shown = decoded(Image.fromarray(values), toy, transparency=7)
    assert (shown[:, :, :4] == 255).all() and (shown[:, :, 4:] == 90).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_an_image_is_turned_upright(orientation: int, kind: str, toy: DatasetSpec) -> None:
    """It has the pixels of a file that lies upright, whatever its format, centre and draft."""
    upright = picture(5, 40, 24)
    exif = upright.getexif()
    exif[0x0112] = orientation
    back = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)  # the orientation that undoes it
    lying = upright.transpose(TURNS[back]) if back in TURNS else upright
    options = (
        {"quality": 100, "subsampling": 0}
        if kind == "JPEG"
        else {"lossless": True}
        if kind == "WEBP"
        else {}
    )
    sources = [
        {"bytes": encoded(image, kind, **options), "path": None} for image in (lying, upright)
    ]
    sources[0]["bytes"] = encoded(lying, kind, exif=exif, **options)
    for view in (centre(toy), random_box((0.3, 1), "1")):
        for draft in (False, True):
            one, other = (decode(source, toy, view, draft=draft).astype(int) for source in sources)
            assert np.abs(one - other).max() <= (4 if kind == "JPEG" else 1)


def test_what_was_done_to_an_image_is_said(toy: DatasetSpec) -> None:
    def said(
        image: Image.Image, data: DatasetSpec = toy, kind: str = "PNG", **options: object
    ) -> list[str]:
        changes: list[str] = []
        decode(
            {"bytes": encoded(image, kind, **options), "path": None},
            data,
            centre(data),
            changes=changes,
        )
        return changes

    exif = (image := picture(5, 12, 10)).getexif()
    exif[0x0112] = 6
    assert said(picture(5, 8, 8)) == []
    assert said(picture(5, 16, 16)) == ["resized from 16x16"]
    assert said(image, exif=exif) == [
        "turned as its EXIF orientation says",
        "its centre resized from 10x12",
    ]
    assert said(picture(5, 256, 300), replace(toy, size=224)) == ["its centre cut from 256x300"]
    assert said(picture(5, 8, 8).convert("RGBA")) == [
        "transparency laid on white",
        "converted from RGBA to RGB",
    ]
    assert said(picture(5, 8, 8).convert("CMYK"), kind="JPEG") == ["converted from CMYK to RGB"]
    assert said(picture(5, 8, 8), replace(toy, channels=1, mean=(0.5,), std=(0.5,))) == [
        "converted from RGB to L"
    ]
    frames = [picture(5, 8, 8), picture(200, 8, 8)]
    for kind in ("PNG", "WEBP", "TIFF", "GIF"):
        assert (
            said(frames[0], kind=kind, save_all=True, append_images=frames[1:])[0]
            == "first of several frames"
        )


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF"])
def test_of_several_frames_the_first_is_shown(kind: str, toy: DatasetSpec) -> None:
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (5, 200)]
    shown = decoded(frames[0], toy, kind, save_all=True, append_images=frames[1:])
    assert np.abs(shown[0].astype(int) - 5).max() <= 2


def test_colour_profiles_are_ignored(toy: DatasetSpec) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    assert np.array_equal(decoded(picture(5), toy, icc_profile=profile), decoded(picture(5), toy))


def test_a_progressive_jpeg(toy: DatasetSpec) -> None:
    one, other = (
        decoded(picture(5, 64, 64), toy, "JPEG", progressive=progressive)
        for progressive in (False, True)
    )
    assert np.array_equal(one, other)


def test_random_boxes_are_as_asked_for() -> None:
    """Area and aspect ratio within their bounds, the whole range of both used, inside the image,
    the same for a seed.
    """
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
        whole, draft = (
            decode(image, data, random_box((0.3, 1), seed), draft=draft).astype(int)
            for draft in (False, True)
        )
        assert np.abs(whole - draft).max() <= 6 and np.abs(whole - draft).mean() < 1.5


def test_any_size_can_be_cropped(toy: DatasetSpec) -> None:
    rng = random.Random(0)
    for seed in range(60):
        image = {
            "bytes": encoded(picture(9, rng.randint(1, 90), rng.randint(1, 90)), "JPEG"),
            "path": None,
        }
        assert decode(image, toy, random_box((0.01, 1), str(seed)), draft=True).shape == (3, 8, 8)


PNG = encoded(picture(1))
BAD = {
    "no image": None,
    "unknown format": b"not an image",
    "empty": b"",
    "truncated": encoded(picture(1), "JPEG")[:-30],
    "cut header": PNG[:20],
    "cut": PNG[: len(PNG) // 2],
    "32 bits": encoded(Image.fromarray(np.zeros((8, 8), np.int32)), "TIFF"),
    "floats": encoded(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"),
    "Lab": encoded(Image.new("LAB", (8, 8)), "TIFF"),
    "white is zero": encoded(
        Image.fromarray(np.zeros((8, 8), np.uint16)), "TIFF", tiffinfo={262: 0}
    ),
    "PostScript": encoded(picture(1), "EPS"),
}
SAID = {
    "no image": "no image",
    "unknown format": "unknown format; valid are JPEG, PNG",
    "empty": "the file is empty",
    "truncated": "truncated",
    "32 bits": "mode I, whose range of values is not known: convert it to 8 bits a channel, grey",
    "floats": "mode F, ",
    "Lab": "mode LAB, ",
    "white is zero": "grey of another range than 16 bits from black to white: convert it",
    "PostScript": "unknown format",
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_image_is_unreadable(kind: str, toy: DatasetSpec) -> None:
    with pytest.raises(Unreadable) as error:
        decode({"bytes": BAD[kind], "path": None}, toy, centre(toy))
    assert str(error.value) and "\n" not in str(error.value)
    assert SAID.get(kind, "") in str(error.value)


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
