"""How to paint: every choice a user has, its default, its range, and the published presets."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args

from impasto.errors import ImpastoError, nearest

Scaling = Literal["relative", "gatys", "lecture"]
Pooling = Literal["avg", "max"]

StyleName = Literal[
    "gram", "mmd-linear", "mmd-poly", "mmd-gaussian", "bn", "covariance", "wasserstein"
]

BLOCKS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
"""The first activations of every block of VGG."""

_Kind = TypeVar("_Kind", bound="RunSettings")

FULL = "full"
KEPT_COLORS = ("luminance", "histogram")
STARTS = ("photo", "noise", "painting")
OPTIMIZERS = ("lbfgs", "cg", "adam")
DEVICES = ("auto", "cpu", "cuda", "mps")

# Early layers (colours, fine strokes) cost the content little and are slowest to converge.
_DEFAULT_STYLE = MappingProxyType(dict(zip(BLOCKS, (0.3, 0.25, 0.2, 0.15, 0.1), strict=True)))

STYLE_WEIGHTS: Mapping[StyleName, float] = MappingProxyType(
    {
        "gram": 11.6,
        "mmd-linear": 34.0,
        "mmd-poly": 20.0,
        "mmd-gaussian": 41.0,
        "bn": 11.6,
        "covariance": 5.7,
        "wasserstein": 5.7,
    }
)
"""The style weight that suits each style loss: with it, all of them paint about as strongly."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What can be chosen of every run, whatever is made in it.

    Args:
        steps: how many steps the optimiser makes at most, on all levels together.
        evaluations: how many values and gradients to spend at most; none for no limit.
        optimizer: `"lbfgs"`, `"cg"` or `"adam"`.
        pooling: `"avg"` or `"max"`, see `Vgg`.
        seed: of the noise, and of whatever else is drawn.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"mps"`.
        weights: a file with other VGG weights, see `load_encoder`.
        memory: how much memory the process may take over the whole run, in bytes or as text
            like `"2G"` or `"800M"`: interpreter, libraries and all that impasto holds, not what
            a program around it holds besides. None for three quarters of what is free. Larger
            pictures are painted in tiles; where the smallest do not do, a notice says so.

    Raises:
        ImpastoError: a value is out of its range; the text names it and the range.
    """

    steps: int = 150
    evaluations: int | None = None
    optimizer: str = "lbfgs"
    pooling: Pooling = "avg"
    seed: int = 0
    device: str = "auto"
    weights: str | Path | None = None
    memory: int | str | None = None

    def __post_init__(self) -> None:
        for setting in fields(self):
            object.__setattr__(self, setting.name, plain(getattr(self, setting.name)))
        check_count("steps", self.steps, 0)
        if self.evaluations is not None:
            check_count("evaluations", self.evaluations, 1)
        _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _check_choice("pooling", self.pooling, get_args(Pooling))
        check_count("seed", self.seed, 0, 2**63 - 1)
        if self.memory is not None:
            parse_memory(self.memory)


@dataclass(frozen=True, kw_only=True)
class Settings(RunSettings):
    """How to paint; the defaults are impasto's own balance (docs/quality.md).

    Args (beside those of `RunSettings`):
        size: the longer side of the result in pixels, or `"full"` for the photo's own.
        strength: 0 gives the photo back, 1 is style alone, 1/2 the balance of the two weights:
            content is weighted with 2 (1 - strength) content_weight, style with
            2 strength style_weight.
        detail: how much of the photo's fine detail each level begins with, squared: 0 for none, so
            that what is fine in the result was painted, 1 for all of it, which shows through.
            Below a strength of 1/4 more and more of it comes back; at 0 it is all there.
        levels: how many sizes to paint at, from coarse to fine, each half the next; 1 paints at
            the final size alone, none for as many as the size calls for.
        init: where to start: `"photo"`, `"noise"`, `"painting"`, or the path of a picture; the
            first two as smooth as `detail` has it, in the painting's colours.
        content_layer: the layer whose activations are the content.
        style_layers: the layers whose style is compared, each with its share of
            `style_weight`; plain names share it equally.
        style_loss: what style is and how two are compared, see `styles`: `"gram"`,
            `"mmd-linear"`, `"mmd-poly"`, `"mmd-gaussian"`, `"bn"`, `"covariance"` or
            `"wasserstein"`.
        tv: weight of the total variation; takes away the speckle that style adds, and where it is
            large leaves a weave along rows and columns. Like the style weight it is the one at
            strength 1/2 and grows with the strength.
        margin: whether a margin is painted around the picture, and cut off at the end. To the
            encoder its zero padding is a sharp edge, which style answers with a frame.
        style_scale: size of the painting relative to the result; larger gives larger strokes.
        keep_colors: how to keep the photo's colours: `"luminance"` (or true) transfers the light
            alone, `"histogram"` recolours the painting to the photo's mean and covariance first;
            none takes the painting's.
        scaling: of the losses, see `ContentLoss` and `StyleLoss`.
        content_weight: of the content loss at strength 1/2.
        style_weight: of all style layers together at strength 1/2; with relative scaling it is
            divided by the photo's own style loss, so that it means the same for every pair. None
            for the one that suits the style loss.
        restart: start the optimiser anew after so many evaluations; none for never.
    """

    size: int | str = 512
    strength: float = 0.5
    detail: float = 0.0
    levels: int | None = None
    init: str | Path = "photo"
    content_layer: str = "relu4_2"
    style_layers: Mapping[str, float] | Sequence[str] = field(
        default_factory=lambda: dict(_DEFAULT_STYLE)
    )
    style_loss: StyleName = "gram"
    tv: float = 2.0
    margin: bool = True
    style_scale: float = 1.0
    keep_colors: bool | str | None = None
    scaling: Scaling = "relative"
    content_weight: float = 1.0
    style_weight: float | None = None
    restart: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size != FULL:
            check_count("size", self.size, 1, 65535, " or 'full'")
        _check_number("strength", self.strength, 0, 1)
        _check_number("detail", self.detail, 0, 1)
        _check_choice("style_loss", self.style_loss, get_args(StyleName))
        _check_number("tv", self.tv, 0)
        if not isinstance(self.margin, bool):
            raise ImpastoError(f"margin is {self.margin!r}; give True or False")
        _check_number("style_scale", self.style_scale, 0.01, 100)
        _check_choice("scaling", self.scaling, get_args(Scaling))
        _check_number("content_weight", self.content_weight, 0)
        if self.style_weight is not None:
            _check_number("style_weight", self.style_weight, 0)
        if self.restart is not None:
            check_count("restart", self.restart, 2)
        if self.levels is not None:
            check_count("levels", self.levels, 1, 16)
        if isinstance(self.keep_colors, str):
            _check_choice("keep_colors", self.keep_colors, KEPT_COLORS)
        if self.scaling != "relative" and self.style_loss != "gram":
            raise ImpastoError(
                f"the scaling {self.scaling!r} is one of Gram matrices; leave it (and its preset) "
                f"out with the style loss {self.style_loss!r}"
            )
        _check_shares(self.style_shares)

    @property
    def style_shares(self) -> dict[str, float]:
        """Each style layer's share of the style weight, as given."""
        return shares_of(self.style_layers)

    @property
    def kept_detail(self) -> float:
        """What the photo's detail is multiplied by where painting begins, 0..1.

        Squared, so that it comes back evenly: even a tenth of its contrast is visible.
        """
        return max(self.detail, 1 - 4 * self.strength) ** 2

    @property
    def colors(self) -> str | None:
        """How the photo's colours are kept, if they are."""
        if isinstance(self.keep_colors, str):
            return self.keep_colors
        return KEPT_COLORS[0] if self.keep_colors else None

    @property
    def total_style_weight(self) -> float:
        """The style weight, as chosen or as it suits the style loss."""
        return STYLE_WEIGHTS[self.style_loss] if self.style_weight is None else self.style_weight


@dataclass(frozen=True, kw_only=True)
class ReconstructSettings(RunSettings):
    """How to reconstruct a photo from what layers keep of it.

    Args (beside those of `RunSettings`):
        layers: the layers whose activations are matched, each with its share of the loss; plain
            names share it equally.
        size: the longer side of the result in pixels, or `"full"` for the photo's own.
        tv: weight of the total variation, the prior that keeps high-frequency noise down; none
            for as much as the deepest layer calls for, see `reconstruction_prior`.
    """

    layers: Mapping[str, float] | Sequence[str] = ("relu4_2",)
    size: int | str = 256
    tv: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size != FULL:
            check_count("size", self.size, 1, 65535, " or 'full'")
        if isinstance(self.layers, str | None) or not self.layers:
            raise ImpastoError("layers is no list of layers; give at least one, as in ['relu4_1']")
        _check_shares(shares_of(self.layers))
        if self.tv is not None:
            _check_number("tv", self.tv, 0)


@dataclass(frozen=True, kw_only=True)
class TextureSettings(RunSettings):
    """How to grow a texture.

    Args (beside those of `RunSettings`):
        size: (width, height) in pixels.
        layers: the layers whose style is matched, each with its share; plain names share equally.
        style_loss: see `Settings`.
        painting_size: the longer side that the painting is resized to first: the smaller, the
            more of it a texture shows. None for 512, or its own where it is smaller.
        tileable: repeats without a seam.
        tv: weight of the total variation.
        levels: see `Settings`.
    """

    size: tuple[int, int] = (256, 256)
    layers: Mapping[str, float] | Sequence[str] = field(default_factory=lambda: up_to("relu5_1"))
    style_loss: StyleName = "gram"
    painting_size: int | None = None
    tileable: bool = False
    tv: float = 0.0
    levels: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.size, Sequence) or len(self.size) != 2:
            raise ImpastoError(f"size is {self.size!r}; give width and height, such as (512, 256)")
        for side, length in zip(("width", "height"), self.size, strict=True):
            check_count(side, length, 1, 65535)
        _check_choice("style_loss", self.style_loss, get_args(StyleName))
        if self.painting_size is not None:
            check_count("painting_size", self.painting_size, 1, 65535)
        _check_number("tv", self.tv, 0)
        if self.levels is not None:
            check_count("levels", self.levels, 1, 16)
        _check_shares(shares_of(self.layers))


@dataclass(frozen=True, kw_only=True)
class AtlasSettings(RunSettings):
    """How to make the pictures of an atlas.

    Args (beside those of `RunSettings`, which hold for each picture):
        size: the longer side of each picture in pixels.
    """

    size: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("size", self.size, 1, 65535)


def plain(value: Any) -> Any:
    """A value without what NumPy and torch wrap around numbers; any mapping as a dict."""
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    # Numbers, arrays and tensors of NumPy and torch, neither of which is known here.
    return value.tolist() if hasattr(value, "shape") and hasattr(value, "tolist") else value


def shares_of(layers: Mapping[str, float] | Sequence[str]) -> dict[str, float]:
    """Each layer's share, as given; plain names count 1.

    Raises:
        ImpastoError: it is neither a name, nor a sequence or mapping of them.
    """
    if isinstance(layers, Mapping):
        return dict(layers)
    if isinstance(layers, str):
        return {layers: 1.0}
    if not isinstance(layers, Sequence):
        raise ImpastoError(f"{layers!r} is no list of layers; give names, as in ['relu3_1']")
    pairs = [layer if isinstance(layer, tuple | list) else (layer, 1.0) for layer in layers]
    if not all(len(pair) == 2 for pair in pairs):
        raise ImpastoError("a layer has one share; give names, or names and shares")
    return dict(pairs)


def up_to(layer: str) -> list[str]:
    """The first layer of every block, up to this one: `relu1_1`, `relu2_1`, ...

    Raises:
        ImpastoError: it is none of these.
    """
    _check_choice("layer to go up to", layer, BLOCKS)
    return list(BLOCKS[: BLOCKS.index(layer) + 1])


def block_of(layer: str) -> str:
    """The number of a layer's block, "1" to "5"; the image itself counts as the first."""
    return next(filter(str.isdigit, layer), "1")


PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Gatys, Ecker & Bethge 2015 (arXiv:1508.06576), eqs. 1 to 7: alpha / beta = 1e-3, every
        # style layer 1/5, from white noise.
        "gatys": {
            "scaling": "gatys",
            "levels": 1,
            "tv": 0.0,
            "margin": False,
            "detail": 1.0,
            "style_layers": BLOCKS,
            "content_weight": 1.0,
            "style_weight": 1000.0,
            "init": "noise",
            "steps": 500,
        },
        # The form widely taught: plain means, five style layers summed, content divided by 10,
        # 10 rounds of 20 evaluations, each of which starts the optimiser anew.
        "lecture": {
            "scaling": "lecture",
            "levels": 1,
            "tv": 0.0,
            "margin": False,
            "detail": 1.0,
            "style_layers": ("relu1_2", "relu2_2", "relu3_2", "relu4_2", "relu5_2"),
            "content_weight": 0.1,
            "style_weight": 5.0,
            "init": "noise",
            "steps": 200,
            "evaluations": 200,
            "restart": 20,
        },
    }
)
"""Published settings by name; what they do not say is impasto's default."""


def make_settings(preset: str | None = None, **choices: Any) -> Settings:
    """The settings of a preset (none for impasto's own) with some of them chosen otherwise.

    Raises:
        ImpastoError: an unknown preset or setting, or a value out of its range.
    """
    if preset is not None:
        _check_choice("preset", preset, PRESETS)
    return choose(Settings, {**(PRESETS[preset] if preset else {}), **choices})


def choose(kind: type[_Kind], choices: Mapping[str, Any]) -> _Kind:
    """Settings of some kind with these choices; raises what `make_settings` does."""
    known = [setting.name for setting in fields(kind)]
    for name in choices:
        _check_choice("setting", name, known)
    return kind(**choices)


def parse_memory(memory: int | str) -> int:
    """An amount of memory in bytes: a number of them, or text like `2G`, `1.5 GiB` or `800M`.

    Raises:
        ImpastoError: it is neither.
    """
    number = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", str(memory), re.IGNORECASE)
    if number is None or isinstance(memory, bool):
        raise ImpastoError(f"memory is {memory!r}; give an amount such as 2G or 800M")
    unit = 1024 ** "_kmgt".index(number[2].lower() or "_")
    return int(float(number[1]) * unit)


def amount(memory: float) -> str:
    """An amount of memory in bytes as `parse_memory` reads it."""
    return f"{memory / 2**20:.0f}M" if memory < 10 * 2**30 else f"{memory / 2**30:.1f}G"


def _check_shares(shares: Mapping[str, float]) -> None:
    for layer, share in shares.items():
        if not isinstance(layer, str):
            raise ImpastoError(f"{layer!r} is no layer; give its name, such as 'relu3_1'")
        _check_number(f"the share of layer {layer}", share, 0)
    if not sum(shares.values()):
        raise ImpastoError("no layer has a share above 0; name at least one")


def _check_choice(name: str, value: object, known: Iterable[str]) -> None:
    known = list(known)
    if value not in known:
        raise ImpastoError(
            f"there is no {name} {str(value)!r}; did you mean {nearest(str(value), known)!r}? "
            f"(there are: {', '.join(known)})"
        )


def check_count(
    name: str, value: object, least: int, most: float = math.inf, alternative: str = ""
) -> None:
    """Raise an `ImpastoError` unless a value is a whole number in range."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        allowed = f"from {least} to {most}" if most < math.inf else f"of at least {least}"
        raise ImpastoError(f"{name} is {value!r}; give a whole number {allowed}{alternative}")


def _check_number(name: str, value: object, least: float, most: float = math.inf) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not least <= value <= most:  # type: ignore[operator,arg-type]
        allowed = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
        raise ImpastoError(f"{name} is {value}; give a number {allowed}")
