"""Make the figures and tables of docs/adversaries.md.

    python benchmarks/adversaries.py PART ... [--photos FOLDER] [--only RUN ...] [--minutes N]

The parts are ring and failures (points in the plane), patches (generators of one painting),
networks (which trains two networks on the photos in FOLDER) and sheets (pictures and tables of all
that the runs left). What a run of patches or networks has learned and measured is kept in
training/adversaries/, so that a part begins where it was left; delete the folder to begin anew.
Pictures go to docs/adversaries/, tables to standard output.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import spearmanr
from torch import Tensor, nn

from impasto import (
    Adversary,
    Gan,
    GenerateSettings,
    Generator,
    Growth,
    Network,
    Opponent,
    Training,
    TrainSettings,
    Wgan,
    WganGp,
    duel,
    load_encoder,
    sample,
    sample_names,
    texture,
)
from impasto.catalog import GENERATORS
from impasto.networks import files
from impasto.networks.crops import PaintingCrops
from impasto.networks.photos import Photos
from impasto.networks.synthesis import sampled
from impasto.pages.layout import contact_sheet
from impasto.pictures import images
from judge import Judge, fine, shape
from painted import content_loss, style_loss

ROOT = Path(__file__).parent.parent
PICTURES, KEPT = ROOT / "docs" / "adversaries", ROOT / "training" / "adversaries"
PAINTING, SIZE, CROPS = "great_wave", 64, 128

Array = np.ndarray[Any, Any]


# Points in the plane: eight narrow Gaussians on a circle of radius 2.

MODES, SPREAD, POINTS, NOISE = 8, 0.02, 256, 64
CENTRES = torch.tensor(
    [(2 * math.cos(n * math.pi / 4), 2 * math.sin(n * math.pi / 4)) for n in range(MODES)]
)
RING: dict[str, tuple[Adversary, int]] = {
    "gan": (Gan(), 4000),
    "wgan": (Wgan(), 1600),
    "wgan-gp": (WganGp(penalty=1.0), 1600),
}
"""Adversaries with steps of the generator, which take about as long."""

RING_RATE = 1e-3
SEEDS = 5


def layers(inputs: int, outputs: int, seed: int) -> nn.Sequential:
    """Three hidden layers of 128."""
    torch.manual_seed(seed)
    widths = [inputs, 128, 128, 128]
    hidden = [part for a, b in itertools.pairwise(widths) for part in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*hidden, nn.Linear(widths[-1], outputs))


def on_ring(number: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(10**6 * seed + 2 * number)
    at = torch.randint(MODES, (POINTS,), generator=random)
    return CENTRES[at] + SPREAD * torch.randn(POINTS, 2, generator=random)


def plain_noise(number: int, seed: int) -> Tensor:
    random = torch.Generator().manual_seed(10**6 * seed + 2 * number + 1)
    return torch.randn(POINTS, NOISE, generator=random)


def covered(points: Tensor) -> int:
    """How many modes have a tenth of their share of the points within 0.2 of their centre."""
    far = torch.cdist(points, CENTRES)
    near = far.argmin(1)[far.amin(1) < 0.2]
    counts = torch.bincount(near, minlength=MODES)
    return int((counts >= 0.1 * len(points) / MODES).sum())


@torch.no_grad()
def made_of(generator: nn.Module, batches: int = 8) -> Tensor:
    return torch.cat([generator(plain_noise(10**5 + n, 99)) for n in range(batches)])


def ring_run(name: str, seed: int, share: float = 1.0) -> tuple[list[tuple[int, int]], Tensor]:
    """The modes covered along a training, by step, and points at its end."""
    adversary, steps = RING[name]
    steps = round(share * steps)
    generator, critic = layers(NOISE, 2, seed), layers(2, 1, 100 + seed)
    real, noise = partial(on_ring, seed=seed), partial(plain_noise, seed=seed)
    turns = duel(adversary, generator, critic, real, noise, rate=RING_RATE, seed=seed)
    course = []
    for step, _ in enumerate(itertools.islice(turns, steps), 1):
        if step % (steps // 40) == 0:
            course.append((step, covered(made_of(generator))))
    return course, made_of(generator)


def ring() -> None:
    figure = Figure((14, 8.6), layout="constrained")
    grid = figure.add_gridspec(3, SEEDS + 2)
    print("| adversary | modes at the end, seeds 0 to 4 | fewest in the last third |")
    print("| --- | --- | --- |")
    for row, name in enumerate(RING):
        plot = figure.add_subplot(grid[row, :2])
        ends, lowest = [], []
        for seed in range(SEEDS):
            course, points = ring_run(name, seed)
            steps, modes = zip(*course, strict=True)
            plot.plot(steps, modes, drawstyle="steps-post", label=f"seed {seed}")
            ends.append(modes[-1])
            lowest.append(min(modes[-len(modes) // 3 :]))
            panel = figure.add_subplot(grid[row, 2 + seed])
            x, y = CENTRES.T.numpy()
            panel.scatter(x, y, s=90, facecolors="none", edgecolors="#d55e00")
            x, y = points[:1000].T.numpy()
            panel.scatter(x, y, s=1.5, color="#0072b2")
            panel.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal", xticks=[], yticks=[])
            panel.set_title(f"{name}, seed {seed}: {modes[-1]} of 8", fontsize=10)
        plot.set(ylim=(-0.3, 8.3), xlabel="steps of the generator", ylabel="modes covered")
        plot.set_title(name)
        told = ", ".join(map(str, ends)), ", ".join(map(str, lowest))
        print(f"| `{name}` | {told[0]} | {told[1]} |", flush=True)
    saved(figure, "ring.png")


# What goes wrong, each with its mend.


class Saturating(Gan):
    """The generator of eq. 1 as it stands: it minimises log(1 - D(G(z)))."""

    def generator_loss(self, made: Tensor) -> Tensor:
        return -nn.functional.softplus(made).mean()


class Unbound(Wgan):
    """A Wasserstein critic that nobody holds back."""

    def constrain(self, critic: nn.Module) -> None:
        del critic


def slope_of(opponent: Opponent, generator: nn.Module, seed: int) -> float:
    """The norm of the generator's gradient."""
    made = generator(plain_noise(3, seed))
    _, gradient = opponent.judge(made)
    generator.zero_grad()
    made.backward(gradient)
    return math.hypot(*(float(each.grad.norm()) for each in generator.parameters()))  # type: ignore[union-attr]


