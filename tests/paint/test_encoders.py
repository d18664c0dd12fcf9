"""Everything that can be made with VGG can be made with EfficientNet and with a ResNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import impasto
from impasto import ImpastoError, Settings, Shifted, TrainSettings, sample
from impasto.apps.cli.main import main
from impasto.encoders.base import load_encoder
from impasto.jobs.orders import Order, chosen as chosen_by
from impasto.networks.photos import Photos
from impasto.networks.training import Training
from impasto.paint.neighboring import matched_layers
from impasto.pictures import images
from tests.conftest import tolerated
from tests.encoders.states import resnet
from tests.networks.conftest import TINY

PHOTO, PAINTING = sample("kingfisher"), sample("great_wave")
LITE: dict[str, Any] = {"encoder": "efficientnet-lite0"}
SMALL: dict[str, Any] = {"size": 75, "steps": 8}
LAYERS = {"efficientnet-lite0": "block3.expand", "resnet18": "layer2.0.arm"}


@pytest.fixture(scope="module", params=LAYERS)
def chosen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The settings that choose an encoder: by name, or by the file of its weights."""
    if request.param == "efficientnet-lite0":
        return LITE
    path = tmp_path_factory.mktemp("weights") / "net.pth"
    torch.save(resnet("resnet18"), path)
    return {"weights": path}


def name_of(chosen: dict[str, Any]) -> str:
    return str(chosen.get("encoder", "resnet18"))


@pytest.mark.parametrize("style_loss", ["gram", "neighbors", "wasserstein", "mmd-gaussian"])
def test_repainting(chosen: dict[str, Any], style_loss: str) -> None:
    made = impasto.stylize(PHOTO, PAINTING, style_loss=style_loss, **SMALL, **chosen)
    assert made.image.size == (75, 42)
    assert made.losses[-1] < 0.9 * made.losses[0]
    settings = made.record["settings"]
    assert settings["encoder"] == name_of(chosen)
    assert settings["pooling"] == ("max" if "weights" in chosen else None)


def test_in_tiles_it_is_the_same_picture(chosen: dict[str, Any]) -> None:
    how: dict[str, Any] = {"size": 139, "steps": 1, "levels": 1, **chosen}
    for style_loss in ("gram", "neighbors"):
        whole = impasto.stylize(PHOTO, PAINTING, style_loss=style_loss, **how)
        with tolerated():
            tiles = impasto.stylize(PHOTO, PAINTING, style_loss=style_loss, memory="1M", **how)
        assert "memory" in tiles.record
        assert tiles.losses[0] == pytest.approx(whole.losses[0], rel=1e-4)
        apart = np.asarray(tiles.image, np.float64) - np.asarray(whole.image, np.float64)
        assert np.abs(apart).mean() < 1


def test_regions_and_mixtures(chosen: dict[str, Any]) -> None:
    mask = Image.linear_gradient("L").resize((75, 50))
    other = sample("night_cafe")
    for style_loss in ("gram", "neighbors"):
        made = impasto.stylize(
            PHOTO,
            [PAINTING, (other, 0.5)],
            regions=[(mask, other)],
            style_loss=style_loss,
            **SMALL,
            **chosen,
        )
        assert made.losses[-1] < made.losses[0]


def test_a_run_is_resumed(tmp_path: Path, chosen: dict[str, Any]) -> None:
    stylizer = impasto.Stylizer(PAINTING, **SMALL, **chosen)
    whole = stylizer.paint(PHOTO)
    checkpoint = tmp_path / "a.checkpoint"
    with stylizer.start(PHOTO, checkpoint=checkpoint) as painting:
        for step in painting:
            if step.step == 4:
                break
    assert impasto.resume(checkpoint).losses == pytest.approx(whole.losses, rel=1e-6)


def test_reconstructions(chosen: dict[str, Any]) -> None:
    """An early layer keeps more of the photo than a late one."""
    early, late = ("stem", "block8.merge") if chosen is LITE else ("relu1", "layer4.1.merge")
    photo = images.read(PHOTO).image
    errors = []
    for layer in (early, late):
        made = impasto.reconstruct(PHOTO, layers=layer, size=75, steps=25, **chosen)
        there = np.asarray(images.resize(photo, made.image.size), np.float64)
        errors.append(np.square(np.asarray(made.image, np.float64) - there).mean())
    assert errors[0] < 0.5 * errors[1]
    arm = impasto.reconstruct(PHOTO, layers=LAYERS[name_of(chosen)], size=75, steps=10, **chosen)
    assert arm.losses[-1] < 0.7 * arm.losses[0]


def test_textures_repeat(chosen: dict[str, Any]) -> None:
    how: dict[str, Any] = {"size": (96, 64), "steps": 20, "tileable": True}
    made = impasto.texture(PAINTING, **how, **chosen)
    assert made.image.size == (96, 64)
    assert made.losses[-1] < 0.5 * made.losses[0]
    odd = impasto.texture(PAINTING, size=(75, 51), steps=2, painting_size=83, **chosen)
    assert odd.image.size == (75, 51)
    with pytest.raises(ImpastoError, match=r"its sides have to be multiples of"):
        impasto.texture(PAINTING, size=(75, 51), tileable=True, **chosen)


def test_an_atlas_and_channels(chosen: dict[str, Any]) -> None:
    sheet = impasto.atlas(PHOTO, PAINTING, size=64, steps=1, **chosen)
    encoder = load_encoder(chosen.get("weights"), name=chosen.get("encoder"))
    assert len(sheet.runs) == 2 * len(encoder.style_layers)
    assert f"photo, {next(iter(encoder.style_layers))}" in [run.label for run in sheet.runs]
    shown = impasto.channels(PHOTO, LAYERS[encoder.name], size=64, **chosen)
    assert shown.record["layer"] == LAYERS[encoder.name]


