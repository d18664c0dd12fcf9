"""Training: what is learned, what stays, and that it goes on where it was."""

from __future__ import annotations

import csv
import io
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from impasto import (
    Architecture,
    ImpastoError,
    Network,
    Training,
    TrainingStep,
    TrainSettings,
    sample,
    train,
)
from impasto.networks import files, training as module
from impasto.networks.judge import Judge, Judgement, Losses
from impasto.networks.photos import Photos
from impasto.networks.train import Course, TrainingCheckpoint, start, start_again
from impasto.pages import training as pages
from impasto.paint import checkpoints
from impasto.pictures import images
from tests.conftest import noticed, sample_tensor
from tests.networks.conftest import TINY, random_network

WAVE, CAFE = sample("great_wave"), sample("night_cafe")
QUICK: dict[str, Any] = {"size": 32, "batch": 2, "style_layers": ["relu1_1", "relu2_1"]}


def tiny(paintings: list[Any], photos: Path, **choices: Any) -> Training:
    pictures = [images.read(each) for each in paintings]
    chosen = TrainSettings(**(QUICK | {"steps": 6} | choices))
    return Training(pictures, Photos(photos, chosen.size, chosen.seed), chosen, architecture=TINY)


def test_training_lowers_the_loss(photos: Path) -> None:
    training = tiny([WAVE, CAFE], photos, steps=60, rate=0.01)
    before = training.validate().total
    steps = list(training)
    assert [step.step for step in steps] == list(range(1, 61))
    assert steps[-1].done == 1
    after = steps[-1].validation
    assert after is not None
    assert after.total < 0.5 * before
    record = training.network.styles[1].training
    assert record["steps"] == 60
    assert record["stopped"] == "finished"
    assert record["photos"] + record["held out"] == 12
    assert record["validation"]["style"] == pytest.approx(after.style)


@pytest.mark.parametrize("architecture", [Architecture((4, 6), (0, 1), 15), TINY])
def test_small_networks_learn_as_well(architecture: Architecture, photos: Path) -> None:
    """With two widths the finest grid of `GRIDS` would have a period below one pixel."""
    chosen = TrainSettings(**(QUICK | {"steps": 2}))
    training = Training([images.read(WAVE)], Photos(photos, 32), chosen, architecture=architecture)
    assert [step.step for step in training] == [1, 2]
    odd = np.random.default_rng(0).random((1, 3, 5, 3), np.float32)
    assert Network(training.network)(odd).shape == odd.shape


def test_what_was_learned_does_not_change_with_the_training(photos: Path) -> None:
    training = tiny([WAVE], photos)
    network = training.network
    before = {name: each.copy() for name, each in network.weights.items()}
    training.advance()
    assert all(np.array_equal(network.weights[name], each) for name, each in before.items())


