"""The public names of impasto, all in one place; use them as `impasto.NAME`."""

from __future__ import annotations

from impasto.encoders.base import Encoder, Layer, load_encoder, up_to
from impasto.encoders.vgg import Vgg
from impasto.errors import ImpastoError, ImpastoNotice
from impasto.losses.base import Loss, SumLoss
from impasto.losses.content import ContentLoss
from impasto.losses.distributions import (
    STYLES,
    BatchNorm,
    Covariance,
    GaussianMmd,
    LinearMmd,
    PolynomialMmd,
    Wasserstein,
)
from impasto.losses.objective import Objective, measure
from impasto.losses.smoothness import (
    BorderLoss,
    TotalVariationLoss,
    border_variation,
    total_variation,
)
from impasto.losses.styles import Gram, MeanStyle, Statistic, Style, StyleLoss, gram
from impasto.optimise.adam import Adam, adam
from impasto.optimise.base import Descent, Evaluation, Optimiser, Outcome, Step
from impasto.optimise.cg import ConjugateGradient, cg
from impasto.optimise.lbfgs import Lbfgs, lbfgs
from impasto.pages.atlas import atlas, channels
from impasto.pages.compare import Comparison, compare
from impasto.pages.sheet import Run, Sheet, SheetInterrupted
from impasto.paint.artworks import Artwork, Interrupted
from impasto.paint.reconstruct import reconstruct
from impasto.paint.run import Painting
from impasto.paint.stylize import Stylizer, resume, stylize
from impasto.paint.texture import texture
from impasto.pictures.films import Film, Stills
from impasto.pictures.images import blurred, read_record, to_image, to_tensor
from impasto.pictures.samples import sample, sample_names
from impasto.settings import (
    PRESETS,
    AtlasSettings,
    CompareSettings,
    ReconstructSettings,
    Settings,
    TextureSettings,
)

__all__ = [
    "PRESETS",
    "STYLES",
    "Adam",
    "Artwork",
    "AtlasSettings",
    "BatchNorm",
    "BorderLoss",
    "CompareSettings",
    "Comparison",
    "ConjugateGradient",
    "ContentLoss",
    "Covariance",
    "Descent",
    "Encoder",
    "Evaluation",
    "Film",
    "GaussianMmd",
    "Gram",
    "ImpastoError",
    "ImpastoNotice",
    "Interrupted",
    "Layer",
    "Lbfgs",
    "LinearMmd",
    "Loss",
    "MeanStyle",
    "Objective",
    "Optimiser",
    "Outcome",
    "Painting",
    "PolynomialMmd",
    "ReconstructSettings",
    "Run",
    "Settings",
    "Sheet",
    "SheetInterrupted",
    "Statistic",
    "Step",
    "Stills",
    "Style",
    "StyleLoss",
    "Stylizer",
    "SumLoss",
    "TextureSettings",
    "TotalVariationLoss",
    "Vgg",
    "Wasserstein",
    "adam",
    "atlas",
    "blurred",
    "border_variation",
    "cg",
    "channels",
    "compare",
    "gram",
    "lbfgs",
    "load_encoder",
    "measure",
    "read_record",
    "reconstruct",
    "resume",
    "sample",
    "sample_names",
    "stylize",
    "texture",
    "to_image",
    "to_tensor",
    "total_variation",
    "up_to",
]
