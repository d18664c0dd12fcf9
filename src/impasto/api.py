"""All public names of impasto; use them as `impasto.NAME`."""

from impasto.encoders.base import (
    Encoder as Encoder,
    Layer as Layer,
    load_encoder as load_encoder,
    up_to as up_to,
)
from impasto.encoders.shifts import Shifted as Shifted
from impasto.encoders.vgg import Vgg as Vgg
from impasto.errors import ImpastoError as ImpastoError, ImpastoNotice as ImpastoNotice
from impasto.losses.base import Loss as Loss, SumLoss as SumLoss
from impasto.losses.content import ContentLoss as ContentLoss
from impasto.losses.distributions import (
    STYLES as STYLES,
    BatchNorm as BatchNorm,
    Covariance as Covariance,
    GaussianMmd as GaussianMmd,
    LinearMmd as LinearMmd,
    PolynomialMmd as PolynomialMmd,
    Wasserstein as Wasserstein,
)
from impasto.losses.matching import nearest as nearest
from impasto.losses.neighbors import (
    MomentsLoss as MomentsLoss,
    NeighborLoss as NeighborLoss,
    Neighbors as Neighbors,
)
from impasto.losses.objective import Objective as Objective, measure as measure
from impasto.losses.smoothness import (
    BorderLoss as BorderLoss,
    TotalVariationLoss as TotalVariationLoss,
    border_variation as border_variation,
    total_variation as total_variation,
)
from impasto.losses.styles import (
    Gram as Gram,
    MeanStyle as MeanStyle,
    Statistic as Statistic,
    Style as Style,
    StyleLoss as StyleLoss,
    gram as gram,
)
from impasto.networks.architecture import Architecture as Architecture
from impasto.networks.critics import (
    Adversary as Adversary,
    Gan as Gan,
    Opponent as Opponent,
    PatchCritic as PatchCritic,
    Round as Round,
    Wgan as Wgan,
    WganGp as WganGp,
    duel as duel,
    gradient_penalty as gradient_penalty,
)
from impasto.networks.export import export as export
from impasto.networks.generate import generate as generate
from impasto.networks.generator import Generator as Generator
from impasto.networks.growth import Growth as Growth
from impasto.networks.learning import TrainingStep as TrainingStep
from impasto.networks.network import Network as Network
from impasto.networks.pyramid import Pyramid as Pyramid
from impasto.networks.synthesis import Synthesizer as Synthesizer
from impasto.networks.train import train as train
from impasto.networks.training import Training as Training
from impasto.networks.transform import Transformer as Transformer
from impasto.optimise.adam import Adam as Adam, adam as adam
from impasto.optimise.base import (
    Descent as Descent,
    Evaluation as Evaluation,
    Optimiser as Optimiser,
    Outcome as Outcome,
    Step as Step,
)
from impasto.optimise.cg import ConjugateGradient as ConjugateGradient, cg as cg
from impasto.optimise.lbfgs import Lbfgs as Lbfgs, lbfgs as lbfgs
from impasto.pages.atlas import atlas as atlas, channels as channels
from impasto.pages.compare import Comparison as Comparison, compare as compare
from impasto.pages.sheet import Run as Run, Sheet as Sheet, SheetInterrupted as SheetInterrupted
from impasto.paint.artworks import Artwork as Artwork, Interrupted as Interrupted
from impasto.paint.reconstruct import reconstruct as reconstruct
from impasto.paint.run import Painting as Painting
from impasto.paint.stylize import Stylizer as Stylizer, resume as resume, stylize as stylize
from impasto.paint.texture import texture as texture
from impasto.pictures.films import Film as Film, Stills as Stills
from impasto.pictures.images import (
    blurred as blurred,
    read_record as read_record,
    to_image as to_image,
    to_tensor as to_tensor,
)
from impasto.pictures.samples import sample as sample, sample_names as sample_names
from impasto.settings import (
    PRESETS as PRESETS,
    ApplySettings as ApplySettings,
    AtlasSettings as AtlasSettings,
    CompareSettings as CompareSettings,
    GenerateSettings as GenerateSettings,
    ImagineSettings as ImagineSettings,
    ReconstructSettings as ReconstructSettings,
    Settings as Settings,
    TextureSettings as TextureSettings,
    TrainSettings as TrainSettings,
)
