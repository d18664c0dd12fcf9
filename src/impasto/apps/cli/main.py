"""The command line: commands, messages and exit codes.

Exit codes: 0 all went well; 1 some of several photos failed; 2 bad input; 130 interrupted.
What was made goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto import __version__
from impasto.apps.cli import console
from impasto.apps.cli.arguments import (
    BAD_INPUT,
    chosen,
    parsers,
    parted,
    spelled_out,
    varied,
    weighted_file,
)
from impasto.apps.cli.console import Interruptions, print_out, say, tell
from impasto.apps.cli.progress import Progress, ProgressOfRuns
from impasto.errors import LOGGER, ImpastoError, notice
from impasto.pictures.files import STANDARD
from impasto.settings import (
    AtlasSettings,
    ReconstructSettings,
    RunSettings,
    Settings,
    TextureSettings,
)

if TYPE_CHECKING:  # these import torch, which `impasto --help` must not wait for
    from impasto.optimise.base import Step
    from impasto.pages.sheet import Sheet
    from impasto.paint.artworks import Artwork
    from impasto.paint.stylize import Stylizer

SOME_FAILED, INTERRUPTED = 1, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    console.prepare()
    try:
        given = sys.argv[1:] if arguments is None else arguments
        return _run(spelled_out(given), Interruptions(lasting=arguments is None))
    finally:
        console.finish()


def _run(given: Sequence[str], interruptions: Interruptions) -> int:
    parser, commands = parsers()
    if not given or given[0] not in commands:
        parser.parse_args(given)  # which helps, tells the version, or says what is wrong
    # Options may stand between the photos, which a parser with sub-commands cannot do.
    options = commands[given[0]].parse_intermixed_args(given[1:])
    try:
        with (
            interruptions as options.interruptions,
            _notices_as_lines(quiet=getattr(options, "quiet", False)),
        ):
            return _COMMANDS[given[0]](options)
    except ImpastoError as error:
        say(f"impasto: {error}")
        return BAD_INPUT
    except KeyboardInterrupt:
        say("impasto: interrupted")
        return INTERRUPTED


def _stylize(options: argparse.Namespace) -> int:
    from impasto.paint.stylize import Stylizer
    from impasto.pictures.images import check_writable

    if options.skip_existing and options.force:
        raise ImpastoError("--skip-existing keeps what is there, --force replaces it; give one")
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
        name = _name(photo)
        title = name if len(targets) == 1 else f"{name} ({number} of {len(targets)})"
        try:
            results.append(_stylize_one(stylizer, photo, target, title, options))
        except KeyboardInterrupt:
            if not results:
                raise
            say("impasto: interrupted; what was painted before is kept")
            interrupted = True
        except Exception as error:  # whatever is wrong with one, the others are painted
            if len(targets) == 1:
                raise
            reason = str(error) if isinstance(error, ImpastoError) else _defect(name, error)
            say(f"impasto: {reason}")
            results.append({"photo": photo, "error": reason})
            failed = True
        else:
            interrupted = results[-1].get("stopped") == "interrupted"
        # Ctrl-C may have come while a picture was saved.
        if interrupted or (options.interruptions.asked and number < len(targets)):
            interrupted = True
            break
    _tell_results(results, options)
    return INTERRUPTED if interrupted else SOME_FAILED if failed else 0


def _stylize_one(
    stylizer: Stylizer, photo: str, target: Path, title: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Paint one photo, or leave it out, or go on with it; what `_tell_results` tells of it."""
    from impasto.paint.checkpoints import SUFFIX

    force = options.force
    if options.skip_existing:
        kept = target.with_name(target.name + SUFFIX)
        exists = os.path.exists(target)  # noqa: PTH110 # Path.exists raises
        force = exists and _is_unfinished(target, kept)
        if exists and not force:
            if not options.json and not options.quiet:
                tell(f"{target}  (skipped: it is there already)")
            return {"photo": photo, "output": str(target), "skipped": True}
        if os.path.exists(kept) and stylizer.is_kept_in(kept, photo):  # noqa: PTH110
            notice(f"{target} is finished from {kept.name}")
            return {**_go_on(kept, target, title, force, options), "photo": photo}
    checkpoint = None
    if STANDARD in (photo, *_inputs(options)):
        notice("a run on standard input can't be resumed; paint a file to be able to")
    else:
        checkpoint = _free_checkpoint(target)
    paint = functools.partial(
        stylizer.paint,
        photo,
        checkpoint=checkpoint,
        checkpoint_every=options.checkpoint_every,
        note={"output": os.path.abspath(target), "force": force},  # noqa: PTH100
    )
    steps = stylizer.settings.steps
    made = _paint_and_save(paint, title, steps, target, force, options, checkpoint)
    return {"photo": photo, **made}