def critic_alone(adversary: Adversary, steps: int, seed: int = 0) -> Iterator[tuple[float, float]]:
    """A critic that learns while the generator stands still: its estimate and what it teaches."""
    generator, critic = layers(NOISE, 2, seed), layers(2, 1, 100 + seed)
    opponent = Opponent(adversary, critic, RING_RATE, seed)
    for number in range(steps):
        with torch.no_grad():
            made = generator(plain_noise(number, seed))
        _, estimate = opponent.learn(on_ring(number, seed), made)
        yield estimate, slope_of(opponent, generator, seed)


def failures() -> None:
    steps, figure = 1500, Figure((14, 4.2), layout="constrained")
    collapse, vanish, explode = figure.subplots(1, 3)
    for name in ("gan", "wgan-gp"):
        course, _ = ring_run(name, 2)
        done = [step / RING[name][1] for step, _ in course]
        collapse.plot(done, [modes for _, modes in course], drawstyle="steps-post", label=name)
    collapse.set(ylim=(-0.3, 8.3), xlabel="share of the training", ylabel="modes covered")
    collapse.set_title("Mode collapse")
    cases: dict[str, Adversary] = {
        "gan, log(1 - D)": Saturating(),
        "gan, -log D": Gan(),
        "wgan-gp": WganGp(penalty=1.0),
    }
    print("| generator's loss | gradient after 10 steps of the critic | after 1,500 |")
    print("| --- | --- | --- |")
    for name, adversary in cases.items():
        slopes = [slope for _, slope in critic_alone(adversary, steps)]
        vanish.semilogy(slopes, label=name)
        print(f"| {name} | {slopes[9]:.3g} | {slopes[-1]:.3g} |", flush=True)
    vanish.set(xlabel="steps of the critic alone", ylabel="norm of the generator's gradient")
    vanish.set_title("Vanishing gradients")
    cases = {
        "no bound": Unbound(),
        "clipped (wgan)": Wgan(),
        "penalised (wgan-gp)": WganGp(penalty=1.0),
    }
    print("\n| critic | estimate after 10 steps | after 1,500 |\n| --- | --- | --- |")
    for name, adversary in cases.items():
        estimates = [abs(estimate) for estimate, _ in critic_alone(adversary, steps)]
        explode.semilogy(estimates, label=name)
        print(f"| {name} | {estimates[9]:.3g} | {estimates[-1]:.3g} |", flush=True)
    explode.set(xlabel="steps of the critic alone", ylabel="size of the estimate")
    explode.set_title("An exploding critic")
    for panel in (collapse, vanish, explode):
        panel.legend(fontsize=8)
    saved(figure, "failures.png")


