"""Peak memory of whole runs of the command line, by size, bound and way of painting.

    python benchmarks/memory.py [--quick]

Each run has its own process, from the start of the interpreter until the picture is saved, so the
peak includes the interpreter and the libraries. If impasto says that it cannot keep the bound, the
peak is compared with the figure that impasto gives.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from impasto import sample
from impasto.settings import parse_memory

GRAM = ("--style-loss", "gram")
QUICK = (
    (256, "900M", (*GRAM, "--steps", "30")),
    (512, "1G", (*GRAM, "--levels", "1", "--evaluations", "12")),
    (512, "1G", (*GRAM, "--optimizer", "cg", "--evaluations", "12")),
    (512, "1G", (*GRAM, "--optimizer", "adam", "--steps", "8")),
    (512, "1G", ("--steps", "24")),
)
CASES = (
    (1024, "1G", (*GRAM, "--steps", "12", "--checkpoint-every", "1")),
    (1024, "1G", (*GRAM, "--optimizer", "adam", "--steps", "6")),
    (1024, "1G", (*GRAM, "--levels", "1", "--evaluations", "26")),
    (1024, "2G", (*GRAM, "--levels", "1", "--evaluations", "26")),
    (1024, "2G", (*GRAM, "--steps", "16", "--film", "film.mp4", "--keep-colors", "luminance")),
    (2048, "1G", (*GRAM, "--levels", "1", "--evaluations", "5")),
    (2048, "2G", (*GRAM, "--levels", "1", "--evaluations", "5")),
    (1024, "1G", ("--steps", "24")),
    (1024, "2G", ("--steps", "24")),
    (2048, "2G", ("--steps", "16")),
)


def run(arguments: Sequence[str], folder: str) -> tuple[int, float, str]:
    """Run impasto in a folder: its peak in bytes, the seconds that it took, and what it said."""
    told = Path(folder) / "told"
    began = time.perf_counter()
    with told.open("w") as file:
        command = [sys.executable, "-m", "impasto", *arguments]
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(told.read_text())
    return usage.ru_maxrss * 1024, seconds, told.read_text()


def measured(size: int, memory: str, ways: Sequence[str]) -> tuple[int, int, float]:
    """The peak and its bound, both in bytes, and the seconds that the run took."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["stylize", str(sample("owl")), "--style", str(sample("night_cafe"))]
        arguments += ["--size", str(size), "--memory", memory, *ways, "-o", "picture.png"]
        peak, seconds, text = run(arguments, folder)
    said = re.search(r"take about (\S+)", text)
    return peak, parse_memory(said[1] if said else memory), seconds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="small pictures only")
    options = parser.parse_args()
    print("| size | `--memory` | how | peak, MB | to be at most, MB | ratio | s |")
    print("| --- | --- | --- | --- | --- | --- | --- |", flush=True)
    for size, memory, ways in QUICK if options.quick else (*QUICK, *CASES):
        peak, bound, seconds = measured(size, memory, ways)
        how = f"`{' '.join(ways)}`"
        if bound != parse_memory(memory):
            how += ", as it says itself"
        print(
            f"| {size} | {memory} | {how} | {peak / 1e6:.0f} | {bound / 1e6:.0f} "
            f"| {peak / bound:.2f} | {seconds:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
