"""Measures of how painted a picture looks; impasto optimises none of them by default.

All of them compare two pictures [1, 3, height, width] of the same size; only the painting, in
`painted` and `weave`, may have any size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter, gaussian_gradient_magnitude, uniform_filter
from torch import Tensor

from impasto import load_encoder
from impasto.pictures import colours

Array = npt.NDArray[np.float64]


def fine(picture: Tensor, photo: Tensor) -> float:
    """How much of the photo's finest texture shows through: 1 is the photo, 0 is painted."""
    return band_likeness(picture, photo, 0.7, 9)


def shape(picture: Tensor, photo: Tensor) -> float:
    """How much of the photo's shapes is kept: 1 is the photo, 0 is beyond recognition."""
    return band_likeness(picture, photo, 5.6, 67)


def edges(picture: Tensor, photo: Tensor) -> float:
    """The correlation of the luminance's gradient magnitudes (Gaussian derivatives of 2 pixels)."""
    ours, theirs = (gaussian_gradient_magnitude(_light(image), 2.0) for image in (picture, photo))
    return float(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1])


def weave(picture: Tensor, painting: Tensor) -> float:
    """How strongly fine waves prefer rows and columns, relative to the painting; 1 is as strongly.

    The power of waves of 2.5 to 3.3 pixels within 8 degrees of an axis is divided by that of waves
    within 15 degrees of a diagonal, and the picture's ratio by the painting's. Both pictures have
    at least 64 pixels a side.
    """
    ours, theirs = (_alignment(_light(image)) for image in (picture, painting))
    return ours / theirs


def palette(picture: Tensor, painting: Tensor) -> tuple[float, float]:
    """How far the colours' mean is from the painting's, and their covariance, relative to its own.

    The first is a distance in RGB of 0..1, the second |S - T| / |T| in the Frobenius norm.
    """
    ours, theirs = (image[0].flatten(1).double() for image in (picture, painting))
    mean = (ours.mean(1) - theirs.mean(1)).norm()
    wanted = torch.cov(theirs)
    return mean.item(), ((torch.cov(ours) - wanted).norm() / wanted.norm()).item()


def spectrum(pictures: Sequence[Tensor], side: int = 64) -> Array:
    """The power of the waves in windows of `side` pixels, over all pictures [side, side].

    As `numpy.fft.fft2` orders them: [0, n] is the wave that runs n times along a row of a window.
    """
    window = np.hanning(side + 1)[:-1]
    power = np.zeros((side, side))
    for picture in pictures:
        light = _light(picture)
        parts = np.lib.stride_tricks.sliding_window_view(light, (side, side))[::16, ::16]
        parts = (parts - parts.mean((-2, -1), keepdims=True)) * window * window[:, None]
        power += (np.abs(np.fft.fft2(parts)) ** 2).sum((0, 1))
    return power


def grid(pictures: Sequence[Tensor], period: int) -> float:
    """How far the power of waves of `period` pixels rises above that of waves a little off it.

    Along rows, columns and diagonals, in windows of 64 pixels of all pictures together. 1 is as
    high as around it; a network that makes grids or checkerboards has peaks at its own periods.
    """
    power = spectrum(pictures)
    at = len(power) // period
    # The window spreads a peak over one bin on each side, so the neighbours are two to four away.
    around = [offset for n in range(2, 5) for offset in (-n, n)]
    peaks = [(0, at), (at, 0), (at, at), (at, -at)]
    ratios = [
        power[row, column] / np.mean([_near(power, row, column, offset) for offset in around])
        for row, column in peaks
    ]
    return float(np.max(ratios))


def _near(power: Array, row: int, column: int, offset: int) -> float:
    """The power at a frequency that is `offset` bins longer, in the same direction."""
    side = len(power)
    rows, columns = (each + offset * int(np.sign(each)) for each in (row, column))
    return float(power[rows % side, columns % side])


def _alignment(light: Array) -> float:
    side = 64
    window = np.hanning(side)
    parts = np.lib.stride_tricks.sliding_window_view(light, (side, side))[::32, ::32]
    parts = (parts - parts.mean((-2, -1), keepdims=True)) * window * window[:, None]
    power = (np.abs(np.fft.fft2(parts)) ** 2).mean((0, 1))
    along = np.abs(np.fft.fftfreq(side))
    frequency = np.hypot(along, along[:, None])
    degrees = np.degrees(np.arctan2(along, along[:, None]))
    degrees = np.minimum(degrees, 90 - degrees)  # from the nearer axis
    band = (frequency >= 0.3) & (frequency <= 0.4)
    return float(power[band & (degrees < 8)].mean() / power[band & (degrees > 30)].mean())