def _resume(options: argparse.Namespace) -> int:
    from impasto.paint.checkpoints import SUFFIX, read_record
    from impasto.pictures.images import FORMATS

    path = Path(options.file)
    if not path.name:
        raise ImpastoError(f"{path} is a folder; give a checkpoint in it, or a picture's name")
    beside = path.with_name(path.name + SUFFIX)
    if path.suffix != SUFFIX and os.path.exists(beside):  # noqa: PTH110
        path = beside  # the name of the picture will do
    note = read_record(path).get("note") or {}
    name = Path(str(note.get("output") or path.name.removesuffix(SUFFIX))).name
    if Path(name).suffix.lower() not in FORMATS:
        name = f"{name}.png"
    (target,) = _placed([name], options.output) if options.output else [path.with_name(name)]
    force = options.force or bool(note.get("force"))
    result = _go_on(path, target, None, force, options)
    _tell_results([result], options)
    return INTERRUPTED if result["stopped"] == "interrupted" else 0


def _go_on(
    checkpoint: Path, target: Path, title: str | None, force: bool, options: argparse.Namespace
) -> dict[str, Any]:
    """Go on with a run; the photo's name is its title where none is given."""
    from impasto.paint.checkpoints import located, read_record
    from impasto.paint.stylize import resume
    from impasto.pictures.images import check_writable

    record = read_record(checkpoint)
    inputs = {role: str(path) for role, path in located(checkpoint, record).items()}
    check_writable(target)
    _check_spared([target, options.film], list(inputs.values()), force)
    photo, steps = inputs["photo"], record["settings"]["steps"]
    paint = functools.partial(resume, checkpoint, checkpoint_every=options.checkpoint_every)
    title = title or Path(photo).name
    made = _paint_and_save(paint, title, steps, target, force, options, checkpoint)
    return {"photo": photo, **made}


def _is_unfinished(target: Path, checkpoint: Path) -> bool:
    """Whether a picture is one that an interrupted run has left as it was.

    A PNG says so; any other was saved right after the run's checkpoint.
    """
    from impasto.pictures.images import read_record

    try:
        return read_record(target).get("stopped") == "interrupted"
    except ImpastoError:
        with contextlib.suppress(OSError):
            return target.stat().st_mtime_ns >= checkpoint.stat().st_mtime_ns
        return False


def _reconstruct(options: argparse.Namespace) -> int:
    from impasto.encoders.base import load_encoder
    from impasto.paint.reconstruct import reconstruct

    settings = chosen(options, ReconstructSettings)
    if "weights_of_photos" in options:
        settings["weights_of_photos"] = options.weights_of_photos
    layers = settings.get("layers") or load_encoder().shares([load_encoder().content_layer])
    stems = [_stem(photo) for photo in options.photos]
    name = "-".join([*stems, *layers])
    paint = functools.partial(reconstruct, options.photos, **settings)
    title = ", ".join(map(_name, options.photos))
    return _make(paint, title, name, options, options.photos, ReconstructSettings())


def _texture(options: argparse.Namespace) -> int:
    from impasto.paint.texture import texture

    paint = functools.partial(texture, options.painting, **chosen(options, TextureSettings))
    painting = options.painting
    name = f"{_stem(painting)}-texture"
    return _make(paint, _name(painting), name, options, [painting], TextureSettings())


def _make(
    paint: Callable[..., Artwork],
    title: str,
    name: str,
    options: argparse.Namespace,
    inputs: Sequence[str],
    default: RunSettings,
) -> int:
    """Make one picture; its `name` is used where there is no --output."""
    from impasto.pictures.images import check_writable

    (target,) = _placed([f"{name}.png"], options.output)
    check_writable(target)
    _check_spared([target, options.film], [*inputs, *_inputs(options)], options.force)
    steps = getattr(options, "steps", default.steps)
    made = _paint_and_save(paint, title, steps, target, options.force, options)
    _tell_results([made], options)
    return INTERRUPTED if made["stopped"] == "interrupted" else 0


def _atlas(options: argparse.Namespace) -> int:
    from impasto.pages.atlas import atlas, channels
    from impasto.pages.sheet import SheetInterrupted
    from impasto.pictures.images import check_writable

    settings = chosen(options, AtlasSettings)
    what = options.channels or f"{_stem(options.painting or '')}-atlas"
    (target,) = _placed([f"{_stem(options.photo)}-{what}.png"], options.output)
    check_writable(target)
    _check_spared([target], [options.photo, options.painting, *_inputs(options)], options.force)
    if options.channels:
        return _save_sheet(channels(options.photo, options.channels, **settings), target, options)
    if not options.painting:
        raise ImpastoError("an atlas needs a photo and a painting; give both, or --channels LAYER")
    sheet: Sheet | None = None
    try:
        with ProgressOfRuns(quiet=options.quiet) as progress:
            report = _watched(progress, options)
            sheet = atlas(options.photo, options.painting, callback=report, **settings)
    except SheetInterrupted as interruption:
        sheet = interruption.sheet
    except KeyboardInterrupt:
        if sheet is None:
            raise
    return _save_sheet(sheet, target, options)


