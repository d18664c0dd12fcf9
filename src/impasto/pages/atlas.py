"""The atlas of what layers keep of a photo and a painting, and the grid of a layer's channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

from PIL import Image

from impasto.device import ordinary
from impasto.errors import ImpastoError
from impasto.pages import layout
from impasto.pages.sheet import Begin, Run, RunCallback, Sheet, paint_sheet
from impasto.paint import reconstruct, texture
from impasto.paint.studio import Studio
from impasto.pictures import images
from impasto.pictures.images import Source
from impasto.settings import AtlasSettings, choose

CHANNELS = 24
"""How many channels a grid shows."""


@ordinary()
def atlas(
    photo: Source,
    painting: Source,
    *,
    settings: AtlasSettings | None = None,
    callback: RunCallback | None = None,
    **choices: Any,
) -> Sheet:
    """Make a page that shows what each layer keeps, after Gatys et al. 2016 (CVPR), fig. 1.

    The upper row has reconstructions of the photo from each of the encoder's style layers (relu1_1,
    relu2_1, ..., relu5_1), see `reconstruct`. The lower row has textures with the painting's Gram
    matrices of {relu1_1}, {relu1_1, relu2_1}, ..., see `texture`. The originals are at the left.

    Args:
        photo, painting: picture files or PIL images.
        settings: the settings to begin with, instead of the defaults.
        callback: called at every step, with the name of the run and the `Step`.
        **choices: single settings by name, see `AtlasSettings`.

    Raises:
        ImpastoError: a file or setting is wrong; the text says which and how to mend it.
        SheetInterrupted: Ctrl-C was pressed; it carries the page so far.
    """
    chosen = choose(AtlasSettings, settings, choices)
    first, second = images.read_visible(photo), images.read_visible(painting)
    studio = Studio(chosen)
    layers = list(studio.encoder.style_layers)
    sizes = [images.fitted_size(picture.image.size, chosen.size) for picture in (first, second)]
    for picture, size in zip((first, second), sizes, strict=True):
        studio.check_size(picture.name, size, layers)  # before the first run begins
    # Defaults that nobody chose are not passed on: reconstructions and textures have others.
    common = {
        name: value
        for name, value in dataclasses.asdict(chosen).items()
        if name in choices or value != getattr(AtlasSettings, name)
    }
    seen = partial(reconstruct.start, first, **common | {"size": chosen.size})
    grown = partial(texture.start, second, **common | {"size": sizes[1]}, painting_size=chosen.size)
    begins: list[Begin] = [(Run(f"photo, {name}"), partial(seen, layers=[name])) for name in layers]
    begins += [
        (Run(f"painting, up to {name}"), partial(grown, layers=layers[:number]))
        for number, name in enumerate(layers, 1)
    ]

    def draw(runs: Sequence[Run]) -> Image.Image:
        contents = [("photo", first.image), *_painted(runs[: len(layers)])]
        styles = [("painting", second.image), *_painted(runs[len(layers) :])]
        return layout.atlas(contents, styles)

    inputs = {"photo": images.named(first), "painting": images.named(second)}
    return paint_sheet(Sheet, "atlas", begins, draw, callback, **inputs)


@ordinary()
def channels(
    photo: Source, layer: str, *, settings: AtlasSettings | None = None, **choices: Any
) -> Sheet:
    """Show the most active channels of a layer in a grid: what each responds to in a photo.

    Args:
        photo: a picture file or a PIL image.
        layer: the name of one of the encoder's layers.
        settings: the settings to begin with, instead of the defaults.
        **choices: single settings by name, see `AtlasSettings`.

    Raises:
        ImpastoError: a file or setting is wrong; the text says which and how to mend it.
    """
    chosen = choose(AtlasSettings, settings, choices)
    picture = images.read(photo)
    studio = Studio(dataclasses.replace(chosen, shifts=chosen.shifts or 1))
    studio.read([layer])
    before, name = studio.layers
    if name == before:
        raise ImpastoError("the image itself has no channels to look at; name a layer")
    image = images.resize(picture.image, studio.result_size(picture, chosen.size))
    (features,) = studio.measure(studio.tensor(image), [name]).values()
    means = features[0].mean((1, 2))
    most_active = means.argsort(descending=True, stable=True)[:CHANNELS].tolist()
    maps = [(channel, features[0, channel].cpu().numpy()) for channel in most_active]
    title = f"{name}: the {len(maps)} most active of {len(means)} channels"
    page = layout.channel_grid(name, maps, image, title)
    told = studio.record("channels", page.size)
    return Sheet(
        page, told | {"layer": name, "most_active": most_active, "photo": images.named(picture)}
    )


def _painted(runs: Sequence[Run]) -> list[layout.Labelled]:
    """The pictures of runs by the names of their layers, without those that failed."""
    cells: list[layout.Labelled] = []
    for run in runs:
        if run.artwork:
            unfinished = " (interrupted)" * (run.stopped == "interrupted")
            cells.append((run.label.partition(", ")[2] + unfinished, run.artwork.image))
    return cells
