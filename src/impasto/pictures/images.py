"""Picture files to image tensors and back.

An image tensor is float32 [1, 3, height, width], RGB, in [0, 1], sRGB-encoded. This module knows
about files, colours and sizes, and nothing about networks.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import math
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageChops, ImageCms, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from impasto.errors import ImpastoError, notice
from impasto.pictures.files import STANDARD_INPUT, check_folder, write_whole

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

_WITH_ALPHA = ("PNG", "WEBP", "TIFF")
_UNNAMED = "the picture"  # what one without a file is called

RECORD = "impasto"
"""The keyword of the PNG text that holds what made a picture, as JSON."""


@dataclass(frozen=True)
class Picture:
    """A picture as it was read: upright, sRGB, on a ground where it is transparent.

    image: PIL image of mode RGB. name: for messages. sha256: of the file's bytes, or of the
    pixels where there was no file. alpha: PIL image of mode L, how much of the picture is there,
    pixel by pixel; none where all of it is.
    """

    image: Image.Image
    name: str
    sha256: str
    alpha: Image.Image | None = None
    _colors: Image.Image | None = None

    @property
    def colors(self) -> Image.Image:
        """The picture without a ground: the visible colours go on under what is transparent.

        No edge and no ground is there to be seen, by a network for one.
        """
        return self._colors or self.image


def read(source: PathLike | Image.Image | Picture, background: str = "white") -> Picture:
    """Read a picture from a file, or take one that is already a PIL image.

    JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC, AVIF, JPEG 2000, ICO and whatever else Pillow reads;
    `"-"` is standard input. EXIF orientation is applied, an embedded colour profile converted to
    sRGB, 16 bits scaled to 8, alpha composed on `background`. Of several frames the first is used,
    with an `ImpastoNotice`.

    Raises:
        ImpastoError: the file is missing, is no picture, is damaged or too large to be honest.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, Image.Image):
        with _reading(_UNNAMED):
            rgb, alpha = _to_srgb(_apply_orientation(source), _UNNAMED)
        parts = [repr(rgb.size).encode(), rgb.tobytes(), alpha.tobytes() if alpha else b""]
        digest = hashlib.sha256(b"".join(parts)).hexdigest()
        return _picture(rgb, alpha, _UNNAMED, digest, background)
    name, data = _read_bytes(source)
    rgb, alpha = _decode(data, name)
    return _picture(rgb, alpha, name, hashlib.sha256(data).hexdigest(), background)


def read_visible(source: PathLike | Image.Image | Picture) -> Picture:
    """A picture, see `read`, that is to be painted, or from.

    Raises:
        ImpastoError: also, there is nothing to be seen in it.
    """
    picture = read(source)
    if picture.alpha and picture.alpha.getextrema()[1] == 0:
        raise ImpastoError(f"{picture.name} is wholly transparent; give one that shows something")
    return picture


def read_mask(source: PathLike | Image.Image | Picture) -> Picture:
    """A mask: white where something is, black where not, grey in between.

    Of a colour, its brightest channel counts. What is transparent is black. In one that has only
    the values 0 and 1, as labels are, 1 is white.

    Raises:
        ImpastoError: see `read`; or nothing of it is white.
    """
    seen = read(source, background="black")
    name = "the mask" if seen.name == _UNNAMED else f"the mask {seen.name}"
    red, green, blue = seen.image.split()
    brightest = ImageChops.lighter(ImageChops.lighter(red, green), blue)  # red is as good as white
    highest = brightest.getextrema()[1]
    if highest == 0:
        raise ImpastoError(f"{name} covers nothing; paint the area white")
    if highest == 1:
        notice(f"{name} has the values 0 and 1, as labels do; 1 is taken for white")
        brightest = brightest.point(lambda value: 255 * value)
    elif isinstance(highest, int) and highest < 230:
        notice(
            f"{name} is dark: where it is brightest, {highest / 2.55:.0f} % of the painting come "
            "through; paint the area white for all of it"
        )
    return Picture(brightest.convert("RGB"), seen.name, seen.sha256)


def keeps_transparency(path: Path) -> bool:
    """Whether the format of an extension holds alpha as soft as it is."""
    return FORMATS[path.suffix.lower()] in _WITH_ALPHA


def composed(image: Image.Image, background: str = "white") -> Image.Image:
    """An image of mode RGBA on a ground; one of mode RGB as it is."""
    if image.mode == "RGB":
        return image
    ground = Image.new("RGB", image.size, background)
    ground.paste(image, mask=image.getchannel("A"))
    return ground


