"""What the tests share: the real encoder and the real samples, loaded once."""

from __future__ import annotations

import contextlib
import logging
import re
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from impasto import Encoder, load_encoder, sample
from impasto.errors import LOGGER
from impasto.kernels import ops as compiled
from impasto.pictures import images

LOGGER.addHandler(logging.NullHandler())
compiled.status()  # on a fresh machine they are compiled now, with a notice that no test is about


class _Notices(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.told.append(record.getMessage())


@pytest.fixture(autouse=True)
def _no_notice_is_overlooked() -> Iterator[None]:
    """A notice that no test asks for is a failure."""
    with _heard() as told:
        yield
    assert told == []


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """The notices given meanwhile; who listens outside does not hear them."""
    handler, before = _Notices(), LOGGER.handlers[:]
    LOGGER.handlers[:] = [handler]
    try:
        yield handler.told
    finally:
        LOGGER.handlers[:] = before


@contextlib.contextmanager
def noticed(match: str = "") -> Iterator[list[str]]:
    """Something has to be told of meanwhile, and one of the sentences to match."""
    with _heard() as told:
        yield told
    assert any(re.search(match, sentence) for sentence in told), told


def tolerated() -> contextlib.AbstractContextManager[list[str]]:
    """Notices may be given meanwhile."""
    return _heard()


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return load_encoder()


@pytest.fixture(scope="session")
def encoder64() -> Encoder:
    return load_encoder().double()


@contextlib.contextmanager
def full_disk(size: int = 100) -> Iterator[None]:
    """No file can grow beyond `size` bytes; briefly, as the test run may be writing to one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def sample_tensor(name: str, longer: int) -> Tensor:
    """A sample picture as an image tensor."""
    image = images.read(sample(name)).image
    return images.to_tensor(images.resize(image, images.fitted_size(image.size, longer)))


@pytest.fixture(scope="session")
def photo() -> Tensor:
    return sample_tensor("kingfisher", 64)


@pytest.fixture(scope="session")
def painting() -> Tensor:
    return sample_tensor("cafe_terrace_at_night", 64)


@pytest.fixture
def noise() -> Tensor:
    return torch.rand(1, 3, 36, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of twelve photos: parts of the samples."""
    folder = tmp_path_factory.mktemp("photos")
    for name in ("kingfisher", "neuschwanstein", "owl", "scarlet_macaw"):
        image = images.read(sample(name)).image
        width, height = image.size
        for number in range(3):
            left = number * (width - height) // 2
            part = image.crop((left, 0, left + height, height)).resize((96, 96 + 4 * number))
            part.save(folder / f"{name}{number}.png")
    return folder
