"""The command line prints notices itself: they are part of what it says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import tolerated


@pytest.fixture(autouse=True)
def _no_notice_is_overlooked() -> Iterator[None]:
    with tolerated():
        yield
