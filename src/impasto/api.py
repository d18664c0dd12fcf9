"""The public names of impasto, all in one place; use them as `impasto.NAME`."""

from __future__ import annotations

from impasto.artworks import Artwork, Interrupted
from impasto.errors import ImpastoError, ImpastoNotice
from impasto.images import read_record, to_image, to_tensor
from impasto.losses import (
    BorderLoss,
    ContentLoss,
    Loss,
    StyleLoss,
    SumLoss,
    TotalVariationLoss,
    border_variation,
    total_variation,
)
from impasto.objective import Evaluation, Objective, measure
from impasto.optimise import Outcome, Step, adam, cg, lbfgs
from impasto.recipes import Stylizer, resume, stylize
from impasto.samples import sample, sample_names
from impasto.settings import PRESETS, Settings
from impasto.styles import (
    STYLES,
    BatchNorm,
    Covariance,
    GaussianMmd,
    Gram,
    LinearMmd,
    PolynomialMmd,
    Statistic,
    Style,
    Wasserstein,
    gram,
)
from impasto.vgg import Vgg, load_encoder

__all__ = [
    "PRESETS",
    "STYLES",
    "Artwork",
    "BatchNorm",
    "BorderLoss",
    "ContentLoss",
    "Covariance",
    "Evaluation",
    "GaussianMmd",
    "Gram",
    "ImpastoError",
    "ImpastoNotice",
    "Interrupted",
    "LinearMmd",
    "Loss",
    "Objective",
    "Outcome",
    "PolynomialMmd",
    "Settings",
    "Statistic",
    "Step",
    "Style",
    "StyleLoss",
    "Stylizer",
    "SumLoss",
    "TotalVariationLoss",
    "Vgg",
    "Wasserstein",
    "adam",
    "border_variation",
    "cg",
    "gram",
    "lbfgs",
    "load_encoder",
    "measure",
    "read_record",
    "resume",
    "sample",
    "sample_names",
    "stylize",
    "to_image",
    "to_tensor",
    "total_variation",
]
