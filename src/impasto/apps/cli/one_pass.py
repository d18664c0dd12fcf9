"""The commands of networks that paint in one pass: train, apply, export.

`impasto apply` imports no torch, which alone takes longer than painting.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from impasto import __version__
from impasto.apps.cli import texts
from impasto.apps.cli.commands import PAGE, Photos, Seconds, app
from impasto.apps.cli.console import interruptions, say
from impasto.apps.cli.making import (
    INTERRUPTED,
    ExportOutput,
    NetworkOutput,
    Output,
    Reported,
    told_of,
)
from impasto.apps.cli.options import File, settings_of, several
from impasto.apps.cli.progress import Progress
from impasto.apps.cli.series import kept_beside, name_of, stem_of
from impasto.errors import ImpastoError, notice
from impasto.pictures.files import STANDARD, check_folder, numbered
from impasto.settings import FULL, ApplySettings, TrainSettings, choose

if TYPE_CHECKING:  # loading these takes long, and `impasto --help` must not wait for them
    from PIL.Image import Image

    from impasto.networks.network import Network
    from impasto.networks.train import Course
    from impasto.pictures.images import Picture

NETWORK, EXPORTED = NetworkOutput(), ExportOutput()
TRAINING_EVERY = 60.0
PIXELS = 4_000_000
"""Photos are read and painted together up to this many pixels."""

BESIDE = (".csv", "-curves.png", "-previews.jpg")
"""What lies beside a network, after its name: its losses, their curves, and previews."""

STALE = 0.7
"""If the network that is kept is older than this share of the training, a notice says so."""

Shares = Annotated[tuple[tuple[str, float], ...], several(texts.weighted, metavar="NAME[:SHARE]")]
Paintings = Annotated[File, Parameter(required=True)]
Unused = Annotated[File | None, Parameter(show=False)]


@app.command
@settings_of(ApplySettings)
def apply(
    *photos: Photos,
    network: str = "samples",
    style: Shares = (),
    out: Output = PAGE,
    film: Unused = None,
    stills: Unused = None,
    **choices: Any,
) -> int:
    """Repaint photos in one pass, by a trained network: a tenth of a second each.

    Args:
        photos: photos, and folders of photos; - reads one from standard input.
        network: a network by its name, or the .safetensors file of one. In the package is samples,
            of the five sample paintings.
        style: a style of the network. Several --style options mix styles by share (1 if not given).
    """
    from impasto.networks import files
    from impasto.networks.network import Network

    if film or stills:
        raise ImpastoError(
            "a network paints in one pass, so there are no steps to show; use impasto stylize for "
            "a film or stills"
        )
    settings = choose(ApplySettings, None, choices)
    path = files.located(network)
    ready = Network.load(path, device=settings.device, memory=settings.memory)
    ready.shares(style or None)  # a style that does not exist is found before the work
    given = list(_listed(photos))
    stem = "-".join(name for name, _ in style) or ready.styles[0]
    names: list[str] = []
    for photo in given:
        free = map(str, numbered(Path(f"{stem_of(photo)}-{stem}.{out.format or 'png'}")))
        names.append(next(name for name in free if name not in names))
    targets = out.placed(names)
    out.check(targets, [*given, str(path)])
    return _Series(ready, path, style, settings, out).paint(given, targets)


class _Series:
    """Applies a network to photos, several at once; a photo that fails does not stop the others."""

    def __init__(
        self, network: Network, path: Path, style: Any, settings: ApplySettings, out: Output
    ) -> None:
        from impasto.pictures.files import sha256_of

        self.network, self.style, self.settings, self.out = network, style or None, settings, out
        self.finish = {"strength": settings.strength, "keep_colors": settings.kept_colours}
        shares = network.shares(self.style).tolist()
        self.record = {
            "impasto": __version__,
            "command": "apply",
            "network": {"name": path.name, "sha256": sha256_of(path)},
            "styles": {n: share for n, share in zip(network.styles, shares, strict=True) if share},
            "device": network.device,
            "settings": {"size": settings.size, **self.finish},
        }
        self.results: list[dict[str, Any]] = []
        self.waiting: list[tuple[str, Path, Picture, Image]] = []
        self.alone = True

    def paint(self, photos: Sequence[str], targets: Sequence[Path]) -> int:
        """Paint all photos; returns the exit code."""
        self.alone = len(photos) == 1
        watch = interruptions.get()
        with watch.held():
            for photo, target in zip(photos, targets, strict=True):
                try:
                    self.waiting.append((photo, target, *self._read(photo)))
                except Exception as error:
                    self._failed(photo, error)
                if watch.asked:
                    break
                pixels = sum(image.width * image.height for *_, image in self.waiting)
                if photo == photos[-1] or pixels >= PIXELS:
                    self._paint_waiting()
        if watch.asked:
            say("impasto: interrupted; what was painted before is kept")
            return self.out.finish(*self.results) or INTERRUPTED
        return self.out.finish(*self.results)

    def _read(self, photo: str) -> tuple[Picture, Image]:
        """A photo, and the image that is painted: resized, with its transparency."""
        from impasto.pictures import images

        picture = images.read_visible(photo)
        size = picture.image.size
        if self.settings.size != FULL:
            size = images.fitted_size(size, int(self.settings.size))
            images.tell_if_enlarged(picture, size, "to")
        image = images.resize(picture.colours, size)
        if picture.alpha:
            image = image.copy()
            image.putalpha(images.resize(picture.alpha, size))
        return picture, image

    def _paint_waiting(self) -> None:
        began = time.monotonic()
        try:
            painted = self.network([image for *_, image in self.waiting], self.style, **self.finish)
        except Exception as error:
            painted = [error] * len(self.waiting)
        seconds = (time.monotonic() - began) / max(1, len(self.waiting))
        for (photo, target, picture, _), image in zip(self.waiting, painted, strict=True):
            try:
                self._save(photo, target, picture, image, seconds)
            except Exception as error:
                self._failed(photo, error)
        self.waiting = []

    def _save(
        self, photo: str, target: Path, picture: Picture, image: Image | Exception, seconds: float
    ) -> None:
        from impasto.pictures import images

        if isinstance(image, Exception):
            raise image
        record = {**self.record, "size": list(image.size), "photo": images.named(picture)}
        written = images.write(
            image, target, record=record, force=self.out.force, format=self.out.format
        )
        width, height = image.size
        called = "standard output" if self.out.is_standard else written
        self.out.tell(f"{called}  ({width} x {height} pixels, {seconds:.2f} s)")
        told = {"photo": photo, "output": str(written), "size": [width, height]}
        self.results.append({**told, "seconds": round(seconds, 3)})

    def _failed(self, photo: str, error: Exception) -> None:
        if self.alone:
            raise error
        self.results.append({"photo": photo, "error": told_of(name_of(photo), error)})
        say(f"impasto: {self.results[-1]['error']}")


def _listed(photos: Sequence[str]) -> Iterator[str]:
    """All photos, with those of a folder in the order of their names instead of the folder."""
    from impasto.pictures.images import READABLE

    for photo in photos:
        if photo == STANDARD or not os.path.isdir(photo):  # noqa: PTH112 # Path.is_dir raises
            yield photo
            continue
        inside = sorted(p for p in Path(photo).iterdir() if p.suffix.lower() in READABLE)
        if not inside:
            raise ImpastoError(f"{photo} has no photos in it; give another folder, or files")
        yield from map(str, inside)


@app.command
@settings_of(TrainSettings)
def train(
    *paintings: Paintings,
    photos: Annotated[File, Parameter(required=True)],
    base: Annotated[str | None, Parameter(name="--from")] = None,
    out: NetworkOutput = NETWORK,
    checkpoint_every: Seconds = TRAINING_EVERY,
    **choices: Any,
) -> int:
    """Train a network that repaints any photo after these paintings in one pass.

    Beside the network lie its losses (.csv), their curves and a contact sheet of previews, which
    grow as it learns. Ctrl-C saves what has been learned, and impasto resume goes on.

    Args:
        paintings: the paintings; a style is called by the name of its file.
        photos: a folder of photos to practise on, 50 or more; those in its folders count, too.
        base: a network to add the paintings to. Only their scales and shifts are learned, which is
            quick; the styles that it has stay as they are.
        checkpoint_every: how often to save a checkpoint beside the output, for impasto resume.
    """
    from impasto.networks.train import start

    first = Path(out.output or f"{'-'.join(map(stem_of, paintings))}.safetensors")
    _check_network(first)
    target = first
    if not out.force:
        target = next(name for name in numbered(first) if not any(map(os.path.exists, _all(name))))
        if target != first:
            notice(f"{first}, or a file beside it, exists already; {target} is written instead")
    if any(os.path.abspath(target) == os.path.abspath(name) for name in (base, *paintings) if name):  # noqa: PTH100
        raise ImpastoError(f"{target} is one of the inputs; choose another name for it")
    course = start(
        list(paintings),
        photos,
        base=base,
        checkpoint=kept_beside(target),
        checkpoint_every=checkpoint_every,
        **choices,
    )
    return trained(course, target, out)


def train_again(kept: Path, checkpoint_every: float, out: Reported) -> int:
    """Go on with a training from its checkpoint; its files are those beside the checkpoint."""
    from impasto.networks.train import start_again
    from impasto.paint.checkpoints import SUFFIX

    if out.output is not None:
        raise ImpastoError("a network is saved beside its checkpoint; leave --output out")
    course = start_again(kept, checkpoint_every=checkpoint_every)
    return trained(course, kept.with_name(kept.name.removesuffix(SUFFIX)), out)


def trained(course: Course, target: Path, out: Reported) -> int:
    """Train with progress, and save everything even after Ctrl-C; returns the exit code."""
    watch, training = interruptions.get(), course.training
    title = ", ".join(training.names)
    watch.hold = True  # a step is short, and what is written beside the network stays whole
    pictures = len(training.previews)
    with Progress(quiet=out.quiet) as progress:
        for step in course:
            progress.trained(title, step)
            if step.validation or len(training.previews) > pictures:
                pictures = len(training.previews)
                _write_beside(course, target)
            if watch.asked:
                course.keep()
                break
    with watch.held():
        written = course.network.save(target, force=True)
        _write_beside(course, target)
        done = training.done >= 1
        if done:
            course.end()
    about = training.record
    told = {"output": str(written), "styles": course.network.styles, **about}
    reached = about["validation"]
    losses = ", ".join(f"{name} {reached[name]:.3f}" for name in ("content", "style") if reached)
    minutes = f"{training.seconds / 60:.0f} minutes"
    out.tell(
        f"{written}  ({training.step} steps, {minutes}{losses and f', held-out photos: {losses}'})"
    )
    if not done:
        say(f"interrupted; what was learned is saved; to go on: impasto resume {course.checkpoint}")
    elif about["kept step"] < STALE * training.step:
        notice(
            f"the network is that of step {about['kept step']}: since then, held-out photos have "
            "not become better; more photos would help, more time would not"
        )
    return out.finish(told)


def _all(target: Path) -> list[Path]:
    """The network's file and all that lies beside it."""
    beside = [target.with_name(f"{target.stem}{end}") for end in BESIDE]
    return [target, kept_beside(target), *beside]


