"""train, apply, export and resume of a training, as a user types them."""

from __future__ import annotations

import io
import json
import math
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from impasto import Network, read_record, sample
from impasto.apps.cli.main import main
from impasto.networks import files as network_files
from impasto.networks.judge import Judge, Judgement
from tests.apps.conftest import files, interrupted
from tests.networks.conftest import random_network

PHOTO, OTHER = str(sample("kingfisher")), str(sample("owl"))
WAVE, CAFE = str(sample("great_wave")), str(sample("night_cafe"))
QUICK = ["--size", "32", "--batch", "2", "--style-layer", "relu1_1,relu2_1"]

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def network() -> str:
    Network(random_network()).save("net.safetensors")
    return "net.safetensors"


def test_apply(network: str, capsys: Captured) -> None:
    words = ["apply", PHOTO, "--network", network, "--style", "style1", "--size", "64"]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert re.fullmatch(r"kingfisher-style1\.png  \(64 x 36 pixels, \d+\.\d\d s\)\n", told)
    record = read_record("kingfisher-style1.png")
    assert record["command"] == "apply"
    assert record["styles"] == {"style1": 1.0}
    assert record["network"]["name"] == network
    assert record["photo"]["name"] == "kingfisher.jpg"
    assert record["settings"] == {"size": 64, "strength": 1.0, "keep_colors": None}
    assert main(["show", "kingfisher-style1.png"]) == 0
    assert json.loads(capsys.readouterr().out) == record
    mixed = ["--style", "style0:3", "--style", "style2", "--strength", "0.5", "--keep-colors"]
    words = ["apply", PHOTO, "--network", network, *mixed, "--size", "64"]
    assert main([*words, "-o", "b.png", "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["output"] == "b.png"
    assert result["seconds"] > 0
    record = read_record("b.png")
    assert record["styles"] == {"style0": 0.75, "style2": 0.25}
    assert record["settings"]["keep_colors"] == "luminance"


def test_apply_is_what_python_does(network: str) -> None:
    words = ["--network", network, "--style", "style1", "--size", "full", "-o", "a.png"]
    Image.open(OTHER).resize((90, 60)).save("photo.png")
    assert main(["apply", "photo.png", *words]) == 0
    expected = Network.load(network)(Image.open("photo.png"), "style1")
    assert np.array_equal(np.asarray(Image.open("a.png")), np.asarray(expected))


def test_folders_in_and_folders_out(network: str, capsys: Captured) -> None:
    Path("in").mkdir()
    for number in range(3):
        Image.open(PHOTO).resize((40 + number // 2, 30)).save(f"in/{number}.jpg")
    Path("in/broken.png").write_bytes(b"no picture")
    Path("in/notes.txt").write_text("none")
    words = ["--network", network, "--style", "style0", "--size", "full", "--format", "jpg"]
    assert main(["apply", "in", PHOTO, *words, "-o", "out/"]) == 1
    told = capsys.readouterr()
    assert "in/broken.png is not a picture" in told.err
    made = sorted(path.name for path in Path("out").iterdir())
    assert made == [*(f"{n}-style0.jpg" for n in range(3)), "kingfisher-style0.jpg"]
    for _ in range(2):  # what was painted is no photo
        assert main(["apply", "in", *words, "-o", "in/", "--force"]) == 1
    assert len(list(Path("in").iterdir())) == 3 + 3 + 2
    capsys.readouterr()
    Path("empty").mkdir()
    assert main(["apply", "empty", *words]) == 2
    assert "empty has no photos in it" in capsys.readouterr().err


def test_what_apply_refuses(network: str, capsys: Captured) -> None:
    def refused(*words: str) -> str:
        assert main(["apply", *words]) == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        return told

    given = [PHOTO, "--network", network]
    assert "did you mean 'style1'" in refused(*given, "--style", "stile1")
    assert "name one of: style0, style1, style2" in refused(*given)
    assert "one pass, so there are no steps" in refused(
        *given, "--style", "style1", "--film", "a.mp4"
    )
    assert "strength is 3" in refused(*given, "--style", "style1", "--strength", "3")
    assert "there is no network 'smaples'" in refused(PHOTO, "--network", "smaples")
    assert "no file x.jpg" in refused("x.jpg", "--network", network, "--style", "style1")
    assert files() == ["net.safetensors"]


def test_export(network: str, capsys: Captured) -> None:
    assert main(["export", network]) == 0
    assert re.match(r"net\.onnx  \(0\.\d MB\)", capsys.readouterr().out)
    assert main(["export", network, "-o", "net.pt", "--json"]) == 0
    assert main(["export", network, "-o", "net.tf"]) == 2
    assert "end it with .onnx" in capsys.readouterr().err
    assert files() == ["net.onnx", "net.pt", "net.safetensors"]


def test_train(photos: Path, capsys: Captured) -> None:
    words = ["train", WAVE, CAFE, "--photos", str(photos), *QUICK, "--steps", "3"]
    assert main([*words, "-o", "two.safetensors", "--licence", "mine"]) == 0
    told = capsys.readouterr()
    assert re.match(
        r"two\.safetensors  \(3 steps, 0\.\d minutes, held-out photos: content", told.out
    )
    assert "great_wave, night_cafe: percent 100/100, step 3, content" in told.err
    made = ["two-curves.png", "two-previews.jpg", "two.csv", "two.safetensors"]
    assert files() == made
    network = network_files.read("two.safetensors")
    assert network.licence == "mine"
    assert network.styles[0].settings["steps"] == 3
    assert main(["apply", PHOTO, "--network", "two.safetensors", "--style", "night_cafe"]) == 0
    more = ["train", str(sample("composition_viii")), "--photos", str(photos), *QUICK]
    assert (
        main([*more, "--from", "two.safetensors", "--steps", "2", "-o", "three.safetensors"]) == 0
    )
    assert Network.load("three.safetensors").styles[2] == "composition_viii"
    capsys.readouterr()
    assert main([*words, "-o", "two.safetensors"]) == 0
    assert "two-2.safetensors is written instead" in capsys.readouterr().err
    assert main(["show", "three.safetensors"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [style["name"] for style in shown["styles"]][2] == "composition_viii"
    assert shown["licence"] == "mine"
    assert "two-2-previews.jpg" in files()


def test_what_train_refuses(photos: Path, network: str, capsys: Captured) -> None:
    def refused(*words: str) -> str:
        assert main(["train", *words]) == 2
        told = capsys.readouterr().err
        assert told.count("impasto: ") == 1
        return told

    given = [WAVE, "--photos", str(photos)]
    assert "--photos is missing" in refused(WAVE)
    assert "there is no folder nowhere" in refused(WAVE, "--photos", "nowhere")
    assert "end it with .safetensors" in refused(*given, "-o", "a.png")
    assert "batch is 0" in refused(*given, "--batch", "0")
    assert "is one of the inputs" in refused(*given, "--from", network, "-o", network, "--force")
    assert "0 photos of at least 256 pixels" in refused(*given)
    assert "reads its paintings again" in refused("-", *given[1:], "--size", "64")
    Path("a.safetensors.checkpoint").write_bytes(b"of hours")
    assert "unfinished training" in refused(*given, "-o", "a.safetensors", "--force")
    Path("a.safetensors.checkpoint").unlink()
    name = "x" * 300
    assert "there is no folder" in refused(WAVE, "--photos", name)
    assert "there is no file none.jpg" in refused("none.jpg", *given[1:])
    assert "no style loss" in refused(*given, "--style-loss", "grim").replace("_", " ")
    assert files() == [network]


def stopped(
    photos: Path, painting: str = WAVE, minutes: float = 0.15
) -> subprocess.CompletedProcess[str]:
    """A training whose network is a.safetensors, stopped by Ctrl-C after its first step."""
    words = ["train", painting, "--photos", str(photos), *QUICK, "--minutes", str(minutes)]
    done = interrupted([*words, "-o", "a.safetensors"], "step")
    assert done.returncode == 130, done.stderr
    return done


def test_ctrl_c_keeps_what_was_learned(photos: Path, capsys: Captured) -> None:
    done = stopped(photos)
    assert "to go on: impasto resume a.safetensors.checkpoint" in done.stderr
    network = network_files.read("a.safetensors")
    assert network.styles[0].training["stopped"] == "interrupted"
    assert main(["resume", "a.safetensors"]) == 0
    capsys.readouterr()
    assert network_files.read("a.safetensors").styles[0].training["stopped"] == "finished"
    assert files() == ["a-curves.png", "a-previews.jpg", "a.csv", "a.safetensors"]


def test_a_killed_training_goes_on(photos: Path, capsys: Captured) -> None:
    """After kill -9 and resume, the loss is that of a training that was never stopped."""
    words = ["train", WAVE, "--photos", str(photos), *QUICK, "--steps", "30", "--quiet"]
    words += ["--checkpoint-every", "0"]
    kept = Path("a.safetensors.checkpoint")
    process = subprocess.Popen([sys.executable, "-m", "impasto", *words, "-o", "a.safetensors"])
    while not Path("a-previews.jpg").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert main(["resume", str(kept), "--quiet"]) == 0
    assert main([*words, "-o", "b.safetensors"]) == 0
    losses = [
        network_files.read(f"{name}.safetensors").styles[0].training["validation"]["total"]
        for name in "ab"
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)
    assert not kept.exists()
    assert capsys.readouterr().out == ""


def test_a_renamed_checkpoint_and_a_taken_name(
    photos: Path, network: str, capsys: Captured
) -> None:
    stopped(photos)
    Path("a.safetensors.checkpoint").rename("backup.checkpoint")
    Path(network).replace("a.safetensors")
    mine = Path("a.safetensors").read_bytes()
    Path("a-2.safetensors").write_bytes(mine)
    assert main(["resume", "backup.checkpoint", "--film", "a.mp4"]) == 2
    assert "leave --film and --stills out" in capsys.readouterr().err
    assert main(["resume", "backup.checkpoint"]) == 0
    assert "a-3.safetensors is written instead" in capsys.readouterr().err
    assert Path("a.safetensors").read_bytes() == Path("a-2.safetensors").read_bytes() == mine
    assert network_files.read("a-3.safetensors").styles[0].training["stopped"] == "finished"
    assert not Path("backup.checkpoint").exists()


def test_streams_and_a_failed_photo(network: str) -> None:
    words = [
        sys.executable,
        "-m",
        "impasto",
        "apply",
        "-",
        "--network",
        network,
        "--style",
        "style0",
    ]
    words += ["--size", "64", "-o", "-", "--format", "png"]
    photo = Path(PHOTO).read_bytes()
    done = subprocess.run(words, input=photo, capture_output=True, check=True)
    assert Image.open(io.BytesIO(done.stdout)).size == (64, 36)
    assert b"standard output  (64 x 36 pixels" in done.stderr
    waiting = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, stdout=-3)
    time.sleep(1.5)
    waiting.send_signal(signal.SIGINT)
    _, told = waiting.communicate(timeout=30)
    assert (waiting.returncode, told) == (130, b"impasto: interrupted\n")


def test_a_training_that_fails_keeps_its_best(
    photos: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("impasto.networks.training.VALIDATED", 2)
    judged = Judge.__call__

    def broken(self: Judge, *given: Any) -> Judgement:
        found = judged(self, *given)
        broken.calls += 1  # type: ignore[attr-defined]
        if broken.calls < 12:  # type: ignore[attr-defined]
            return found
        return found._replace(gradient=found.gradient * math.nan)

    broken.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(Judge, "__call__", broken)
    words = ["train", WAVE, "--photos", str(photos), *QUICK, "--steps", "90", "-o", "a.safetensors"]
    assert main(words) == 2
    told = capsys.readouterr().err
    assert "train with a smaller rate" in told
    assert "the best network so far is in a.safetensors" in told
    assert Network.load("a.safetensors").styles == ["great_wave"]


def test_a_training_that_cannot_go_on(photos: Path, capsys: Captured) -> None:
    Path("wave.jpg").write_bytes(Path(WAVE).read_bytes())
    stopped(photos, "wave.jpg", minutes=9)
    assert main(["resume", "a.safetensors", "-o", "b.safetensors"]) == 2
    assert "leave --output out" in capsys.readouterr().err
    Path("wave.jpg").write_bytes(Path(CAFE).read_bytes())
    assert main(["resume", "a.safetensors"]) == 2
    assert "put the original painting back" in capsys.readouterr().err
