"""The time of exact tiles against that of the whole picture, and how far their results differ.

    python benchmarks/tiles.py [--size 1024] [--repeats 3] [BOUND ...]

One value and gradient of the default objective is computed as a whole and in the tiles that each
bound on the memory of a run leaves for it, in turns in one run. Times are medians.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from impasto import Objective, Stylizer, sample
from impasto.paint.levels import Level
from impasto.paint.repainting import Repainting
from impasto.pictures import images


def seconds(objective: Objective, image: torch.Tensor) -> float:
    began = time.perf_counter()
    objective(image)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bounds", nargs="*", default=["1G", "1200M", "1400M"])
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    photo = images.read(sample("owl"))
    size = images.fitted_size(photo.image.size, options.size)
    print("| `--memory` | tiles | whole, s | in tiles, s | ratio | loss differs by | gradient by |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for bound in options.bounds:
        stylizer = Stylizer(
            sample("night_cafe"), size=options.size, memory=bound, style_loss="gram"
        )
        level = Level(size, 1, 1.0)
        scene = Repainting(stylizer, photo, [level])
        content = scene.content(level)
        image = content.flip(-1)  # another picture of that size
        tiled, _ = scene.objective(level, content, content)
        whole = Objective(tiled.encoder, tiled.losses)
        one, other = whole(image), tiled(image)
        times = [(seconds(whole, image), seconds(tiled, image)) for _ in range(options.repeats)]
        alone, split = (statistics.median(column) for column in zip(*times, strict=True))
        upright = content.shape[-2], content.shape[-1]
        segments = tiled.segments(upright)
        count = sum(1 for _ in segments[0].tiles(content)) if segments else 1
        gradient = ((one.gradient - other.gradient).norm() / one.gradient.norm()).item()
        print(
            f"| {bound} | {count} | {alone:.2f} | {split:.2f} | {split / alone:.2f} "
            f"| {abs(one.loss - other.loss) / one.loss:.1e} | {gradient:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
