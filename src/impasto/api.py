"""The public names of impasto, all in one place; use them as `impasto.NAME`."""

from __future__ import annotations

from impasto.encoders.vgg import Vgg, load_encoder
from impasto.errors import ImpastoError, ImpastoNotice
from impasto.losses.base import (
    BorderLoss,
    ContentLoss,
    Loss,
    StyleLoss,
    SumLoss,
    TotalVariationLoss,
    border_variation,
    total_variation,
)
from impasto.losses.objective import Evaluation, Objective, measure
from impasto.losses.styles import (
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
from impasto.optimise.base import Outcome, Step, adam, cg, lbfgs
from impasto.pages.atlas import atlas, channels
from impasto.pages.compare import Comparison, Run, compare
from impasto.pages.sheets import Sheet, SheetInterrupted
from impasto.paint.artworks import Artwork, Interrupted
from impasto.paint.reconstruct import reconstruct
from impasto.paint.stylize import Stylizer, resume, stylize
from impasto.paint.texture import texture
from impasto.pictures.films import Film, Stills
from impasto.pictures.images import blurred, read_record, to_image, to_tensor
from impasto.pictures.samples import sample, sample_names
from impasto.settings import (
    PRESETS,
    AtlasSettings,
    ReconstructSettings,
    Settings,
    TextureSettings,
    up_to,
)

__all__ = [
    "PRESETS",
    "STYLES",
    "Artwork",
    "AtlasSettings",
    "BatchNorm",
    "BorderLoss",
    "Comparison",
    "ContentLoss",
    "Covariance",
    "Evaluation",
    "Film",
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
