"""Is it painted? Every sample photo after every sample painting, measured as saved.

    python benchmarks/painted.py [PHOTO ...] [--paintings NAME ...] [--size 512]
        [--save FOLDER] [--before SOURCE] [--beside STYLE_LOSS] [--sheet FILE] [-- OPTION ...]

Options after -- are passed on to `impasto stylize`, as in `-- --detail 0.5`. Pictures that are in
FOLDER already are measured but not painted again. Every pair is also painted by another version of
impasto, whose `src` folder is SOURCE, into FOLDER/before, or with another STYLE_LOSS, into
FOLDER/beside; the last lines compare the two. FILE is a contact sheet: photo, painting, the other,
now.

fine, shape, painted, edges, weave, mean and spread are described in `judge`. style is the relative
style loss (mean over relu1_1 ... relu5_1) divided by the photo's own, content the relative content
loss at relu4_2.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image, ImageOps
from torch import Tensor

from impasto import ContentLoss, Encoder, StyleLoss, gram, load_encoder, sample, sample_names
from impasto.pictures import images
from judge import Judge, edges, fine, palette, shape, weave

STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
CONTENT = "relu4_2"
CELL = 256, 172
GAP = 4


class Measures(NamedTuple):
    fine: float
    shape: float
    painted: float
    edges: float
    weave: float
    mean: float
    spread: float
    style: float
    content: float
    seconds: float

    def row(self, *names: str) -> str:
        values = (
            *(f"{value:.2f}" for value in self[:4]),
            f"{self.weave:.1f}",
            f"{self.mean:.2f}",
            f"{self.spread:.2f}",
            f"{self.style:.1%}",
            f"{self.content:.2f}",
            "" if self.seconds != self.seconds else f"{self.seconds:.0f}",
        )
        return f"| {' | '.join((*names, *values))} |"


def paint(
    photo: str, painting: str, path: Path, options: Sequence[str], source: Path | None
) -> float:
    """Paint a pair with `impasto stylize`; returns the seconds, NaN if the file exists already."""
    if path.exists():
        return float("nan")
    path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "impasto", "stylize", str(sample(photo)), "--quiet", "--json"]
    command += ["--style", str(sample(painting)), "--output", str(path), *options]
    environment = os.environ | ({"PYTHONPATH": str(source)} if source else {})
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout
    return float(json.loads(told)["results"][0]["seconds"])


def resized(name: str, longer: int) -> Tensor:
    image = images.read(sample(name)).image
    return images.to_tensor(images.resize(image, images.fitted_size(image.size, longer)))


@torch.no_grad()
def measured(
    path: Path, photo: str, painting: str, judge: Judge, encoder: Encoder, seconds: float
) -> Measures:
    picture = images.to_tensor(images.read(path).image)
    longer = max(picture.shape)
    content, style = resized(photo, longer), resized(painting, longer)
    return Measures(
        fine(picture, content),
        shape(picture, content),
        judge.painted(picture, content, style),
        edges(picture, content),
        weave(picture, style),
        *palette(picture, style),
        style_loss(encoder, picture, style) / style_loss(encoder, content, style),
        content_loss(encoder, picture, content),
        seconds,
    )


def style_loss(encoder: Encoder, image: Tensor, painting: Tensor) -> float:
    """Mean over the five layers of sum (G - A)^2 / sum A^2."""
    features, targets = encoder(image, STYLE), encoder(painting, STYLE)
    losses = [StyleLoss(layer, gram(targets[layer]))(features[layer]).item() for layer in STYLE]
    return statistics.mean(losses)


def content_loss(encoder: Encoder, image: Tensor, photo: Tensor) -> float:
    target = encoder(photo, [CONTENT])[CONTENT]
    return ContentLoss(CONTENT, target)(encoder(image, [CONTENT])[CONTENT]).item()


def summary(rows: Sequence[Measures], name: str) -> list[str]:
    """Two rows of a table: the median and the worst value of every measure."""
    high, low = Measures(*map(max, zip(*rows, strict=True))), min(row.shape for row in rows)
    median = Measures(
        *(
            statistics.median(v for v in column if v == v)
            if any(v == v for v in column)
            else float("nan")
            for column in zip(*rows, strict=True)
        )
    )
    worst = high._replace(shape=low, edges=min(row.edges for row in rows), seconds=float("nan"))
    return [median.row("median", name), worst.row("worst", name)]


def contact_sheet(rows: Sequence[Sequence[Path]]) -> Image.Image:
    """A row for each pair; two pairs side by side."""
    width, height = CELL
    across = len(rows[0]) * (width + GAP)
    lines = (len(rows) + 1) // 2
    sheet = Image.new("RGB", (2 * across + GAP, lines * (height + GAP) - GAP), "white")
    for number, row in enumerate(rows):
        x = (number // lines) * (across + 2 * GAP)
        for path in row:
            cell = ImageOps.pad(images.read(path).image, CELL, Image.Resampling.LANCZOS, "white")
            sheet.paste(cell, (x, number % lines * (height + GAP)))
            x += width + GAP
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("photos", nargs="*", default=sample_names()["photos"])
    parser.add_argument("--paintings", nargs="*", default=sample_names()["paintings"])
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--save", type=Path)
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--before", type=Path, metavar="SOURCE")
    other.add_argument("--beside", metavar="STYLE_LOSS")
    parser.add_argument("--sheet", type=Path)
    given = sys.argv[1:]
    split = given.index("--") if "--" in given else len(given)
    options, settings = parser.parse_args(given[:split]), given[split + 1 :]
    with tempfile.TemporaryDirectory() as temporary:
        compare(options, settings, options.save or Path(temporary))


def compare(options: argparse.Namespace, settings: Sequence[str], folder: Path) -> None:
    judge, encoder = Judge(), load_encoder()
    size = ["--size", str(options.size)]
    now, others, sheet = [], [], []
    source = options.before and options.before.absolute()
    kind = "before" if source else "beside"
    otherwise = ["--style-loss", options.beside] if options.beside else []
    names = ("photo", "painting", *Measures._fields)
    print(f"| {' | '.join(names)} |")
    print(f"|{' --- |' * len(names)}")
    for painting in options.paintings:
        for photo in options.photos:
            name = f"{photo}-{painting}.png"
            cells = [sample(photo), sample(painting)]
            if source or otherwise:
                path = folder / kind / name
                seconds = paint(photo, painting, path, [*size, *otherwise], source)
                others.append(measured(path, photo, painting, judge, encoder, seconds))
                cells.append(path)
            path = folder / name
            seconds = paint(photo, painting, path, [*size, *settings], None)
            now.append(measured(path, photo, painting, judge, encoder, seconds))
            print(now[-1].row(photo, painting), flush=True)
            sheet.append([*cells, path])
    print(*summary(now, "now"), sep="\n")
    if others:
        print(*summary(others, options.beside or kind), sep="\n")
        pairs = [*zip(now, others, strict=True)]
        ratios = [one.seconds / other.seconds for one, other in pairs]
        known = [ratio for ratio in ratios if ratio == ratio]
        if known:
            told = f"median {statistics.median(known):.2f}, {len(known)} pairs"
            print(f"\ntime, now / {kind}: {told}")
        print(f"\nedges higher on {sum(one.edges > other.edges for one, other in pairs)} pairs")
        print(f"painted lower on {sum(one.painted < other.painted for one, other in pairs)} pairs")
    if options.sheet:
        contact_sheet(sheet).save(options.sheet, quality=82, optimize=True, progressive=True)


if __name__ == "__main__":
    main()
