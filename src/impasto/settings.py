"""How to paint: every choice a user has, its default, its range, and the published presets.

Each is written once, here: a field with its range in its annotation, and what it means in the
docstring. The command line is read off both.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Interval

from impasto import catalog
from impasto.errors import ImpastoError, nearest

Scaling = Literal["relative", "gatys", "lecture"]
Pooling = Literal["avg", "max"]
Device = Literal["auto", "cpu", "cuda", "mps"]
KeptColors = Literal["luminance", "histogram"]
Full = Literal["full"]

FULL: Full = "full"
STARTS = ("photo", "noise", "painting")

CHECKPOINT_EVERY = 30.0
"""Seconds from one checkpoint to the next."""

PAINTING_SIZE = 512
"""The longer side of a painting that a texture is grown from, unless it is smaller."""

_Kind = TypeVar("_Kind", bound="RunSettings")


@dataclass(frozen=True)
class Among:
    """A name has to be one of these."""

    names: Mapping[str, object]


@dataclass(frozen=True)
class Parsed:
    """What a value has to get through: a function that raises an `ImpastoError`."""

    parse: Callable[[Any], object]


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


def shares_of(layers: Mapping[str, float] | Sequence[str]) -> dict[str, float]:
    """Each layer's share, as given; plain names count 1.

    Raises:
        ImpastoError: it is no list of layers, or none of them has a share above 0.
    """
    if isinstance(layers, str):
        layers = [layers]
    if isinstance(layers, Mapping):
        layers = list(layers.items())  # type: ignore[arg-type]
    if not isinstance(layers, Sequence):
        raise ImpastoError(f"{layers!r} is no list of layers; give the names of some")
    pairs = [layer if isinstance(layer, tuple | list) else (layer, 1.0) for layer in layers]
    if not all(len(pair) == 2 for pair in pairs):
        raise ImpastoError("a layer has one share; give names, or names and shares")
    for layer, share in pairs:
        if not isinstance(layer, str):
            raise ImpastoError(f"{layer!r} is no layer; give its name")
        _check(f"the share of layer {layer}", share, Weight)
    shares = dict(pairs)
    if not sum(shares.values()):
        raise ImpastoError("no layer has a share above 0; name at least one")
    return shares


def _check_sides(size: object) -> None:
    if not isinstance(size, Sequence) or isinstance(size, str) or len(size) != 2:
        raise ImpastoError(f"size is {size!r}; give width and height, such as (512, 256)")
    for side, length in zip(("width", "height"), size, strict=True):
        _check(side, length, Pixels)


Weight = Annotated[float, Ge(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
Pixels = Annotated[int, Interval(ge=1, le=65535)]
Levels = Annotated[int, Interval(ge=1, le=16)]
Layers = Annotated[Mapping[str, float] | Sequence[str], Parsed(shares_of)]
StyleName = Annotated[str, Among(catalog.STYLES)]


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What can be chosen of every run, whatever is made in it.

    Args:
        steps: how many steps the optimiser makes at most, on all levels together.
        evaluations: how many values and gradients of the loss to spend at most; none for no limit.
        optimizer: what moves the picture.
        history: how many pairs of past steps L-BFGS remembers, where there is memory for them.
        pooling: average pooling spreads the gradient evenly; max is how the network was trained.
        seed: of the noise, and of whatever else is drawn.
        device: where to compute; auto takes the first of CUDA, MPS and the CPU that is there.
        weights: a .safetensors or .pth file with other weights of the encoder: a state dict of
            torchvision's vgg16 or vgg19.
        memory: how much memory the process may take over the whole run, in bytes or as text
            like 2G or 800M, libraries included (they take 0.8G by themselves). None for three
            quarters of what is free. Larger pictures are painted in tiles; where the smallest do
            not do, a notice says so.

    Raises:
        ImpastoError: a value is out of its range; the text names it and the range.
    """

    steps: Annotated[int, Ge(0)] = 150
    evaluations: Annotated[int, Ge(1)] | None = None
    optimizer: Annotated[str, Among(catalog.OPTIMIZERS)] = "lbfgs"
    history: Annotated[int, Ge(2)] = 20
    pooling: Pooling = "avg"
    seed: Annotated[int, Interval(ge=0, le=2**63 - 1)] = 0
    device: Device = "auto"
    weights: str | Path | None = None
    memory: Annotated[int | str, Parsed(parse_memory)] | None = None

    def __post_init__(self) -> None:
        for name, annotation in hints(type(self)).items():  # type: ignore[arg-type]
            value = plain(getattr(self, name))
            object.__setattr__(self, name, value)
            _check(name, value, annotation)


