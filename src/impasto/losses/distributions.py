"""Styles beyond Gram matrices: other ways of comparing how activations are distributed.

Symbols and sources are those of `styles`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from impasto import catalog
from impasto.device import ordinary
from impasto.encoders.tiles import Part
from impasto.errors import ImpastoError
from impasto.losses.styles import Exemplar, MeanStyle, Measure, Statistic, gram


@dataclass(frozen=True)
class LinearMmd(MeanStyle):
    """MMD^2 with k(x, y) = x.y: |E[x] - E[y]|^2, relative to |E[y]|^2.

    Li et al., section 4.1. Only how active each channel is, not which are active together.
    """

    name = "mmd-linear"

    def moments(self, features: Tensor, weights: Tensor | None) -> Tensor:
        return _average(features, weights)


class _TwoMoments(MeanStyle):
    """A style whose statistic is E[f f^T] above E[f], [batch, C + 1, C]."""

    def mean(
        self, features: Tensor, part: Part | None = None, area: Tensor | None = None
    ) -> Tensor:
        first = super().mean(features, part, area)
        return torch.cat([gram(features, part, area), first], 1)

    def moments(self, features: Tensor, weights: Tensor | None) -> Tensor:
        return _average(features, weights)


@dataclass(frozen=True)
class PolynomialMmd(_TwoMoments):
    """MMD^2 with k(x, y) = (x.y + c)^2: |G_x - G_y|^2 + 2 c |E[x] - E[y]|^2.

    Li et al., section 4.1, where c = 0, the Gram matrix, is the only one tried. Here c is
    E[|y|^2], about as large as x.y itself, so that first and second moments count alike. Relative
    to the same of a picture whose activations are all zero.
    """

    name = "mmd-poly"

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        (second, first), (target_second, target_first) = _split(statistic), _split(target)
        c = _trace(target_second)

        def squared(matrix: Tensor, vector: Tensor) -> Tensor:
            return _total(matrix.square()) + 2 * c * _total(vector.square())

        distance = squared(second - target_second, first - target_first)
        return _relative(distance, squared(target_second, target_first))


@dataclass(frozen=True)
class GaussianMmd(MeanStyle):
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
        sigma: the bandwidth, in units of activations; see `bandwidth`. None to find it in the
            paintings, layer by layer.
        seed: of the waves.
    """

    sigma: float | None = None
    seed: int = 0

    name = "mmd-gaussian"

    def moments(self, features: Tensor, weights: Tensor | None) -> Tensor:
        if self.sigma is None:
            raise ImpastoError("the Gaussian kernel has no bandwidth yet; give GaussianMmd a sigma")
        waves = (_waves(features.shape[1], self.seed) / self.sigma).to(features)
        positions = features.flatten(2).transpose(1, 2)
        columns = torch.ones_like(positions[..., :1])
        if weights is not None:
            columns = columns * weights.flatten(2).transpose(1, 2)
        total = torch.zeros(len(features), 2, waves.shape[1], dtype=torch.float64, device="cpu")
        # Some thousand positions at a time, computed again for the gradient: all of their waves
        # at once would take several times the memory of the activations.
        parts = (torch.split(x, 4096, 1) for x in (positions, columns))
        for some, counts in zip(*parts, strict=True):
            both = checkpoint(_waves_of, some, waves, counts, use_reentrant=False)
            total = total + both.cpu().double()
        return (total / positions.shape[1]).to(features)

    def fitted(self, measure: Measure, paintings: Sequence[Exemplar], layer: str) -> Self:
        """With the bandwidth that these paintings have."""
        if self.sigma is not None:
            return self
        moments = measure(paintings, {layer: Statistic(layer, BatchNorm())})[layer]
        return dataclasses.replace(self, sigma=self.bandwidth(moments))

    @staticmethod
    def bandwidth(moments: Tensor) -> float:
        """sigma for a painting with these moments, a statistic of `BatchNorm`.

        sigma^2 = E[|y - y'|^2] / 2: what is usual for this kernel, with the mean for the median.
        """
        first, second = moments[0].cpu().double()
        return math.sqrt(max((second - first.square()).sum().item(), 1e-12))


@dataclass(frozen=True)
class BatchNorm(MeanStyle):
    """Mean and standard deviation of every channel: |E[x] - E[y]|^2 + |s_x - s_y|^2.

    Li et al., section 4.1 ("BN statistics matching"), relative to |E[y]|^2 + |s_y|^2. What batch
    and instance normalisation set.
    """

    name = "bn"

    def moments(self, features: Tensor, weights: Tensor | None) -> Tensor:
        return torch.cat([_average(features, weights), _average(features.square(), weights)], 1)

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        first, second = statistic.cpu().double().unbind(1)
        target_first, target_second = target.cpu().double().unbind(1)
        # Far below what matters: a channel that never varies would have no slope.
        floor = 1e-6 * target_second.mean(1, keepdim=True) + 1e-12

        def deviation(mean: Tensor, square: Tensor) -> Tensor:
            result: Tensor = ((square - mean.square()).clamp_min(0) + floor).sqrt()
            return result

        target_deviation = deviation(target_first, target_second)
        distance = _total((first - target_first).square())
        distance = distance + _total((deviation(first, second) - target_deviation).square())
        return _relative(distance, _total(target_first.square() + target_deviation.square()))


