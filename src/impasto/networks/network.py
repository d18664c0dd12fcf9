"""Networks that are ready to paint: `Network.load(...)(images)`. Imports no torch."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from impasto.errors import ImpastoError, fitting
from impasto.networks import files, graph
from impasto.networks.architecture import IMAGES
from impasto.networks.files import NetworkFile, Styles
from impasto.networks.finish import Finish
from impasto.networks.sessions import Ready, Run
from impasto.networks.tiling import Sweeps
from impasto.pictures import images
from impasto.pictures.images import Picture
from impasto.settings import ApplySettings, KeptColors, amount, choose, parse_memory

Array = npt.NDArray[Any]
LIBRARIES = 480 * 2**20
"""Bytes that Python, its libraries, a network's weights and a tile take."""

TOGETHER = 4_000_000
"""PIL images of one size are painted in batches of up to this many pixels."""

CACHED = 200_000
"""On a CPU, pictures are painted together up to this many pixels."""


@dataclass(frozen=True)
class Asked:
    """A picture to repaint, a PIL image or one that was read; its style, and how to finish it."""

    picture: Image.Image | Picture
    style: Styles = None
    finish: Finish = field(default_factory=Finish)


class Network(Ready):
    """A network that repaints pictures in one pass, by ONNX Runtime.

    Args:
        file: what to paint with.
        device: `"cpu"`, `"cuda"` (with the package onnxruntime-gpu), or `"auto"`: the better one of
            those that ONNX Runtime has here.
        memory: the most memory that the process may use, in bytes or as text like 2G. Pictures
            that would need more are painted in tiles, with the same result.
        threads: how many threads compute on a CPU; None for one a core.

    Raises:
        ImpastoError: ONNX Runtime cannot use the device, or `memory` is no amount.
    """

    def __init__(
        self,
        file: NetworkFile,
        *,
        device: str = "auto",
        memory: int | str = "2G",
        threads: int | None = None,
    ) -> None:
        settings = choose(ApplySettings, None, {"device": device, "memory": memory})
        super().__init__(file, settings.device, threads)
        self.memory = parse_memory(settings.memory)
        self.architecture = file.transformer

    @classmethod
    def load(cls, name: str | os.PathLike[str] = "samples", **choices: Any) -> Self:
        """Load a network: a bundled one by its name, or any from its file; see `Network`.

        Raises:
            ImpastoError: there is no such network, or the file is damaged or of another format.
        """
        return cls(files.read(name), **choices)

    def shares(self, style: Styles) -> Array:
        """The share of each style, float32 [styles], which sum up to 1.

        Raises:
            ImpastoError: there is no such style, or no share is above 0.
        """
        return self.file.shares(style)

    def __call__(
        self,
        images: Any,
        style: Styles = None,
        *,
        strength: float = 1.0,
        keep_colors: bool | KeptColors | None = None,
    ) -> Any:
        """Repaint images, at their own size; they come back as the kind that was given.

        Args:
            images: a PIL image or a list of them; or an array or tensor [N, 3, height, width], RGB,
                of floats in 0..1 or of uint8. A PIL image comes back upright and in sRGB, with its
                transparency.
            style: see `shares`.
            strength, keep_colors: see `ApplySettings`.

        Raises:
            ImpastoError: images of another kind or shape, or too large for the memory allowed; or a
            style that does not exist.
        """
        chosen = {"strength": strength, "keep_colors": keep_colors}
        settings, shares = choose(ApplySettings, None, chosen), self.shares(style)
        finish = Finish(settings.strength, settings.kept_colours)
        if isinstance(images, Image.Image):
            (result,) = self.each([Asked(images, style, finish)])
            return result
        if isinstance(images, Sequence) and not isinstance(images, str):
            return self.each([Asked(image, style, finish) for image in images])
        is_tensor = hasattr(images, "detach")  # torch's, without importing torch
        if is_tensor:
            known = images.detach().cpu()
            array = np.asarray(known.float() if known.is_floating_point() else known)
        else:
            array = np.asarray(images)
        if (
            array.ndim != 4
            or array.shape[1] != 3
            or 0 in array.shape
            or array.dtype.kind not in "fu"
        ):
            raise ImpastoError(
                f"images are {type(images).__name__} of shape {array.shape} and type "
                f"{array.dtype}; give floats or uint8 [N, 3, height, width], or PIL images"
            )
        if array.dtype.kind == "u" and array.dtype != np.uint8:
            raise ImpastoError(f"images are of type {array.dtype}; give floats in 0..1, or uint8")
        photos = array if array.dtype == np.uint8 else np.nan_to_num(array).clip(0, 1)
        photos = np.asarray(photos, np.uint8 if array.dtype == np.uint8 else np.float32)
        rows = np.repeat(shares[None], len(photos), 0)
        painted = finish(self._batch(photos, rows), photos)
        if is_tensor:
            return images.new_empty(images.shape).copy_(_tensor(painted))
        return painted.astype(array.dtype, copy=False)

    def each(self, asked: Sequence[Asked]) -> list[Image.Image]:
        """Repaint pictures, each in its own style; those of one size are painted together.

        Raises:
            ImpastoError: see `__call__`.
        """
        for each in asked:
            if not isinstance(each.picture, Image.Image | Picture):
                kind = type(each.picture).__name__
                raise ImpastoError(f"a picture of type {kind} is no PIL image; open it first")
        read = [images.read_visible(each.picture) for each in asked]
        rows = [self.shares(each.style) for each in asked]
        by_size: dict[tuple[int, int], list[int]] = {}
        for number, picture in enumerate(read):
            by_size.setdefault(picture.image.size, []).append(number)
        results: dict[int, Image.Image] = {}
        for size, numbers in by_size.items():
            together = max(1, TOGETHER // (size[0] * size[1]))
            for first in range(0, len(numbers), together):
                some = numbers[first : first + together]
                several = [_pixels(read[number].colours) for number in some]
                photos = np.stack(several) if len(several) > 1 else several[0][None]
                painted = self._batch(photos, np.stack([rows[number] for number in some]))
                for place, number in enumerate(some):
                    own = slice(place, place + 1)
                    (pixels,) = asked[number].finish(painted[own], photos[own])
                    results[number] = _image(pixels, read[number].alpha)
        return [results[number] for number in range(len(asked))]

    def _batch(self, images: Array, shares: Array) -> Array:
        """Repaint images [N, 3, height, width] by shares [N, styles].

        uint8 and float32 stay what they are.
        """
        free = self.memory - LIBRARIES - 2 * images.nbytes
        if free <= 0:
            height, width = images.shape[-2:]
            several = f"{len(images)} pictures" if len(images) > 1 else "a picture"
            raise ImpastoError(
                f"{several} of {width} x {height} pixels cannot be painted in "
                f"{amount(self.memory)} of memory; allow {amount(1.1 * (self.memory - free))}"
            )
        with fitting("painting within the memory allowed", "allow less, for smaller tiles"):
            return self._painted(images, shares, free)

    def _painted(self, images: Array, shares: Array, free: int) -> Array:
        """Repaint images within some bytes, apart from the images and what is painted of them."""
        each = self._needs(images.shape[-2:])
        if each > free:
            one_by_one = [
                Sweeps(self.file, row, self.sessions.start, most=0.45 * free).repaint(image)
                for image, row in zip(images, shares, strict=True)
            ]
            return np.stack(one_by_one) if len(one_by_one) > 1 else one_by_one[0][None]
        result = np.empty_like(images)
        # A CPU is busy with a single picture, and a batch would leave its caches.
        most = (
            CACHED // (images.shape[2] * images.shape[3]) if self.device == "cpu" else free // each
        )
        count = max(1, int(min(most, free // each)))
        for first in range(0, len(images), count):
            some = images[first : first + count]
            x = some.astype(np.float32) / np.float32(255) if some.dtype == np.uint8 else some
            rows = shares[first : first + count]
            painted = self.run({IMAGES: x, graph.SHARES: rows})
            if some.dtype == np.uint8:
                painted = np.rint(painted * 255)
            result[first : first + count] = painted
        return result

    @functools.cached_property
    def run(self) -> Run:
        """Runs the graph of the whole network: inputs by name -> pictures; see `graph.whole`."""
        return self.sessions.start(graph.whole(self.file))

    def _needs(self, size: tuple[int, ...]) -> int:
        """The bytes that painting a picture of (height, width) as a whole takes."""
        shape = self.architecture
        # Of the largest layer: what it reads, the same with a border, and three of its outputs.
        floats = max(
            (2 * x.inputs + 3.2 * x.outputs) * (x.stride / x.scale) ** 2 for x in shape.layers
        )
        return int(4 * (floats + 8) * math.prod(shape.padded(side) for side in size))


def _pixels(image: Image.Image) -> Array:
    return np.asarray(image).transpose(2, 0, 1)


def _image(pixels: Array, alpha: Image.Image | None) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if alpha:
        image.putalpha(alpha)
    return image


def _tensor(array: Array) -> Any:
    import torch

    return torch.from_numpy(array)
