"""impasto repaints a photograph in the manner of a painting: neural style transfer.

    import impasto
    impasto.stylize("photo.jpg", "painting.jpg").save("painted.png")

The public names are those of `impasto.api`. They are loaded when the first of them is used, so
that neither `import impasto` nor `impasto --help` waits for torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# From some version after 1.27 on, ONNX Runtime reports its use to its makers, even on Linux.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from impasto.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return [public for public in vars(__getattr__("api")) if not public.startswith("_")]
    if not name.startswith("_"):
        if importlib.util.find_spec(f"impasto.{name}"):
            return importlib.import_module(f"impasto.{name}")
        if name in __getattr__("__all__"):
            return getattr(__getattr__("api"), name)
    raise AttributeError(f"module 'impasto' has no attribute {name!r}")


def __dir__() -> list[str]:
    return ["__version__", *__getattr__("__all__")]
