"""Every choice that a user has: its default, range and meaning, and the published presets.

A setting is written once, here: its range is in the annotation of its field, its meaning in the
docstring of its class. The command line is built from both.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
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
"""Seconds between two checkpoints."""

PAINTING_SIZE = 512
"""The longer side of the painting that a texture is grown from; smaller ones keep their size."""

_Kind = TypeVar("_Kind", bound="AnySettings")


@dataclass(frozen=True, eq=False)  # so that it can be in a union, which asks for hashes
class Among:
    """The value has to be one of these names."""

    names: Mapping[str, object]


@dataclass(frozen=True)
class Parsed:
    """The value has to be one for which `parse` raises no `ImpastoError`."""

    parse: Callable[[Any], object]


def parse_memory(memory: int | str) -> int:
    """The bytes of an amount of memory: a number, or text like `2G`, `1.5 GiB` or `800M`.

    Raises:
        ImpastoError: `memory` is neither.
    """
    number = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", str(memory), re.IGNORECASE)
    if number is None or isinstance(memory, bool):
        raise ImpastoError(f"memory is {memory!r}; give an amount such as 2G or 800M")
    unit = 1024 ** "_kmgt".index(number[2].lower() or "_")
    return int(float(number[1]) * unit)


def amount(memory: float) -> str:
    """A number of bytes as short text, which `parse_memory` reads."""
    return f"{memory / 2**20:.0f}M" if memory < 10 * 2**30 else f"{memory / 2**30:.1f}G"


def shares_of(layers: Mapping[str, float] | Sequence[str]) -> dict[str, float]:
    """The share of each layer; a layer without one counts 1.

    Raises:
        ImpastoError: this is no list of layers, a share is no number of at least 0, or all are 0.
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
AdversaryName = Annotated[str, Among(catalog.ADVERSARIES)]


@dataclass(frozen=True, kw_only=True)
class AnySettings:
    """Settings that are checked against their annotations.

    Raises:
        ImpastoError: a value is out of its range; the text names it and the range.
    """

    def __post_init__(self) -> None:
        for name, annotation in hints(type(self)).items():  # type: ignore[arg-type]
            value = plain(getattr(self, name))
            object.__setattr__(self, name, value)
            _check(name, value, annotation)


@dataclass(frozen=True, kw_only=True)
class ApplySettings(AnySettings):
    """How to apply a network.

    Args:
        size: the longer side of the result in pixels; full for the photo's own size. Strokes have
            the size that they were trained with, so they are finer in larger pictures.
        strength: 0 gives the photo back, 1 is all painted.
        keep_colors: how to keep the photo's colours: luminance (or true) paints light and dark
            only, histogram gives the picture the mean and covariance of the photo's colours. None
            takes the painting's colours.
        device: where to compute; auto takes CUDA if ONNX Runtime has it, and else the CPU.
        memory: the most memory that the process may use, in bytes or as text like 2G or 800M.
            Larger pictures are painted in tiles, with the same result.
    """

    size: Pixels | Full = 512
    strength: Share = 1.0
    keep_colors: bool | KeptColors | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory: Annotated[int | str, Parsed(parse_memory)] = "2G"

    @property
    def kept_colours(self) -> KeptColors | None:
        """How the photo's colours are kept; None if they are not."""
        return _kept(self.keep_colors)


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(AnySettings):
    """Settings of all work that an encoder takes part in.

    Args:
        pooling: avg spreads the gradient evenly; max is what VGG and ResNets were trained with.
            None for the encoder's own choice: avg for VGG, max for ResNets.
        encoder: the network that looks at the pictures; none for the one that the weights are of,
            or vgg16.
        seed: seed of the noise and of all other random numbers.
        device: where to compute; auto takes the first of CUDA, MPS and CPU that this machine has.
        weights: a .safetensors or .pth file with weights for the encoder: the state dict of
            torchvision's model of that name. None for the weights in the package, which has some
            for vgg16 and efficientnet-lite0.
        smoothing: compare the softmax over channels instead of the activations themselves; the
            number is its temperature, in units of each layer's spread. None compares activations.
        shifts: 2 lets the encoder look at each picture four times, moved by 0 or 1 pixel to the
            right and down. It takes away the dots of encoders that begin with a stride of 2. None
            for the encoder's own choice: 1 for VGG, else 2.
    """

    pooling: Pooling | None = None
    encoder: Annotated[str, Among(catalog.ENCODERS)] | None = None
    seed: Annotated[int, Interval(ge=0, le=2**63 - 1)] = 0
    device: Device = "auto"
    weights: str | Path | None = None
    smoothing: Annotated[float, Interval(ge=0.01, le=100)] | None = None
    shifts: Annotated[int, Interval(ge=1, le=2)] | None = None


