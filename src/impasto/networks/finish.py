"""What happens to a painted picture at last: its strength, and the photo's own colours.

The equations are those of `pictures.colours`, here in NumPy and row by row: one-pass networks paint
without torch, and pictures of any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from impasto.pictures.colours import HALF_A_LEVEL
from impasto.settings import KeptColors

Array = npt.NDArray[Any]

_LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)[:, None, None]
_ROWS = 512


@dataclass(frozen=True)
class Finish:
    """strength: 0 gives the photo back, 1 the painted picture. keep_colors: see `Network`."""

    strength: float = 1.0
    keep_colors: KeptColors | None = None

    def __call__(self, painted: Array, photos: Array) -> Array:
        """Finish pictures [N, 3, height, width], in place; uint8, or float32 in 0..1."""
        if self.strength == 1 and self.keep_colors is None:
            return painted
        for picture, photo in zip(painted, photos, strict=True):
            matrix, shift = np.eye(3), np.zeros(3)
            if self.keep_colors == "histogram":
                matrix, shift = _matching(picture, photo)
            for rows in _bands(picture):
                own, goal = _floats(picture[:, rows]), _floats(photo[:, rows])
                if self.keep_colors == "histogram":
                    flat = matrix @ own.reshape(3, -1) + shift[:, None]
                    own = flat.reshape(own.shape).clip(0, 1).astype(np.float32)
                elif self.keep_colors == "luminance":
                    own = _with_luminance(goal, (own * _LUMINANCE).sum(0))
                mixed = goal + np.float32(self.strength) * (own - goal)
                picture[:, rows] = np.rint(mixed * 255) if picture.dtype == np.uint8 else mixed
        return painted


def _with_luminance(image: Array, grey: Array) -> Array:
    """`colours.with_luminance`: an image's colours with another luminance."""
    colour = image - (image * _LUMINANCE).sum(0)
    room = np.where(colour > 0, 1 - grey, grey) / np.maximum(np.abs(colour), 1e-6)
    return np.asarray(grey + colour * room.min(0).clip(0, 1)).clip(0, 1)


def _matching(image: Array, goal: Array) -> tuple[Array, Array]:
    """`colours.match_colours`: A and b, so that A x + b has the goal's mean and covariance."""
    (own_mean, own_covariance), (mean, covariance) = _moments(image), _moments(goal)
    matrix = _power(covariance, 0.5) @ _power(own_covariance, -0.5)
    return matrix, mean - matrix @ own_mean


def _moments(image: Array) -> tuple[Array, Array]:
    count, total, squares = image[0].size, np.zeros(3), np.zeros((3, 3))
    for rows in _bands(image):
        colours = _floats(image[:, rows]).reshape(3, -1).astype(np.float64)
        total += colours.sum(1)
        squares += colours @ colours.T
    mean = total / count
    return mean, squares / count - np.outer(mean, mean)


def _power(matrix: Array, power: float) -> Array:
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray(vectors * np.maximum(values, HALF_A_LEVEL**2) ** power @ vectors.T)


def _bands(image: Array) -> Iterator[slice]:
    for first in range(0, image.shape[1], _ROWS):
        yield slice(first, first + _ROWS)


def _floats(pixels: Array) -> Array:
    return pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels
