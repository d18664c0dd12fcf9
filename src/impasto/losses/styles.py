"""What style is: statistics of a layer's activations, and how far two of them are apart.

A `MeanStyle` is one notion of it, in two halves. Its *statistic* is a mean over positions of a
function of the activations there: it forgets where things are. Its *distance* is a function of
two statistics alone. Kept apart so, everything else follows: an area is a weighted mean, several
paintings are a mean of their means, a tile is a part of the sum, a coarser level the same mean
over fewer positions.

Symbols: f the activations of one position, [C]; E[.] the mean over a picture's positions; x the
picture, y the painting. Distances are relative: 0 for equal statistics, about 1 for a picture
whose statistics are nothing like the painting's.

Li, Wang, Liu & Hou 2017 (arXiv:1701.01036) showed that the Gram loss compares distributions of
activations, and tried other ways of doing so; they are meant by "Li et al." below. MMD is the
maximum mean discrepancy with a kernel k (Gretton et al. 2012, JMLR 13, lemma 6):

    MMD^2 = E[k(x, x')] - 2 E[k(x, y)] + E[k(y, y')]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol, Self

from torch import Tensor

from impasto.device import recordable
from impasto.encoders.tiles import Part
from impasto.errors import ImpastoError
from impasto.kernels import ops
from impasto.losses.base import Loss, SumLoss, exact_sum, relative, squared_error
from impasto.settings import Scaling

Area = Tensor | None
"""How much each position of a layer counts, [1 or batch, 1, height, width], of mean 1.

None: all of them alike.
"""


class Exemplar(NamedTuple):
    """A painting to take a style from.

    image: an image tensor. share: of the style that is mixed of several; shares sum up to 1.
    visible: how much each pixel [1, 1, height, width] counts; none: all of them alike.
    """

    image: Tensor
    share: float = 1.0
    visible: Tensor | None = None


@dataclass(frozen=True)
class Statistic:
    """A style's statistic of a layer, in an area of it; no style means Gram matrices."""

    layer: str
    style: MeanStyle | None = None
    area: Area = None

    def __call__(self, features: Tensor, part: Part | None = None) -> Tensor:
        return (self.style or GRAM).mean(features, part, self.area)


Paintings = Sequence[Exemplar]
Shares = Mapping[str, float]
Measure = Callable[[Paintings, Mapping[str, Statistic]], dict[str, Tensor]]
"""Measures statistics of paintings, by name, and mixes them by the paintings' shares."""


class Style(Protocol):
    """A notion of style: it makes the losses that have a picture take it on.

    `losses` gives one or several for all layers together, weighted by the layers' shares, with
    their targets found in the paintings. They are those of a whole picture.
    """

    @property
    def name(self) -> str: ...
    def losses(
        self, measure: Measure, paintings: Paintings, shares: Shares, scaling: Scaling = "relative"
    ) -> Sequence[Loss]: ...


class MeanStyle:
    """A style whose statistic is a mean over positions.

    `mean` is the statistic [batch, rows, C] of activations [batch, C, height, width]: the mean
    over the positions of `part` (none: over all), each weighted by `area`, which covers the whole
    layer. `distance` is the loss, [batch] in float64 on the CPU, of a statistic and the painting's.
    """

    name: ClassVar[str]

    def mean(self, features: Tensor, part: Part | None = None, area: Area = None) -> Tensor:
        part = part or Part.whole(features)
        return self.moments(part.core_of(features), _weights(area, part, features))

    def moments(self, features: Tensor, weights: Tensor | None) -> Tensor:
        """The statistic of all these positions, weighted if there are weights: E[f], a row."""
        return average(features, weights)

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        """sum (statistic - target)^2 / sum target^2, unless a style says otherwise."""
        return relative(squared_error(statistic, target), exact_sum(target.square()))

    def fitted(self, measure: Measure, paintings: Paintings, layer: str) -> Self:  # noqa: ARG002
        """The same style with what it has to know of the paintings."""
        return self

    def losses(
        self, measure: Measure, paintings: Paintings, shares: Shares, scaling: Scaling = "relative"
    ) -> list[StyleLoss]:
        """A `StyleLoss` for each layer; their weights sum up to 1. Gatys et al. 2015, eq. 5."""
        styles = {layer: self.fitted(measure, paintings, layer) for layer in shares}
        targets = measure(paintings, {name: Statistic(name, s) for name, s in styles.items()})
        total = sum(shares.values())
        return [
            StyleLoss(layer, targets[layer], share / total, scaling, styles[layer])
            for layer, share in shares.items()
        ]