def _picture(
    rgb: Image.Image, alpha: Image.Image | None, name: str, sha256: str, background: str
) -> Picture:
    if alpha is None or alpha.getextrema()[0] == 255:
        return Picture(rgb, name, sha256)
    shown = Image.composite(rgb, Image.new("RGB", rgb.size, background), alpha)
    return Picture(shown, name, sha256, alpha, _spread(rgb, alpha))


def _spread(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    """Visible colours, spread smoothly under what is transparent: pull and push.

    Gortler et al. 1996 ("The Lumigraph"), section 3.4.
    """
    visible = torch.from_numpy(np.array(alpha))[None, None].to(torch.float32) / 255
    if not visible.any():
        return rgb
    # Sums over squares of 1, 2, 4, ... pixels a side: colours by how visible they are, and that.
    sums = [torch.cat([to_tensor(rgb) * visible, visible], 1)]
    while max(sums[-1].shape[-2:]) > 1:
        sums.append(4 * F.avg_pool2d(sums[-1], 2, ceil_mode=True))
    filled = sums[-1][:, :3] / sums[-1][:, 3:]
    for finer in reversed(sums[:-1]):
        coarse = F.interpolate(filled, finer.shape[-2:], mode="bilinear", align_corners=False)
        known = finer[:, :3] / finer[:, 3:].clamp_min(1e-6)
        filled = torch.lerp(coarse, known, finer[:, 3:].clamp_max(1))
    return to_image(filled)


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


def mirrored(image: Tensor, margin: int) -> Tensor:
    """An image [..., height, width] with so many pixels more on each side: its mirror image."""
    if not margin:
        return image
    rows, columns = (
        torch.from_numpy(np.pad(np.arange(side), margin, mode="symmetric")).to(image.device)
        for side in image.shape[-2:]
    )
    return image[..., rows[:, None], columns]


def blurred(image: Tensor, sigma: float) -> Tensor:
    """An image [batch, C, height, width] without what is finer than a Gaussian of sigma pixels."""
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(image.detach().cpu().numpy(), (0, 0, sigma, sigma), mode="reflect")
    return torch.from_numpy(smooth).to(image)


def to_tensor(image: Image.Image) -> Tensor:
    """A PIL image of mode RGB as an image tensor [1, 3, height, width] in [0, 1]."""
    pixels = torch.from_numpy(np.array(image.convert("RGB")))
    return pixels.permute(2, 0, 1).unsqueeze(0).contiguous().float() / 255


def to_image(tensor: Tensor) -> Image.Image:
    """An image tensor [1, 3, height, width] as a PIL image, rounded to 8 bits.

    With a fourth channel, alpha, as one of mode RGBA.

    Raises:
        ImpastoError: it has values that are no numbers, which would look like black.
    """
    if tensor.isnan().any():
        raise ImpastoError("a picture has values that are no numbers, so it has no colours there")
    pixels = (tensor[0].detach().clamp(0, 1) * 255).round().byte()
    return Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy())


def luminance(image: Tensor) -> Tensor:
    """The Y of YIQ, [batch, 1, height, width], of an image tensor."""
    weights = image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)


def match_luminance(
    painting: Tensor,
    photo: Tensor,
    weights: Tensor | None = None,
    visible: Tensor | None = None,
) -> Tensor:
    """Shift and stretch a painting's luminance to a photo's mean and standard deviation.

    Gatys et al. 2016 (arXiv:1606.05897), luminance-only transfer:
    L' = (sigma_C / sigma_S) (L - mu_S) + mu_C.
    Both [1, 1, height, width]; clipped to [0, 1]. `weights`, likewise, say how much each of the
    photo's pixels counts, `visible` each of the painting's.
    """
    mean, variance = (moment.item() for moment in _color_moments(photo, weights))
    own_mean, own_variance = (moment.item() for moment in _color_moments(painting, visible))
    spread = max(math.sqrt(own_variance), 1e-6)
    return ((painting - own_mean) * (math.sqrt(variance) / spread) + mean).clamp(0, 1)


def with_luminance(image: Tensor, grey: Tensor) -> Tensor:
    """An image's colours (I and Q of YIQ) with another luminance [batch, 1, height, width].

    Gatys et al. 2016, luminance-only transfer. Where a colour is more vivid than RGB allows at
    the new luminance, it is paled until it fits: clipping would change its hue and luminance.
    """
    colour = image - luminance(image)
    # The largest t in [0, 1] with 0 <= grey + t * colour <= 1, channel by channel.
    room = torch.where(colour > 0, 1 - grey, grey) / colour.abs().clamp_min(1e-6)
    return grey + colour * room.amin(1, keepdim=True).clamp(0, 1)


