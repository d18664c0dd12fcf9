"""Peak memory of the whole process for one evaluation, by size and bound.

    python benchmarks/memory.py [--quick]

Each case in a process of its own (`evaluation.py`), weights, libraries, targets and all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

CASES = (
    (256, None),
    (512, None),
    (1024, None),
    (1024, "1G"),
    (2048, "1G"),
    (4096, "2G"),
)


def measured(size: int, memory: str | None) -> dict[str, float]:
    script = Path(__file__).with_name("evaluation.py")
    command = [sys.executable, str(script), str(size)]
    command += ["--memory", memory] if memory else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="without 4096")
    options = parser.parse_args()
    print("| size | `--memory` | tiles | peak, MB | s an evaluation | s a megapixel |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for size, memory in CASES:
        if options.quick and size > 2048:
            continue
        result = measured(size, memory)
        print(
            f"| {size} x {size} | {memory or ''} | {result['tiles']:.0f} "
            f"| {result['peak'] / 1e6:.0f} | {result['seconds']:.2f} "
            f"| {result['seconds'] / size**2 * 1e6:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
