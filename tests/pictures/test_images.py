"""Pictures in and out, as files that real cameras and programs write."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageDraw, ImageOps

from impasto import ImpastoError, read_record, sample
from impasto.pictures import images
from tests.conftest import full_disk, noticed, tolerated


@pytest.fixture
def picture() -> Image.Image:
    """A small colourful picture that is not symmetric in any way."""
    ramp = np.linspace(0, 255, 24 * 16, dtype=np.uint8).reshape(16, 24)
    return Image.fromarray(np.stack([ramp, ramp[::-1], np.roll(ramp, 5, 1)], -1))


def distance(one: Image.Image, other: Image.Image) -> float:
    """Mean difference in grey levels."""
    assert one.size == other.size
    assert one.mode == other.mode == "RGB"
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("a.png", 0), ("a.bmp", 0), ("a.tif", 0), ("a.jpg", 8), ("a.webp", 8), ("a.gif", 16)],
)
def test_formats(tmp_path: Path, picture: Image.Image, name: str, tolerance: float) -> None:
    written = images.write(picture, tmp_path / name)
    assert written == tmp_path / name
    assert distance(images.read(written).image, picture) <= tolerance


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


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


def png_16_bit_rgb(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint16]]) -> bytes:
    """A PNG of 16 bits a channel, which Pillow itself does not write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

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


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB key", "L key", "I;16 key"])
def test_alpha_is_composed_on_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "alpha.png"
    if mode == "RGBA":
        save(Image.new("RGBA", (8, 8), (255, 0, 0, 0)), path)
    elif mode == "LA":
        save(Image.new("LA", (8, 8), (0, 0)), path)
    elif mode == "P":
        save(Image.new("RGB", (8, 8), "red").quantize(2), path, transparency=0)
    elif mode == "RGB key":
        save(Image.new("RGB", (8, 8), (1, 2, 3)), path, transparency=(1, 2, 3))
    elif mode == "L key":
        save(Image.new("L", (8, 8), 7), path, transparency=7)
    else:
        save(Image.fromarray(np.full((8, 8), 700, np.uint16)), path, transparency=700)
    assert distance(images.read(path).image, Image.new("RGB", (8, 8), "white")) == 0


def test_half_transparent_black_is_grey(tmp_path: Path) -> None:
    path = save(Image.new("RGBA", (4, 4), (0, 0, 0, 128)), tmp_path / "half.png")
    assert images.read(path).image.getpixel((0, 0)) == (127, 127, 127)


def disc(colour: str = "red") -> Image.Image:
    """A disc on nothing, whose hidden pixels are green."""
    image = Image.new("RGBA", (40, 30), (0, 255, 0, 0))
    shape = Image.new("L", (400, 300))
    ImageDraw.Draw(shape).ellipse((100, 50, 300, 250), fill=255)
    image.paste(colour, mask=shape.resize((40, 30)))
    image.putalpha(shape.resize((40, 30)))
    return image


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_what_is_transparent_is_kept_apart(tmp_path: Path, suffix: str) -> None:
    path = save(
        disc(), tmp_path / f"disc.{suffix}", **({"lossless": True} if suffix == "webp" else {})
    )
    picture = images.read(path)
    assert picture.image.getpixel((0, 0)) == (255, 255, 255)
    assert picture.alpha
    assert picture.alpha.getextrema() == (0, 255)
    # Without a ground the visible colour goes on; of what was hidden there is nothing to be seen.
    colors = np.asarray(picture.colors, float)
    assert np.abs(colors - [255, 0, 0]).max() <= 3
    assert images.read(disc().convert("RGB")).alpha is None
    opaque = disc()
    opaque.putalpha(255)
    assert images.read(opaque).alpha is None


def test_what_is_wholly_transparent_is_refused() -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    with pytest.raises(ImpastoError, match="wholly transparent; give one that shows something"):
        images.read_visible(clear)


def test_formats_without_transparency_are_on_white(tmp_path: Path) -> None:
    for suffix in ("jpg", "bmp", "gif"):
        with noticed(r"holds no soft transparency; write a \.png"):
            path = images.write(disc(), tmp_path / f"disc.{suffix}")
        with Image.open(path) as image:
            assert image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
    for suffix in ("png", "webp", "tif"):
        with Image.open(images.write(disc(), tmp_path / f"disc.{suffix}")) as image:
            assert image.mode == "RGBA"