HALF_A_LEVEL = 0.5 / 255
"""Of 0..1; colours that vary by less are taken not to vary at all."""


def match_colors(
    image: Tensor,
    goal: Tensor,
    weights: Tensor | None = None,
    visible: Tensor | None = None,
    least_spread: float = HALF_A_LEVEL,
) -> Tensor:
    """Recolour an image so that its colours have the mean and covariance of another's, the goal's.

    Gatys et al. 2016 (arXiv:1606.05897), section 4: x' = A (x - mu_S) + mu_C with
    A = Sigma_C^1/2 Sigma_S^-1/2. Both [1, 3, height, width] of any size; clipped to [0, 1].
    `weights` [1, 1, height, width] say how much each of the goal's pixels counts, `visible` each
    of the image's. Colours of the image that vary by less than `least_spread` (standard deviation)
    are taken to vary by as much: what hardly differs is not torn apart.
    """
    mean, covariance = _color_moments(goal, weights)
    own_mean, own_covariance = _color_moments(image, visible)
    matrix = _matrix_power(covariance, 0.5) @ _matrix_power(own_covariance, -0.5, least_spread)
    x = image[0].flatten(1).cpu().double()
    recoloured: Tensor = matrix @ (x - own_mean) + mean
    return recoloured.clamp(0, 1).view(image.shape).to(image)


