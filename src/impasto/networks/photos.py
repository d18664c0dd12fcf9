"""A folder of photos to train on: random crops of most of them, the rest held out."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from impasto.errors import ImpastoError, notice
from impasto.pictures import decoding, files, images

LEAST_PHOTOS = 10

HELD_OUT = 0.1
"""The share of the photos that training never sees; the validation loss is measured on them."""

CHECKED = 500
"""Up to this many photos are decoded before training begins, to find broken ones, and kept."""

SEEN = (1.3, 3.0)
"""A photo's longer side, in sides of a crop: random between these, but never enlarged."""


class Photos:
    """The photos of a folder and of the folders in it, in the order of their names.

    Photos that are broken, or smaller than a crop, are left out, with a notice. size: the side of
    a crop in pixels.

    Raises:
        ImpastoError: there is no such folder, or too few photos are left.
    """

    def __init__(self, folder: str | os.PathLike[str], size: int, seed: int = 0) -> None:
        self.folder, self.size, self.seed = Path(folder), size, seed
        if not self.folder.is_dir():
            raise ImpastoError(f"there is no folder {self.folder}; give one with photos")
        listed = sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in images.READABLE)
        self._image = functools.lru_cache(maxsize=CHECKED)(self._decoded)
        self.broken: list[str] = []
        self.small = 0
        good = [path for path in listed if self._is_good(path, whole=len(listed) <= CHECKED)]
        if self.broken:
            told = f"{len(self.broken)} photos are" if len(self.broken) > 1 else "a photo is"
            notice(f"{told} left out: {self.broken[0]}")
        if self.small:
            notice(f"{self.small} photos have a side below {size} pixels and are left out")
        if len(good) < LEAST_PHOTOS:
            why = f" of at least {size} pixels a side" if self.small else " that can be read"
            mend = "add some, or train with a smaller --size" if self.small else "add some"
            raise ImpastoError(
                f"{self.folder} has {len(good)} photos{why}, and training needs {LEAST_PHOTOS}; "
                + mend
            )
        order = np.random.default_rng([seed, len(good)]).permutation(len(good))
        count = max(2, round(HELD_OUT * len(good)))
        self.held_out = [good[at] for at in order[:count]]
        self.paths = sorted(set(good) - set(self.held_out))

    def _is_good(self, path: Path, *, whole: bool) -> bool:
        try:
            if whole:
                size = self._image(path).size
            else:
                with decoding.opened(files.read_whole(path)[1], str(path)) as image:
                    size = image.size
        except ImpastoError as error:
            self.broken.append(str(error))
            return False
        self.small += min(size) < self.size
        return min(size) >= self.size

    def _decoded(self, path: Path) -> Image.Image:
        """A photo, no larger than any crop needs it."""
        image = images.read(path).image
        scale = max(self.size / min(image.size), SEEN[1] * self.size / max(image.size))
        if scale >= 1:
            return image
        return images.resize(image, images.fitted_size(image.size, round(scale * max(image.size))))

    def crops(self, step: int, count: int) -> Tensor:
        """Random crops for a step, [count, 3, size, size]; the same for the same seed and step."""
        random = np.random.default_rng([self.seed, 1, step])
        found: list[Tensor] = []
        while len(found) < count:
            path = self.paths[random.integers(len(self.paths))]
            try:
                found.append(self._crop(self._image(path), random))
            except ImpastoError as error:  # only where not all could be decoded before
                notice(f"a photo is left out: {error}")
                self.paths.remove(path)
                if not self.paths:
                    raise
        return torch.cat(found)

    def _crop(self, image: Image.Image, random: np.random.Generator) -> Tensor:
        shorter, longer = min(image.size), max(image.size)
        least = max(self.size / shorter, SEEN[0] * self.size / longer)
        most = max(least, min(1.0, SEEN[1] * self.size / longer))
        side = self.size / (least * (most / least) ** random.random())  # in the photo's pixels
        side = min(side, shorter)
        left, top = (random.random() * (length - side) for length in image.size)
        crop = self._cut(image, left, top, side)
        return crop.flip(-1) if random.random() < 0.5 else crop

    def _cut(self, image: Image.Image, left: float, top: float, side: float) -> Tensor:
        box = (left, top, min(left + side, image.width), min(top + side, image.height))
        lanczos = Image.Resampling.LANCZOS
        return images.to_tensor(image.resize((self.size, self.size), lanczos, box, 3.0))

    def validation(self, count: int) -> Tensor:
        """Crops from the middle of held-out photos, [count, 3, size, size]; always the same."""
        found: Sequence[Image.Image] = [self._image(path) for path in self.held_out[:count]]
        crops = [
            self._cut(
                image,
                (image.width - min(image.size)) / 2,
                (image.height - min(image.size)) / 2,
                min(image.size),
            )
            for image in found
        ]
        return torch.cat([crops[at % len(crops)] for at in range(count)])
