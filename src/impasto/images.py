"""Picture files to image tensors and back.

An image tensor is float32 [1, 3, height, width], RGB, in [0, 1], sRGB-encoded. This module knows
about files, colours and sizes, and nothing about networks.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from impasto.errors import ImpastoError, ImpastoNotice
from impasto.files import check_folder, write_whole

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
"""The extensions that a picture can be written with."""

RECORD = "impasto"
"""The keyword of the PNG text that holds what made a picture, as JSON."""


@dataclass(frozen=True)
class Picture:
    """A picture as it was read: upright, sRGB, without alpha.

    image: PIL image of mode RGB. name: for messages. sha256: of the file's bytes, or of the
    pixels where there was no file.
    """

    image: Image.Image
    name: str
    sha256: str


def read(source: PathLike | Image.Image | Picture, background: str = "white") -> Picture:
    """Read a picture from a file, or take one that is already a PIL image.

    JPEG, PNG, WebP, TIFF, BMP, GIF and whatever else Pillow reads. EXIF orientation is applied, an
    embedded colour profile converted to sRGB, 16 bits scaled to 8, alpha composed on `background`.
    Of several frames the first is used, with an `ImpastoNotice`.

    Raises:
        ImpastoError: the file is missing, is no picture, is damaged or too large to be honest.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, Image.Image):
        with _reading("the picture"):
            upright = _to_srgb(_apply_orientation(source), "the picture", background)
        digest = hashlib.sha256(repr(upright.size).encode() + upright.tobytes())
        return Picture(upright, "the picture", digest.hexdigest())
    name = os.fspath(source)
    data = _read_bytes(Path(name))
    return Picture(_decode(data, name, background), name, hashlib.sha256(data).hexdigest())


