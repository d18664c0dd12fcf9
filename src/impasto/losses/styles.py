"""What style is: statistics of a layer's activations, and how far two of them are apart.

A `Style` is one notion of it, in two halves. Its *statistic* is a mean over positions of a
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

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from impasto.device import ordinary, recordable
from impasto.encoders.tiles import Part
from impasto.kernels import ops as compiled
from impasto.settings import StyleName


class Style(Protocol):
    """One notion of style.

    `mean` is the statistic [1, rows, C] of activations [1, C, height, width]: the mean over the
    positions of `part` (none: over all), each weighted by `area` [1, 1, height, width], which
    covers the whole layer. `distance` is the loss, a scalar tensor, of a statistic and the
    painting's.
    """

    @property
    def name(self) -> str: ...
    def mean(
        self, features: Tensor, part: Part | None = None, area: Tensor | None = None
    ) -> Tensor: ...
    def distance(self, statistic: Tensor, target: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Gram:
    """Gram matrices: G = E[f f^T], distance |G_x - G_y|^2 / |G_y|^2.

    Gatys et al. 2015 (arXiv:1508.06576), eqs. 3 and 4. |G_x - G_y|^2 is the MMD^2 with the kernel
    k(x, y) = (x.y)^2 (Li et al., section 3.2: there, with sums for means, 1 / (4 C^2) of it).
    """

    name = "gram"

    def mean(
        self, features: Tensor, part: Part | None = None, area: Tensor | None = None
    ) -> Tensor:
        return gram(features, part, area)

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        return squared_error(statistic, target) * inverse_energy(target)


@dataclass(frozen=True)
class LinearMmd:
    """MMD^2 with k(x, y) = x.y: |E[x] - E[y]|^2, relative to |E[y]|^2.

    Li et al., section 4.1. Only how active each channel is, not which are active together.
    """

    name = "mmd-linear"

    def mean(
        self, features: Tensor, part: Part | None = None, area: Tensor | None = None
    ) -> Tensor:
        return _average(*_within(features, part, area))

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        return squared_error(statistic, target) * inverse_energy(target)


@dataclass(frozen=True)
class PolynomialMmd:
    """MMD^2 with k(x, y) = (x.y + c)^2: |G_x - G_y|^2 + 2 c |E[x] - E[y]|^2.

    Li et al., section 4.1, where c = 0, the Gram matrix, is the only one tried. Here c is
    E[|y|^2], about as large as x.y itself, so that first and second moments count alike. Relative
    to the same of a picture whose activations are all zero.
    """

    name = "mmd-poly"

    def mean(
        self, features: Tensor, part: Part | None = None, area: Tensor | None = None
    ) -> Tensor:
        return _two_moments(features, part, area)

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        (second, first), (target_second, target_first) = _split(statistic), _split(target)
        c = _trace(target_second)

        def squared(matrix: Tensor, vector: Tensor) -> Tensor:
            return matrix.square().sum() + 2 * c * vector.square().sum()

        distance = squared(second - target_second, first - target_first)
        return _relative(distance, squared(target_second, target_first))


@dataclass(frozen=True)
class GaussianMmd:
    """MMD^2 with k(x, y) = exp(-|x - y|^2 / (2 sigma^2)), estimated, relative to E[k(y, y')].

    Li et al., section 4.1. Exactly, it takes every pair of positions. This takes every position
    once, and samples waves instead of pairs: k(x, y) is the mean of cos(w.(x - y)) over w drawn
    from a normal distribution of variance 1 / sigma^2 (Rahimi & Recht 2007, "Random features for
    large-scale kernel machines"), so

        |E[exp(i w.x)] - E[exp(i w.y)]|^2, averaged over w,

    is an unbiased estimate of the MMD^2 between the two pictures, and linear in the number of
    positions. It is zero where the two are alike for any draw, and its waves are means over
    positions, as every statistic here. Drawn once from `seed`, two for each channel but 512 at
    most.

    Args:
        sigma: the bandwidth, in units of activations; see `bandwidth`.
        seed: of the waves.
    """

    sigma: float
    seed: int = 0

    name = "mmd-gaussian"

    def mean(
        self, features: Tensor, part: Part | None = None, area: Tensor | None = None
    ) -> Tensor:
        features, weights = _within(features, part, area)
        positions = features.flatten(2).transpose(1, 2)[0]
        waves = _waves(positions.shape[1], self.seed) / self.sigma
        column = None if weights is None else weights.flatten()[:, None]
        result: Tensor = _MeanWaves.apply(positions, waves.to(positions), column)  # type: ignore[no-untyped-call]
        return result

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        return squared_error(statistic, target) * inverse_energy(target)

    @staticmethod
    def bandwidth(moments: Tensor) -> float:
        """sigma for a painting with these moments, a statistic of `BatchNorm`.

        sigma^2 = E[|y - y'|^2] / 2: what is usual for this kernel, with the mean for the median.
        """
        first, second = moments[0].cpu().double()
        return math.sqrt(max((second - first.square()).sum().item(), 1e-12))


@dataclass(frozen=True)
class BatchNorm:
    """Mean and standard deviation of every channel: |E[x] - E[y]|^2 + |s_x - s_y|^2.

    Li et al., section 4.1 ("BN statistics matching"), relative to |E[y]|^2 + |s_y|^2. What batch
    and instance normalisation set.
    """

    name = "bn"

    def mean(
        self, features: Tensor, part: Part | None = None, area: Tensor | None = None
    ) -> Tensor:
        features, weights = _within(features, part, area)
        return torch.cat([_average(features, weights), _average(features.square(), weights)], 1)

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        first, second = statistic.cpu().double()[0]
        target_first, target_second = target.cpu().double()[0]
        # Far below what matters: a channel that never varies would have no slope.
        floor = 1e-6 * target_second.mean() + 1e-12

        def deviation(mean: Tensor, square: Tensor) -> Tensor:
            result: Tensor = ((square - mean.square()).clamp_min(0) + floor).sqrt()
            return result

        target_deviation = deviation(target_first, target_second)
        distance = (first - target_first).square().sum()
        distance = distance + (deviation(first, second) - target_deviation).square().sum()
        return _relative(distance, target_first.square().sum() + target_deviation.square().sum())


@dataclass(frozen=True)
class Covariance:
    """Covariances: S = E[f f^T] - E[f] E[f]^T, distance |S_x - S_y|^2 / |S_y|^2.

    Sun & Saenko 2016 (arXiv:1607.01719), eq. 1. How activations vary together; their means, and
    with them some of the colour, are left as they are.
    """

    name = "covariance"

    def mean(
        self, features: Tensor, part: Part | None = None, area: Tensor | None = None
    ) -> Tensor:
        return _two_moments(features, part, area)

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        covariance, target_covariance = (_centred(*_split(s)) for s in (statistic, target))
        distance = (covariance - target_covariance).square().sum()
        # Of a flat painting there is nothing left but rounding errors.
        least = 1e-6 * _trace(_split(target)[0]).square() / len(covariance)
        return _relative(distance, target_covariance.square().sum().clamp_min(least))


@dataclass(frozen=True)
class Wasserstein:
    """Squared 2-Wasserstein distance of the normal distributions with these moments.

        |E[x] - E[y]|^2 + tr S_x + tr S_y - 2 tr (S_y^1/2 S_x S_y^1/2)^1/2

    Dowson & Landau 1982 ("The Fréchet distance between multivariate normal distributions"), eq.
    4; S as in `Covariance`, with a thousandth of the painting's mean variance (a millionth of
    E[|y|^2] at least) added to every channel of both: the slope of the root has no bound where a
    direction never varies. Relative to E[|y|^2].
    """

    name = "wasserstein"

    def mean(
        self, features: Tensor, part: Part | None = None, area: Tensor | None = None
    ) -> Tensor:
        return _two_moments(features, part, area)

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        (second, first), (target_second, target_first) = _split(statistic), _split(target)
        target_covariance = _centred(target_second, target_first)
        ridge = 1e-3 * target_covariance.diagonal().mean()
        ridge = ridge.clamp_min(1e-6 * _trace(target_second) + 1e-12)
        added = ridge * torch.eye(len(first), dtype=ridge.dtype, device=ridge.device)
        covariance = _centred(second, first) + added
        target_covariance = target_covariance + added
        # L^T S_x L has the eigenvalues of S_y^1/2 S_x S_y^1/2, and L costs a tenth of the root.
        factor = torch.linalg.cholesky(target_covariance)
        roots = torch.linalg.eigvalsh(factor.mT @ covariance @ factor).clamp_min(1e-30).sqrt()
        spread = _trace(covariance) + _trace(target_covariance) - 2 * roots.sum()
        distance = (first - target_first).square().sum() + spread
        return _relative(distance, _trace(target_second))


GRAM = Gram()
STYLES: Mapping[StyleName, Style] = MappingProxyType(
    {
        "gram": GRAM,
        "mmd-linear": LinearMmd(),
        "mmd-poly": PolynomialMmd(),
        "bn": BatchNorm(),
        "covariance": Covariance(),
        "wasserstein": Wasserstein(),
    }
)
"""The notions of style that need to know nothing of the painting, by name."""


@dataclass(frozen=True)
class Statistic:
    """A style's statistic of one layer; in an area of the picture, where one is given.

    area: weights [1, 1, height, width] at the layer's positions, of mean 1.
    """

    layer: str
    style: Style = GRAM
    area: Tensor | None = None

    def __call__(self, features: Tensor, part: Part | None = None) -> Tensor:
        return self.style.mean(features, part, self.area)


def gram(features: Tensor, part: Part | None = None, area: Tensor | None = None) -> Tensor:
    """Gram matrices [batch, C, C] of features [batch, C, height, width]: G = F F^T / N.

    Which channels are active together, wherever that is: positions are summed out. Gatys et al.
    2015, eq. 3, divided by the number of positions so that it does not grow with the picture.
    With `part`, of its core alone; with `area` [1, 1, height, width], of the whole layer, every
    position counts as much as that says (Gatys et al. 2017, arXiv:1611.07865, eq. 2: guided Gram
    matrices; there with the guide squared).
    """
    if area is not None:
        features, weights = _within(features, part, area)
        assert weights is not None
        features, part = features * weights.sqrt(), None
    if compiled.suits(features) and features.shape[1] >= 64:
        return compiled.gram(features, part.core_in_crop if part else None)
    if part:
        features = part.core_of(features)
    # Positions first: the layout in which channels-last features lie in memory.
    f = features.flatten(2).transpose(1, 2)
    return f.transpose(1, 2) @ f / f.shape[1]


def squared_error(x: Tensor, target: Tensor) -> Tensor:
    """Sum of squared differences, a scalar tensor in float64 on the CPU."""
    return exact_sum((x - target).square())


def inverse_energy(target: Tensor) -> float:
    """1 / sum target^2; a target of zeros (a layer that stays silent) is compared as it is."""
    energy = exact_sum(target.square()).item()
    return 1 / energy if energy > 0 else 1.0


def exact_sum(x: Tensor) -> Tensor:
    """The sum of x, a scalar tensor in float64 on the CPU."""
    # A line search compares losses that differ in the seventh digit: rows are summed where they
    # are, their sums in float64, which some devices know only on the CPU.
    return x.sum(-1).cpu().double().sum()


@functools.lru_cache(maxsize=8)
@ordinary()  # they are kept: whatever is switched on now is not to be in them
def _waves(channels: int, seed: int) -> Tensor:
    """Normal ones of variance 1, [channels, waves].

    In single precision, whatever the features: the same waves for single and double precision.
    """
    random = torch.Generator("cpu").manual_seed(seed)
    shape = channels, min(2 * channels, 512)
    return torch.randn(shape, generator=random, dtype=torch.float32, device="cpu")


class _MeanWaves(torch.autograd.Function):
    """E[cos w.f] and E[sin w.f], [1, 2, waves], of activations [N, C] and waves [C, waves].

    Some thousand positions at a time, computed again for the gradient: all of their waves at once
    would take several times the memory of the activations.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, waves: Tensor, weights: Tensor | None) -> Tensor:
        ctx.save_for_backward(features, waves, weights)
        total = torch.zeros(2, waves.shape[1], dtype=torch.float64, device="cpu")
        for rows in _chunks(len(features)):
            angles = features[rows] @ waves
            both = torch.stack([angles.cos(), angles.sin()])
            if weights is not None:
                both *= weights[rows]
            total += both.sum(1).cpu()
        return (total / len(features)).to(features)[None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        features, waves, weights = ctx.saved_tensors
        by_cosine, by_sine = gradient[0] / len(features)
        result = torch.empty_like(features)
        for rows in _chunks(len(features)):
            angles = features[rows] @ waves
            slope = angles.cos() * by_sine - angles.sin() * by_cosine
            if weights is not None:
                slope *= weights[rows]
            result[rows] = slope @ waves.T
        return result, None, None


def _chunks(length: int, size: int = 4096) -> list[slice]:
    return [slice(start, start + size) for start in range(0, length, size)]


def _within(
    features: Tensor, part: Part | None, area: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """The positions that count, and their weights."""
    if part is None:
        return features, None if area is None else recordable(area.to(features))
    weights = None if area is None else recordable(area[(..., *part.core)].to(features))
    return part.core_of(features), weights


def _average(features: Tensor, weights: Tensor | None) -> Tensor:
    """E[f], [1, 1, C]."""
    weighted = features if weights is None else features * weights
    return weighted.flatten(2).mean(-1)[:, None]


def _two_moments(features: Tensor, part: Part | None, area: Tensor | None) -> Tensor:
    """E[f f^T] above E[f], [1, C + 1, C]."""
    return torch.cat([gram(features, part, area), _average(*_within(features, part, area))], 1)


def _split(moments: Tensor) -> tuple[Tensor, Tensor]:
    """E[f f^T] and E[f] of a statistic of `_two_moments`, in float64 on the CPU."""
    exact = moments[0].cpu().double()
    return exact[:-1], exact[-1]


def _centred(second: Tensor, first: Tensor) -> Tensor:
    return second - torch.outer(first, first)


def _trace(matrix: Tensor) -> Tensor:
    return matrix.diagonal().sum()


def _relative(distance: Tensor, energy: Tensor) -> Tensor:
    return distance / energy if energy > 0 else distance
