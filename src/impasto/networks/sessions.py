"""Where ONNX Runtime computes, and networks that are ready for it. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from impasto.errors import ImpastoError, notice
from impasto.networks import files
from impasto.networks.files import NetworkFile

Run = Callable[[Mapping[str, npt.NDArray[Any]]], npt.NDArray[np.float32]]
"""Runs a graph: inputs by name -> its output."""

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class Sessions:
    """Starts graphs on a device: `"cpu"`, `"cuda"`, or `"auto"` for the better one that is there.

    threads: how many compute on a CPU; None for one a core.

    Raises:
        ImpastoError: ONNX Runtime cannot use the device.
    """

    def __init__(self, device: str, threads: int | None = None) -> None:
        self.threads = threads
        there = onnxruntime.get_available_providers()
        usable = [name for name, provider in _PROVIDERS.items() if provider in there]
        if device not in ("auto", *usable):
            raise ImpastoError(
                f"ONNX Runtime cannot use the device {device!r}; install onnxruntime-gpu instead "
                "of onnxruntime, or use 'cpu'"
            )
        self.device = usable[-1] if device == "auto" else device
        self._is_auto = device == "auto"

    def start(self, model: Any) -> Run:
        """A session for a graph; on the CPU, with a notice, if `auto` has found no other."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = self.threads or 0
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=[_PROVIDERS[self.device]]
        )
        if session.get_providers()[0] != _PROVIDERS[self.device]:
            if not self._is_auto:
                raise ImpastoError(f"ONNX Runtime cannot start on {self.device!r} here; use 'cpu'")
            notice(f"ONNX Runtime cannot start on {self.device!r} here; the CPU paints instead")
            self.device = "cpu"
            return self.start(model)
        return lambda inputs: session.run(None, dict(inputs))[0]


class Ready:
    """A network that is ready for use: its file, and where it computes."""

    def __init__(self, file: NetworkFile, device: str, threads: int | None = None) -> None:
        self.file, self.sessions = file, Sessions(device, threads)

    def save(self, path: str | os.PathLike[str], *, force: bool = False) -> Path:
        """Write its file whole or not at all; returns the path that it got.

        An existing file is replaced only with `force`; otherwise `-2`, `-3`, ... is added.

        Raises:
            ImpastoError: it cannot be written.
        """
        return files.write(self.file, Path(path), force=force)

    @property
    def device(self) -> str:
        """Where it computes: cpu or cuda."""
        return self.sessions.device

    @property
    def styles(self) -> list[str]:
        """The names of its styles."""
        return [style.name for style in self.file.styles]
