"""What style is: a statistic of a layer's activations, and a distance between two statistics.

A `MeanStyle` is one notion of style, in two halves. Its *statistic* is the mean over positions of
a function of the activations there: it forgets where things are. Its *distance* depends on two
statistics alone. Because the halves are separate, an area is a weighted mean, several paintings
are a mean of their means, a tile is a part of the sum, and a coarser level is the same mean over
fewer positions.

Symbols: f, the activations of one position, [C]; E[.], the mean over a picture's positions; x, the
picture; y, the painting. Distances are relative: 0 for equal statistics, about 1 for a picture
whose statistics are nothing like the painting's.

"Li et al." are Li, Wang, Liu & Hou 2017 (arXiv:1701.01036), who showed that the Gram loss compares
distributions of activations, and tried other ways to compare them. MMD is the maximum mean
discrepancy with a kernel k (Gretton et al. 2012, JMLR 13, lemma 6):

    MMD^2 = E[k(x, x')] - 2 E[k(x, y)] + E[k(y, y')]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
"""Weights of a layer's positions, [1 or batch, 1, height, width], of mean 1; None: all are 1."""

LEAST_AREA = 1e-6
"""An area that covers a smaller share of a layer than this is ignored there."""


class Exemplar(NamedTuple):
    """A painting to take a style from.

    image: an image tensor. share: its share in a style mixed from several paintings; shares sum up
    to 1. visible: how much each pixel counts, [1, 1, height, width]; None: all count alike.
    """

    image: Tensor
    share: float = 1.0
    visible: Tensor | None = None


@dataclass(frozen=True)
class Statistic:
    """A style's statistic of a layer, within an area; a style of None means Gram matrices."""

    layer: str
    style: MeanStyle | None = None
    area: Area = None

    def __call__(self, features: Tensor, part: Part | None = None) -> Tensor:
        return (self.style or GRAM).mean(features, part, self.area)


Paintings = Sequence[Exemplar]
Shares = Mapping[str, float]


class Measure(Protocol):
    """Measures paintings: `statistics` by name and `features` by layer, averaged by share.

    Features are whole, [1, C, height, width]: measure them of one painting at a time, unless all
    have one size. A statistic must not have the name of one of their layers.
    """

    def __call__(
        self,
        paintings: Paintings,
        statistics: Mapping[str, Statistic],
        features: Iterable[str] = (),
    ) -> dict[str, Tensor]: ...


class Style(Protocol):
    """A notion of style: it makes the losses that give a picture the style of paintings.

    `losses` returns one or more losses of a whole picture for all layers together, as dataclasses
    with a `weight`. Weights are in proportion to the layers' shares and sum up to 1. Targets are
    measured on the paintings. Only a `StyleLoss` can be kept to a part of a picture.
    """

    @property
    def name(self) -> str: ...
    def losses(
        self, measure: Measure, paintings: Paintings, shares: Shares, scaling: Scaling = "relative"
    ) -> Sequence[Loss]: ...


class MeanStyle:
    """A style whose statistic is a mean over positions.

    `mean` is the statistic [batch, rows, C] of activations [batch, C, height, width]: the mean over
    the positions of `part` (None: over all), each weighted by `area`, which covers the whole layer.
    `distance` is the loss, [batch] in float64 on the CPU, of a statistic and the painting's.
    """

    name: ClassVar[str]

    def mean(self, features: Tensor, part: Part | None = None, area: Area = None) -> Tensor:
        part = part or Part.whole(features)
        return self.moments(part.core_of(features), _weights(area, part, features))

    def moments(self, features: Tensor, weights: Tensor | None) -> Tensor:
        """The statistic of all these positions, weighted if there are weights; here E[f], a row."""
        weighted = features if weights is None else features * weights
        return weighted.flatten(2).mean(-1)[:, None]

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        """sum (statistic - target)^2 / sum target^2, unless a style overrides it."""
        return relative(squared_error(statistic, target), exact_sum(target.square()))

    def fitted(self, measure: Measure, paintings: Paintings, layer: str) -> Self:  # noqa: ARG002
        """The same style with all that it needs to know of the paintings; here, nothing."""
        return self

    def losses(
        self, measure: Measure, paintings: Paintings, shares: Shares, scaling: Scaling = "relative"
    ) -> list[StyleLoss]:
        """A `StyleLoss` for each layer, with weights that sum up to 1: Gatys et al. 2015, eq. 5."""
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
    k(x, y) = (x.y)^2, and Gatys' eq. 4 is 1 / (4 C^2) of it (Li et al.).
    """

    name = "gram"

    def mean(self, features: Tensor, part: Part | None = None, area: Area = None) -> Tensor:
        return gram(features, part, area)


GRAM = Gram()


@dataclass(frozen=True)
class StyleLoss(SumLoss):
    """How far a layer's style is from a painting's: the distance between two statistics.

    | scaling    | value                                                                       |
    | ---------- | --------------------------------------------------------------------------- |
    | `relative` | the distance of the `style`; of Gram matrices, sum (G - A)^2 / sum A^2      |
    | `gatys`    | 1/4 C^-2 sum (G - A)^2 = 1/(4 C^2 N^2) sum (N G - N A)^2 (eq. 4)            |
    | `lecture`  | mean (G/C - A/C)^2: the Gram matrix divided by the number of elements of F  |

    Gatys' eq. 4 assumes a painting as large as the picture, with Gram matrices that are sums. With
    means its value is the same there, and stays meaningful when the sizes differ. The published
    scalings, `gatys` and `lecture`, are for Gram matrices only.

    target: the painting's statistic, [1 or batch, rows, C]. area: if only a part of the picture is
    to have this style, its weights [1 or batch, 1, height, width], of mean 1; place: its name.

    Raises:
        ImpastoError: the scaling is a published one, but the style is not Gram matrices.
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
                f"the scaling {self.scaling!r} is for Gram matrices only; "
                f"use 'relative' with {self.style.name}"
            )

    @property
    def name(self) -> str:
        return f"style {self.layer}" + (f" in {self.place}" if self.place else "")

    @property
    def statistic(self) -> Statistic:
        return Statistic(self.layer, self.style, self.area)

    def distance(self, statistic: Tensor) -> Tensor:
        """The loss, [batch], of a picture that has this statistic."""
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

    They say which channels are active together, but not where. Gatys et al. 2015, eq. 3, divided
    by the number of positions so that G does not grow with the picture. `part`: only its core
    counts. `area` [1 or batch, 1, height, width], for the whole layer: how much each position
    counts (Gatys et al. 2017, arXiv:1611.07865, eq. 2: guided Gram matrices, where the guide is
    squared).
    """
    part = part or Part.whole(features)
    weights = _weights(area, part, features)
    if weights is not None:
        features = part.core_of(features) * weights.sqrt()
        part = Part.whole(features)
    if ops.suits(features) and not features.shape[1] % 64:
        return ops.gram(features, part.core_in_crop)
    # Positions first, as channels-last features lie in memory.
    f = part.core_of(features).flatten(2).transpose(1, 2)
    return f.transpose(1, 2) @ f / f.shape[1]


def _weights(area: Area, part: Part, like: Tensor) -> Tensor | None:
    return None if area is None else recordable(area[(..., *part.core)].to(like))
