"""Pictures as real cameras and programs write them, whole and damaged."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, ImageOps

from impasto import ImpastoError, sample
from impasto.pictures import decoding, images
from tests.conftest import noticed, tolerated
from tests.pictures.conftest import distance, save


def test_grey_palette_and_bilevel(tmp_path: Path, picture: Image.Image) -> None:
    grey = picture.convert("L")
    assert distance(images.read(save(grey, tmp_path / "l.png")).image, grey.convert("RGB")) == 0
    palette = picture.quantize(64)
    read = images.read(save(palette, tmp_path / "p.png")).image
    assert distance(read, palette.convert("RGB")) == 0
    bilevel = grey.convert("1")
    read = images.read(save(bilevel, tmp_path / "1.png")).image
    assert distance(read, bilevel.convert("RGB")) == 0


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_keeps_its_tones(tmp_path: Path, suffix: str) -> None:
    deep = np.linspace(0, 65535, 20 * 10).reshape(10, 20).astype(np.uint16)
    path = save(Image.fromarray(deep), tmp_path / f"deep.{suffix}")
    read = np.asarray(images.read(path).image)[..., 0]
    assert np.abs(read - deep / 257).max() <= 0.5


def chunk(kind: bytes, body: bytes) -> bytes:
    """A part of a PNG file."""
    check = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)


def png_16_bit_rgb(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> bytes:
    """A PNG of 16 bits a channel, which Pillow itself does not write."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def test_16_bit_colour(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (9, 7, 3), dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(png_16_bit_rgb(deep))
    read = np.asarray(images.read(tmp_path / "deep.png").image)
    assert np.abs(read - deep / 257).max() <= 1


def test_float_tiff(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5)
    path = save(Image.fromarray(values), tmp_path / "f.tif")
    assert np.abs(np.asarray(images.read(path).image)[..., 0] - values * 255).max() <= 0.5


@pytest.mark.parametrize("odd", [2.5, math.inf, 1e30, -math.inf, math.nan, -5.0])
def test_one_odd_value_in_a_float_tiff(tmp_path: Path, odd: float) -> None:
    values = np.linspace(0, 1, 600, dtype=np.float32).reshape(20, 30)
    values[3, 4] = odd
    path = save(Image.fromarray(values), tmp_path / "f.tif")
    with contextlib.nullcontext() if math.isfinite(odd) else tolerated():
        read = np.asarray(images.read(path).image, float)[..., 0]
    assert read[3, 4] == (255 if odd > 0 else 0)
    read[3, 4] = values[3, 4] = 0
    assert np.abs(read - values * 255).max() <= 0.5


def test_deep_pictures_that_are_all_but_black_are_told_of(tmp_path: Path) -> None:
    path = save(Image.fromarray(np.full((4, 4), 200, np.uint16)), tmp_path / "deep.png")
    with noticed("its brightest value is 200 of 65535"):
        images.read(path)
    values = np.linspace(0, 1023, 80, dtype=np.float32).reshape(8, 10)
    with noticed("is dark: its brightest value is"):
        images.read(save(Image.fromarray(values), tmp_path / "ten.tif"))


def test_lights_beyond_white_do_not_darken_the_rest(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 80, dtype=np.float32).reshape(8, 10)
    values[0] = 4
    read = np.asarray(images.read(save(Image.fromarray(values), tmp_path / "f.tif")).image, float)
    assert read[0].min() == 255
    assert np.abs(read[1:, :, 0] - values[1:] * 255).max() <= 0.5


@pytest.mark.parametrize(
    ("clear", "options"),
    [
        (Image.new("RGBA", (8, 8), (255, 0, 0, 0)), {}),
        (Image.new("LA", (8, 8), (0, 0)), {}),
        (Image.new("RGB", (8, 8), "red").quantize(2), {"transparency": 0}),
        (Image.new("RGB", (8, 8), (1, 2, 3)), {"transparency": (1, 2, 3)}),
        (Image.new("L", (8, 8), 7), {"transparency": 7}),
        (Image.fromarray(np.full((8, 8), 700, np.uint16)), {"transparency": 700}),
    ],
)
def test_alpha_is_composed_on_white(
    tmp_path: Path, clear: Image.Image, options: dict[str, Any]
) -> None:
    path = save(clear, tmp_path / "alpha.png", **options)
    assert distance(images.read(path).image, Image.new("RGB", (8, 8), "white")) == 0


