"""Networks that are ready to paint: `Network.load(...)(images)`. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import onnxruntime
from PIL import Image

from impasto.errors import ImpastoError, nearest
from impasto.networks import files, finish, graph
from impasto.networks.files import NetworkFile
from impasto.networks.tiling import Run, Sweeps
from impasto.settings import KeptColors, parse_memory

Array = npt.NDArray[Any]
Styles = str | Mapping[str, float] | Sequence[tuple[str, float]] | None
"""A style's name; several, each with its share; or None for the only style of a network."""

MEMORY = "2G"
"""The memory that a process may use if nobody says; larger pictures are painted in tiles."""

LIBRARIES = 320 * 2**20
"""Bytes that Python, its libraries and a network's weights take."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Network:
    """A network that repaints pictures in one pass, by ONNX Runtime.

    Args:
        file: what to paint with.
        device: `"cpu"`, `"cuda"` (with the package onnxruntime-gpu), or `"auto"` for the better one
            of those that ONNX Runtime has here.
        memory: the memory that the process may use. Pictures that would need more are painted in
            tiles, with the same result.

    Raises:
        ImpastoError: ONNX Runtime cannot use the device, or `memory` is no amount.
    """

    def __init__(
        self,
        file: NetworkFile,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        memory: int | str = MEMORY,
    ) -> None:
        self.file, self.memory = file, parse_memory(memory)
        there = onnxruntime.get_available_providers()
        usable = [name for name, provider in _PROVIDERS.items() if provider in there]
        if device not in ("auto", *_PROVIDERS):
            known = nearest(device, ["auto", *_PROVIDERS])
            raise ImpastoError(f"there is no device {device!r} here; did you mean {known!r}?")
        if device not in ("auto", *usable):
            raise ImpastoError(
                f"ONNX Runtime cannot use the device {device!r}; install onnxruntime-gpu instead "
                "of onnxruntime, or use 'cpu'"
            )
        self.device = usable[-1] if device == "auto" else device
        self._whole: Run | None = None

    @classmethod
    def load(cls, name: str | os.PathLike[str] = "", **options: Any) -> Self:
        """Load a network: a bundled one by its name, or any from its file; see `Network`.

        Raises:
            ImpastoError: there is no such network, or the file is damaged or of another format.
        """
        return cls(files.read(name or files.BUNDLED), **options)

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
        return (found / found.sum()).astype(np.float32)

    def __call__(
        self,
        images: Any,
        style: Styles = None,
        *,
        strength: float = 1.0,
        keep_colors: bool | KeptColors | None = None,
    ) -> Any:
        """Repaint images; they come back as they were given.

        Args:
            images: a PIL image, a list of them, or an array or tensor [N, 3, height, width] of
                floats in 0..1 (uint8 in 0..255), RGB.
            style: see `shares`.
            strength: 0 gives the photo back, 1 is all painted.
            keep_colors: `"luminance"` (or True) paints light and dark only; `"histogram"` gives
                the picture the mean and covariance of the photo's colours.

        Raises:
            ImpastoError: images of another kind or shape, or a style that does not exist.
        """
        shares = self.shares(style)
        how = finish.Finish(strength, keep_colors)
        if isinstance(images, Image.Image):
            return self._image(images, shares, how)
        if isinstance(images, Sequence):
            return [self(each, style, strength=strength, keep_colors=keep_colors) for each in images]
        array = np.asarray(images)
        if array.ndim != 4 or array.shape[1] != 3 or 0 in array.shape:
            raise ImpastoError(
                f"images have the shape {array.shape}; give [N, 3, height, width], or PIL images"
            )
        if array.dtype != np.uint8:
            array = np.clip(array.astype(np.float32), 0, 1)
        painted = how(self._batch(array, shares), array)
        if hasattr(images, "new_tensor"):  # a torch tensor, without importing torch
            return images.new_tensor(painted.tolist() if painted.size < 0 else painted)
        return painted

    def _image(self, image: Image.Image, shares: Array, how: Callable[..., Array]) -> Image.Image:
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        photo = np.asarray(image.convert("RGB")).transpose(2, 0, 1)[None]
        painted = how(self._batch(photo, shares), photo)[0].transpose(1, 2, 0)
        result = Image.fromarray(np.ascontiguousarray(painted))
        if alpha:
            result.putalpha(alpha)
        return result

    def _batch(self, images: Array, shares: Array) -> Array:
        """Repaint images [N, 3, height, width]; uint8 and float32 stay what they are."""
        free = self.memory - LIBRARIES - 2 * images.nbytes
        each = self._needs(images.shape[-2:])
        if each > free:
            sweeps = Sweeps(self.file, shares, self._started, most=0.45 * free)
            return np.stack([sweeps.repaint(image) for image in images])
        if self._whole is None:
            self._whole = self._started(graph.whole(self.file))
        result = np.empty_like(images)
        count = max(1, int(free // each))
        for first in range(0, len(images), count):
            some = images[first : first + count]
            x = some.astype(np.float32) / np.float32(255) if some.dtype == np.uint8 else some
            rows = np.repeat(shares[None], len(some), 0)
            painted = self._whole({graph.IMAGES: x, graph.SHARES: rows})
            if some.dtype == np.uint8:
                painted = np.rint(painted * 255)
            result[first : first + count] = painted
        return result

    def _needs(self, size: tuple[int, ...]) -> int:
        """The bytes that painting a picture of (height, width) as a whole takes."""
        layers = self.file.architecture.layers
        most = max((x.inputs * x.enlarged**2 + 4 * x.outputs) / x.scale**2 for x in layers)
        return int(4 * most * np.prod([self.file.architecture.padded(side) for side in size]))

    def _started(self, model: Any) -> Run:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.enable_cpu_mem_arena = False
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=[_PROVIDERS[self.device]]
        )
        return lambda inputs: session.run(None, dict(inputs))[0]
