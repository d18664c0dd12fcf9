"""generate, imagine and resume of a generator's training, as a user types them."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from impasto import Generator, read_record, sample
from impasto.apps.cli.main import main
from impasto.settings import parse_memory
from tests.apps.conftest import files
from tests.networks.conftest import random_network
from tests.networks.test_generators import random_generator
from tests.paint.test_memory import LINUX, MEASURED

WAVE, CAFE = str(sample("great_wave")), str(sample("night_cafe"))
QUICK = ["--size", "32", "--batch", "2", "--style-layer", "relu1_1", "--painting-size", "64",
         "--critic-steps", "1"]  # fmt: skip

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def generator() -> str:
    Generator(random_generator()).save("gen.safetensors")
    return "gen.safetensors"


def test_imagine(generator: str, capsys: Captured) -> None:
    words = ["imagine", generator, "--style", "style1", "--size", "70x50", "--seed", "3"]
    assert main([*words, "--count", "2"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told] == [
        "style1-imagined-3.png",
        "style1-imagined-4.png",
    ]
    assert re.search(r"\(70 x 50 pixels, \d+\.\d\d s\)", told[0])
    expected = Generator.load(generator)((70, 50), "style1", seed=4)
    assert np.array_equal(np.asarray(Image.open("style1-imagined-4.png")), np.asarray(expected))
    record = read_record("style1-imagined-4.png")
    assert record["command"] == "imagine"
    assert record["styles"] == {"style1": 1.0}
    assert record["network"]["name"] == generator
    assert record["settings"] == {"size": [70, 50], "seed": 4, "tileable": False}
    assert main([*words, "-o", "out/", "--json", "--tileable", "--size", "64x32"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["output"] == str(Path("out", "style1-imagined-3.png"))
    assert result["size"] == [64, 32]
    assert main([*words]) == 0  # the first one is kept
    assert "style1-imagined-3-2.png" in files()


def test_styles_mix(generator: str) -> None:
    words = ["imagine", generator, "--size", "40x40", "--style", "style0:3", "--style", "style1"]
    assert main([*words, "-o", "a.png"]) == 0
    assert read_record("a.png")["styles"] == {"style0": 0.75, "style1": 0.25}


def test_a_walk_becomes_a_film(generator: str, capsys: Captured) -> None:
    words = ["imagine", generator, "--size", "32x32", "--style", "style0", "--seed", "1"]
    assert main([*words, "--to", "2", "--film", "walk.gif"]) == 0
    assert capsys.readouterr().out == "walk.gif  (from seed 1 to 2, 96 pictures)\n"
    with Image.open("walk.gif") as film:
        assert getattr(film, "n_frames", 1) > 20
    assert files() == ["gen.safetensors", "walk.gif"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nothing"], "there is no network 'nothing'"),
        (["net.safetensors"], "impasto apply"),
        (["samples"], "impasto apply"),
        (["broken.safetensors"], "is no network, or it is damaged"),
        (["gen.safetensors"], "name one of: style0, style1"),
        (["gen.safetensors", "--style", "style9"], "did you mean"),
        (["gen.safetensors", "--style", "style0", "--size", "wide"], "width is 'wide'"),
        (["gen.safetensors", "--style", "style0", "--size", "0x50"], "width is 0"),
        (["gen.safetensors", "--style", "style0", "--seed", "-1"], "seed is -1"),
        (["gen.safetensors", "--style", "style0", "--count", "0"], "count is 0"),
        (["gen.safetensors", "--style", "style0", "--count", "1.5"], "count is 1.5"),
        (["gen.safetensors", "--style", "style0", "--count", "100000000"], "from 1 to 10000"),
        (
            ["gen.safetensors", "--style", "style0", "--count", "2", "--seed", str(2**63 - 1)],
            "seed is 9223372036854775808",
        ),
        (["gen.safetensors", "--style", "style0", "--film", "a.mp4", "--to", "-1"], "seed is -1"),
        (["gen.safetensors", "--style", "style0", "--size", "50x50", "--tileable"], "give 48x48"),
        (["gen.safetensors", "--style", "style0", "--to", "3"], "give --to and --film"),
        (["gen.safetensors", "--style", "style0", "--film", "a.mp4"], "give --to and --film"),
        (
            ["gen.safetensors", "--style", "style0", "--film", "a.mp4", "--to", "1", "-o", "b.png"],
            "leave --count and -o out",
        ),
        (["gen.safetensors", "--style", "style0", "--film", "a.avi", "--to", "1"], "use .mp4"),
        (["gen.safetensors", "--style", "style0", "-o", "a.txt"], "a.txt"),
        (["gen.safetensors", "--style", "style0", "-o", "no/a.png"], "no"),
        (
            ["gen.safetensors", "--style", "style0", "--size", "30000x30000", "--memory", "1G"],
            "allow",
        ),
        (["gen.safetensors", "--style", "style0", "--memory", "few"], "memory is 'few'"),
    ],
)
def test_bad_input_is_one_sentence(
    words: list[str], told: str, generator: str, capsys: Captured
) -> None:
    from impasto import Network

    Network(random_network()).save("net.safetensors")
    Path("broken.safetensors").write_bytes(Path(generator).read_bytes()[:300])
    before = files()
    assert main(["imagine", *words]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert printed.out == ""
    assert files() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "PAINTINGS is missing"),
        (["no.png"], "no.png"),
        ([WAVE, WAVE], "two styles would be called great_wave"),
        ([WAVE, "-o", "a.png"], "end it with .safetensors"),
        ([WAVE, "--adversary", "wgam"], "did you mean 'wgan'"),
        ([WAVE, "--adversary", "none", "--style-loss", "none"], "by both"),
        ([WAVE, "--style-loss", "neighbors"], "choose another style loss"),
        ([WAVE, "--size", "50"], "multiple of 32"),
        ([WAVE, "--painting-size", "60"], "squares of 64"),
        (["-"], "give files"),
    ],
)
def test_bad_trainings_are_one_sentence(words: list[str], told: str, capsys: Captured) -> None:
    assert main(["generate", *words]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert files() == []


def test_generate_and_imagine(capsys: Captured) -> None:
    words = [
        "generate",
        WAVE,
        CAFE,
        "--steps",
        "3",
        *QUICK,
        "--style-loss",
        "gram",
        "-o",
        "g.safetensors",
    ]
    assert main(words) == 0
    printed = capsys.readouterr()
    assert re.match(r"g\.safetensors  \(3 steps, \d+\.\d minutes, style .*estimate", printed.out)
    assert "step 3, style" in printed.err
    beside = ["g-adversaries.png", "g-curves.png", "g-film.mp4", "g-previews.jpg", "g.csv"]
    assert files() == sorted([*beside, "g.safetensors"])
    assert Generator.load("g.safetensors").styles == ["great_wave", "night_cafe"]
    assert main(["show", "g.safetensors"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["kind"] == "generator"
    assert about["styles"][0]["settings"]["adversary"] == "wgan-gp"
    assert main(["imagine", "g.safetensors", "--style", "night_cafe", "-o", "a.png"]) == 0
    with Image.open("a.png") as picture:
        assert picture.size == (512, 512)
    assert main(["export", "g.safetensors"]) == 2
    assert "impasto imagine" in capsys.readouterr().err


def test_ctrl_c_saves_and_resume_goes_on(capsys: Captured) -> None:
    command = [sys.executable, "-m", "impasto", "generate", WAVE, "--minutes", "30", *QUICK,
               "-o", "g.safetensors", "--adversary", "wgan", "--style-loss", "none"]  # fmt: skip
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stderr
        process.stderr.readline()  # the first step is done
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"to go on: impasto resume g.safetensors.checkpoint" in err
    assert out.startswith(b"g.safetensors  (")
    assert "g.safetensors" in files()
    made = Generator.load("g.safetensors")
    assert made((40, 40)).size == (40, 40)
    steps = made.file.styles[0].training["steps"]
    from impasto.networks.generate import start_again

    course = start_again("g.safetensors.checkpoint")
    assert course.training.step == steps
    assert next(iter(course)).step == steps + 1
    assert main(["resume", "g.safetensors", "-o", "b.safetensors"]) == 2
    assert "leave --output out" in capsys.readouterr().err


@LINUX
@pytest.mark.parametrize(
    ("words", "bound"),
    [
        (["--size", "2400x1600", "-o", "a.png"], "420M"),
        (["--size", "160x96", "--to", "2", "--film", "a.gif"], "640M"),
    ],
)
def test_it_keeps_to_the_memory_allowed(words: list[str], bound: str) -> None:
    """The whole process, from the start of the interpreter, as the system counts it."""
    command = [sys.executable, "-c", MEASURED, "imagine", "great_wave", *words, "--memory", bound]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) * 1024 <= parse_memory(bound)
    assert len(files()) == 1
