"""The open sets, style losses, optimisers, encoders, adversaries, networks, by name. No torch.

Settings, help texts, error messages and the command line read these tables. To add an entry, write
its class and add its row (docs/extending.md).
"""

from __future__ import annotations

import dataclasses
import pkgutil
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """An entry: `where` its class or function is, as `module:name`, and one line of `help`."""

    where: str
    help: str

    def load(self) -> Any:
        """Import the class or function."""
        return pkgutil.resolve_name(self.where)

    def made(self, settings: object) -> Any:
        """An object of this class; each field gets the setting of the same name, if any."""
        kind = self.load()
        names = [each.name for each in dataclasses.fields(kind)]
        return kind(**{name: getattr(settings, name) for name in names if hasattr(settings, name)})


@dataclass(frozen=True)
class StyleRow(Row):
    """A style loss; `weight` is the style weight that makes it about as strong as the others.

    needs_photo: it can only repaint a photo.
    """

    weight: float
    needs_photo: bool = False


_BEYOND = "impasto.losses.distributions:"

STYLES: dict[str, StyleRow] = {
    "neighbors": StyleRow(
        "impasto.losses.neighbors:Neighbors", "the most similar places of the painting", 40.0, True
    ),
    "gram": StyleRow("impasto.losses.styles:Gram", "which channels are active together", 11.6),
    "mmd-linear": StyleRow(f"{_BEYOND}LinearMmd", "how active each channel is", 34.0),
    "mmd-poly": StyleRow(f"{_BEYOND}PolynomialMmd", "gram and mmd-linear together", 20.0),
    "mmd-gaussian": StyleRow(f"{_BEYOND}GaussianMmd", "the distribution of activations", 41.0),
    "bn": StyleRow(f"{_BEYOND}BatchNorm", "mean and spread of each channel", 11.6),
    "covariance": StyleRow(f"{_BEYOND}Covariance", "how channels vary together", 5.7),
    "wasserstein": StyleRow(f"{_BEYOND}Wasserstein", "mean and covariance, by transport", 5.7),
}

OPTIMIZERS: dict[str, Row] = {
    "lbfgs": Row("impasto.optimise.lbfgs:Lbfgs", "fewest evaluations; the default"),
    "cg": Row("impasto.optimise.cg:ConjugateGradient", "less memory, more evaluations"),
    "adam": Row("impasto.optimise.adam:Adam", "no line search"),
}


@dataclass(frozen=True)
class EncoderRow(Row):
    """An encoder. has_presets: the published settings are for it. needs_file: for its weights."""

    has_presets: bool = False
    needs_file: bool = False


_RESNET = "impasto.encoders.resnet:RESNET"

ENCODERS: dict[str, EncoderRow] = {
    "vgg16": EncoderRow("impasto.encoders.vgg:VGG16", "VGG-16 as released; the default", True),
    "vgg19": EncoderRow("impasto.encoders.vgg:VGG19", "of your weights file", True, True),
    "efficientnet-lite0": EncoderRow(
        "impasto.encoders.efficientnet:LITE0", "small and residual, in the package"
    ),
    "resnet18": EncoderRow(f"{_RESNET}18", "of your weights file", needs_file=True),
    "resnet34": EncoderRow(f"{_RESNET}34", "of your weights file", needs_file=True),
    "resnet50": EncoderRow(f"{_RESNET}50", "of your weights file", needs_file=True),
}

_CRITICS = "impasto.networks.critics:"

ADVERSARIES: dict[str, Row] = {
    "gan": Row(f"{_CRITICS}Gan", "Goodfellow et al. 2014, non-saturating"),
    "wgan": Row(f"{_CRITICS}Wgan", "Wasserstein, clipped weights: Arjovsky et al. 2017"),
    "wgan-gp": Row(f"{_CRITICS}WganGp", "Wasserstein, penalised slope: Gulrajani et al. 2017"),
}

NETWORKS: dict[str, str] = {
    "samples": "after the five sample paintings; the default",
}
"""The networks in `networks/weights`, by the names of their files, and what they paint."""

GENERATORS: dict[str, str] = {
    name: f"generator-{name}"
    for name in (
        "cafe_terrace_at_night",
        "church_at_auvers",
        "composition_viii",
        "great_wave",
        "night_cafe",
    )
}
"""The generators in `networks/weights`: a painting's name, and the file that knows it."""
