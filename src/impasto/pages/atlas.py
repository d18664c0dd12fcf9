"""The atlas: what every layer keeps of a photo and of a painting, and what its channels look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from PIL import Image

from impasto.device import ordinary
from impasto.encoders.base import up_to
from impasto.errors import ImpastoError, notice, reason_of, told_once
from impasto.pages.sheets import (
    RunCallback,
    Sheet,
    SheetInterrupted,
    check_drawing,
    drawn,
    numbered,
    sheet_record,
)
from impasto.paint.artworks import Artwork, Interrupted
from impasto.paint.reconstruct import reconstruct
from impasto.paint.studio import Studio, named
from impasto.paint.texture import texture
from impasto.pictures import images
from impasto.pictures.images import Source
from impasto.settings import AtlasSettings, choose

CHANNELS = 24
"""How many channels a grid shows."""


@ordinary()
def atlas(
    photo: Source, painting: Source, *, callback: RunCallback | None = None, **settings: Any
) -> Sheet:
    """One labelled page, after Gatys et al. 2016 (CVPR), fig. 1.

    Content reconstructions of the photo from relu1_1, relu2_1, ..., relu5_1 in a row (see
    `reconstruct`); beneath, textures that have the painting's Gram matrices of {relu1_1},
    {relu1_1, relu2_1}, ... (see `texture`); both originals at the left.

    Args:
        photo, painting: picture files or PIL images.
        callback: called with the name of the run and the `Step`, at every step.
        **settings: see `AtlasSettings`.

    Raises:
        ImpastoError: a file or setting is wrong; the text says which and how to mend it.
        SheetInterrupted: Ctrl-C; it carries the page with what there was.
    """
    check_drawing()
    chosen = choose(AtlasSettings, None, settings)
    pictures = images.read(photo), images.read(painting)
    studio = Studio(chosen)
    BLOCKS = list(studio.encoder.style_layers)  # noqa: N806
    studio.read(BLOCKS)
    for picture in pictures:  # too small a one is known before the first run
        size = images.fitted_size(picture.image.size, chosen.size)
        studio.check_size(picture.name, size, studio.layers)
    common = dataclasses.asdict(chosen)
    del common["history"]
    grown = images.fitted_size(pictures[1].image.size, chosen.size)
    ways: list[tuple[str, Callable[..., Artwork]]] = []
    for layer in BLOCKS:
        ways.append((f"photo, {layer}", _reconstruction(pictures[0], layer, common)))
    for layer in BLOCKS:
        ways.append(
            (f"painting, up to {layer}", _texture(pictures[1], layer, common | {"size": grown}))
        )
    made: dict[str, Artwork] = {}
    interrupted = False
    failure: Exception | None = None
    with told_once():
        for number, (label, make) in enumerate(ways, 1):
            try:
                made[label] = make(callback=numbered(callback, number, len(ways), label))
            except Interrupted as interruption:
                made[label] = interruption.artwork
                interrupted = True
            except KeyboardInterrupt:
                interrupted = True
            except Exception as error:  # what was made before is not lost over it
                failure = failure or error
                reason = reason_of(error)
                notice(f"{label} is left out: {reason}")
            if interrupted:
                break
    if not made:
        raise failure or KeyboardInterrupt
    contents = [_labelled(label, made[label]) for label, _ in ways[: len(BLOCKS)] if label in made]
    styles = [_labelled(label, made[label]) for label, _ in ways[len(BLOCKS) :] if label in made]
    first, second = (picture.image for picture in pictures)

    def draw() -> Image.Image:
        from impasto.pages import layout as figures

        return figures.atlas(first, second, contents, styles)

    rows = [
        [original, *(image for _, image in row)]
        for original, row in ((first, contents), (second, styles))
    ]
    page, late = drawn(draw, rows)
    interrupted = interrupted or late
    record = sheet_record("atlas", page, made)
    record |= {"photo": named(pictures[0]), "painting": named(pictures[1])}
    if interrupted:
        raise SheetInterrupted(Sheet(page, record, "interrupted"))
    return Sheet(page, record)


@ordinary()
def channels(photo: Source, layer: str, **settings: Any) -> Sheet:
    """The most active channels of a layer as a grid: what each of them looks at in a photo.

    Args:
        photo: a picture file or a PIL image.
        layer: one of the encoder's.
        **settings: see `AtlasSettings`.

    Raises:
        ImpastoError: a file or setting is wrong; the text says which and how to mend it.
    """
    check_drawing()
    from impasto.pages import layout as figures

    chosen = choose(AtlasSettings, None, settings)
    picture = images.read(photo)
    studio = Studio(chosen)
    studio.read([layer])
    name = studio.layers[-1]
    if name == studio.layers[0]:
        raise ImpastoError("the image itself has no channels to look at; name a layer")
    size = studio.result_size(picture, chosen.size)
    image = images.resize(picture.image, size)
    (features,) = studio.measure(studio.tensor(image), [name]).values()
    means = features[0].mean((1, 2))
    most_active = means.argsort(descending=True, stable=True)[:CHANNELS].tolist()
    maps = [(channel, features[0, channel].cpu().numpy()) for channel in most_active]
    title = f"{name}: the {len(maps)} most active of {len(means)} channels"
    page = figures.channel_grid(name, maps, image, title)
    record = studio.record("channels", page.size)
    record |= {"layer": name, "most_active": most_active, "photo": named(picture)}
    return Sheet(page, record)


def _reconstruction(photo: Source, layer: str, settings: dict[str, Any]) -> Callable[..., Artwork]:
    return lambda callback: reconstruct(photo, layers=[layer], callback=callback, **settings)


def _texture(painting: Source, layer: str, settings: dict[str, Any]) -> Callable[..., Artwork]:
    longer = max(settings["size"])
    return lambda callback: texture(
        painting, layers=up_to(layer), painting_size=longer, callback=callback, **settings
    )


def _labelled(label: str, artwork: Artwork) -> tuple[str, Image.Image]:
    unfinished = " (interrupted)" if artwork.stopped == "interrupted" else ""
    return label.partition(", ")[2] + unfinished, images.composed(artwork.image)
