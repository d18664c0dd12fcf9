"""Checkpoints, and runs that go on from them."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from impasto import (
    Artwork,
    ImpastoError,
    Interrupted,
    Step,
    Stylizer,
    read_record,
    resume,
    sample,
    stylize,
)
from impasto.apps.cli.main import main
from impasto.paint import checkpoints
from impasto.paint.checkpoints import Checkpoint
from impasto.pictures import images
from tests.conftest import noticed
from tests.paint.conftest import ctrl_c_at

PHOTO, PAINTING = sample("kingfisher"), sample("cafe_terrace_at_night")
# Two levels, so that runs break off on both.
SETTINGS: dict[str, Any] = {"size": 64, "levels": 2, "steps": 40}


def interrupted_at(step: int, checkpoint: Path, **settings: Any) -> None:
    with pytest.raises(Interrupted):
        Stylizer(PAINTING, **SETTINGS | settings).paint(
            PHOTO, callback=ctrl_c_at(step), checkpoint=checkpoint, checkpoint_every=1000
        )


@pytest.fixture(scope="module")
def whole() -> Artwork:
    return stylize(PHOTO, PAINTING, **SETTINGS)


@pytest.mark.parametrize("step", [0, 7, 20, 33])
def test_going_on_ends_where_an_uninterrupted_run_does(
    step: int, whole: Artwork, checkpoint: Path, tmp_path: Path
) -> None:
    interrupted_at(step, checkpoint)
    steps: list[Step] = []
    artwork = resume(checkpoint, callback=steps.append)
    assert [s.step for s in steps] == list(range(step + 1, 41))
    assert artwork.steps == whole.steps
    assert artwork.losses[: step + 1] == whole.losses[: step + 1]
    assert artwork.losses[-1] == pytest.approx(whole.losses[-1], rel=0.02)
    assert artwork.image.size == whole.image.size
    assert checkpoint.exists()
    artwork.save(tmp_path / "a.png")
    assert not checkpoint.exists()
    assert read_record(tmp_path / "a.png")["steps"] == 40


@pytest.mark.parametrize(
    "settings",
    [{"optimizer": "cg"}, {"optimizer": "adam"}, {"keep_colors": True}, {"init": "noise"}],
)
def test_every_way_of_painting_can_go_on(settings: dict[str, Any], checkpoint: Path) -> None:
    settings = {"steps": 24} | settings
    interrupted_at(18, checkpoint, **settings)
    artwork = resume(checkpoint)
    expected = stylize(PHOTO, PAINTING, **SETTINGS | settings)
    assert artwork.losses[-1] == pytest.approx(expected.losses[-1], rel=0.1)


def test_nothing_is_left_of_a_run_that_has_ended(checkpoint: Path, tmp_path: Path) -> None:
    artwork = Stylizer(PAINTING, size=32, steps=3).paint(
        PHOTO, checkpoint=checkpoint, checkpoint_every=0
    )
    artwork.save(tmp_path / "a.png")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_checkpoint_is_kept_in_time(checkpoint: Path) -> None:
    seen: list[int] = []

    def look(_: Step) -> None:
        if checkpoint.exists():
            seen.append(len(checkpoints.read_record(checkpoint)["progress"]["losses"]))

    stylizer = Stylizer(PAINTING, size=32, steps=6)
    stylizer.paint(PHOTO, callback=look, checkpoint=checkpoint, checkpoint_every=0)
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    seen.clear()
    checkpoint.unlink()
    stylizer.paint(PHOTO, callback=look, checkpoint=checkpoint, checkpoint_every=1000)
    assert seen == [1] * 7


def test_damage_is_said(checkpoint: Path, tmp_path: Path) -> None:
    interrupted_at(3, checkpoint)
    data = checkpoint.read_bytes()
    for length in (0, 10, len(data) // 3, len(data) - 30):
        checkpoint.write_bytes(data[:length])
        with pytest.raises(ImpastoError, match="no checkpoint of impasto, or it is damaged"):
            resume(checkpoint)
    middle = len(data) // 2
    checkpoint.write_bytes(data[:middle] + bytes(64) + data[middle + 64 :])
    with pytest.raises(ImpastoError, match="damaged"):
        resume(checkpoint)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ImpastoError, match="no checkpoint of impasto"):
        resume(tmp_path / "a.png")
    with pytest.raises(ImpastoError, match="there is no checkpoint"):
        resume(tmp_path / "none.checkpoint")
    with pytest.raises(ImpastoError, match="cannot be opened"):
        resume(tmp_path)
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(ImpastoError, match="no checkpoint of impasto"):
        resume(tmp_path / "other.npz")
    old = Checkpoint({}, {}, [], [], tensors={"image": torch.zeros(1)})
    checkpoints.write(checkpoint, old)
    with pytest.raises(ImpastoError, match="written by another version"):
        resume(checkpoint)


def test_other_inputs_are_said(checkpoint: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    images.read(PHOTO).image.resize((64, 36)).save(photo)
    with pytest.raises(Interrupted):
        Stylizer(PAINTING, size=32).paint(photo, callback=ctrl_c_at(0), checkpoint=checkpoint)
    images.read(PHOTO).image.resize((62, 36)).save(photo)
    with pytest.raises(ImpastoError, match=r"begun with another .*photo\.png; put the original"):
        resume(checkpoint)
    photo.unlink()
    with pytest.raises(ImpastoError, match=r"photo\.png, which is gone; put the photo back"):
        resume(checkpoint)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of photos, paintings and an unfinished picture."""
    folder = tmp_path / "project"
    for name, source in (("photos/a.jpg", PHOTO), ("art/b.jpg", PAINTING)):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes(source.read_bytes())
    (folder / "out").mkdir()
    output = folder / "out/c.png"
    with pytest.raises(Interrupted):
        Stylizer(folder / "art/b.jpg", size=32, steps=6).paint(
            folder / "photos/a.jpg",
            callback=ctrl_c_at(3),
            checkpoint=f"{output}.checkpoint",
            note={"output": str(output)},
        )
    return folder


