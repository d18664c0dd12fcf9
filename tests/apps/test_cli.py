"""The command line, as a process where it matters, in this one where it does not."""

from __future__ import annotations

import fcntl
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from impasto import Interrupted, Step, Stylizer, __version__, read_record, sample
from impasto.apps.cli.main import main
from tests.apps.conftest import files, interrupted
from tests.conftest import full_disk

PHOTO, OTHER = str(sample("kingfisher")), str(sample("owl"))
STYLE = ["--style", str(sample("cafe_terrace_at_night"))]
QUICK = ["--size", "32", "--steps", "2"]

Captured = pytest.CaptureFixture[str]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "impasto", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_one_photo() -> None:
    done = run("stylize", PHOTO, *STYLE, *QUICK, "-o", "out.png")
    assert done.returncode == 0
    assert done.stdout.startswith("out.png  (32 x 18 pixels, 2 steps")
    assert "kingfisher.jpg: step 1/2, loss" in done.stderr
    assert "left" in done.stderr
    with Image.open("out.png") as image:
        assert image.size == (32, 18)


def test_the_same_command_gives_the_same_bytes() -> None:
    command = ["stylize", PHOTO, *STYLE, *QUICK, "-o"]
    assert run(*command, "a.png").returncode == 0
    assert main([*command, "b.png"]) == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_on_two_threads_too(monkeypatch: pytest.MonkeyPatch) -> None:
    # What went wrong now and then did so in the first step of a process.
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    for name in ("a.png", "b.png"):
        assert run("stylize", PHOTO, *STYLE, *QUICK, "-o", name, "--size", "96").returncode == 0
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()


def test_a_terminal_gets_a_bar() -> None:
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
    command = [sys.executable, "-m", "impasto", "stylize", PHOTO, *STYLE, *QUICK]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=slave, check=True)
    os.close(slave)
    shown = os.read(master, 65536).decode()
    os.close(master)
    assert "kingfisher.jpg |" in shown
    assert "step 2/2, loss" in shown
    assert "left" in shown
    assert done.stdout.startswith(b"kingfisher-cafe_terrace_at_night.png")


