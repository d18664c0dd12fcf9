"""One evaluation of the default objective in a process of its own: time, and peak memory.

    python benchmarks/evaluation.py SIZE [--memory 1G] [--repeats 1]

For `memory.py`; prints JSON. All is in the peak: interpreter, libraries, weights, targets.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time

import torch

from impasto import Stylizer, images, sample
from impasto.levels import Level
from impasto.recipes import _Scene


def warm_up(stylizer: Stylizer) -> None:
    """Prepare the weights, which the first evaluation of a run does."""
    image = torch.rand(1, 3, 32, 32, requires_grad=True)
    features = stylizer.studio.encoder(image, ["relu5_1"])["relu5_1"]
    features.sum().backward()  # type: ignore[no-untyped-call]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("size", type=int)
    parser.add_argument("--memory")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    size = (options.size, options.size)
    stylizer = Stylizer(sample("night_cafe"), size=options.size, memory=options.memory)
    photo = images.read(images.cover(images.read(sample("owl")).image, size))
    scene = _Scene(stylizer, photo)
    level = Level(size, 1, 1.0)
    content = scene.content(level)
    objective, _ = scene.objective(level, content)
    warm_up(stylizer)
    times = []
    for _ in range(options.repeats):
        began = time.perf_counter()
        objective(content)
        times.append(time.perf_counter() - began)
    segments = objective.segments(size)
    result = {
        "seconds": statistics.median(times),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "tiles": sum(1 for _ in segments[0].tiles(size)) if segments else 1,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
