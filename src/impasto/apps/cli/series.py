"""Several photos, one after another: each is painted, skipped, or resumed from a checkpoint."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from impasto.apps.cli.console import interruptions, say
from impasto.apps.cli.making import INTERRUPTED, PictureOutput
from impasto.errors import ImpastoError, notice, told_of
from impasto.pictures.files import STANDARD, numbered

if TYPE_CHECKING:  # imports torch, which `impasto --help` must not wait for
    from impasto.paint.stylize import Stylizer


def one_after_another(
    photos: Sequence[str], targets: Sequence[Path], paint: Callable[..., Any], out: PictureOutput
) -> int:
    """Paint photos and return the exit code; if one photo fails, the others are painted still."""
    results: list[dict[str, Any]] = []
    for number, (photo, target) in enumerate(zip(photos, targets, strict=True), 1):
        name = name_of(photo)
        title = name if len(targets) == 1 else f"{name} ({number} of {len(targets)})"
        try:
            results.append({**paint(photo, target, title, out), "photo": photo})
        except KeyboardInterrupt:
            if not results:
                raise
            say("impasto: interrupted; what was painted before is kept")
            break
        except Exception as error:
            if len(targets) == 1:
                raise
            reason = told_of(name, error)
            say(f"impasto: {reason}")
            results.append({"photo": photo, "error": reason})
        # Ctrl-C may have come while a picture was saved.
        if interruptions.get().asked or results[-1].get("stopped") == "interrupted":
            break
    code = out.finish(*results)
    return code if len(results) == len(photos) else INTERRUPTED


def paint_or_go_on(
    stylizer: Stylizer,
    photo: str,
    target: Path,
    title: str,
    out: PictureOutput,
    *,
    skip_existing: bool,
    resumable: bool,
    every: float,
) -> dict[str, Any]:
    """Paint a photo, skip it, or go on with it from its checkpoint."""
    checkpoint, kept = None, kept_beside(target)
    if skip_existing:
        exists = os.path.exists(target)  # noqa: PTH110 # Path.exists raises
        if exists and not _is_unfinished(target):
            out.tell(f"{target}  (skipped: it is there already)")
            return {"output": str(target), "skipped": True}
        out = replace(out, force=exists)
        if os.path.exists(kept) and stylizer.is_kept_in(kept, photo):  # noqa: PTH110
            notice(f"{target} is finished from {kept.name}")
            return go_on(kept, target, title, every, out)
    if photo == STANDARD or not resumable:
        if not out.is_standard:
            notice("a run that reads standard input can't be resumed; give files if it has to be")
    else:
        checkpoint = next(n for n in numbered(kept) if not os.path.exists(n))  # noqa: PTH110
        if checkpoint != kept:
            advice = f"to go on with it: impasto resume {kept}"
            notice(f"an earlier run is kept in {kept}; {advice}")
    note = {"output": os.path.abspath(target), "force": out.force}  # noqa: PTH100
    painting = stylizer.start(photo, checkpoint=checkpoint, checkpoint_every=every, note=note)
    return out.painted(painting, title, target)


def go_on(
    kept: Path, target: Path, title: str | None, every: float, out: PictureOutput
) -> dict[str, Any]:
    """Go on with a run from its checkpoint; without a title, the photo's name is the title."""
    from impasto.paint.checkpoints import located, read_record
    from impasto.paint.stylize import start_again

    inputs = {role: str(path) for role, path in located(kept, read_record(kept)).items()}
    photo = inputs["photo"]
    out.check([target], list(inputs.values()), out.film)
    painting = start_again(kept, checkpoint_every=every)
    return {"photo": photo, **out.painted(painting, title or name_of(photo), target)}


def kept_beside(target: Path) -> Path:
    """The checkpoint file of a run that makes the picture `target`."""
    from impasto.paint.checkpoints import SUFFIX

    return target.with_name(f"{target.name}{SUFFIX}")


def _is_unfinished(target: Path) -> bool:
    """Whether an interrupted run saved this picture.

    A PNG says so itself; any other was saved right after the checkpoint, so it is no older.
    """
    from impasto.pictures.images import read_record

    try:
        return read_record(target).get("stopped") == "interrupted"
    except ImpastoError:
        with contextlib.suppress(OSError):
            return target.stat().st_mtime_ns >= kept_beside(target).stat().st_mtime_ns
        return False


def name_of(file: str) -> str:
    """The name of a picture in messages."""
    return "standard input" if file == STANDARD else Path(file).name


def stem_of(file: str) -> str:
    """The beginning of the names of pictures that are made from this one."""
    return "stdin" if file == STANDARD else Path(file).stem