def test_a_picture_too_large_for_the_memory() -> None:
    code = (
        "import resource, sys, torch, scipy.optimize; from impasto.apps.cli.main import main\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 2**29, resource.RLIM_INFINITY))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("only Linux says how much memory is used")
    command = [sys.executable, "-c", code, "stylize", PHOTO, *STYLE, "--size", "1500", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "does not fit into memory; use a smaller size" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_and_version_do_not_wait_for_torch() -> None:
    code = (
        "import sys; from impasto.apps.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'scipy', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    for arguments in (["--help"], ["stylize", "--help"], ["--version"], ["samples"], []):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_help_names_every_option(capsys: Captured) -> None:
    assert main(["stylize", "--help"]) == 0
    text = capsys.readouterr().out
    options = (
        "style output size strength detail steps optimizer init content-layer style-layer pooling "
        "tv style-scale keep-colors preset seed device weights force quiet json levels memory "
        "checkpoint-every"
    )
    for option in options.split():
        assert re.search(rf"--{option}\b(?!-)", text), option


def test_default_name_and_existing_files(capsys: Captured) -> None:
    for _ in range(2):
        assert main(["stylize", PHOTO, *STYLE, *QUICK, "--quiet"]) == 0
    first = "kingfisher-cafe_terrace_at_night.png"
    assert files() == ["kingfisher-cafe_terrace_at_night-2.png", first]
    assert capsys.readouterr() == ("", "")
    before = Path(first).stat().st_mtime_ns
    assert main(["stylize", PHOTO, *STYLE, *QUICK]) == 0
    told = capsys.readouterr()
    assert "kingfisher-cafe_terrace_at_night-3.png  (" in told.out
    assert f"note: {first} exists already" in told.err
    assert Path(first).stat().st_mtime_ns == before
    assert main(["stylize", PHOTO, *STYLE, *QUICK, "--force"]) == 0
    assert Path(first).stat().st_mtime_ns > before


def test_many_photos_into_a_folder_and_one_that_fails(capsys: Captured) -> None:
    code = main(["stylize", PHOTO, "none.jpg", *STYLE, *QUICK, "-o", "painted", OTHER, "--json"])
    assert code == 1
    told = capsys.readouterr()
    assert "there is no file none.jpg" in told.err
    results = json.loads(told.out)["results"]
    assert [result["photo"] for result in results] == [PHOTO, "none.jpg", OTHER]
    assert "no file" in results[1]["error"]
    assert sorted(p.name for p in Path("painted").iterdir()) == [
        "kingfisher-cafe_terrace_at_night.png",
        "owl-cafe_terrace_at_night.png",
    ]
    assert results[2]["output"] == "painted/owl-cafe_terrace_at_night.png"


def test_json_is_one_object(capsys: Captured) -> None:
    assert main(["stylize", PHOTO, *STYLE, *QUICK, "--json", "-o", "a.jpg"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["impasto"] == __version__
    (result,) = told["results"]
    assert result["output"] == "a.jpg"
    assert result["size"] == [32, 18]
    assert result["steps"] == 2
    assert len(result["losses"]) == 3
    assert result["loss"] == result["losses"][-1]
    assert set(result["parts"]) >= {"neighbors relu4_1", "moments relu1_1"}
    with Image.open("a.jpg") as image:
        assert image.format == "JPEG"


def test_options_reach_the_painting() -> None:
    options = (
        "--strength 0.7 --detail 0.3 --optimizer cg --init noise --content-layer block3_conv3 "
        "--style-layer relu1_1,relu2_1:2 --style-layer relu3_1 --pooling max --tv 0.5 "
        "--style-scale 1.5 --keep-colors --seed 3 --device cpu --style-loss gram -o a.png"
    )
    assert main(["stylize", PHOTO, *STYLE, *QUICK, *options.split()]) == 0
    settings = read_record("a.png")["settings"]
    assert settings["style_layers"] == {"relu1_1": 1, "relu2_1": 2, "relu3_1": 1}
    expected = {
        "strength": 0.7,
        "detail": 0.3,
        "optimizer": "cg",
        "init": "noise",
        "content_layer": "relu3_3",
        "pooling": "max",
        "tv": 0.5,
        "style_scale": 1.5,
        "keep_colors": "luminance",
        "seed": 3,
        "steps": 2,
    }
    assert {name: settings[name] for name in expected} == expected
    assert main(["stylize", PHOTO, *STYLE, *QUICK, "--preset", "lecture", "-o", "b.png"]) == 0
    assert read_record("b.png")["settings"]["restart"] == 20


def test_photos_of_the_same_name_do_not_overwrite_each_other() -> None:
    Path("other").mkdir()
    Path("other/kingfisher.jpg").write_bytes(Path(OTHER).read_bytes())
    photos = [PHOTO, "other/kingfisher.jpg"]
    assert main(["stylize", *photos, *STYLE, *QUICK, "-o", "out", "--force"]) == 0
    first = "kingfisher-cafe_terrace_at_night"
    written = [f"{first}-2.png", f"{first}.png"]
    assert sorted(path.name for path in Path("out").iterdir()) == written
    assert read_record(f"out/{first}-2.png")["size"] == [32, 21]


def test_a_file_name_that_is_no_text(capsys: Captured) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    Path(name).write_bytes(Path(PHOTO).read_bytes())
    assert main(["stylize", name, *STYLE, *QUICK, "-o", "a.png"]) == 0
    assert main(["show", "a.png"]) == 0
    assert "caf" in capsys.readouterr().out


def test_a_result_that_cannot_be_written_fails_alone(capsys: Captured) -> None:
    code = main(["stylize", PHOTO, OTHER, *STYLE, *QUICK, "-o", "out", "--json", "--quiet"])
    assert code == 0
    capsys.readouterr()
    with full_disk(1000):
        code = main(["stylize", PHOTO, OTHER, *STYLE, *QUICK, "-o", "out", "--json", "--quiet"])
    told = capsys.readouterr()
    assert code == 1
    assert all("cannot be written" in result["error"] for result in json.loads(told.out)["results"])
    assert len(list(Path("out").iterdir())) == 2


def test_show(capsys: Captured) -> None:
    main(["stylize", PHOTO, *STYLE, *QUICK, "-o", "a.png", "--quiet"])
    assert main(["show", "a.png"]) == 0
    text = capsys.readouterr().out
    for part in ('"impasto": "', '"sha256": "', '"strength": 0.5', "losses, step 0 to 2"):
        assert part in text
    assert main(["show", PHOTO]) == 2
    assert "does not say how it was made" in capsys.readouterr().err


def test_samples(capsys: Captured) -> None:
    assert main(["samples"]) == 0
    listed = capsys.readouterr().out.split()
    assert len(listed) == 2 + 4 + 5
    assert main(["samples", "great_wave"]) == 0
    assert Path(capsys.readouterr().out.strip()).is_file()
    assert main(["samples", "mona_lisa"]) == 2


def make_bad_files() -> None:
    Path("folder").mkdir()
    Path("file").write_text("x")
    Path("text.jpg").write_text("no picture")
    Path("empty.jpg").touch()
    Path("cut.jpg").write_bytes(Path(PHOTO).read_bytes()[:50_000])
    Image.new("RGB", (1, 1)).save("dot.png")
    Image.new("RGB", (5000, 4)).save("strip.png")
    Path("bad.pth").write_text("no weights")


BAD = {
    "missing.jpg": "there is no file missing.jpg",
    "folder": "folder is a folder",
    "text.jpg": "text.jpg is not a picture",
    "empty.jpg": "empty.jpg is empty",
    "cut.jpg": "cut.jpg is damaged or cut short",
    "dot.png --size full": "dot.png would be 1 x 1 pixels",
    "strip.png": "strip.png would be 512 x 1 pixels",
    "PHOTO --style missing.jpg": "there is no file missing.jpg",
    "PHOTO --style strip.png": "strip.png would be 512 x 1 pixels",
    "PHOTO --content-layer relu4_2": "the style loss 'neighbors' has no content loss; leave",
    "PHOTO --style-loss gram --content-layer relu4_7": "no layer 'relu4_7'; did you mean 'relu4_",
    "PHOTO --style-layer conv6_1": "no layer 'conv6_1'; did you mean 'conv",
    "PHOTO --style-layer relu1_1:x": "the share of layer relu1_1 is x; give a number of at least",
    "PHOTO -o out.xyz": "out.xyz has no extension that impasto can write; use one of .png",
    "PHOTO -o out": "out has no extension",
    "PHOTO -o nowhere/out.png": "there is no folder nowhere",
    "PHOTO -o /proc/out.png": "/proc/out.png cannot be written",
    "PHOTO PHOTO -o file": "file is a file and no folder",
    "PHOTO PHOTO -o out.png": "out.png is a file, and 2 pictures need a folder",
    "PHOTO -o file/": "file/ is a file and no folder",
    "PHOTO -o LONG.png": "cannot be written (File name too long)",
    "PHOTO --size 3000000000": "give a whole number from 1 to 65535",
    "PHOTO --seed 18446744073709551616": "seed is 18446744073709551616",
    "PHOTO -o /proc/new/": "cannot be created",
    "PHOTO --strength 1.01": "strength is 1.01; give a number from 0 to 1",
    "PHOTO --strength nan": "strength is nan",
    "PHOTO --strength some": "strength is some; give a number from 0 to 1",
    "PHOTO --steps -3": "steps is -3; give a whole number of at least 0",
    "PHOTO --steps 1.5": "steps is '1.5'; give a whole number of at least 0",
    "PHOTO --size 0": "size is 0",
    "PHOTO --size tiny": "size is 'tiny'; give a whole number from 1 to 65535 or 'full'",
    "PHOTO --tv nan": "tv is nan",
    "PHOTO --style-scale 0": "style_scale is 0",
    "PHOTO --seed -1": "seed is -1",
    "PHOTO --init elsewhere.png": "there is no file elsewhere.png",
    "PHOTO --optimizer sgd": "no optimizer 'sgd'",
    "PHOTO --pooling min": "no pooling 'min'",
    "PHOTO --preset none": "no preset 'none'",
    "PHOTO --device tpu": "no device 'tpu'",
    "PHOTO --weights missing.pth": "no weights file missing.pth",
    "PHOTO --weights bad.pth": "bad.pth cannot be read as weights",
    "PHOTO --unknown 3": "there is no option --unknown; see impasto stylize --help",
    "PHOTO --stregth 3": "there is no option --stregth; did you mean --strength?; see impasto",
    "PHOTO --steps": "--steps needs a value; see impasto stylize --help",
    "PHOTO --steps --quiet": "--steps needs a value",
    "PHOTO --strengt 0.5": "there is no option --strengt",  # nothing is abbreviated
    "PHOTO --quiet=maybe": "--quiet",
    "PHOTO --format gif -o out.png": "out.png does not end in .gif",
    "PHOTO --format xyz": "there is no format 'xyz'; use one of png",
    "PHOTO -o -": "standard output needs a format",
    "PHOTO PHOTO -o - --format png": "standard output is a file, and 2 pictures need a folder",
    "PHOTO -o - --format png --stills 1": "stills lie beside a picture",
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_gets_one_sentence_and_exit_code_2(arguments: str, capsys: Captured) -> None:
    make_bad_files()
    before = files()
    words = arguments.replace("PHOTO", PHOTO).replace("LONG", "x" * 251).split()
    style = [] if "--style" in words else STYLE
    code = main(["stylize", *words, *style])
    told = capsys.readouterr()
    assert code == 2
    assert BAD[arguments] in told.err
    assert told.err.startswith("impasto: ")
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert files() == before


def test_no_command_and_a_wrong_one() -> None:
    for arguments, told in (
        (["blend"], "there is no command blend; see impasto --help"),
        (["styliz"], "there is no command styliz; did you mean stylize?; see impasto --help"),
        (["stylize"], "PHOTOS is missing; see impasto stylize --help"),
        (["samples", "a", "b"], "b is one name too many; see impasto samples --help"),
    ):
        done = run(*arguments)
        assert done.returncode == 2
        assert done.stderr == f"impasto: {told}\n"
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: impasto COMMAND")


def test_an_input_is_never_overwritten(capsys: Captured) -> None:
    Path("photo.jpg").write_bytes(Path(PHOTO).read_bytes())
    assert main(["stylize", "photo.jpg", *STYLE, *QUICK, "-o", "photo.jpg", "--force"]) == 2
    assert "is one of the inputs" in capsys.readouterr().err
    assert Path("photo.jpg").read_bytes() == Path(PHOTO).read_bytes()


def test_no_device_that_is_not_there(capsys: Captured) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    assert main(["stylize", PHOTO, *STYLE, "--device", "cuda"]) == 2
    assert "'cuda' is not on this machine" in capsys.readouterr().err


def test_ctrl_c_saves_the_picture_as_it_is() -> None:
    command = ["stylize", PHOTO, *STYLE, "--size", "48", "--steps", "5000", "-o", "a.png"]
    done = interrupted(command, "step 0/5000")
    assert done.returncode == 130
    assert "the picture is saved as it is" in done.stderr
    assert "a.png" in done.stdout
    assert "Traceback" not in done.stderr
    record = read_record("a.png")
    assert record["stopped"] == "interrupted"
    assert record["steps"] < 5000
    assert files() == ["a.png", "a.png.checkpoint"]
    assert "to go on: impasto resume a.png.checkpoint" in done.stderr


def test_ctrl_c_ends_a_series_too() -> None:
    command = ["stylize", PHOTO, OTHER, *STYLE, "--size", "32", "--steps", "3000", "--json"]
    done = interrupted(command, "step 0/3000")
    assert done.returncode == 130
    assert len(json.loads(done.stdout)["results"]) == 1


def test_ctrl_c_before_anything_is_painted() -> None:
    command = [sys.executable, "-m", "impasto", "stylize", PHOTO, *STYLE]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    assert files() == [] or "saved" in err


def test_the_end_of_the_descent_is_said(capsys: Captured) -> None:
    assert main(["stylize", PHOTO, *STYLE, "--size", "32", "--strength", "0", "-o", "a.png"]) == 0
    assert "stopped after 0 steps: the loss has stopped falling" in capsys.readouterr().err


def test_the_wheel_holds_weights_and_samples(tmp_path: Path) -> None:
    """Nothing is fetched at run time: it is all in the wheel, with its licences."""
    import zipfile

    root = Path(__file__).parent.parent.parent
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=root,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for network in ("vgg16", "efficientnet_lite0"):
        assert f"impasto/data/{network}_features.safetensors" in names
    assert "impasto/py.typed" in names
    assert sum(name.endswith(".jpg") for name in names) == 9
    for licence in ("LICENSE", "CC-BY-4.0.txt", "CC0-1.0.txt"):
        assert any(name.endswith(licence) and "dist-info/licenses" in name for name in names)


@pytest.mark.parametrize(
    "words",
    [
        "--style-layer relu1_1,relu2_1:2 PHOTO",
        "--style-layer relu1_1 PHOTO --style-layer relu2_1:2",
        "PHOTO --style-layer relu1_1 --style-layer=relu2_1:2",
        "--style-layer=relu1_1,relu2_1:2 PHOTO --keep-colors",
        "--style-layer=relu1_1,relu2_1:2 --keep-colors PHOTO",
        "--style-layer=relu1_1,relu2_1:2 --keep-colors yes PHOTO",
    ],
)
def test_no_option_swallows_a_photo(words: str) -> None:
    given = words.replace("PHOTO", PHOTO).split()
    assert main(["stylize", *given, *STYLE, *QUICK, "-o", "a.png", "--quiet"]) == 0
    settings = read_record("a.png")["settings"]
    assert settings["style_layers"] == {"relu1_1": 1, "relu2_1": 2}
    assert settings["keep_colors"] == ("luminance" if "--keep-colors" in words else None)
    assert read_record("a.png")["photo"]["name"] == "kingfisher.jpg"


def test_a_mistyped_layer_is_no_photo(capsys: Captured) -> None:
    for layer in ("relu10_1", "RELU2_1"):
        assert main(["stylize", "--style-layer", f"relu1_1,{layer}", PHOTO, *STYLE, *QUICK]) == 2
        assert f"there is no layer '{layer}'" in capsys.readouterr().err
    # Nor is a layer, or a number, behind one; nothing is painted without it.
    for words, told in (
        ("stylize --style-layer relu1_1 relu2_1:2", "as in --style-layer relu1_1,relu2_1:2; see"),
        ("reconstruct --layer relu1_1 relu2_1", "as in --layer relu1_1,relu2_1; see"),
        ("reconstruct --weight 1 0.5", "as in --weight 1,0.5; see impasto reconstruct --help"),
    ):
        assert main([*words.split(), PHOTO, *QUICK]) == 2
        assert told in capsys.readouterr().err
    Path("relu2_1").write_bytes(Path(PHOTO).read_bytes())
    files = ["relu2_1", "-o", "a.png", *STYLE, *QUICK, "--quiet"]
    assert main(["stylize", "--style-layer", "relu1_1", *files]) == 0
    assert read_record("a.png")["photo"]["name"] == "relu2_1"


def test_names_that_begin_with_a_dash() -> None:
    Path("-dash.jpg").write_bytes(Path(PHOTO).read_bytes())
    assert main(["stylize", PHOTO, "--style", "-dash.jpg", *QUICK, "-o", "a.png", "--quiet"]) == 0
    assert read_record("a.png")["painting"]["name"] == "-dash.jpg"
    assert main(["stylize", *STYLE, *QUICK, "-o", "out/", "--quiet", "--", "-dash.jpg", OTHER]) == 0
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "-dash-cafe_terrace_at_night.png",
        "owl-cafe_terrace_at_night.png",
    ]


def test_a_defect_in_one_photo_does_not_take_the_others_along(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = Stylizer.start

    def failing(self: Stylizer, photo: Any, **options: Any) -> Any:
        if photo == OTHER:
            raise ZeroDivisionError("by chance")
        return start(self, photo, **options)

    monkeypatch.setattr(Stylizer, "start", failing)
    assert main(["stylize", OTHER, PHOTO, *STYLE, *QUICK, "-o", "out/", "--json"]) == 1
    told = capsys.readouterr()
    failed, painted = json.loads(told.out)["results"]
    assert "owl.jpg failed (ZeroDivisionError: by chance); that is a defect" in failed["error"]
    assert Path(painted["output"]).is_file()


def test_standard_input(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-m", "impasto", "stylize", "-", *STYLE, *QUICK]
    with Path(PHOTO).open("rb") as photo:
        done = subprocess.run(command, stdin=photo, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("stdin-cafe_terrace_at_night.png  (32 x 18")
    assert files() == ["stdin-cafe_terrace_at_night.png"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO()))
    assert main(["stylize", PHOTO, "--style", "-", *QUICK]) == 2
    told = capsys.readouterr().err
    assert told.startswith("impasto: standard input is empty; send a picture to it")


def test_what_exists_is_skipped(capsys: Captured) -> None:
    command = ["stylize", PHOTO, OTHER, *STYLE, *QUICK, "-o", "out", "--skip-existing"]
    assert main(["stylize", PHOTO, *STYLE, *QUICK, "-o", "out/", "--quiet"]) == 0
    assert main([*command, "--json"]) == 0
    skipped, painted = json.loads(capsys.readouterr().out.splitlines()[-1])["results"]
    assert skipped == {
        "photo": PHOTO,
        "output": "out/kingfisher-cafe_terrace_at_night.png",
        "skipped": True,
    }
    assert painted["steps"] == 2
    before = {path: path.stat().st_mtime_ns for path in Path("out").iterdir()}
    assert main(command) == 0
    assert capsys.readouterr().out.count("skipped: it is there already") == 2
    assert {path: path.stat().st_mtime_ns for path in Path("out").iterdir()} == before
    assert main([*command, "--force"]) == 2
    assert "give one" in capsys.readouterr().err


def unfinished(photo: str, target: str) -> None:
    """What Ctrl-C leaves at step 10 of 30."""

    def stop(now: Step) -> None:
        if now.step == 10:
            raise KeyboardInterrupt

    checkpoint = f"{target}.checkpoint"
    with pytest.raises(Interrupted) as interrupted:
        Stylizer([(STYLE[1], 1.0)], size=32, steps=30).paint(
            photo, callback=stop, checkpoint=checkpoint, note={"output": target}
        )
    interrupted.value.artwork.save(target)


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_what_was_interrupted_is_gone_on_with(name: str, capsys: Captured) -> None:
    unfinished(PHOTO, name)
    before = Path(name).read_bytes()
    settings = ["--size", "32", "--steps", "30", "-o", name, "--skip-existing"]
    assert main(["stylize", PHOTO, *STYLE, *settings, "--json"]) == 0
    told = capsys.readouterr()
    assert f"{name} is finished from {name}.checkpoint" in told.err
    assert "step 3/30" not in told.err
    (result,) = json.loads(told.out)["results"]
    assert (result["photo"], result["steps"]) == (PHOTO, 30)
    assert Path(name).read_bytes() != before  # in place of what was unfinished
    assert files() == [name]
    assert main(["stylize", PHOTO, *STYLE, *settings]) == 0
    assert "skipped: it is there already" in capsys.readouterr().out


def test_another_run_is_not_gone_on_with(capsys: Captured) -> None:
    unfinished(PHOTO, "a.png")
    Path("a.png").unlink()
    for photo, steps in ((OTHER, "30"), (PHOTO, "2")):  # another photo, other settings
        settings = ["--size", "32", "--steps", steps, "-o", "a.png", "--skip-existing", "--json"]
        assert main(["stylize", photo, *STYLE, *settings]) == 0
        told = capsys.readouterr()
        assert "an earlier run is kept in a.png.checkpoint" in told.err
        assert json.loads(told.out)["results"][0]["photo"] == photo
        assert read_record("a.png")["photo"]["name"] == Path(photo).name
        assert read_record("a.png")["steps"] == int(steps)
        Path("a.png").unlink()
    assert files() == ["a.png.checkpoint"]


def test_stills_beside_the_picture(capsys: Captured) -> None:
    settings = ["--size", "208", "--levels", "2", "--steps", "9", "--style-layer", "relu1_1"]
    command = ["stylize", PHOTO, *STYLE, *settings, "-o", "a.png", "--stills", "2", "--json"]
    assert main(command) == 0
    told = [f"a-step000{n}.png" for n in (2, 4, 6, 8)]
    assert json.loads(capsys.readouterr().out)["results"][0]["stills"] == told
    assert files() == [*told, "a.png"]
    for name in told:  # as large as the picture, those of the coarse level, too
        with Image.open(name) as still:
            assert still.size == (208, 117)
    assert read_record(told[0])["step"] == 2
    assert main([*command[:-1], "--quiet"]) == 0  # again: not among those of the first run
    assert {f"a-2-step000{n}.png" for n in (2, 4, 6, 8)} < set(files())
    reconstruct = ["reconstruct", PHOTO, *QUICK, "-o", "b.jpg", "--stills", "1", "--film", "b.gif"]
    assert main(reconstruct) == 0
    assert {"b-step0001.jpg", "b-step0002.jpg", "b.gif", "b.jpg"} < set(files())
    assert main(["stylize", PHOTO, *STYLE, "--stills", "0"]) == 2
    assert "stills is 0; give a whole number of at least 1" in capsys.readouterr().err


def test_info_says_what_runs_and_why(capsys: Captured) -> None:
    assert main(["info"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^kernels +compiled \(compiled for this processor, .+\)$", told, re.M)
    assert re.search(r"^memory +[\d.]+ GB may be used, of [\d.]+ GB free$", told, re.M)
    assert re.search(r"^encoder +vgg16: 13 of 13 convolutions on compiled", told, re.M)
    assert re.search(r"^layers +image conv1_1 relu1_1 .+ pool5$", told, re.M)
    assert re.search(r"^content +relu4_2$", told, re.M)
    assert re.search(r"^style +relu1_1:0.3 .+ relu5_1:0.1$", told, re.M)
    plain = subprocess.run(
        [sys.executable, "-m", "impasto", "info", "--json"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"IMPASTO_KERNELS": "plain"},
    )
    facts = json.loads(plain.stdout)
    assert facts["kernels"] == "plain (switched off by IMPASTO_KERNELS=plain)"
    assert facts["impasto"] == __version__
    assert facts["content"] == "relu4_2"
    assert "0 of 13 convolutions" in facts["encoder"]


def test_info_about_another_encoder(capsys: Captured) -> None:
    assert main(["info", "--encoder", "efficientnet-lite0"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"^encoder +efficientnet-lite0: 0 of 49 convolutions on comp", told, re.M)
    assert re.search(r"^layers +image stem.conv stem .+ head$", told, re.M)
    assert main(["info", "--encoder", "resnet18"]) == 2
    assert "the package has no weights for resnet18; give weights" in capsys.readouterr().err


def test_resuming_what_cannot_be_resumed(capsys: Captured) -> None:
    assert main(["resume", "none.checkpoint"]) == 2
    assert "there is no checkpoint none.checkpoint" in capsys.readouterr().err
    Path("bad.checkpoint").write_bytes(b"nothing of the kind")
    assert main(["resume", "bad.checkpoint"]) == 2
    told = capsys.readouterr().err
    assert "bad.checkpoint is no checkpoint of impasto" in told
    assert told.count("\n") == 1


def test_an_earlier_run_is_not_overwritten(capsys: Captured) -> None:
    Path("a.png.checkpoint").write_bytes(b"precious")
    assert main(["stylize", PHOTO, *STYLE, *QUICK, "-o", "a.png"]) == 0
    assert "to go on with it: impasto resume a.png.checkpoint" in capsys.readouterr().err
    assert Path("a.png.checkpoint").read_bytes() == b"precious"
    assert files() == ["a.png", "a.png.checkpoint"]


def test_a_bound_that_cannot_be_kept_is_said(capsys: Captured) -> None:
    arguments = ["stylize", PHOTO, *STYLE, *QUICK, "-o", "a.png"]
    assert main([*arguments, "--memory", "100M"]) == 0
    assert "more than the 100M allowed" in capsys.readouterr().err
    assert main([*arguments, "--memory", "lots"]) == 2
    assert "memory is 'lots'; give an amount such as 2G" in capsys.readouterr().err


def test_times_for_checkpoints(capsys: Captured) -> None:
    assert main(["stylize", PHOTO, *STYLE, "--checkpoint-every", "often"]) == 2
    assert "'often' is no number of at least 0; give one such as 0.5" in capsys.readouterr().err