@dataclass(frozen=True, kw_only=True)
class RunSettings(EncoderSettings):
    """The settings of every run that optimises a picture, whatever it makes.

    Args (beside those of `EncoderSettings`):
        steps: the most steps that the optimiser makes, on all levels together.
        evaluations: the most evaluations of the loss and its gradient; none for no limit.
        optimizer: the algorithm that changes the picture.
        history: how many pairs of past steps L-BFGS remembers; fewer if memory is short.
        memory: the most memory that the process may use, in bytes or as text like 2G or 800M. The
            libraries and the network count, too (0.8G). None for three quarters of the free
            memory. Larger pictures are painted in tiles; a notice says if even the smallest tiles
            need more.
    """

    steps: Annotated[int, Ge(0)] = 150
    evaluations: Annotated[int, Ge(1)] | None = None
    optimizer: Annotated[str, Among(catalog.OPTIMIZERS)] = "lbfgs"
    history: Annotated[int, Ge(2)] = 20
    memory: Annotated[int | str, Parsed(parse_memory)] | None = None


@dataclass(frozen=True, kw_only=True)
class Settings(RunSettings):
    """How to paint; the defaults are impasto's own balance (docs/quality.md).

    Args (beside those of `RunSettings`):
        size: the longer side of the result in pixels; full for the photo's own size.
        strength: 0 gives the photo back. By neighbors, this share (times 0.9) of the last level's
            steps paints strokes without looking at the photo; below 1/4, all fades into the photo.
            With other style losses, 1 paints style alone: content is weighted with 2 (1 - strength)
            times `content_weight`, style with 2 strength times `style_weight`.
        detail: how much of the photo's fine detail each level begins with. At 0 all fine detail is
            painted; at 1 the photo's own shows through. Its contrast is multiplied by the square
            of this number. Below a strength of 1/4, the number is at least 1 - 4 strength.
        levels: how many sizes to paint at, each half as large as the next; 1 for the final size
            only, none to choose by the size.
        init: what to start from: photo, noise, painting, or the path of a picture. Photo and noise
            are blurred, less with more `detail`, and given the painting's colours unless
            `keep_colors` is set.
        content_layer: the layer whose activations are compared with the photo's; none for the
            encoder's own choice. Not by neighbors.
        style_layers: the layers whose style is compared, with their shares of `style_weight` (equal
            if not given); or the name of a set of layers, such as first (the first of every
            block). up-to:LAYER stands for the encoder's style layers up to LAYER. None for all
            of them, with the encoder's own shares; by neighbors, those with a stride of up to 8
            pixels, with equal shares.
        style_loss: what is compared as style: neighbors gives every place of the photo the look of
            a similar place of the painting, the others compare statistics of the whole.
        tv: weight of the total variation at strength 1/2; it grows with the strength. It removes
            the speckle that style adds; a large weight leaves a weave along rows and columns.
        margin: paint a margin around the picture and cut it off at the end. Without it a frame
            appears, because the encoder sees its zero padding as a sharp edge.
        style_scale: size of the painting relative to the result; larger gives larger strokes.
        keep_colors: how to keep the photo's colours: luminance (or true) paints light and dark
            only, histogram first gives the painting the mean and covariance of the photo's
            colours. None takes the painting's colours.
        scaling: how losses are scaled: relative to their target, or as gatys or lecture define
            them; see `ContentLoss` and `StyleLoss`.
        content_weight: weight of the content loss at strength 1/2. Not by neighbors.
        style_weight: weight of all style layers together at strength 1/2; none for the one that
            suits the style loss. With relative scaling it is divided by the photo's own style
            loss (not by neighbors), so that it means the same for every photo and painting.
        restart: start the optimiser anew after this many evaluations; none for never.
    """

    size: Pixels | Full = 512
    strength: Share = 0.5
    detail: Share = 0.0
    levels: Levels | None = None
    init: str | Path = "photo"
    content_layer: str | None = None
    style_layers: Layers | None = None
    style_loss: StyleName = "neighbors"
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
                f"the scaling {self.scaling!r} is for Gram matrices only; leave it (and its "
                f"preset) out with the style loss {self.style_loss!r}, or choose 'gram'"
            )
        needs_photo = catalog.STYLES[self.style_loss].needs_photo
        if needs_photo and (self.content_layer or self.content_weight != 1):
            raise ImpastoError(
                f"the style loss {self.style_loss!r} has no content loss; leave content_layer and "
                "content_weight out, or choose the style loss 'gram'"
            )

    @property
    def kept_detail(self) -> float:
        """What the photo's detail is multiplied by at the start of each level, 0..1.

        Squared, so that detail comes back evenly: even a tenth of its contrast is visible.
        """
        return max(self.detail, 1 - 4 * self.strength) ** 2

    @property
    def kept_colours(self) -> KeptColors | None:
        """How the photo's colours are kept; None if they are not."""
        return _kept(self.keep_colors)

    @property
    def total_style_weight(self) -> float:
        """The style weight that was chosen, or the one that suits the style loss."""
        suiting = catalog.STYLES[self.style_loss].weight
        return suiting if self.style_weight is None else self.style_weight