def test_a_project_that_was_moved_is_gone_on_with(project: Path) -> None:
    moved = project.rename(project.with_name("moved"))
    assert main(["resume", str(moved / "out/c.png"), "--quiet"]) == 0
    assert [path.name for path in (moved / "out").iterdir()] == ["c.png"]
    assert read_record(moved / "out/c.png")["steps"] == 6
    assert not project.exists()


def test_inputs_beside_a_checkpoint_that_was_copied(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    checkpoint = other / "c.png.checkpoint"
    checkpoint.write_bytes((project / "out/c.png.checkpoint").read_bytes())
    (project / "photos/a.jpg").rename(other / "a.jpg")
    (project / "art/b.jpg").rename(other / "b.jpg")
    (project / "art/b.jpg").write_bytes(b"another")  # the right one is told by what it holds
    assert main(["resume", str(checkpoint), "--quiet"]) == 0
    assert sorted(path.name for path in other.iterdir()) == ["a.jpg", "b.jpg", "c.png"]
    assert [path.name for path in (project / "out").iterdir()] == ["c.png.checkpoint"]
    (other / "b.jpg").unlink()
    (other / "a.jpg").unlink()
    assert main(["resume", str(project / "out/c.png")]) == 2
    assert "put the photo back, or beside the checkpoint" in capsys.readouterr().err


def test_where_to_resume_to(
    project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = str(project / "out/c.png.checkpoint")
    for output, told in (("no/d.png", "there is no folder"), ("d.xyz", "has no extension")):
        assert main(["resume", checkpoint, "-o", str(tmp_path / output)]) == 2
        said = capsys.readouterr().err  # before anything is painted
        assert told in said
        assert "step" not in said
    photo = project / "photos/a.jpg"
    assert main(["resume", checkpoint, "-o", str(photo), "--force"]) == 2
    assert "is one of the inputs" in capsys.readouterr().err
    assert main(["resume", checkpoint, "-o", f"{tmp_path}/new/", "--stills", "2"]) == 0
    names = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert names == ["c-step0004.png", "c-step0006.png", "c.png"]
    assert not Path(checkpoint).exists()


def test_whatever_keeps_a_checkpoint_from_being_written_the_painting_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(checkpoints, "write", failing)
    with noticed("cannot be written .MemoryError: none left"):
        artwork = Stylizer(PAINTING, size=32, steps=2).paint(
            PHOTO, checkpoint=tmp_path / "a.checkpoint"
        )
    assert artwork.steps == 2


def test_interrupted_while_the_checkpoint_is_written(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C once more, in Python: the picture is there all the same, and nothing half-written."""

    def settle(*_: Any) -> None:
        raise KeyboardInterrupt

    def stop(now: Step) -> None:
        if now.step == 2:
            monkeypatch.setattr(checkpoints, "settle", settle)
            raise KeyboardInterrupt

    with pytest.raises(Interrupted) as interrupted:
        Stylizer(PAINTING, size=32).paint(PHOTO, callback=stop, checkpoint=checkpoint)
    assert interrupted.value.artwork.steps == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.checkpoint"]
    assert checkpoints.read_record(checkpoint)["progress"]["losses"]


def test_a_full_disk_does_not_stop_the_painting(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoints.write
    calls: list[int] = []

    def filling(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(*arguments)

    monkeypatch.setattr(checkpoints, "write", filling)
    stylizer = Stylizer(PAINTING, size=32, steps=6)
    with noticed("cannot be written .No space left") as notices:
        artwork = stylizer.paint(PHOTO, checkpoint=checkpoint, checkpoint_every=0)
    assert len(notices) == 1
    assert artwork.steps == 6
    # the last good one is whole
    assert len(checkpoints.read_record(checkpoint)["progress"]["losses"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.checkpoint"]


def test_a_checkpoint_needs_files(tmp_path: Path) -> None:
    picture = images.read(PHOTO).image
    with pytest.raises(ImpastoError, match="a checkpoint needs inputs that are files"):
        Stylizer(PAINTING, size=32).paint(picture, checkpoint=tmp_path / "a.checkpoint")


# Real processes, really killed.


def painting_process(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "impasto", *arguments, "--quiet", "--json"]
    command += ["--checkpoint-every", "0"]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)


def test_killed_at_random_moments(whole: Artwork, tmp_path: Path) -> None:
    """kill -9 again and again, in the middle of whatever it is doing; the end is the same."""
    moments = random.Random(0)
    checkpoint = tmp_path / "out.png.checkpoint"
    arguments = ["stylize", str(PHOTO), "--style", str(PAINTING), "-o", "out.png"]
    arguments += ["--size", "64", "--levels", "2", "--steps", "40"]
    kills = 0
    for _ in range(40):
        process = painting_process(tmp_path, *arguments)
        deadline = time.monotonic() + 60
        while not checkpoint.exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if arguments[0] == "resume":  # until it has gone on a little
            time.sleep(moments.uniform(1.5, 3.5))
        else:
            time.sleep(moments.uniform(0.0, 0.6))
        if kills < 3 and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            if not checkpoint.exists():  # it had just ended, and needed it no more
                break
            # whenever it was, the checkpoint is whole
            assert checkpoints.read_record(checkpoint)["progress"]["losses"]
            arguments = ["resume", "out.png"]
            continue
        process.communicate()
        assert process.returncode == 0
        break
    assert kills >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    record = read_record(tmp_path / "out.png")
    assert len(record["losses"]) == 41
    assert record["losses"][-1] == pytest.approx(whole.losses[-1], rel=0.02)


def test_interrupted_and_resumed(whole: Artwork, tmp_path: Path) -> None:
    arguments = ["stylize", str(PHOTO), "--style", str(PAINTING), "-o", "out.png"]
    arguments += ["--size", "64", "--levels", "2", "--steps", "40"]
    process = painting_process(tmp_path, *arguments)
    while not (tmp_path / "out.png.checkpoint").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    told, _ = process.communicate()
    assert process.returncode == 130
    (result,) = json.loads(told)["results"]
    assert result["stopped"] == "interrupted"
    assert read_record(tmp_path / "out.png")["stopped"] == "interrupted"
    process = painting_process(tmp_path, "resume", "out.png.checkpoint")
    told, _ = process.communicate()
    assert process.returncode == 0
    (result,) = json.loads(told)["results"]
    assert Path(result["output"]).name == "out-2.png"
    assert result["loss"] == pytest.approx(whole.losses[-1], rel=0.02)