@dataclass(frozen=True)
class Covariance(_TwoMoments):
    """Covariances: S = E[f f^T] - E[f] E[f]^T, distance |S_x - S_y|^2 / |S_y|^2.

    Sun & Saenko 2016 (arXiv:1607.01719), eq. 1. How activations vary together; their means, and
    with them some of the colour, are left as they are.
    """

    name = "covariance"

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        covariance, target_covariance = (_centred(*_split(s)) for s in (statistic, target))
        distance = _total((covariance - target_covariance).square())
        # Of a flat painting there is nothing left but rounding errors.
        least = 1e-6 * _trace(_split(target)[0]).square() / covariance.shape[-1]
        return _relative(distance, _total(target_covariance.square()).maximum(least))


@dataclass(frozen=True)
class Wasserstein(_TwoMoments):
    """Squared 2-Wasserstein distance of the normal distributions with these moments.

        |E[x] - E[y]|^2 + tr S_x + tr S_y - 2 tr (S_y^1/2 S_x S_y^1/2)^1/2

    Dowson & Landau 1982 ("The Fréchet distance between multivariate normal distributions"), eq.
    4; S as in `Covariance`, with a thousandth of the painting's mean variance (a millionth of
    E[|y|^2] at least) added to every channel of both: the slope of the root has no bound where a
    direction never varies. Relative to E[|y|^2].
    """

    name = "wasserstein"

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        (second, first), (target_second, target_first) = _split(statistic), _split(target)
        target_covariance = _centred(target_second, target_first)
        ridge = 1e-3 * target_covariance.diagonal(dim1=1, dim2=2).mean(1)
        ridge = ridge.maximum(1e-6 * _trace(target_second) + 1e-12)[:, None, None]
        added = ridge * torch.eye(first.shape[1], dtype=ridge.dtype, device=ridge.device)
        covariance = _centred(second, first) + added
        target_covariance = target_covariance + added
        # L^T S_x L has the eigenvalues of S_y^1/2 S_x S_y^1/2, and L costs a tenth of the root.
        factor = torch.linalg.cholesky(target_covariance)
        roots = torch.linalg.eigvalsh(factor.mT @ covariance @ factor).clamp_min(1e-30).sqrt()
        spread = _trace(covariance) + _trace(target_covariance) - 2 * roots.sum(1)
        distance = _total((first - target_first).square()) + spread
        return _relative(distance, _trace(target_second))


STYLES: Mapping[str, MeanStyle] = MappingProxyType(
    {name: row.load()() for name, row in catalog.STYLES.items()}
)
"""The notions of style by name."""


@functools.lru_cache(maxsize=8)
@ordinary()  # they are kept: whatever is switched on now is not to be in them
def _waves(channels: int, seed: int) -> Tensor:
    """Normal ones of variance 1, [channels, waves].

    In single precision, whatever the features: the same waves for single and double precision.
    """
    random = torch.Generator("cpu").manual_seed(seed)
    shape = channels, min(2 * channels, 512)
    return torch.randn(shape, generator=random, dtype=torch.float32, device="cpu")


def _waves_of(positions: Tensor, waves: Tensor, counts: Tensor) -> Tensor:
    """Sums of cos w.f and sin w.f, [batch, 2, waves], of positions [batch, N, C]."""
    angles = positions @ waves
    return torch.stack([(counts * angles.cos()).sum(1), (counts * angles.sin()).sum(1)], 1)


def _average(features: Tensor, weights: Tensor | None) -> Tensor:
    """E[f], [batch, 1, C]."""
    weighted = features if weights is None else features * weights
    return weighted.flatten(2).mean(-1)[:, None]


def _split(moments: Tensor) -> tuple[Tensor, Tensor]:
    """E[f f^T] and E[f] of a statistic of `_TwoMoments`, in float64 on the CPU."""
    exact = moments.cpu().double()
    return exact[:, :-1], exact[:, -1]


def _centred(second: Tensor, first: Tensor) -> Tensor:
    return second - first[:, :, None] * first[:, None, :]


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def _total(x: Tensor) -> Tensor:
    return x.flatten(1).sum(1)


def _relative(distance: Tensor, energy: Tensor) -> Tensor:
    return distance / energy.where(energy > 0, 1.0)
