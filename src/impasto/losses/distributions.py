"""Styles beyond Gram matrices: other ways of comparing how activations are distributed.

Symbols and sources are those of `styles`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
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
from impasto.losses.base import exact_sum, relative, squared_error
from impasto.losses.styles import Area, MeanStyle, Measure, Paintings, Statistic, average, gram


@dataclass(frozen=True)
class LinearMmd(MeanStyle):
    """MMD^2 with k(x, y) = x.y: |E[x] - E[y]|^2, relative to |E[y]|^2.

    Li et al., section 4.1. Only how active each channel is, not which are active together.
    """

    name = "mmd-linear"


class _TwoMoments(MeanStyle):
    """A style whose statistic is E[f f^T] above E[f], [batch, C + 1, C]; see `_split`."""

    def mean(self, features: Tensor, part: Part | None = None, area: Area = None) -> Tensor:
        first = super().mean(features, part, area)
        return torch.cat([gram(features, part, area), first], 1)


@dataclass(frozen=True)
class PolynomialMmd(_TwoMoments):
    """MMD^2 with k(x, y) = (x.y + c)^2: |G_x - G_y|^2 + 2 c |E[x] - E[y]|^2.

    Li et al., section 4.1, where c = 0, the Gram matrix, is the only one tried. Here c is
    E[|y|^2], about as large as x.y itself, so that first and second moments count alike. Relative
    to the same of a picture whose activations are all zero.
    """

    name = "mmd-poly"

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        (second, first), (wanted_second, wanted_first) = _split(statistic), _split(target)
        c = _trace(wanted_second)
        distance = squared_error(second, wanted_second) + 2 * c * squared_error(first, wanted_first)
        energy = exact_sum(wanted_second.square()) + 2 * c * exact_sum(wanted_first.square())
        return relative(distance, energy)


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
        counts = torch.ones_like(features[:, :1])
        if weights is not None:
            counts = counts * weights
        # Some thousand positions at a time, computed again for the gradient: all of their waves
        # at once would take several times the memory of the activations.
        parts = (torch.split(x.flatten(2).mT, 4096, 1) for x in (features, counts))
        sums: list[Tensor] = [
            checkpoint(_waves_of, some, waves, counted, use_reentrant=False).cpu().double()
            for some, counted in zip(*parts, strict=True)
        ]
        return (functools.reduce(torch.add, sums) / counts[0].numel()).to(features)

    def fitted(self, measure: Measure, paintings: Paintings, layer: str) -> Self:
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
        return torch.cat([average(features, weights), average(features.square(), weights)], 1)

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        # Far below what matters: a channel that never varies would have no slope.
        floor = 1e-6 * _split(target)[1].mean(2, keepdim=True) + 1e-12

        def normal(moments: Tensor) -> Tensor:
            """Means above deviations."""
            first, second = _split(moments)
            deviation = ((second - first.square()).clamp_min(0) + floor).sqrt()
            return torch.cat([first, deviation], 1)

        return super().distance(normal(statistic), normal(target))


@dataclass(frozen=True)
class Covariance(_TwoMoments):
    """Covariances: S = E[f f^T] - E[f] E[f]^T, distance |S_x - S_y|^2 / |S_y|^2.

    Sun & Saenko 2016 (arXiv:1607.01719), eq. 1. How activations vary together; their means, and
    with them some of the colour, are left as they are.
    """

    name = "covariance"

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        covariance, wanted = (_centred(*_split(moments)) for moments in (statistic, target))
        # Of a flat painting there is nothing left but rounding errors.
        least = 1e-6 * _trace(_split(target)[0]).square() / wanted.shape[-1]
        energy = exact_sum(wanted.square()).maximum(least)
        return relative(squared_error(covariance, wanted), energy)


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
        (second, first), (wanted_second, wanted_first) = _split(statistic), _split(target)
        covariance, wanted = _centred(second, first), _centred(wanted_second, wanted_first)
        energy = _trace(wanted_second)
        ridge = (1e-3 * _trace(wanted) / wanted.shape[-1]).maximum(1e-6 * energy + 1e-12)
        for matrices in (covariance, wanted):
            matrices.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
        # L^T S_x L has the eigenvalues of S_y^1/2 S_x S_y^1/2, and L costs a tenth of the root.
        factor = torch.linalg.cholesky(wanted)
        roots = torch.linalg.eigvalsh(factor.mT @ covariance @ factor).clamp_min(1e-30).sqrt()
        spread = _trace(covariance) + _trace(wanted) - 2 * roots.sum(1)
        return relative(squared_error(first, wanted_first) + spread, energy)


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


def _split(moments: Tensor) -> tuple[Tensor, Tensor]:
    """What is above the last row of a statistic, and that row, in float64 on the CPU."""
    exact = moments.cpu().double()
    return exact[:, :-1], exact[:, -1:]


def _centred(second: Tensor, first: Tensor) -> Tensor:
    return second - first.mT * first


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)
