"""Make the pictures of the README: a photo and a painting beside the result.

    python examples/gallery.py [PHOTO-PAINTING ... | levels]

With the default settings, at 512 pixels, a picture takes half a minute on two cores. `levels`
paints one at 1024 pixels at one scale and again coarse to fine, in about the same time.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from impasto import Stylizer, sample
from impasto.pictures import images

FOLDER = Path(__file__).parent.parent / "docs" / "gallery"

PAIRS: dict[str, dict[str, Any]] = {
    "kingfisher-cafe_terrace_at_night": {},
    "owl-church_at_auvers": {},
    "neuschwanstein-great_wave": {},
    "kingfisher-composition_viii": {},
    "kingfisher-night_cafe": {"keep_colors": True, "style_loss": "gram"},
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


def levels() -> Image.Image:
    """The picture painted at one scale, and to its right the one painted coarse to fine."""
    photo, painting = sample("neuschwanstein"), sample("great_wave")
    ways: tuple[dict[str, Any], ...] = ({"levels": 1, "steps": 52}, {"steps": 150})
    one, fine = (
        Stylizer(painting, size=1024, style_loss="gram", **way).paint(photo).image for way in ways
    )
    gap = 16
    sheet = Image.new("RGB", (one.width + gap + fine.width, one.height), "white")
    sheet.paste(one, (0, 0))
    sheet.paste(fine, (one.width + gap, 0))
    return images.resize(sheet, images.fitted_size(sheet.size, 1376))


def save(sheet: Image.Image, name: str) -> None:
    sheet.save(FOLDER / f"{name}.jpg", quality=85, optimize=True, progressive=True)


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in tqdm(sys.argv[1:] or [*PAIRS, "levels"]):
        if name == "levels":
            save(levels(), "levels-1024")
            continue
        photo, painting = (sample(part) for part in name.split("-"))
        artwork = Stylizer(painting, **PAIRS.get(name, {})).paint(photo)
        sheet = triptych(images.read(photo).image, images.read(painting).image, artwork.image)
        save(sheet, name)


if __name__ == "__main__":
    main()
