"""An encoder that looks at a picture several times, moved by a pixel or two each time.

A network whose first layer has a stride of 2 sees every second pixel from nearer than the others.
An optimiser makes use of that: it fills calm areas with dots two pixels apart. Looked at from 2 x 2
places, all pixels are alike, and the dots go. The activations of the four looks are put between
each other, as in *shift-and-stitch* (Long, Shelhamer & Darrell 2015, arXiv:1411.4038, section 3.2).
So a layer has twice as many rows and columns of positions, and losses need to know nothing of it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.encoders.base import IMAGE, Encoder, Padding
from impasto.errors import ImpastoError
from impasto.settings import Pooling


class Shifted(Encoder):
    """An encoder that looks from `side` x `side` places, 0 ... `side` - 1 pixels down and right.

    Every stride is `side` times smaller. Beyond the bottom and the right, the last row and column
    go on. It computes all layers from the image, so it has no cut, and no `start` but the image.

    Raises:
        ImpastoError: the encoder has layers whose stride is no multiple of `side`.
    """

    def __init__(self, inner: Encoder, side: int) -> None:
        least = min(row.stride for row in inner.table if row.name != IMAGE)
        if least % side:
            raise ImpastoError(
                f"{inner.name} has layers of stride {least}, which cannot be looked at from "
                f"{side} x {side} places; leave shifts out"
            )
        rows = [
            row
            if row.name == IMAGE
            else replace(
                row, stride=row.stride // side, halo=row.halo + row.stride - row.stride // side
            )
            for row in inner.table
        ]
        super().__init__(
            rows,
            content_layer=inner.content_layer,
            style_layers=inner.style_layers,
            sets=inner.sets,
            cut="",
            poolings=inner.poolings,
        )
        self.inner, self.looks, self.name = inner, side, inner.name
        self.pooling, self.padding, self.smoothing = inner.pooling, inner.padding, inner.smoothing
        self.device, self.dtype = inner.device, inner.dtype

    def __call__(
        self,
        x: Tensor,
        layers: Iterable[str],
        start: str = IMAGE,
        whole: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        wanted = {self.layer(name) for name in layers}
        found = {IMAGE: x} if IMAGE in wanted else {}
        if start != IMAGE:
            raise ValueError("an encoder that looks several times always starts from the image")
        if wanted - found.keys():
            moves = itertools.product(range(self.looks), repeat=2)
            looks = torch.cat([self._moved(x, down, right) for down, right in moves])
            for name, each in self.inner(looks, wanted - found.keys(), IMAGE, whole).items():
                row = self.rows[name]
                found[name] = self._stitched(each, *map(row.positions, x.shape[-2:]))
        return found

    def _moved(self, x: Tensor, down: int, right: int) -> Tensor:
        """x from `down` and `right` on, as large as it was."""
        if self.padding == "circular":
            return x.roll((-down, -right), (-2, -1))
        return F.pad(x[..., down:, right:], (0, right, 0, down), mode="replicate")

    def _stitched(self, looks: Tensor, height: int, width: int) -> Tensor:
        """The looks [side^2 batch, C, h, w] between each other: [batch, C, height, width]."""
        side = self.looks
        parts = looks.view(side, side, -1, *looks.shape[1:]).permute(2, 3, 4, 0, 5, 1)
        whole: Tensor = parts.flatten(4, 5).flatten(2, 3)[..., :height, :width]
        return whole.contiguous(memory_format=torch.channels_last)

    def prepare(self, layers: Iterable[str]) -> None:
        self.inner.prepare(layers)

    def held(self, layers: Iterable[str]) -> int:
        return self.inner.held(layers)

    def alias(self, name: str) -> str:
        return self.inner.alias(name)

    def min_size(self, layers: Iterable[str]) -> int:
        return self.inner.min_size(layers)

    def spread(self, layer: str) -> float:
        return self.inner.spread(layer)

    @property
    def compiled(self) -> tuple[int, int]:
        return self.inner.compiled

    def like(
        self,
        *,
        pooling: Pooling | None = None,
        padding: Padding | None = None,
        smoothing: float | None = None,
    ) -> Self:
        other = super().like(pooling=pooling, padding=padding, smoothing=smoothing)
        other.inner = self.inner.like(pooling=pooling, padding=padding, smoothing=smoothing)
        return other

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Self:
        other = super().to(device, dtype)
        other.inner = self.inner.to(device, dtype)
        return other
