"""The arguments of every command, and what their texts mean."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar, get_args

from impasto import __version__, catalog
from impasto.apps.cli.console import say
from impasto.errors import ImpastoError, nearest
from impasto.pictures.files import is_file
from impasto.settings import (
    PRESETS,
    Device,
    KeptColors,
    ReconstructSettings,
    RunSettings,
    Settings,
    TextureSettings,
)

BAD_INPUT = 2

_ARGUMENTS = {"style": "painting"}  # where the API has another name
_NO_OPTIONS = {
    "help", "output", "force", "quiet", "json", "checkpoint-every", "film", "stills",
    "skip-existing",
}  # fmt: skip

_Value = TypeVar("_Value")
_Other = TypeVar("_Other")


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in a line."""

    def __init__(self, **options: Any) -> None:
        # An abbreviation that works today would break a script when an option is added.
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Say it and leave."""
        say(f"impasto: {message}; see {self.prog} --help")
        raise SystemExit(BAD_INPUT)


def parsers() -> tuple[Parser, dict[str, Parser]]:
    """The parser of all, and that of each command."""
    parser = Parser(
        prog="impasto",
        description="Repaint a photograph in the manner of a painting, and see how that works.",
        epilog="Try: impasto stylize $(impasto samples kingfisher) "
        "--style $(impasto samples great_wave)",
    )
    parser.add_argument("--version", action="version", version=f"impasto {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, summary: str, description: str) -> Parser:
        added: Parser = commands.add_parser(name, help=summary, description=description)
        return added

    _add_stylize(
        command(
            "stylize",
            "repaint photos after a painting",
            "Repaint each PHOTO in the manner of a painting, or of several.",
        )
    )
    _add_reconstruct(
        command(
            "reconstruct",
            "show what a layer keeps of a photo",
            "From noise, find the picture whose activations are those of the PHOTO; of several, "
            "their mean.",
        )
    )
    _add_texture(
        command(
            "texture",
            "grow a texture from a painting",
            "From noise, grow a picture that has the style of the PAINTING and nothing else of it.",
        )
    )
    _add_atlas(
        command(
            "atlas",
            "show what every layer keeps, on one page",
            "One labelled page: the PHOTO reconstructed from every layer, and textures of the "
            "PAINTING up to every layer. With --channels, what a layer's channels look at instead.",
        )
    )
    _add_compare(
        command(
            "compare",
            "paint with every value of an option, side by side",
            "Paint the PHOTO with every combination of one or two options, on one labelled page, "
            "with a table of the losses.",
        )
    )

    resume = command(
        "resume",
        "go on with a run that broke off",
        "Go on with a painting from the checkpoint that it left beside its output.",
    )
    resume.add_argument("file", metavar="FILE", help="the .checkpoint file, or the picture's name")
    _add_output(resume, "its old name beside the checkpoint", "FILE-or-FOLDER")
    _add_checkpoint(resume)
    _add_film(resume)

    show = command(
        "show",
        "print what made a picture",
        "Print the settings, inputs and losses that a PNG of impasto carries.",
    )
    show.add_argument("file", metavar="FILE")

    info = command(
        "info",
        "print what impasto runs on",
        "Print versions, device, threads, memory, and which kernels compute, and why.",
    )
    info.add_argument("--json", action="store_true", help="print one JSON object")

    samples = command(
        "samples",
        "list the sample pictures, or print where one is",
        "List the names of the sample pictures, or print the file of one.",
    )
    samples.add_argument("name", metavar="NAME", nargs="?")
    return parser, dict(commands.choices)


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """The arguments, with what belongs to an option told from the photos that may follow it.

    `--keep-colors` alone means `--keep-colors=luminance`, `--weight 2 1` two weights,
    `--style-layer relu1_1 relu2_1` two layers, and after `--` everything is a file.
    """
    result: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        option, given, value = argument.partition("=")
        if argument == "--":
            # "./-dash.jpg" is the same file, and no option to anyone; "-" is standard input
            return result + [f"./{n}" if n.startswith("-") and n != "-" else n for n in rest]
        if argument == "--keep-colors":
            how = (
                rest.pop(0)
                if rest[:1] and rest[0] in get_args(KeptColors)
                else get_args(KeptColors)[0]
            )
            result.append(f"--keep-colors={how}")
        elif option in _SEVERAL and (given or rest):
            value = value if given else rest.pop(0)
            if value == "up-to" and rest:
                value = f"up-to {rest.pop(0)}"
            result.append(f"{option}={value}")
            while rest and _SEVERAL[option](rest[0]) and not is_file(rest[0]):
                result.append(f"{option}={rest.pop(0)}")
        elif argument in _OF_FILES and rest and (rest[0][:2] == "-:" or _names_a_file(rest[0])):
            result.append(f"{argument}={rest.pop(0)}")  # which may begin with a dash
        else:
            result.append(argument)
    return result


def _is_number(text: str) -> bool:
    return _parsed(lambda: float(text), None) is not None


def _is_layer(text: str) -> bool:
    """Whether a word looks like a layer, mistyped or not, with a share or without; or several."""
    return re.match(r"(image$|image[:,]|(conv|relu|pool|block)\d)", text, re.IGNORECASE) is not None


_SEVERAL: dict[str, Callable[[str], bool]] = {
    "--weight": _is_number,
    "--layer": _is_layer,
    "--layers": _is_layer,
    "--style-layer": _is_layer,
}
"""Options that may have several values, and which words are taken for one after the first."""

_OF_FILES = ("--style", "--region", "--init")


def chosen(options: argparse.Namespace, kind: type[RunSettings]) -> dict[str, Any]:
    """What was given of some settings."""
    known = {*kind.__dataclass_fields__, "preset"}
    return {name: value for name, value in vars(options).items() if name in known}


def varied(parser: Parser, options: Sequence[tuple[str, list[str]]]) -> dict[str, dict[str, Any]]:
    """The arguments of stylize that are varied, each with its values by their texts.

    `parser` is that of stylize. `+` joins what is several for one value; `none` (None) leaves the
    option out.
    """
    settings = {
        option[2:]: _ARGUMENTS.get(action.dest, action.dest)
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and option[2:] not in _NO_OPTIONS
    }
    result: dict[str, dict[str, Any]] = {}
    for option, texts in options:
        if option not in settings:
            parser.error(
                f"there is no option {option!r} to vary; "
                f"did you mean {nearest(option, sorted(settings))!r}?"
            )
        setting = settings[option]
        if setting in result:
            parser.error(f"{option} varies twice; give all of its values at once")
        result[setting] = {text: _one_value(parser, option, setting, text) for text in texts}
    return result


def _one_value(parser: Parser, option: str, setting: str, text: str) -> Any:
    if text == "none":
        return None
    is_one = option not in ("style", "style-layer", "region") or is_file(text)
    parts = [text] if is_one else parted(text)
    given = parser.parse_intermixed_args(["", *(f"--{option}={part}" for part in parts)])
    if setting in ("painting", "regions"):
        return given.style or given.regions
    return chosen(given, Settings)[setting]


Choice = Callable[..., None]
"""Adds an option that is absent unless given: what is not chosen is the preset's or the API's."""


def _choices(parser: Parser, title: str) -> Choice:
    group = parser.add_argument_group(title)

    def choice(name: str, **options: Any) -> None:
        group.add_argument(f"--{name}", default=argparse.SUPPRESS, **options)

    return choice


def _add_output(parser: Parser, default: str, where: str = "FILE") -> None:
    folder = " or a folder, which is created" if where != "FILE" else ""
    parser.add_argument(
        "-o",
        "--output",
        metavar=where,
        help=f"where to write: a .png, .jpg, .webp, .tif, .bmp or .gif file{folder} "
        f"(default: {default})",
    )
    parser.add_argument("--force", action="store_true", help="replace a file that exists already")
    _add_talk(parser)


def _add_talk(parser: Parser) -> None:
    parser.add_argument("--quiet", action="store_true", help="no progress, only errors")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")


def _add_checkpoint(parser: Parser) -> None:
    parser.add_argument(
        "--checkpoint-every",
        type=_seconds,
        metavar="SECONDS",
        default=30.0,
        help="how often to keep the run in a file beside the output, to resume it (default 30)",
    )


def _add_film(parser: Parser) -> None:
    parser.add_argument(
        "--film",
        metavar="FILE.mp4|FILE.gif",
        help="the iterations as a film (only of a single picture)",
    )
    parser.add_argument(
        "--stills",
        metavar="N",
        type=int,
        help="every Nth step as a picture beside the output: NAME-step0050.png, ...",
    )


def _add_run_choices(choice: Choice, default: RunSettings, presets: str = "") -> None:
    choice("optimizer", metavar="|".join(catalog.OPTIMIZERS), help=f"default {default.optimizer}")
    choice("pooling", metavar="avg|max", help=f"default {default.pooling}")
    choice("seed", type=int, metavar="N", help=f"seed of the noise (default {default.seed})")
    choice(
        "evaluations",
        type=int,
        metavar="N",
        help=f"values and gradients of the loss at most (default: no limit{presets})",
    )
    choice("device", metavar="|".join(get_args(Device)), help=f"default {default.device}")
    choice(
        "memory",
        metavar="SIZE",
        help="how much to use at most, such as 2G or 800M, over the whole run, libraries "
        "included (they take 0.8G by themselves); larger pictures are painted in tiles "
        "(default: three quarters of what is free)",
    )
    choice("weights", metavar="FILE", help="a state dict of torchvision's vgg16 or vgg19")


def _add_steps(choice: Choice, default: RunSettings, more: str = "") -> None:
    choice(
        "steps",
        type=int,
        metavar="N",
        help=f"steps at most{more} (default {default.steps})",
    )


def _add_stylize(parser: Parser) -> None:
    parser.add_argument(
        "photos",
        metavar="PHOTO",
        nargs="+",
        help="the photos, painted one after another; - reads one from standard input",
    )
    _add_output(parser, "PHOTO-PAINTING.png here", "FILE-or-FOLDER")
    parser.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out photos whose output is there already, and go on with those that an "
        "earlier run has left a checkpoint of",
    )
    _add_checkpoint(parser)
    _add_film(parser)
    _add_stylize_choices(parser)


def _add_stylize_choices(parser: Parser, size: int | str | None = None) -> None:
    default = Settings()
    default_layers = "the encoder's own"
    add = parser.add_argument
    add(
        "--style",
        metavar="PAINTING[:WEIGHT]",
        type=weighted_file,
        action="append",
        default=[],
        help="the painting; or several, mixed by weight (1 where none is given)",
    )
    add(
        "--region",
        dest="regions",
        metavar="MASK:PAINTING",
        type=region,
        action="append",
        default=[],
        help="where the picture MASK is white, paint after this painting; any number of times. "
        "The rest keeps to --style, or stays the photo where there is none",
    )
    choice = _choices(parser, "what to paint")
    choice(
        "size",
        type=_size,
        metavar="N",
        help=f"longer side of the result in pixels, or 'full' for the photo's own "
        f"(default {size or default.size})",
    )
    choice(
        "strength",
        type=float,
        metavar="X",
        help=f"0 gives the photo back, 1 is style alone (default {default.strength})",
    )
    choice(
        "detail",
        type=float,
        metavar="X",
        help="how much of the photo's fine detail stays: 0 for none, all that is fine is painted; "
        f"1 for all of it (default {default.detail:g}; presets: 1)",
    )
    choice(
        "style-scale",
        type=float,
        metavar="X",
        help="size of the painting relative to the result; larger gives larger strokes (default 1)",
    )
    choice(
        "keep-colors",
        metavar="|".join(get_args(KeptColors)),
        help="keep the photo's colours: paint its light alone (luminance, the default), or after "
        "the painting recoloured to the photo's mean and covariance (histogram)",
    )
    choice(
        "preset",
        metavar="|".join(PRESETS),
        help="losses and settings as published, instead of impasto's own",
    )
    choice = _choices(parser, "how to paint")
    _add_steps(choice, default, ", on all levels together; presets vary")
    choice(
        "levels",
        type=int,
        metavar="N",
        help="sizes to paint at, each half the next; 1 for the final size alone "
        "(default: as the size calls for; presets: 1)",
    )
    choice(
        "init",
        metavar="photo|noise|painting|FILE",
        help=f"where to start (default {default.init}; presets: noise)",
    )
    choice(
        "content-layer",
        metavar="L",
        help="layer whose activations are the content (default the encoder's own)",
    )
    choice(
        "style-layer",
        dest="style_layers",
        metavar="L[:SHARE]",
        action=_Layers,
        help="a layer whose statistics are the style; or several, with commas or spaces between "
        f"(default {default_layers})",
    )
    _add_style_loss(choice)
    choice("tv", type=float, metavar="X", help=f"weight of smoothness (default {default.tv:g})")
    _add_run_choices(choice, default, "; lecture: 200")


def _add_style_loss(choice: Choice) -> None:
    choice(
        "style-loss",
        metavar="|".join(catalog.STYLES),
        help="what style is, and how two are compared (default gram)",
    )


def _add_reconstruct(parser: Parser) -> None:
    default = ReconstructSettings()
    parser.add_argument(
        "photos", metavar="PHOTO", nargs="+", help="the photo; or several, averaged"
    )
    _add_output(parser, "PHOTO-LAYER.png here")
    _add_film(parser)
    choice = _choices(parser, "what to reconstruct")
    choice(
        "layer",
        dest="layers",
        metavar="L[:SHARE]",
        action=_Layers,
        help="layer whose activations are matched; several, with commas or spaces between, are "
        "matched jointly (default the encoder's content layer)",
    )
    choice(
        "weight",
        dest="weights_of_photos",
        metavar="X",
        type=float,
        action="append",
        help="how much a photo counts in the mean: one for each photo, in their order",
    )
    choice(
        "size",
        type=_size,
        metavar="N",
        help=f"longer side in pixels, or 'full' for the photo's own (default {default.size})",
    )
    choice = _choices(parser, "how to reconstruct")
    choice(
        "tv",
        type=float,
        metavar="X",
        help="weight of smoothness, the prior against noise (default: as the layer calls for; "
        "0 for none)",
    )
    _add_steps(choice, default)
    _add_run_choices(choice, default)


def _add_texture(parser: Parser) -> None:
    default = TextureSettings()
    parser.add_argument("painting", metavar="PAINTING", help="the painting, or any picture")
    _add_output(parser, "PAINTING-texture.png here")
    _add_film(parser)
    choice = _choices(parser, "what to grow")
    choice(
        "size",
        type=_width_and_height,
        metavar="WxH",
        help=f"width and height in pixels (default {'x'.join(map(str, default.size))})",
    )
    choice(
        "painting-size",
        type=int,
        metavar="N",
        help="longer side that the painting is resized to first: the smaller, the more of it a "
        "texture shows (default 512, or its own)",
    )
    choice("tileable", action="store_true", help="repeat without a seam")
    choice = _choices(parser, "how to grow it")
    choice(
        "layers",
        metavar="L[:SHARE]",
        action=_Layers,
        help="'up-to LAYER', or layers, with commas or spaces between (default up-to relu5_1)",
    )
    _add_style_loss(choice)
    choice("tv", type=float, metavar="X", help=f"weight of smoothness (default {default.tv:g})")
    choice(
        "levels",
        type=int,
        metavar="N",
        help="sizes to grow it at, each half the next (default: as the size calls for)",
    )
    _add_steps(choice, default, ", on all levels together")
    _add_run_choices(choice, default)


def _add_atlas(parser: Parser) -> None:
    parser.add_argument("photo", metavar="PHOTO")
    parser.add_argument("painting", metavar="PAINTING", nargs="?", help="needed for the whole page")
    _add_output(parser, "PHOTO-PAINTING-atlas.png here")
    parser.add_argument(
        "--channels",
        metavar="LAYER",
        help="make a grid of this layer's most active channels instead",
    )
    choice = _choices(parser, "how to make each picture")
    choice("size", type=int, metavar="N", help="longer side of each in pixels (default 256)")
    _add_steps(choice, RunSettings(), " for each")
    _add_run_choices(choice, RunSettings())


def _add_compare(parser: Parser) -> None:
    parser.add_argument("photo", metavar="PHOTO")
    parser.add_argument(
        "--vary",
        metavar="OPTION=A,B,...",
        type=_variation,
        action="append",
        required=True,
        help="an option of stylize (without --) and its values; once or twice. '+' joins what is "
        "one value (style-layer=relu1_1+relu2_1,relu4_1), 'none' leaves the option out",
    )
    _add_output(parser, "PHOTO-by-OPTION.png here")
    parser.add_argument(
        "--csv", metavar="FILE.csv", help="where the table goes (default: beside the page)"
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="curves of the loss, as a .png or another picture"
    )
    _add_stylize_choices(parser, 256)


class _Layers(argparse.Action):
    """Layers with their shares, by commas or by repetition; or `up-to` and then a layer."""

    def __call__(
        self,
        _parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        _option: str | None = None,
    ) -> None:
        shares = dict(getattr(namespace, self.dest, {}))
        for text in filter(None, values.split(",")):
            word, _, layer = text.partition(" ")
            if word == "up-to":
                from impasto.encoders.base import up_to

                try:
                    up_to(layer)
                except ImpastoError as error:
                    raise argparse.ArgumentError(self, str(error)) from None
                shares |= dict.fromkeys(up_to(layer), 1.0)
                continue
            try:
                shares |= [layer_share(text)]
            except argparse.ArgumentTypeError as error:
                raise argparse.ArgumentError(self, str(error)) from None
        setattr(namespace, self.dest, shares)


def weighted_file(text: str) -> tuple[str, float]:
    """`FILE` or `FILE:WEIGHT`; a file whose own name looks like that is meant as it is."""
    file, _, weight = text.rpartition(":")
    if not file or is_file(text):
        return text, 1.0
    return _parsed(lambda: (file, float(weight)), (text, 1.0))


def region(text: str) -> tuple[str, str]:
    """`MASK:PAINTING`; where names have colons themselves, at the one that parts two files."""
    at = [index for index, sign in enumerate(text) if sign == ":"]
    pairs = [(text[:index], text[index + 1 :]) for index in at]
    for mask, painting in pairs:
        if is_file(mask) and is_file(painting):
            return mask, painting
    for mask, painting in reversed(pairs):
        if mask and painting:
            return mask, painting
    raise argparse.ArgumentTypeError(
        f"{text!r} is no region: give a mask and a painting, as in sky.png:painting.jpg"
    )


def layer_share(text: str) -> tuple[str, float]:
    """`LAYER` or `LAYER:SHARE`."""
    name, _, share = text.partition(":")
    try:
        return name, float(share) if share else 1.0
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no layer: give a name such as relu3_1, or a name and a share, relu3_1:0.5"
        ) from None


def _variation(text: str) -> tuple[str, list[str]]:
    option, _, values = text.partition("=")
    texts = [value for value in parted(values, ",", _names_files) if value]
    if not option or not texts:
        raise argparse.ArgumentTypeError(
            f"{text!r} varies nothing: give an option and its values, as in optimizer=lbfgs,cg"
        )
    return option.removeprefix("--"), texts


def parted(text: str, sign: str = "+", whole: Callable[[str], bool] | None = None) -> list[str]:
    """A text parted at every `sign`, but for those in what is `whole`: names of files there are."""
    whole = whole or _names_a_file
    pieces = text.split(sign)
    parts: list[str] = []
    while pieces:
        lengths = range(len(pieces), 0, -1)
        length = next((n for n in lengths if whole(sign.join(pieces[:n]))), 1)
        parts.append(sign.join(pieces[:length]))
        del pieces[:length]
    return parts


def _names_a_file(text: str) -> bool:
    """Whether it is a file that is there, `FILE:WEIGHT`, or `MASK:PAINTING`."""
    at = [index for index, sign in enumerate(text) if sign == ":"]
    name, _, weight = text.rpartition(":")
    return (
        is_file(text)
        or (is_file(name) and _is_number(weight))
        or any(is_file(text[:index]) and is_file(text[index + 1 :]) for index in at)
    )


def _names_files(text: str) -> bool:
    """Whether it is one of these, or several with a `+` between."""
    return all(map(_names_a_file, parted(text)))


def _size(text: str) -> int | str:
    if text == "full":
        return text
    size = _parsed(lambda: int(text), None)
    if size is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give pixels such as 512, or 'full'")
    return size


def _width_and_height(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    size = _parsed(lambda: (int(width), int(height or width)), None)
    if size is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: give WxH, such as 512x256")
    return size


def _seconds(text: str) -> float:
    seconds = _parsed(lambda: float(text), -1.0)
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds, such as 30")
    return seconds


def _parsed(parse: Callable[[], _Value], otherwise: _Other) -> _Value | _Other:
    try:
        return parse()
    except ValueError:
        return otherwise
