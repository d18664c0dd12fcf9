"""How long coarse to fine takes to be as good as one scale.

    python benchmarks/time_to_quality.py [--size 512] [--pairs 6] [--save FOLDER]

One scale: L-BFGS from the photo, 150 evaluations at the final size. Its total loss then is the
mark. Coarse to fine: the default levels, at its last level until it has passed the mark. Printed
for each pair: both times, their ratio, and the relative content loss of both at that total.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from pathlib import Path

from impasto import Artwork, Step, Stylizer, sample

PAIRS = (
    ("kingfisher", "cafe_terrace_at_night"),
    ("owl", "composition_viii"),
    ("neuschwanstein", "great_wave"),
    ("scarlet_macaw", "night_cafe"),
    ("owl", "church_at_auvers"),
    ("kingfisher", "great_wave"),
    ("scarlet_macaw", "composition_viii"),
    ("neuschwanstein", "cafe_terrace_at_night"),
)
EVALUATIONS = 150
CONTENT = "content relu4_2"


class Reached(Exception):
    """The mark is passed."""


def one_scale(photo: str, painting: str, size: int) -> tuple[float, Artwork]:
    stylizer = Stylizer(sample(painting), size=size, levels=1, steps=10**6, evaluations=EVALUATIONS)
    began = time.perf_counter()
    artwork = stylizer.paint(sample(photo))
    return time.perf_counter() - began, artwork


def coarse_to_fine(photo: str, painting: str, size: int, mark: float) -> tuple[float, Step]:
    stylizer = Stylizer(sample(painting), size=size, steps=400)  # what is left is the last level's
    last: list[Step] = []

    def watch(step: Step) -> None:
        last[:] = [step]
        if max(step.image.shape) == size and step.loss <= mark:
            raise Reached

    began = time.perf_counter()
    with contextlib.suppress(Reached):
        stylizer.paint(sample(photo), callback=watch)
    return time.perf_counter() - began, last[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    print(
        "| photo | painting | one scale, s | coarse to fine, s | ratio | total reached "
        "| content, one scale | content, coarse to fine | ratio |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |", flush=True)
    ratios, contents = [], []
    for photo, painting in PAIRS[: options.pairs]:
        slow, artwork = one_scale(photo, painting, options.size)
        mark = artwork.losses[-1]
        fast, step = coarse_to_fine(photo, painting, options.size, mark)
        before, after = artwork.parts[CONTENT], step.parts[CONTENT]
        ratios.append(fast / slow)
        contents.append(after / before)
        reached = f"{step.loss:.4f}" + ("" if step.loss <= mark else f" (not {mark:.4f})")
        print(
            f"| {photo} | {painting} | {slow:.1f} | {fast:.1f} | {fast / slow:.2f} | {reached} "
            f"| {before:.3f} | {after:.3f} | {after / before:.3f} |",
            flush=True,
        )
        if options.save:
            options.save.mkdir(parents=True, exist_ok=True)
            artwork.save(options.save / f"{photo}-{painting}-one.png", force=True)
    print(
        f"| median | | | | {statistics.median(ratios):.2f} | | | "
        f"| {statistics.median(contents):.3f} |"
    )


if __name__ == "__main__":
    main()
