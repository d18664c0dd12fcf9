"""The command line: arguments, progress, messages and exit codes.

Exit codes: 0 all went well; 1 some of several photos failed; 2 bad input; 130 interrupted.
What was made goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from impasto import __version__
from impasto.errors import ImpastoError, ImpastoNotice
from impasto.settings import DEVICES, OPTIMIZERS, PRESETS, Settings

if TYPE_CHECKING:  # these import torch, which `impasto --help` must not wait for
    from impasto.artworks import Artwork
    from impasto.optimise import Step

SOME_FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if threading.current_thread() is threading.main_thread():
        # A job that a script starts in the background has Ctrl-C switched off; it shall save, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be no text
    parser, commands = _parsers()
    if given and given[0] in commands:
        # Options may stand between the photos, which a parser with sub-commands cannot do.
        options = commands[given[0]].parse_intermixed_args(given[1:])
    else:
        options = parser.parse_args(given)
    try:
        with _notices_as_lines(quiet=getattr(options, "quiet", False)):
            return int(options.run(options))
    except ImpastoError as error:
        _say(f"impasto: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        _say("impasto: interrupted")
        return INTERRUPTED


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        # An abbreviation that works today would break a script when an option is added.
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        _say(f"impasto: {message}; see {self.prog} --help")
        raise SystemExit(BAD_INPUT)


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    parser = _Parser(
        prog="impasto",
        description="Repaint a photograph in the manner of a painting.",
        epilog="Try: impasto stylize $(impasto samples kingfisher) "
        "--style $(impasto samples great_wave)",
    )
    parser.add_argument("--version", action="version", version=f"impasto {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    stylize = commands.add_parser(
        "stylize",
        help="repaint photos after a painting",
        description="Repaint each PHOTO in the manner of a PAINTING.",
    )
    stylize.set_defaults(run=_stylize)
    _add_stylize_arguments(stylize)

    show = commands.add_parser(
        "show",
        help="print what made a picture",
        description="Print the settings, inputs and losses that a PNG of impasto carries.",
    )
    show.set_defaults(run=_show)
    show.add_argument("file", metavar="FILE")

    resume = commands.add_parser(
        "resume",
        help="go on with a run that broke off",
        description="Go on with a painting from the checkpoint that it left beside its output.",
    )
    resume.set_defaults(run=_resume)
    resume.add_argument("file", metavar="FILE", help="the .checkpoint file, or the picture's name")
    _add_running_arguments(resume)

    info = commands.add_parser(
        "info",
        help="print what impasto runs on",
        description="Print versions, device, threads, memory, and which kernels compute, and why.",
    )
    info.set_defaults(run=_info)
    info.add_argument("--json", action="store_true", help="print one JSON object")

    samples = commands.add_parser(
        "samples",
        help="list the sample pictures, or print where one is",
        description="List the names of the sample pictures, or print the file of one.",
    )
    samples.set_defaults(run=_samples)
    samples.add_argument("name", metavar="NAME", nargs="?")
    return parser, dict(commands.choices)


def _add_running_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--quiet", action="store_true", help="no progress, only errors")
    add("--json", action="store_true", help="print one JSON object at the end")
    add(
        "--checkpoint-every",
        type=_seconds,
        metavar="SECONDS",
        default=30.0,
        help="how often to keep the run in a file beside the output, to resume it (default 30)",
    )


def _add_stylize_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("photos", metavar="PHOTO", nargs="+", help="the photos, painted one after another")
    add("--style", metavar="PAINTING", required=True, help="the painting")
    add(
        "-o",
        "--output",
        metavar="FILE-or-FOLDER",
        help="where to write: a .png, .jpg, .webp, .tif, .bmp or .gif file, or a folder, which is "
        "created (default: PHOTO-PAINTING.png here)",
    )
    add("--force", action="store_true", help="replace a file that exists already")
    _add_running_arguments(parser)

    def choice(name: str, **options: Any) -> None:
        # Absent unless given: what is not chosen is the preset's, and that the API's.
        group.add_argument(f"--{name}", default=argparse.SUPPRESS, **options)

    default = Settings()
    default_layers = " ".join(f"{layer}:{share:g}" for layer, share in default.style_shares.items())
    group = parser.add_argument_group("what to paint")
    choice(
        "size",
        type=_size,
        metavar="N",
        help=f"longer side of the result in pixels, or 'full' for the photo's own "
        f"(default {default.size})",
    )
    choice(
        "strength",
        type=float,
        metavar="X",
        help=f"0 gives the photo back, 1 is style alone (default {default.strength})",
    )
    choice(
        "style-scale",
        type=float,
        metavar="X",
        help="size of the painting relative to the result; larger gives larger strokes (default 1)",
    )
    choice("keep-colors", action="store_true", help="keep the photo's colours, paint its light")
    choice(
        "preset",
        metavar="|".join(PRESETS),
        help="losses and settings as published, instead of impasto's own",
    )
    group = parser.add_argument_group("how to paint")
    choice(
        "steps",
        type=int,
        metavar="N",
        help=f"steps at most, on all levels together (default {default.steps}; presets vary)",
    )
    choice(
        "levels",
        type=int,
        metavar="N",
        help="sizes to paint at, each half the next; 1 for the final size alone "
        "(default: as the size calls for; presets: 1)",
    )
    choice("optimizer", metavar="|".join(OPTIMIZERS), help=f"default {default.optimizer}")
    choice(
        "init",
        metavar="photo|noise|painting|FILE",
        help=f"where to start (default {default.init}; presets: noise)",
    )
    choice(
        "content-layer",
        metavar="L",
        help=f"layer whose activations are the content (default {default.content_layer})",
    )
    choice(
        "style-layer",
        dest="style_layers",
        metavar="L",
        nargs="+",
        action="extend",
        type=_layer_share,
        help=f"layers whose Gram matrices are the style, L or L:SHARE (default {default_layers})",
    )
    choice("pooling", metavar="avg|max", help=f"default {default.pooling}")
    choice("tv", type=float, metavar="X", help=f"weight of smoothness (default {default.tv:g})")
    choice("seed", type=int, metavar="N", help=f"seed of the noise (default {default.seed})")
    choice("device", metavar="|".join(DEVICES), help=f"default {default.device}")
    choice(
        "memory",
        metavar="SIZE",
        help="how much to use, such as 2G or 800M; larger pictures are painted in tiles "
        "(default: three quarters of what is free)",
    )
    choice("weights", metavar="FILE", help="a state dict of torchvision's vgg16 or vgg19")


def _stylize(options: argparse.Namespace) -> int:
    from impasto.images import check_writable
    from impasto.recipes import Stylizer

    settings = {name: value for name, value in vars(options).items() if name in _SETTINGS}
    if "style_layers" in settings:
        settings["style_layers"] = dict(settings["style_layers"])
    stylizer = Stylizer(options.style, **settings)
    targets = _targets(options.photos, options.style, options.output)
    for target in targets:
        check_writable(target)
        if options.force and any(_same_file(target, p) for p in [*options.photos, options.style]):
            raise ImpastoError(f"{target} is one of the inputs; choose another --output")

    results: list[dict[str, Any]] = []
    failed = interrupted = False
    for number, (photo, target) in enumerate(zip(options.photos, targets, strict=True), 1):
        name = Path(photo).name
        title = name if len(targets) == 1 else f"{name} ({number} of {len(targets)})"
        checkpoint = _free_checkpoint(target)
        paint = functools.partial(
            stylizer.paint,
            photo,
            checkpoint=checkpoint,
            checkpoint_every=options.checkpoint_every,
            note={"output": os.path.abspath(target), "force": options.force},  # noqa: PTH100
        )
        try:
            steps = stylizer.settings.steps
            written, artwork = _paint_and_save(paint, title, steps, target, checkpoint, options)
        except ImpastoError as error:
            if len(targets) == 1:
                raise
            _say(f"impasto: {error}")
            results.append({"photo": photo, "error": str(error)})
            failed = True
        except KeyboardInterrupt:
            if not results:
                raise
            _say("impasto: interrupted; what was painted before is kept")
            interrupted = True
        else:
            results.append(_summary(photo, written, artwork))
            interrupted = artwork.stopped == "interrupted"
        if interrupted:
            break
    if options.json:
        print(json.dumps({"impasto": __version__, "results": results}))
    return INTERRUPTED if interrupted else SOME_FAILED if failed else 0


def _resume(options: argparse.Namespace) -> int:
    from impasto import checkpoints
    from impasto.recipes import resume

    path = Path(options.file)
    beside = path.with_name(path.name + checkpoints.SUFFIX)
    if path.suffix != checkpoints.SUFFIX and os.path.exists(beside):  # noqa: PTH110
        path = beside  # the name of the picture will do
    record = checkpoints.read_record(path)
    try:
        note, photo = record["note"], record["inputs"]["photo"]["path"]
        steps = record["settings"]["steps"]
        target, options.force = Path(note["output"]), note["force"]
    except (KeyError, TypeError):
        raise ImpastoError(f"{path} does not say where its picture was to go; begin anew") from None
    paint = functools.partial(resume, path, checkpoint_every=options.checkpoint_every)
    written, artwork = _paint_and_save(paint, Path(photo).name, steps, target, path, options)
    if options.json:
        results = [_summary(photo, written, artwork)]
        print(json.dumps({"impasto": __version__, "results": results}))
    return INTERRUPTED if artwork.stopped == "interrupted" else 0


def _paint_and_save(
    paint: Callable[..., Artwork],
    title: str,
    steps: int,
    target: Path,
    checkpoint: Path,
    options: argparse.Namespace,
) -> tuple[Path, Artwork]:
    """Paint with a progress bar, save what there is even after Ctrl-C, and tell of it."""
    from impasto.artworks import Interrupted

    try:
        with _Progress(title, steps, quiet=options.quiet) as progress:
            artwork = paint(callback=progress.update)
    except Interrupted as interruption:
        artwork = interruption.artwork
    with _uninterrupted():
        try:
            written = artwork.save(target, force=options.force)
        except ImpastoError as error:
            if not checkpoint.exists():
                raise
            raise ImpastoError(f"{error}; then go on with: impasto resume {checkpoint}") from None
    _tell(written, artwork, quiet=options.quiet, result=not options.json)
    return written, artwork


def _free_checkpoint(target: Path) -> Path:
    """Where to keep a run that makes `target`, without touching what another run has left."""
    from impasto.checkpoints import SUFFIX

    numbers = chain([""], (f"-{n}" for n in count(2)))
    names = (target.with_name(f"{target.name}{number}{SUFFIX}") for number in numbers)
    # os.path.exists, because Path.exists raises where it may not look
    checkpoint = next(name for name in names if not os.path.exists(name))  # noqa: PTH110
    first = target.with_name(f"{target.name}{SUFFIX}")
    if checkpoint != first:
        _say(f"note: an earlier run is kept in {first}; to go on with it: impasto resume {first}")
    return checkpoint


_SETTINGS = {*Settings.__dataclass_fields__, "preset"}


def _targets(photos: Sequence[str], painting: str, output: str | None) -> list[Path]:
    """The file that each photo is to be written to; creates the folder if there is to be one."""
    names: list[str] = []
    for photo in photos:
        stem = f"{Path(photo).stem}-{Path(painting).stem}"
        numbered = (f"{stem}{number}.png" for number in chain([""], (f"-{n}" for n in count(2))))
        names.append(next(name for name in numbered if name not in names))
    if output is None:
        return [Path(name) for name in names]
    folder = Path(output)
    if not os.path.isdir(output) and not output.endswith(("/", os.sep)):  # noqa: PTH112
        if len(photos) == 1:
            return [folder]
        if folder.suffix:
            raise ImpastoError(
                f"{output} is a file, and {len(photos)} photos need a folder; end it with a /"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise ImpastoError(f"{output} is a file and no folder; name another") from None
    except OSError as error:
        raise ImpastoError(
            f"the folder {output} cannot be created ({error.strerror}); choose another"
        ) from None
    return [folder / name for name in names]


def _same_file(one: Path, other: str) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _summary(photo: str, written: Path, artwork: Artwork) -> dict[str, Any]:
    return {
        "photo": photo,
        "output": str(written),
        "size": list(artwork.image.size),
        "stopped": artwork.stopped,
        "steps": artwork.steps,
        "evaluations": artwork.evaluations,
        "seconds": round(artwork.seconds, 3),
        "loss": artwork.losses[-1],
        "losses": artwork.losses,
        "parts": dict(artwork.parts),
    }


def _tell(written: Path, artwork: Artwork, *, quiet: bool, result: bool) -> None:
    if artwork.stopped == "flat" and not quiet:
        _say(f"stopped after {artwork.steps} steps: the loss has stopped falling")
    if artwork.stopped == "interrupted":
        _say(
            f"interrupted after {artwork.steps} steps; the picture is saved as it is; "
            f"to go on: impasto resume {artwork.checkpoint}"
        )
    if result and not quiet:
        width, height = artwork.image.size
        print(
            f"{written}  ({width} x {height} pixels, {artwork.steps} steps, "
            f"{artwork.seconds:.0f} s, loss {artwork.losses[0]:.4g} -> {artwork.losses[-1]:.4g})"
        )


def _info(options: argparse.Namespace) -> int:
    from impasto.info import info

    facts = info()
    if options.json:
        print(json.dumps(facts))
        return 0
    for name, fact in facts.items():
        print(f"{name:<9} {fact}")
    return 0


def _show(options: argparse.Namespace) -> int:
    from impasto.images import read_record

    record = read_record(options.file)
    losses = record.pop("losses", [])
    print(json.dumps(record, ensure_ascii=False, indent=2))
    if losses:
        print(f"losses, step 0 to {len(losses) - 1}:")
        print(" ".join(f"{loss:.6g}" for loss in losses))
    return 0


def _samples(options: argparse.Namespace) -> int:
    from impasto.samples import sample, sample_names

    if options.name:
        print(sample(options.name))
        return 0
    for kind, names in sample_names().items():
        print(f"{kind}: {' '.join(names)}")
    return 0


class _Progress:
    """A bar on a terminal, ten plain lines elsewhere, nothing when quiet."""

    def __init__(self, title: str, steps: int, *, quiet: bool) -> None:
        self.title = title
        self.steps = steps
        self.quiet = quiet
        self.every = max(1, steps // 10)
        self.began: float | None = None
        self.begun = 0.0
        self.bar: Any = None

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.refresh()
            self.bar.close()

    def update(self, step: Step) -> None:
        if self.began is None:
            self.began, self.begun = time.monotonic(), step.done
        if self.bar is None and not self.quiet and sys.stderr.isatty():
            from tqdm import tqdm

            # tqdm puts a comma before a postfix itself.
            form = "{desc} |{bar}| step {n_fmt}/{total_fmt}{postfix}"
            self.bar = tqdm(total=self.steps, desc=self.title, leave=False, bar_format=form)
        if self.bar is not None:
            height, width = step.image.shape[-2:]
            told = f"loss {step.loss:.4g}, {width} x {height}{self._left(step)}"
            self.bar.set_postfix_str(told, refresh=False)
            self.bar.update(step.step - self.bar.n)
        elif not self.quiet and step.step % self.every == 0:
            line = f"{self.title}: step {step.step}/{self.steps}, loss {step.loss:.4g}"
            _say(line + self._left(step))

    def _left(self, step: Step) -> str:
        """How long it will take; steps at small sizes are quick, and count for little."""
        if self.began is None or step.done <= self.begun:
            return ""
        elapsed = time.monotonic() - self.began
        return f", about {elapsed * (1 - step.done) / (step.done - self.begun):.0f} s left"


@contextlib.contextmanager
def _notices_as_lines(*, quiet: bool) -> Iterator[None]:
    """Print notices as plain sentences, every one of them."""

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, ImpastoNotice):
            original(message, category, filename, lineno, file, line)
        elif not quiet:
            _say(f"note: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("always", ImpastoNotice)
        original = warnings.showwarning
        warnings.showwarning = show
        yield


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let a file be finished however often Ctrl-C is pressed."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _size(text: str) -> int | str:
    if text == "full":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size: give pixels such as 512, or 'full'"
        ) from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds, such as 30")
    return seconds


def _layer_share(text: str) -> tuple[str, float]:
    name, _, share = text.partition(":")
    try:
        return name, float(share) if share else 1.0
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no layer: give a name such as relu3_1, or a name and a share, relu3_1:0.5"
        ) from None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