def test_a_gradient_that_is_no_number_stays_out_of_the_weights(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tiny([WAVE], photos)
    training.advance()
    before, judged = training.network.weights, Judge.__call__

    def broken(*given: Any) -> Judgement:
        return judged(*given)._replace(gradient=torch.full((2, 3, 32, 32), math.nan))

    monkeypatch.setattr(Judge, "__call__", broken)
    with pytest.raises(ImpastoError, match="no number after 1 steps; train with a smaller rate"):
        training.advance()
    assert all(
        np.array_equal(training.network.weights[name], each) for name, each in before.items()
    )


def test_the_same_seed_gives_the_same_network(photos: Path) -> None:
    first, second, other = (tiny([WAVE], photos, seed=seed) for seed in (1, 1, 2))
    for training in (first, second, other):
        list(training)
    assert first.course[-1][2:] == second.course[-1][2:] != other.course[-1][2:]
    weights, same = first.network.weights, second.network.weights
    assert all(np.array_equal(weights[name], same[name]) for name in weights)


def test_styles_that_cannot_be_stacked_are_judged_one_by_one(photos: Path) -> None:
    """A fitted style (here, the kernel's width) differs from painting to painting."""
    training = tiny([WAVE, CAFE], photos, style_loss="mmd-gaussian")
    crops, shown = training.photos.crops(1, 3), torch.rand(3, 3, 32, 32)
    together = training.judge(shown, crops, [0, 1, 0])
    parts = [training.judge(shown[n : n + 1], crops[n : n + 1], [n % 2]) for n in range(3)]
    expected = np.mean([part.losses for part in parts], axis=0)
    assert list(together.losses) == pytest.approx(expected.tolist(), rel=1e-5)
    gradients = torch.cat([part.gradient for part in parts]) / 3
    assert torch.allclose(together.gradient, gradients, rtol=1e-3, atol=1e-7)


def test_stacked_styles_are_judged_alike(photos: Path) -> None:
    training = tiny([WAVE, CAFE], photos)
    crops, shown = training.photos.crops(1, 3), torch.rand(3, 3, 32, 32)
    together = training.judge(shown, crops, [0, 1, 0])
    parts = [training.judge(shown[n : n + 1], crops[n : n + 1], [n % 2]) for n in range(3)]
    expected = np.mean([part.losses for part in parts], axis=0)
    assert list(together.losses) == pytest.approx(expected.tolist(), rel=1e-5)


def test_strength(photos: Path) -> None:
    assert tiny([WAVE], photos, strength=0.0).judge.style_weight == 0
    training = tiny([WAVE], photos, strength=0.0)
    crops = training.photos.crops(1, 2)
    assert training.judge(crops, crops, [0, 0]).losses.total == pytest.approx(0, abs=1e-6)


def begun(kept: Path) -> dict[str, Any]:
    """Arguments of `start` for a training of seven steps with a checkpoint after each."""
    return {**QUICK, "steps": 7, "checkpoint": kept, "checkpoint_every": 0}


def left_at_step_3(course: Course[Training], kept: Path) -> list[Losses]:
    """Train to the end, but leave the checkpoint of step 3; returns the losses of all steps."""
    losses, copied = [], b""
    for step in course:
        losses.append(step.losses)
        copied = kept.read_bytes() if step.step == 3 else copied
    kept.write_bytes(copied)
    return losses


def test_a_training_goes_on_as_if_it_had_never_stopped(photos: Path, tmp_path: Path) -> None:
    kept = tmp_path / "a.checkpoint"
    course = start([WAVE, CAFE], photos, **begun(kept), seed=3)
    order = course.training.photos.held_out
    assert order != sorted(order)
    losses = left_at_step_3(course, kept)
    again = start_again(kept)
    assert again.training.step == 3
    assert [path.name for path in again.training.photos.held_out] == [p.name for p in order]
    assert [step.losses for step in again] == losses[3:]
    ours, theirs = again.training.network.weights, course.training.network.weights
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)
    assert again.training.validation[-1][2:] == course.training.validation[-1][2:]
    assert [step for step, _ in again.training.previews] == [
        step for step, _ in course.training.previews
    ]


def test_other_photos_are_told_of(photos: Path, tmp_path: Path) -> None:
    mine = tmp_path / "photos"
    mine.mkdir()
    for path in photos.iterdir():
        (mine / path.name).write_bytes(path.read_bytes())
    kept = tmp_path / "a.checkpoint"
    next(iter(start([WAVE], mine, checkpoint=kept, checkpoint_every=0, steps=5, **QUICK)))
    next(mine.iterdir()).unlink()
    begun = checkpoints.read_record(kept)
    Image.new("RGB", (99, 99)).save(mine / "0new.png")
    with noticed("photos that are gone since the training began: 1"):
        photos_now = start_again(kept).training.photos
    held_out = [photos_now.name(path) for path in photos_now.held_out]
    assert {*held_out} <= {*begun["held_out"]}
    assert {photos_now.name(path) for path in photos_now.paths} <= {*begun["known"]}
    for path in list(mine.iterdir())[:5]:
        path.unlink()
    with pytest.raises(ImpastoError, match="photos that can be read, and training needs 10"):
        start_again(kept)