def _compare(options: argparse.Namespace) -> int:
    from impasto.pages.compare import Comparison, compare
    from impasto.pages.sheet import SheetInterrupted
    from impasto.pictures.files import check_folder
    from impasto.pictures.images import check_writable

    settings = chosen(options, Settings)
    vary = varied(parsers()[1]["stylize"], options.vary)
    stem = "-".join([_stem(options.photo), "by", *(option for option, _ in options.vary)])
    (target,) = _placed([f"{stem}.png"], options.output)
    table = Path(options.csv) if options.csv else target.with_suffix(".csv")
    plot = Path(options.plot) if options.plot else None
    check_writable(target)
    check_folder(table)
    if table.suffix.lower() != ".csv":
        raise ImpastoError(f"{table} is no name for a table; end it with .csv")
    if plot:
        check_writable(plot)
    parts = [part for _, texts in options.vary for text in texts for part in parted(text)]
    varied_files = [weighted_file(part)[0] for part in parts]
    inputs = [options.photo, *_inputs(options), *varied_files]
    _check_spared([target, table, plot], inputs, options.force)
    sheet: Sheet | None = None
    try:
        with ProgressOfRuns(quiet=options.quiet) as progress:
            sheet = compare(
                options.photo,
                options.style,
                regions=options.regions,
                vary=vary,
                callback=_watched(progress, options),
                **settings,
            )
    except SheetInterrupted as interruption:
        sheet = interruption.sheet
    except KeyboardInterrupt:
        if sheet is None:
            raise
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
    """Save a page, even after Ctrl-C, and what lies beside it in these ways; tell of them.

    Raises:
        ImpastoError: one of them cannot be written; what can be is.
    """
    results: list[Path | ImpastoError] = []
    saves: list[Callable[..., Path]] = [functools.partial(sheet.save, target), *ways]
    with options.interruptions.held():
        for save in saves:
            try:
                results.append(save(force=options.force))
            except ImpastoError as error:
                results.append(error)
    interrupted = sheet.stopped == "interrupted"
    if interrupted:
        say("interrupted; the page is saved with what was made by then")
    page, *beside = results
    width, height = sheet.image.size
    if not options.json and not options.quiet:
        if isinstance(page, Path):
            tell(f"{page}  ({width} x {height} pixels)")
        for path in beside:
            if isinstance(path, Path):
                tell(str(path))
    failures = [result for result in results if isinstance(result, ImpastoError)]
    if failures:
        for failure in failures[:-1]:
            say(f"impasto: {failure}")
        raise failures[-1]
    summary = {
        "output": str(page),
        "size": [width, height],
        "stopped": sheet.stopped,
        "beside": [str(path) for path in beside],
    }
    _tell_results([summary], options)
    return INTERRUPTED if interrupted else 0


def _watched(progress: ProgressOfRuns, options: argparse.Namespace) -> Callable[[str, Step], None]:
    """What shows the steps of several runs, and ends them if that was asked for."""

    def report(title: str, step: Step) -> None:
        options.interruptions.check()
        progress.update(title, step)

    return report


def _paint_and_save(
    paint: Callable[..., Artwork],
    title: str,
    steps: int,
    target: Path,
    force: bool,
    options: argparse.Namespace,
    checkpoint: Path | None = None,
) -> dict[str, Any]:
    """Paint with a progress bar, save what there is even after Ctrl-C, and tell of it.

    Returns what is told of it as JSON.
    """
    from impasto.paint.artworks import Interrupted
    from impasto.pictures.films import Film, Stills

    film = Film(options.film, steps, force=force) if options.film else None
    stills = Stills(target, options.stills, force=force) if options.stills is not None else None

    def report(step: Step) -> None:
        options.interruptions.check()
        progress.update(step)
        for keeper in (film, stills):
            if keeper:
                keeper.add(step)

    artwork: Artwork | None = None
    with film or contextlib.nullcontext():  # written however this ends
        try:
            with Progress(title, quiet=options.quiet) as progress:
                artwork = paint(callback=report)
        except Interrupted as interruption:
            artwork = interruption.artwork
        except KeyboardInterrupt:
            if artwork is None:
                raise  # what is finished is saved all the same
        with options.interruptions.held():
            try:
                written = artwork.save(target, force=force)
            except ImpastoError as error:
                if checkpoint is None or not checkpoint.exists():
                    raise
                advice = f"then go on with: impasto resume {checkpoint}"
                raise ImpastoError(f"{error}; {advice}") from None
            _tell(written, artwork, options)
            if film:
                film.write()
    if film and not options.json and not options.quiet:
        tell(str(film.written))
    return {
        **_summary(written, artwork),
        **({"film": str(film.written)} if film else {}),
        **({"stills": [str(path) for path in stills.written]} if stills else {}),
    }


