"""Execute all cells of a lesson: lesson.ipynb, one_pass.ipynb or adversaries.ipynb.

    python examples/lesson.py [OUTPUT]

The lesson, beside this script, is the one that OUTPUT is called after (by default lesson.ipynb);
the executed notebook goes to OUTPUT. The environment variable LESSON_SIZE sets the size of the
pictures in pixels; LESSON_STEPS the steps of lesson.ipynb, and TRAINING_STEPS those of the others.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

LESSONS = Path(__file__).parent
KERNEL = {
    "argv": [
        sys.executable,
        "-m",
        "ipykernel_launcher",
        "-f",
        "{connection_file}",
        "--log-level=40",
    ],
    "display_name": "Python 3",
    "language": "python",
}


def execute(name: str, folder: Path) -> Any:
    """The lesson called `name` with the outputs of its cells; what it writes goes to `folder`.

    It runs in the same Python as this script, whatever kernels the user has installed.

    Raises:
        CellExecutionError: a cell failed.
    """
    lesson = nbformat.read(LESSONS / name, as_version=4)  # type: ignore[no-untyped-call]
    for cell in lesson.cells:
        cell.metadata.clear()
    with tempfile.TemporaryDirectory() as kernels:
        specification = Path(kernels, "kernels", "lesson", "kernel.json")
        specification.parent.mkdir(parents=True)
        specification.write_text(json.dumps(KERNEL))
        client = NotebookClient(
            lesson,
            timeout=None,
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        )
        manager = client.create_kernel_manager()
        manager.kernel_spec_manager.kernel_dirs.insert(0, str(specification.parents[1]))
        manager.kernel_name = "lesson"
        client.execute(cleanup_kc=True)
    return lesson


def main() -> None:
    output = Path(sys.argv[1] if len(sys.argv) > 1 else "lesson.ipynb")
    if not (LESSONS / output.name).exists():
        names = " or ".join(sorted(path.name for path in LESSONS.glob("*.ipynb")))
        raise SystemExit(f"there is no lesson {output.name}; call the output {names}")
    with tempfile.TemporaryDirectory() as folder:
        try:
            lesson = execute(output.name, Path(folder))
        except CellExecutionError as error:
            raise SystemExit(str(error)) from None
    nbformat.write(lesson, output)  # type: ignore[no-untyped-call]
    print(f"{len(lesson.cells)} cells executed: {output}")


if __name__ == "__main__":
    main()
