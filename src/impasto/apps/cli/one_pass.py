"""The commands of networks that paint in one pass: train, apply, export.

`impasto apply` imports no torch, which alone takes longer than painting.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from impasto.apps.cli import texts
from impasto.apps.cli.commands import PAGE, Photos, Seconds, app
from impasto.apps.cli.console import interruptions, say
from impasto.apps.cli.learning import free, trained
from impasto.apps.cli.making import (
    INTERRUPTED,
    ExportOutput,
    NetworkOutput,
    Output,
    free_names,
)
from impasto.apps.cli.options import File, settings_of, several
from impasto.apps.cli.series import kept_beside, name_of, stem_of
from impasto.errors import ImpastoError, told_of
from impasto.pictures.files import STANDARD
from impasto.settings import ApplySettings, TrainSettings, choose

if TYPE_CHECKING:  # loading these takes long, and `impasto --help` must not wait for them
    from PIL.Image import Image

    from impasto.networks.network import Network
    from impasto.pictures.images import Picture

NETWORK, EXPORTED = NetworkOutput(), ExportOutput()
TRAINING_EVERY = 60.0
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
        photos: photos, and folders of photos, without the folders in them; - reads one from
            standard input.
        network: a .safetensors file, or samples: the network in the package, which knows the five
            sample paintings.
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
    stem = "-".join(name for name, _ in style) or ready.styles[0]
    given = list(_listed(photos, f"-{stem}"))
    targets = out.placed(free_names([f"{stem_of(photo)}-{stem}" for photo in given], out))
    out.check(targets, [*given, str(path)])
    return _Series(ready, path, style, settings, out).paint(given, targets)


class _Series:
    """Applies a network to photos, several at once; a photo that fails does not stop the others."""

    def __init__(
        self, network: Network, path: Path, style: Any, settings: ApplySettings, out: Output
    ) -> None:
        from impasto.networks.applied import file_of, finish_of, record_of

        self.network, self.style, self.settings, self.out = network, style or None, settings, out
        self.finish = finish_of(settings)
        self.record = record_of(network, file_of(path), self.style, settings)
        self.results: list[dict[str, Any]] = []
        self.waiting: list[tuple[str, Path, Picture]] = []
        self.alone = True

    def paint(self, photos: Sequence[str], targets: Sequence[Path]) -> int:
        """Paint all photos; returns the exit code."""
        from impasto.networks.network import TOGETHER

        self.alone = len(photos) == 1
        try:
            for photo, target in zip(photos, targets, strict=True):
                with self._unless_it_fails(photo):
                    self.waiting.append((photo, target, self._read(photo)))
                pixels = sum(w * h for *_, picture in self.waiting for w, h in [picture.image.size])
                if pixels >= TOGETHER:
                    self._paint_waiting()
            self._paint_waiting()
        except KeyboardInterrupt:
            if not self.results:
                raise
            say("impasto: interrupted; what was painted before is kept")
        code = self.out.finish(*self.results)
        return code if len(self.results) == len(photos) else INTERRUPTED

    def _read(self, photo: str) -> Picture:
        """A photo, resized; its transparency, too."""
        from impasto.networks.applied import at_size
        from impasto.pictures import images

        return at_size(images.read_visible(photo), self.settings.size)

    def _paint_waiting(self) -> None:
        """Paint the photos that wait, together; if that fails, one by one."""
        waiting, self.waiting = self.waiting, []
        if not waiting:
            return
        began = time.monotonic()
        try:
            painted = self._painted([picture for *_, picture in waiting])
        except Exception:
            for each in waiting:
                began = time.monotonic()
                with self._unless_it_fails(each[0]):
                    (image,) = self._painted([each[2]])
                    self._save(*each, image, time.monotonic() - began)
            return
        seconds = (time.monotonic() - began) / len(waiting)
        for each, image in zip(waiting, painted, strict=True):
            with self._unless_it_fails(each[0]):
                self._save(*each, image, seconds)

    def _painted(self, pictures: Sequence[Picture]) -> list[Image]:
        from impasto.networks.network import Asked

        return self.network.each([Asked(each, self.style, self.finish) for each in pictures])

    def _save(
        self, photo: str, target: Path, picture: Picture, image: Image, seconds: float
    ) -> None:
        from impasto.pictures import images

        record = {**self.record, "size": list(image.size), "photo": images.named(picture)}
        with interruptions.get().held():
            written = images.write(
                image, target, record=record, force=self.out.force, format=self.out.format
            )
            width, height = image.size
            called = "standard output" if self.out.is_standard else written
            self.out.tell(f"{called}  ({width} x {height} pixels, {seconds:.2f} s)")
            told = {"photo": photo, "output": str(written), "size": [width, height]}
            self.results.append({**told, "seconds": round(seconds, 3)})
        interruptions.get().check()

    @contextlib.contextmanager
    def _unless_it_fails(self, photo: str) -> Iterator[None]:
        """Go on if a photo fails, unless it is the only one."""
        try:
            yield
        except Exception as error:
            if self.alone:
                raise
            self.results.append({"photo": photo, "error": told_of(name_of(photo), error)})
            say(f"impasto: {self.results[-1]['error']}")


def _listed(photos: Sequence[str], ending: str) -> Iterator[str]:
    """All photos, with those of a folder in the order of their names instead of the folder.

    What an earlier run has painted of them, with this ending, is left out.
    """
    from impasto.pictures.images import READABLE

    for photo in photos:
        if photo == STANDARD or not os.path.isdir(photo):  # noqa: PTH112 # Path.is_dir raises
            yield photo
            continue
        try:
            inside = sorted(p for p in Path(photo).iterdir() if p.suffix.lower() in READABLE)
            stems = {path.stem for path in inside}
            inside = [p for p in inside if p.stem not in {f"{stem}{ending}" for stem in stems}]
        except OSError as error:
            raise ImpastoError(f"{photo} cannot be read ({error.strerror}); check it") from None
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

    Beside the network lie its losses (.csv), their curves and a contact sheet of
    previews, which grow as it learns. Ctrl-C saves what has been learned, and
    impasto resume goes on.

    Args:
        paintings: the paintings; a style is called by the name of its file.
        photos: a folder of photos to practise on, 50 or more; those in its folders count, too.
        base: a network to add the paintings to. Only their scales and shifts are learned, which is
            quick; the styles that it has stay as they are.
        checkpoint_every: how often to save a checkpoint beside the output, for impasto resume.
    """
    from impasto.networks.train import start

    if STANDARD in paintings:
        raise ImpastoError("a training reads its paintings again when it is resumed; give files")
    first = Path(out.output or f"{'-'.join(map(stem_of, paintings))}.safetensors")
    inputs = [*paintings, base, choices.get("weights")]
    target = free(first, [str(each) for each in inputs if each], out)
    course = start(
        list(paintings),
        photos,
        base=base,
        checkpoint=kept_beside(target),
        checkpoint_every=checkpoint_every,
        note={"output": target.name},
        **choices,
    )
    return trained(course, target, out)


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
