"""Films of a picture being painted, as MP4 (H.264) or GIF, and stills, from an optimiser's steps.

The first steps change everything and the last ones hardly anything, so the frames are close
together at first and further and further apart later.
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
"""Seconds for which a film shows the finished picture."""

_SHORTEST = 3  # seconds that a film of few frames is stretched to, with 1/2 s a frame at most
_BT709 = 1  # its number as primaries, transfer and matrix in ITU-T H.273; as a range: limited


def check_film(path: PathLike) -> None:
    """Check, before the work begins, that a film can be written to `path`.

    Raises:
        ImpastoError: its extension is neither .mp4 nor .gif, it is a folder, the folder that it
            goes to is missing or not writable, or this PyAV has no encoder for it.
    """
    target = Path(path)
    if target.suffix.lower() not in _FORMATS:
        raise ImpastoError(f"{target} does not end like a film; use {' or '.join(_FORMATS)}")
    check_folder(target)
    if target.suffix.lower() == ".mp4":
        import av

        if "libx264" not in av.codecs_available:
            raise ImpastoError(f"{target} needs libx264, which is not in this PyAV; use .gif")


def frame_steps(steps: int, most: int) -> list[int]:
    """The steps of 0..`steps` that become frames: all of them, or `most` (2 or more) of them.

    The first and the last step are always among them. The gaps between frames never shrink: they
    begin with single steps and grow geometrically.
    """
    gaps = most - 1
    if steps <= gaps:
        return list(range(steps + 1))
    growth = _growth(steps, gaps)
    frames = [0, *map(int, itertools.accumulate(growth**i for i in range(gaps - 1))), steps]
    # Rounding made some gaps smaller than the one before.
    return [0, *itertools.accumulate(sorted(b - a for a, b in itertools.pairwise(frames)))]


def _growth(total: int, terms: int) -> float:
    """The q with 1 + q + q^2 + ... = total for a sum of `terms`, from below, by bisection."""
    low, high = 1.0, total ** (1 / max(1, terms - 1))
    for _ in range(60):
        middle = (low + high) / 2
        if sum(middle**i for i in range(terms)) <= total:
            low = middle
        else:
            high = middle
    return low


class Film:
    """Collects steps in a block `with Film(...) as film`, and writes a film when the block ends.

    `film.add` is a callback for an optimiser. Steps may differ in size: all frames are scaled to
    the last one's, at most 720 pixels for MP4 and 256 for GIF. The last step added is always the
    last frame. The film is written even if the block raises an error, unless it has no frame;
    whole or not at all, by the same rules as pictures (`images.write`).

    path: ends in .mp4 or .gif. steps: the number of steps planned; the film shows step 0 and the
    last one, too. force: replace an existing file. written: the film's path, once it is written.

    Raises:
        ImpastoError: see `check_film`; at the end of the block, the disk is full or the encoder
            fails. If the block raised an error, that one goes on, and this is an `ImpastoNotice`.
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
        self._latest: Tensor | None = None  # the last image added, unless it is a frame already

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
        """Make a frame of a step's image, [1, 3, height, width] RGB in 0..1, if one is planned."""
        # A resumed run does not begin at step 0, but its first step is a frame as well.
        if step.step in self._planned or not self._frames:
            self._keep(step.image)
        else:
            self._latest = step.image

    def _keep(self, image: Tensor) -> None:
        frame, buffer = images.composed(images.to_image(image)), io.BytesIO()
        sides = images.fitted_size(frame.size, min(self._format.longer, max(frame.size)))
        unit = self._format.multiple
        width, height = (max(unit, side // unit * unit) for side in sides)
        images.resize(frame, (width, height)).save(buffer, **self._format.kept_as)
        self._frames.append(buffer.getvalue())
        self._latest = None

    def write(self) -> None:
        """Write the film of the steps added since the last call; the end of the block calls it."""
        if self._latest is not None:
            self._keep(self._latest)
        frames, self._frames = self._frames, []
        if frames:
            encode = functools.partial(self._format.encode, frames)
            self.written = make_whole(encode, self.path, self.force)


class Stills:
    """Writes every `every`th step of a run as a picture; `add` is a callback for an optimiser.

    Stills go beside the picture `path`, in its format and final size, as NAME-step0050.png and so
    on, by the rules of `images.write`. If stills cannot be written, one `ImpastoNotice` says so,
    and painting goes on. `written`: the files.

    Raises:
        ImpastoError: `path` cannot be written, or `every` is not a whole number of at least 1.
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
        """Write a step's image, [1, 3, height, width] RGB in 0..1, if its number calls for it."""
        if step.step == 0 or step.step % self.every:
            return
        still = images.to_image(step.image)
        if images.FORMATS[self.path.suffix.lower()] not in images.WITH_ALPHA:
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
    """The path that stills are named after, so that they do not mix with another run's."""
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
    """The limits of a kind of film, how its frames are kept, and the function that writes it."""

    frames: int  # planned at most
    longer: int  # most pixels of the longer side
    multiple: int  # both sides are multiples of it
    kept_as: dict[str, Any]
    encode: Callable[[Sequence[bytes], Path], None]


def _decoded(frames: Sequence[bytes], rate: int) -> Iterator[tuple[Image.Image, int]]:
    """The frames, as large as the last, and the time each is shown, in units of 1 / `rate` s."""
    size = Image.open(io.BytesIO(frames[-1])).size
    ticks = max(1, min(rate // 2, _SHORTEST * rate // len(frames)))
    for number, frame in enumerate(frames, 1):
        shown = images.resize(Image.open(io.BytesIO(frame)), size)
        yield shown, ticks if number < len(frames) else HOLD * rate


def _write_gif(frames: Sequence[bytes], path: Path) -> None:
    """10 frames a second. At worst, 49 frames of 256 x 256 at 12 bits a pixel, it is under 5 MB."""
    shown, ticks = zip(*_decoded(frames, 10), strict=True)
    palette, durations = _palette(shown), [100 * tick for tick in ticks]
    first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in shown)
    first.save(path, "GIF", save_all=True, append_images=others, duration=durations, loop=0)


def _palette(frames: Sequence[Image.Image]) -> Image.Image:
    """One palette for all frames, so that parts that do not change do not flicker."""
    side = 32  # enough to choose from; takes half a second
    chosen = [*frames, *[frames[0], frames[-1]] * 3]
    sheet = Image.new("RGB", (side, side * len(chosen)))
    for index, frame in enumerate(chosen):
        sheet.paste(frame.resize((side, side), Image.Resampling.NEAREST), (0, side * index))
    # The 256th colour stays free: the writer uses it for pixels that do not change.
    return sheet.quantize(255, Image.Quantize.MEDIANCUT, kmeans=2)


def _write_mp4(frames: Sequence[bytes], path: Path) -> None:
    """12 frames a second of H.264, in the colours of HDTV (BT.709, limited range)."""
    import av

    rate, clock = 12, itertools.count()
    try:
        with av.open(str(path), "w", "mp4", options={"movflags": "+faststart"}) as container:
            # The same bytes every time: no sharing among threads, and no macroblock tree, whose
            # result differs once in a hundred films of flat frames.
            how = {"crf": "20", "threads": "1", "x264-params": "mbtree=0"}
            stream = container.add_stream("libx264", rate, how)
            stream.width, stream.height = Image.open(io.BytesIO(frames[-1])).size
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.color_range = context.colorspace = _BT709
            context.color_primaries = context.color_trc = _BT709
            for frame, ticks in _decoded(frames, rate):
                # By default it converts to the colours of SDTV, whatever the tags say.
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
        if isinstance(error, OSError):  # the disk is full
            raise
        raise ImpastoError(f"the film encoder failed ({error}); write a .gif") from None


_FORMATS = {
    ".mp4": _Format(120, 720, 2, {"format": "JPEG", "quality": 95, "subsampling": 0}, _write_mp4),
    # With JPEG, still parts would flicker.
    ".gif": _Format(48, 256, 1, {"format": "PNG", "compress_level": 1}, _write_gif),
}
