"""The commands that take pictures apart and compare them, as a user types them."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image, ImageSequence

from impasto import Film, Step, Stylizer, read_record, sample
from impasto.apps.cli.main import main
from tests.apps.conftest import files, interrupted

PHOTO, OTHER = str(sample("kingfisher")), str(sample("owl"))
CAFE, WAVE = str(sample("cafe_terrace_at_night")), str(sample("great_wave"))
QUICK = ["--size", "32", "--steps", "2"]

Captured = pytest.CaptureFixture[str]


def test_reconstruct(capsys: Captured) -> None:
    assert main(["reconstruct", PHOTO, "--layer", "relu2_1", *QUICK]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("kingfisher-relu2_1.png  (32 x 18 pixels, 2 steps")
    assert "kingfisher.jpg: step 2/2, loss" in told.err
    arguments = [
        "--layer",
        "relu1_1",
        "--layer",
        "relu3_1",
        "--tv",
        "0.5",
        "-o",
        "b.png",
        "--json",
        "--weight",
        "1,3",
    ]
    assert main(["reconstruct", *QUICK, *arguments, PHOTO, OTHER]) == 0
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["output"] == "b.png"
    record = read_record("b.png")
    assert record["settings"]["layers"] == ["relu1_1", "relu3_1"]
    assert record["settings"]["tv"] == 0.5
    assert record["shares"] == [0.25, 0.75]
    assert record["photo 2"]["name"] == "owl.jpg"


def test_texture() -> None:
    layers = {"relu1_1": 1, "relu2_1": 1, "relu3_1": 1}
    arguments = ["--size", "64x32", "--steps", "2", "--painting-size", "64"]
    assert main(["texture", WAVE, *arguments, "--layers", "up-to:relu3_1", "--tileable"]) == 0
    record = read_record("great_wave-texture.png")
    assert record["size"] == [64, 32]
    assert record["settings"]["layers"] == layers
    assert record["settings"]["tileable"]
    chosen = ["--layers", "relu1_1", "--layers=relu3_1:0.5", "--style-loss", "bn", "-o", "b.png"]
    assert main(["texture", WAVE, *arguments, *chosen]) == 0
    record = read_record("b.png")
    assert record["settings"]["layers"] == {"relu1_1": 1, "relu3_1": 0.5}
    assert record["settings"]["style_loss"] == "bn"


def test_atlas(capsys: Captured) -> None:
    assert main(["atlas", PHOTO, WAVE, "--size", "32", "--steps", "1", "-o", "a.png"]) == 0
    told = capsys.readouterr()
    assert re.match(r"a\.png  \(2340 x \d+ pixels\)", told.out)
    assert "10 of 10: painting, up to relu5_1: step 1/1" in told.err
    assert len(read_record("a.png")["runs"]) == 10
    assert main(["atlas", PHOTO, "--channels", "relu2_1", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert read_record("kingfisher-relu2_1.png")["layer"] == "relu2_1"


def test_compare(capsys: Captured) -> None:
    vary = ["--vary", "optimizer=lbfgs,adam", "--vary", "style-layer=relu1_1+relu2_1:2,relu3_1"]
    assert main(["compare", PHOTO, "--style", WAVE, *vary, *QUICK, "--plot", "curves.png"]) == 0
    name = "kingfisher-by-optimizer-style-layer"
    assert files() == ["curves.png", f"{name}.csv", f"{name}.png"]
    assert "4 of 4: optimizer adam, style-layer relu3_1: step 2/2" in capsys.readouterr().err
    table = list(csv.DictReader(Path(f"{name}.csv").read_text().splitlines()))
    assert [row["style-layer"] for row in table] == ["relu1_1+relu2_1:2", "relu3_1"] * 2
    runs = read_record(f"{name}.png")["runs"]
    assert runs[0]["settings"]["style_layers"] == {"relu1_1": 1, "relu2_1": 2}
    assert runs[3]["settings"]["optimizer"] == "adam"


def test_what_can_be_saved_of_a_comparison_is(capsys: Captured) -> None:
    Path("curves").mkdir()
    arguments = ["compare", PHOTO, "--style", WAVE, "--vary", "seed=1,2", *QUICK, "-o", "a.png"]
    remove = Path("curves").rmdir

    class Vanishing(Stylizer):
        def start(self, *given: Any, **options: Any) -> Any:
            if Path("curves").exists():
                remove()
            return super().start(*given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("impasto.pages.compare.Stylizer", Vanishing)
        assert main([*arguments, "--plot", "curves/b.png"]) == 2
    told = capsys.readouterr()
    assert told.out.endswith("pixels)\na.csv\n")
    assert "impasto: there is no folder curves" in told.err
    assert files() == ["a.csv", "a.png"]


def test_compare_paintings_and_what_may_be_left_out() -> None:
    vary = ["--vary", f"style={WAVE},{WAVE}+{CAFE}:0.5", "--vary", "keep-colors=none,histogram"]
    assert main(["compare", PHOTO, *vary, *QUICK, "-o", "a.png", "--csv", "b.csv"]) == 0
    assert files() == ["a.png", "b.csv"]
    runs = read_record("a.png")["runs"]
    assert [run["settings"]["keep_colors"] for run in runs] == [None, "histogram"] * 2
    assert runs[2]["shares"] == pytest.approx([2 / 3, 1 / 3])


def test_names_with_commas_and_pluses() -> None:
    for name, source in (("a,b.jpg", WAVE), ("c+d, e.jpg", CAFE), ("f.jpg", CAFE)):
        Path(name).write_bytes(Path(source).read_bytes())
    vary = "style=a,b.jpg,c+d, e.jpg:2,f.jpg+a,b.jpg:0.5,c+d, e.jpg+f.jpg"
    assert main(["compare", PHOTO, "--vary", vary, *QUICK, "-o", "a.png", "--quiet"]) == 0
    runs = read_record("a.png")["runs"]
    first = ["a,b.jpg", "c+d, e.jpg", "f.jpg", "c+d, e.jpg"]
    assert [run["painting"]["name"] for run in runs] == first
    assert runs[2]["painting 2"]["name"] == "a,b.jpg"


def test_layers_with_photos_behind_them() -> None:
    arguments = ["--size", "32x32", "--steps", "1", "-o", "a.png"]
    assert main(["texture", *arguments, "--layers", "up-to:relu2_1", WAVE]) == 0
    assert read_record("a.png")["settings"]["layers"] == {"relu1_1": 1, "relu2_1": 1}
    layers = ["--layer", "relu1_1:3,relu2_1", PHOTO, "--weight", "1", OTHER, "--weight=3"]
    assert main(["reconstruct", *QUICK, "-o", "b.png", *layers]) == 0
    assert read_record("b.png")["settings"]["layers"] == {"relu1_1": 3, "relu2_1": 1}


def test_none_leaves_an_option_out() -> None:
    for option in ("init=none,noise", "content-layer=none", "device=none", "pooling=none"):
        assert (
            main(["compare", PHOTO, "--style", WAVE, *QUICK, "--vary", option, "-o", "a.png"]) == 0
        )
    vary = ["--vary", "steps=1,2", "--vary", f"region=none,{CAFE}:{WAVE}"]
    assert main(["compare", PHOTO, "--style", WAVE, "--size", "32", *vary, "-o", "b.png"]) == 0
    table = list(csv.DictReader(Path("b.csv").read_text().splitlines()))
    assert [row["steps"] for row in table] == ["1", "1", "2", "2"]
    assert [row["steps made"] for row in table] == ["1", "1", "2", "2"]
    assert read_record("b.png")["runs"][1]["painting of region 1"]["name"] == "great_wave.jpg"


@pytest.mark.parametrize(
    "arguments",
    [
        "compare photo.jpg --style a.jpg --vary steps=0 --csv photo.jpg",
        "compare photo.jpg --style a.jpg --vary style=b.jpg -o b.jpg",
        "compare photo.jpg --style a.jpg --vary steps=0 -o o.png --plot o.png",
        "compare photo.jpg --style a.jpg --vary steps=0 --init b.jpg -o b.jpg",
        "stylize photo.jpg --style a.jpg -o a.gif --film a.gif",
        "stylize photo.jpg --style a.jpg --region b.jpg:a.jpg -o b.jpg",
        "reconstruct photo.jpg -o photo.jpg",
        "texture a.jpg -o ./x.gif --film x.gif",
        "atlas photo.jpg a.jpg -o a.jpg",
    ],
)
def test_no_output_replaces_an_input_or_another_output(arguments: str, capsys: Captured) -> None:
    for name, source in (("photo.jpg", PHOTO), ("a.jpg", WAVE), ("b.jpg", CAFE)):
        Path(name).write_bytes(Path(source).read_bytes())
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert main([*arguments.split(), "--force"]) == 2
    assert re.search("is one of the inputs|is named for two|end it with", capsys.readouterr().err)
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_film_that_cannot_be_written_does_not_hide_the_picture(capsys: Captured) -> None:
    arguments = ["reconstruct", PHOTO, *QUICK, "-o", "a.png", "--film", "films/a.gif"]
    Path("films").mkdir()
    remove = Path("films").rmdir

    class Removing(Film):
        def add(self, step: Step) -> None:
            super().add(step)
            if step.step == 1:
                remove()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("impasto.pictures.films.Film", Removing)
        assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out.startswith("a.png  (")
    assert "films/a.gif cannot be written" in told.err
    assert told.err.count("cannot be written") == 1


def test_resumed_with_a_film() -> None:
    with Stylizer(WAVE, size=32, steps=100).start(PHOTO, checkpoint="a.png.checkpoint") as painting:
        for _ in range(10):
            next(painting)
    assert main(["resume", "a.png", "--film", "a.gif", "--quiet"]) == 0
    with Image.open("a.gif") as film:
        assert len(list(ImageSequence.Iterator(film))) > 10


def test_paintings_regions_and_colours() -> None:
    mask = Image.new("L", (32, 18), 0)
    mask.paste(255, (0, 0, 16, 18))
    mask.save("sky:left.png")
    paintings = ["--style", CAFE, "--style", f"{WAVE}:0.25", "--region", f"sky:left.png:{WAVE}"]
    assert main(["stylize", *paintings, "--keep-colors", PHOTO, *QUICK, "-o", "a.png"]) == 0
    record = read_record("a.png")
    assert record["settings"]["keep_colors"] == "luminance"
    assert record["shares"] == [0.8, 0.2]
    assert record["mask of region 1"]["name"] == "sky:left.png"
    assert record["painting of region 1"]["name"] == "great_wave.jpg"
    assert main(["stylize", PHOTO, "--region", f"sky:left.png:{WAVE}", *QUICK, "-o", "b.png"]) == 0
    colours = ["--keep-colors", "histogram", "--style-loss", "wasserstein"]
    assert main(["stylize", PHOTO, "--style", CAFE, *colours, *QUICK, "-o", "c.png"]) == 0
    settings = read_record("c.png")["settings"]
    assert (settings["keep_colors"], settings["style_loss"]) == ("histogram", "wasserstein")


@pytest.mark.parametrize(
    "command",
    [
        ["stylize", PHOTO, "--style", CAFE],
        ["reconstruct", PHOTO, "--layer", "relu1_1"],
        ["texture", CAFE, "--painting-size", "32", "--layers", "relu1_1"],
    ],
)
def test_films(command: list[str], capsys: Captured) -> None:
    assert main([*command, *QUICK, "-o", "a.png", "--film", "a.gif"]) == 0
    assert capsys.readouterr().out.endswith("a.gif\n")
    with Image.open("a.gif") as film:
        assert len(list(ImageSequence.Iterator(film))) == 3
    assert main([*command, *QUICK, "-o", "b.png", "--film", "b.mp4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["film"] == "b.mp4"
    with av.open("b.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) > 24


def test_ctrl_c_leaves_a_playable_film() -> None:
    command = ["reconstruct", PHOTO, "--size", "48", "--steps", "300", "-o", "a.png"]
    done = interrupted([*command, "--film", "a.mp4"], "step 30/")
    assert done.returncode == 130, done.stderr
    assert "the picture is saved as it is\n" in done.stderr
    with av.open("a.mp4") as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) > 48
    assert frames[0].std() + 10 < frames[-1].std()  # from grey to a picture
    assert files() == ["a.mp4", "a.png"]


def test_ctrl_c_keeps_what_was_compared() -> None:
    command = ["compare", PHOTO, "--style", CAFE, "--vary", "seed=1,2,3", "--size", "32"]
    done = interrupted([*command, "--steps", "60", "-o", "a.png"], "2 of 3")
    assert done.returncode == 130, done.stderr
    assert "the page is saved with what was made by then" in done.stderr
    table = list(csv.DictReader(Path("a.csv").read_text().splitlines()))
    assert table[0]["stopped"] in ("budget", "flat")
    assert len(table) < 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (f"reconstruct {PHOTO} --layer relu9_1", "there is no layer 'relu9_1'"),
        (f"reconstruct {PHOTO} --weight 1 --weight 2", "2 weights for 1 photos"),
        (f"reconstruct {PHOTO} --tv x", "tv is x; give a number of at least 0"),
        (f"reconstruct {PHOTO} --film a.avi", ".mp4 or .gif"),
        (f"reconstruct {PHOTO} -o a.xyz", "no extension that impasto can write"),
        ("reconstruct missing.jpg", "there is no file missing.jpg"),
        (f"texture {WAVE} --size 12", "needs at least 16 x 16"),
        (f"texture {WAVE} --size axb", "width is 'a'; give a whole number from 1 to 65535"),
        (f"texture {WAVE} --size 40x40 --tileable", "multiples of 16"),
        (f"texture {WAVE} --layers up-to", "up-to needs a layer behind a colon"),
        (f"texture {WAVE} --layers up-to relu3_1", "as in --layers up-to:relu3_1; see impasto"),
        (f"texture {WAVE} --layers up-to:relu3_2", "style layers cannot go up to 'relu3_2'"),
        (f"texture {WAVE} --layers relu3_1:x", "the share of layer relu3_1 is x; give a number"),
        (f"reconstruct {PHOTO} --weight x", "'x' is no number of at least 0; give one such as 0.5"),
        (f"texture {WAVE} --film nowhere/a.gif", "there is no folder nowhere"),
        (f"atlas {PHOTO}", "give both, or --channels LAYER"),
        (f"atlas {PHOTO} {WAVE} --size 8", "needs at least 16 x 16"),
        (f"atlas {PHOTO} --channels relu7_1", "there is no layer 'relu7_1'"),
        (f"compare {PHOTO} --style {WAVE}", "--vary is missing"),
        (f"compare {PHOTO} --style {WAVE} --vary steps", "'steps' varies nothing"),
        (f"compare {PHOTO} --style {WAVE} --vary step=1", "did you mean 'steps'"),
        (f"compare {PHOTO} --style {WAVE} --vary film=a.gif", "there is no option 'film'"),
        (f"compare {PHOTO} --style {WAVE} --vary pooling=avg,min", "there is no pooling 'min'"),
        (f"compare {PHOTO} --style {WAVE} --vary seed=1 --vary seed=2", "seed varies twice"),
        (
            f"compare {PHOTO} --style {WAVE} --vary seed=1 --vary tv=2 --vary size=32",
            "one or two options can vary",
        ),
        (f"compare {PHOTO} --style {WAVE} --vary seed=1 --csv no/a.csv", "there is no folder no"),
        (f"compare {PHOTO} --style {WAVE} --vary seed=1 --plot a.csv", "no extension"),
        (f"stylize {PHOTO} --style {WAVE}:-1", "counts -1.0; give a number of at least 0"),
        (f"compare {PHOTO} --style {WAVE} --vary seed=1 --csv a.txt", "end it with .csv"),
        (f"stylize {PHOTO} --style {'a' * 300}:0.5", "aaa"),
        (f"stylize {PHOTO} --region {'a' * 300}:{WAVE}", "aaa"),
        (f"stylize {PHOTO} --style {WAVE}:half", "great_wave.jpg:half"),
        (f"stylize {PHOTO} --region {WAVE}", "is no region; give a mask and a painting"),
        (f"stylize {PHOTO} --region no.png:{WAVE}", "there is no file no.png"),
        (f"stylize {PHOTO}", "there is no style to paint in"),
        (f"stylize {PHOTO} {OTHER} --style {WAVE} --film a.gif", "a film shows a single picture"),
        (f"stylize {PHOTO} --style {WAVE} --style-loss grm", "did you mean 'gram'"),
        (f"stylize {PHOTO} --style {WAVE} --keep-colors=hue", "there is no keep_colors 'hue'"),
        (f"stylize {PHOTO} --style {WAVE} --margin=x", "--margin"),
        (f"compare {PHOTO} --style {WAVE} --vary margin=x", "margin is 'x'; give True or False"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(
    arguments: str, told: str, capsys: Captured
) -> None:
    code = main(arguments.split())
    said = capsys.readouterr()
    assert code == 2, said.err
    assert told in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert files() == []


def test_help_of_every_command(capsys: Captured) -> None:
    for command, options in (
        ("reconstruct", "layer weight size tv steps film seed memory evaluations"),
        ("texture", "size layers tileable style-loss painting-size levels tv film"),
        ("atlas", "channels size steps"),
        ("compare", "vary csv plot style region style-loss"),
        ("stylize", "film region style-loss keep-colors evaluations"),
    ):
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        for option in options.split():
            assert re.search(rf"--{option}\b(?!-)", text), (command, option)