def _color_moments(image: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean [C, 1] and covariance [C, C] of an image's C colours, in float64."""
    x = image[0].flatten(1).cpu().double()
    w = torch.ones_like(x[:1]) if weights is None else weights.flatten().cpu().double()[None]
    mean = (x * w).sum(1, keepdim=True) / w.sum()
    return mean, (x - mean) * w @ (x - mean).T / w.sum()


def _matrix_power(matrix: Tensor, power: float, least_spread: float = HALF_A_LEVEL) -> Tensor:
    """A power of a covariance; colours that hardly vary are given a least standard deviation."""
    values, vectors = torch.linalg.eigh(matrix)
    powers = torch.diag(values.clamp_min(least_spread**2) ** power)
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
    name, data = _read_bytes(path)
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


def _read_bytes(source: PathLike) -> tuple[str, bytes]:
    """A file's name and what is in it."""
    try:
        name = os.fspath(source)
    except TypeError:
        raise ImpastoError(
            f"a picture can't be of the type {type(source).__name__}; give the path of a file, or "
            "a PIL image"
        ) from None
    if name == STANDARD_INPUT:
        name, data = "standard input", _read_standard_input()
    else:
        data = _read_file(Path(name))
    if not data:
        raise ImpastoError(f"{name} is empty; give a picture file")
    return name, data


def _read_standard_input() -> bytes:
    if sys.stdin is None:
        raise ImpastoError("standard input is closed; give a file")
    try:
        data = _all_of(sys.stdin.buffer)
    except (OSError, ValueError) as error:
        raise ImpastoError(f"standard input cannot be read ({error}); give a file") from None
    if not data:
        raise ImpastoError(
            "standard input is empty; send a picture to it, as in: impasto stylize - < photo.jpg"
        )
    return data


@functools.lru_cache(maxsize=1)
def _all_of(stream: BinaryIO) -> bytes:
    """What a stream holds, however often it is asked for: it can be read only once."""
    return stream.read()


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ImpastoError(f"there is no file {path}; check the path") from None
    except IsADirectoryError:
        raise ImpastoError(f"{path} is a folder; give a picture file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImpastoError(f"{path} cannot be opened ({reason}); check the path") from None


@contextlib.contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on bad files into one sentence."""
    try:
        yield
    except ImpastoError:
        raise
    except UnidentifiedImageError:
        raise ImpastoError(
            f"{name} is not a picture that impasto can read; "
            "give a JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC, AVIF, JPEG 2000 or ICO file"
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
        reason = " ".join(str(error).split())
        raise ImpastoError(
            f"{name} is damaged or cut short ({reason}); get a whole copy of it"
        ) from None


def _decode(data: bytes, name: str) -> tuple[Image.Image, Image.Image | None]:
    """A file's bytes as an upright picture in sRGB, and its alpha; see `_to_srgb`."""
    with _reading(name), _opened(data) as image:
        # What a phone puts behind a photo in an MPO (what is near, a brighter copy) is no frame to
        # anyone who looks at it.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        image.load()
        pair = _to_srgb(_apply_orientation(image), name)
        if frames > 1:
            which = "main" if image.format == "HEIF" else "first"
            notice(f"{name} has {frames} frames; the {which} one is used")
    return pair


def _opened(data: bytes) -> Image.Image:
    """A file's bytes as an image that is not decoded yet."""
    brands = data[8:64]
    if data[4:8] != b"ftyp" or b"avif" in brands or not any(b in brands for b in _HEIF_BRANDS):
        return Image.open(io.BytesIO(data))
    from pillow_heif import HeifImageFile  # what an iPhone takes; 0.1 s, and seldom needed

    try:
        image: Image.Image = HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
    except SyntaxError as error:  # what `Image.open` would try other formats after
        raise OSError(error) from None
    if image.width * image.height > 2 * (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError
    nclx = image.info.get("nclx_profile") or {}
    if nclx.get("color_primaries") == _DISPLAY_P3 and not image.info.get("icc_profile"):
        image.info["icc_profile"] = _display_p3()
    return image


_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_DISPLAY_P3 = 12  # as primaries (ITU-T H.273)


def _display_p3() -> bytes:
    """The colour profile of Apple's screens and cameras: sRGB's curve, other primaries.

    SMPTE EG 432-1, adapted to D50 as colour profiles are.
    """
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    (count,) = struct.unpack_from(">I", profile, 128)
    for entry in range(132, 132 + 12 * count, 12):
        tag, offset = bytes(profile[entry : entry + 4]), entry + 4
        if tag in primaries:
            (start,) = struct.unpack_from(">I", profile, offset)
            fixed = [round(65536 * value) for value in primaries[tag]]
            struct.pack_into(">3i", profile, start + 8, *fixed)
    return bytes(profile)


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


def _to_srgb(image: Image.Image, name: str) -> tuple[Image.Image, Image.Image | None]:
    """Any mode of Pillow to RGB in sRGB, and alpha where there is any."""
    profile = image.info.get("icc_profile")
    image = _to_8_bits(image, name)
    if image.mode in ("P", "PA", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    elif image.mode == "La":
        image = image.convert("LA")
    alpha = image.getchannel("A").copy() if image.mode in ("RGBA", "LA") else None
    if alpha:
        image = image.convert("L" if image.mode == "LA" else "RGB")
    if profile:
        image = _convert_profile(image, profile, name)
    return image.convert("RGB"), alpha


def _to_8_bits(image: Image.Image, name: str) -> Image.Image:
    """Deep grey pictures to 8 bits; `convert` would cut their values off at 255."""
    if image.mode == "F":
        values = np.asarray(image, dtype=np.float64)
        if not np.isfinite(values).all():
            notice(f"{name} has values that are no finite numbers; they are black and white")
        # By nearly all of the values: a few that shine beyond white shall not darken the rest.
        lit = values[np.isfinite(values) & (values > 0)]
        highest = np.quantile(lit, 0.99, method="lower") if lit.size else 0.0
        # Beyond white there may be lights, up to four stops of them.
        white = 1.0 if highest <= 16 else 255.0 if highest <= 511 else 65535.0
        _tell_if_dark(name, highest, white)
        values = np.nan_to_num(values, nan=0.0, posinf=white, neginf=0.0)
    elif image.mode == "I" or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        white = 65535.0
        transparent = image.info.get("transparency")
        highest = values[values != transparent].max(initial=0)
        if highest == 1:  # labels; 0 and 1 of 255, see `read_mask`
            white = 255.0
        _tell_if_dark(name, highest, white)
        if isinstance(transparent, int):
            grey = (values / white * 255).round().clip(0, 255).astype(np.uint8)
            alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
            return Image.merge("LA", (Image.fromarray(grey), Image.fromarray(alpha)))
    else:
        return image
    return Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8))


def _tell_if_dark(name: str, highest: float, white: float) -> None:
    """Deep pictures may have a white of their own, that of 12 bits for one; nothing says so."""
    if 1 < highest < white / 10:
        notice(
            f"{name} is dark: of {white:.0f} its brightest value is {highest:.0f}; if that is "
            "white, save it with 8 bits"
        )


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
        notice(f"{name} has a colour profile that cannot be used; its colours are taken as sRGB")
        return image
    return converted or image


def _encode(image: Image.Image, path: Path, record: Mapping[str, Any] | None) -> bytes:
    kind = FORMATS[path.suffix.lower()]
    options: dict[str, Any] = {}
    if image.mode == "RGBA" and not keeps_transparency(path):
        notice(f"{path} is on white: {kind} holds no soft transparency; write a .png to keep it")
        image = composed(image)
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
