"""What `impasto apply` does around a network: the photo at its size, and the record. No torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime

from impasto import __version__
from impasto.networks.files import Styles
from impasto.networks.finish import Finish
from impasto.networks.network import Network
from impasto.pictures import images
from impasto.pictures.files import sha256_of
from impasto.pictures.images import Picture
from impasto.settings import FULL, ApplySettings, Full


def at_size(picture: Picture, longer: int | Full) -> Picture:
    """A photo with its longer side at a size, its transparency too; a notice if that enlarges."""
    if longer == FULL:
        return picture
    size = images.fitted_size(picture.image.size, int(longer))
    images.tell_if_enlarged(picture, size, "to")
    image, alpha = images.resize(picture.colours, size), picture.alpha
    alpha = images.resize(alpha, size) if alpha else None
    return replace(picture, image=image, colours=image, alpha=alpha)


def finish_of(settings: ApplySettings) -> Finish:
    """How a picture is finished."""
    return Finish(settings.strength, settings.kept_colours)


def file_of(path: Path) -> dict[str, str | None]:
    """The entry for a network's file in a record."""
    return {"name": path.name, "sha256": sha256_of(path)}


def record_of(
    network: Network, file: dict[str, str | None], style: Styles, settings: ApplySettings
) -> dict[str, Any]:
    """How pictures are made, apart from what differs between them; `file`: see `file_of`."""
    shares = network.shares(style).tolist()
    finish = {"strength": settings.strength, "keep_colors": settings.kept_colours}
    return {
        "impasto": __version__,
        "command": "apply",
        "network": file,
        "styles": {n: share for n, share in zip(network.styles, shares, strict=True) if share},
        "onnxruntime": onnxruntime.__version__,
        "device": network.device,
        "settings": {"size": settings.size, **finish},
    }
