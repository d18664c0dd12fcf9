"""Styles beyond Gram matrices. The module docstring of `styles` explains symbols and sources."""

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
from impasto.losses.styles import Area, MeanStyle, Measure, Paintings, Statistic, gram


@dataclass(frozen=True)
class LinearMmd(MeanStyle):
    """MMD^2 with k(x, y) = x.y: |E[x] - E[y]|^2, relative to |E[y]|^2.

    Li et al. Compares how active each channel is, not which are active together.
    """

    name = "mmd-linear"


class _TwoMoments(MeanStyle):
    """A style whose statistic is E[f f^T] with E[f] as its last row, [batch, C + 1, C]."""

    def mean(self, features: Tensor, part: Part | None = None, area: Area = None) -> Tensor:
        first = super().mean(features, part, area)
        return torch.cat([gram(features, part, area), first], 1)


@dataclass(frozen=True)
class PolynomialMmd(_TwoMoments):
    """MMD^2 with k(x, y) = (x.y + c)^2: |G_x - G_y|^2 + 2 c |E[x] - E[y]|^2.

    Li et al., who try only c = 0, the Gram matrix. Here c is E[|y|^2], about as large
    as x.y itself, so that first and second moments count alike. Relative to the same distance of a
    picture whose activations are all zero.
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

    Li et al. The exact MMD needs every pair of positions. This estimate reads every
    position once, and samples waves instead of pairs: k(x, y) is the mean of cos(w.(x - y)) over w
    drawn from a normal distribution of variance 1 / sigma^2 (Rahimi & Recht 2007, "Random features
    for large-scale kernel machines"), so

        |E[exp(i w.x)] - E[exp(i w.y)]|^2, averaged over w,

    is an unbiased estimate of the MMD^2 between the two pictures. Its cost is linear in the number
    of positions, it is zero for equal pictures whatever was drawn, and it needs only means over
    positions, as every style here. Waves are drawn once: two for each channel, 512 at most.

    Args:
        sigma: the bandwidth, in units of activations; None: that of the paintings, see `bandwidth`.
        seed: the seed of the waves.
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
        # 4096 positions at a time, computed again for the gradient: the waves of all positions at
        # once would take several times the memory of the activations.
        parts = (torch.split(x.flatten(2).mT, 4096, 1) for x in (features, counts))
        sums: list[Tensor] = [
            checkpoint(_waves_of, some, waves, counted, use_reentrant=False).cpu().double()
            for some, counted in zip(*parts, strict=True)
        ]
        return (functools.reduce(torch.add, sums) / counts[0].numel()).to(features)

    def fitted(self, measure: Measure, paintings: Paintings, layer: str) -> Self:
        if self.sigma is not None:
            return self
        moments = measure(paintings, {layer: Statistic(layer, BatchNorm())})[layer]
        return dataclasses.replace(self, sigma=self.bandwidth(moments))

    @staticmethod
    def bandwidth(moments: Tensor) -> float:
        """The sigma of a painting, from its `BatchNorm` moments: sigma^2 = E[|y - y'|^2] / 2.

        This is the usual choice for the kernel, but with the mean instead of the median.
        """
        first, second = moments[0].cpu().double()
        return math.sqrt(max((second - first.square()).sum().item(), 1e-12))


@dataclass(frozen=True)
class BatchNorm(MeanStyle):
    """Mean and standard deviation of every channel: |E[x] - E[y]|^2 + |s_x - s_y|^2.

    Li et al. ("BN statistics matching"), relative to |E[y]|^2 + |s_y|^2. Batch and
    instance normalisation set the same two statistics.
    """

    name = "bn"

    def moments(self, features: Tensor, weights: Tensor | None) -> Tensor:
        mean = super().moments
        return torch.cat([mean(features, weights), mean(features.square(), weights)], 1)

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        # Too small to matter, but it bounds the slope of the root for a channel that never varies.
        floor = 1e-6 * _split(target)[1].mean(2, keepdim=True) + 1e-12

        def normal(moments: Tensor) -> Tensor:
            first, second = _split(moments)
            deviation = ((second - first.square()).clamp_min(0) + floor).sqrt()
            return torch.cat([first, deviation], 1)

        return super().distance(normal(statistic), normal(target))


@dataclass(frozen=True)
class Covariance(_TwoMoments):
    """Covariances: S = E[f f^T] - E[f] E[f]^T, distance |S_x - S_y|^2 / |S_y|^2.

    Sun & Saenko 2016 (arXiv:1607.01719), eq. 1. Compares how activations vary together; their
    means, and with them some of the colour, are free.
    """

    name = "covariance"

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        covariance, wanted = (_centred(*_split(moments)) for moments in (statistic, target))
        # The covariance of a flat painting is nothing but rounding errors.
        least = 1e-6 * _trace(_split(target)[0]).square() / wanted.shape[-1]
        energy = exact_sum(wanted.square()).maximum(least)
        return relative(squared_error(covariance, wanted), energy)


@dataclass(frozen=True)
class Wasserstein(_TwoMoments):
    """Squared 2-Wasserstein distance of the normal distributions with these moments.

        |E[x] - E[y]|^2 + tr S_x + tr S_y - 2 tr (S_y^1/2 S_x S_y^1/2)^1/2

    Dowson & Landau 1982 ("The Fréchet distance between multivariate normal distributions"), eq.
    4; S as in `Covariance`. A thousandth of the painting's mean variance (a millionth of E[|y|^2]
    at least) is added to the variance of every channel, in both: in a direction that never varies,
    the slope of the root has no bound. Relative to E[|y|^2].
    """

    name = "wasserstein"

    def distance(self, statistic: Tensor, target: Tensor) -> Tensor:
        (second, first), (wanted_second, wanted_first) = _split(statistic), _split(target)
        covariance, wanted = _centred(second, first), _centred(wanted_second, wanted_first)
        energy = _trace(wanted_second)
        ridge = (1e-3 * _trace(wanted) / wanted.shape[-1]).maximum(1e-6 * energy + 1e-12)
        for matrices in (covariance, wanted):
            matrices.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
        # With S_y = L L^T, L^T S_x L has the eigenvalues of S_y^1/2 S_x S_y^1/2, at a tenth of the
        # cost of the root.
        factor = torch.linalg.cholesky(wanted)
        roots = torch.linalg.eigvalsh(factor.mT @ covariance @ factor).clamp_min(1e-30).sqrt()
        spread = _trace(covariance) + _trace(wanted) - 2 * roots.sum(1)
        return relative(squared_error(first, wanted_first) + spread, energy)


STYLES: Mapping[str, MeanStyle] = MappingProxyType(
    {name: row.load()() for name, row in catalog.STYLES.items() if not row.needs_photo}
)
"""The styles that are statistics, by name."""


@functools.lru_cache(maxsize=8)
@ordinary()  # the waves are cached: the caller's torch settings must not reach them
def _waves(channels: int, seed: int) -> Tensor:
    """Standard normal waves [channels, waves], the same for single and double precision."""
    random = torch.Generator("cpu").manual_seed(seed)
    shape = channels, min(2 * channels, 512)
    return torch.randn(shape, generator=random, dtype=torch.float32, device="cpu")


def _waves_of(positions: Tensor, waves: Tensor, counts: Tensor) -> Tensor:
    """Sums of cos w.f and sin w.f, [batch, 2, waves], over positions [batch, N, C]."""
    angles = positions @ waves
    return torch.stack([(counts * angles.cos()).sum(1), (counts * angles.sin()).sum(1)], 1)


def _split(moments: Tensor) -> tuple[Tensor, Tensor]:
    """All rows of a statistic but the last, and the last row, in float64 on the CPU."""
    exact = moments.cpu().double()
    return exact[:, :-1], exact[:, -1:]


def _centred(second: Tensor, first: Tensor) -> Tensor:
    return second - first.mT * first


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)