def test_half_transparent_black_is_grey(tmp_path: Path) -> None:
    path = save(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), tmp_path / "half.png")
    assert images.read(path).image.getpixel((0, 0)) == (127, 127, 127)


def test_photos_from_an_iphone(tmp_path: Path, picture: Image.Image) -> None:
    """HEIC: upright, in its colours, whatever the extension."""
    exif = Image.Exif()
    exif[0x0112] = 6
    large = picture.resize((96, 64), Image.Resampling.NEAREST)
    pillow_heif.from_pillow(large).save(tmp_path / "a.heic", quality=-1, chroma=444)
    assert distance(images.read(tmp_path / "a.heic").image, large) < 3
    # Turned by the container, and said so in EXIF as well: to be turned once.
    options = {"quality": -1, "chroma": 444, "exif": exif.tobytes()}
    pillow_heif.from_pillow(large).save(tmp_path / "b.jpg", **options)
    upright = large.transpose(Image.Transpose.ROTATE_270)
    assert distance(images.read(tmp_path / "b.jpg").image, upright) < 3
    red = Image.new("RGB", (64, 64), (255, 0, 0))
    red.info["icc_profile"] = swapped_profile()
    pillow_heif.from_pillow(red).save(tmp_path / "c.heic", quality=-1, chroma=444)
    pixel = images.read(tmp_path / "c.heic").image.getpixel((8, 8))
    assert isinstance(pixel, tuple)
    assert pixel[1] > 240 > 30 > max(pixel[0], pixel[2])
    data = (tmp_path / "a.heic").read_bytes()
    for length in (len(data) // 2, 40):
        (tmp_path / "cut.heic").write_bytes(data[:length])
        with pytest.raises(ImpastoError, match=r"cut\.heic is damaged or cut short"):
            images.read(tmp_path / "cut.heic")


def test_display_p3_is_converted_with_a_profile_and_without(tmp_path: Path) -> None:
    # The same green in both, by their definitions.
    expected = (84, 202, 67)
    p3 = Image.new("RGB", (64, 64), (117, 199, 87))
    pillow_heif.from_pillow(p3).save(
        tmp_path / "nclx.heic",
        quality=-1,
        chroma=444,
        color_primaries=12,
        transfer_characteristic=13,
        matrix_coefficients=6,
    )
    save(p3, tmp_path / "icc.jpg", icc_profile=decoding.display_p3(), quality=100, subsampling=0)
    for name in ("nclx.heic", "icc.jpg"):
        assert images.read(tmp_path / name).image.getpixel((9, 9)) == pytest.approx(expected, abs=3)


@pytest.mark.parametrize(
    ("suffix", "kind"), [("avif", "AVIF"), ("jp2", "JPEG2000"), ("ico", "ICO")]
)
def test_what_else_is_read(tmp_path: Path, suffix: str, kind: str) -> None:
    owl = images.resize(images.read(sample("owl")).image, (64, 48))
    owl.save(tmp_path / f"a.{suffix}", kind, **({"sizes": [(64, 48)]} if kind == "ICO" else {}))
    assert distance(images.read(tmp_path / f"a.{suffix}").image, owl) < 8


def test_what_a_phone_puts_behind_a_photo_is_no_frame(tmp_path: Path) -> None:
    owl = images.resize(images.read(sample("owl")).image, (64, 48))
    depth = Image.new("RGB", (32, 24))
    owl.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[depth], quality=95)
    assert distance(images.read(tmp_path / "a.jpg").image, owl) < 8


def test_cmyk(tmp_path: Path, picture: Image.Image) -> None:
    for suffix in ("jpg", "tif"):
        path = save(picture.convert("CMYK"), tmp_path / f"cmyk.{suffix}")
        assert distance(images.read(path).image, picture) <= 8


CORNERS = [(0, 0), (23, 0), (23, 15), (0, 15), (0, 0), (15, 0), (15, 23), (0, 23)]
"""Where the upper left corner is, by orientation."""