# Generators of one painting.

PATCHES: dict[str, dict[str, Any]] = {
    "gan": {"adversary": "gan", "critic_steps": 1, "rate": 1e-3},
    "wgan": {"adversary": "wgan"},
    "wgan-gp": {"adversary": "wgan-gp"},
    "gram": {"adversary": None, "style_loss": "gram"},
    "both": {"adversary": "wgan-gp", "style_loss": "gram"},
}
MEASURED = 16
TRAINED_ON, AVERAGED = 100, 60
"""Steps of a critic for an estimate, and how many of them, the last ones, it is the mean of."""


def patches(only: list[str], minutes: float) -> None:
    """Train a generator each way, and measure it along the way."""
    for name, choices in PATCHES.items():
        kept = KEPT / f"{name}.json"
        if (only and name not in only) or kept.exists():
            continue
        settings = GenerateSettings(
            size=SIZE, painting_size=256, minutes=minutes, seed=0, **choices
        )
        growth = Growth([images.read(sample(PAINTING))], settings)
        judge, crops = Judge(), PaintingCrops(growth.paintings, 256, SIZE, seed=77)
        real = crops([0] * CROPS, 0)
        measured: list[dict[str, float]] = []
        shares = np.linspace(0, 1, MEASURED + 1)[1:]
        for step in growth:
            if step.done < shares[len(measured)] - 1e-9:
                continue
            made = current(growth, CROPS, 10**6)
            told = {"step": step.step, "seconds": growth.seconds, "apart": judge.apart(made, real)}
            if growth.opponent:
                told["estimate"] = estimated(growth, crops)
                told["own"] = float(np.mean([row[-1] for row in growth.course[-30:]]))
            measured.append(told)
            print(f"{name}: {told}", flush=True)
            growth.rest()  # measuring is no training
        mean = judge.apart(growth.samples(0, CROPS, 1), real)
        floor = judge.apart(crops([0] * CROPS, 10**6), real)
        made_whole(
            files.write(growth.network, KEPT / f"{name}.safetensors", force=True),
            kept,
            {"measured": measured, "mean": mean, "floor": floor},
        )


def made_whole(network: Path, kept: Path, about: dict[str, Any]) -> None:
    """Say last that a run is finished."""
    assert network.exists()
    kept.write_text(json.dumps(about, indent=1))


@torch.no_grad()
def current(growth: Growth, count: int, number: int) -> Tensor:
    """Pictures of the generator as it is now, which is what its critic knows."""
    noise = sampled(growth.pyramid, count, SIZE, np.random.default_rng([1, number]))
    made: Tensor = growth.student(noise, torch.ones(count, 1))
    return made


def estimated(growth: Growth, crops: PaintingCrops) -> float:
    """The estimate of a copy of the critic that has been trained on, while the generator waits.

    The theory is that of the best critic; the one that learns in turns is always a little behind.
    """
    assert growth.opponent
    batch, seed = growth.settings.batch, growth.step
    opponent = Opponent(
        growth.opponent.adversary, copy.deepcopy(growth.opponent.critic), growth.rate, seed
    )
    styles, found = torch.zeros(batch, dtype=torch.long), []
    for number in range(TRAINED_ON):
        made = current(growth, batch, number)
        real = crops([0] * batch, 1 + number, seed)
        found.append(opponent.learn(real, made, styles)[1])
    return float(np.mean(found[-AVERAGED:]))


