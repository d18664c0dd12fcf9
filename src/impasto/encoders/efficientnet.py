"""EfficientNet-Lite0, whose weights come with the package.

Tan & Le 2019 (arXiv:1905.11946), in the "lite" form without squeeze-and-excitation: a stem, 16
inverted residual blocks (Sandler et al. 2018, arXiv:1801.04381) and a head. A block widens its
input with a 1x1 convolution (`expand`), filters each channel by itself (`depthwise`) and narrows
the result again (`project`): that is its *arm*. Where input and output are alike, the arm is added
to the input; the sum is the *merge*.
"""

from __future__ import annotations

import functools
import importlib.resources
import itertools
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from impasto.encoders.base import IMAGE, Preprocessing
from impasto.encoders.convnet import Blueprint, ConvNet, Operation
from impasto.encoders.weights import State, WrongWeights, bytes_of, read_for, read_tensors, single

# Kernel, stride, expansion, channels in and out of every block.
BLOCKS = (
    (3, 1, 1, 32, 16),
    (3, 2, 6, 16, 24),
    (3, 1, 6, 24, 24),
    (5, 2, 6, 24, 40),
    (5, 1, 6, 40, 40),
    (3, 2, 6, 40, 80),
    (3, 1, 6, 80, 80),
    (3, 1, 6, 80, 80),
    (5, 1, 6, 80, 112),
    (5, 1, 6, 112, 112),
    (5, 1, 6, 112, 112),
    (5, 2, 6, 112, 192),
    (5, 1, 6, 192, 192),
    (5, 1, 6, 192, 192),
    (5, 1, 6, 192, 192),
    (3, 1, 6, 192, 320),
)

PREPROCESSING = Preprocessing((0, 1, 2), 255.0, (127.0,) * 3, (128.0,) * 3)
"""RGB, 0..255, minus 127, divided by 128."""

# By experiment (docs/answers.md, "Would a ResNet do?"): merges carry the picture, and the last ones
# of strides 2 to 8 paint strokes. The two at stride 16 add the painting's larger forms.
_STYLE = dict.fromkeys(("stem", *(f"block{n}.merge" for n in (0, 2, 4, 7, 10))), 1.0)


def _rectified(name: str, source: str, channels: int, **options: int) -> Iterator[Operation]:
    """A convolution `name.conv` and its ReLU6, `name`: min(max(x, 0), 6)."""
    yield Operation(f"{name}.conv", "convolution", (source,), channels, **options)
    yield Operation(name, "relu6", (f"{name}.conv",), channels)


def _operations() -> Iterator[Operation]:
    yield from _rectified("stem", IMAGE, 32, kernel=3, stride=2)
    before = "stem"
    for number, (kernel, stride, expansion, inside, out) in enumerate(BLOCKS):
        name, x, wide = f"block{number}", before, expansion * inside
        if expansion > 1:
            yield from _rectified(f"{name}.expand", x, wide)
            x = f"{name}.expand"
        options = {"kernel": kernel, "stride": stride, "groups": wide}
        yield from _rectified(f"{name}.depthwise", x, wide, **options)
        arm, merge = f"{name}.project", f"{name}.merge"
        yield Operation(arm, "convolution", (f"{name}.depthwise",), out)
        if stride == 1 and inside == out:
            yield Operation(merge, "sum", (before, arm), out)
        else:
            yield Operation(merge, "same", (arm,), out)
        before = merge
    yield from _rectified("head", before, 1280)


def _open(blueprint: Blueprint, path: Path | None) -> ConvNet:
    if path is None:
        data = importlib.resources.files("impasto") / "data"
        with importlib.resources.as_file(data / "efficientnet_lite0_features.safetensors") as found:
            state = _renamed(read_tensors(found))
    else:
        state = read_for(blueprint, path, _renamed)
    read = functools.partial(single, state)
    return ConvNet(blueprint, read, PREPROCESSING, bytes_of(state))


def _renamed(state: State) -> State:
    """The file names a convolution with a ReLU6 like its output; here it is `.conv`."""
    renamed: dict[str, Tensor] = {}
    for name, kind in itertools.product(LITE0.convolutions, ("weight", "bias")):
        filed = f"{name.removesuffix('.conv')}.{kind}"
        if filed not in state:
            raise WrongWeights(f"{filed} is missing")
        renamed[f"{name}.{kind}"] = state[filed]
    return renamed


LITE0 = Blueprint(
    "efficientnet-lite0",
    tuple(_operations()),
    content_layer="block10.merge",
    style_layers=_STYLE,
    sets={},
    cut="block3.merge",
    poolings=(),
    rounds_up=True,
    published="the tensors of the file in the package, by the same names",
    same=True,
    shifts=2,
    open=_open,
)
