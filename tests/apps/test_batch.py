"""Folders: everything once, whatever was killed in between; a bad photo is a line of a report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from impasto import read_record
from impasto.apps.cli.main import main
from tests.jobs.conftest import small, until

PHOTOS = ("kingfisher", "owl", "neuschwanstein", "scarlet_macaw")


@pytest.fixture
def photos() -> Path:
    folder = Path("photos")
    (folder / "trip").mkdir(parents=True)
    for number, name in enumerate(PHOTOS):
        place = folder / "trip" if number % 2 else folder
        (place / f"{name}.png").write_bytes(small(name))
    (folder / "notes.txt").write_text("no photo")
    return folder


def batch(*words: str) -> int:
    return main(["batch", *words, "--workers", "1"])


def report(folder: str = "out") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "report.jsonl").read_text().splitlines()]


def pictures(folder: str = "out") -> list[str]:
    found = Path(folder).rglob("*.*")
    return sorted(p.relative_to(folder).as_posix() for p in found if p.suffix in (".png", ".jpg"))


EXPECTED = [
    "kingfisher-great_wave.png",
    "neuschwanstein-great_wave.png",
    "trip/owl-great_wave.png",
    "trip/scarlet_macaw-great_wave.png",
]


def test_a_folder_in_one_pass(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / "bad.jpg").write_text("no picture")
    (photos / "cut.png").write_bytes(small("owl")[:4000])
    assert batch("photos", "-o", "out", "--style", "great_wave", "--size", "64") == 1
    assert pictures() == EXPECTED
    said = capsys.readouterr()
    assert "4 painted, 2 failed, 0 were there" in said.out
    assert "bad.jpg is not a picture" in said.err
    lines = report()
    assert sorted(line["state"] for line in lines) == ["done"] * 4 + ["failed"] * 2
    assert {line["photo"] for line in lines if line["state"] == "failed"} == {
        "photos/bad.jpg",
        "photos/cut.png",
    }
    assert read_record(Path("out") / EXPECTED[0])["command"] == "apply"
    times = {path: Path("out", path).stat().st_mtime_ns for path in EXPECTED}
    Path("out", EXPECTED[1]).unlink()
    assert batch("photos", "-o", "out", "--style", "great_wave", "--size", "64") == 1
    assert "3 of 6 are there already" in capsys.readouterr().out
    assert pictures() == EXPECTED
    again = {path: Path("out", path).stat().st_mtime_ns for path in EXPECTED}
    assert [path for path in EXPECTED if again[path] != times[path]] == [EXPECTED[1]]


def test_a_list_and_a_pattern(photos: Path) -> None:
    Path("list.txt").write_text("photos/kingfisher.png\n\nphotos/gone.png\n")
    words = ("--style", "great_wave:2", "--style", "night_cafe", "--size", "64", "--format", "jpg")
    assert batch("list.txt", "photos/**/o*.png", "-o", "out", *words) == 1
    ending = "great_wave-night_cafe.jpg"
    assert pictures() == [f"kingfisher-{ending}", f"owl-{ending}"]
    (failed,) = (line for line in report() if line["state"] == "failed")
    assert "there is no file photos/gone.png" in failed["error"]
    with Image.open(f"out/owl-{ending}") as image:
        assert image.format == "JPEG"
    assert photos.exists()


def test_photos_of_one_name_stay_apart(photos: Path) -> None:
    (photos / "trip" / "kingfisher.png").write_bytes(small("owl"))
    assert batch("photos/**/king*.png", "-o", "out", "--style", "great_wave", "--size", "64") == 0
    assert pictures() == ["kingfisher-2-great_wave.png", "kingfisher-great_wave.png"]


def test_by_painting(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wave.png").write_bytes(small("great_wave"))
    (photos / "bad.jpg").write_text("no picture")
    words = ("photos", "-o", "out", "--paint", "wave.png", "--size", "48", "--steps", "3")
    assert batch(*words, "--json") == 1
    told = json.loads(capsys.readouterr().out)["results"][0]
    assert (told["done"], told["failed"]) == (4, 1)
    assert pictures() == [path.replace("great_wave", "wave") for path in EXPECTED]
    assert read_record("out/kingfisher-wave.png")["settings"]["steps"] == 3
    assert not Path("out/.impasto-batch").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["photos", "-o", "out"], "give --style to paint in one pass, or --paint"),
        (["photos", "-o", "out", "--style", "x", "--paint", "y.png"], "give --style to paint"),
        (["photos", "--style", "great_wave"], "give one with -o"),
        (["nowhere", "-o", "out", "--style", "great_wave"], "there is no file nowhere"),
        (["*.xyz", "-o", "out", "--style", "great_wave"], "no photos in it"),
        (["photos", "-o", "out", "--style", "sunflowers"], "no style 'sunflowers'"),
        (
            ["photos", "-o", "out", "--style", "great_wave", "--steps", "3"],
            "--steps is for --paint",
        ),
        (["photos", "-o", "out", "--paint", "no.png"], "there is no file no.png"),
        (["photos", "-o", "out", "--paint", "a.png", "--init", "b.png"], "no file for --init"),
        (["photos", "-o", "out", "--style", "great_wave", "--format", "exe"], "no format 'exe'"),
        (["photos", "-o", "out", "--style", "great_wave", "--size", "0"], "size is 0"),
    ],
)
def test_bad_input_is_found_before_the_work(
    photos: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    assert photos.exists()
    assert batch(*words) == 2
    assert told in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_folder_holds_one_kind_of_pictures(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert photos.exists()
    words = ("photos", "-o", "out", "--style")
    assert batch(*words, "great_wave", "--size", "64") == 0
    assert batch(*words, "great_wave", "--size", "32") == 2
    assert "differs in: settings; choose another folder, or --force" in capsys.readouterr().err
    assert batch(*words, "great_wave", "--size", "32", "--force") == 0
    with Image.open("out/kingfisher-great_wave.png") as image:
        assert max(image.size) == 32


def begun(words: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "impasto", "batch", *words, "--workers", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def killed(process: subprocess.Popen[str]) -> None:
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    until(lambda: not any(c.is_running() and c.status() != "zombie" for c in children), 20)


def test_kill_9_in_one_pass(photos: Path) -> None:
    for number in range(40):
        (photos / f"{number:02}.png").write_bytes(small("owl", 96 + number))
    words = ["photos", "-o", "out", "--style", "great_wave", "--size", "192"]
    process = begun(words)
    until(lambda: Path("out/report.jsonl").exists() and len(report()) > 5)
    killed(process)
    there = pictures()
    assert 5 < len(there) < 44
    for path in there:
        with Image.open(Path("out", path)) as image:
            image.load()  # whole
    assert batch(*words) == 0
    assert len(pictures()) == 44
    assert len([line for line in report() if line["state"] == "done"]) <= 46


def test_kill_9_while_painting(photos: Path) -> None:
    for name in ("trip/owl.png", "trip/scarlet_macaw.png"):
        (photos / name).unlink()
    Path("wave.png").write_bytes(small("great_wave"))
    words = ["photos", "-o", "out", "--paint", "wave.png", "--size", "64", "--steps", "60"]
    process = begun(words)
    until(lambda: list(Path("out").rglob("painting.checkpoint")))
    time.sleep(0.3)
    killed(process)
    assert list(Path("out").rglob("painting.checkpoint"))
    assert batch(*words) == 0
    assert len(pictures()) == 2
    assert len(report()) == 2


def test_a_new_photo_of_the_same_name_is_painted_too(photos: Path) -> None:
    words = ("photos", "-o", "out", "--style", "great_wave", "--size", "64")
    assert batch(*words) == 0
    (photos / "kingfisher.bmp").write_bytes(small("owl", 96, "BMP"))  # comes before the .png
    before = read_record("out/kingfisher-great_wave.png")["photo"]
    assert batch(*words) == 0
    assert pictures() == sorted([*EXPECTED, "kingfisher-2-great_wave.png"])
    assert read_record("out/kingfisher-great_wave.png")["photo"] == before
    assert len(report()) == 5


def test_forced_and_killed_it_mixes_nothing(photos: Path) -> None:
    for number in range(40):
        (photos / f"{number:02}.png").write_bytes(small("owl", 96 + number))
    words = ["photos", "-o", "out", "--style", "great_wave", "--size"]
    assert batch(*words, "32") == 0
    process = begun([*words, "128", "--force"])
    until(lambda: len(report()) > 44)
    killed(process)
    assert batch(*words, "128") == 0
    for path in pictures():
        with Image.open(Path("out", path)) as image:
            assert max(image.size) == 128


def test_a_photo_that_changed_is_not_painted_from_before(photos: Path) -> None:
    Path("wave.png").write_bytes(small("great_wave"))
    photo = photos / "kingfisher.png"
    words = [str(photo), "-o", "out", "--paint", "wave.png", "--size", "64", "--steps", "60"]
    process = begun(words)
    until(lambda: list(Path("out").rglob("painting.checkpoint")))
    killed(process)
    photo.write_bytes(small("owl"))
    assert batch(*words) == 0
    with Image.open("out/kingfisher-wave.png") as image:
        assert image.size == (64, 43)  # the owl's shape


def test_a_picture_that_cannot_be_saved_is_kept_for_the_next_run(photos: Path) -> None:
    Path("wave.png").write_bytes(small("great_wave"))
    Path("out").mkdir()
    Path("out/trip").write_text("in the way")
    words = ["photos", "-o", "out", "--paint", "wave.png", "--size", "48", "--steps", "2"]
    assert batch(*words) == 1
    failed = [line["error"] for line in report() if line["state"] == "failed"]
    assert len(failed) == 2
    assert all("out/trip cannot be created" in sentence for sentence in failed)
    assert Path("out/.impasto-batch").exists()
    Path("out/trip").unlink()
    assert batch(*words) == 0
    assert len(pictures()) == 4
    assert not Path("out/.impasto-batch").exists()
    assert photos.exists()


def test_odd_sources(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / f"{'n' * 245}.png").write_bytes(small("owl"))
    os.mkfifo(photos / "pipe.jpg")
    words = ["-o", "photos/out", "--style", "great_wave", "--size", "32"]
    assert batch("photos/**/*.png", *words) == 1
    assert "4 painted, 1 failed" in capsys.readouterr().out
    assert batch("photos/**/*.png", *words) == 1  # what is in the output folder is no photo
    assert "4 of 5 are there already" in capsys.readouterr().out
    assert batch("photos/out", *words) == 2
    assert "do not count" in capsys.readouterr().err
    Path("list.txt").write_bytes(b"\xef\xbb\xbfphotos/kingfisher.png\r\n")
    assert batch("list.txt", *words) == 0