def test_a_comparison_of_encoders_and_of_layers(tmp_path: Path) -> None:
    chosen_file = tmp_path / "net.pth"
    torch.save(resnet("resnet18"), chosen_file)
    vary = {"encoder": ["vgg16", "efficientnet-lite0"]}
    page = impasto.compare(PHOTO, PAINTING, vary=vary, size=48, steps=1)
    assert [run.stopped for run in page.runs] == ["budget", "budget"]
    files: dict[str, list[Any]] = {"weights": [None, chosen_file]}
    page = impasto.compare(PHOTO, PAINTING, vary=files, size=48, steps=1)
    assert [run.artwork.record["settings"]["encoder"] for run in page.runs if run.artwork] == [
        "vgg16",
        "resnet18",
    ]
    layers = {"style_layers": [["block2.merge"], ["block2.expand"]]}
    page = impasto.compare(PHOTO, PAINTING, vary=layers, size=48, steps=1, **LITE)
    assert [run.stopped for run in page.runs] == ["budget", "budget"]
    layers["style_layers"].append(["relu1_1"])
    with pytest.raises(ImpastoError, match=r"relu1_1 belongs to vgg16, and the encoder is effici"):
        impasto.compare(PHOTO, PAINTING, vary=layers, size=48, steps=1, **LITE)


def test_a_network_learns_from_it(photos: Path, chosen: dict[str, Any]) -> None:
    settings = TrainSettings(size=64, batch=2, steps=3, **chosen)
    painting = images.read(PAINTING)
    training = Training([painting], Photos(photos, 64, 0), settings, architecture=TINY)
    losses = [step.validation for step in training if step.validation]
    assert np.isfinite(losses[-1].total)
    told = training.told_styles()[0].settings
    assert told["encoder"] == name_of(chosen)
    assert told["style_layers"] == dict(training.judge.encoder.style_layers)
    assert ("weights_sha256" in told) == ("weights" in chosen)


def test_a_job_cannot_choose_what_needs_a_file() -> None:
    for name in ("vgg19", "resnet50"):
        with pytest.raises(
            ImpastoError, match=f"{name} needs a weights file, which is not a job's"
        ):
            chosen_by(Order("stylize", {"encoder": name}))
        with pytest.raises(ImpastoError, match=f"{name} needs a weights file"):
            chosen_by(Order("compare", {}, vary={"encoder": ["vgg16", name]}))
    assert chosen_by(Order("stylize", LITE)) == Settings(**LITE)


def test_smoothing_is_part_of_the_record_and_changes_the_picture() -> None:
    plain, smooth = (
        impasto.stylize(PHOTO, PAINTING, size=48, steps=4, style_loss="gram", smoothing=s, **LITE)
        for s in (None, 1.0)
    )
    assert smooth.record["settings"]["smoothing"] == 1
    assert plain.image.tobytes() != smooth.image.tobytes()
    for wrong in (0, -1, "much"):
        with pytest.raises(ImpastoError, match=r"smoothing is"):
            Settings(smoothing=wrong)  # type: ignore[arg-type]


def test_what_is_smoothed() -> None:
    """Softmax over channels, times their number: every position has a mean of one."""
    encoder = load_encoder(name="efficientnet-lite0").like(smoothing=0.5)
    features = encoder(torch.rand(2, 3, 40, 40), ["block4.merge"])["block4.merge"]
    smooth = encoder.smoothed("block4.merge", features)
    expected = 40 * (features / (0.5 * encoder.spread("block4.merge"))).softmax(1)
    assert torch.allclose(smooth, expected, rtol=1e-4)
    assert torch.allclose(smooth.mean(1), torch.ones(2, 5, 5))
    assert encoder.smoothed("image", features) is features


def test_layers_with_large_strides_are_not_matched() -> None:
    encoder = load_encoder(name="efficientnet-lite0")
    expected = ["stem", "block0.merge", "block2.merge", "block4.merge"]
    assert list(matched_layers(encoder)) == list(matched_layers(Shifted(encoder, 2))) == expected


def test_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = ["stylize", str(PHOTO), "--style", str(PAINTING), "--size", "48", "--steps", "2"]
    lite = ["--encoder", "efficientnet-lite0"]
    assert main([*asked, *lite, "-o", "a.png"]) == 0
    assert impasto.read_record("a.png")["settings"]["encoder"] == "efficientnet-lite0"
    capsys.readouterr()
    for wrong, sentence in (
        (["--encoder", "efficientnet"], "there is no encoder 'efficientnet'; did you mean 'eff"),
        ([*lite, "--preset", "gatys"], "the preset 'gatys' is for VGG, and the encoder is 'eff"),
        ([*lite, "--pooling", "max"], "efficientnet-lite0 has no pooling to choose; leave pooling"),
        ([*lite, "--style-layer", "relu1_1"], "relu1_1 belongs to vgg16, and the encoder is eff"),
        (["--style-layer", "block2.merge"], "block2.merge belongs to efficientnet-lite0, and"),
        (["--encoder", "vgg19"], "the package has no weights for vgg19; give weights"),
        (["--encoder", "resnet50", "--weights", "no.pth"], "there is no weights file no.pth"),
    ):
        assert main([*asked, *wrong, "-o", "b.png"]) == 2
        told = capsys.readouterr().err
        assert sentence in told
        assert told.count("\n") == 1
    assert not Path("b.png").exists()
