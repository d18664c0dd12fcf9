"""The command line: commands, messages and exit codes.

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
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from impasto import __version__
from impasto.arguments import BAD_INPUT, chosen, parsers, spelled_out, varied, weighted_file
from impasto.errors import ImpastoError, ImpastoNotice
from impasto.progress import Progress, ProgressOfRuns
from impasto.settings import (
    AtlasSettings,
    ReconstructSettings,
    RunSettings,
    Settings,
    TextureSettings,
)

if TYPE_CHECKING:  # these import torch, which `impasto --help` must not wait for
    from impasto.artworks import Artwork
    from impasto.films import Film
    from impasto.sheets import Sheet

SOME_FAILED, INTERRUPTED = 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = spelled_out(sys.argv[1:] if arguments is None else arguments)
    if threading.current_thread() is threading.main_thread():
        # A job that a script starts in the background has Ctrl-C switched off; it shall save, too.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may be no text
    parser, commands = parsers()
    if not given or given[0] not in commands:
        parser.parse_args(given)  # which helps, tells the version, or says what is wrong
    # Options may stand between the photos, which a parser with sub-commands cannot do.
    options = commands[given[0]].parse_intermixed_args(given[1:])
    try:
        with _notices_as_lines(quiet=getattr(options, "quiet", False)):
            return _COMMANDS[given[0]](options)
    except ImpastoError as error:
        _say(f"impasto: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        _say("impasto: interrupted")
        return INTERRUPTED


def _stylize(options: argparse.Namespace) -> int:
    from impasto.images import check_writable
    from impasto.recipes import Stylizer

    paintings = [name for name, _ in options.style] or [name for _, name in options.regions]
    targets = _targets(options.photos, paintings, options.output)
    if options.film and len(targets) > 1:
        raise ImpastoError("a film shows a single picture; give one photo, or no --film")
    stylizer = Stylizer(options.style, regions=options.regions, **chosen(options, Settings))
    for target in targets:
        check_writable(target)
    _check_spared([*targets, options.film], [*options.photos, *_inputs(options)], options.force)

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
            made = _paint_and_save(paint, title, steps, target, options, checkpoint)
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
            results.append({"photo": photo, **_summary(*made)})
            interrupted = made[1].stopped == "interrupted"
        if interrupted:
            break
    _tell_results(results, options)
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
        note, steps = record["note"], record["settings"]["steps"]
        inputs = {role: given["path"] for role, given in record["inputs"].items()}
        photo = inputs["photo"]
        target, options.force = Path(note["output"]), note["force"]
    except (KeyError, TypeError, AttributeError):
        raise ImpastoError(f"{path} does not say where its picture was to go; begin anew") from None
    _check_spared([target, options.film], list(inputs.values()), options.force)
    paint = functools.partial(resume, path, checkpoint_every=options.checkpoint_every)
    made = _paint_and_save(paint, Path(photo).name, steps, target, options, path)
    _tell_results([{"photo": photo, **_summary(*made)}], options)
    return INTERRUPTED if made[1].stopped == "interrupted" else 0


def _reconstruct(options: argparse.Namespace) -> int:
    from impasto.reconstructions import reconstruct

    settings = chosen(options, ReconstructSettings)
    if "weights_of_photos" in options:
        settings["weights_of_photos"] = options.weights_of_photos
    layers = settings.get("layers", ReconstructSettings().layers)
    stems = [Path(photo).stem for photo in options.photos]
    name = "-".join([*stems, *layers])
    paint = functools.partial(reconstruct, options.photos, **settings)
    title = ", ".join(Path(photo).name for photo in options.photos)
    return _make(paint, title, name, options, options.photos, ReconstructSettings())


def _texture(options: argparse.Namespace) -> int:
    from impasto.textures import texture

    paint = functools.partial(texture, options.painting, **chosen(options, TextureSettings))
    path = Path(options.painting)
    inputs = [options.painting]
    return _make(paint, path.name, f"{path.stem}-texture", options, inputs, TextureSettings())


def _make(
    paint: Callable[..., Artwork],
    title: str,
    name: str,
    options: argparse.Namespace,
    inputs: Sequence[str],
    default: RunSettings,
) -> int:
    """Make one picture; its `name` is used where there is no --output."""
    from impasto.images import check_writable

    target = Path(options.output or f"{name}.png")
    check_writable(target)
    _check_spared([target, options.film], [*inputs, *_inputs(options)], options.force)
    steps = getattr(options, "steps", default.steps)
    made = _paint_and_save(paint, title, steps, target, options)
    _tell_results([_summary(*made)], options)
    return INTERRUPTED if made[1].stopped == "interrupted" else 0


def _atlas(options: argparse.Namespace) -> int:
    from impasto.atlases import atlas, channels
    from impasto.images import check_writable
    from impasto.sheets import SheetInterrupted

    settings = chosen(options, AtlasSettings)
    photo, painting = Path(options.photo), Path(options.painting or "")
    if options.channels:
        target = Path(options.output or f"{photo.stem}-{options.channels}.png")
    else:
        target = Path(options.output or f"{photo.stem}-{painting.stem}-atlas.png")
    check_writable(target)
    _check_spared([target], [options.photo, options.painting, *_inputs(options)], options.force)
    if options.channels:
        return _save_sheet(channels(options.photo, options.channels, **settings), target, options)
    if not options.painting:
        raise ImpastoError("an atlas needs a photo and a painting; give both, or --channels LAYER")
    try:
        with ProgressOfRuns(quiet=options.quiet) as progress:
            sheet = atlas(options.photo, options.painting, callback=progress.update, **settings)
    except SheetInterrupted as interruption:
        sheet = interruption.sheet
    return _save_sheet(sheet, target, options)


def _compare(options: argparse.Namespace) -> int:
    from impasto.comparisons import Comparison, compare
    from impasto.files import check_folder
    from impasto.images import check_writable
    from impasto.sheets import SheetInterrupted

    settings = chosen(options, Settings)
    vary = varied(parsers()[1]["stylize"], options.vary)
    stem = "-".join([Path(options.photo).stem, "by", *(option for option, _ in options.vary)])
    target = Path(options.output or f"{stem}.png")
    table = Path(options.csv) if options.csv else target.with_suffix(".csv")
    plot = Path(options.plot) if options.plot else None
    check_writable(target)
    check_folder(table)
    if table.suffix.lower() != ".csv":
        raise ImpastoError(f"{table} is no name for a table; end it with .csv")
    if plot:
        check_writable(plot)
    parts = [part for _, texts in options.vary for text in texts for part in text.split("+")]
    varied_files = [weighted_file(part)[0] for part in parts]
    inputs = [options.photo, *_inputs(options), *varied_files]
    _check_spared([target, table, plot], inputs, options.force)
    try:
        with ProgressOfRuns(quiet=options.quiet) as progress:
            sheet: Sheet = compare(
                options.photo,
                options.style,
                regions=options.regions,
                vary=vary,
                callback=progress.update,
                **settings,
            )
    except SheetInterrupted as interruption:
        sheet = interruption.sheet
    assert isinstance(sheet, Comparison)
    ways = [functools.partial(sheet.save_table, table)]
    if plot:
        ways.append(functools.partial(sheet.save_curves, plot))
    return _save_sheet(sheet, target, options, ways)


def _inputs(options: argparse.Namespace) -> list[str]:
    """The files that go in beside the photos."""
    given = vars(options)
    paintings = [name for name, _ in given.get("style", ())]
    others = [str(given[name]) for name in ("init", "weights") if name in given]
    return [*paintings, *chain(*given.get("regions", ())), *others]


def _check_spared(
    outputs: Sequence[Path | str | None], inputs: Sequence[str | None], force: bool
) -> None:
    """Raise an `ImpastoError` where an output is to go to where another goes, or to an input."""
    paths = [Path(output) for output in outputs if output]
    for number, path in enumerate(paths):
        if os.path.abspath(path) in map(os.path.abspath, paths[:number]):  # noqa: PTH100
            raise ImpastoError(f"{path} is named for two things; give one of them another name")
        if force and any(_same_file(path, name) for name in inputs if name):
            raise ImpastoError(f"{path} is one of the inputs; choose another name for it")


def _save_sheet(
    sheet: Sheet,
    target: Path,
    options: argparse.Namespace,
    ways: Sequence[Callable[..., Path]] = (),
) -> int:
    """Save a page, even after Ctrl-C, and what lies beside it in these ways; tell of them."""
    with _uninterrupted():
        written = sheet.save(target, force=options.force)
        beside = [save(force=options.force) for save in ways]
    interrupted = sheet.stopped == "interrupted"
    if interrupted:
        _say("interrupted; the page is saved with what was made by then")
    width, height = sheet.image.size
    summary = {
        "output": str(written),
        "size": [width, height],
        "stopped": sheet.stopped,
        "beside": [str(path) for path in beside],
    }
    _tell_results([summary], options)
    if not options.json and not options.quiet:
        print(f"{written}  ({width} x {height} pixels)")
        for path in beside:
            print(path)
    return INTERRUPTED if interrupted else 0


def _paint_and_save(
    paint: Callable[..., Artwork],
    title: str,
    steps: int,
    target: Path,
    options: argparse.Namespace,
    checkpoint: Path | None = None,
) -> tuple[Path, Artwork, Path | None]:
    """Paint with a progress bar, save what there is even after Ctrl-C, and tell of it.

    Returns where the picture is, what it is, and where its film is.
    """
    from impasto.artworks import Interrupted

    film = _film(options, steps)
    with film or contextlib.nullcontext():  # written however this ends
        try:
            with Progress(title, quiet=options.quiet) as progress:
                artwork = paint(callback=_both(progress.update, film.add if film else None))
        except Interrupted as interruption:
            artwork = interruption.artwork
        with _uninterrupted():
            try:
                written = artwork.save(target, force=options.force)
            except ImpastoError as error:
                if checkpoint is None or not checkpoint.exists():
                    raise
                advice = f"then go on with: impasto resume {checkpoint}"
                raise ImpastoError(f"{error}; {advice}") from None
            _tell(written, artwork, options)
            if film:
                film.write()
    if film and not options.json and not options.quiet:
        print(film.written)
    return written, artwork, film.written if film else None


def _film(options: argparse.Namespace, steps: int) -> Film | None:
    if not options.film:
        return None
    from impasto.films import Film

    return Film(options.film, steps, force=options.force)


def _both(one: Callable[..., None], other: Callable[..., None] | None) -> Callable[..., None]:
    def both(*step: Any) -> None:
        one(*step)
        if other:
            other(*step)

    return both


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


def _targets(photos: Sequence[str], paintings: Sequence[str], output: str | None) -> list[Path]:
    """The file that each photo is to be written to; creates the folder if there is to be one."""
    names: list[str] = []
    for photo in photos:
        stem = "-".join(Path(name).stem for name in [photo, *paintings])
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


def _summary(written: Path, artwork: Artwork, film: Path | None) -> dict[str, Any]:
    return {
        "output": str(written),
        **({"film": str(film)} if film else {}),
        "size": list(artwork.image.size),
        "stopped": artwork.stopped,
        "steps": artwork.steps,
        "evaluations": artwork.evaluations,
        "seconds": round(artwork.seconds, 3),
        "loss": artwork.losses[-1],
        "losses": artwork.losses,
        "parts": dict(artwork.parts),
    }


def _tell_results(results: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    if options.json:
        print(json.dumps({"impasto": __version__, "results": results}))


def _tell(written: Path, artwork: Artwork, options: argparse.Namespace) -> None:
    if artwork.stopped == "flat" and not options.quiet:
        _say(f"stopped after {artwork.steps} steps: the loss has stopped falling")
    if artwork.stopped == "interrupted":
        on = f"; to go on: impasto resume {artwork.checkpoint}" if artwork.checkpoint else ""
        _say(f"interrupted after {artwork.steps} steps; the picture is saved as it is{on}")
    if not options.json and not options.quiet:
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


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "stylize": _stylize,
    "reconstruct": _reconstruct,
    "texture": _texture,
    "atlas": _atlas,
    "compare": _compare,
    "resume": _resume,
    "show": _show,
    "info": _info,
    "samples": _samples,
}


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


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
