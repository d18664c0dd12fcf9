"""Which style goes where: paintings, mixtures of paintings, and masks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from impasto.errors import ImpastoError
from impasto.pictures import images
from impasto.pictures.images import Picture, Source
from impasto.settings import plain

Sources = Source | Sequence[Source | tuple[Source, float]] | Mapping[Source, float]
"""A painting; or several, each with a number that says how much it counts (1 if not given)."""

Regions = Sequence[tuple[Source, Source]] | Mapping[Source, Source]
"""Masks, each with the painting whose style goes where the mask is white."""


@dataclass(frozen=True)
class Place:
    """A part of the picture, and the paintings (each with its share) whose mixed style goes there.

    mask: white where the place is, with one painting; None for everything that no other place's
    mask covers.
    """

    name: str
    paintings: tuple[tuple[Picture, float], ...]
    mask: Picture | None = None

    @property
    def inputs(self) -> dict[str, Picture]:
        """The paintings, then the mask, under the names that a record uses."""
        pictures = [painting for painting, _ in self.paintings]
        if self.mask is None:
            return images.by_role("painting", pictures)
        return {f"painting of {self.name}": pictures[0], f"mask of {self.name}": self.mask}


def read_places(painting: Sources | None, regions: Regions) -> list[Place]:
    """The place without a mask, if there is one, then the regions; `ImpastoError` on bad input."""
    paintings = _mixture(painting)
    places = [Place("", paintings)] if paintings else []
    pairs = regions.items() if isinstance(regions, Mapping) else regions
    for number, (mask, source) in enumerate(pairs, 1):
        mixture = ((images.read_visible(source), 1.0),)
        places.append(Place(f"region {number}", mixture, images.read_mask(mask)))
    if not places:
        raise ImpastoError("there is no style to paint in; give a painting, or a region")
    return places


def _mixture(painting: Sources | None) -> tuple[tuple[Picture, float], ...]:
    """Paintings with their shares, which sum up to 1."""
    if painting is None:
        return ()
    entries: Any = painting.items() if isinstance(painting, Mapping) else painting
    if isinstance(entries, str | os.PathLike) or not isinstance(entries, Iterable):
        entries = [entries]  # if it is no painting, reading rejects it
    pairs: list[tuple[Any, Any]] = []
    for entry in entries:
        pair = entry if isinstance(entry, tuple | list) else (entry, 1.0)
        if len(pair) != 2:
            raise ImpastoError(
                f"a painting was given with {len(pair) - 1} numbers; give one that says how much "
                "it counts, or none"
            )
        source, weight = pair[0], plain(pair[1])
        if not isinstance(weight, int | float) or not 0 <= weight < float("inf"):
            which = f" {source}" if isinstance(source, str | os.PathLike) else ""
            raise ImpastoError(f"the painting{which} counts {weight}; give a number of at least 0")
        pairs.append((source, weight))
    total = sum(weight for _, weight in pairs)
    if pairs and not total:
        raise ImpastoError("none of the paintings counts; give one a number above 0")
    return tuple(
        (images.read_visible(source), weight / total) for source, weight in pairs if weight
    )
