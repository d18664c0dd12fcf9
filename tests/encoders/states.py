"""State dicts of torchvision's ResNets with random values, for tests."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCKS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


def resnet(name: str) -> dict[str, Tensor]:
    """What torchvision's model of this name would save, its classifier included."""
    random = torch.Generator().manual_seed(3)
    state: dict[str, Tensor] = {}

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    for convolution, norm, shape in _convolutions(name):
        out, inside, height, width = shape
        state[f"{convolution}.weight"] = drawn(*shape) / (inside * height * width) ** 0.5
        state[f"{norm}.weight"] = 1 + 0.1 * drawn(out)
        state[f"{norm}.bias"] = 0.1 * drawn(out)
        state[f"{norm}.running_mean"] = 0.1 * drawn(out)
        state[f"{norm}.running_var"] = 0.5 + torch.rand(out, generator=random)
        state[f"{norm}.num_batches_tracked"] = torch.tensor(7)
    state["fc.weight"], state["fc.bias"] = torch.zeros(10, 4), torch.zeros(10)
    return state


def _convolutions(name: str) -> Iterator[tuple[str, str, tuple[int, int, int, int]]]:
    """Names of convolutions and their norms, and the shapes of weights, as torchvision has them."""
    yield "conv1", "bn1", (64, 3, 7, 7)
    widening = 4 if name == "resnet50" else 1
    before = 64
    for group, count in enumerate(BLOCKS[name], 1):
        inside = 64 * 2 ** (group - 1)
        for number in range(count):
            block = f"layer{group}.{number}"
            if widening > 1:
                shapes = [
                    (inside, before, 1, 1),
                    (inside, inside, 3, 3),
                    (4 * inside, inside, 1, 1),
                ]
            else:
                shapes = [(inside, before, 3, 3), (inside, inside, 3, 3)]
            for at, shape in enumerate(shapes, 1):
                yield f"{block}.conv{at}", f"{block}.bn{at}", shape
            if number == 0 and (group > 1 or widening > 1):
                shape = (widening * inside, before, 1, 1)
                yield f"{block}.downsample.0", f"{block}.downsample.1", shape
            before = widening * inside
