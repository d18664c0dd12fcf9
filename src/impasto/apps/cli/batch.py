"""The command for folders of thousands: batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from impasto.apps.cli.commands import Paintings, app
from impasto.apps.cli.console import interruptions, say
from impasto.apps.cli.doors import staffed
from impasto.apps.cli.making import INTERRUPTED, SOME_FAILED, Count, Reported
from impasto.apps.cli.one_pass import Shares
from impasto.apps.cli.options import File, settings_of
from impasto.apps.cli.progress import Progress
from impasto.apps.cli.series import stem_of
from impasto.errors import ImpastoError
from impasto.settings import STARTS, ApplySettings, Settings, WorkSettings, choose, hints

_MACHINE = ("device", "memory")
Sources = Annotated[File, Parameter(required=True)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class FolderOutput(Reported):
    """Where the pictures go.

    Args:
        output: the folder for the pictures, which is created if missing. A report of every photo,
            report.jsonl, grows in it.
        force: paint again what is there.
        format: the picture format: png, jpg, webp, tif, bmp or gif.
    """

    format: str = "png"


FOLDER = FolderOutput()


@app.command
@settings_of(Settings)
def batch(
    *photos: Sources,
    style: Shares = (),
    paint: Paintings = (),
    network: str = "samples",
    workers: Count | None = None,
    cluster: str | None = None,
    out: FolderOutput = FOLDER,
    **choices: Any,
) -> int:
    """Repaint folders of thousands of photos, in one pass or by painting each.

    Run it again after anything that ended it: what is done is skipped, and what
    was being painted goes on. A photo that fails is a line of the report, and the
    others are painted still.

    Args:
        photos: folders, with the folders in them; photos; patterns in quotes, such as
            'photos/**/*.jpg'; or .txt files with a path on each line.
        style: paint in one pass, in this style of the network. Several --style options mix styles
            by share (1 if not given). Of the settings, it takes size, strength, keep-colors, device
            and memory, with the defaults of impasto apply.
        paint: instead, optimise each picture after this painting, with the settings of impasto
            stylize. Several --paint options mix paintings by weight (1 if not given).
        network: a .safetensors file, or samples: the network in the package.
        workers: how many processes paint at once; by default one a core in one pass, and otherwise
            one.
        cluster: the address of a Ray cluster whose machines paint, or local.
    """
    from impasto.jobs import folders
    from impasto.pictures import images

    if bool(style) == bool(paint):
        raise ImpastoError("give --style to paint in one pass, or --paint to optimise each picture")
    if out.output is None or out.is_standard:
        raise ImpastoError("a batch needs a folder for its pictures; give one with -o")
    folder = Path(out.output)
    if f".{out.format}".lower() not in images.FORMATS:
        known = ", ".join(images.FORMATS).replace(".", "")
        raise ImpastoError(f"there is no format {out.format!r}; use one of {known}")
    machine = {name: choices.pop(name) for name in _MACHINE if name in choices}
    limits = choose(
        WorkSettings,
        None,
        {
            **machine,
            **({} if workers is None else {"workers": workers, "painters": workers}),
            **{"queue": 1_000_000, "megapixels": 1000, "seconds": 1e6},
            **{"kept": 1_000_000, "kept_size": "1000G", "kept_days": 36500},
        },
    )
    named = style or paint
    ending = f"-{'-'.join(stem_of(name) for name, _ in named)}.{out.format}"
    _check(style, paint, network, choices)
    found = list(folders.listed(photos, folder))
    report = folders.Report(
        folder, _asked(style, paint, network, choices, out.format), force=out.force
    )
    try:
        tasks = folders.planned(found, folder, ending, report.known)
        left = [task for task in tasks if not report.is_there(task)]
        skipped = len(tasks) - len(left)
        if skipped:
            out.tell(f"{skipped} of {len(tasks)} are there already")
        if not left:
            return out.finish({"output": str(folder), "skipped": skipped, "done": 0, "failed": 0})
        way = _way(style, paint, network, choices, limits, cluster, out, left)
        return _paint(way, left, report, skipped, out)
    finally:
        report.close()


def _check(style: Shares, paint: Paintings, network: str, choices: Mapping[str, Any]) -> None:
    """Find bad settings and files before the work."""
    from impasto.networks import files as networks
    from impasto.pictures import images

    if style:
        for name in choices:
            if name not in hints(ApplySettings):
                option = name.replace("_", "-")
                raise ImpastoError(f"--{option} is for --paint; leave it out with --style")
        choose(ApplySettings, None, choices)
        networks.read(network).shares(list(style))
        return
    for name in ("init", "weights"):
        if name in choices and str(choices[name]) not in STARTS:
            raise ImpastoError(f"a batch takes no file for --{name}; use impasto stylize for that")
    for name, _ in paint:
        images.read_visible(name)


def _asked(
    style: Shares,
    paint: Paintings,
    network: str,
    choices: Mapping[str, Any],
    format: str,  # noqa: A002
) -> dict[str, Any]:
    """What every picture is made with; it must be the same for all in a folder."""
    from impasto.networks.files import located
    from impasto.pictures.files import sha256_of

    settings = {name: _plain(value) for name, value in choices.items()}
    asked: dict[str, Any] = {"settings": settings, "format": format}
    if style:
        return asked | {"style": [list(s) for s in style], "network": sha256_of(located(network))}
    return asked | {"paintings": [[sha256_of(name), share] for name, share in paint]}


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else json.loads(json.dumps(value))


def _way(
    style: Shares,
    paint: Paintings,
    network: str,
    choices: Mapping[str, Any],
    limits: WorkSettings,
    cluster: str | None,
    out: FolderOutput,
    left: Sequence[Any],
) -> Any:
    """How the photos are painted: the workers begin."""
    from impasto.jobs import folders
    from impasto.jobs.batcher import Batcher
    from impasto.jobs.queue import Jobs
    from impasto.networks import files as networks
    from impasto.pictures import files

    if style:
        path = str(networks.located(network))
        limits, staff = staffed(cluster, limits, kinds=1)
        batcher = Batcher(limits, staff.worker, [path])
        return folders.OnePass(batcher, path, dict(style), choices, out.format)
    paintings = [(files.read_whole(name)[1], share) for name, share in paint]
    limits, staff = staffed(cluster, limits, kinds=1)
    hidden = Path(str(out.output)) / folders.HIDDEN
    if out.force:
        shutil.rmtree(hidden, ignore_errors=True)
    jobs = Jobs(hidden, limits, staff.painter)
    settings = {name: _plain(value) for name, value in choices.items()}
    return folders.ByPainting(jobs, paintings, settings, out.format, left)


def _paint(way: Any, left: Sequence[Any], report: Any, skipped: int, out: FolderOutput) -> int:
    from impasto.jobs import folders

    done = failed = 0
    watch = interruptions.get()

    def tell(outcome: Any) -> None:
        if outcome.error and not out.quiet:
            say(f"impasto: {outcome.error}")

    interrupted = False
    try:
        with Progress(quiet=out.quiet) as progress:
            for outcome in folders.paint_all(left, way, report, tell):
                failed += bool(outcome.error)
                done += not outcome.error
                told = f"{failed} failed" if failed else "none failed"
                progress.counted(f"{len(left)} photos", done + failed, len(left), told)
                watch.check()
    except KeyboardInterrupt:
        interrupted = True
    finally:
        with watch.held():
            way.close()
    folder = Path(str(out.output))
    if interrupted:
        say("impasto: interrupted; what is painted is kept, and the same command goes on")
    out.tell(f"{folder}  ({done} painted, {failed} failed, {skipped} were there; {report.path})")
    result = {"output": str(folder), "done": done, "failed": failed, "skipped": skipped}
    code = out.finish(result | {"report": str(report.path)})
    return INTERRUPTED if interrupted else SOME_FAILED if failed else code
