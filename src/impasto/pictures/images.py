"""Convert picture files to image tensors and back.

An image tensor is float32 [1, 3, height, width], RGB, in [0, 1], sRGB-encoded.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from impasto.errors import ImpastoError, notice
from impasto.pictures import decoding, files

if TYPE_CHECKING:  # one-pass networks paint without torch, which takes a second to import
    from torch import Tensor

PathLike = str | os.PathLike[str]

FORMATS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".gif": "GIF",
}
"""The extensions that a picture can be written with, and Pillow's names of their formats."""

READABLE = (*FORMATS, ".heic", ".heif", ".avif", ".jp2", ".ico")
"""The extensions by which pictures are found in a folder."""

RECORD = "impasto"
"""The keyword of the text in a PNG that says, as JSON, how the picture was made."""

WITH_ALPHA = ("PNG", "WEBP", "TIFF")
"""The formats that hold soft transparency."""

_OPTIONS: Mapping[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95},
    "TIFF": {"compression": "tiff_lzw"},
}
_ORIENTATION = 0x0112  # in EXIF; from 5 on, width and height change places
_STANDARD_OUTPUT = Path(files.STANDARD)
UNNAMED = "the picture"  # the name of one that comes from no file


@dataclass(frozen=True)
class Picture:
    """A picture as it was read: upright, in sRGB, composed on a background colour.

    image: PIL image of mode RGB. name: for messages. sha256: of the file's bytes, or of the pixels
    if there was no file. colours: the visible ones, spread over transparent parts, so that they
    have no edge and no background colour. alpha: PIL image of mode L (None if nothing is
    transparent).
    """

    image: Image.Image
    name: str
    sha256: str
    colours: Image.Image
    alpha: Image.Image | None = None


Source = PathLike | Image.Image | Picture
"""What a picture is read from: a file's path, `"-"` (standard input), or a picture already read."""


