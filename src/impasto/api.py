"""The public names of impasto, all in one place; use them as `impasto.NAME`."""

from __future__ import annotations

from impasto.artworks import Artwork, Interrupted
from impasto.atlases import atlas, channels
from impasto.comparisons import Comparison, Run, compare
from impasto.errors import ImpastoError, ImpastoNotice
from impasto.films import Film, Stills
from impasto.images import blurred, read_record, to_image, to_tensor
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
from impasto.reconstructions import reconstruct
from impasto.samples import sample, sample_names
from impasto.settings import (
    PRESETS,
    AtlasSettings,
    ReconstructSettings,
    Settings,
    TextureSettings,
    up_to,
)
from impasto.sheets import Sheet, SheetInterrupted
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
from impasto.textures import texture
from impasto.vgg import Vgg, load_encoder

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