@pytest.mark.parametrize("deep", [False, True])
def test_masks_of_labels(tmp_path: Path, deep: bool) -> None:
    labels = np.zeros((6, 8), np.uint16 if deep else np.uint8)
    labels[:, :4] = 1
    path = save(Image.fromarray(labels), tmp_path / "labels.png")
    with noticed("values 0 and 1, as labels do; 1 is taken for white"):
        mask = np.asarray(images.read_mask(path).image)[..., 0]
    assert np.array_equal(mask, 255 * labels)
    dark = save(Image.fromarray(np.full((6, 8), 51, np.uint8)), tmp_path / "dark.png")
    with noticed("20 % of the painting come through"):
        images.read_mask(dark)
    with pytest.raises(ImpastoError, match="the mask covers nothing"):
        images.read_mask(Image.new("L", (4, 4)))
    for colour in ("red", "blue", "white"):  # any colour that is bright
        assert (
            images.read_mask(Image.new("RGB", (4, 4), colour)).image.getextrema()
            == ((255, 255),) * 3
        )


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
    with noticed("of 65535 its brightest value is 200"):
        images.read(path)
    values = np.linspace(0, 1023, 80, dtype=np.float32).reshape(8, 10)
    with noticed("is dark: of 65535"):
        images.read(save(Image.fromarray(values), tmp_path / "ten.tif"))


def test_lights_beyond_white_do_not_darken_the_rest(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 80, dtype=np.float32).reshape(8, 10)
    values[0] = 4
    read = np.asarray(images.read(save(Image.fromarray(values), tmp_path / "f.tif")).image, float)
    assert read[0].min() == 255
    assert np.abs(read[1:, :, 0] - values[1:] * 255).max() <= 0.5


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
    save(p3, tmp_path / "icc.jpg", icc_profile=images._display_p3(), quality=100, subsampling=0)
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
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert distance(images.read(tmp_path / "a.jpg").image, owl) < 8


def test_cmyk(tmp_path: Path, picture: Image.Image) -> None:
    for suffix in ("jpg", "tif"):
        path = save(picture.convert("CMYK"), tmp_path / f"cmyk.{suffix}")
        assert distance(images.read(path).image, picture) <= 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, picture: Image.Image, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(picture, tmp_path / "turned.png", exif=exif.tobytes())
    with Image.open(path) as reopened:
        upright = ImageOps.exif_transpose(reopened)
    read = images.read(path).image
    assert distance(read, upright) == 0
    assert (read.size == picture.size) == (orientation < 5)
    corners = {
        1: (0, 0),
        2: (23, 0),
        3: (23, 15),
        4: (0, 15),
        5: (0, 0),
        6: (15, 0),
        7: (15, 23),
        8: (0, 23),
    }
    assert read.getpixel(corners[orientation]) == picture.getpixel((0, 0))


def test_exif_that_makes_no_sense_is_ignored(tmp_path: Path, picture: Image.Image) -> None:
    path = save(picture, tmp_path / "odd.png", exif=b"II*\0\xff\xff\xff\xffrubbish")
    assert distance(images.read(path).image, picture) == 0


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
    with warnings.catch_warnings():
        warnings.simplefilter("error")
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


def test_pil_images_are_taken_too(picture: Image.Image) -> None:
    clear = Image.new("RGBA", (3, 3), (0, 0, 0, 0))
    assert images.read(clear).image.getpixel((0, 0)) == (255, 255, 255)
    for mode in ("RGBa", "La"):
        assert images.read(clear.convert("RGBA" if mode == "RGBa" else "LA").convert(mode)).image
    assert images.read(picture).sha256 == images.read(picture.copy()).sha256


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


@pytest.fixture
def bad_files(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.jpg").write_text("this is no picture\n")
    (tmp_path / "empty.png").touch()
    jpeg = sample("owl").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    (tmp_path / "cut.png").write_bytes(buffer.getvalue()[:6000])
    small = buffer.getvalue()
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    ihdr = struct.pack(">I", 13) + b"IHDR" + header
    ihdr += struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "bomb.png").write_bytes(small[:8] + ihdr + small[33:])
    body = b"a\0\0" + zlib.compress(bytes(100_000_000))
    text = struct.pack(">I", len(body)) + b"zTXt" + body
    text += struct.pack(">I", zlib.crc32(b"zTXt" + body))
    (tmp_path / "text_bomb.png").write_bytes(small[:33] + text + small[33:])
    return tmp_path


