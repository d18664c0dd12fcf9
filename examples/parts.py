"""Make the pictures of docs/parts.md: reconstructions, textures, channels, regions, mixtures.

    python examples/parts.py [PART ...]

All of them take about a quarter of an hour on two cores.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm

from gallery import FOLDER
from impasto import atlas, channels, reconstruct, sample, stylize, texture, up_to
from impasto.pages.layout import Labelled, contact_sheet
from impasto.pictures import images

WIDEST = 1600
STEPS = 100
GRAM: dict[str, Any] = {"style_loss": "gram"}


def page(
    rows: list[list[tuple[str, Image.Image | None]]],
    labels: list[str],
    columns: list[str],
    originals: list[Labelled],
) -> Image.Image:
    cells = [cell for row in rows for cell in row]
    return contact_sheet(cells, row_labels=labels, column_labels=columns, originals=originals)


def opened(name: str) -> Image.Image:
    return images.read(sample(name)).image


def whole_atlas() -> Image.Image:
    return atlas(sample("kingfisher"), sample("cafe_terrace_at_night")).image


def prior() -> Image.Image:
    layers = ["relu3_1", "relu4_1", "relu5_1"]

    def rebuilt(layer: str, tv: float | None) -> Image.Image:
        return reconstruct(sample("owl"), layers=[layer], tv=tv, steps=STEPS).image

    rows: list[list[tuple[str, Image.Image | None]]] = [
        [("", rebuilt(layer, tv)) for layer in layers] for tv in (None, 0)
    ]
    return page(rows, ["with the prior", "without"], layers, [("photo", opened("owl"))])


def prototype() -> Image.Image:
    photos = [sample("owl"), sample("scarlet_macaw"), sample("kingfisher")]
    layers = ["relu1_1", "relu3_1", "relu4_2"]
    cells: list[tuple[str, Image.Image | None]] = [
        ("", reconstruct(photos, layers=[layer], steps=STEPS).image) for layer in layers
    ]
    originals = [(photo.stem.replace("_", " "), images.read(photo).image) for photo in photos]
    return page([cells], [""], layers, originals)


def textures() -> Image.Image:
    names = ["great_wave", "cafe_terrace_at_night"]
    layers = ["relu2_1", "relu3_1", "relu5_1"]
    way: dict[str, Any] = {"size": (192, 192), "steps": STEPS}
    rows: list[list[tuple[str, Image.Image | None]]] = []
    for name in names:
        row = [texture(sample(name), layers=up_to(layer), **way).image for layer in layers]
        tile = texture(sample(name), layers=up_to("relu4_1"), tileable=True, **way).image
        rows.append([("", picture) for picture in (*row, repeated(tile))])
    columns = [*(f"up to {layer}" for layer in layers), "tileable, four of them"]
    return page(rows, [""] * 2, columns, [(name.replace("_", " "), opened(name)) for name in names])


def repeated(tile: Image.Image) -> Image.Image:
    """Four copies of a tile, two by two."""
    whole = Image.new("RGB", (2 * tile.width, 2 * tile.height))
    for x in (0, tile.width):
        for y in (0, tile.height):
            whole.paste(tile, (x, y))
    return whole


def looked_at() -> Image.Image:
    return channels(sample("scarlet_macaw"), "relu4_1").image


def sky(photo: Image.Image) -> Image.Image:
    """A soft mask of the blue parts near the top of a photo, and of its uppermost tenth."""
    red, _, blue = (np.asarray(band, dtype=np.float64) for band in photo.split())
    height = np.linspace(0, 1, photo.height)[:, None]
    area = ((blue > red + 12) | (height < 0.1)) * (height < 0.42)
    mask = Image.fromarray(255 * area.astype(np.uint8))
    return mask.filter(ImageFilter.MedianFilter(9)).filter(ImageFilter.GaussianBlur(3))


def regions() -> Image.Image:
    photo = images.resize(opened("neuschwanstein"), (512, 342))
    mask = sky(photo)
    night, wave = sample("cafe_terrace_at_night"), sample("great_wave")
    cells: list[tuple[str, Image.Image | None]] = [
        (
            "the sky after one, the rest after another",
            stylize(photo, wave, regions=[(mask, night)], size=384, steps=STEPS, **GRAM).image,
        ),
        (
            "the sky alone",
            stylize(photo, regions=[(mask, night)], size=384, steps=STEPS, **GRAM).image,
        ),
    ]
    originals = [("photo", photo), ("mask of the sky", mask.convert("RGB"))]
    originals += [
        ("for the sky", opened("cafe_terrace_at_night")),
        ("for the rest", opened("great_wave")),
    ]
    return page([cells[:1], cells[1:]], [""] * 2, [""], originals)


def mixtures() -> Image.Image:
    one, other = "great_wave", "composition_viii"
    way: dict[str, Any] = {"size": 256, "steps": STEPS, **GRAM}
    cells: list[tuple[str, Image.Image | None]] = []
    for share in (1.0, 0.5, 0.0):
        paintings = [(sample(one), share), (sample(other), 1 - share)]
        cells.append(("", stylize(sample("owl"), paintings, **way).image))
    columns = ["one alone", "half of each", "the other alone"]
    return page([cells], [""], columns, [(n.replace("_", " "), opened(n)) for n in (one, other)])


def colours() -> Image.Image:
    way: dict[str, Any] = {"size": 256, "steps": STEPS, **GRAM}
    pictures = (sample("scarlet_macaw"), sample("night_cafe"))
    cells: list[tuple[str, Image.Image | None]] = [
        ("", stylize(*pictures, keep_colors=how, **way).image)
        for how in (None, "luminance", "histogram")
    ]
    originals = [("photo", opened("scarlet_macaw")), ("painting", opened("night_cafe"))]
    return page([cells], [""], ["the painting's", "luminance", "histogram"], originals)


PARTS: dict[str, Callable[[], Image.Image]] = {
    "atlas": whole_atlas,
    "prior": prior,
    "prototype": prototype,
    "textures": textures,
    "channels": looked_at,
    "regions": regions,
    "mixtures": mixtures,
    "colours": colours,
}


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in tqdm(sys.argv[1:] or PARTS):
        sheet = PARTS[name]()
        small = images.resize(sheet, images.fitted_size(sheet.size, min(WIDEST, max(sheet.size))))
        small.save(FOLDER / f"{name}.jpg", quality=85, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