def _write_beside(course: Course, target: Path) -> None:
    from impasto.networks.training import Training
    from impasto.pages import training as pages
    from impasto.pictures import files, images

    training: Training = course.training
    table, plot, sheet = (target.with_name(f"{target.stem}{end}") for end in BESIDE)
    try:
        files.write_whole(pages.table(training).encode(), table, True)
        images.write(pages.plot(training), plot, force=True)
        if training.previews:
            images.write(pages.previews(training), sheet, force=True)
    except ImpastoError as error:  # training is worth more than its curves
        notice(str(error))


def _check_network(target: Path) -> None:
    from impasto.networks.files import SUFFIX

    if target.suffix != SUFFIX:
        raise ImpastoError(f"{target} is no name for a network; end it with {SUFFIX}")
    check_folder(target)


@app.command
def export(network: str, /, *, out: ExportOutput = EXPORTED) -> int:
    """Write a network for other programs: as an ONNX graph, or as a torch state dict (.pt).

    The graph is compared with torch before it is written. Its inputs are images [N, 3, height,
    width], RGB in 0..1, and shares [N, styles] that sum up to 1; its output is called pictures.

    Args:
        network: a network by its name, or the .safetensors file of one.
    """
    from impasto.networks import files
    from impasto.networks.export import check_target, export as write
    from impasto.networks.network import Network

    path = files.located(network)
    target = check_target(out.output or f"{path.stem}.onnx")
    written = write(Network.load(path, device="cpu"), target, force=out.force)
    out.tell(f"{written}  ({written.stat().st_size / 1e6:.1f} MB)")
    return out.finish({"output": str(written)})