def read(source: Source, background: str = "white") -> Picture:
    """Read a picture from a file, or take one that is already a PIL image.

    Formats: JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC, AVIF, JPEG 2000, ICO and all others of Pillow.
    EXIF orientation is applied, an embedded colour profile converted to sRGB, 16 bits scaled to 8,
    and transparent parts composed on `background`. Of several frames the first is used, with an
    `ImpastoNotice`. Pillow's warnings reach the caller, as errors if the caller's filters say so.

    Raises:
        ImpastoError: the file is missing, is not a picture, is damaged, or claims too many pixels.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, Image.Image):
        name = UNNAMED
        rgb, alpha = decoding.normalise(source, name)
        data = repr(rgb.size).encode() + rgb.tobytes() + (alpha.tobytes() if alpha else b"")
    else:
        name, data = files.read_whole(source)
        return read_bytes(data, name, background)
    return _composed(rgb, alpha, name, data, background)


def read_bytes(data: bytes, name: str, background: str = "white") -> Picture:
    """`read` the bytes of a file; `name` is for messages."""
    return _composed(*decoding.decode(data, name), name, data, background)


def _composed(
    rgb: Image.Image, alpha: Image.Image | None, name: str, data: bytes, background: str
) -> Picture:
    sha256 = hashlib.sha256(data).hexdigest()
    if alpha is None or alpha.getextrema()[0] == 255:
        return Picture(rgb, name, sha256, rgb)
    shown = Image.composite(rgb, Image.new("RGB", rgb.size, background), alpha)
    return Picture(shown, name, sha256, _spread(rgb, alpha), alpha)


def measured(data: bytes, name: str) -> tuple[int, int]:
    """The (width, height) of a file's picture once it is upright, from its header alone.

    Raises:
        ImpastoError: it is not a picture, or claims too many pixels.
    """
    if not data:
        raise ImpastoError(f"{name} is empty; give a picture file")
    with decoding.opened(data, name) as image:
        width, height = image.size
        # A PNG may have its EXIF at the end, and Pillow would decode all of it to get there.
        is_late = image.format == "PNG" and "exif" not in image.info
        turned = not is_late and image.getexif().get(_ORIENTATION, 1) >= 5
    return (height, width) if turned else (width, height)


def named(picture: Picture) -> dict[str, str]:
    """The entry for an input in a record."""
    return {"name": Path(picture.name).name, "sha256": picture.sha256}


def tell_if_enlarged(picture: Picture, size: tuple[int, int], to: str) -> None:
    """Give a notice if a picture is smaller than the result; `to` is "to" or "to cover"."""
    own = picture.image.size
    if max(size) > max(own):
        enlarged = f"is enlarged {to} {size[0]} x {size[1]}"
        notice(f"{picture.name} has only {own[0]} x {own[1]} pixels and {enlarged}")


def by_role(role: str, pictures: Sequence[Picture]) -> dict[str, Picture]:
    """Pictures of one role, under the names that a record uses: ROLE, ROLE 2, ROLE 3, ..."""
    return {f"{role} {n}" if n > 1 else role: each for n, each in enumerate(pictures, 1)}


def read_visible(source: Source) -> Picture:
    """`read` a photo or a painting.

    Raises:
        ImpastoError: see `read`; or all of it is transparent.
    """
    picture = read(source)
    if picture.alpha and picture.alpha.getextrema()[1] == 0:
        raise ImpastoError(f"{picture.name} is wholly transparent; give one that shows something")
    return picture


def read_mask(source: Source) -> Picture:
    """Read a mask as a grey picture: white inside the region, black outside, grey in between.

    The brightest channel of a colour counts. Transparent parts are black. In a mask that has only
    the values 0 and 1, as labels have, 1 is white.

    Raises:
        ImpastoError: see `read`; or all of it is black.
    """
    seen = read(source, background="black")
    name = "the mask" if seen.name == UNNAMED else f"the mask {seen.name}"
    brightest = np.array(seen.image).max(-1)
    highest = brightest.max()
    if highest == 0:
        raise ImpastoError(f"{name} covers nothing; paint the area white")
    if highest == 1:
        notice(f"{name} has the values 0 and 1, as labels do; 1 is taken for white")
        brightest *= 255
    elif highest < 230:
        notice(
            f"{name} is dark: where it is brightest, {highest / 2.55:.0f} % of the painting comes "
            "through; paint the area white for all of it"
        )
    mask = Image.fromarray(brightest).convert("RGB")
    return Picture(mask, seen.name, seen.sha256, mask)


def _spread(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    """Spread colours over transparent parts: Gortler et al. 1996 ("The Lumigraph"), section 3.4."""
    visible = np.asarray(alpha, np.float32)[..., None] / 255
    if not visible.any():
        return rgb
    # Sums over squares of 1, 2, 4, ... pixels a side, of colours times visibility, and visibility.
    sums = [np.concatenate([np.asarray(rgb, np.float32) * visible, visible], 2)]
    while max(sums[-1].shape[:2]) > 1:
        height, width = sums[-1].shape[:2]
        even = np.pad(sums[-1], ((0, height % 2), (0, width % 2), (0, 0)))
        sums.append(even.reshape(-(-height // 2), 2, -(-width // 2), 2, 4).sum((1, 3)))
    filled = sums[-1][..., :3] / sums[-1][..., 3:]
    for finer in reversed(sums[:-1]):
        coarse = _enlarged(filled, (finer.shape[1], finer.shape[0]))
        known = finer[..., :3] / np.maximum(finer[..., 3:], 1e-6)
        filled = coarse + (known - coarse) * np.minimum(finer[..., 3:], 1)
    return Image.fromarray(filled.round().clip(0, 255).astype(np.uint8))


def _enlarged(pixels: npt.NDArray[np.float32], size: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Pixels [height, width, C] at another (width, height), bilinear."""
    planes = [Image.fromarray(plane) for plane in np.moveaxis(pixels, 2, 0)]
    return np.stack([np.asarray(x.resize(size, Image.Resampling.BILINEAR)) for x in planes], 2)