@dataclass(frozen=True, kw_only=True)
class CompareSettings(Settings):
    """How to paint each picture of a comparison: `Settings` with a smaller default size."""

    size: Pixels | Full = 256


@dataclass(frozen=True, kw_only=True)
class ReconstructSettings(RunSettings):
    """How to reconstruct a photo from the activations of some layers.

    Args (beside those of `RunSettings`):
        layers: the layers whose activations are matched, with their shares of the loss (equal if
            not given). None for the encoder's content layer.
        size: the longer side of the result in pixels; full for the photo's own size.
        tv: weight of the total variation, a prior against noise; none to choose by the layers.
    """

    history: Annotated[int, Ge(2)] = 50  # from noise, fine detail converges slowly
    shifts: Annotated[int, Interval(ge=1, le=2)] | None = (
        1  # more looks see more than a layer keeps
    )
    layers: Layers | None = None
    size: Pixels | Full = 256
    tv: Weight | None = None


@dataclass(frozen=True, kw_only=True)
class TextureSettings(RunSettings):
    """How to grow a texture.

    Args (beside those of `RunSettings`):
        size: width and height in pixels.
        layers: the layers whose style is matched, with their shares (equal if not given);
            up-to:LAYER stands for the encoder's style layers up to LAYER. None for all of them.
        style_loss: what is compared as style.
        painting_size: the longer side that the painting is resized to first; the smaller it is,
            the more of the painting a texture shows. None for 512, or for its own if smaller.
        tileable: make a texture that repeats without a seam.
        tv: weight of the total variation; larger is smoother.
        levels: how many sizes to grow it at, each half the next; none to choose by the size.
    """

    size: Annotated[tuple[int, int], Parsed(_check_sides)] = (256, 256)
    layers: Layers | None = None
    style_loss: StyleName = "gram"
    painting_size: Pixels | None = None
    tileable: bool = False
    tv: Weight = 0.0
    levels: Levels | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_needs_no_photo(self.style_loss)


