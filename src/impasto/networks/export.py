"""Networks for other programs: an ONNX graph, or a torch state dict."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from impasto.errors import ImpastoError
from impasto.networks import graph
from impasto.networks.architecture import IMAGES
from impasto.networks.network import Network
from impasto.pictures import files

if TYPE_CHECKING:
    from impasto.networks.transform import Transformer

ONNX, STATE_DICT = ".onnx", (".pt", ".pth")
TOLERANCE = 1e-3
"""The most that a pixel (0..1) may differ between the exported graph and torch."""


def check_target(path: str | os.PathLike[str]) -> Path:
    """Check, before the work begins, that `export` can write this file.

    Raises:
        ImpastoError: it has another ending, or its folder is missing or not writable.
    """
    target = Path(path)
    if target.suffix.lower() not in (ONNX, *STATE_DICT):
        raise ImpastoError(
            f"{target} is no name for an exported network; end it with .onnx for a graph that "
            "other programs can run, or with .pt for a torch state dict"
        )
    files.check_folder(target)
    return target


def export(network: Network, path: str | os.PathLike[str], *, force: bool = False) -> Path:
    """Write a network as an ONNX graph (.onnx) or as a torch state dict (.pt); returns the path.

    The graph takes `images`, float32 [N, 3, height, width], RGB in 0..1, of any size, and `shares`,
    float32 [N, styles], rows that sum up to 1; its output `pictures` has the shape of the images.
    The state dict is that of `Transformer(architecture, styles)`, which paints in torch. Before
    either is written, the two are compared on a random picture.

    Raises:
        ImpastoError: the file cannot be written, or the graph differs from torch.
    """
    target = check_target(path)
    if (difference := compared(network)) > TOLERANCE:
        raise ImpastoError(
            f"the graph differs from torch by {difference:.2g} in a pixel; please report it, with "
            "the network"
        )
    if target.suffix.lower() == ONNX:
        model = described(network)
        return files.write_whole(model.SerializeToString(), target, force)
    import torch

    state = _transformer(network).state_dict()
    buffer = io.BytesIO()  # torch has errors of its own for a full disk
    torch.save(state, buffer)
    return files.write_whole(buffer.getvalue(), target, force)


def described(network: Network) -> onnx.ModelProto:
    """The graph of a network, with the names of its styles and its licence in its metadata."""
    model = graph.whole(network.file)
    about: Mapping[str, Any] = {
        "styles": json.dumps(network.styles),
        "licence": network.file.licence,
    }
    onnx.helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model)
    return model


def compared(network: Network) -> float:
    """How far the graph is from the network in torch, in the worst value of a random picture."""
    import torch

    random = np.random.default_rng(0)
    images = random.random((2, 3, 75, 101), np.float32)
    shares = random.dirichlet(np.ones(len(network.styles)), 2).astype(np.float32)
    with torch.no_grad():
        theirs = _transformer(network)(torch.from_numpy(images), torch.from_numpy(shares)).numpy()
    ours = network.run({IMAGES: images, graph.SHARES: shares})
    return float(np.abs(ours - theirs).max())


def _transformer(network: Network) -> Transformer:
    import torch

    from impasto.networks.transform import Transformer

    made = Transformer(network.architecture, len(network.styles))
    made.take({name: torch.from_numpy(each.copy()) for name, each in network.file.weights.items()})
    return made
