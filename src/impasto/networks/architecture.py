"""The layers of a transformation network, as a table that training, use and export all read.

Johnson, Alahi & Fei-Fei 2016 (arXiv:1603.08155): an encoder, residual blocks, a decoder. Here

- every convolution is preceded by reflection padding and, where the picture grows, by enlarging it
  (bilinear): Odena, Dumoulin & Olah 2016, "Deconvolution and Checkerboard Artifacts";
- every convolution but the last is followed by conditional instance normalisation: Dumoulin,
  Shlens & Kudlur 2017 (arXiv:1610.07629), eq. 5. A style is a row of scales and a row of shifts;
- most of the work is done at an eighth of the picture's size, where it costs a 64th.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from impasto.errors import ImpastoError

IMAGES = "images"
"""The name of what the first layer reads."""

EPSILON = 0.01
"""Added to the variance of a channel before its root is divided by. Much less would make noise out
of the rounding errors of a plain picture, a little more in each layer.
"""

_LEAST_SIDE = 4  # positions in the middle; reflection needs some
_MOST = 4096  # channels, or blocks; a file that claims more is damaged


@dataclass(frozen=True)
class Layer:
    """A convolution and what surrounds it.

    reads: the layer whose output it convolves. inputs, outputs: channels. kernel: its side, odd.
    stride: of the convolution. enlarged: how many times larger its input is made first. adds: the
    layer whose output is added to this one's (None: none); such a layer has no ReLU. is_last: it
    makes the picture, without normalisation. scale: how many pixels of the picture lie between two
    positions of its output.
    """

    name: str
    reads: str
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    enlarged: int = 1
    adds: str | None = None
    is_last: bool = False
    scale: int = 1

    @property
    def has_relu(self) -> bool:
        return not self.is_last and self.adds is None

    def tensors(self, styles: int) -> dict[str, tuple[int, ...]]:
        """The names and shapes of its weights, for a number of styles."""
        shapes: dict[str, tuple[int, ...]] = {
            f"{self.name}.weight": (self.outputs, self.inputs, self.kernel, self.kernel)
        }
        if self.is_last:
            return {**shapes, f"{self.name}.bias": (self.outputs,)}
        rows = (styles, self.outputs)
        return {**shapes, f"{self.name}.scale": rows, f"{self.name}.shift": rows}


@dataclass(frozen=True)
class Architecture:
    """The shape of a transformation network.

    widths: the channels at strides 1, 2, 4, ...; blocks: the residual blocks at each of these
    strides, those at the largest stride in the middle, the others on the way back to the picture.
    edge: the side of the first and of the last kernel.

    Raises:
        ImpastoError: the numbers describe no network.
    """

    widths: tuple[int, ...] = (16, 32, 64, 128)
    blocks: tuple[int, ...] = (0, 0, 1, 4)
    edge: int = 5

    def __post_init__(self) -> None:
        numbers = [*self.widths, *self.blocks, self.edge]
        whole = all(type(n) is int and 0 <= n <= _MOST for n in numbers)
        fits = 2 <= len(self.widths) == len(self.blocks) <= 6 and min(self.widths, default=0) > 0
        if (
            not (whole and fits)
            or self.edge % 2 == 0
            or self.edge > min(31, 2 * _LEAST_SIDE * self.stride - 1)  # which can be reflected
        ):
            raise ImpastoError(
                f"{self} describes no network; give 2 to 6 widths, as many blocks, and an odd edge "
                "that is no larger than 31, or than 15 with two widths"
            )

    @classmethod
    def of(cls, told: Any) -> Architecture:
        """The architecture that `dataclasses.asdict` has turned into plain lists and numbers."""
        try:
            return cls(tuple(told["widths"]), tuple(told["blocks"]), told["edge"])
        except (KeyError, TypeError) as error:
            raise ImpastoError(f"{told!r} describes no network ({error})") from None

    @property
    def stride(self) -> int:
        """How many pixels of the picture lie between two positions in the middle."""
        return 1 << (len(self.widths) - 1)

    def padded(self, side: int) -> int:
        """The length that a side of a picture is continued to, by its last row or column."""
        return max(-(-side // self.stride), _LEAST_SIDE) * self.stride

    @property
    def layers(self) -> tuple[Layer, ...]:
        """All convolutions, in order."""
        found: list[Layer] = []
        widths, deepest = self.widths, len(self.widths) - 1

        def add(name: str, inputs: int, level: int, **more: Any) -> None:
            reads = found[-1].name if found else IMAGES
            found.append(Layer(name, reads, inputs, widths[level], scale=1 << level, **more))

        def add_blocks(level: int) -> None:
            for number in range(1, self.blocks[level] + 1):
                before, name = found[-1].name, f"block{1 << level}_{number}"
                add(f"{name}a", widths[level], level)
                add(f"{name}b", widths[level], level, adds=before)

        add("down2", 3, 1, kernel=self.edge, stride=2)
        for level in range(2, deepest + 1):
            add(f"down{1 << level}", widths[level - 1], level, stride=2)
        add_blocks(deepest)
        for level in reversed(range(deepest)):
            add(f"up{1 << level}", widths[level + 1], level, enlarged=2)
            add_blocks(level)
        last = found[-1].name
        found.append(Layer("picture", last, widths[0], 3, self.edge, is_last=True))
        return tuple(found)

    def tensors(self, styles: int) -> dict[str, tuple[int, ...]]:
        """The names and shapes of all weights, for a number of styles."""
        return dict(itertools.chain(*(each.tensors(styles).items() for each in self.layers)))