@dataclass(frozen=True, kw_only=True)
class AtlasSettings(RunSettings):
    """How to make the pictures of an atlas.

    Args (beside those of `RunSettings`, which hold for each picture):
        size: the longer side of each picture in pixels.
    """

    size: Pixels = 256


@dataclass(frozen=True, kw_only=True)
class TrainSettings(EncoderSettings):
    """How to train a network.

    Args (beside those of `EncoderSettings`):
        minutes: how long to train. By default 60, or 10 with --from; without limit if steps are
            given.
        steps: the most steps; none for no limit.
        size: the side of the crops of photos, in pixels. Paintings are seen with a longer side of
            twice this, and photos of twice this size are painted best.
        batch: how many crops a step looks at.
        strength: 0 teaches the network to give the photo back, 1 style alone. Content is weighted
            with 2 (1 - strength), style with 2 strength.
        style_scale: size of the paintings relative to twice the size; larger gives larger strokes.
        style_loss: what is compared as style.
        style_layers: the layers whose style is compared, with their shares (equal if not given).
            None for the encoder's own.
        tv: weight of the total variation at strength 1/2; it grows with the strength.
        rate: the learning rate of Adam at the start; it falls to zero along half a cosine.
        adversary: a critic that learns beside the network to tell its pictures from crops of the
            paintings; none for no critic.
        adversary_weight: how strong the critic's gradient is, relative to that of all other losses.
        licence: the text under which others may use the network; it is kept in its file.
    """

    minutes: Annotated[float, Interval(ge=0.01, le=1e6)] | None = None
    steps: Annotated[int, Ge(1)] | None = None
    size: Annotated[int, Interval(ge=32, le=2048)] = 256
    batch: Annotated[int, Interval(ge=1, le=256)] = 4
    strength: Share = 0.5
    style_scale: Annotated[float, Interval(ge=0.01, le=100)] = 1.0
    style_loss: StyleName = "gram"
    style_layers: Layers | None = None
    tv: Weight = 2.0
    rate: Annotated[float, Interval(ge=1e-6, le=1)] = 1e-3
    adversary: AdversaryName | None = None
    adversary_weight: Weight = 0.5
    licence: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_needs_no_photo(self.style_loss)


@dataclass(frozen=True, kw_only=True)
class GenerateSettings(EncoderSettings):
    """How to train a generator, which makes pictures of some paintings' kind from noise.

    Args (beside those of `EncoderSettings`):
        minutes: how long to train. By default 20 for each painting; without limit if steps are
            given.
        steps: the most steps of the generator; none for no limit.
        size: the side of what a step makes and of the crops of paintings, in pixels.
        batch: how many pictures a step makes.
        painting_size: the longer side that the paintings are resized to; the smaller it is, the
            more of a painting a crop shows.
        adversary: what the critic and the generator pay; none to learn by a style loss alone.
        adversary_weight: how strong the critic's gradient is, relative to that of the style loss.
        critic_steps: the steps of the critic for one of the generator; none for as many as were
            published with the adversary (5 by Wasserstein, else 1).
        style_loss: what is compared as style, beside the critic or instead of it; none to learn
            from the critic alone.
        style_layers: the layers whose style is compared, with their shares (equal if not given).
            None for the encoder's own.
        rate: the learning rate, of the critic as well; it falls to zero in the last third. None
            for 10 times the one that was published with the adversary, or without one for 0.003.
        licence: the text under which others may use the generator; it is kept in its file.
    """

    minutes: Annotated[float, Interval(ge=0.01, le=1e6)] | None = None
    steps: Annotated[int, Ge(1)] | None = None
    size: Annotated[int, Interval(ge=32, le=1024)] = 64
    batch: Annotated[int, Interval(ge=1, le=256)] = 16
    painting_size: Pixels = 256
    adversary: AdversaryName | None = "wgan-gp"
    adversary_weight: Weight = 1.0
    critic_steps: Annotated[int, Interval(ge=1, le=100)] | None = 2
    style_loss: StyleName | None = None
    style_layers: Layers | None = None
    rate: Annotated[float, Interval(ge=1e-6, le=1)] | None = None
    licence: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.style_loss is None and self.adversary is None:
            raise ImpastoError(
                "a generator learns by a critic, by a style loss, or by both; give an adversary or "
                "a style loss"
            )
        if self.style_loss:
            _check_needs_no_photo(self.style_loss)