def curve() -> None:
    """The estimate beside a measure that nobody optimises, along training."""
    figure = Figure((14, 4.2), layout="constrained")
    panels = figure.subplots(1, 3)
    print("| adversary | steps | rank correlation | of its own estimate | measure, begin and end |")
    print("| --- | --- | --- | --- | --- |")
    for name, panel in zip(("gan", "wgan", "wgan-gp"), panels, strict=True):
        told = json.loads((KEPT / f"{name}.json").read_text())
        steps, apart, estimate, own = (
            [row[key] for row in told["measured"]] for key in ("step", "apart", "estimate", "own")
        )
        rank, of_own = (float(spearmanr(each, apart)[0]) for each in (estimate, own))
        panel.plot(steps, apart, color="#d55e00", label="sliced Wasserstein, EfficientNet")
        panel.set(xlabel="steps of the generator", ylabel="measure", ylim=(0, None))
        other = panel.twinx()
        other.plot(steps, estimate, color="#0072b2", label="estimate of a critic that learned on")
        other.set_ylabel("estimate")
        panel.set_title(f"{name}: rank correlation {rank:.2f}")
        lines = [*panel.get_lines(), *other.get_lines()]
        panel.legend(lines, [line.get_label() for line in lines], fontsize=8)
        ends = f"{apart[0]:.2f}, {apart[-1]:.2f}"
        print(f"| `{name}` | {steps[-1]} | {rank:.2f} | {of_own:.2f} | {ends} |")
    saved(figure, "estimate.png")


def textures() -> None:
    """Textures by optimising, by Gram matrices, by a critic and by both."""
    judge = Judge()
    painting = images.read(sample(PAINTING))
    crops = PaintingCrops([painting], 256, SIZE, seed=77)
    real = crops([0] * CROPS, 0)
    began = time.monotonic()
    grown = texture(sample(PAINTING), size=(512, 512), painting_size=256, seed=0).image
    cells = [("by optimising", grown)]
    rows = [("optimised pixel by pixel", 0.0, time.monotonic() - began, cut(grown, real, judge))]
    for name in ("gram", "gan", "wgan", "wgan-gp", "both"):
        generator = Generator.load(KEPT / f"{name}.safetensors")
        generator((64, 64))
        began = time.monotonic()
        picture = generator((512, 512), seed=1)
        taken = time.monotonic() - began
        told = json.loads((KEPT / f"{name}.json").read_text())
        rows.append((name, told["measured"][-1]["seconds"], taken, cut(picture, real, judge)))
        cells.append((name, picture))
    floor = json.loads((KEPT / "gram.json").read_text())["floor"]
    print("| texture | training, minutes | picture of 512 x 512, s | measure |")
    print("| --- | --- | --- | --- |")
    for name, training, taken, apart in rows:
        minutes = f"{training / 60:.0f}" if training else ""
        print(f"| {name} | {minutes} | {taken:.2f} | {apart:.3f} |")
    print(f"| other crops of the painting | | | {floor:.3f} |")
    sheet(cells, 3).save(PICTURES / "textures.jpg", quality=85)


def cut(picture: Image.Image, real: Tensor, judge: Judge) -> float:
    """The measure of a texture: crops of it against crops of the painting."""
    random = np.random.default_rng(0)
    x = images.to_tensor(picture)
    corners = random.integers(x.shape[-1] - SIZE + 1, size=(len(real), 2))
    made = torch.cat([x[..., a : a + SIZE, b : b + SIZE] for a, b in corners])
    return judge.apart(made, real)


def shipped() -> None:
    """Every painting beside what the generator in the package makes of two seeds."""
    gap, height, width = 8, 256, 376
    page = Image.new(
        "RGB", (340 + 2 * (gap + width), len(GENERATORS) * (height + gap) - gap), "white"
    )
    for row, name in enumerate(GENERATORS):
        painting = images.cover(images.read(sample(name)).image, (340, height))
        page.paste(painting, (0, row * (height + gap)))
        for n, seed in enumerate((2, 0)):
            picture = Generator.load(name)((width, height), seed=seed)
            page.paste(picture, (340 + gap + n * (width + gap), row * (height + gap)))
    page.save(PICTURES / "generators.jpg", quality=85)


