"""The layers of a generator, as a table that training, use and tiles all read. Imports no torch.

Ulyanov et al. 2016 (arXiv:1603.03417): noise at several scales, coarse to fine, each scale enlarged
and joined with the noise of the next. Jetchev et al. 2016 (arXiv:1611.08207): the noise is spread
in place, so that more of it makes a larger picture; some of it is the same everywhere (Bergmann et
al. 2017, arXiv:1705.06450). Here

- nothing is padded: noise is continued beyond the borders instead, so that a picture has none, and
  a tile is exactly a part of the whole;
- while it is trained, every channel is normalised over a batch of pictures in one style (Ioffe &
  Szegedy 2015, arXiv:1502.03167, algorithm 1). Scales and shifts of the finished generator, a row
  for each style, do what that did, so that a position does not depend on those far away.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from impasto.errors import ImpastoError

EPSILON = 1e-5
"""Added to the variance of a channel before its root is divided by."""

SLOPE = 0.2
"""What values below 0 are multiplied by."""

_MOST = 4096


@dataclass(frozen=True)
class Step:
    """A convolution of 3 x 3 and what surrounds it.

    inputs, outputs: channels. stride: the pixels of the picture between two positions. noise: the
    channels of noise in place that are joined to its input, `shared` those of the noise that is the
    same everywhere. is_enlarged: its input is made twice as large before. is_last: it makes the
    picture, and nothing is normalised. margin: the positions around a tile that its input needs.
    cut: the positions that an enlarged input has beyond these, on each side.
    """

    name: str
    inputs: int
    outputs: int
    stride: int
    noise: int = 0
    shared: int = 0
    is_enlarged: bool = False
    is_last: bool = False
    margin: int = 0
    cut: int = 0

    def tensors(self, styles: int) -> dict[str, tuple[int, ...]]:
        """The names and shapes of its weights, for a number of styles."""
        inputs = self.inputs + self.noise + self.shared
        shapes: dict[str, tuple[int, ...]] = {f"{self.name}.weight": (self.outputs, inputs, 3, 3)}
        if self.is_last:
            return {**shapes, f"{self.name}.bias": (self.outputs,)}
        rows = (styles, self.outputs)
        return {**shapes, f"{self.name}.scale": rows, f"{self.name}.shift": rows}


@dataclass(frozen=True)
class Pyramid:
    """The shape of a generator.

    widths: the channels at each stride, from the largest one to 1, each half the one before. noise:
    the channels of noise in place at each of them. shared: those of the noise that is the same
    everywhere. depth: the convolutions at each stride but the last, which has one and the picture.

    Raises:
        ImpastoError: the numbers describe no generator.
    """

    widths: tuple[int, ...] = (64, 64, 64, 48, 32, 24)
    noise: tuple[int, ...] = (32, 8, 8, 4, 0, 0)
    shared: int = 16
    depth: int = 1

    def __post_init__(self) -> None:
        numbers = [*self.widths, *self.noise, self.shared, self.depth]
        whole = all(type(n) is int and 0 <= n <= _MOST for n in numbers)
        fits = 1 <= len(self.widths) == len(self.noise) <= 8 and 1 <= self.depth <= 16
        if not (whole and fits and min(self.widths) > 0 and self.noise[0] > 0):
            raise ImpastoError(
                f"{self} describes no generator; give 1 to 8 widths, as many channels of noise (at "
                "least one at the largest stride), and a depth of 1 to 16"
            )

    @classmethod
    def of(cls, told: Any) -> Pyramid:
        """The generator that `dataclasses.asdict` has turned into plain lists and numbers."""
        try:
            return cls(tuple(told["widths"]), tuple(told["noise"]), told["shared"], told["depth"])
        except (KeyError, TypeError) as error:
            raise ImpastoError(f"{told!r} describes no generator ({error})") from None

    @property
    def stride(self) -> int:
        """The pixels between two positions of the coarsest noise."""
        return 1 << (len(self.widths) - 1)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """All convolutions, in order."""
        found: list[Step] = []
        before = 0
        for level, (width, noise) in enumerate(zip(self.widths, self.noise, strict=True)):
            stride = self.stride >> level
            for number in range(self.depth if stride > 1 else 1):
                first = number == 0
                found.append(
                    Step(
                        f"grow{stride}_{number + 1}",
                        before,
                        width,
                        stride,
                        noise if first else 0,
                        0 if found else self.shared,
                        is_enlarged=first and bool(found),
                    )
                )
                before = width
        found.append(Step("picture", before, 3, 1, is_last=True))
        return self._with_margins(found)

    def _with_margins(self, steps: list[Step]) -> tuple[Step, ...]:
        """The same, each with the margin that those after it need."""
        found: list[Step] = []
        needed = 0  # around the output
        for step in reversed(steps):
            margin, cut = needed + 1, 0
            needed = margin
            if step.is_enlarged:  # which needs a position more, for the last ones to lean on
                needed = -(-(margin + 1) // 2)
                cut = 2 * needed - margin
            found.append(dataclasses.replace(step, margin=margin, cut=cut))
        return tuple(found[::-1])

    def noises(self) -> Mapping[int, tuple[int, int]]:
        """For each stride that has noise in place: its channels, and its margin in positions."""
        return {step.stride: (step.noise, step.margin) for step in self.steps if step.noise}

    def tensors(self, styles: int) -> dict[str, tuple[int, ...]]:
        """The names and shapes of all weights, for a number of styles."""
        return dict(itertools.chain(*(each.tensors(styles).items() for each in self.steps)))
