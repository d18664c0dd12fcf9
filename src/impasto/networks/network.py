"""Networks that are ready to paint: `Network.load(...)(images)`. Imports no torch."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from impasto.errors import ImpastoError
from impasto.networks import files, graph
from impasto.networks.architecture import IMAGES
from impasto.networks.files import NetworkFile
from impasto.networks.finish import Finish
from impasto.networks.tiling import Run, Sweeps
from impasto.settings import ApplySettings, choose, parse_memory

Array = npt.NDArray[Any]
Styles = str | Mapping[str, float] | Sequence[tuple[str, float]] | None
"""A style's name; several, each with its share; or None for the only style of a network."""

LIBRARIES = 480 * 2**20
"""Bytes that Python, its libraries, a network's weights and a tile take."""

BATCH = 8
"""How many PIL images of one size are painted at once."""

CACHED = 200_000
"""On a CPU, pictures are painted together up to this many pixels."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Network:
    """A network that repaints pictures in one pass, by ONNX Runtime.

    Args:
        file: what to paint with.
        **choices: `device` and `memory`, see `ApplySettings`.

    Raises:
        ImpastoError: ONNX Runtime cannot use the device, or `memory` is no amount.
    """

    def __init__(
        self,
        file: NetworkFile,
        **choices: Any,
    ) -> None:
        settings = choose(ApplySettings, None, choices)
        self.file, self.memory = file, parse_memory(settings.memory)
        there = onnxruntime.get_available_providers()
        usable = [name for name, provider in _PROVIDERS.items() if provider in there]
        if settings.device not in ("auto", *usable):
            raise ImpastoError(
                f"ONNX Runtime cannot use the device {settings.device!r}; install onnxruntime-gpu "
                "instead of onnxruntime, or use 'cpu'"
            )
        self.device = usable[-1] if settings.device == "auto" else settings.device

    @classmethod
    def load(cls, name: str | os.PathLike[str] = "samples", **choices: Any) -> Self:
        """Load a network: a bundled one by its name, or any from its file; see `Network`.

        Raises:
            ImpastoError: there is no such network, or the file is damaged or of another format.
        """
        return cls(files.read(name), **choices)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write its file whole or not at all; returns the path that it got.

        An existing file is replaced only with `force`; otherwise `-2`, `-3`, ... is added.

        Raises:
            ImpastoError: it cannot be written.
        """
        return files.write(self.file, Path(path), force=force)

    @property
    def styles(self) -> list[str]:
        """The names of its styles."""
        return [style.name for style in self.file.styles]

    def shares(self, style: Styles) -> Array:
        """The share of each style, float32 [styles], which sum up to 1.

        Raises:
            ImpastoError: there is no such style, or no share is above 0.
        """
        if style is None:
            if len(self.styles) > 1:
                names = ", ".join(self.styles)
                raise ImpastoError(f"the network has several styles; name one of: {names}")
            style = self.styles[0]
        pairs = [(style, 1.0)] if isinstance(style, str) else list(dict(style).items())
        found = np.zeros(len(self.styles), np.float64)
        for name, share in pairs:
            if not 0 <= share < np.inf:
                raise ImpastoError(f"the share of {name} is {share}; give a number of at least 0")
            found[self.file.index(name)] += share
        if not found.sum():
            raise ImpastoError("no style has a share above 0; give one")
        return np.asarray(found / found.sum(), np.float32)

    def __call__(self, images: Any, style: Styles = None, **choices: Any) -> Any:
        """Repaint images, at their own size; they come back as the kind that was given.

        Args:
            images: a PIL image, a list of them, or an array or tensor [N, 3, height, width], RGB:
                floats in 0..1 or uint8. Transparency is kept.
            style: see `shares`.
            **choices: `strength` and `keep_colors`, see `ApplySettings`.

        Raises:
            ImpastoError: images of another kind or shape, or a style that does not exist.
        """
        settings, shares = choose(ApplySettings, None, choices), self.shares(style)
        finish = Finish(settings.strength, settings.kept_colours)
        if isinstance(images, Image.Image):
            (result,) = self._pictures([images], shares, finish)
            return result
        if isinstance(images, Sequence):
            return self._pictures(images, shares, finish)
        array = np.asarray(images)
        if array.ndim != 4 or array.shape[1] != 3 or 0 in array.shape:
            raise ImpastoError(
                f"images have the shape {array.shape}; give [N, 3, height, width], or PIL images"
            )
        if array.dtype != np.uint8:
            array = np.nan_to_num(array.astype(np.float32)).clip(0, 1)
        painted = finish(self._batch(array, shares), array)
        if hasattr(images, "new_empty"):  # a torch tensor, without importing torch
            return images.new_empty(images.shape).copy_(_tensor(painted))
        return painted

    def _pictures(
        self, pictures: Sequence[Image.Image], shares: Array, finish: Finish
    ) -> list[Image.Image]:
        """Repaint PIL images; those of one size in batches."""
        results: dict[int, Image.Image] = {}
        by_size: dict[tuple[int, int], list[int]] = {}
        for number, picture in enumerate(pictures):
            if not isinstance(picture, Image.Image):
                raise ImpastoError(f"{picture!r} is no PIL image; open it first")
            by_size.setdefault(picture.size, []).append(number)
        for numbers in by_size.values():
            for first in range(0, len(numbers), BATCH):
                some = numbers[first : first + BATCH]
                several = [_pixels(pictures[number]) for number in some]
                photos = np.stack(several) if len(several) > 1 else several[0][None]
                painted = finish(self._batch(photos, shares), photos)
                for number, pixels in zip(some, painted, strict=True):
                    results[number] = _image(pixels, pictures[number])
        return [results[number] for number in range(len(pictures))]

    def _batch(self, images: Array, shares: Array) -> Array:
        """Repaint images [N, 3, height, width]; uint8 and float32 stay what they are."""
        free = self.memory - LIBRARIES - 2 * images.nbytes
        each = self._needs(images.shape[-2:])
        if each > free:
            sweeps = Sweeps(self.file, shares, self._started, most=0.45 * free)
            one_by_one = [sweeps.repaint(image) for image in images]
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
            rows = np.repeat(shares[None], len(some), 0)
            painted = self.run({IMAGES: x, graph.SHARES: rows})
            if some.dtype == np.uint8:
                painted = np.rint(painted * 255)
            result[first : first + count] = painted
        return result

    @functools.cached_property
    def run(self) -> Run:
        """Runs the graph of the whole network: inputs by name -> pictures; see `graph.whole`."""
        return self._started(graph.whole(self.file))

    def _needs(self, size: tuple[int, ...]) -> int:
        """The bytes that painting a picture of (height, width) as a whole takes."""
        shape = self.file.architecture
        # Of the largest layer: what it reads, the same with a border, and three of its outputs.
        floats = max(
            (2 * x.inputs + 3.2 * x.outputs) * (x.stride / x.scale) ** 2 for x in shape.layers
        )
        return int(4 * (floats + 8) * np.prod([shape.padded(side) for side in size]))

    def _started(self, model: Any) -> Run:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=[_PROVIDERS[self.device]]
        )
        return lambda inputs: session.run(None, dict(inputs))[0]


def _pixels(image: Image.Image) -> Array:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def _image(pixels: Array, photo: Image.Image) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    if "A" in photo.getbands():
        image.putalpha(photo.getchannel("A"))
    return image


def _tensor(array: Array) -> Any:
    import torch

    return torch.from_numpy(array)
