"""Films of a painting's progress, as players will see them."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image, ImageSequence
from torch import Tensor

from impasto import ImpastoError, Step
from impasto.pictures.films import HOLD, Film, check_film, frame_steps
from tests.conftest import full_disk, noticed

BOTH = pytest.mark.parametrize("suffix", [".mp4", ".gif"])
Pixels = npt.NDArray[np.uint8]


def colour(red: float, green: float, blue: float, height: int = 36, width: int = 64) -> Tensor:
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1).expand(1, 3, height, width)


def grey(step: int, steps: int) -> Tensor:
    value = 0.1 + 0.8 * step / steps
    return colour(value, value, value)


def step_of(number: int, image: Tensor) -> Step:
    return Step(number, number, 0.0, {}, image)


def film_of(path: Path, images: Sequence[Tensor]) -> tuple[list[Pixels], list[float]]:
    """What a player shows of a film of these steps, see `frames_of`."""
    with Film(path, len(images) - 1) as film:
        for number, image in enumerate(images):
            film.add(step_of(number, image))
    assert film.written == path
    return frames_of(path)


def run(film: Film, steps: int, planned: int | None = None) -> None:
    for number in range(steps + 1):
        film.add(step_of(number, grey(number, planned or steps)))


def frames_of(path: Path) -> tuple[list[Pixels], list[float]]:
    """The frames of a film as RGB [height, width, 3], and the seconds that each is shown."""
    frames, seconds = [], []
    if path.suffix == ".gif":
        with Image.open(path) as film:
            for frame in ImageSequence.Iterator(film):
                frames.append(np.array(frame.convert("RGB")))
                seconds.append(frame.info["duration"] / 1000)
        return frames, seconds
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate
        for decoded in container.decode(video=0):
            frames.append(decoded.to_ndarray(format="rgb24").astype(np.uint8))
            seconds.append(float(1 / stream.average_rate))
    return frames, seconds


@given(st.integers(0, 20_000), st.integers(2, 120))
def test_frames_are_close_together_first(steps: int, most: int) -> None:
    frames = frame_steps(steps, most)
    gaps = [b - a for a, b in itertools.pairwise(frames)]
    assert frames[0] == 0
    assert frames[-1] == steps
    assert len(frames) == min(steps + 1, most)
    assert gaps == sorted(gaps)
    assert all(gap >= 1 for gap in gaps)
    assert most == 2 or gaps[:1] in ([], [1])


def test_the_first_steps_one_by_one() -> None:
    assert frame_steps(500, 48)[:7] == list(range(7))
    assert frame_steps(500, 120)[:20] == list(range(20))


@BOTH
@pytest.mark.parametrize("steps", [0, 5, 40, 500])
def test_how_long_a_film_is(tmp_path: Path, suffix: str, steps: int) -> None:
    with Film(tmp_path / f"a{suffix}", steps) as film:
        run(film, steps, planned=max(1, steps))
    assert film.written
    frames, seconds = frames_of(film.written)
    least, most = (2, 10) if steps else (0, 0)
    assert least <= round(sum(seconds) - HOLD, 1) <= most
    assert abs(frames[0].mean() / 255 - 0.1) < 0.02
    assert abs(frames[-1].mean() / 255 - (0.9 if steps else 0.1)) < 0.02
    held = [np.abs(frame - frames[-1].astype(float)).max() < 1 for frame in frames]
    assert sum(itertools.compress(seconds, held)) > HOLD - 0.2


@BOTH
def test_frames_grow(tmp_path: Path, suffix: str) -> None:
    sizes = [(31, 50), (31, 50), (61, 101), (61, 101), (133, 201)]
    grown = [colour(0.2, 0.4, 0.6, *size) for size in sizes]
    frames, _ = film_of(tmp_path / f"a{suffix}", grown)
    expected = (133, 201, 3) if suffix == ".gif" else (132, 200, 3)
    assert {frame.shape for frame in frames} == {expected}


@pytest.mark.parametrize(
    ("name", "size", "expected"),
    [
        ("a.gif", (300, 200), (256, 171)),
        ("a.mp4", (801, 400), (720, 360)),
        ("b.mp4", (1, 5), (2, 4)),
    ],
)
def test_sizes(tmp_path: Path, name: str, size: tuple[int, int], expected: tuple[int, int]) -> None:
    frames, _ = film_of(tmp_path / name, [colour(0.2, 0.4, 0.6, *size)])
    assert frames[0].shape == (*expected, 3)


@BOTH
@pytest.mark.parametrize("rgb", [(0.9, 0.1, 0.2), (0.1, 0.7, 0.2), (0.1, 0.2, 0.9), (1, 1, 1)])
def test_colours_are_kept(tmp_path: Path, suffix: str, rgb: tuple[float, float, float]) -> None:
    frames, _ = film_of(tmp_path / f"a{suffix}", [colour(*rgb)] * 2)
    assert np.abs(frames[-1].mean((0, 1)) - 255 * np.array(rgb)).max() <= 2


def test_an_mp4_plays_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "a.MP4"
    with Film(path, 3) as film:
        run(film, 3)
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        tags = (context.colorspace, context.color_primaries, context.color_trc)
        assert (*tags, context.color_range) == (1, 1, 1, 1)
        assert "creation_time" not in container.metadata
    data = path.read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


def test_noise_is_a_gif_below_5_megabytes(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    film_of(tmp_path / "a.gif", [torch.rand(1, 3, 256, 256, generator=random) for _ in range(48)])
    with Image.open(tmp_path / "a.gif") as gif:
        assert (getattr(gif, "n_frames", 1), gif.info["loop"]) == (48, 0)
    assert 3e6 < (tmp_path / "a.gif").stat().st_size < 5e6


@BOTH
def test_what_stands_still_does_not_flicker(tmp_path: Path, photo: Tensor, suffix: str) -> None:
    changing = [photo.clone() for _ in range(10)]
    for number, image in enumerate(changing):
        image[..., :16] = number / 9
    still = np.stack(film_of(tmp_path / f"a{suffix}", changing)[0])[:, :, 24:].astype(float)
    assert np.abs(np.diff(still, axis=0)).mean() <= (0 if suffix == ".gif" else 1.5)


@pytest.mark.parametrize(
    ("suffix", "error"), [(".mp4", KeyboardInterrupt), (".gif", None), (".gif", RuntimeError)]
)
def test_a_run_that_ends_early(
    tmp_path: Path, suffix: str, error: type[BaseException] | None
) -> None:
    film = Film(tmp_path / f"a{suffix}", 1000)
    try:
        with film:
            run(film, 437, planned=1000)
            if error:
                raise error
    except BaseException as raised:
        assert type(raised) is error  # noqa: PT017 # none is no kind of error
    assert 437 not in frame_steps(1000, 120)
    frames, _ = frames_of(tmp_path / f"a{suffix}")
    assert abs(frames[-1].mean() / 255 - (0.1 + 0.8 * 0.437)) < 0.01


def test_a_run_that_was_resumed(tmp_path: Path) -> None:
    with Film(tmp_path / "a.gif", 1000) as film:
        for number in range(437, 1001):
            film.add(step_of(number, grey(number, 1000)))
    assert abs(frames_of(tmp_path / "a.gif")[0][0].mean() / 255 - (0.1 + 0.8 * 0.437)) < 0.01


def test_without_frames_there_is_no_film(tmp_path: Path) -> None:
    film = Film(tmp_path / "a.mp4", 10)
    with pytest.raises(KeyboardInterrupt), film:
        raise KeyboardInterrupt
    assert film.written is None
    assert list(tmp_path.iterdir()) == []


@BOTH
def test_nothing_is_overwritten_unasked(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_text("precious")
    with noticed("exists already"), Film(path, 3) as film:
        run(film, 3)
    assert film.written == tmp_path / f"a-2{suffix}"
    assert path.read_text() == "precious"
    with Film(path, 3, force=True) as film:
        run(film, 3)
    assert film.written == path
    assert path.read_bytes() == (tmp_path / f"a-2{suffix}").read_bytes()  # the same every time
    assert len(list(tmp_path.iterdir())) == 2


def lose(film: Film, error: Exception | None) -> None:
    with full_disk(), film:
        run(film, 3)
        if error:
            raise error


@BOTH
def test_a_full_disk(tmp_path: Path, suffix: str) -> None:
    film = Film(tmp_path / f"a{suffix}", 3)
    with pytest.raises(ImpastoError, match="cannot be written"):
        lose(film, None)
    # What ended the run is not forgotten over the film that was lost.
    with noticed("no film"), pytest.raises(LookupError):
        lose(film, LookupError())
    assert film.written is None
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_known_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.gif").mkdir()
    for name, told in {
        "a.avi": "use .mp4 or .gif",
        "a": "use .mp4 or .gif",
        "folder.gif": "is a folder",
        "missing/a.mp4": "create it first",
        f"{'a' * 300}.mp4": "cannot be written",
    }.items():
        with pytest.raises(ImpastoError, match=told):
            check_film(tmp_path / name)
    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    with pytest.raises(ImpastoError, match=r"use \.gif"):
        check_film(tmp_path / "a.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.gif"]


def test_the_encoder_is_loaded_when_it_is_needed() -> None:
    code = "import sys, impasto.pictures.films; sys.exit('av' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
