"""Films of a picture being painted, MP4 (H.264) or GIF, and stills: from an optimiser's steps.

A painter's first steps change everything and the last ones hardly anything, so the frames are
close together at first and further and further apart later. This module knows about steps,
frames and files, and nothing about what is optimised.
"""

from __future__ import annotations

import functools
import glob
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image
from torch import Tensor

from impasto.errors import ImpastoError, notice
from impasto.optimise.base import Step
from impasto.pictures import images
from impasto.pictures.files import check_folder, make_whole, numbered
from impasto.pictures.images import PathLike
from impasto.settings import check_count, plain

HOLD = 2
"""Seconds that the finished picture stays."""

_SHORTEST = 3  # seconds of painting that a film lasts, as far as it has frames for that
_BT709 = 1  # as primaries, transfer and matrix (ITU-T H.273); as a range, the limited one


def check_film(path: PathLike) -> None:
    """Find out before the work whether a film can be written to `path` after it.

    Raises:
        ImpastoError: its extension is neither .mp4 nor .gif, its folder is missing or not
            writable, it is a folder itself, or there is no encoder for it here.
    """
    target = Path(path)
    if target.suffix.lower() not in _FORMATS:
        raise ImpastoError(f"{target} has no extension of a film; use {' or '.join(_FORMATS)}")
    check_folder(target)
    if target.suffix.lower() == ".mp4":
        import av

        if "libx264" not in av.codecs_available:
            raise ImpastoError(f"{target} needs libx264, which is not in this PyAV; use .gif")


def frame_steps(steps: int, most: int) -> list[int]:
    """Which of the steps 0..`steps` are frames: all of them, or `most` (2 or more) of them.

    The start and the last step always are. The gaps between frames never shrink: they begin with
    single steps and grow geometrically.
    """
    gaps = most - 1
    if steps <= gaps:
        return list(range(steps + 1))
    growth = _growth(steps, gaps)
    frames = [0, *map(int, itertools.accumulate(growth**i for i in range(gaps - 1))), steps]
    # Rounded down, gaps shrink here and there.
    return [0, *itertools.accumulate(sorted(b - a for a, b in itertools.pairwise(frames)))]


def _growth(total: int, terms: int) -> float:
    """The q with 1 + q + q^2 + ... = total, from below, by bisection."""
    low, high = 1.0, total ** (1 / max(1, terms - 1))
    for _ in range(60):
        middle = (low + high) / 2
        if sum(middle**i for i in range(terms)) <= total:
            low = middle
        else:
            high = middle
    return low


class Film:
    """Collects steps, and writes them as a film when it is left: `with Film(...) as film`.

    `film.add` is a callback for an optimiser. Frames may grow from step to step; all are scaled to
    the size of the last one, as far as the format allows (720 pixels for MP4, 256 for GIF). The
    last step added is the last frame, planned or not. Whatever ends the block, the film is written
    if there is a frame: whole or not at all, by the same rules as pictures (`images.write`).

    path: with the extension .mp4 or .gif. steps: how many are asked for, 0 and the last included
    in the film. force: replace a file that exists. written: where the film is, once it is.

    Raises:
        ImpastoError: see `check_film`; on leaving, the disk is full or the encoder fails. Where
            something else was raised in the block, that goes on, and this is an `ImpastoNotice`.
    """

    def __init__(self, path: PathLike, steps: int, *, force: bool = False) -> None:
        check_film(path)
        steps = plain(steps)
        check_count("steps", steps, 0)
        self.path = Path(path)
        self.force = force
        self.written: Path | None = None
        self._format = _FORMATS[self.path.suffix.lower()]
        self._planned = frozenset(frame_steps(steps, self._format.frames))
        self._frames: list[bytes] = []
        self._size = (0, 0)  # of the last of them
        self._latest: Tensor | None = None  # not among the frames yet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.write()
        except ImpastoError as failure:
            if error is None:
                raise
            notice(f"there is no film: {failure}")

    def add(self, step: Step) -> None:
        """Take a step's image, [1, 3, height, width] RGB in 0..1, if it is to be a frame."""
        # A run that was resumed begins where it was left.
        if step.step in self._planned or not self._frames:
            self._keep(step.image)
        else:
            self._latest = step.image

    def _keep(self, image: Tensor) -> None:
        frame, buffer = images.composed(images.to_image(image)), io.BytesIO()
        self._size = self._format.size(frame.size)
        images.resize(frame, self._size).save(buffer, **self._format.kept_as)
        self._frames.append(buffer.getvalue())
        self._latest = None

    def write(self) -> None:
        """Write the film of what was added, once; leaving the block does so."""
        if self._latest is not None:
            self._keep(self._latest)
        frames, self._frames = self._frames, []
        if frames:
            encode = functools.partial(self._format.encode, frames, self._size)
            self.written = make_whole(encode, self.path, self.force)


