"""What exact tiles cost against the whole picture, and that they find the same.

    python benchmarks/tiles.py [--repeats 3] [SIZE ...]

One value and gradient of the default objective, as a whole and in the tiles that 1 GB allows, in
turns in one run; medians.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from impasto import Objective, Stylizer, images, sample
from impasto.levels import Level
from impasto.recipes import _Scene


def seconds(objective: Objective, image: torch.Tensor) -> float:
    began = time.perf_counter()
    objective(image)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", type=int, nargs="*", default=[1024])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print("| size | tiles | whole, s | in tiles, s | ratio | loss differs by | gradient by |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for size in options.sizes:
        stylizer = Stylizer(sample("night_cafe"), size=size)
        photo = images.read(images.cover(images.read(sample("owl")).image, (size, size)))
        scene, level = _Scene(stylizer, photo), Level((size, size), 1, 1.0)
        content = scene.content(level)
        whole, _ = scene.objective(level, content)
        tiled = Objective(whole.encoder, whole.losses, memory=2**30)
        whole.memory = None
        image = images.to_tensor(
            images.cover(images.read(sample("kingfisher")).image, (size, size))
        )
        one, other = whole(image), tiled(image)
        times = [(seconds(whole, image), seconds(tiled, image)) for _ in range(options.repeats)]
        alone, split = (statistics.median(column) for column in zip(*times, strict=True))
        segments = tiled.segments((size, size))
        count = sum(1 for _ in segments[0].tiles((size, size))) if segments else 1
        gradient = ((one.gradient - other.gradient).norm() / one.gradient.norm()).item()
        print(
            f"| {size} | {count} | {alone:.2f} | {split:.2f} | {split / alone:.2f} "
            f"| {abs(one.loss - other.loss) / one.loss:.1e} | {gradient:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
