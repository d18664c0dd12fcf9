"""Generators: exact parts of any size, noise that counts, and training that can go on."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from safetensors.numpy import save_file

from impasto import (
    Generator,
    Growth,
    ImpastoError,
    Network,
    Pyramid,
    Synthesizer,
    generate,
    read_record,
    sample,
)
from impasto.networks import files
from impasto.networks.files import NetworkFile
from impasto.networks.generate import start, start_again
from impasto.pages import training as pages
from impasto.pictures import images
from impasto.settings import GenerateSettings
from tests.networks.conftest import random_network

WAVE, CAFE = sample("great_wave"), sample("night_cafe")
TINY = Pyramid(widths=(6, 6, 4), noise=(4, 2, 0), shared=3, depth=2)
BAD: Any = 5
QUICK: dict[str, Any] = {"size": 64, "batch": 2, "style_layers": ["relu1_1"], "steps": 5,
                         "painting_size": 128, "critic_steps": 1}  # fmt: skip


def random_generator(styles: int = 2, pyramid: Pyramid = TINY, seed: int = 0) -> NetworkFile:
    """A generator with random weights, settled, so that its pictures have some contrast."""
    student = Synthesizer(pyramid, styles, seed)
    with torch.no_grad():
        for name, each in student.weights().items():
            if name.endswith((".scale", ".shift")):
                each += 0.4 * torch.randn(each.shape, generator=torch.manual_seed(seed))
            elif name == "picture.weight":
                each *= 4
    weights = student.settled(64, np.random.default_rng(seed))
    told = random_network(styles).styles
    return NetworkFile(pyramid, told, {name: each.numpy() for name, each in weights.items()}, "CC0")


def pixels(image: Image.Image) -> Any:
    return np.asarray(image).astype(int)


def tiny(**choices: Any) -> Growth:
    pictures = [images.read(each) for each in (WAVE, CAFE)]
    return Growth(pictures, GenerateSettings(**(QUICK | choices)), TINY)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 150), st.integers(1, 150), st.integers(1, 40), st.booleans(), st.integers(0, 9)
)
def test_tiles_are_exact(width: int, height: int, tile: int, tileable: bool, seed: int) -> None:
    generator = Generator(random_generator())
    size = (4 * width, 4 * height) if tileable else (width, height)
    noise = generator.noise(size, seed, tileable)
    shares = generator.shares("style1")
    whole = generator._made(size, noise, shares, tile=4096)
    tiled = generator._made(size, noise, shares, tile=4 * tile)
    assert whole.shape == (size[1], size[0], 3)
    # Rounding may differ in the last bit where a convolution is cut otherwise.
    assert np.abs(whole.astype(int) - tiled).max() <= 1


@pytest.mark.parametrize("pyramid", [TINY, Pyramid(), Pyramid((8,), (3,), 0, 1)])
def test_onnx_is_torch(pyramid: Pyramid) -> None:
    file = random_generator(3, pyramid)
    generator = Generator(file)
    side = 2 * pyramid.stride
    noise = generator.noise((side, side), 3)
    shares = np.array([0.2, 0.5, 0.3], np.float32)
    ours = generator._tile(noise, shares, (0, 0), [side, side])
    student = Synthesizer(pyramid, 3)
    student.take({name: torch.from_numpy(each.copy()) for name, each in file.weights.items()})
    student.eval()
    with torch.no_grad():
        given = {stride: torch.from_numpy(each)[None] for stride, each in noise.items()}
        theirs = student(given, torch.from_numpy(shares)[None])[0].numpy()
    assert ours.shape == (3, side, side)
    assert np.abs(ours - theirs).max() < 1e-5
    assert theirs.std() > 0.02


def test_a_settled_generator_does_what_it_did_in_training() -> None:
    student, random = Synthesizer(TINY, 2, 1), np.random.default_rng
    from impasto.networks.synthesis import BATCH, sampled

    settled = student.settled(64, random(5))
    noise = sampled(TINY, BATCH, 64, random(5))
    with torch.no_grad():
        normalised = student(noise, torch.eye(2)[[0] * BATCH])
        student.take(settled)
        student.eval()
        plain = student(noise, torch.eye(2)[[0] * BATCH])
    torch.testing.assert_close(plain, normalised, atol=1e-4, rtol=1e-4)


def test_a_tileable_picture_repeats_without_a_seam() -> None:
    """Of noise that is laid out twice, it makes the same picture twice."""
    generator = Generator(random_generator())
    once = generator.noise((64, 48), 4, tileable=True)
    twice = {0: once[0]}
    for stride, (_, margin) in TINY.noises().items():
        core = once[stride][:, margin:-margin, margin:-margin]
        around = [(0, 0), (margin, margin), (margin, margin)]
        twice[stride] = np.pad(np.tile(core, (1, 2, 2)), around, mode="wrap")
    shares = generator.shares("style0")
    tile = pixels(generator((64, 48), "style0", seed=4, tileable=True))
    whole = generator._made((128, 96), twice, shares).astype(int)
    assert np.abs(whole - np.tile(tile, (2, 2, 1))).max() <= 1
    assert not np.array_equal(tile, pixels(generator((64, 48), "style0", seed=4)))


def test_noise_of_both_kinds_counts() -> None:
    generator = Generator(random_generator())
    shares, noise = generator.shares("style0"), dict(generator.noise((96, 96), 0))
    before = generator._made((96, 96), noise, shares).astype(int)
    everywhere = generator._made((96, 96), {**noise, 0: -noise[0]}, shares).astype(int)
    assert np.abs(everywhere - before).mean((0, 2)).min() > 0  # every column
    local = dict(noise)
    local[4] = noise[4].copy()
    local[4][:, 2, 2] += 3.0
    here = np.abs(generator._made((96, 96), local, shares).astype(int) - before).max(2)
    assert here[:32, :32].max() > 0
    assert here[60:].max() == here[:, 60:].max() == 0
    assert not np.array_equal(
        pixels(generator((64, 64), "style0", seed=1)), pixels(generator((64, 64), "style0"))
    )


def test_a_walk_goes_from_one_seed_to_the_other() -> None:
    generator = Generator(random_generator())
    walk = [*generator.walk((40, 30), "style1", seeds=(3, 8), frames=5)]
    ends = [generator((40, 30), "style1", seed=seed) for seed in (3, 8)]
    assert np.abs(pixels(walk[0]) - pixels(ends[0])).max() <= 1
    assert np.abs(pixels(walk[-1]) - pixels(ends[1])).max() <= 1
    steps = [np.abs(pixels(a) - pixels(b)).mean() for a, b in itertools.pairwise(walk)]
    assert max(steps) < np.abs(pixels(ends[0]) - pixels(ends[1])).mean()


def test_mixed_styles_are_between() -> None:
    generator = Generator(random_generator())
    first, last = (pixels(generator((64, 64), name)) for name in generator.styles)
    mixed = pixels(generator((64, 64), {"style0": 1, "style1": 1}))
    assert np.abs(mixed - first).mean() < np.abs(last - first).mean()


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = random_generator()
    path = Generator(file).save(tmp_path / "a.safetensors")
    again = files.read(path)
    assert again.architecture == file.architecture
    assert np.array_equal(
        pixels(Generator.load(path)((50, 40), "style1")),
        pixels(Generator(file)((50, 40), "style1")),
    )


@pytest.mark.parametrize(
    ("work", "told"),
    [
        (lambda file: Network(file), "impasto imagine"),
        (lambda _: Generator(random_network()), "impasto apply"),
        (lambda file: Generator(file)((0, 5), "style0"), "width is 0"),
        (lambda file: Generator(file)((50, 50), "style0", tileable=True), "give 48x48 instead"),
        (lambda file: Generator(file)((50, 50)), "name one of: style0, style1"),
        (lambda file: Generator(file)((50, 50), "style7"), "did you mean"),
        (lambda file: Generator(file)((50, 50), "style0", seed=-1), "seed is -1"),
        (lambda file: Generator(file, memory="400M")((20000, 20000), "style0"), "allow"),
        (lambda file: Generator(file, device="tpu"), "there is no device"),
        (
            lambda file: [*Generator(file).walk((9, 9), "style0", seeds=(0, 1), frames=1)],
            "frames is 1",
        ),
        (lambda file: Generator(file).walk((9, 9), "style0", seeds=BAD, frames=2), "give two"),
        (lambda file: Generator(file).walk((9, 9), "no", seeds=(0, 1), frames=2), "no style"),
        (lambda _: Pyramid(widths=(4, 4), noise=(1,)), "describes no generator"),
        (lambda _: Pyramid(widths=(4, 4), noise=(0, 2)), "at least one at the largest stride"),
        (lambda _: GenerateSettings(adversary=None), "by both"),
        (lambda _: GenerateSettings(adversary="wgam"), "did you mean 'wgan'"),
        (lambda _: GenerateSettings(style_loss="neighbors"), "choose another style loss"),
        (lambda _: tiny(size=66), "multiple of 4"),
        (lambda _: tiny(painting_size=60), "looks at squares of 64"),
        (lambda _: generate([]), "give a painting"),
        (lambda _: generate([WAVE, WAVE], steps=1), "two styles would be called great_wave"),
    ],
)
def test_what_cannot_be_is_told(work: Any, told: str) -> None:
    with pytest.raises(ImpastoError, match=told):
        work(random_generator())


@pytest.mark.parametrize(
    "change",
    [
        {"kind": []},
        {"kind": "poem"},
        {"kind": None},
        {"architecture": {"widths": [-3], "noise": [4], "shared": 3, "depth": 2}},
        {"architecture": {"widths": [10**9] * 3, "noise": [4, 2, 0], "shared": 3, "depth": 2}},
        {"architecture": {"widths": "six", "noise": [4, 2, 0], "shared": 3, "depth": 2}},
        {"architecture": []},
    ],
)
def test_hostile_descriptions_are_told(change: dict[str, Any], tmp_path: Path) -> None:
    file = random_generator()
    path = tmp_path / "a.safetensors"
    about = {"impasto": json.dumps({**file.description, **change})}
    save_file(dict(file.weights), path, about)
    with pytest.raises(ImpastoError, match=r"a\.safetensors"):
        Generator.load(path)


def test_a_halved_file_makes_the_same_pictures_but_for_rounding(tmp_path: Path) -> None:
    file = random_generator()
    paths = [
        files.write(each, tmp_path / f"{n}.safetensors")
        for n, each in enumerate((file, files.halved(file)))
    ]
    sizes = [path.stat().st_size for path in paths]
    assert sizes[1] < sizes[0]
    one, other = (pixels(Generator.load(path)((90, 70), "style1")) for path in paths)
    assert 0 < np.abs(one - other).max() <= 4
    large = dataclasses.replace(file, weights={"a": np.full(3, 1e6, np.float32)})
    with pytest.raises(ImpastoError, match="too large for half precision"):
        files.halved(large)


def test_random_numbers_for_one_thing_are_not_those_for_another() -> None:
    """NumPy takes seeds that differ by zeros at the end for the same."""
    growth = tiny()
    drawn = [
        growth._random(purpose, step, *turn).random()
        for purpose in range(1, 6)
        for step in (1, 2)
        for turn in ((), (1,), (2,))
    ]
    assert len({*drawn}) == len(drawn)


def test_a_damaged_description_is_told(tmp_path: Path) -> None:
    file = random_generator()
    other = dataclasses.replace(file, architecture=Pyramid((6, 6), (4, 2), 3, 2))
    path = files.write(other, tmp_path / "a.safetensors")
    with pytest.raises(ImpastoError, match="does not hold the weights that it describes"):
        Generator.load(path)


@pytest.mark.parametrize(
    "choices",
    [
        {"adversary": "gan", "style_loss": "gram"},
        {"adversary": "wgan"},
        {"adversary": "wgan-gp"},
        {"adversary": None, "style_loss": "gram"},
    ],
)
def test_a_generator_learns_by_either_and_goes_on_where_it_was(
    choices: dict[str, Any], tmp_path: Path
) -> None:
    kept = tmp_path / "a.checkpoint"
    wanted = QUICK | choices
    course = start([WAVE, CAFE], checkpoint=kept, checkpoint_every=0, **wanted)
    losses = []
    for step in course:
        losses.append((step.losses, step.round))
        if step.step == 3:
            course.keep()
            kept.rename(tmp_path / "b.checkpoint")
    again = start_again(tmp_path / "b.checkpoint")
    assert [(step.losses, step.round) for step in again] == losses[3:]
    ours, theirs = course.training.network, again.training.network
    for name, each in ours.weights.items():
        assert np.array_equal(each, theirs.weights[name]), name
    record = ours.styles[1].training
    assert record["steps"] == 5
    assert record["stopped"] == "finished"
    assert len(course.training.previews) == len(again.training.previews)
    head = pages.table(course.training).splitlines()[0].split(",")
    critic = ["generator", "critic", "estimate"] if choices["adversary"] else []
    style = ["style"] if wanted.get("style_loss") else []
    assert head == ["step", "seconds", *style, *critic]
    assert (pages.adversaries(course.training) is None) == (not critic)
    assert (pages.plot(course.training) is None) == (not style)
    assert pages.previews(course.training).width > 400
    made = pages.film(course.training, tmp_path / "a.mp4")
    assert made
    assert made.stat().st_size > 1000


def test_a_style_loss_alone_falls() -> None:
    growth = tiny(adversary=None, style_loss="gram", steps=60, rate=0.01)
    steps = [step.losses.style for step in growth]
    assert np.mean(steps[-10:]) < 0.7 * np.mean(steps[:5])


def test_a_critic_alone_brings_the_colours_closer() -> None:
    growth = tiny(adversary="wgan-gp", steps=60, rate=2e-3)
    wanted = images.to_tensor(images.read(WAVE).image).mean((0, 2, 3))
    before = (growth.samples(0, 8).mean((0, 2, 3)) - wanted).norm()
    list(growth)
    after = (growth.samples(0, 8).mean((0, 2, 3)) - wanted).norm()
    assert after < 0.7 * before


def test_generate_gives_what_the_callback_has_seen() -> None:
    seen: list[int] = []
    made = generate(WAVE, callback=lambda step: seen.append(step.step), **QUICK)
    assert seen == [1, 2, 3, 4, 5]
    assert made.styles == ["great_wave"]
    assert made((70, 30)).size == (70, 30)
    assert made.file.styles[0].settings["adversary"] == "wgan-gp"


def test_a_loss_that_is_no_number_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    growth = tiny(adversary=None, style_loss="gram")
    monkeypatch.setattr(growth.judge, "style", lambda pictures, _: (float("nan"), pictures))
    with pytest.raises(ImpastoError, match=r"train with a smaller rate than 0\.003"):
        growth.advance()


def test_the_record_says_how_a_picture_was_made(tmp_path: Path) -> None:
    from impasto.apps.cli.main import main

    path = Generator(random_generator()).save(tmp_path / "a.safetensors")
    target = tmp_path / "a.png"
    code = main(["imagine", str(path), "--style", "style1", "--seed", "3", "--size", "40x30",
                 "-o", str(target), "--quiet"])  # fmt: skip
    assert code in (0, None)
    record = read_record(target)
    assert record["styles"] == {"style1": 1.0}
    assert record["settings"] == {"size": [40, 30], "seed": 3, "tileable": False}
