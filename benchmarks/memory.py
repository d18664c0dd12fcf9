"""Peak memory of the whole process while painting, weights, libraries and all.

    python benchmarks/memory.py [SIZE ...]

Paints a square picture (the worst case for its longer side) for a few steps in a process of its
own for each size, and prints the largest resident set that the system saw.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from impasto import images, sample


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sizes", type=int, nargs="*", default=[256, 512])
    parser.add_argument("--optimizer", default="lbfgs")
    options = parser.parse_args()
    print("| size | peak resident memory, MB |")
    print("| --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            photo = Path(folder) / f"{size}.png"
            images.write(images.cover(images.read(sample("owl")).image, (size, size)), photo)
            command = [sys.executable, "-m", "impasto", "stylize", str(photo), "--quiet"]
            command += ["--style", str(sample("night_cafe")), "--size", "full", "--steps", "12"]
            command += ["--optimizer", options.optimizer, "-o", f"{folder}/out-{size}.png"]
            subprocess.run(command, check=True)
            # the largest child so far: sizes must be given in growing order
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
            print(f"| {size} x {size} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
