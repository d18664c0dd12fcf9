"""What the tests of this room share: a picture, and how far another is from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture() -> Image.Image:
    """A small colourful picture that is not symmetric in any way."""
    ramp = np.linspace(0, 255, 24 * 16, dtype=np.uint8).reshape(16, 24)
    return Image.fromarray(np.stack([ramp, ramp[::-1], np.roll(ramp, 5, 1)], -1))


def distance(one: Image.Image, other: Image.Image) -> float:
    """Mean difference in grey levels."""
    assert one.size == other.size
    assert one.mode == other.mode == "RGB"
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def save(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path
