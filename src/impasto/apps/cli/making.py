"""How a command makes, saves and reports pictures and pages, even after Ctrl-C."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from impasto import __version__
from impasto.apps.cli.console import interruptions, say, tell
from impasto.apps.cli.options import File, converted
from impasto.apps.cli.progress import Progress
from impasto.apps.cli.texts import number
from impasto.errors import ImpastoError
from impasto.pictures.files import STANDARD

if TYPE_CHECKING:  # these import torch, which `impasto --help` must not wait for
    from impasto.api import Artwork, Sheet, Step
    from impasto.paint.run import Painting

SOME_FAILED, INTERRUPTED = 1, 130

Count = Annotated[int, converted(lambda texts: number(int, texts[-1]), metavar="N")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reported:
    """What is printed about results, and whether they replace files.

    Args:
        output: where the result goes.
        force: replace files that exist; otherwise a new file is called NAME-2, NAME-3, ...
        quiet: print no progress and no results, only errors.
        json: print the results as one JSON object at the end.
    """

    output: Annotated[File | None, Parameter(alias="-o")] = None
    force: bool = False
    quiet: bool = False
    json: bool = False

    @property
    def is_standard(self) -> bool:
        """Whether the result itself goes to standard output."""
        return self.output == STANDARD

    def tell(self, line: str) -> None:
        """Print a line about a result, unless --json or --quiet is given."""
        if not self.json and not self.quiet:
            self._tell(line)

    def finish(self, *results: dict[str, Any]) -> int:
        """Print the JSON object, if --json is given; returns the exit code."""
        if self.json:
            self._tell(json.dumps({"impasto": __version__, "results": results}))
        if any(result.get("stopped") == "interrupted" for result in results):
            return INTERRUPTED
        return SOME_FAILED if any("error" in result for result in results) else 0

    def _tell(self, line: str) -> None:
        (say if self.is_standard else tell)(line)


@dataclass(frozen=True, kw_only=True)
class NetworkOutput(Reported):
    """Where a network goes.

    Args:
        output: a .safetensors file. By default in the current folder, named after the paintings.
    """


@dataclass(frozen=True, kw_only=True)
class ExportOutput(Reported):
    """Where an exported network goes.

    Args:
        output: an .onnx or a .pt file. By default an .onnx file in the current folder.
    """


@dataclass(frozen=True, kw_only=True)
class Output(Reported):
    """Where a page goes, and what is printed about it.

    Args:
        output: a .png, .jpg, .webp, .tif, .bmp or .gif file; a folder, with a / at its end, which
            is created if missing; or - for standard output (all messages and --json then go to
            standard error). By default a file in the current folder, named after the inputs.
        format: the picture format, such as png or jpg, if no file name gives it.
    """

    format: str | None = None

    def placed(self, names: Sequence[str]) -> list[Path]:
        """The output files: --output, or files of these names in its folder or the current one."""
        if self.output is None:
            return [Path(name) for name in names]
        folder = Path(self.output)
        is_folder = os.path.isdir(folder) or self.output.endswith(("/", os.sep))  # noqa: PTH112
        if self.is_standard or not is_folder:
            if len(names) == 1:
                return [folder]
            if self.is_standard or folder.suffix:
                raise ImpastoError(
                    f"{_called(folder)} is a file, and {len(names)} pictures need a folder; "
                    "end it with a /"
                )
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise ImpastoError(f"{self.output} is a file and no folder; name another") from None
        except OSError as error:
            raise ImpastoError(
                f"the folder {self.output} cannot be created ({error.strerror}); choose another"
            ) from None
        return [folder / name for name in names]

    def check(
        self, targets: Sequence[Path], inputs: Sequence[str], *beside: str | Path | None
    ) -> None:
        """Find out before the work whether pictures can be written.

        Raises:
            ImpastoError: one cannot, two outputs are one file, or `force` would replace an input.
        """
        from impasto.pictures.images import check_writable

        for target in targets:
            check_writable(target, self.format)
        files = [Path(file) for file in (*targets, *beside) if file and str(file) != STANDARD]
        taken: set[str] = set()
        read = {identity(name) for name in inputs} if self.force else set()
        for path in files:
            place = os.path.abspath(path)  # noqa: PTH100
            if place in taken:
                raise ImpastoError(f"{path} is named for two outputs; give one another name")
            taken.add(place)
            if read and (own := identity(path)) and own in read:
                raise ImpastoError(f"{path} is one of the inputs; choose another name for it")

    def sheet(self, make: Callable[..., Sheet]) -> Sheet:
        """Make a page of several runs; after Ctrl-C, a page of what was painted by then."""
        from impasto.api import SheetInterrupted

        watch = interruptions.get()

        def report(title: str, step: Step) -> None:
            watch.hold = True  # Ctrl-C waits for the next step, not to cut off a drawing
            watch.check()
            progress.update(title, step)

        try:
            with Progress(quiet=self.quiet, lines=2) as progress:
                return make(callback=report)
        except SheetInterrupted as interruption:
            return interruption.sheet

    def save_sheet(self, sheet: Sheet, saves: Sequence[Callable[..., Path]]) -> int:
        """Call `saves`, for the page and then for the files beside it; returns the exit code.

        Raises:
            ImpastoError: a file cannot be written; the others are written nevertheless.
        """
        written: list[Path] = []
        failures: list[ImpastoError] = []
        width, height = sheet.image.size
        with interruptions.get().held():
            for index, save in enumerate(saves):
                try:
                    written.append(save(force=self.force))
                except ImpastoError as error:
                    failures.append(error)
                else:
                    size = "" if index else f"  ({width} x {height} pixels)"
                    self.tell(f"{_called(written[-1])}{size}")
        if sheet.stopped == "interrupted":
            say("interrupted; the page is saved with what was made by then")
        for failure in failures[:-1]:
            say(f"impasto: {failure}")
        if failures:
            raise failures[-1]
        page, *beside = map(str, written)
        about = {"size": [width, height], "stopped": sheet.stopped, "beside": beside}
        return self.finish({"output": page, **about})


@dataclass(frozen=True, kw_only=True)
class PictureOutput(Output):
    """Where a picture goes, and what else is made of the steps.

    Args:
        film: save the steps as a film, an .mp4 or .gif file (only for a single picture).
        stills: save every Nth step as a picture beside the output: NAME-step0050.png, ...
    """

    film: File | None = None
    stills: Count | None = None

    def made(self, painting: Painting, title: str, target: Path) -> int:
        """Paint a single picture; returns the exit code."""
        return self.finish(self.painted(painting, title, target))

    def painted(self, painting: Painting, title: str, target: Path) -> dict[str, Any]:
        """Paint with progress, save even after Ctrl-C, return the entry for the JSON object."""
        from impasto.pictures.films import Film, Stills

        watch = interruptions.get()
        film: Film | None = None
        stills: Stills | None = None
        with painting, contextlib.ExitStack() as stack:
            if self.stills is not None:
                if self.is_standard:
                    raise ImpastoError("stills lie beside a picture; name its file with --output")
                stills = Stills(target, self.stills, force=self.force)
            if self.film:  # leaving the stack writes it, whatever happens
                film = stack.enter_context(Film(self.film, painting.planned, force=self.force))
            try:
                with Progress(quiet=self.quiet) as progress:
                    for step in painting:
                        watch.check()
                        progress.update(title, step)
                        if film:
                            film.add(step)
                        if stills:
                            stills.add(step)
            except KeyboardInterrupt:
                if painting.last is None:
                    raise
            with watch.held():
                painting.close()  # the checkpoint comes before the picture
                artwork = painting.artwork
                written = self._saved(artwork, target)
                if film:
                    film.write()
        told: dict[str, Any] = {"output": str(written), "size": list(artwork.image.size)}
        for name in ("stopped", "steps", "evaluations", "losses"):
            told[name] = getattr(artwork, name)
        told |= {"seconds": round(artwork.seconds, 3), "loss": artwork.losses[-1]}
        told["parts"] = dict(artwork.parts)
        if film:
            told["film"] = str(film.written)
            self.tell(told["film"])
        if stills:
            told["stills"] = [*map(str, stills.written)]
        return told

    def _saved(self, artwork: Artwork, target: Path) -> Path:
        """Save a picture and print the result; returns the path that it got."""
        kept = artwork.checkpoint
        try:
            written = artwork.save(target, force=self.force, format=self.format)
        except ImpastoError as error:
            if kept is None or not kept.exists():
                raise
            raise ImpastoError(f"{error}; then go on with: impasto resume {kept}") from None
        if artwork.stopped == "flat" and not self.quiet:
            say(f"stopped after {artwork.steps} steps: the loss has stopped falling")
        if artwork.stopped == "interrupted":
            on = f"; to go on: impasto resume {kept}" if kept else ""
            say(f"interrupted after {artwork.steps} steps; the picture is saved as it is{on}")
        width, height = artwork.image.size
        self.tell(
            f"{_called(written)}  ({width} x {height} pixels, {artwork.steps} steps, "
            f"{artwork.seconds:.0f} s, loss {artwork.losses[0]:.4g} -> {artwork.losses[-1]:.4g})"
        )
        return written


def _called(path: Path) -> str:
    return "standard output" if str(path) == STANDARD else str(path)


def free_names(stems: Sequence[str], out: Output) -> list[str]:
    """A file name for each stem, with -2, -3, ... where another has the same."""
    used: dict[str, int] = {}
    names: dict[str, None] = {}
    for stem in stems:
        for count in itertools.count(used.get(stem, 1)):
            name = f"{stem}-{count}" if count > 1 else stem
            if f"{name}.{out.format or 'png'}" not in names:
                break
        used[stem] = count + 1
        names[f"{name}.{out.format or 'png'}"] = None
    return list(names)


def identity(path: str | Path) -> tuple[int, int] | None:
    """What tells a file from all others, whatever its names; None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 # Path.stat raises for more
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def same_file(one: str | Path, other: str | Path) -> bool:
    """Whether two paths are those of one file that exists."""
    return (own := identity(one)) is not None and own == identity(other)