@pytest.mark.parametrize(("orientation", "corner"), list(enumerate(CORNERS, 1)))
def test_exif_orientation(
    tmp_path: Path, picture: Image.Image, orientation: int, corner: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(picture, tmp_path / "turned.png", exif=exif.tobytes())
    with Image.open(path) as reopened:
        upright = ImageOps.exif_transpose(reopened)
    read = images.read(path).image
    assert distance(read, upright) == 0
    assert (read.size == picture.size) == (orientation < 5)
    assert read.getpixel(corner) == picture.getpixel((0, 0))


RUBBISH = b"II*\0\xff\xff\xff\xffrubbish"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_exif_that_makes_no_sense_is_ignored(tmp_path: Path, picture: Image.Image) -> None:
    path = save(picture, tmp_path / "odd.png", exif=RUBBISH)
    assert distance(images.read(path).image, picture) == 0


def test_warnings_of_pillow_are_the_callers(
    tmp_path: Path, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where they are made errors: what is read is not called damaged for it."""
    odd = save(picture, tmp_path / "odd.png", exif=RUBBISH)
    plain = save(picture, tmp_path / "large.png")
    with pytest.raises(UserWarning, match="Corrupt EXIF data"):  # pytest makes them errors
        images.read(odd)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.raises(Image.DecompressionBombWarning):
        images.read(plain)
    with pytest.warns(Image.DecompressionBombWarning):
        assert distance(images.read(plain).image, picture) == 0


def swapped_profile() -> bytes:
    """An RGB profile like sRGB whose red and green primaries have changed places."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    entries = {bytes(profile[o : o + 4]): o for o in range(132, 132 + 12 * count, 12)}
    red, green = entries[b"rXYZ"], entries[b"gXYZ"]
    profile[red + 4 : red + 12], profile[green + 4 : green + 12] = (
        profile[green + 4 : green + 12],
        profile[red + 4 : red + 12],
    )
    return bytes(profile)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_an_embedded_profile_is_converted(tmp_path: Path, suffix: str) -> None:
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    path = save(red, tmp_path / f"red.{suffix}", icc_profile=swapped_profile())
    pixel = images.read(path).image.getpixel((8, 8))
    assert isinstance(pixel, tuple)
    assert pixel[1] > 240 > 30 > max(pixel[0], pixel[2])


def test_a_profile_with_alpha_and_on_grey(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 255))
    path = save(clear, tmp_path / "a.png", icc_profile=swapped_profile())
    pixel = images.read(path).image.getpixel((4, 4))
    assert isinstance(pixel, tuple)
    assert pixel[1] > 240
    grey = Image.new("L", (8, 8), 100)
    path = save(grey, tmp_path / "g.jpg", icc_profile=swapped_profile())
    assert images.read(path).image.getpixel((4, 4)) == pytest.approx((100, 100, 100), abs=3)


def test_a_broken_profile_is_said_and_ignored(tmp_path: Path, picture: Image.Image) -> None:
    path = save(picture, tmp_path / "p.png", icc_profile=b"no profile at all")
    with noticed("profile that cannot be used"):
        assert distance(images.read(path).image, picture) == 0


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_frame_is_used_and_said(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (16, 16), color) for color in ("red", "lime", "blue")]
    path = tmp_path / f"film.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with noticed("3 frames; the first one"):
        read = images.read(path).image
    assert distance(read, frames[0]) < 4


BAD = {
    "missing": "no file",
    "folder": "is a folder",
    "text.jpg": "not a picture",
    "empty.png": "is empty",
    "cut.jpg": "damaged or cut short",
    "cut.png": "damaged or cut short",
    "bomb.png": "million pixels",
    "text_bomb.png": "damaged or cut short",
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "folder").mkdir()
    (folder / "text.jpg").write_text("this is no picture\n")
    (folder / "empty.png").touch()
    jpeg = sample("owl").read_bytes()
    (folder / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    small = buffer.getvalue()
    (folder / "cut.png").write_bytes(small[:6000])
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    (folder / "bomb.png").write_bytes(small[:8] + chunk(b"IHDR", header) + small[33:])
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000)))
    (folder / "text_bomb.png").write_bytes(small[:33] + text + small[33:])
    return folder


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_one_clear_sentence(bad_files: Path, name: str) -> None:
    with pytest.raises(ImpastoError, match=BAD[name]) as caught:
        images.read(bad_files / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