@dataclass(frozen=True, kw_only=True)
class Settings(RunSettings):
    """How to paint; the defaults are impasto's own balance (docs/quality.md).

    Args (beside those of `RunSettings`):
        size: the longer side of the result in pixels, or full for the photo's own.
        strength: 0 gives the photo back, 1 is style alone, 1/2 the balance of the two weights:
            content is weighted with 2 (1 - strength) content_weight, style with
            2 strength style_weight.
        detail: how much of the photo's fine detail each level begins with, squared: 0 for none, so
            that what is fine in the result was painted, 1 for all of it, which shows through.
            Below a strength of 1/4 more and more of it comes back; at 0 it is all there.
        levels: how many sizes to paint at, from coarse to fine, each half the next; 1 paints at
            the final size alone, none for as many as the size calls for.
        init: where to start: photo, noise, painting, or the path of a picture; the
            first two as smooth as `detail` has it, in the painting's colours.
        content_layer: the layer whose activations are the content; none for the encoder's own
            choice.
        style_layers: the layers whose style is compared, each with its share of
            `style_weight`; plain names share it equally. Also a name for several that the encoder
            knows, such as first (the first of every block); none for its own choice.
        style_loss: what style is and how two are compared.
        tv: weight of the total variation; takes away the speckle that style adds, and where it is
            large leaves a weave along rows and columns. Like the style weight it is the one at
            strength 1/2 and grows with the strength.
        margin: whether a margin is painted around the picture, and cut off at the end. To the
            encoder its zero padding is a sharp edge, which style answers with a frame.
        style_scale: size of the painting relative to the result; larger gives larger strokes.
        keep_colors: how to keep the photo's colours: luminance (or true) transfers the light
            alone, histogram recolours the painting to the photo's mean and covariance first;
            none takes the painting's.
        scaling: of the losses, see `ContentLoss` and `StyleLoss`.
        content_weight: of the content loss at strength 1/2.
        style_weight: of all style layers together at strength 1/2; with relative scaling it is
            divided by the photo's own style loss, so that it means the same for every pair. None
            for the one that suits the style loss.
        restart: start the optimiser anew after so many evaluations; none for never.
    """

    size: Pixels | Full = 512
    strength: Share = 0.5
    detail: Share = 0.0
    levels: Levels | None = None
    init: str | Path = "photo"
    content_layer: str | None = None
    style_layers: Layers | None = None
    style_loss: StyleName = "gram"
    tv: Weight = 2.0
    margin: bool = True
    style_scale: Annotated[float, Interval(ge=0.01, le=100)] = 1.0
    keep_colors: bool | KeptColors | None = None
    scaling: Scaling = "relative"
    content_weight: Weight = 1.0
    style_weight: Weight | None = None
    restart: Annotated[int, Ge(2)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scaling != "relative" and self.style_loss != "gram":
            raise ImpastoError(
                f"the scaling {self.scaling!r} is one of Gram matrices; leave it (and its preset) "
                f"out with the style loss {self.style_loss!r}"
            )

    @property
    def kept_detail(self) -> float:
        """What the photo's detail is multiplied by where painting begins, 0..1.

        Squared, so that it comes back evenly: even a tenth of its contrast is visible.
        """
        return max(self.detail, 1 - 4 * self.strength) ** 2

    @property
    def kept_colours(self) -> KeptColors | None:
        """How the photo's colours are kept, if they are."""
        if isinstance(self.keep_colors, bool):
            return "luminance" if self.keep_colors else None
        return self.keep_colors

    @property
    def total_style_weight(self) -> float:
        """The style weight, as chosen or as it suits the style loss."""
        suiting = catalog.STYLES[self.style_loss].weight
        return suiting if self.style_weight is None else self.style_weight


@dataclass(frozen=True, kw_only=True)
class CompareSettings(Settings):
    """How to paint each picture of a comparison: as `Settings`, smaller."""

    size: Pixels | Full = 256


@dataclass(frozen=True, kw_only=True)
class ReconstructSettings(RunSettings):
    """How to reconstruct a photo from what layers keep of it.

    Args (beside those of `RunSettings`):
        layers: the layers whose activations are matched, each with its share of the loss; plain
            names share it equally. None for the encoder's content layer.
        size: the longer side of the result in pixels, or full for the photo's own.
        tv: weight of the total variation, the prior that keeps high-frequency noise down; none
            for as much as the deepest layer calls for.
    """

    history: Annotated[int, Ge(2)] = 50  # a layer's own pixels are a matter of convergence
    layers: Layers | None = None
    size: Pixels | Full = 256
    tv: Weight | None = None


@dataclass(frozen=True, kw_only=True)
class TextureSettings(RunSettings):
    """How to grow a texture.

    Args (beside those of `RunSettings`):
        size: width and height in pixels.
        layers: the layers whose style is matched, each with its share; plain names share equally.
            None for the first of every block.
        style_loss: what style is and how two are compared.
        painting_size: the longer side that the painting is resized to first: the smaller, the
            more of it a texture shows. None for 512, or its own where it is smaller.
        tileable: repeats without a seam.
        tv: weight of the total variation.
        levels: how many sizes to grow it at, each half the next; none for as many as the size
            calls for.
    """

    size: Annotated[tuple[int, int], Parsed(_check_sides)] = (256, 256)
    layers: Layers | None = None
    style_loss: StyleName = "gram"
    painting_size: Pixels | None = None
    tileable: bool = False
    tv: Weight = 0.0
    levels: Levels | None = None


@dataclass(frozen=True, kw_only=True)
class AtlasSettings(RunSettings):
    """How to make the pictures of an atlas.

    Args (beside those of `RunSettings`, which hold for each picture):
        size: the longer side of each picture in pixels.
    """

    size: Pixels = 256


# As both have it: from white noise, at the final size alone, with no prior on the picture.
_PLAIN = {"levels": 1, "tv": 0.0, "margin": False, "detail": 1.0, "init": "noise"}

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        # Gatys, Ecker & Bethge 2015 (arXiv:1508.06576), eqs. 1 to 7: alpha / beta = 1e-3, every
        # style layer 1/5.
        "gatys": {
            **_PLAIN,
            "scaling": "gatys",
            "style_layers": "first",
            "content_weight": 1.0,
            "style_weight": 1000.0,
            "steps": 500,
        },
        # The form widely taught: plain means, five style layers summed, content divided by 10,
        # 10 rounds of 20 evaluations, each of which starts the optimiser anew.
        "lecture": {
            **_PLAIN,
            "scaling": "lecture",
            "style_layers": "second",
            "content_weight": 0.1,
            "style_weight": 5.0,
            "steps": 200,
            "evaluations": 200,
            "restart": 20,
        },
    }
)
"""Published settings by name; what they do not say is impasto's default."""


