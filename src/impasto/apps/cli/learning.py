"""How a command trains a network: its files, progress, Ctrl-C and going on later."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto.apps.cli.console import interruptions, say
from impasto.apps.cli.making import Reported, same_file
from impasto.apps.cli.progress import Progress
from impasto.apps.cli.series import kept_beside
from impasto.errors import ImpastoError, notice
from impasto.pictures.files import check_folder, numbered

if TYPE_CHECKING:  # loading these takes long, and `impasto --help` must not wait for them
    from PIL.Image import Image

    from impasto.networks.train import Course

STALE = 0.7
"""If the network that is kept is older than this share of the training, a notice says so."""


def free(first: Path, inputs: Sequence[str], out: Reported) -> Path:
    """The file for a network, so that nothing is lost: no input, nothing that is there already.

    Raises:
        ImpastoError: it has another ending or cannot be written; or, with --force, it or a file
            beside it is an input, or belongs to a training that can go on.
    """
    check_network(first)
    kept = kept_beside(first)
    if out.force:
        for path in _all(first):
            if any(same_file(path, name) for name in inputs):
                raise ImpastoError(f"{path} is one of the inputs; choose another name for it")
        if kept.exists():
            raise ImpastoError(
                f"{kept} is an unfinished training; go on with impasto resume {kept}, or delete it"
            )
        return first
    target = next(name for name in numbered(first) if not any(map(os.path.exists, _all(name))))
    if target != first:
        on = f"; an earlier training is kept, to go on: impasto resume {kept}"
        notice(
            f"{first}, or a file beside it, exists already; {target} is written instead"
            + (on if kept.exists() else "")
        )
    return target


def train_again(kept: Path, checkpoint_every: float, out: Reported) -> int:
    """Go on with a training from its checkpoint; its files are those beside the checkpoint."""
    from impasto.networks import generate, train
    from impasto.paint.checkpoints import SUFFIX, read_record

    if out.output is not None:
        raise ImpastoError("a network is saved beside its checkpoint; leave --output out")
    record = read_record(kept)
    note = record.get("note") or {}
    name = str(note.get("output") or kept.name.removesuffix(SUFFIX))
    target = kept.with_name(Path(name).name)
    check_network(target)
    if not _is_ours(target):
        free = (n for n in numbered(target) if not any(map(os.path.exists, [n, *_beside(n)])))
        target = next(free)
        notice(f"another network has taken the name; {target} is written instead")
    again = generate.start_again if record["kind"] == generate.KIND else train.start_again
    course: Any = again(kept, checkpoint_every=checkpoint_every)
    return trained(course, target, out)


def _is_ours(target: Path) -> bool:
    """Whether a name is free for a training, or has what the training saved when interrupted."""
    from impasto.networks.files import read

    if not target.exists():
        return True
    try:
        return read(target).styles[-1].training.get("stopped") == "interrupted"
    except ImpastoError:
        return False


def trained(course: Course[Any], target: Path, out: Reported) -> int:
    """Train with progress, and save everything even after Ctrl-C; returns the exit code."""
    from impasto.networks.files import write

    watch, training = interruptions.get(), course.training
    title = ", ".join(training.names)
    pictures = len(training.previews)
    # Ctrl-C waits for the end of a step; what is written beside the network stays whole.
    with watch.held(), Progress(quiet=out.quiet) as progress:
        try:
            for step in course:
                progress.trained(title, step)
                if step.validation or len(training.previews) > pictures:
                    pictures = len(training.previews)
                    _write_beside(course, target)
                if watch.asked:
                    break
        except ImpastoError as error:
            if not training.is_worth_keeping:
                raise
            written = write(training.network, target, force=_is_ours(target))
            raise ImpastoError(f"{error}; the best network so far is in {written}") from None
    with watch.held():
        course.keep()
        kept = course.checkpoint
        on = f"to go on: impasto resume {kept}" if kept and kept.exists() else ""
        try:
            written = write(training.network, target, force=out.force or _is_ours(target))
        except ImpastoError as error:
            raise ImpastoError(f"{error}{on and f'; then {on}'}") from None
        _write_beside(course, target, is_last=True)
        done = training.done >= 1
        if done:
            course.end()
    about = training.record
    told = {"output": str(written), "styles": training.styles, **about}
    minutes = f"{training.seconds / 60:.1f} minutes"
    out.tell(f"{written}  ({training.step} steps, {minutes}{_reached(about)})")
    if not done:
        say(f"interrupted; what was learned is saved{on and '; '}{on}")
    elif about.get("kept step", training.step) < STALE * training.step:
        notice(
            f"the network is that of step {about['kept step']}: since then, held-out photos have "
            "not become better; more photos would help, more time would not"
        )
    return out.finish(told)


def _reached(about: Mapping[str, Any]) -> str:
    """The losses at the end, from the record of a training."""
    if reached := about.get("validation"):
        return f", held-out photos: content {reached['content']:.3f}, style {reached['style']:.3f}"
    return "".join(f", {name} {value:.3f}" for name, value in about.get("reached", {}).items())


def _all(target: Path) -> list[Path]:
    """The network's file, its checkpoint and all else that lies beside it."""
    return [target, kept_beside(target), *_beside(target)]


def _beside(target: Path) -> list[Path]:
    from impasto.networks.photos import BESIDE

    return [target.with_name(f"{target.stem}{end}") for end in BESIDE]


def _write_beside(course: Course[Any], target: Path, *, is_last: bool = False) -> None:
    from impasto.networks.growth import Growth
    from impasto.pages import training as pages
    from impasto.pictures import files, images

    training = course.training
    table, plot, adversaries, sheet, film = _beside(target)
    pictures: list[tuple[Path, Callable[[Any], Image | None]]]
    pictures = [(plot, pages.plot), (adversaries, pages.adversaries)]
    pictures += [(sheet, pages.previews)] if training.previews else []
    try:
        files.write_whole(pages.table(training).encode(), table, True)
        for path, draw in pictures:
            if picture := draw(training):
                images.write(picture, path, force=True)
        if is_last and isinstance(training, Growth):
            pages.film(training, film)
    except ImpastoError as error:  # training is worth more than its curves
        notice(str(error))


def check_network(target: Path) -> None:
    """Find out before the work whether a network can be written there.

    Raises:
        ImpastoError: it has another ending, or its folder is missing or not writable.
    """
    from impasto.networks.files import SUFFIX

    if target.suffix != SUFFIX:
        raise ImpastoError(f"{target} is no name for a network; end it with {SUFFIX}")
    check_folder(target)
