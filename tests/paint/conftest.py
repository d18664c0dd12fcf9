"""What the tests of runs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from impasto import Step


def pixels(image: Image.Image) -> npt.NDArray[np.float64]:
    return np.asarray(image, dtype=np.float64)


def ctrl_c_at(number: int) -> Callable[[Step], None]:
    """A callback during which Ctrl-C is pressed, at this step."""

    def press(step: Step) -> None:
        if step.step == number:
            raise KeyboardInterrupt

    return press


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return tmp_path / "a.checkpoint"