def choose(
    kind: type[_Kind],
    settings: RunSettings | None = None,
    choices: Mapping[str, Any] = MappingProxyType({}),
    preset: str | None = None,
) -> _Kind:
    """Settings of some kind: those given or a preset's, with some of them chosen otherwise.

    Raises:
        ImpastoError: an unknown preset or setting, settings of another kind, both settings and a
            preset, or a value out of its range.
    """
    if settings is not None and (preset is not None or not isinstance(settings, kind)):
        reason = "a preset as well" if preset is not None else f"{type(settings).__name__}"
        raise ImpastoError(f"settings were given, and {reason}; give {kind.__name__} or neither")
    if preset is not None:
        _check("preset", preset, Annotated[str, Among(PRESETS)])
    known = Annotated[str, Among(hints(kind))]
    for name in choices:
        _check("setting", name, known)
    chosen = {**(PRESETS[preset] if preset else {}), **choices}
    return kind(**chosen) if settings is None else dataclasses.replace(settings, **chosen)


@functools.cache
def hints(kind: type[RunSettings]) -> dict[str, Any]:
    """The settings of a kind, each with its annotation."""
    found = get_type_hints(kind, include_extras=True)
    return {setting.name: found[setting.name] for setting in fields(kind)}


def plain(value: Any) -> Any:
    """A value without what NumPy and torch wrap around numbers; any mapping as a dict."""
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    # Numbers, arrays and tensors of NumPy and torch, neither of which is known here.
    return value.tolist() if hasattr(value, "shape") and hasattr(value, "tolist") else value


