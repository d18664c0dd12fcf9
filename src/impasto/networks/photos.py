"""A folder of photos to train on: random crops of most of them, the rest held out."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from impasto.errors import ImpastoError, notice
from impasto.networks.files import SUFFIX
from impasto.pictures import decoding, files, images

LEAST_PHOTOS = 10

HELD_OUT = 0.1
"""The share of the photos that training never sees; the validation loss is measured on them."""

POOL = 400
"""Crops of a step come from this many photos. They change slowly, so that few have to be read
anew. Folders with no more are read whole before training begins, which finds broken photos."""

USED = 4
"""In a larger folder, one photo of the pool is replaced after this many crops."""

KEPT = 2**30
"""The most bytes of photos that are kept in memory."""

SEEN = (1.3, 3.0)
"""A photo's longer side, in sides of a crop: random between these, but never enlarged."""

BESIDE = (".csv", "-curves.png", "-adversaries.png", "-previews.jpg", "-film.mp4")
"""What lies beside a network that was trained, after its name; no such picture is a photo."""

_HEADER = 2**20  # bytes of a file that tell its size


class Photos:
    """The photos of a folder and of the folders in it.

    Photos that are broken, or smaller than a crop, are left out, with a notice. size: the side of
    a crop in pixels. held_out, others: file names relative to the folder, if it is known which
    photos are to be held out and which not, as when a training is resumed; all others are ignored.

    Raises:
        ImpastoError: there is no such folder, or too few photos are left.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        size: int,
        seed: int = 0,
        *,
        held_out: Collection[str] = (),
        others: Collection[str] = (),
    ) -> None:
        self.folder, self.size, self.seed = Path(folder), size, seed
        if not os.path.isdir(self.folder):  # noqa: PTH112 # Path.is_dir raises
            raise ImpastoError(f"there is no folder {self.folder}; give one with photos")
        self._kept: OrderedDict[Path, Image.Image] = OrderedDict()
        known = {self.folder / name for name in (*held_out, *others)}
        listed = [path for path in self._listed() if not known or path in known]
        good = self._good(listed)
        if held_out:
            by_name = {self.name(path): path for path in good}
            # In the order that they were drawn in: it decides who is painted in which style.
            self.held_out = [by_name[name] for name in held_out if name in by_name]
        else:
            order = np.random.default_rng([seed, len(good)]).permutation(len(good))
            self.held_out = [good[at] for at in order[: max(2, round(HELD_OUT * len(good)))]]
        self.paths = [path for path in good if path not in {*self.held_out}]
        if len(self.paths) > POOL:  # those of one pool should not be alike
            order = np.random.default_rng([seed, 3]).permutation(len(self.paths))
            self.paths = [self.paths[at] for at in order]
        if not self.held_out or not self.paths:
            raise ImpastoError(f"the photos in {self.folder} are gone; put them back")

    def name(self, path: Path) -> str:
        """A photo's name within the folder."""
        return path.relative_to(self.folder).as_posix()

    def _listed(self) -> list[Path]:
        try:
            found = sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in images.READABLE)
        except OSError as error:
            told = f"{self.folder} cannot be searched ({error.strerror}); choose another folder"
            raise ImpastoError(told) from None
        made = [path for end in BESIDE for path in found if path.name.endswith(end)]
        own = {
            path for path in made if path.with_name(_stem(path.name) + SUFFIX).exists()
        }  # of networks that were trained in this folder
        return [path for path in found if path not in own]

    def _good(self, listed: list[Path]) -> list[Path]:
        """The photos that can be read and are large enough; notices about the others."""
        sizes: dict[Path, tuple[int, int]] = {}
        broken: list[str] = []
        for path in listed:
            try:
                few = len(listed) <= POOL
                sizes[path] = self._image(path).size if few else _size_of(path)
            except ImpastoError as error:
                broken.append(str(error))
        for told in broken[:5]:
            notice(f"a photo is left out: {told}")
        if len(broken) > 5:
            notice(f"{len(broken) - 5} more photos are left out, as they cannot be read")
        good = [path for path, size in sizes.items() if min(size) >= self.size]
        small = len(sizes) - len(good)
        if small:
            notice(f"photos with a side below {self.size} pixels are left out: {small}")
        if len(good) < LEAST_PHOTOS:
            why, mend = " that can be read", "add some"
            if small:
                why = f" of at least {self.size} pixels a side"
                mend = "add some, or train with a smaller --size"
            raise ImpastoError(
                f"{self.folder} has {len(good)} photos{why}, and training needs {LEAST_PHOTOS}; "
                + mend
            )
        return good

    def _image(self, path: Path) -> Image.Image:
        """A photo, no larger than any crop needs it; the last ones used are kept."""
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        image = images.read(path).image
        scale = max(self.size / min(image.size), SEEN[1] * self.size / max(image.size))
        if scale < 1:
            longer = round(scale * max(image.size))
            image = images.resize(image, images.fitted_size(image.size, longer))
        self._kept[path] = image
        while sum(4 * kept.width * kept.height for kept in self._kept.values()) > KEPT:
            self._kept.popitem(last=False)
        return image

    def crops(self, step: int, count: int) -> Tensor:
        """Random crops for a step, [count, 3, size, size]; the same for the same seed and step."""
        random = np.random.default_rng([self.seed, 1, step])
        found: list[Tensor] = []
        while len(found) < count:
            first = step * count // USED if len(self.paths) > POOL else 0
            at = first + int(random.integers(min(POOL, len(self.paths))))
            path = self.paths[at % len(self.paths)]
            try:
                found.append(self._crop(self._image(path), random))
            except ImpastoError as error:  # only where not all could be read before
                self._leave_out(path, self.paths, error)
        return torch.cat(found)

    def _leave_out(self, path: Path, paths: list[Path], error: ImpastoError) -> None:
        notice(f"a photo is left out: {error}")
        paths.remove(path)
        if not paths:
            raise error

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
        crops = list(self._middles(count))
        return torch.cat([crops[at % len(crops)] for at in range(count)])

    def _middles(self, count: int) -> Iterator[Tensor]:
        found = 0
        for path in list(self.held_out):
            try:
                image = self._image(path)
            except ImpastoError as error:
                self._leave_out(path, self.held_out, error)
                continue
            side = min(image.size)
            yield self._cut(image, (image.width - side) / 2, (image.height - side) / 2, side)
            found += 1
            if found == count:
                return


def _size_of(path: Path) -> tuple[int, int]:
    """A photo's size, from the beginning of its file."""
    name, data = str(path), b""
    try:
        with path.open("rb") as file:
            data = file.read(_HEADER)
    except OSError:
        files.read_whole(path)  # says why
    if data[4:8] == b"ftyp":  # HEIC and AVIF may keep their header anywhere
        name, data = files.read_whole(path)
    with decoding.opened(data, name) as image:
        return image.size


def _stem(name: str) -> str:
    return next(name.removesuffix(end) for end in BESIDE if name.endswith(end))
