"""Render the pictures of the README: photo and painting beside what impasto makes of them.

    python examples/gallery.py [PHOTO-PAINTING ...]

With the default settings at 512 pixels, about two minutes a picture on two cores.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from impasto import Stylizer, images, sample

FOLDER = Path(__file__).parent.parent / "docs" / "gallery"

PAIRS: dict[str, dict[str, Any]] = {
    "kingfisher-cafe_terrace_at_night": {},
    "owl-church_at_auvers": {},
    "neuschwanstein-great_wave": {},
    "kingfisher-composition_viii": {},
    "kingfisher-night_cafe": {"keep_colors": True},
}


def triptych(photo: Image.Image, painting: Image.Image, result: Image.Image) -> Image.Image:
    """Photo above painting, and the result to their right, on white."""
    width, height = result.size
    gap = 6
    half = (height - gap) // 2
    column = round(half * 1.4)
    sheet = Image.new("RGB", (column + gap + width, height), "white")
    sheet.paste(images.cover(photo, (column, half)), (0, 0))
    sheet.paste(images.cover(painting, (column, height - half - gap)), (0, half + gap))
    sheet.paste(result, (column + gap, 0))
    return sheet


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in tqdm(sys.argv[1:] or PAIRS):
        photo, painting = (sample(part) for part in name.split("-"))
        artwork = Stylizer(painting, **PAIRS.get(name, {})).paint(photo)
        sheet = triptych(images.read(photo).image, images.read(painting).image, artwork.image)
        sheet.save(FOLDER / f"{name}.jpg", quality=85, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
