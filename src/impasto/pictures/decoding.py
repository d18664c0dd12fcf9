"""Decode a file into an upright picture in sRGB: modes, bit depths, profiles, EXIF and damage."""

from __future__ import annotations

import contextlib
import io
import math
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from impasto.errors import ImpastoError, notice

Decoded = tuple[Image.Image, Image.Image | None]
"""A picture of mode RGB, and its alpha of mode L (None if it has no alpha channel)."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
_DISPLAY_P3 = 12  # the number of its primaries in ITU-T H.273


def decode(data: bytes, name: str) -> Decoded:
    """Decode a file's bytes into an upright picture in sRGB and its alpha.

    Of several frames the first is used, with an `ImpastoNotice`. `name` is for messages.

    Raises:
        ImpastoError: it is not a picture, is damaged, or claims too many pixels.
    """
    with opened(data, name) as image:
        # The other frames of an MPO are a phone's extras: a depth map, a brighter copy.
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        image.load()
        decoded = normalise(image, name)
        if frames > 1:
            which = "main" if image.format == "HEIF" else "first"
            notice(f"{name} has {frames} frames; the {which} one is used")
    return decoded


def normalise(image: Image.Image, name: str) -> Decoded:
    """Turn a PIL image of any mode into an upright picture in sRGB and its alpha; see `decode`."""
    with _told_in_a_sentence(name):
        image = _upright(image)
        profile = image.info.get("icc_profile")
        image = _to_8_bits(image, name)
        if image.mode in ("P", "PA", "RGBa") or "transparency" in image.info:
            image = image.convert("RGBA")
        elif image.mode == "La":
            image = image.convert("LA")
        alpha = image.getchannel("A") if image.mode in ("RGBA", "LA") else None
        if alpha:
            image = image.convert("L" if image.mode == "LA" else "RGB")
        if profile:
            image = _convert_profile(image, profile, name)
        return image.convert("RGB"), alpha


@contextlib.contextmanager
def opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """Yield a file as an image that is not decoded yet; errors in the block are as in `decode`."""
    with _told_in_a_sentence(name), _open(data) as image:
        yield image


@contextlib.contextmanager
def _told_in_a_sentence(name: str) -> Iterator[None]:
    """Turn anything that Pillow raises for a bad file into an `ImpastoError`."""
    try:
        yield
    except (ImpastoError, Warning):  # Warning: the caller's filters make it an error
        raise
    except UnidentifiedImageError:
        wrong = (
            "is not a picture that impasto can read; "
            "give a JPEG, PNG, WebP, TIFF, BMP, GIF, HEIC, AVIF, JPEG 2000 or ICO file"
        )
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        wrong = (
            f"claims more than {limit} million pixels, which may be a decompression bomb; "
            "make it smaller first"
        )
    except MemoryError:
        wrong = "does not fit into memory; make it smaller first"
    except Exception as error:  # decoders raise many kinds for damaged files
        reason = " ".join(str(error).split())
        wrong = f"is damaged or cut short ({reason}); get a whole copy of it"
    else:
        return
    raise ImpastoError(f"{name} {wrong}")


def _open(data: bytes) -> Image.Image:
    brands = data[8:64]
    if data[4:8] != b"ftyp" or b"avif" in brands or not any(b in brands for b in _HEIF_BRANDS):
        return Image.open(io.BytesIO(data))
    from pillow_heif import HeifImageFile  # for an iPhone's pictures; loading it takes 0.1 s

    image: Image.Image = HeifImageFile(io.BytesIO(data))  # type: ignore[no-untyped-call]
    if image.width * image.height > 2 * (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError
    nclx = image.info.get("nclx_profile") or {}
    if nclx.get("color_primaries") == _DISPLAY_P3 and not image.info.get("icc_profile"):
        image.info["icc_profile"] = display_p3()
    return image


def display_p3() -> bytes:
    """Apple's colour profile: the tone curve of sRGB, the primaries of SMPTE EG 432-1 for D50."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    (count,) = struct.unpack_from(">I", profile, 128)
    for entry in range(132, 132 + 12 * count, 12):
        tag, start = struct.unpack_from(">4sI", profile, entry)
        if tag in primaries:
            fixed = [round(65536 * value) for value in primaries[tag]]
            struct.pack_into(">3i", profile, start + 8, *fixed)
    return bytes(profile)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Warning:
        raise
    except Exception:  # broken EXIF raises many kinds of errors
        return image.copy()


def _to_8_bits(image: Image.Image, name: str) -> Image.Image:
    """Scale deep grey pictures to 8 bits; `convert` would cut their values off at 255."""
    if image.mode not in ("F", "I") and not image.mode.startswith("I;16"):
        return image
    values = np.asarray(image, dtype=np.float64)
    transparent = image.info.get("transparency")
    if image.mode == "F":
        if not np.isfinite(values).all():
            notice(f"{name} has values that are not finite numbers; they become black or white")
        # The 99th percentile, so that a few values beyond white do not darken the rest.
        lit = values[np.isfinite(values) & (values > 0)]
        highest = np.quantile(lit, 0.99, method="lower") if lit.size else 0.0
        # Lights may be brighter than white: up to 16 times where white is 1, twice where it is 255.
        white = 1.0 if highest <= 16 else 255.0 if highest <= 511 else 65535.0
        values = np.nan_to_num(values, nan=0.0, posinf=white, neginf=0.0)
    else:
        highest = values[values != transparent].max(initial=0)
        white = 255.0 if highest == 1 else 65535.0  # 0 and 1 are labels, see `read_mask`
    # The file may have another white, such as that of 12 bits, but no field would say so.
    if 1 < highest < white / 10:
        notice(
            f"{name} is dark: its brightest value is {highest:.0f} of {white:.0f}; if that is "
            "meant to be white, save it with 8 bits"
        )
    grey = Image.fromarray((values / white * 255).round().clip(0, 255).astype(np.uint8))
    if not isinstance(transparent, int):
        return grey
    alpha = np.where(values == transparent, 0, 255).astype(np.uint8)
    return Image.merge("LA", (grey, Image.fromarray(alpha)))


def _convert_profile(image: Image.Image, profile: bytes, name: str) -> Image.Image:
    """Convert from an embedded ICC profile to sRGB; a broken one is ignored, with a notice."""
    if image.mode not in ("RGB", "L", "CMYK", "LAB"):
        image = image.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if image.mode == "L" and source.profile.xcolor_space.strip() == "RGB":
            image = image.convert("RGB")
        srgb = ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, source, srgb, outputMode="RGB") or image
    except (ImageCms.PyCMSError, OSError):
        notice(f"{name} has a colour profile that cannot be used; its colours are taken as sRGB")
        return image