@pytest.mark.parametrize("name", BAD)
def test_bad_files_get_one_clear_sentence(bad_files: Path, name: str) -> None:
    with pytest.raises(ImpastoError, match=BAD[name]) as caught:
        images.read(bad_files / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@given(width=st.integers(1, 20000), height=st.integers(1, 20000), longer=st.integers(1, 4096))
def test_sizes_keep_the_aspect_to_the_pixel(width: int, height: int, longer: int) -> None:
    size = images.fitted_size((width, height), longer)
    assert max(size) == longer
    assert min(size) == max(1, round(min(width, height) * longer / max(width, height)))
    assert (size[0] >= size[1]) == (width >= height) or size[0] == size[1]


def test_tensors_and_back(picture: Image.Image) -> None:
    tensor = images.to_tensor(picture)
    assert tensor.shape == (1, 3, 16, 24)
    assert tensor.dtype == torch.float32
    assert 0 <= tensor.min() < tensor.max() <= 1
    assert distance(images.to_image(tensor), picture) == 0


def test_what_is_no_number_is_not_shown_as_black(picture: Image.Image) -> None:
    tensor = images.to_tensor(picture)
    tensor[0, 1, 2, 3] = torch.nan
    with pytest.raises(ImpastoError, match="no numbers"):
        images.to_image(tensor)


def test_cover_keeps_proportions() -> None:
    halves = Image.new("RGB", (100, 50), "white")
    halves.paste("black", (50, 0, 100, 50))
    halves.paste("red", (0, 0, 25, 50))
    halves.paste("red", (75, 0, 100, 50))
    covered = images.cover(halves, (30, 30))
    assert covered.size == (30, 30)
    assert covered.getpixel((2, 15)) == pytest.approx((255, 255, 255), abs=3)
    assert covered.getpixel((27, 15)) == pytest.approx((0, 0, 0), abs=3)


def test_colours_kept_with_another_luminance() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 32, 32, generator=generator)
    grey = torch.rand(1, 1, 32, 32, generator=generator)
    result = images.with_luminance(image, grey)
    assert result.min() >= -1e-6
    assert result.max() <= 1 + 1e-6
    assert torch.allclose(images.luminance(result), grey, atol=1e-5)
    same = images.with_luminance(image, images.luminance(image))
    assert torch.allclose(same, image, atol=1e-5)
    hue = image - images.luminance(image)
    new = result - grey
    assert torch.allclose(
        hue * new.norm(dim=1, keepdim=True), new * hue.norm(dim=1, keepdim=True), atol=1e-4
    )


def test_luminance_matching() -> None:
    generator = torch.Generator().manual_seed(0)
    painting = 0.2 + 0.1 * torch.rand(1, 1, 40, 40, generator=generator)
    photo = 0.4 + 0.2 * torch.rand(1, 1, 30, 50, generator=generator)
    matched = images.match_luminance(painting, photo)
    assert matched.mean().item() == pytest.approx(photo.mean().item(), abs=1e-5)
    assert matched.std().item() == pytest.approx(photo.std().item(), rel=1e-3)
    flat = images.match_luminance(torch.full((1, 1, 4, 4), 0.5), photo)
    assert torch.isfinite(flat).all()


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path, picture: Image.Image) -> None:
    target = tmp_path / "a.png"
    target.write_text("precious")
    with noticed("exists already"):
        assert images.write(picture, target) == tmp_path / "a-2.png"
    with noticed():
        assert images.write(picture, target) == tmp_path / "a-3.png"
    assert target.read_text() == "precious"
    assert images.write(picture, target, force=True) == target
    assert distance(images.read(target).image, picture) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-2.png", "a-3.png", "a.png"]
    mask = os.umask(0)
    os.umask(mask)
    assert target.stat().st_mode & 0o777 == 0o666 & ~mask


def test_what_cannot_be_written(tmp_path: Path, picture: Image.Image) -> None:
    with pytest.raises(
        ImpastoError, match=r"no extension that impasto can write; use one of \.png"
    ):
        images.write(picture, tmp_path / "a.xyz")
    with pytest.raises(ImpastoError, match="no folder"):
        images.write(picture, tmp_path / "none" / "a.png")
    with pytest.raises(ImpastoError, match=r"write a \.png instead"):
        images.write(Image.new("RGB", (70000, 1)), tmp_path / "a.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_half_way_leaves_nothing_behind(
    tmp_path: Path, picture: Image.Image
) -> None:
    target = tmp_path / "a.png"
    target.write_text("precious")
    with full_disk(), pytest.raises(ImpastoError, match="cannot be written"):
        images.write(picture, target, force=True)
    assert target.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [target]


def test_a_png_says_what_made_it(tmp_path: Path, picture: Image.Image) -> None:
    record = {"settings": {"size": 512}, "painting": {"name": "Café.jpg"}}
    path = images.write(picture, tmp_path / "a.png", record=record)
    assert read_record(path) == record
    with Image.open(path) as reopened:
        assert json.loads(reopened.info["impasto"]) == record
    plain = images.write(picture, tmp_path / "plain.png")
    with pytest.raises(ImpastoError, match="does not say how it was made"):
        read_record(plain)
    jpeg = images.write(picture, tmp_path / "a.jpg", record=record)
    with pytest.raises(ImpastoError, match="only PNG files written by impasto do"):
        read_record(jpeg)
