"""All measurements that fit into a quarter of an hour, as one Markdown file.

    python benchmarks/bench.py [FILE]

Each table comes from another script of this folder; the command is printed above the table.
"""

from __future__ import annotations

import platform
import subprocess
import sys
import time
from pathlib import Path

import torch

from impasto.kernels import ops as compiled

TABLES = (
    ("What a step costs, and what each optimisation buys", ["step_cost.py"]),
    ("In tiles against as a whole", ["tiles.py"]),
    ("Memory of whole runs", ["memory.py", "--quick"]),
)


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("bench.md")
    began = time.perf_counter()
    parts = [
        "# Measurements\n",
        f"{processor()}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}; "
        f"kernels: {compiled.status().reason}. Ratios travel, seconds do not.\n",
    ]
    for title, (script, *arguments) in TABLES:
        print(title, flush=True)
        command = [sys.executable, str(Path(__file__).with_name(script)), *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(done.stdout, flush=True)
        shown = " ".join(["python", f"benchmarks/{script}", *arguments])
        parts.append(f"## {title}\n\n`{shown}`\n\n{done.stdout}")
    minutes = (time.perf_counter() - began) / 60
    parts.append(f"All of it took {minutes:.0f} minutes.\n")
    target.write_text("\n".join(parts))
    print(f"{target}  ({minutes:.1f} minutes)")


if __name__ == "__main__":
    main()