@dataclass(frozen=True, kw_only=True)
class ImagineSettings(AnySettings):
    """How to make pictures with a generator.

    Args:
        size: width and height in pixels.
        seed: the seed of the noise; another one gives another picture.
        tileable: make a picture that repeats without a seam. Both sides have to be multiples of
            the generator's stride (32 for those in the package).
        device: where to compute; auto takes CUDA if ONNX Runtime has it, and else the CPU.
        memory: the most memory that the process may use, in bytes or as text like 2G or 800M.
    """

    size: Annotated[tuple[int, int], Parsed(_check_sides)] = (512, 512)
    seed: Annotated[int, Interval(ge=0, le=2**63 - 1)] = 0
    tileable: bool = False
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory: Annotated[int | str, Parsed(parse_memory)] = "2G"


@dataclass(frozen=True, kw_only=True)
class WorkSettings(AnySettings):
    """How much work a server, a page or a batch takes on at once, and when it says no.

    Args:
        workers: how many processes paint in one pass; none for one a core, or one on a GPU.
        painters: how many processes paint by optimisation, each one picture at a time.
        queue: the most jobs that wait, and as many pictures for one pass; more are refused.
        megapixels: the most pixels of a picture, in millions, of those that come in and of results.
        upload: the most bytes of a request, as a number or as text like 32M.
        seconds: how long a job may paint; then it ends with the picture so far.
        kept: the most finished jobs that are kept; the oldest go first.
        kept_size: the most bytes that finished jobs may take.
        kept_days: how many days a finished job is kept.
        device: where to compute; auto takes the best that this machine has.
        memory: the most memory that a process may use, in bytes or as text like 2G or 800M. None
            for 2G in one pass, and for three quarters of the free memory otherwise.
    """

    workers: Annotated[int, Interval(ge=1, le=256)] | None = None
    painters: Annotated[int, Interval(ge=1, le=256)] = 1
    queue: Annotated[int, Interval(ge=1, le=1_000_000)] = 100
    megapixels: Annotated[float, Interval(ge=0.01, le=1000)] = 50.0
    upload: Annotated[int | str, Parsed(parse_memory)] = "32M"
    seconds: Annotated[float, Interval(ge=1, le=1e6)] = 3600.0
    kept: Annotated[int, Ge(1)] = 1000
    kept_size: Annotated[int | str, Parsed(parse_memory)] = "10G"
    kept_days: Annotated[float, Interval(ge=0.001, le=36500)] = 7.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    memory: Annotated[int | str, Parsed(parse_memory)] | None = None


@dataclass(frozen=True, kw_only=True)
class ServeSettings(WorkSettings):
    """How to serve; see also `WorkSettings`.

    Args (beside those of `WorkSettings`):
        host: the address to listen on. Other machines reach 0.0.0.0, which needs a token.
        port: the port to listen on; 0 for any that is free.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Interval(ge=0, le=65535)] = 8000


@dataclass(frozen=True, kw_only=True)
class WebSettings(ServeSettings):
    """How to open a page: `ServeSettings` with another default port."""

    port: Annotated[int, Interval(ge=0, le=65535)] = 7860


# Both presets start from white noise, at the final size only, and have no prior on the picture.
_PLAIN = {
    "style_loss": "gram",
    "levels": 1,
    "tv": 0.0,
    "margin": False,
    "detail": 1.0,
    "init": "noise",
}

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
        # The widely taught form: plain means, five style layers summed, content divided by 10,
        # and 10 rounds of 20 evaluations, each with a new optimiser.
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
"""Published settings by name; settings that are not listed keep impasto's defaults."""


