"""What impasto runs on: for a user who asks, and for a report of what went wrong."""

from __future__ import annotations

import platform

import torch

from impasto import __version__
from impasto import device as machine
from impasto.device import choose_device
from impasto.kernels import ops as compiled


def info() -> dict[str, str]:
    """Versions, device, threads, memory, and which kernels compute on a CPU, and why.

    The first call may have to compile the kernels.
    """
    device = choose_device("auto")
    status = compiled.status()
    free = machine.free(device)
    return {
        "impasto": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "device": str(device),
        "threads": str(torch.get_num_threads()),
        "memory": f"{machine.SHARE * free / 1e9:.1f} GB may be used, of {free / 1e9:.1f} GB free",
        "kernels": f"{'compiled' if status.ready else 'plain'} ({status.reason})",
        "cache": str(status.cache or "none"),
    }
