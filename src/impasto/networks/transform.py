"""The transformation network in torch, as it is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.networks.architecture import EPSILON, IMAGES, Architecture, Layer


class Convolution(nn.Module):
    """A layer of the table; see `Layer` for what it does and in which order."""

    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, layer: Layer, styles: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = layer
        for name, shape in layer.tensors(styles).items():
            kind = name.rpartition(".")[2]
            start = torch.ones if kind == "scale" else torch.zeros
            self.register_parameter(kind, nn.Parameter(start(shape, dtype=torch.float32)))
        gain = nn.init.calculate_gain("linear" if layer.is_last else "relu")
        spread = gain / math.sqrt(layer.inputs * layer.kernel**2)  # He et al. 2015, eq. 10
        nn.init.normal_(self.weight, 0.0, spread, generator=generator)

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        """The output for an input [N, inputs, h, w] and the styles' shares [N, styles]."""
        x = self.convolved(x)
        if self.layer.is_last:
            return x
        # Dumoulin et al. 2017, eq. 5: scale (x - mean) / deviation + shift.
        scale, shift = ((shares @ rows)[:, :, None, None] for rows in (self.scale, self.shift))
        x = self.normalised(x) * scale + shift
        return F.relu(x) if self.layer.has_relu else x

    def convolved(self, x: Tensor) -> Tensor:
        """Enlarged, continued by reflection, and convolved."""
        layer = self.layer
        if layer.enlarged > 1:
            x = F.interpolate(x, scale_factor=float(layer.enlarged), mode="bilinear")
        if layer.kernel > 1:
            x = F.pad(x, (layer.kernel // 2,) * 4, mode="reflect")
        return F.conv2d(x, self.weight, self.bias if layer.is_last else None, layer.stride)

    def normalised(self, x: Tensor) -> Tensor:
        """Every channel of every picture with mean 0 and deviation 1."""
        return F.instance_norm(x, eps=EPSILON)


class Transformer(nn.Module):
    """Repaints images in one pass.

    Calling it with images [N, 3, height, width] in 0..1 and each style's share in each of them
    [N, styles] gives images of the same shape, in 0..1. Any size will do: a picture is continued
    by its last row and column to a multiple of `Architecture.stride`, and cut again. The weights
    are random at first, drawn from the seed.
    """

    def __init__(self, architecture: Architecture, styles: int, seed: int = 0) -> None:
        super().__init__()
        self.architecture = architecture
        random = torch.Generator("cpu").manual_seed(seed)
        self.layers = nn.ModuleDict(
            {layer.name: Convolution(layer, styles, random) for layer in architecture.layers}
        )

    def forward(self, images: Tensor, shares: Tensor) -> Tensor:
        """Repaint images."""
        height, width = images.shape[-2:]
        missing = [self.architecture.padded(side) - side for side in (width, height)]
        x = F.pad(images, (0, missing[0], 0, missing[1]), mode="replicate")
        outputs = {IMAGES: x}
        for layer in self.architecture.layers[:-1]:
            x = self.layers[layer.name](outputs[layer.reads], shares)
            if layer.adds is not None:
                x = x + outputs[layer.adds]
            outputs[layer.name] = x
        last = self.architecture.layers[-1]
        # Half precision has steps of a whole grey level.
        with torch.autocast(x.device.type, enabled=False):
            x = self.layers[last.name](outputs[last.reads].to(images.dtype), shares)
        picture: Tensor = Bounded.apply(0.5 + 0.5 * x)  # type: ignore[no-untyped-call]
        return picture[..., :height, :width]

    def weights(self) -> dict[str, Tensor]:
        """Its weights by the names of `Architecture.tensors`; changing these changes it."""
        return {name.removeprefix("layers."): each for name, each in self.named_parameters()}

    @torch.no_grad()
    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Replace its weights by these."""
        for name, own in self.weights().items():
            own.copy_(weights[name])

    @torch.no_grad()
    def smooth(self) -> None:
        """Make the last kernels blind to waves of two pixels, if they are learned.

        Waves along rows, along columns and along both, which is a checkerboard: such a pattern that
        is too faint to be seen is too faint for the losses, and yet a peak in a spectrum.
        """
        kernels = self.weights()[f"{self.architecture.layers[-1].name}.weight"]
        if kernels.shape[-1] > 1 and kernels.requires_grad:
            make_blind(kernels)


@torch.no_grad()
def make_blind(kernels: Tensor) -> None:
    """Make kernels [N, channels, side, side] blind to waves of two pixels, in place."""
    side = kernels.shape[-1]
    even = torch.ones(side, dtype=torch.float32)
    odd = 1 - 2 * (torch.arange(side) % 2)
    waves = [torch.outer(even, odd), torch.outer(odd, even), torch.outer(odd, odd)]
    basis, _ = torch.linalg.qr(torch.stack(waves).reshape(3, -1).T)
    basis = basis.to(kernels)
    kernels -= (kernels.flatten(2) @ basis @ basis.T).reshape(kernels.shape)


class Bounded(torch.autograd.Function):
    """Clip to 0..1, with a gradient for clipped values that would come back into range.

    A sigmoid has next to no gradient where it saturates, and a plain clip has none: a pixel that is
    once black stays black. Here a gradient is lost only where following it would lead further out.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Clip."""
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """The gradient with respect to the values before clipping."""
        (x,), (gradient,) = ctx.saved_tensors, gradients
        leaves = ((x < 0) & (gradient > 0)) | ((x > 1) & (gradient < 0))
        return gradient.masked_fill(leaves, 0)
