"""What happens to a painted picture at last: its strength, and the photo's own colours.

Imports no torch; the colours are those of `pictures.colours`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from impasto.errors import ImpastoError
from impasto.settings import KeptColors

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Finish:
    """strength: 0 gives the photo back, 1 the painted picture. keep_colors: see `Network`."""

    strength: float = 1.0
    keep_colors: bool | KeptColors | None = None
