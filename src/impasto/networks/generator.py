"""Generators that are ready to use: `Generator.load(...)((1024, 512))`. Imports no torch.

A picture is a function of its noise, and each pixel depends only on the noise around it. So large
pictures are made tile by tile, and no tile can be told from the whole.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from impasto import catalog
from impasto.errors import ImpastoError, fitting
from impasto.networks import files, graph
from impasto.networks.files import NetworkFile, Styles
from impasto.networks.sessions import Ready, Run
from impasto.pictures.files import is_file
from impasto.settings import ImagineSettings, amount, check_count, choose, parse_memory

Array = npt.NDArray[Any]
Noise = Mapping[int, Array]
"""Noise in place by stride, [channels, rows, columns]; under 0 what is the same everywhere."""

LIBRARIES = 300 * 2**20
"""Bytes that Python, its libraries and a generator's weights take."""

FILM, FILM_A_PIXEL = 300 * 2**20, 40
"""Bytes that torch and an encoder of films take, and those for each pixel of a frame."""

TILE = 512
"""The side of a tile in pixels, if there is memory for it."""

_FLOAT = 4  # bytes


class Generator(Ready):
    """A generator that makes pictures of any size from noise, by ONNX Runtime.

    Args:
        file: what makes the pictures.
        device, memory: see `ImagineSettings`.
        style: the style of its pictures, if none is named for one; see `NetworkFile.shares`.

    Raises:
        ImpastoError: the file is that of a network that repaints photos, ONNX Runtime cannot use
            the device, or `memory` is no amount.
    """

    def __init__(
        self,
        file: NetworkFile,
        *,
        device: str = "auto",
        memory: int | str = "2G",
        style: Styles = None,
    ) -> None:
        settings = choose(ImagineSettings, None, {"device": device, "memory": memory})
        super().__init__(file, settings.device)
        self.memory, self.style = parse_memory(settings.memory), style
        self.pyramid = file.pyramid

    @classmethod
    def load(cls, name: str | os.PathLike[str], **choices: Any) -> Self:
        """Load a generator: a bundled one by its painting's name, or any from its file.

        Raises:
            ImpastoError: there is no such generator, or the file is damaged or another network's.
        """
        file = files.read(name)
        named = os.fspath(name)
        if named in catalog.GENERATORS and not is_file(named):
            choices = {"style": named, **choices}
        return cls(file, **choices)

    def shares(self, style: Styles = None) -> Array:
        """The share of each style in a picture; see `NetworkFile.shares`."""
        return self.file.shares(self.style if style is None else style)

    def __call__(
        self,
        size: tuple[int, int] = (512, 512),
        style: Styles = None,
        *,
        seed: int = 0,
        tileable: bool = False,
    ) -> Image.Image:
        """Make a picture, a PIL image of mode RGB.

        The same size, style, seed and device give the same picture.

        Args:
            size, seed, tileable: see `ImagineSettings`.
            style: a style's name; several with their shares, as a mapping; None for its only one.

        Raises:
            ImpastoError: a value is out of its range, there is no such style, the memory allowed is
                too small, or a tileable picture has other sides than multiples of the stride.
        """
        chosen = {"size": size, "seed": seed, "tileable": tileable}
        settings = choose(ImagineSettings, None, chosen)
        shares = self.shares(style)
        self.check(settings.size, settings.tileable)
        noise = self.noise(settings.size, settings.seed, settings.tileable)
        return Image.fromarray(self._made(settings.size, noise, shares))

    def walk(
        self,
        size: tuple[int, int],
        style: Styles = None,
        *,
        seeds: tuple[int, int],
        frames: int,
        tileable: bool = False,
    ) -> Iterator[Image.Image]:
        """Pictures on the way from one seed to another, both included; errors are those of a call.

        Both kinds of noise go along a quarter of a circle, on which they keep their spread.
        """
        check_count("frames", frames, 2)
        if not isinstance(seeds, Sequence) or len(seeds) != 2:
            raise ImpastoError(f"seeds is {seeds!r}; give two, such as (0, 1)")
        settings, _ = (
            choose(ImagineSettings, None, {"size": size, "seed": seed, "tileable": tileable})
            for seed in seeds
        )
        shares = self.shares(style)
        self.check(settings.size, settings.tileable, seeds=2)
        return self._walked(settings, shares, seeds, frames)

    def _walked(
        self, settings: ImagineSettings, shares: Array, seeds: Sequence[int], frames: int
    ) -> Iterator[Image.Image]:
        first, last = (self.noise(settings.size, seed, settings.tileable) for seed in seeds)
        for number in range(frames):
            angle = number / (frames - 1) * math.pi / 2
            near, far = np.float32(math.cos(angle)), np.float32(math.sin(angle))
            noise = {stride: near * each + far * last[stride] for stride, each in first.items()}
            yield Image.fromarray(self._made(settings.size, noise, shares, seeds=2))

    def check(
        self,
        size: tuple[int, int],
        tileable: bool = False,
        *,
        seeds: int = 1,
        is_film: bool = False,
    ) -> None:
        """Check, before the work begins, that a picture of this size can be made, or a film.

        Raises:
            ImpastoError: it cannot.
        """
        stride = self.pyramid.stride
        if tileable and any(side % stride for side in size):
            near = "x".join(str(max(1, round(side / stride)) * stride) for side in size)
            raise ImpastoError(
                f"a tileable picture has sides that are multiples of {stride}; give {near} instead "
                f"of {size[0]}x{size[1]}"
            )
        needed = self._held(size, 2 if is_film else seeds) + self._tile_needs(1)
        if is_film:
            needed += FILM + FILM_A_PIXEL * math.prod(size)
        if needed > self.memory:
            raise ImpastoError(
                f"a picture of {size[0]} x {size[1]} pixels cannot be made in "
                f"{amount(self.memory)} of memory; allow {amount(1.05 * needed)}"
            )

    def _held(self, size: tuple[int, int], seeds: int) -> float:
        """The bytes of what is there as a whole: libraries, picture (PIL copies it) and noise."""
        values = sum(
            channels * math.prod(side / stride + 2 * margin + 1 for side in size)
            for stride, (channels, margin) in self.pyramid.noises().items()
        )
        # Of two seeds there is a mixture, and while numbers are drawn or repeated, a copy.
        copies = 2 if seeds == 1 else seeds + 2
        return LIBRARIES + 6 * math.prod(size) + copies * _FLOAT * values

    def _tile_needs(self, positions: int) -> float:
        """About the bytes that a tile of so many coarse positions a side takes."""
        side = self.pyramid.stride * positions
        return _FLOAT * max(
            (2 * (step.inputs + step.noise + step.shared) + 4 * step.outputs)
            * (side // step.stride + 2 * step.margin) ** 2
            for step in self.pyramid.steps
        )

    def noise(self, size: tuple[int, int], seed: int, tileable: bool = False) -> Noise:
        """The noise of a picture, with the margins that its border needs."""
        width, height = size
        whole = [-(-side // self.pyramid.stride) * self.pyramid.stride for side in (height, width)]
        shared = np.random.default_rng([seed, 0]).standard_normal(self.pyramid.shared, np.float32)
        found = {0: shared}
        for stride, (channels, margin) in self.pyramid.noises().items():
            random = np.random.default_rng([seed, stride])
            sides = [side // stride for side in whole]
            if tileable:
                once = random.standard_normal((channels, *sides), np.float32)
                found[stride] = np.pad(once, [(0, 0), *[(margin, margin)] * 2], mode="wrap")
            else:
                shape = (channels, *(side + 2 * margin for side in sides))
                found[stride] = random.standard_normal(shape, np.float32)
        return found

    @functools.cached_property
    def _run(self) -> Run:
        return self.sessions.start(graph.grown(self.file))

    def _made(
        self,
        size: tuple[int, int],
        noise: Noise,
        shares: Array,
        tile: int = TILE,
        seeds: int = 1,
    ) -> Array:
        """The picture uint8 [height, width, 3] of some noise."""
        width, height = size
        result = np.empty((height, width, 3), np.uint8)
        stride = self.pyramid.stride
        free = self.memory - self._held(size, seeds)
        positions = max(1, tile // stride)
        while positions > 1 and self._tile_needs(positions) > free:
            positions -= 1
        step = positions * stride
        with fitting("making a picture within the memory allowed", "allow less, for smaller tiles"):
            for top, left in itertools.product(range(0, height, step), range(0, width, step)):
                rows, columns = min(step, height - top), min(step, width - left)
                sides = [-(-side // stride) * stride for side in (rows, columns)]
                made = self._tile(noise, shares, (top, left), sides)
                pixels = np.rint(made[:, :rows, :columns] * 255).astype(np.uint8)
                result[top : top + rows, left : left + columns] = pixels.transpose(1, 2, 0)
        return result

    def _tile(
        self, noise: Noise, shares: Array, corner: tuple[int, int], sides: list[int]
    ) -> Array:
        """A tile [3, rows, columns] in 0..1, whose corner and sides are multiples of the stride."""
        inputs: dict[str, Array] = {graph.SHARES: shares[None]}
        if self.pyramid.shared:
            inputs[graph.noise_name(0)] = noise[0][None]
        for stride, (_, margin) in self.pyramid.noises().items():
            rows, columns = (
                slice(first // stride, (first + side) // stride + 2 * margin)
                for first, side in zip(corner, sides, strict=True)
            )
            part = np.ascontiguousarray(noise[stride][:, rows, columns])
            inputs[graph.noise_name(stride)] = part[None]
        made: Array = self._run(inputs)[0]
        return made