def choose(
    kind: type[_Kind],
    settings: AnySettings | None = None,
    choices: Mapping[str, Any] = MappingProxyType({}),
    preset: str | None = None,
) -> _Kind:
    """Settings of a kind: `settings` or those of `preset`, with `choices` instead of some.

    Raises:
        ImpastoError: a preset or setting is unknown, `settings` are of another kind or come with
            a preset, or a value is out of its range.
    """
    if settings is not None and (preset is not None or not isinstance(settings, kind)):
        reason = "come with a preset" if preset is not None else f"be {type(settings).__name__}"
        raise ImpastoError(f"settings cannot {reason} here; give {kind.__name__} alone, or none")
    if preset is not None:
        _check("preset", preset, Annotated[str, Among(PRESETS)])
    known = Annotated[str, Among(hints(kind))]
    for name in choices:
        _check("setting", name, known)
    encoder = catalog.ENCODERS.get(str(choices.get("encoder")))
    if preset and encoder and not encoder.has_presets:
        raise ImpastoError(
            f"the preset {preset!r} is for VGG, and the encoder is {choices['encoder']!r}; leave "
            "one of them out, or choose the encoder 'vgg16'"
        )
    chosen = {**(PRESETS[preset] if preset else {}), **choices}
    return kind(**chosen) if settings is None else dataclasses.replace(settings, **chosen)


@functools.cache
def hints(kind: type[AnySettings]) -> dict[str, Any]:
    """The annotation of each setting of a kind."""
    found = get_type_hints(kind, include_extras=True)
    return {setting.name: found[setting.name] for setting in fields(kind)}


def explained(kind: type[AnySettings]) -> dict[str, str]:
    """The meaning of each setting, from the docstrings of its class and of the base classes.

    Names of other settings are in backquotes. Python -OO has no docstrings, and so none of it.
    """
    told: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, listed = inspect.cleandoc(base.__doc__ or "").partition("\nArgs")
        told |= re.findall(r"^ {4}(\w+): (.+(?:\n {5,}.+)*)", listed, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in told.items()}


def plain(value: Any) -> Any:
    """A value with the numbers, arrays and tensors in it as plain Python, any mapping as a dict."""
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    # Something of NumPy or torch; this module imports neither.
    return value.tolist() if hasattr(value, "shape") and hasattr(value, "tolist") else value


def options(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation itself, as a list."""
    is_union = get_origin(annotation) in (Union, types.UnionType)
    return list(get_args(annotation)) if is_union else [annotation]


def words_of(annotation: Any) -> dict[str, Any]:
    """The names that a setting may have, each with its row of the catalog, if there is one."""
    words: dict[str, Any] = {}
    for member in options(annotation):
        if get_origin(member) is Literal:
            words |= dict.fromkeys(get_args(member))
        for extra in getattr(member, "__metadata__", ()):
            words |= extra.names if isinstance(extra, Among) else {}
    return words


def _check_needs_no_photo(style_loss: str) -> None:
    if catalog.STYLES[style_loss].needs_photo:
        raise ImpastoError(
            f"the style loss {style_loss!r} looks for a place of the painting for every place of "
            "one photo, so it can only repaint; choose another style loss here"
        )


def _kept(keep_colors: bool | KeptColors | None) -> KeptColors | None:
    if isinstance(keep_colors, bool):
        return "luminance" if keep_colors else None
    return keep_colors


def check_count(name: str, value: object, least: int) -> None:
    """Raise an `ImpastoError` unless a value is a whole number of at least `least`."""
    _check(name, value, Annotated[int, Ge(least)])


def _check(name: str, value: object, annotation: Any) -> None:
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
