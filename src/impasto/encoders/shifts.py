"""An encoder that looks at a picture several times, moved by a pixel or two each time.

A network whose first layer has a stride of 2 sees every second pixel from nearer than the others.
An optimiser makes use of that: it fills calm areas with dots two pixels apart. Looked at from 2 x 2
places, all pixels are alike, and the dots go. The activations of the four looks are put between
each other, as in *shift-and-stitch* (Long, Shelhamer & Darrell 2015, arXiv:1411.4038, section 3.2).
So a layer has twice as many rows and columns of positions, and losses need to know nothing of it.
The looks move by one pixel in all layers: in deep ones, the four positions that lie side by side
see nearly the same square of the picture.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from impasto.encoders.base import IMAGE, Encoder, Padding
from impasto.errors import ImpastoError
from impasto.settings import Pooling


class Shifted(Encoder):
    """An encoder that looks from `side` x `side` places, 0 ... `side` - 1 pixels down and right.

    Every stride is `side` times smaller. Beyond the bottom and the right, the last row and column
    go on. It computes all layers from the image, so it has no cut, and no `start` but the image.

    Raises:
        ImpastoError: `side` is below 1, or no divisor of the strides of the encoder's layers.
    """

    def __init__(self, inner: Encoder, side: int) -> None:
        if side < 1:
            raise ImpastoError(f"an encoder cannot look {side} times; give at least 1")
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
        read = wanted - found.keys()
        if not read:
            return found
        # One look at a time, done again for the gradient: four at once take four times the memory.
        looks = [
            checkpoint(self._look, x, read, whole, move, use_reentrant=False)
            for move in itertools.product(range(self.looks), repeat=2)
        ]
        for name in read:
            size = tuple(map(self.rows[name].positions, x.shape[-2:]))
            stitched: Tensor = _Stitched.apply(size, *(look.pop(name) for look in looks))  # type: ignore[no-untyped-call]
            found[name] = stitched
        return found

    def _look(
        self,
        x: Tensor,
        layers: set[str],
        whole: tuple[int, int] | None,
        move: tuple[int, int],
    ) -> dict[str, Tensor]:
        """The inner encoder's layers of x moved by (down, right)."""
        return self.inner(self._moved(x, *move), layers, IMAGE, whole)

    def _moved(self, x: Tensor, down: int, right: int) -> Tensor:
        """x from `down` and `right` on, as large as it was."""
        if self.padding == "circular":
            return x.roll((-down, -right), (-2, -1))
        return F.pad(x[..., down:, right:], (0, right, 0, down), mode="replicate")

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


class _Stitched(torch.autograd.Function):
    """side^2 looks [batch, C, h, w] between each other: [batch, C, *size], channels last."""

    @staticmethod
    def forward(ctx: Any, size: tuple[int, int], *looks: Tensor) -> Tensor:
        first = looks[0]
        ctx.side, ctx.shape = math.isqrt(len(looks)), first.shape
        whole = first.new_empty(len(first), *size, first.shape[1]).permute(0, 3, 1, 2)
        for part, look in zip(_parts(whole, ctx.side), looks, strict=True):
            part.copy_(look[..., : part.shape[-2], : part.shape[-1]])
        return whole

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        height, width = ctx.shape[-2:]
        pulled = [
            F.pad(part, (0, width - part.shape[-1], 0, height - part.shape[-2])).contiguous(
                memory_format=torch.channels_last
            )
            for part in _parts(gradient, ctx.side)
        ]
        return None, *pulled


def _parts(whole: Tensor, side: int) -> Iterator[Tensor]:
    """The positions of each look, row by row of places."""
    for down, right in itertools.product(range(side), repeat=2):
        yield whole[..., down::side, right::side]