# One-pass networks with and without a critic.

NETWORKS: dict[str, dict[str, Any]] = {
    "without": {},
    "with": {"adversary": "wgan-gp", "adversary_weight": 0.5},
}
STEPS = 400


def networks(folder: Path, only: list[str], steps: int) -> None:
    paintings = [images.read(sample(name)) for name in sample_names()["paintings"]]
    for name, choices in NETWORKS.items():
        target = KEPT / f"network-{name}.safetensors"
        if (only and name not in only) or target.exists():
            continue
        settings = TrainSettings(size=128, steps=steps, rate=2e-3, **choices)
        training = Training(paintings, Photos(folder, settings.size, settings.seed), settings)
        for step in training:
            if step.validation:
                print(f"{name}: step {step.step}, {training.seconds:.0f} s, {step}", flush=True)
        files.write(training.network, target, force=True)


@torch.no_grad()
def table() -> None:
    """The twenty pairs by both networks."""
    judge, encoder = Judge(), load_encoder()
    names = sample_names()
    cells = []
    columns = "style", "content", "fine", "shape", "painted", "measure"
    print(f"| network | {' | '.join(columns)} |\n|{' --- |' * (len(columns) + 1)}")
    for name in NETWORKS:
        network = Network.load(KEPT / f"network-{name}.safetensors")
        found = []
        for painting in names["paintings"]:
            goal = images.read(sample(painting))
            size = images.fitted_size(goal.image.size, 256)
            aim = images.to_tensor(images.resize(goal.image, size))
            crops = PaintingCrops([goal], 256, SIZE, seed=77)([0] * 64, 0)
            random = np.random.default_rng(0)
            for photo in names["photos"]:
                image = images.read(sample(photo)).image
                image = images.resize(image, images.fitted_size(image.size, 256))
                picture = network(image, painting)
                x, y = images.to_tensor(image), images.to_tensor(picture)
                sides = [length - SIZE + 1 for length in y.shape[-2:]]
                corners = [[int(random.integers(side)) for side in sides] for _ in range(64)]
                made = torch.cat([y[..., a : a + SIZE, b : b + SIZE] for a, b in corners])
                found.append(
                    (
                        style_loss(encoder, y, aim),
                        content_loss(encoder, y, x),
                        fine(y, x),
                        shape(y, x),
                        judge.painted(y, x, aim),
                        judge.apart(made, crops),
                    )
                )
                cells.append((f"{name}", picture))
        medians = [statistics.median(column) for column in zip(*found, strict=True)]
        print(f"| {name} a critic | {' | '.join(f'{value:.3f}' for value in medians)} |")
    count = len(names["paintings"]) * len(names["photos"])
    pairs = [cells[n + half * count] for n in range(0, count, 2) for half in range(2)]
    sheet(pairs, 4).save(PICTURES / "networks.jpg", quality=80)


def sheet(cells: list[tuple[str, Image.Image]], columns: int) -> Image.Image:
    rows = len(cells) // columns
    return contact_sheet(cells, row_labels=[""] * rows, column_labels=[""] * columns, originals=[])


def saved(figure: Figure, name: str) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(PICTURES / name, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser()
    known = "ring", "failures", "patches", "networks", "sheets"
    parser.add_argument("parts", nargs="+", choices=known)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    PICTURES.mkdir(parents=True, exist_ok=True)
    if "networks" in options.parts and not options.photos:
        parser.error("the networks are trained on photos; give a folder of some with --photos")
    works: dict[str, Callable[[], None]] = {
        "ring": ring,
        "failures": failures,
        "patches": lambda: patches(options.only, options.minutes),
        "networks": lambda: networks(options.photos, options.only, options.steps),
    }
    for part in options.parts:
        if part == "sheets":
            curve()
            textures()
            shipped()
            if all((KEPT / f"network-{name}.safetensors").exists() for name in NETWORKS):
                table()
        else:
            works[part]()
        print(flush=True)


if __name__ == "__main__":
    main()