def options(annotation: Any) -> list[Any]:
    """What a setting may be: the members of a union, or the one thing there is."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return list(get_args(annotation)) if is_union else [annotation]


def words_of(annotation: Any) -> dict[str, Any]:
    """The names that a setting may be, and what there is to know of each."""
    words: dict[str, Any] = {}
    for member in options(annotation):
        if get_origin(member) is Literal:
            words |= dict.fromkeys(get_args(member))
        for extra in getattr(member, "__metadata__", ()):
            words |= extra.names if isinstance(extra, Among) else {}
    return words


def check_count(name: str, value: object, least: int) -> None:
    """Raise an `ImpastoError` unless a value is a whole number of at least so much."""
    _check(name, value, Annotated[int, Ge(least)])


def _check(name: str, value: object, annotation: Any) -> None:
    """Raise an `ImpastoError` unless a value is as an annotation has it."""
    members, words = options(annotation), words_of(annotation)
    if value is None and type(None) in members:
        return
    if isinstance(value, str) and value in words:
        return
    for member in members:
        base, *extras = get_args(member) if get_origin(member) is Annotated else (member,)
        for extra in extras:
            if isinstance(extra, Parsed):
                extra.parse(value)
        if base in (int, float):
            _check_number(name, value, base, extras, words)
            return
    if isinstance(value, bool) and bool in members:
        return
    if bool in members and (not words or not isinstance(value, str)):
        raise ImpastoError(f"{name} is {value!r}; give True or False")
    if words:
        raise ImpastoError(
            f"there is no {name} {str(value)!r}; did you mean {nearest(str(value), words)!r}? "
            f"(there are: {', '.join(words)})"
        )


def _check_number(
    name: str, value: object, kind: type, bounds: Sequence[Any], words: Iterable[str]
) -> None:
    least = next((bound.ge for bound in bounds if hasattr(bound, "ge")), -math.inf)
    most = next((bound.le for bound in bounds if getattr(bound, "le", None) is not None), math.inf)
    fits = isinstance(value, (int, kind)) and not isinstance(value, bool)
    if not fits or not least <= value <= most or value == math.inf:  # type: ignore[operator]
        what, shown = ("a whole number", repr(value)) if kind is int else ("a number", str(value))
        allowed = f"of at least {least}" if most == math.inf else f"from {least} to {most}"
        alternative = "".join(f" or {word!r}" for word in words)
        raise ImpastoError(f"{name} is {shown}; give {what} {allowed}{alternative}")
