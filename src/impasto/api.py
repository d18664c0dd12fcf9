"""The public names of impasto, all in one place; use them as `impasto.NAME`."""

from __future__ import annotations

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
    gram,
    mean_over_positions,
    total_variation,
)
from impasto.objective import Evaluation, Objective, measure
from impasto.optimise import Outcome, Step, adam, cg, lbfgs
from impasto.recipes import Artwork, Interrupted, Stylizer, resume, stylize
from impasto.samples import sample, sample_names
from impasto.settings import PRESETS, Settings
from impasto.vgg import Vgg, load_encoder

__all__ = [
    "PRESETS",
    "Artwork",
    "BorderLoss",
    "ContentLoss",
    "Evaluation",
    "ImpastoError",
    "ImpastoNotice",
    "Interrupted",
    "Loss",
    "Objective",
    "Outcome",
    "Settings",
    "Step",
    "StyleLoss",
    "Stylizer",
    "SumLoss",
    "TotalVariationLoss",
    "Vgg",
    "adam",
    "border_variation",
    "cg",
    "gram",
    "lbfgs",
    "load_encoder",
    "mean_over_positions",
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