def band_likeness(picture: Tensor, photo: Tensor, sigma: float, window: int) -> float:
    """How alike two pictures are in one band of frequencies.

    The band is the luminance blurred by `sigma` pixels minus the luminance blurred by twice as
    much. The bands a and b give mean(ab) / sqrt(mean(a^2) mean(b^2)) in each window; the result is
    the mean over windows, weighted by the photo's mean(b^2).
    """
    a, b = (_band(_light(image), sigma) for image in (picture, photo))
    both, ours, theirs = (uniform_filter(product, window) for product in (a * b, a * a, b * b))
    ours, theirs = ours.clip(min=0), theirs.clip(min=0)  # rounding can leave values below zero
    alike = both / np.sqrt(ours * theirs + 1e-20)
    return float((alike * theirs).sum() / max(theirs.sum(), 1e-20))


def _band(light: Array, sigma: float) -> Array:
    return np.asarray(gaussian_filter(light, sigma) - gaussian_filter(light, 2 * sigma))


def _light(image: Tensor) -> Array:
    return colours.luminance(image)[0, 0].double().numpy()


def sliced_wasserstein(ours: Array, theirs: Array, directions: int = 256) -> float:
    """The sliced Wasserstein-1 distance between as many points as others, [N, channels] each.

    Rabin et al. 2012 ("Wasserstein Barycenter and Its Application to Texture Mixing"): the mean,
    over random directions, of the distance between the points' projections.
    """
    random = np.random.default_rng(0)
    along = random.standard_normal((ours.shape[1], directions))
    along /= np.linalg.norm(along, axis=0)
    one, other = (np.sort(points @ along, axis=0) for points in (ours, theirs))
    return float(np.abs(one - other).mean())


class Judge:
    """EfficientNet-Lite0 (Tan & Le 2019, arXiv:1905.11946), which no default is optimised by.

    Of pictures made with `--encoder efficientnet-lite0`, which are optimised by it, it is no fair
    judge.
    """

    MERGES = "block2.merge", "block4.merge"
    """The blocks whose outputs are compared: residual sums at strides 4 and 8."""

    def __init__(self) -> None:
        self.encoder = load_encoder(name="efficientnet-lite0")

    def painted(self, picture: Tensor, photo: Tensor, painting: Tensor) -> float:
        """The picture's distance from the painting, divided by the photo's distance from it.

        The distance is the mean over positions of the cosine distance to the nearest position of
        the painting, with the painting's mean subtracted from all features. The result is the mean
        over both merges.
        """
        goal = self.features(painting)
        ours, theirs = (
            [_to_nearest(own, aim) for own, aim in zip(self.features(image), goal, strict=True)]
            for image in (picture, photo)
        )
        return sum(our / their for our, their in zip(ours, theirs, strict=True)) / len(ours)

    def apart(self, made: Tensor, real: Tensor) -> float:
        """How far apart two sets of as many crops [N, 3, h, w] are, by places of their features.

        The mean over both merges of the sliced Wasserstein distance between 16 places of every
        crop; each channel is divided by its standard deviation in the real crops.
        """
        random = np.random.default_rng(0)
        merges: list[tuple[list[Array], list[Array]]] = [([], []) for _ in self.MERGES]
        for one, other in zip(made, real, strict=True):
            pair = [self.features(crop[None]) for crop in (one, other)]
            for (ours, theirs), a, b in zip(merges, *pair, strict=True):
                at = random.permutation(a.shape[1])[:16]
                ours.append(a[:, at].T.double().numpy())
                theirs.append(b[:, at].T.double().numpy())
        found = []
        for ours, theirs in merges:
            points, goal = np.concatenate(ours), np.concatenate(theirs)
            spread = goal.std(0) + 1e-6
            found.append(sliced_wasserstein(points / spread, goal / spread))
        return float(np.mean(found))

    @torch.no_grad()
    def features(self, image: Tensor) -> list[Tensor]:
        """The features [channels, positions] of both merges of an image in 0..1."""
        found = self.encoder(image, self.MERGES)
        return [found[name][0].flatten(1) for name in self.MERGES]


def _to_nearest(places: Tensor, aims: Tensor) -> float:
    centre = aims.mean(1, keepdim=True)
    ours, theirs = (F.normalize(features - centre, dim=0) for features in (places, aims))
    nearest = [(1 - part.T @ theirs).amin(1) for part in torch.split(ours, 2048, dim=1)]
    return torch.cat(nearest).mean().item()
