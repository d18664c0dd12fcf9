"""Keep a photo's colours, or take a painting's: Gatys et al. 2016 (arXiv:1606.05897)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

HALF_A_LEVEL = 0.5 / 255
"""Half a grey level, where colours are in 0..1: the smallest spread that they are taken to have."""


def luminance(image: Tensor) -> Tensor:
    """The Y of YIQ of an image tensor, [batch, 1, height, width]."""
    weights = image.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True)


def match_luminance(
    painting: Tensor, photo: Tensor, weights: Tensor | None = None, visible: Tensor | None = None
) -> Tensor:
    """Shift and stretch a painting's luminance to a photo's mean and standard deviation.

    Luminance-only transfer, section 5: L' = (sigma_C / sigma_S) (L - mu_S) + mu_C, clipped to
    [0, 1]. All are [batch, 1, height, width]. `weights` say how much each pixel of the photo
    counts, `visible` each pixel of the painting.
    """
    mean, variance = moments(photo, weights)
    own_mean, own_variance = moments(painting, visible)
    stretch = variance.sqrt() / own_variance.sqrt().clamp_min(1e-6)
    mean, own_mean, stretch = (x[..., None].to(painting) for x in (mean, own_mean, stretch))
    return ((painting - own_mean) * stretch + mean).clamp(0, 1)


def with_luminance(image: Tensor, grey: Tensor) -> Tensor:
    """An image's colours (I and Q of YIQ) with the luminance `grey` [batch, 1, height, width].

    A colour that is more vivid than RGB allows at its new luminance is paled until it fits, because
    clipping would change its hue and luminance.
    """
    colour = image - luminance(image)
    # The largest t in [0, 1] with 0 <= grey + t * colour <= 1, channel by channel.
    room = (1 - grey).where(colour > 0, grey) / colour.abs().clamp_min(1e-6)
    return grey + colour * room.amin(1, keepdim=True).clamp(0, 1)


def match_colours(
    image: Tensor,
    goal: Tensor,
    weights: Tensor | None = None,
    visible: Tensor | None = None,
    least_spread: float = HALF_A_LEVEL,
) -> Tensor:
    """Recolour an image so that its colours have the mean and covariance of the goal's colours.

    Section 4: x' = A (x - mu_S) + mu_C with A = Sigma_C^1/2 Sigma_S^-1/2, clipped to [0, 1]. Both
    are [batch, 3, height, width], of any size. `weights` [batch, 1, height, width] say how much
    each pixel of the goal counts, `visible` each pixel of the image. Colours of the image that vary
    by less than the standard deviation `least_spread` are taken to vary by as much, so that colours
    which hardly differ are not torn apart.
    """
    mean, covariance = moments(goal, weights)
    own_mean, own_covariance = moments(image, visible)
    matrix = _matrix_power(covariance, 0.5) @ _matrix_power(own_covariance, -0.5, least_spread)
    recoloured: Tensor = matrix @ (image.flatten(2).cpu().double() - own_mean) + mean
    return recoloured.clamp(0, 1).view(image.shape).to(image)


def moments(image: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Mean [batch, C, 1] and covariance [batch, C, C] of the C colours of an image, in float64.

    `weights` [batch, 1, height, width] say how much each pixel counts.
    """
    x = image.flatten(2).cpu().double()
    w = x[:, :1].new_ones(x[:, :1].shape) if weights is None else weights.flatten(2).cpu().double()
    w = w / w.sum(2, keepdim=True)
    mean = (x * w).sum(2, keepdim=True)
    return mean, (x - mean) * w @ (x - mean).mT


def _matrix_power(matrix: Tensor, power: float, least_spread: float = HALF_A_LEVEL) -> Tensor:
    """A power of a covariance matrix whose standard deviations are raised to `least_spread`."""
    import torch

    values, vectors = torch.linalg.eigh(matrix)
    powers = values.clamp_min(least_spread**2)[..., None, :] ** power
    result: Tensor = vectors * powers @ vectors.mT
    return result
