"""How a command makes pictures and pages: shown, saved even after Ctrl-C, and told of."""

from __future__ import annotations

import contextlib
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

INTERRUPTED = 130

Count = Annotated[int, converted(lambda texts: number(int, texts[-1]), metavar="N")]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Output:
    """Where a page goes, and what is said of it.

    Args:
        output: where to write: a .png, .jpg, .webp, .tif, .bmp or .gif file; a folder, which is
            created, with a / at its end; or - for standard output, and what is told, with --json
            too, goes to standard error. By default a file here, named after what goes in.
        format: png, jpg or another, where no file's name says it.
        force: replace a file that exists already.
        quiet: no progress, only errors.
        json: print one JSON object at the end.
    """

    output: Annotated[File | None, Parameter(alias="-o")] = None
    format: str | None = None
    force: bool = False
    quiet: bool = False
    json: bool = False

    @property
    def is_standard(self) -> bool:
        """Whether standard output is for the picture, and nothing else."""
        return self.output == STANDARD

    def placed(self, names: Sequence[str]) -> list[Path]:
        """Files of these names here or in a folder, or the one file that is asked for."""
        if self.output is None:
            return [Path(name) for name in names]
        folder = Path(self.output)
        is_folder = os.path.isdir(folder) or self.output.endswith(("/", os.sep))  # noqa: PTH112
        if self.is_standard or not is_folder:
            if len(names) == 1:
                return [folder]
            if self.is_standard or folder.suffix:
                raise ImpastoError(
                    f"{_called(folder)} is a file, and {len(names)} photos need a folder; "
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
        """Find out before the work whether pictures can be written, and nothing is written over.

        Raises:
            ImpastoError: one cannot be written; or an output is to go where another goes or, with
                `force`, to an input.
        """
        from impasto.pictures.images import check_writable

        for target in targets:
            check_writable(target, self.format)
        files = [Path(file) for file in (*targets, *beside) if file and str(file) != STANDARD]
        for before, path in enumerate(files):
            if os.path.abspath(path) in map(os.path.abspath, files[:before]):  # noqa: PTH100
                raise ImpastoError(f"{path} is named for two things; give one of them another name")
            if self.force and any(_is(path, name) for name in inputs):
                raise ImpastoError(f"{path} is one of the inputs; choose another name for it")

    def tell(self, line: str) -> None:
        """A line about what was made."""
        if not self.json and not self.quiet:
            self._tell(line)

    def tell_results(self, *results: dict[str, Any]) -> None:
        """The one JSON object, if it was asked for."""
        if self.json:
            self._tell(json.dumps({"impasto": __version__, "results": results}))

    def _tell(self, line: str) -> None:
        (say if self.is_standard else tell)(line)

    def sheet(self, make: Callable[..., Sheet]) -> Sheet:
        """Make a page of several runs, or of those there were when Ctrl-C came."""
        from impasto.api import SheetInterrupted

        watch = interruptions()

        def report(title: str, step: Step) -> None:
            watch.hold = True  # Ctrl-C waits for the next step: the page is drawn in peace
            watch.check()
            progress.update(title, step)

        try:
            with Progress(quiet=self.quiet, lines=2) as progress:
                return make(callback=report)
        except SheetInterrupted as interruption:
            return interruption.sheet

    def save_sheet(self, sheet: Sheet, saves: Sequence[Callable[..., Path]]) -> int:
        """Save a page in the first of these ways, what lies beside it in others; tell of them.

        Raises:
            ImpastoError: one of them cannot be written; what can be is.
        """
        written: list[Path] = []
        failures: list[ImpastoError] = []
        width, height = sheet.image.size
        with interruptions().held():
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
        self.tell_results({"output": page, **about})
        return INTERRUPTED if sheet.stopped == "interrupted" else 0


@dataclass(frozen=True, kw_only=True)
class PictureOutput(Output):
    """Where a picture goes, and what else becomes of the steps on the way.

    Args:
        film: the iterations as a film: an .mp4 or .gif file (of a single picture).
        stills: every Nth step as a picture beside the output: NAME-step0050.png, ...
    """

    film: File | None = None
    stills: Count | None = None

    def made(self, painting: Painting, title: str, target: Path) -> int:
        """Paint a single picture."""
        made = self.painted(painting, title, target)
        self.tell_results(made)
        return INTERRUPTED if made["stopped"] == "interrupted" else 0

    def painted(self, painting: Painting, title: str, target: Path) -> dict[str, Any]:
        """Paint with a progress bar, save what there is even after Ctrl-C, and tell of it.

        Returns what is told of it as JSON.
        """
        from impasto.pictures.films import Film, Stills

        watch = interruptions()
        film: Film | None = None
        stills: Stills | None = None
        with painting, contextlib.ExitStack() as stack:
            if self.stills is not None:
                if self.is_standard:
                    raise ImpastoError("stills lie beside a picture; name its file with --output")
                stills = Stills(target, self.stills, force=self.force)
            if self.film:  # written however this ends
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
        if film:
            self.tell(str(film.written))
        told: dict[str, Any] = {"output": str(written), "size": list(artwork.image.size)}
        for name in ("stopped", "steps", "evaluations", "losses"):
            told[name] = getattr(artwork, name)
        told |= {"seconds": round(artwork.seconds, 3), "loss": artwork.losses[-1]}
        told |= {"parts": dict(artwork.parts)}
        told |= {"film": str(film.written)} if film else {}
        return told | ({"stills": list(map(str, stills.written))} if stills else {})

    def _saved(self, artwork: Artwork, target: Path) -> Path:
        """Save a picture and tell of it; returns the path that it got."""
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


def _is(one: Path, other: str) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False