def test_a_training_goes_on_in_a_folder_that_was_moved(photos: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.copytree(photos, project / "photos")
    (project / "wave.jpg").write_bytes(WAVE.read_bytes())
    base = files.write(random_network(2), project / "base.safetensors")
    kept = project / "a.checkpoint"
    course = start(project / "wave.jpg", project / "photos", base=base, **begun(kept))
    losses = left_at_step_3(course, kept)
    moved = project.rename(tmp_path / "moved")
    again = start_again(moved / "a.checkpoint")
    assert [step.losses for step in again] == losses[3:]
    assert again.training.styles == ["style0", "style1", "wave"]


def test_a_checkpoint_of_something_else(photos: Path, tmp_path: Path) -> None:
    kept = tmp_path / "a.checkpoint"
    next(iter(start(WAVE, photos, checkpoint=kept, checkpoint_every=0, steps=5, **QUICK)))
    record, tensors = checkpoints.read_parts(kept)
    changes: list[dict[str, Any]] = [{"settings": {}}, {"progress": {}}, {"held_out": 3}]
    for change in changes:
        begun = TrainingCheckpoint(**{**record, **change}, tensors=tensors)
        checkpoints.write(kept, begun)
        with pytest.raises(ImpastoError, match="another version of impasto"):
            start_again(kept)
    smaller = {name: each[:1] if each.ndim else each for name, each in tensors.items()}
    checkpoints.write(kept, TrainingCheckpoint(**record, tensors=smaller))
    with pytest.raises(ImpastoError, match="another version of impasto"):
        start_again(kept)


def test_a_training_that_diverges_says_so(photos: Path) -> None:
    training = tiny([WAVE], photos, steps=9)
    training.advance()
    with torch.no_grad():
        training.student.weights()["down2.weight"].fill_(math.nan)
    with pytest.raises(ImpastoError, match="the loss is no number after 1 steps; train with a sm"):
        training.advance()
    for each in training.mean.values():
        each.fill_(math.nan)
    training.validate()
    assert training.best == {}
    training.mean = {name: torch.ones_like(each) for name, each in training.mean.items()}
    training.validate()
    assert training.best.keys() == training.mean.keys()
    assert training.record["validation"]["total"] == training.validation[1][-1]


def test_time_is_a_limit_too(photos: Path) -> None:
    training = tiny([WAVE], photos, steps=None, minutes=1.0)
    training.advance()
    training.seconds = 45.0
    assert training.done == 0.75
    training.seconds = 61.0
    assert list(training) == []
    assert tiny([WAVE], photos, steps=None).settings.minutes is None
    assert tiny([WAVE], photos, steps=None).done == 0


def test_new_styles_leave_the_old_ones_to_the_bit(photos: Path, tmp_path: Path) -> None:
    base = files.write(random_network(3), tmp_path / "base.safetensors")
    old = files.read(base)
    told: list[TrainingStep] = []
    network = train(WAVE, photos, base=base, steps=5, callback=told.append, **QUICK)
    assert len(told) == 5
    assert network.styles == ["style0", "style1", "style2", "great_wave"]
    changed = 0
    for name, each in network.file.weights.items():
        if name.endswith((".scale", ".shift")):
            assert np.array_equal(each[:3], old.weights[name])
            changed += any(np.array_equal(each[3], row) for row in old.weights[name]) is False
        else:
            assert np.array_equal(each, old.weights[name])
    assert changed > 0
    image = sample_tensor("owl", 48).numpy()
    before, after = Network(old), network
    for style in before.styles:
        assert np.array_equal(before(image, style), after(image, style))
    assert not np.array_equal(after(image, "great_wave"), after(image, "style0"))
    record = network.file.styles[-1]
    assert record.training["learned"] == "scales and shifts"
    assert record.settings["size"] == 32
    network.save(tmp_path / "more.safetensors")
    assert network.file.licence == "CC0"
    with pytest.raises(ImpastoError, match="keeps its licence"):
        train(WAVE, photos, base=base, steps=1, licence="mine", **QUICK)
    with pytest.raises(ImpastoError, match="two styles would be called great_wave"):
        train(WAVE, photos, base=tmp_path / "more.safetensors", steps=1, **QUICK)


def test_a_new_style_begins_as_the_old_one_that_suits_it(photos: Path) -> None:
    base = random_network(3)
    chosen = TrainSettings(**QUICK, steps=1)
    known = Photos(photos, 32)
    training = Training([images.read(WAVE)], known, chosen, base)
    some, network = training.held_out[:4], Network(base)
    totals = [
        training.judge(torch.from_numpy(network(some.numpy(), style)), some, [0] * 4).losses.total
        for style in network.styles
    ]
    begun = training.student.weights()["down2.scale"][0].detach().numpy()
    assert np.array_equal(begun, base.weights["down2.scale"][int(np.argmin(totals))])


def test_the_best_network_is_kept(photos: Path) -> None:
    """If held-out photos only get worse, the network is the one of before."""
    training = tiny([WAVE], photos, steps=4)
    training.validate()
    best = {name: each.clone() for name, each in training.best.items()}
    assert best.keys() == training.mean.keys()
    training.validation[0] = (0, 0.0, 0.0, 0.0, 0.001)  # better than any network will be
    training.mean["picture.bias"].fill_(10.0)
    training.validate()
    assert all(torch.equal(training.best[name], each) for name, each in best.items())
    assert np.array_equal(training.network.weights["down2.weight"], best["down2.weight"].numpy())


def test_pages_of_a_training(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "VALIDATED", 2)
    training = tiny([WAVE, CAFE], photos, steps=5)
    list(training)
    rows = list(csv.DictReader(io.StringIO(pages.table(training))))
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert [bool(row["validation total"]) for row in rows] == [False, True, False, True, True]
    assert float(rows[1]["style"]) == pytest.approx(training.course[1][3], rel=1e-5)
    plot = pages.plot(training)
    assert plot
    assert plot.size[0] > 1000
    sheet = pages.previews(training)
    assert sheet.height > sheet.width / 2
    assert len(training.previews) == 4  # after 1, 2, 4 and 5 of 5 steps


def test_few_photos_must_do(photos: Path, tmp_path: Path) -> None:
    known = Photos(photos, 64)
    assert len(known.held_out) == 2
    assert not {*known.paths} & {*known.held_out}
    assert torch.equal(known.crops(3, 4), known.crops(3, 4))
    assert not torch.equal(known.crops(3, 4), known.crops(4, 4))
    crops = known.crops(5, 40)
    assert crops.shape == (40, 3, 64, 64)
    assert 0 <= crops.min() < crops.max() <= 1
    assert len({crop.sum().item() for crop in crops}) == 40
    for count, match in ((0, "has 0 photos"), (9, "has 9 photos that can be read")):
        few = tmp_path / f"few{count}"
        few.mkdir()
        for path in sorted(photos.iterdir())[:count]:
            (few / path.name).write_bytes(path.read_bytes())
        with pytest.raises(ImpastoError, match=f"{match}.* and training needs 10"):
            Photos(few, 64)
    with pytest.raises(ImpastoError, match="there is no folder"):
        Photos(tmp_path / "none", 64)


def test_broken_and_small_photos_are_left_out(photos: Path, tmp_path: Path) -> None:
    mine = tmp_path / "photos"
    (mine / "deeper").mkdir(parents=True)
    for number, path in enumerate(sorted(photos.iterdir())):
        where = mine / "deeper" if number % 2 else mine
        (where / path.name).write_bytes(path.read_bytes())
    (mine / "broken.jpg").write_bytes(b"no picture")
    cut = sample("owl").read_bytes()
    (mine / "cut.jpg").write_bytes(cut[: len(cut) // 2])
    (mine / "notes.txt").write_text("no photo")
    Image.new("RGB", (500, 63)).save(mine / "small.png")
    Network(random_network()).save(mine / "net.safetensors")
    for name in ("net-curves.png", "net-previews.jpg"):
        Image.new("RGB", (99, 99)).save(mine / name)
    with noticed("photos with a side below 64 pixels are left out: 1") as told:
        known = Photos(mine, 64)
    for name in ("broken.jpg", "cut.jpg"):
        assert any("a photo is left out: " in each and name in each for each in told)
    assert len(known.paths) + len(known.held_out) == 12
    with pytest.raises(ImpastoError, match="0 photos of at least 512 pixels"), noticed():
        Photos(mine, 512)


def test_a_photo_that_breaks_later_is_left_out(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large folders are not decoded before training begins."""
    from impasto.networks import photos as module

    monkeypatch.setattr(module, "POOL", 3)
    monkeypatch.setattr(module, "KEPT", 2 * 4 * 100 * 100)
    mine = tmp_path / "photos"
    mine.mkdir()
    for path in photos.iterdir():
        (mine / path.name).write_bytes(path.read_bytes())
    known = Photos(mine, 64)
    assert torch.equal(known.crops(7, 4), known.crops(7, 4))
    known.paths[0].write_bytes(b"broken by now")
    known.held_out[0].write_bytes(b"broken by now")
    with noticed("a photo is left out: ") as told:
        for step in range(30):
            assert known.crops(step, 4).shape == (4, 3, 64, 64)
        assert known.validation(4).shape == (4, 3, 64, 64)
    assert len(told) == 2
    assert len(known.paths) == 9
    assert len(known.held_out) == 1


def test_losses_are_finite(photos: Path) -> None:
    for step in tiny([WAVE], photos, steps=3, style_loss="wasserstein", style_layers=["relu1_1"]):
        assert all(map(math.isfinite, step.losses))


@pytest.mark.parametrize("adversary", ["gan", "wgan", "wgan-gp"])
def test_a_critic_learns_beside_a_network(adversary: str, photos: Path) -> None:
    """Its crops are the painting's, each style has a score, and the columns are there."""
    training = tiny([WAVE, CAFE], photos, adversary=adversary, steps=3)
    steps = list(training)
    assert all(step.round and math.isfinite(step.round.estimate) for step in steps)
    assert training.opponent
    assert training.opponent.steps == 3
    head = pages.table(training).splitlines()[0].split(",")
    assert head[2:8] == ["content", "style", "total", "generator", "critic", "estimate"]
    assert pages.adversaries(training)
    assert not pages.adversaries(tiny([WAVE], photos))
    settings = training.network.styles[0].settings
    assert settings["adversary"] == adversary


def test_a_critic_changes_what_is_learned_by_its_weight(photos: Path) -> None:
    plain, none, some = (
        {n: w.clone() for n, w in learned(tiny([WAVE], photos, **chosen)).items()}
        for chosen in ({}, {"adversary": "gan", "adversary_weight": 0.0}, {"adversary": "gan"})
    )
    assert all(torch.equal(plain[name], none[name]) for name in plain)
    assert any(not torch.equal(plain[name], some[name]) for name in plain)


def learned(training: Training) -> dict[str, torch.Tensor]:
    training.advance()
    return training.learned


@pytest.mark.parametrize("base", [False, True])
def test_a_training_with_a_critic_goes_on_where_it_was(
    base: bool, photos: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "a.checkpoint"
    files.write(random_network(2), tmp_path / "base.safetensors")
    course = start(
        [WAVE],
        photos,
        base=tmp_path / "base.safetensors" if base else None,
        checkpoint=kept,
        **(QUICK | {"steps": 5, "adversary": "wgan-gp"}),
    )
    losses = []
    for step in course:
        losses.append((step.losses, step.round))
        if step.step == 2:
            course.keep()
            kept.rename(tmp_path / "b.checkpoint")
    again = start_again(tmp_path / "b.checkpoint")
    assert [(step.losses, step.round) for step in again] == losses[2:]
