"""Every test runs in an empty folder. Notices are part of what the command line prints."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGINT

import pytest

from tests.conftest import tolerated


@pytest.fixture(autouse=True)
def _no_notice_is_overlooked() -> Iterator[None]:
    with tolerated():
        yield


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def interrupted(command: list[str], at: str) -> subprocess.CompletedProcess[str]:
    """Press Ctrl-C when a line with `at` is said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "impasto", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    said = ""
    for line in process.stderr:
        said += line
        if at in line:
            time.sleep(0.05)
            process.send_signal(SIGINT)
            break
    out, rest = process.communicate(timeout=60)
    return subprocess.CompletedProcess(command, process.returncode, out, said + rest)
