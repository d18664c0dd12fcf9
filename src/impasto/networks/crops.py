"""Random crops of paintings: what a critic is told is real."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from impasto.errors import ImpastoError
from impasto.pictures import images
from impasto.pictures.images import Picture


class PaintingCrops:
    """Random squares of paintings; calling it gives one of each painting that is asked for.

    A square lies wherever it fits, and is never turned or mirrored: strokes have a direction.

    Args:
        longer: the longer side that the paintings are resized to, in pixels.
        side: of a square.

    Raises:
        ImpastoError: a painting is smaller than a square.
    """

    def __init__(self, paintings: Sequence[Picture], longer: int, side: int, seed: int = 0) -> None:
        self.side, self.seed = side, seed
        self.paintings: list[Tensor] = []
        for painting in paintings:
            size = images.fitted_size(painting.image.size, longer)
            if min(size) < side:
                raise ImpastoError(
                    f"the painting {painting.name} has {size[0]} x {size[1]} pixels, and a critic "
                    f"looks at squares of {side}; make them smaller, or the painting larger"
                )
            self.paintings.append(images.to_tensor(images.resize(painting.image, size)))

    def __call__(self, numbers: Sequence[int], step: int, turn: int = 0) -> Tensor:
        """A square of each of these paintings, [N, 3, side, side]; the same for the same step."""
        random = np.random.default_rng([self.seed, 4, step, turn])
        return torch.cat([self._crop(self.paintings[number], random) for number in numbers])

    def _crop(self, painting: Tensor, random: np.random.Generator) -> Tensor:
        top, left = (int(random.integers(length - self.side + 1)) for length in painting.shape[-2:])
        return painting[..., top : top + self.side, left : left + self.side]
