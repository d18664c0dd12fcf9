"""Tiny networks: those that the tests train are made here, and their weights are random."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from impasto import sample
from impasto.networks.architecture import Architecture
from impasto.networks.files import NetworkFile, Style, thumbnail
from impasto.pictures import images

TINY = Architecture(widths=(4, 6, 8), blocks=(0, 1, 1), edge=3)


def random_network(
    styles: int = 3, architecture: Architecture = TINY, seed: int = 0
) -> NetworkFile:
    """A network with random weights, which paints something rather than nothing."""
    random = np.random.default_rng(seed)
    weights = {}
    for name, shape in architecture.tensors(styles).items():
        spread = 1 / np.sqrt(np.prod(shape[1:])) if name.endswith("weight") else 0.4
        middle = 1.0 if name.endswith("scale") else 0.0
        weights[name] = (middle + spread * random.standard_normal(shape)).astype(np.float32)
    small = thumbnail(images.read(sample("great_wave")).image)
    told = tuple(Style(f"style{number}", "0" * 64, small) for number in range(styles))
    return NetworkFile(architecture, told, weights, "CC0")


@pytest.fixture
def picture() -> Image.Image:
    return images.resize(images.read(sample("owl")).image, (96, 72))