def _free_checkpoint(target: Path) -> Path:
    """Where to keep a run that makes `target`, without touching what another run has left."""
    from impasto.paint.checkpoints import SUFFIX

    numbers = chain([""], (f"-{n}" for n in count(2)))
    names = (target.with_name(f"{target.name}{number}{SUFFIX}") for number in numbers)
    # os.path.exists, because Path.exists raises where it may not look
    checkpoint = next(name for name in names if not os.path.exists(name))  # noqa: PTH110
    first = target.with_name(f"{target.name}{SUFFIX}")
    if checkpoint != first:
        notice(f"an earlier run is kept in {first}; to go on with it: impasto resume {first}")
    return checkpoint


def _targets(photos: Sequence[str], paintings: Sequence[str], output: str | None) -> list[Path]:
    """The file that each photo is to be written to; creates the folder if there is to be one."""
    names: list[str] = []
    for photo in photos:
        stem = "-".join(map(_stem, [photo, *paintings]))
        numbered = (f"{stem}{number}.png" for number in chain([""], (f"-{n}" for n in count(2))))
        names.append(next(name for name in numbered if name not in names))
    return _placed(names, output)


def _placed(names: Sequence[str], output: str | None) -> list[Path]:
    """Files of these names here or in a folder, or the one file that is asked for."""
    if output is None:
        return [Path(name) for name in names]
    folder = Path(output)
    if not os.path.isdir(output) and not output.endswith(("/", os.sep)):  # noqa: PTH112
        if len(names) == 1:
            return [folder]
        if folder.suffix:
            raise ImpastoError(
                f"{output} is a file, and {len(names)} photos need a folder; end it with a /"
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


def _name(file: str) -> str:
    return "standard input" if file == STANDARD else Path(file).name


def _stem(file: str) -> str:
    return "stdin" if file == STANDARD else Path(file).stem


def _defect(name: str, error: Exception) -> str:
    """What is told of an error that is not the user's."""
    return (
        f"{name} failed ({type(error).__name__}: {error}); that is a defect of impasto, "
        "please report it"
    )


def _same_file(one: Path, other: str) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False


def _summary(written: Path, artwork: Artwork) -> dict[str, Any]:
    return {
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


def _tell_results(results: Sequence[dict[str, Any]], options: argparse.Namespace) -> None:
    if options.json:
        tell(json.dumps({"impasto": __version__, "results": results}))


def _tell(written: Path, artwork: Artwork, options: argparse.Namespace) -> None:
    if artwork.stopped == "flat" and not options.quiet:
        say(f"stopped after {artwork.steps} steps: the loss has stopped falling")
    if artwork.stopped == "interrupted":
        on = f"; to go on: impasto resume {artwork.checkpoint}" if artwork.checkpoint else ""
        say(f"interrupted after {artwork.steps} steps; the picture is saved as it is{on}")
    if not options.json and not options.quiet:
        width, height = artwork.image.size
        tell(
            f"{written}  ({width} x {height} pixels, {artwork.steps} steps, "
            f"{artwork.seconds:.0f} s, loss {artwork.losses[0]:.4g} -> {artwork.losses[-1]:.4g})"
        )


def _info(options: argparse.Namespace) -> int:
    from impasto.apps.cli.info import info

    facts = info()
    if options.json:
        print_out(json.dumps(facts))
    else:
        print_out("\n".join(f"{name:<9} {fact}" for name, fact in facts.items()))
    return 0


def _show(options: argparse.Namespace) -> int:
    from impasto.pictures.images import read_record

    record = read_record(options.file)
    losses = record.pop("losses", [])
    text = json.dumps(record, ensure_ascii=False, indent=2)
    if losses:
        text += f"\nlosses, step 0 to {len(losses) - 1}:\n"
        text += " ".join(f"{loss:.6g}" for loss in losses)
    print_out(text)
    return 0


def _samples(options: argparse.Namespace) -> int:
    from impasto.pictures.samples import sample, sample_names

    if options.name:
        print_out(str(sample(options.name)))
    else:
        kinds = sample_names().items()
        print_out("\n".join(f"{kind}: {' '.join(names)}" for kind, names in kinds))
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


class _AsLines(logging.Handler):
    """Notices as plain sentences, every one of them."""

    def emit(self, record: logging.LogRecord) -> None:
        say(f"note: {record.getMessage()}")


@contextlib.contextmanager
def _notices_as_lines(*, quiet: bool) -> Iterator[None]:
    handler = logging.NullHandler() if quiet else _AsLines()
    propagated, LOGGER.propagate = LOGGER.propagate, False
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.propagate = propagated
