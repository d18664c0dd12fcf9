"""What the tests share: the real encoder and the real samples, loaded once."""

from __future__ import annotations

import contextlib
import resource
import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from impasto import Vgg, load_encoder, sample
from impasto.kernels import ops as compiled
from impasto.pictures import images

with warnings.catch_warnings():
    # On a fresh machine the kernels are compiled now, with a notice that no test is about.
    warnings.simplefilter("ignore")
    compiled.status()


@pytest.fixture(scope="session")
def encoder() -> Vgg:
    return load_encoder()


@pytest.fixture(scope="session")
def encoder64() -> Vgg:
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
