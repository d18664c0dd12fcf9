"""How to paint: every choice a user has, its default, its range, and the published presets."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args

from impasto.errors import ImpastoError

Scaling = Literal["relative", "gatys", "lecture"]
Pooling = Literal["avg", "max"]

FULL = "full"
STARTS = ("photo", "noise", "painting")
OPTIMIZERS = ("lbfgs", "cg", "adam")
DEVICES = ("auto", "cpu", "cuda", "mps")

# Early layers (colours, fine strokes) cost the content little and are slowest to converge.
_DEFAULT_STYLE = MappingProxyType(
    {"relu1_1": 0.3, "relu2_1": 0.25, "relu3_1": 0.2, "relu4_1": 0.15, "relu5_1": 0.1}
)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to paint; the defaults are impasto's own balance (docs/quality.md).

    Args:
        size: the longer side of the result in pixels, or `"full"` for the photo's own.
        strength: 0 gives the photo back, 1 is style alone, 1/2 the balance of the two weights:
            content is weighted with 2 (1 - strength) content_weight, style with
            2 strength style_weight.
        steps: how many steps the optimiser makes at most, on all levels together.
        levels: how many sizes to paint at, from coarse to fine, each half the next; 1 paints at
            the final size alone, none for as many as the size calls for.
        optimizer: `"lbfgs"`, `"cg"` or `"adam"`.
        init: where to start: `"photo"`, `"noise"`, `"painting"`, or the path of a picture.
        content_layer: the layer whose activations are the content.
        style_layers: the layers whose Gram matrices are the style, each with its share of
            `style_weight`; plain names share it equally.
        pooling: `"avg"` or `"max"`, see `Vgg`.
        tv: weight of the total variation; takes away the speckle that style adds. Like the
            style weight it is the one at strength 1/2 and grows with the strength.
        border: weight of the smoothness across the outermost pixels, see `BorderLoss`; likewise.
        style_scale: size of the painting relative to the result; larger gives larger strokes.
        keep_colors: transfer luminance only and keep the photo's colours.
        seed: of the noise.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"mps"`.
        weights: a file with other VGG weights, see `load_encoder`.
        scaling: of the losses, see `ContentLoss` and `StyleLoss`.
        content_weight: of the content loss at strength 1/2.
        style_weight: of all style layers together at strength 1/2; with relative scaling it is
            divided by the photo's own style loss, so that it means the same for every pair.
        evaluations: how many values and gradients to spend at most; none for no limit.
        restart: start the optimiser anew after so many evaluations; none for never.
        memory: how much memory painting may take, in bytes or as text like `"2G"` or `"800M"`;
            none for three quarters of what is free. Larger pictures are painted in tiles.

    Raises:
        ImpastoError: a value is out of its range; the text names it and the range.
    """

    size: int | str = 512
    strength: float = 0.5
    steps: int = 150
    levels: int | None = None
    optimizer: str = "lbfgs"
    init: str | Path = "photo"
    content_layer: str = "relu4_2"
    style_layers: Mapping[str, float] | Sequence[str] = field(
        default_factory=lambda: dict(_DEFAULT_STYLE)
    )
    pooling: Pooling = "avg"
    tv: float = 5.0
    border: float = 20.0
    style_scale: float = 1.0
    keep_colors: bool = False
    seed: int = 0
    device: str = "auto"
    weights: str | Path | None = None
    scaling: Scaling = "relative"
    content_weight: float = 1.0
    style_weight: float = 14.2
    evaluations: int | None = None
    restart: int | None = None
    memory: int | str | None = None

    def __post_init__(self) -> None:
        if self.size != FULL:
            _check_count("size", self.size, 1, 65535, " or 'full'")
        _check_number("strength", self.strength, 0, 1)
        _check_count("steps", self.steps, 0)
        _check_choice("optimizer", self.optimizer, OPTIMIZERS)
        _check_choice("pooling", self.pooling, get_args(Pooling))
        _check_number("tv", self.tv, 0)
        _check_number("border", self.border, 0)
        _check_number("style_scale", self.style_scale, 0.01, 100)
        _check_count("seed", self.seed, 0, 2**63 - 1)
        _check_choice("scaling", self.scaling, get_args(Scaling))
        _check_number("content_weight", self.content_weight, 0)
        _check_number("style_weight", self.style_weight, 0)
        if self.evaluations is not None:
            _check_count("evaluations", self.evaluations, 1)
        if self.restart is not None:
            _check_count("restart", self.restart, 2)
        if self.levels is not None:
            _check_count("levels", self.levels, 1, 16)
        if self.memory is not None:
            parse_memory(self.memory)
        for layer, share in self.style_shares.items():
            _check_number(f"the share of style layer {layer}", share, 0)
        if not sum(self.style_shares.values()):
            raise ImpastoError("style_layers has no layer with a share above 0; name at least one")

    @property
    def style_shares(self) -> dict[str, float]:
        """Each style layer's share of the style weight, as given."""
        if isinstance(self.style_layers, Mapping):
            return dict(self.style_layers)
        names = self.style_layers
        return dict.fromkeys([names] if isinstance(names, str) else names, 1.0)


PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Gatys, Ecker & Bethge 2015 (arXiv:1508.06576), eqs. 1 to 7: alpha / beta = 1e-3, every
        # style layer 1/5, from white noise.
        "gatys": {
            "scaling": "gatys",
            "levels": 1,
            "tv": 0.0,
            "border": 0.0,
            "style_layers": tuple(_DEFAULT_STYLE),
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
            "border": 0.0,
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
    known = [setting.name for setting in fields(Settings)]
    for name in choices:
        _check_choice("setting", name, known)
    return Settings(**{**(PRESETS[preset] if preset else {}), **choices})


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


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that looks most like `name`."""
    return difflib.get_close_matches(name, list(known), n=1, cutoff=0)[0]


def _check_choice(name: str, value: object, known: Iterable[str]) -> None:
    known = list(known)
    if value not in known:
        raise ImpastoError(
            f"there is no {name} {str(value)!r}; did you mean {nearest(str(value), known)!r}? "
            f"(there are: {', '.join(known)})"
        )


def _check_count(
    name: str, value: object, least: int, most: float = math.inf, alternative: str = ""
) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        allowed = f"from {least} to {most}" if most < math.inf else f"of at least {least}"
        raise ImpastoError(f"{name} is {value!r}; give a whole number {allowed}{alternative}")


def _check_number(name: str, value: object, least: float, most: float = math.inf) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not math.isfinite(value) or not least <= value <= most:  # type: ignore[operator,arg-type]
        allowed = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
        raise ImpastoError(f"{name} is {value}; give a number {allowed}")
