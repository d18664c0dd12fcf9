"""impasto repaints a photograph in the manner of a painting: neural style transfer.

    import impasto
    impasto.stylize("photo.jpg", "painting.jpg").save("painted.png")

The public names are those of `impasto.api`. They are loaded when one is first used, so that
neither importing impasto nor `impasto --help` waits for torch.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from impasto.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name == "__all__" or not name.startswith("_"):
        if importlib.util.find_spec(f"impasto.{name}"):
            return importlib.import_module(f"impasto.{name}")
        api = importlib.import_module("impasto.api")
        if name in ("__all__", *api.__all__):
            return getattr(api, name)
    raise AttributeError(f"module 'impasto' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *importlib.import_module("impasto.api").__all__]