def fitted_size(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """The (width, height) with the longer side `longer` and the same proportions, to the pixel."""
    return fitted(size, (longer, longer))


def fitted(size: tuple[int, int], box: tuple[float, float]) -> tuple[int, int]:
    """The largest (width, height) of the same shape that fits in a box."""
    scale = min(box[0] / size[0], box[1] / size[1])
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize to exactly (width, height), with antialiasing (Lanczos)."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize without distortion so that (width, height) is covered, and cut off the overhang."""
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def mirrored(image: Tensor, margin: int) -> Tensor:
    """An image [..., height, width] continued by its mirror image, `margin` pixels on each side."""
    import torch

    if not margin:
        return image
    rows, columns = (
        torch.from_numpy(np.pad(np.arange(side), margin, mode="symmetric")).to(image.device)
        for side in image.shape[-2:]
    )
    return image[..., rows[:, None], columns]


def blurred(image: Tensor, sigma: float) -> Tensor:
    """An image [batch, C, height, width] blurred by a Gaussian of `sigma` pixels."""
    import torch
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(image.detach().cpu().numpy(), (0, 0, sigma, sigma), mode="reflect")
    return torch.from_numpy(smooth).to(image)


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image of mode RGB as an image tensor [1, 3, height, width] in [0, 1]."""
    import torch

    pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1).unsqueeze(0).contiguous().float() / 255


def to_image(tensor: Tensor) -> Image.Image:
    """An image tensor [1, 3, height, width] as a PIL image, rounded to 8 bits.

    If it has a fourth channel, alpha, the image is of mode RGBA.

    Raises:
        ImpastoError: it has values that are not numbers (NaN), or is a batch of several.
    """
    if len(tensor) != 1:
        raise ImpastoError(f"to_image takes one picture, not {len(tensor)}; give them one by one")
    if tensor.isnan().any():
        raise ImpastoError("a picture has values that are not numbers; give numbers from 0 to 1")
    pixels = (tensor[0].detach().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def composed(image: Image.Image) -> Image.Image:
    """Compose an image of mode RGBA on white; one of mode RGB stays as it is."""
    if image.mode == "RGB":
        return image
    white = Image.new("RGB", image.size, "white")
    return Image.composite(image.convert("RGB"), white, image.getchannel("A"))


def check_writable(target: PathLike, format: str | None = None) -> None:  # noqa: A002
    """Check, before the work begins, that `write` can write a picture to `target`.

    Raises:
        ImpastoError: there is no such format or extension, the folder is missing or not writable,
            or standard output is closed.
    """
    path = Path(target)
    _kind(path, format)
    if path == _STANDARD_OUTPUT:
        files.check_standard_output()
    else:
        files.check_folder(path)


def write(
    image: Image.Image,
    target: PathLike,
    *,
    record: Mapping[str, Any] | None = None,
    force: bool = False,
    format: str | None = None,  # noqa: A002 # the option is called --format, too
) -> Path:
    """Write a picture whole or not at all, in the format of its extension.

    An existing file is replaced only with `force`; otherwise `-2`, `-3`, ... is added to the name.
    A PNG carries `record` as text. Returns the path that was written.

    With the target `"-"`, standard output, `format` is needed: `"png"`, `"jpg"` or another of
    `FORMATS`. It is no error if the reader of standard output has closed it.

    Raises:
        ImpastoError: see `check_writable`; or the disk is full.
    """
    path = Path(target)
    check_writable(path, format)
    data = _encode(image, path, _kind(path, format), record)
    if path != _STANDARD_OUTPUT:
        return files.write_whole(data, path, force)
    files.write_standard_output(data)
    return path


def _kind(path: Path, format: str | None) -> str:  # noqa: A002
    """Pillow's name for the format of a file or, on standard output, for `format`."""
    asked = FORMATS.get(f".{format}".lower())
    if not asked and (format or path == _STANDARD_OUTPUT):
        wrong = f"there is no format {format!r}" if format else "standard output needs a format"
        raise ImpastoError(f"{wrong}; use one of {', '.join(FORMATS).replace('.', '')}")
    kind = asked if path == _STANDARD_OUTPUT else FORMATS.get(path.suffix.lower())
    if not kind:
        raise ImpastoError(
            f"{path} has no extension that impasto can write; use one of {', '.join(FORMATS)}, or "
            "end a folder with a /"
        )
    if asked and asked != kind:
        raise ImpastoError(f"{path} does not end in .{format}; change its name, or the format")
    return kind


def encoded(image: Image.Image, format: str, record: Mapping[str, Any] | None = None) -> bytes:  # noqa: A002
    """A picture as the bytes of a file in a `format` such as `"png"`; a PNG carries `record`.

    Raises:
        ImpastoError: there is no such format, or it cannot hold the picture.
    """
    return _encode(image, _STANDARD_OUTPUT, _kind(_STANDARD_OUTPUT, format), record)


def _encode(image: Image.Image, path: Path, kind: str, record: Mapping[str, Any] | None) -> bytes:
    name = "standard output" if path == _STANDARD_OUTPUT else path
    options = dict(_OPTIONS.get(kind, {}))
    if image.mode == "RGBA" and kind not in WITH_ALPHA:
        notice(f"{name} is on white: {kind} holds no soft transparency; write a .png to keep it")
        image = composed(image)
    if kind == "PNG" and record is not None:
        options["pnginfo"] = text = PngInfo()
        text.add_itxt(RECORD, json.dumps(record, indent=1))
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **options)
    except (OSError, ValueError) as error:  # WebP allows 16383 pixels a side, JPEG and GIF 65535
        raise ImpastoError(f"{name} cannot be written ({error}); write a .png instead") from None
    return buffer.getvalue()


def read_record(path: PathLike) -> dict[str, Any]:
    """Read the record in a PNG of how it was made.

    Raises:
        ImpastoError: the file is not a picture, or carries no such record.
    """
    name, data = files.read_whole(path)
    with decoding.opened(data, name) as image:
        image.load()
        text = image.info.get(RECORD, "")
    with contextlib.suppress(ValueError):
        if isinstance(record := json.loads(text), dict):
            return record
    raise ImpastoError(f"{name} does not say how it was made; only PNG files written by impasto do")
