"""What a program around impasto may have switched on, put aside while impasto computes.

A notebook or a larger program can have changed what torch and NumPy do by themselves: no gradients,
half precision, another default device, errors instead of warnings. None of it is meant for the
work in here, and some of it would stay in what is kept for later. The default dtype is not among
them: it belongs to all threads at once and cannot be put aside for one of them, so every tensor
made in impasto asks for its own.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

_AUTOCAST = [kind for kind in ("cpu", "cuda", "mps") if torch.amp.is_autocast_available(kind)]


@contextlib.contextmanager
def ordinary() -> Iterator[None]:
    """Compute as torch and NumPy do where nobody has told them anything else; also a decorator.

    Gradients are recorded, nothing is computed in half precision, tensors are made on the CPU, and
    NumPy's floating-point errors are warnings. All of it for this thread alone, and as it was
    before once the work is done.
    """
    _begin_vector_math()
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in _AUTOCAST:
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        # Only where there is another one: it slows every call of torch down a little.
        if torch.empty(0, dtype=torch.float32).device.type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(np.errstate(divide="warn", over="warn", under="ignore", invalid="warn"))
        yield


def recordable(x: Tensor) -> Tensor:
    """x itself, or a copy of one that was made in `torch.inference_mode`.

    Such a tensor stays barred from gradients for good, wherever it is used later.
    """
    return x.clone() if x.is_inference() else x


@functools.cache
def _begin_vector_math() -> None:
    """Let one thread be the first to use MKL's vector functions, as torch's cosines do.

    Where two are the first at once, one of them now and then computes with errors of 3e-5 instead
    of 2e-7, that once (MKL 2024.2 in torch 2.13, in one process of ten): the same inputs would not
    give the same bytes.
    """
    torch.zeros(8, dtype=torch.float32, device="cpu").cos()