@dataclass(frozen=True)
class Gram(MeanStyle):
    """Gram matrices: G = E[f f^T], distance |G_x - G_y|^2 / |G_y|^2.

    Gatys et al. 2015 (arXiv:1508.06576), eqs. 3 and 4. |G_x - G_y|^2 is the MMD^2 with the kernel
    k(x, y) = (x.y)^2 (Li et al., section 3.2: there, with sums for means, 1 / (4 C^2) of it).
    """

    name = "gram"

    def mean(self, features: Tensor, part: Part | None = None, area: Area = None) -> Tensor:
        return gram(features, part, area)


GRAM = Gram()


@dataclass(frozen=True)
class StyleLoss(SumLoss):
    """How far a layer's style is from a painting's: the distance of two statistics.

    | scaling    | value                                                                       |
    | ---------- | --------------------------------------------------------------------------- |
    | `relative` | the distance of the `style`; of Gram matrices, sum (G - A)^2 / sum A^2      |
    | `gatys`    | 1/4 C^-2 sum (G - A)^2 = 1/(4 C^2 N^2) sum (N G - N A)^2 (eq. 4)            |
    | `lecture`  | mean (G/C - A/C)^2: the Gram matrix divided by the number of elements of F  |

    Gatys' eq. 4 is written for a painting as large as the picture, with Gram matrices that are
    sums. With means it reads the same there and stays meaningful when the sizes differ. The
    published scalings are those of Gram matrices only.

    target: the painting's statistic, [1 or batch, rows, C]. area: weights
    [1 or batch, 1, height, width], of mean 1, where only a part of the picture is to have this
    style; place: its name.

    Raises:
        ImpastoError: a published scaling with another style than Gram matrices.
    """

    layer: str
    target: Tensor
    weight: float = 1.0
    scaling: Scaling = "relative"
    style: MeanStyle = GRAM
    area: Area = None
    place: str = ""

    def __post_init__(self) -> None:
        if self.scaling != "relative" and not isinstance(self.style, Gram):
            raise ImpastoError(
                f"the scaling {self.scaling!r} is one of Gram matrices; "
                f"use 'relative' with {self.style.name}"
            )

    @property
    def name(self) -> str:
        return f"style {self.layer}" + (f" in {self.place}" if self.place else "")

    @property
    def statistic(self) -> Statistic:
        """What is computed of the layer."""
        return Statistic(self.layer, self.style, self.area)

    def distance(self, statistic: Tensor) -> Tensor:
        """The loss, [batch], as a function of the statistic alone."""
        if self.scaling == "relative":
            return self.style.distance(statistic, self.target)
        entries = self.target[0].numel()  # C^2
        each = 4 * entries if self.scaling == "gatys" else entries**2
        return squared_error(statistic, self.target) / each

    def sums(self, features: Tensor, part: Part) -> Tensor:
        return self.statistic(features, part).cpu().double() * part.positions

    def value(self, sums: Tensor, shape: tuple[int, int, int]) -> Tensor:
        _, height, width = shape
        return self.distance((sums / (height * width)).to(self.target))


def gram(features: Tensor, part: Part | None = None, area: Area = None) -> Tensor:
    """Gram matrices [batch, C, C] of features [batch, C, height, width]: G = F F^T / N.

    Which channels are active together, wherever that is: positions are summed out. Gatys et al.
    2015, eq. 3, divided by the number of positions so that it does not grow with the picture.
    With `part`, of its core alone; with `area` [1 or batch, 1, height, width], of the whole
    layer, every position counts as much as that says (Gatys et al. 2017, arXiv:1611.07865, eq. 2:
    guided Gram matrices; there with the guide squared).
    """
    part = part or Part.whole(features)
    weights = _weights(area, part, features)
    if weights is not None:
        features = part.core_of(features) * weights.sqrt()
        part = Part.whole(features)
    if ops.suits(features) and features.shape[1] >= 64:
        return ops.gram(features, part.core_in_crop)
    # Positions first: the layout in which channels-last features lie in memory.
    f = part.core_of(features).flatten(2).transpose(1, 2)
    return f.transpose(1, 2) @ f / f.shape[1]


def average(features: Tensor, weights: Tensor | None) -> Tensor:
    """E[f], [batch, 1, C]."""
    weighted = features if weights is None else features * weights
    return weighted.flatten(2).mean(-1)[:, None]


def _weights(area: Area, part: Part, like: Tensor) -> Tensor | None:
    return None if area is None else recordable(area[(..., *part.core)].to(like))
