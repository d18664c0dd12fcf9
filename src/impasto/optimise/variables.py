"""The unbounded, preconditioned variables that stand for an image while it is optimised."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from impasto.optimise.base import Beyond, Spectrum

Array = npt.NDArray[np.floating]

_GREY_LEVEL = 1 / 255


class Basis:
    """The waves that an image is made of, and P, the linear map that weights each wave.

    P is symmetric, so it serves variables and gradients alike. The waves are of luminance and two
    opponent colours: cosines if the image is mirrored beyond its borders, so that nothing wraps
    around, and Fourier's if it is repeated, so that everything does.
    """

    def __init__(self, shape: torch.Size, spectrum: Spectrum, beyond: Beyond) -> None:
        _, channels, height, width = shape
        self.is_mirrored = beyond == "mirrored"
        rows, columns = (
            torch.arange(n, dtype=torch.float32) / (2 * n)
            if self.is_mirrored
            else torch.fft.fftfreq(n, dtype=torch.float32)
            for n in (height, width)
        )
        frequency: Array = torch.hypot(rows[:, None], columns).double().numpy()
        frequency[0, 0] = 1 / (2 * max(height, width))  # the mean counts as the longest wave
        gains = _spectral_gains(channels, frequency, spectrum).astype(np.float32)
        self.gains = gains if self.is_mirrored else gains[..., : width // 2 + 1]
        self.opponents = _OPPONENTS if channels == 3 and spectrum != "photo" else None

    def weighed(self, x: Tensor) -> Tensor:
        """P x for x [1, channels, height, width] on the CPU."""
        from scipy.fft import dctn, idctn, irfft2, rfft2

        if self.opponents is not None:
            x = torch.tensordot(self.opponents, x[0], dims=1)[None]
        size, workers = x.shape[-2:], torch.get_num_threads()
        if self.is_mirrored:
            along: dict[str, Any] = {"axes": (-2, -1), "norm": "ortho", "workers": workers}
            waves = dctn(x.numpy(), **along)
            waves *= self.gains
            found = idctn(waves, overwrite_x=True, **along)
        else:
            waves = rfft2(x.numpy(), workers=workers)
            waves *= self.gains
            found = irfft2(waves, size, workers=workers, overwrite_x=True)
        x = torch.from_numpy(found)
        if self.opponents is not None:
            x = torch.tensordot(self.opponents.T, x[0], dims=1)[None]
        return x


class Variables:
    """The variables z that stand for an image while it is optimised (docs/design.md).

        pixel = (1 - cos(pi u)) / 2,    u = u0 + P z / s

    The cosine keeps every pixel in range, whatever z is. P (`Basis`) weights the frequencies of
    luminance and colour so that the loss has about the same curvature along each. With s and the
    scale of the loss, a step of length 1 moves pixels by about a grey level: unscaled, an
    optimiser's first step can be far below the float32 resolution of the loss, or far out of range,
    and the line search gives up at once.
    """

    def __init__(self, image: Tensor, basis: Basis, angles: Tensor | None = None) -> None:
        self.shape, self.dtype, self.device = image.shape, image.dtype, image.device
        self.basis = basis
        self.per_unit = 1 / (_GREY_LEVEL * math.sqrt(image.numel()))
        if angles is None:
            # The cosine is flat at black and white, where a pixel would be stuck. Such pixels begin
            # half a grey level inside, which rounding to 8 bits undoes.
            margin = 0.499 * _GREY_LEVEL
            pixels = image.detach().cpu().float().clamp(margin, 1 - margin)
            angles = (1 - pixels.mul_(2)).acos_().div_(math.pi)
        self.angles = angles
        self.scale = 1.0

    def angles_at(self, z: Tensor) -> Tensor:
        """u, shaped like the image."""
        return self._weighed(z.view(self.shape)).add_(self.angles)

    def image_at(self, z: Tensor) -> Tensor:
        pixels = self.angles_at(z).mul_(math.pi).cos_().neg_().add_(1).mul_(0.5)
        return pixels.to(self.device, self.dtype)

    def slope_at(self, z: Tensor, gradient: Tensor) -> Tensor:
        """The gradient of the scaled loss with respect to z, flattened."""
        slope = self.angles_at(z).mul_(math.pi).sin_().mul_(0.5 * math.pi * self.scale)
        return self._weighed(slope.mul_(gradient.to(slope))).view(-1)

    def _weighed(self, x: Tensor) -> Tensor:
        """P x / s."""
        return self.basis.weighed(x).div_(self.per_unit)


# Orthonormal: luminance, red against blue, green against both.
_OPPONENTS = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float32, device="cpu")
_OPPONENTS /= _OPPONENTS.norm(dim=1, keepdim=True)

# The curvature of the default loss along waves of each frequency (cycles a pixel), one row for each
# opponent: measured on half-painted samples (docs/design.md). Only the ratios matter.
_FREQUENCIES = (0.004, 0.012, 0.023, 0.045, 0.09, 0.16, 0.25, 0.35, 0.45, 0.625)
_CURVATURES = (
    (0.94, 1.68, 3.4, 7.2, 13.7, 13.7, 7.6, 3.2, 1.4, 1.1),
    (5.1, 6.0, 11.3, 13.0, 5.7, 1.0, 0.55, 0.66, 0.8, 1.06),
    (7.4, 11.5, 24.2, 25.0, 8.8, 1.44, 0.56, 0.63, 0.8, 1.05),
)

_FINE_COLOUR = 0.06
"""In a painting, colours that change faster than this (cycles a pixel) are held back."""


def _spectral_gains(channels: int, frequency: Array, spectrum: Spectrum) -> Array:
    """The weights of waves of these frequencies [height, width], in cycles a pixel.

    [1 or channels, height, width], of mean square 1.

    From a photo, f^-1/2: the losses have far more curvature at high frequencies than for broad
    changes of colour, and the optimiser would spend its first fifty steps finding that out. From
    what a coarser level has painted (`"refined"`), f^-1/4 times the measured curvature to the power
    -1/4: broad changes are made already, and uneven curvature slows the rest. In a painting
    (`"painted"`) fine changes of colour are held back further, by f^-2: layers hardly see them, so
    speckle would hardly go away again. From noise, f^-0.15, a little less for colours: noise lacks
    fine detail as much as all else, and layers see fine detail least.
    """
    if spectrum in ("refined", "painted"):
        along = np.log(frequency)
        known = np.log(_FREQUENCIES)
        bends = [np.interp(along, known, np.log(row)) for row in _CURVATURES[:channels]]
        gains = frequency**-0.25 * np.exp(-0.25 * np.stack(bends))
        if spectrum == "painted":
            gains[1:] /= 1 + (frequency / _FINE_COLOUR) ** 2
    elif spectrum == "noise":
        colours = np.array([1.0, 0.8, 0.8])[:channels]
        gains = frequency**-0.15 * colours[:, None, None]
    else:
        gains = frequency[None] ** -0.5
    normalised: Array = gains / np.sqrt(np.square(gains).mean())
    return normalised
