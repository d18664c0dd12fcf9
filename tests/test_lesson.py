"""The lessons: they run from the first cell to the last, and use public names only."""

from __future__ import annotations

import ast
import base64
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from PIL import Image

import impasto

EXAMPLES = Path(__file__).parent.parent / "examples"


LESSONS = pytest.mark.parametrize("name", ["lesson.ipynb", "one_pass.ipynb", "adversaries.ipynb"])


def cells(path: Path, kind: str) -> list[Any]:
    notebook = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    return [cell for cell in notebook.cells if cell.cell_type == kind]


def pictures(cell: Any) -> list[Image.Image]:
    """What a cell shows."""
    data = [output.get("data", {}) for output in cell.outputs]
    encoded = [each[kind] for each in data for kind in ("image/jpeg", "image/gif") if kind in each]
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in encoded]


@LESSONS
def test_it_executes(name: str, tmp_path: Path) -> None:
    output = tmp_path / name
    small = {"LESSON_SIZE": "48", "LESSON_STEPS": "4", "TRAINING_STEPS": "4"}
    command = [sys.executable, "-W", "ignore", str(EXAMPLES / "lesson.py"), str(output)]
    subprocess.run(command, env=os.environ | small, cwd=tmp_path, check=True, timeout=300)
    executed = cells(output, "code")
    written = cells(EXAMPLES / name, "code")
    assert [cell.source for cell in executed] == [cell.source for cell in written]
    assert [cell.execution_count for cell in executed] == list(range(1, len(executed) + 1))
    assert sum(1 for cell in executed if pictures(cell)) >= len(executed) - 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]


@LESSONS
def test_it_shows_its_pictures_as_it_is(name: str) -> None:
    """As a reader finds it: executed, with pictures that are large enough to see."""
    lesson = EXAMPLES / name
    shown = [picture for cell in cells(lesson, "code") for picture in pictures(cell)]
    assert len(shown) >= len(cells(lesson, "code")) - 3
    assert min(max(picture.size) for picture in shown) >= 192
    assert lesson.stat().st_size < 3e6


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("lesson.ipynb", "ContentLoss StyleLoss Film gram lbfgs load_encoder stylize"),
        ("one_pass.ipynb", "Architecture Network train sample"),
        ("adversaries.ipynb", "Gan WganGp PatchCritic duel generate gradient_penalty"),
    ],
)
def test_it_uses_public_names_only(name: str, parts: str) -> None:
    used = set()
    for cell in cells(EXAMPLES / name, "code"):
        lines = [line for line in cell.source.splitlines() if not line.startswith("%")]
        for node in ast.walk(ast.parse("\n".join(lines))):
            assert not isinstance(node, ast.ImportFrom) or "impasto" not in str(node.module)
            if isinstance(node, ast.Import):
                assert not any(name.name.startswith("impasto.") for name in node.names)
            if isinstance(node, ast.Attribute):
                assert not node.attr.startswith("_"), node.attr
                if isinstance(node.value, ast.Name) and node.value.id == "impasto":
                    used.add(node.attr)
    assert used <= set(impasto.__all__)
    assert {*parts.split()} <= used
