"""A folder of photos: `impasto batch` with its workers against one process that does it all.

    python benchmarks/batch.py [--photos FOLDER] [--count N] [--size N] [--rounds N]

The photos are those of a folder, or the four samples, again and again under other names. One
process is `impasto apply`, which reads, paints and writes them one after another on all cores. Both
commands are timed as a whole, start included, in turns; the table has medians and the ratio.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from impasto import sample, sample_names
from impasto.pictures.images import READABLE


def seconds(command: str, photos: Path, size: int, *options: str) -> float:
    with tempfile.TemporaryDirectory() as out:
        words = [sys.executable, "-m", "impasto", command, str(photos), "-o", f"{out}/painted/"]
        words += ["--style", "great_wave", "--size", str(size), "--quiet", *options]
        began = time.monotonic()
        subprocess.run(words, check=True)
        taken = time.monotonic() - began
        made = len(list(Path(out).rglob("*.png")))
        assert made == len(list(photos.iterdir())), made
    return taken


def main(given: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder)
        if given.photos:
            found = [p for p in sorted(given.photos.iterdir()) if p.suffix.lower() in READABLE]
        else:
            found = [sample(name) for name in sample_names()["photos"]]
        for number in range(given.count):
            source = found[number % len(found)]
            shutil.copy(source, photos / f"{number:05}{source.suffix}")
        ways: dict[str, list[str]] = {
            "apply, one process": ["apply"],
            "batch, one worker": ["batch", "--workers", "1"],
            "batch, one worker a core": ["batch"],
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, (command, *options) in ways.items():
                times[name].append(seconds(command, photos, given.size, *options))
    first = statistics.median(times["apply, one process"])
    print(f"{given.count} photos of {given.size} pixels\n")
    print("| way | seconds | photos a second | faster |\n| --- | --- | --- | --- |")
    for name, taken in times.items():
        middle = statistics.median(taken)
        print(f"| {name} | {middle:.1f} | {given.count / middle:.1f} | {first / middle:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    main(parser.parse_args())