def fitted_size(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """The (width, height) whose longer side is `longer`, of the same shape to the pixel."""
    scale = longer / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize to (width, height) exactly, with antialiasing (Lanczos)."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS)


def cover(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize without distortion until (width, height) is covered, and cut off the overhang."""
    return ImageOps.fit(image, size, Image.Resampling.LANCZOS)


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image of mode RGB as an image tensor [1, 3, height, width] in [0, 1]."""
    pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1).unsqueeze(0).contiguous().float() / 255


def to_image(tensor: Tensor) -> Image.Image:
    """An image tensor [1, 3, height, width] as a PIL image, rounded to 8 bits."""
    pixels = (tensor[0].detach().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def luminance(image: Tensor) -> Tensor:
    """The Y of YIQ, [batch, 1, height, width], of an image tensor."""
    weights = image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)


def match_luminance(painting: Tensor, photo: Tensor, weights: Tensor | None = None) -> Tensor:
    """Shift and stretch a painting's luminance to a photo's mean and standard deviation.

    Gatys et al. 2016 (arXiv:1606.05897), luminance-only transfer:
    L' = (sigma_C / sigma_S) (L - mu_S) + mu_C.
    Both [1, 1, height, width]; clipped to [0, 1]. `weights`, likewise, say how much each of the
    photo's pixels counts.
    """
    mean, variance = (moment.item() for moment in _color_moments(photo, weights))
    spread = painting.std(correction=0).clamp_min(1e-6)
    scaled = (painting - painting.mean()) * (math.sqrt(variance) / spread)
    return (scaled + mean).clamp(0, 1)


def with_luminance(image: Tensor, grey: Tensor) -> Tensor:
    """An image's colours (I and Q of YIQ) with another luminance [batch, 1, height, width].

    Gatys et al. 2016, luminance-only transfer. Where a colour is more vivid than RGB allows at
    the new luminance, it is paled until it fits: clipping would change its hue and luminance.
    """
    colour = image - luminance(image)
    # The largest t in [0, 1] with 0 <= grey + t * colour <= 1, channel by channel.
    room = torch.where(colour > 0, 1 - grey, grey) / colour.abs().clamp_min(1e-6)
    return grey + colour * room.amin(1, keepdim=True).clamp(0, 1)


def match_colors(painting: Tensor, photo: Tensor, weights: Tensor | None = None) -> Tensor:
    """Recolour a painting so that its colours have a photo's mean and covariance.

    Gatys et al. 2016 (arXiv:1606.05897), section 4: x' = A (x - mu_S) + mu_C with
    A = Sigma_C^1/2 Sigma_S^-1/2. Both [1, 3, height, width]; clipped to [0, 1]. `weights`
    [1, 1, height, width] say how much each of the photo's pixels counts.
    """
    mean, covariance = _color_moments(photo, weights)
    own_mean, own_covariance = _color_moments(painting)
    matrix = _matrix_power(covariance, 0.5) @ _matrix_power(own_covariance, -0.5)
    x = painting[0].flatten(1).cpu().double()
    recoloured: Tensor = matrix @ (x - own_mean) + mean
    return recoloured.clamp(0, 1).view(painting.shape).to(painting)


def _color_moments(image: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean [C, 1] and covariance [C, C] of an image's C colours, in float64."""
    x = image[0].flatten(1).cpu().double()
    w = torch.ones_like(x[:1]) if weights is None else weights.flatten().cpu().double()[None]
    mean = (x * w).sum(1, keepdim=True) / w.sum()
    return mean, (x - mean) * w @ (x - mean).T / w.sum()


def _matrix_power(matrix: Tensor, power: float) -> Tensor:
    """A power of a covariance; colours that do not vary are given half a grey level."""
    values, vectors = torch.linalg.eigh(matrix)
    powers = torch.diag(values.clamp_min((0.5 / 255) ** 2) ** power)
    result: Tensor = vectors @ powers @ vectors.T
    return result


def check_writable(target: Path) -> None:
    """Find out before the work whether `target` can be written after it.

    Raises:
        ImpastoError: its extension is unknown, or its folder is missing or not writable.
    """
    if target.suffix.lower() not in FORMATS:
        raise ImpastoError(
            f"{target} has no extension that impasto can write; use one of "
            f"{', '.join(FORMATS)}, or end a folder with a /"
        )
    check_folder(target)


def write(
    image: Image.Image,
    target: PathLike,
    *,
    record: Mapping[str, Any] | None = None,
    force: bool = False,
) -> Path:
    """Write a picture whole or not at all, in the format of its extension.

    A file that exists is replaced only with `force`; otherwise `-2`, `-3`, ... is put behind the
    name. A PNG carries `record` as text. Returns the path that was written.

    Raises:
        ImpastoError: see `check_writable`; or the disk is full.
    """
    path = Path(target)
    check_writable(path)
    return write_whole(_encode(image, path, record), path, force)


def read_record(path: PathLike) -> dict[str, Any]:
    """What a PNG says of how it was made.

    Raises:
        ImpastoError: the file is no picture, or carries no such record.
    """
    name = os.fspath(path)
    data = _read_bytes(Path(name))
    with _reading(name), Image.open(io.BytesIO(data)) as image:
        image.load()
        text = image.info.get(RECORD)
    try:
        record = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise ImpastoError(
            f"{name} does not say how it was made; only PNG files written by impasto do"
        )
    return record


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise ImpastoError(f"there is no file {path}; check the path") from None
    except IsADirectoryError:
        raise ImpastoError(f"{path} is a folder; give a picture file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImpastoError(f"{path} cannot be opened ({reason}); check the path") from None
    if not data:
        raise ImpastoError(f"{path} is empty; give a picture file")
    return data


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on bad files into one sentence, and keep its remarks quiet."""
    try:
        with warnings.catch_warnings(record=True) as remarks:
            warnings.simplefilter("always")
            yield
    except ImpastoError:
        raise
    except UnidentifiedImageError:
        raise ImpastoError(
            f"{name} is not a picture that impasto can read; "
            "give a JPEG, PNG, WebP, TIFF, BMP or GIF file"
        ) from None
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise ImpastoError(
            f"{name} claims more than {limit} million pixels, which may be a decompression bomb; "
            "make it smaller first"
        ) from None
    except MemoryError:
        raise ImpastoError(f"{name} does not fit into memory; make it smaller first") from None
    except Exception as error:  # decoders raise many kinds for damaged files
        raise ImpastoError(
            f"{name} is damaged or cut short ({error}); get a whole copy of it"
        ) from None
    for remark in remarks:
        if issubclass(remark.category, ImpastoNotice):
            _notice(str(remark.message))


def _decode(data: bytes, name: str, background: str) -> Image.Image:
    with _reading(name), Image.open(io.BytesIO(data)) as image:
        frames = getattr(image, "n_frames", 1)
        image.load()
        picture = _to_srgb(_apply_orientation(image), name, background)
        if frames > 1:
            _notice(f"{name} has {frames} frames; the first one is used")
    return picture


def _apply_orientation(image: Image.Image) -> Image.Image:
    """Turn a picture upright as its EXIF says, profile and transparency kept."""
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # EXIF that makes no sense, of which there are many kinds
        upright = image.copy()
    for key in ("icc_profile", "transparency"):
        if key in image.info:
            upright.info[key] = image.info[key]
    return upright


def _to_srgb(image: Image.Image, name: str, background: str) -> Image.Image:
    """Any mode of Pillow to RGB in sRGB, alpha composed on a colour."""
    profile = image.info.get("icc_profile")
    image = _to_8_bits(image)
    if image.mode in ("P", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode == "La":
        image = image.convert("LA")
    alpha = image.getchannel("A").copy() if image.mode in ("RGBA", "LA") else None
    if alpha:
        image = image.convert("L" if image.mode == "LA" else "RGB")
    if profile:
        image = _convert_profile(image, profile, name)
    rgb = image.convert("RGB")
    if alpha:
        rgb = Image.composite(rgb, Image.new("RGB", rgb.size, background), alpha)
    return rgb


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Deep grey pictures to 8 bits; `convert` would cut their values off at 255."""
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        highest = values.max(initial=0)
        white = 1.0 if highest <= 2 else 255.0 if highest <= 511 else 65535.0
    elif image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        white = 65535.0
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey = (values / white * 255).round().clip(0, 255).astype(np.uint8)
            alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
            return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))
    else:
        return image
    return Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8))


def _convert_profile(image: Image.Image, profile: bytes, name: str) -> Image.Image:
    """Convert from an embedded ICC profile; one that makes no sense is ignored, with a notice."""
    if image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if image.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
            image = image.convert("RGB")
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        _notice(f"{name} has a colour profile that cannot be used; its colours are taken as sRGB")
        return image
    return converted or image


def _notice(sentence: str) -> None:
    warnings.warn(sentence, ImpastoNotice, stacklevel=2)


def _encode(image: Image.Image, path: Path, record: Mapping[str, Any] | None) -> bytes:
    kind = FORMATS[path.suffix.lower()]
    options: dict[str, Any] = {}
    if kind == "PNG" and record is not None:
        text = PngInfo()
        text.add_itxt(RECORD, json.dumps(record, indent=1))
        options["pnginfo"] = text
    elif kind == "JPEG":
        options = {"quality": 95, "subsampling": 0}
    elif kind == "WEBP":
        options = {"quality": 95}
    elif kind == "TIFF":
        options = {"compression": "tiff_lzw"}
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind, **options)
    except (OSError, ValueError) as error:  # WebP stops at 16383 pixels, JPEG and GIF at 65535
        raise ImpastoError(f"{path} cannot be written ({error}); write a .png instead") from None
    return buffer.getvalue()
