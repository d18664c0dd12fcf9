"""Pictures in and out: sizes, tensors, transparency, masks, and what is written."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image, ImageDraw
from torch import Tensor

from impasto import ImpastoError, read_record
from impasto.pictures import images
from tests.conftest import full_disk, noticed
from tests.pictures.conftest import distance, save


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("a.png", 0), ("a.bmp", 0), ("a.tif", 0), ("a.jpg", 8), ("a.webp", 8), ("a.gif", 16)],
)
def test_formats(tmp_path: Path, picture: Image.Image, name: str, tolerance: float) -> None:
    written = images.write(picture, tmp_path / name)
    assert written == tmp_path / name
    assert distance(images.read(written).image, picture) <= tolerance


def disc() -> Image.Image:
    """A red disc on nothing, whose hidden pixels are green."""
    image = Image.new("RGBA", (40, 30), (0, 255, 0, 0))
    shape = Image.new("L", (400, 300))
    ImageDraw.Draw(shape).ellipse((100, 50, 300, 250), fill=255)
    image.paste("red", mask=shape.resize((40, 30)))
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
    colours = np.asarray(picture.colours, float)
    assert np.abs(colours - [255, 0, 0]).max() <= 3
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
    with noticed("20 % of the painting comes through"):
        images.read_mask(dark)
    with pytest.raises(ImpastoError, match="the mask covers nothing"):
        images.read_mask(Image.new("L", (4, 4)))
    for colour in ("red", "blue", "white"):  # any colour that is bright
        assert (
            images.read_mask(Image.new("RGB", (4, 4), colour)).image.getextrema()
            == ((255, 255),) * 3
        )


def test_pil_images_are_taken_too(picture: Image.Image) -> None:
    clear = Image.new("RGBA", (3, 3), (0, 0, 0, 0))
    assert images.read(clear).image.getpixel((0, 0)) == (255, 255, 255)
    for mode in ("RGBa", "La"):
        assert images.read(clear.convert("RGBA" if mode == "RGBa" else "LA").convert(mode)).image
    assert images.read(picture).sha256 == images.read(picture.copy()).sha256


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
    with pytest.raises(ImpastoError, match="not numbers"):
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


def test_one_picture_at_a_time(noise: Tensor) -> None:
    with pytest.raises(ImpastoError, match="one picture, not 2"):
        images.to_image(torch.cat([noise, noise]))


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


def test_standard_input_can_be_read_by_several(
    picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the same time, too: who comes second finds what was in it."""
    for data, told in ((None, "is closed"), (b"", "is empty; send a picture to it")):
        stream = None if data is None else io.TextIOWrapper(io.BytesIO(data))
        monkeypatch.setattr(sys, "stdin", stream)
        with pytest.raises(ImpastoError, match=f"standard input {told}"):
            images.read("-")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    buffer.seek(0)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(buffer))
    with ThreadPoolExecutor(4) as pool:
        for read in pool.map(images.read, ["-"] * 8):
            assert distance(read.image, picture) == 0


@pytest.mark.parametrize("extension", images.FORMATS)
def test_standard_output(
    tmp_path: Path, picture: Image.Image, extension: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The bytes of the file, after what was printed before."""
    record = {"settings": {"size": 512}}
    images.check_writable("-", extension[1:])
    sys.stdout.write("first ")
    written = images.write(picture, "-", record=record, format=extension[1:])
    assert written == Path("-")
    printed = capsysbinary.readouterr().out
    assert printed.startswith(b"first ")
    (tmp_path / f"piped{extension}").write_bytes(printed[6:])
    file = images.write(picture, tmp_path / f"a{extension}", record=record, format=extension[1:])
    assert file.read_bytes() == printed[6:]
    if extension == ".png":
        assert read_record(tmp_path / "piped.png") == record


def test_standard_output_on_white(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    with noticed("standard output is on white: JPEG holds no soft transparency"):
        images.write(disc(), "-", format="JPG")
    with Image.open(io.BytesIO(capsysbinary.readouterr().out)) as image:
        assert image.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("target", "kind", "told"),
    [
        ("-", None, "standard output needs a format; use one of png, jpg, "),
        ("-", "xyz", "there is no format 'xyz'; use one of png, jpg, "),
        ("a.png", "xyz", "there is no format 'xyz'"),
        ("a.png", "jpg", r"a\.png does not end in \.jpg; change its name, or the format"),
    ],
)
def test_formats_that_are_wrong(
    picture: Image.Image, target: str, kind: str | None, told: str
) -> None:
    for check in (images.check_writable, functools.partial(images.write, picture)):
        with pytest.raises(ImpastoError, match=told):
            check(target, format=kind)


@pytest.mark.parametrize("stream", [None, io.StringIO(), io.TextIOWrapper(io.BytesIO())])
def test_a_standard_output_that_takes_no_bytes(
    picture: Image.Image, stream: io.TextIOBase | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(stream, io.TextIOWrapper):
        stream.close()
    monkeypatch.setattr(sys, "stdout", stream)
    for check in (images.check_writable, functools.partial(images.write, picture)):
        with pytest.raises(ImpastoError, match="standard output is closed, or takes no bytes"):
            check("-", format="png")


@contextlib.contextmanager
def standard_output_to(file: int | str, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """On leaving, nothing may be waiting to be written once more."""
    with open(file, "w") as stream, patch.context() as context:  # noqa: PTH123 # or a descriptor
        context.setattr(sys, "stdout", stream)
        yield


def test_standard_output_to_files_and_pipes(
    tmp_path: Path, picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    with standard_output_to(str(tmp_path / "a.png"), monkeypatch):
        images.write(picture, "-", format="png")
    assert distance(images.read(tmp_path / "a.png").image, picture) == 0
    told = r"standard output cannot be written \(No space left on device\); send it somewhere else"
    with standard_output_to("/dev/full", monkeypatch), pytest.raises(ImpastoError, match=told):
        images.write(picture, "-", format="png")
    reader, writer = os.pipe()
    os.close(reader)
    with standard_output_to(writer, monkeypatch):
        assert images.write(picture, "-", format="png") == Path("-")  # nobody wants it any more


WRITE = """
import numpy as np
from PIL import Image
from impasto.pictures import images

noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
images.write(Image.fromarray(noise), "-", format="png")
"""


def test_standard_output_of_real_processes() -> None:
    """More than a pipe holds: whole, and to a reader who has seen enough."""
    whole, left = (
        subprocess.Popen(
            ["sh", "-c", script, sys.executable, WRITE],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for script in ('"$0" -u -c "$1"', '{ "$0" -c "$1"; echo "status $?" >&2; } | head -c 9')
    )
    picture, complaints = whole.communicate()
    assert complaints == b""
    with Image.open(io.BytesIO(picture)) as image:
        assert np.array(image).mean() == pytest.approx(127.5, abs=1)
    assert left.communicate() == (picture[:9], b"status 0\n")