class Stills:
    """Writes every `every`th step of a run as a picture of its own: `Stills(...).add`.

    `add` is a callback for an optimiser. Beside the picture `path`, in its format and of the size
    that it will have, as NAME-step0050.png and so on, by the rules of `images.write`. What can't
    be written is told of once, as an `ImpastoNotice`; painting goes on. `written`: the files.

    Raises:
        ImpastoError: `path` cannot be written, or `every` is no whole number of at least 1.
    """

    def __init__(self, path: PathLike, every: int, *, force: bool = False) -> None:
        images.check_writable(Path(path))
        check_count("stills", plain(every), 1)
        self.path = _free_for_stills(Path(path), force)
        self.every = plain(every)
        self.force = force
        self.written: list[Path] = []
        self._told = False

    def add(self, step: Step) -> None:
        """Write a step's image, [1, 3, height, width] RGB in 0..1, if it is its turn."""
        if step.step == 0 or step.step % self.every:
            return
        still = images.to_image(step.image)
        if not images.keeps_transparency(self.path):
            still = images.composed(still)
        path = self.path.with_stem(f"{self.path.stem}-step{step.step:04d}")
        record = {"step": step.step, "loss": step.loss, "parts": dict(step.parts)}
        try:
            still = images.resize(still, step.size or still.size)
            self.written.append(images.write(still, path, record=record, force=self.force))
        except ImpastoError as error:
            if not self._told:
                notice(f"a still is missing: {error}")
            self._told = True


def _free_for_stills(path: Path, force: bool) -> Path:
    """The name that stills are put behind: those of another run are not mixed with them."""
    free = next(
        name
        for name in numbered(path)
        if force or not any(path.parent.glob(f"{glob.escape(name.stem)}-step[0-9]*{path.suffix}"))
    )
    if free != path:
        notice(
            f"there are stills of {path.name} already; new ones are called "
            f"{free.stem}-step...{path.suffix} (force replaces them)"
        )
    return free


@dataclass(frozen=True)
class _Format:
    """What a kind of film can hold, how its frames are kept until then, and who makes it."""

    frames: int
    longer: int  # pixels
    multiple: int  # of which both sides are
    kept_as: dict[str, Any]
    encode: Callable[[Sequence[bytes], tuple[int, int], Path], None]

    def size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The (width, height) of a film whose last frame is of this size."""
        width, height = images.fitted_size(size, min(self.longer, max(size)))
        unit = self.multiple
        return max(unit, width // unit * unit), max(unit, height // unit * unit)


def _decoded(
    frames: Sequence[bytes], size: tuple[int, int], rate: int
) -> Iterator[tuple[Image.Image, int]]:
    """The frames, all of one size, and how long each is shown, in 1 / `rate` seconds."""
    ticks = max(1, min(rate // 2, _SHORTEST * rate // len(frames)))
    for number, frame in enumerate(frames, 1):
        shown = images.resize(Image.open(io.BytesIO(frame)), size)
        yield shown, ticks if number < len(frames) else HOLD * rate


def _write_gif(frames: Sequence[bytes], size: tuple[int, int], path: Path) -> None:
    """10 frames a second. 49 frames of 256 x 256 at 12 bits a pixel, the worst, are under 5 MB."""
    shown, ticks = zip(*_decoded(frames, size, 10), strict=True)
    palette, durations = _palette(shown), [100 * tick for tick in ticks]
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in shown)
    first.save(path, "GIF", save_all=True, append_images=others, duration=durations, loop=0)


def _palette(frames: Sequence[Image.Image]) -> Image.Image:
    """The colours of all frames, of the first and the last above all.

    One palette for the whole film, without dithering: what does not change does not flicker.
    """
    side = 32  # is enough to choose from, and takes half a second
    chosen = [*frames, *[frames[0], frames[-1]] * 3]
    sheet = Image.new("RGB", (side, side * len(chosen)))
    for index, frame in enumerate(chosen):
        sheet.paste(frame.resize((side, side), Image.Resampling.NEAREST), (0, side * index))
    # One colour fewer than there may be: the writer needs it for what stays as it was.
    return sheet.quantize(255, Image.Quantize.MEDIANCUT, kmeans=2)


def _write_mp4(frames: Sequence[bytes], size: tuple[int, int], path: Path) -> None:
    """12 frames a second of H.264, in the colours of HDTV (BT.709, limited range)."""
    import av

    rate, clock = 12, itertools.count()
    try:
        with av.open(str(path), "w", "mp4", options={"movflags": "+faststart"}) as container:
            # One thread: how the work is shared out changes what comes of it.
            stream = container.add_stream("libx264", rate, {"crf": "20", "threads": "1"})
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.color_range = context.colorspace = _BT709
            context.color_primaries = context.color_trc = _BT709
            for frame, ticks in _decoded(frames, size, rate):
                # Told nothing, it converts to the colours of SDTV, whatever the tags say.
                yuv = av.VideoFrame.from_ndarray(np.array(frame), "rgb24").reformat(
                    format="yuv420p",
                    dst_colorspace="ITU709",
                    src_color_range="JPEG",
                    dst_color_range="MPEG",
                    interpolation="AREA",
                )
                for tick in itertools.islice(clock, ticks):
                    yuv.pts = tick
                    container.mux(stream.encode(yuv))
            container.mux(stream.encode())
    except av.FFmpegError as error:
        if isinstance(error, OSError):  # a disk that is full
            raise
        raise ImpastoError(f"the encoder of films failed ({error}); write a .gif") from None


_KEPT_JPEG = {"format": "JPEG", "quality": 95, "subsampling": 0}
_KEPT_PNG = {"format": "PNG", "compress_level": 1}  # JPEG would make what stands still flicker
_FORMATS = {
    ".mp4": _Format(120, 720, 2, _KEPT_JPEG, _write_mp4),
    ".gif": _Format(48, 256, 1, _KEPT_PNG, _write_gif),
}
