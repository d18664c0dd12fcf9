"""The generator in torch, as it is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from impasto.networks.pyramid import EPSILON, SLOPE, Pyramid, Step
from impasto.networks.transform import Bounded, make_blind

Noise = Mapping[int, Tensor]
"""Noise in place by stride, [N, channels, rows, columns]; under 0 what is the same everywhere."""


BATCH = 16
"""Pictures of a style whose mean and variance the finished generator has."""


class _Growing(nn.Module):
    """A step of the table; see `pyramid.Step`."""

    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, step: Step, styles: int, random: torch.Generator) -> None:
        super().__init__()
        self.step = step
        for name, shape in step.tensors(styles).items():
            kind = name.rpartition(".")[2]
            start = torch.ones if kind == "scale" else torch.zeros
            self.register_parameter(kind, nn.Parameter(start(shape, dtype=torch.float32)))
        gain = 0.25 if step.is_last else 1.0  # grey pictures at first, with some contrast
        spread = gain / math.sqrt(9 * self.weight.shape[1])
        nn.init.normal_(self.weight, 0.0, spread, generator=random)
        self.moments: tuple[Tensor, Tensor] | None = None
        """Mean and variance of each channel in the last batch, while the network is trained."""

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        """The output for an input with its noise [N, channels, h, w]."""
        x = F.conv2d(x, self.weight, self.bias if self.step.is_last else None)
        if self.step.is_last:
            return x
        if self.training:
            variance, mean = torch.var_mean(x.detach(), (0, 2, 3), correction=0)
            self.moments = mean, variance
            x = F.batch_norm(x, None, None, training=True, eps=EPSILON)
        scale, shift = ((shares @ rows)[:, :, None, None] for rows in (self.scale, self.shift))
        return F.leaky_relu(x * scale + shift, SLOPE)


class Synthesizer(nn.Module):
    """Makes images from noise in one pass.

    Calling it with noise (see `sampled`) and each style's share [N, styles] gives images
    [N, 3, height, width] in 0..1. The weights are random at first, drawn from the seed. While it is
    trained, all pictures of a batch must be in one style; see `settled`.
    """

    def __init__(self, pyramid: Pyramid, styles: int = 1, seed: int = 0) -> None:
        super().__init__()
        self.pyramid, self.styles = pyramid, styles
        random = torch.Generator("cpu").manual_seed(seed)
        self.layers = nn.ModuleDict(
            {step.name: _Growing(step, styles, random) for step in pyramid.steps}
        )

    def forward(self, noise: Noise, shares: Tensor) -> Tensor:
        """Make images."""
        x: Tensor | None = None
        for step in self.pyramid.steps:
            if x is not None and step.is_enlarged:
                x = F.interpolate(x, scale_factor=2.0, mode="bilinear")
                x = x[..., step.cut : -step.cut, step.cut : -step.cut]
            joined = [] if x is None else [x]
            if step.noise:
                joined.append(noise[step.stride])
            if step.shared:
                joined.append(noise[0][:, :, None, None].expand(-1, -1, *joined[-1].shape[-2:]))
            x = self.layers[step.name](torch.cat(joined, 1) if joined[1:] else joined[0], shares)
        assert x is not None
        picture: Tensor = Bounded.apply(0.5 + 0.5 * x)  # type: ignore[no-untyped-call]
        return picture

    def weights(self) -> dict[str, Tensor]:
        """Its weights by the names of `Pyramid.tensors`; changing these changes it."""
        return {name.removeprefix("layers."): each for name, each in self.named_parameters()}

    def smooth(self) -> None:
        """Make the last kernels blind to waves of two pixels; see `Transformer.smooth`."""
        make_blind(self.weights()["picture.weight"])

    @torch.no_grad()
    def settled(self, side: int, random: np.random.Generator) -> dict[str, Tensor]:
        """Its weights for use rather than training, by the names of `Pyramid.tensors`.

        Scales and shifts then contain what normalising does in a batch of `BATCH` pictures.
        """
        was = self.training
        found = {name: each.clone() for name, each in self.weights().items()}
        self.train()
        device = next(iter(found.values())).device
        for style in range(self.styles):
            shares = torch.eye(self.styles, dtype=torch.float32)[[style] * BATCH]
            self(sampled(self.pyramid, BATCH, side, random, device), shares.to(device))
            for name, layer in self.layers.items():
                assert isinstance(layer, _Growing)
                if layer.moments is not None:
                    mean, variance = layer.moments
                    gain = found[f"{name}.scale"][style] * torch.rsqrt(variance + EPSILON)
                    found[f"{name}.scale"][style] = gain
                    found[f"{name}.shift"][style] -= gain * mean
        self.train(was)
        return found

    @torch.no_grad()
    def take(self, weights: Mapping[str, Tensor]) -> None:
        """Replace its weights by these."""
        for name, own in self.weights().items():
            own.copy_(weights[name])


def sampled(
    pyramid: Pyramid,
    count: int,
    side: int,
    random: np.random.Generator,
    device: torch.device | str = "cpu",
) -> Noise:
    """Noise for `count` square pictures, whose side is a multiple of the stride."""

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(random.standard_normal(shape, np.float32)).to(device)

    noise = {0: normal(count, pyramid.shared)}
    for stride, (channels, margin) in pyramid.noises().items():
        length = side // stride + 2 * margin
        noise[stride] = normal(count, channels, length, length)
    return noise
