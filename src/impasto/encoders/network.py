"""Networks as lists of steps: the table of layers and the computation both follow from them.

A *step* makes one layer from one or two layers before it: a convolution, a pooling, a rectifier or
a sum. VGG is a chain of steps; in a residual network chains part and meet again in sums. To compute
some layers, only the steps that lead to them are made. Convolutions run on the compiled kernels
where these fit, and on torch elsewhere.

Two conventions of padding are known. *Symmetric*: (kernel - 1) / 2 on all sides (torchvision).
*Same*: so much in total that every stride leaves ceil(side / stride) positions, half of it at the
top and left and what is over at the bottom and right (TensorFlow). The latter depends on whether
the layer has an even number of rows, so a crop has to know the whole that it was cut from.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from impasto.device import ordinary
from impasto.encoders.base import IMAGE, Encoder, Layer, Preprocessing
from impasto.kernels import ops
from impasto.settings import Pooling

Kind = Literal["convolution", "relu", "relu6", "pool", "sum", "same"]

_BYTES = 4  # of a float
_PANEL = 64  # channels that the compiled kernels work on at once


@dataclass(frozen=True)
class Step:
    """One operation: it makes the layer `name` [batch, channels, height, width] from `sources`.

    kernel, stride: of a convolution or pooling. groups: of a convolution. `same` gives its source
    another name.
    """

    name: str
    kind: Kind
    sources: tuple[str, ...]
    channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1


@dataclass(frozen=True)
class Architecture:
    """A network without its weights; called with the path of a weights file, it loads them.

    Arguments beyond `steps` are those of `Encoder`. same: the convention of padding. rounds_up: see
    `Layer`. open: makes the encoder from this architecture and a path (None: the weights in the
    package).
    """

    name: str
    steps: tuple[Step, ...]
    content_layer: str
    style_layers: Mapping[str, float]
    sets: Mapping[str, Mapping[str, float]]
    cut: str
    poolings: tuple[Pooling, ...]
    rounds_up: bool
    open: Callable[[Architecture, Path | None], Network]
    same: bool = False

    def __call__(self, weights: Path | None = None) -> Network:
        return self.open(self, weights)

    @functools.cached_property
    def table(self) -> tuple[Layer, ...]:
        """The rows of the table, the image first."""
        rows = {IMAGE: Layer(IMAGE, 3, 1, 0, self.rounds_up)}
        for step in self.steps:
            sources = [rows[name] for name in step.sources]
            stride = sources[0].stride
            halo = max(row.halo for row in sources) + (step.kernel - 1) // 2 * stride
            rows[step.name] = Layer(
                step.name, step.channels, stride * step.stride, halo, self.rounds_up
            )
        return tuple(rows.values())

    @functools.cached_property
    def convolutions(self) -> dict[str, tuple[int, ...]]:
        """The shape of each convolution's weight, [out, in / groups, kernel, kernel]."""
        channels = {row.name: row.channels for row in self.table}
        return {
            step.name: (step.channels, channels[step.sources[0]] // step.groups, *[step.kernel] * 2)
            for step in self.steps
            if step.kind == "convolution"
        }


class Network(Encoder):
    """An architecture with weights, as a function from an image to the activations of layers.

    Args:
        architecture: its steps and defaults.
        read: returns the weight and bias of a convolution, in single precision on the CPU. It is
            called when they are needed.
        preprocessing: the input that the weights were trained on.
        kept: how many bytes what `read` reads from takes.
    """

    def __init__(
        self,
        architecture: Architecture,
        read: Callable[[str], tuple[Tensor, Tensor]],
        preprocessing: Preprocessing,
        kept: int = 0,
    ) -> None:
        a = architecture
        super().__init__(
            a.table,
            content_layer=a.content_layer,
            style_layers=a.style_layers,
            sets=a.sets,
            cut=a.cut,
            poolings=a.poolings,
        )
        self.name, self.architecture, self.preprocessing = a.name, a, preprocessing
        self.read, self.kept = read, kept
        self.steps = {step.name: step for step in a.steps}
        # Shared with all encoders made `like` this one: preparing weights takes a second or two.
        self._kernels = {
            name: ops.Convolution(functools.partial(read, name))
            for name, shape in a.convolutions.items()
            if _suits_kernels(shape, self.steps[name])
        }
        self._plain: dict[object, tuple[Tensor, Tensor]] = {}

    def alias(self, name: str) -> str:
        return name

    @property
    def compiled(self) -> tuple[int, int]:
        count = len(self._kernels) if self._is_compiled() else 0
        return count, len(self.architecture.convolutions)

    def prepare(self, layers: Iterable[str]) -> None:
        for step in self._steps_to(map(self.layer, layers)):
            if step.name in self._kernels and self._is_compiled():
                self._kernels[step.name].prepare()
            elif step.kind == "convolution":
                self._weights(step)

    def held(self, layers: Iterable[str]) -> int:
        total = self.kept
        for step in self._steps_to(map(self.layer, layers)):
            if step.kind == "convolution":
                out, inside, *kernel = self.architecture.convolutions[step.name]
                # Compiled kernels hold 36 values for every 9, twice: forward and backward.
                copies = 8 if step.name in self._kernels and self._is_compiled() else 1
                total += _BYTES * copies * out * (inside * kernel[0] * kernel[1] + 1)
        return total

    def __call__(
        self,
        x: Tensor,
        layers: Iterable[str],
        start: str = IMAGE,
        whole: tuple[int, int] | None = None,
    ) -> dict[str, Tensor]:
        wanted = {self.layer(name) for name in layers}
        features = {IMAGE: x} if IMAGE in wanted else {}
        wanted -= features.keys()
        steps = self._steps_to(wanted, start)
        if not steps:
            return features
        if start == IMAGE:
            x = self.preprocessing.apply(x).contiguous(memory_format=torch.channels_last)
        first = self.rows[start]
        height, width = whole or (x.shape[-2], x.shape[-1])
        values = _Values(Counter(wanted) + Counter(name for s in steps for name in s.sources))
        values.put(start, x)
        rectifiers = {s.sources[0]: s.kind for s in steps if s.kind in ("relu", "relu6")}
        for step in steps:
            source = step.sources[0]
            taken = [values.take(name) for name in step.sources]
            if step.kind == "sum":
                made = taken[0] + taken[1]
            elif step.kind in ("relu", "relu6"):
                made = (
                    taken[0]
                    if source in values.rectified
                    else _rectified(*taken, step, source in values.once)
                )
            elif step.kind == "same":
                (made,) = taken
            else:
                stride = self.rows[source].stride // first.stride
                up = self.architecture.rounds_up
                size = [-(-side // stride) if up else side // stride for side in (height, width)]
                if step.kind == "pool":
                    made = self._pool(step, taken[0], size)
                else:
                    # Together with its ReLU, unless the values before it are wanted.
                    kind = rectifiers.get(step.name) if step.name in values.once else None
                    made = self._convolve(step, taken[0], size, kind)
                    if kind:
                        values.rectified.add(step.name)
            values.put(step.name, made)
            if step.name in wanted:
                features[step.name] = values.take(step.name)
        return features

    def _steps_to(self, layers: Iterable[str], start: str = IMAGE) -> list[Step]:
        """The steps that lead from the start to these layers, in order."""
        needed, steps = set(layers), []
        for step in reversed(self.architecture.steps):
            if step.name == start:
                break
            if step.name in needed:
                steps.append(step)
                needed.update(step.sources)
        return steps[::-1]

    def _is_compiled(self) -> bool:
        is_single = self.device.type == "cpu" and self.dtype == torch.float32
        return is_single and bool(ops.status().ready)

    def _convolve(self, step: Step, x: Tensor, size: Sequence[int], kind: str | None) -> Tensor:
        """kind: of the rectifier that follows at once, if one does."""
        if step.name in self._kernels and ops.suits(x):
            wraps = self.padding == "circular"
            x = _wrapped(x, [(1, 1), (1, 1)]) if wraps else x
            y = self._kernels[step.name](x, rectify=kind == "relu")
            if wraps:  # cut off the added border, which zero padding has spoiled
                y = y[..., 1:-1, 1:-1].contiguous(memory_format=torch.channels_last)
            return F.relu6(y, inplace=True) if kind == "relu6" else y
        x, padding = self._padded(step, x, size)
        weight, bias = self._weights(step)
        y = F.conv2d(x, weight, bias, step.stride, padding, 1, step.groups)
        if kind:
            y = F.relu(y, inplace=True) if kind == "relu" else F.relu6(y, inplace=True)
        return y

    def _pool(self, step: Step, x: Tensor, size: Sequence[int]) -> Tensor:
        if self.pooling == "avg" and step.kernel == 2 and ops.suits(x):
            return ops.average_pool(x)
        x, padding = self._padded(step, x, size)
        if self.pooling == "max":
            y = F.max_pool2d(x, step.kernel, step.stride, padding)
        else:
            y = F.avg_pool2d(x, step.kernel, step.stride, padding, count_include_pad=False)
        return y.contiguous(memory_format=torch.channels_last)  # which torch may have lost

    def _padded(self, step: Step, x: Tensor, size: Sequence[int]) -> tuple[Tensor, tuple[int, int]]:
        """x with the padding that torch cannot add itself, and the padding that it has to add.

        size: the (height, width) of the layer that x is, or was cut from.
        """
        pads = [
            self._pads(step, whole, own)
            for whole, own in zip(size, (x.shape[-2], x.shape[-1]), strict=True)
        ]
        if self.padding == "circular":
            return _wrapped(x, pads), (0, 0)
        if all(before == behind for before, behind in pads):
            return x, (pads[0][0], pads[1][0])
        (top, bottom), (left, right) = pads
        return F.pad(x, (left, right, top, bottom)), (0, 0)

    def _pads(self, step: Step, whole: int, own: int) -> tuple[int, int]:
        """How much to pad before and behind `own` positions that were cut from a `whole`."""
        kernel, stride = step.kernel, step.stride
        if not self.architecture.same:
            return ((kernel - 1) // 2,) * 2
        before = max((-(-whole // stride) - 1) * stride + kernel - whole, 0) // 2
        return before, max((-(-own // stride) - 1) * stride + kernel - own - before, 0)

    @ordinary()  # the weights are cached: the caller's torch settings must not reach them
    def _weights(self, step: Step) -> tuple[Tensor, Tensor]:
        """A convolution's weight and bias for torch itself, on the encoder's device."""
        key = step.name, self.device, self.dtype
        if key not in self._plain:
            weight, bias = (t.to(self.device, self.dtype) for t in self.read(step.name))
            # Channels-last weights need no reordering: a fifth faster on a CPU.
            self._plain[key] = weight.to(memory_format=torch.channels_last), bias
        return self._plain[key]


class _Values:
    """Activations by layer, each until its last use. uses: how often each is still needed."""

    def __init__(self, uses: Counter[str]) -> None:
        self.uses, self.once = uses, {name for name, count in uses.items() if count == 1}
        self.rectified: set[str] = set()
        self.there: dict[str, Tensor] = {}

    def put(self, name: str, x: Tensor) -> None:
        self.there[name] = x

    def take(self, name: str) -> Tensor:
        """The activations of a layer, for one of its uses."""
        x = self.there.pop(name)
        self.uses[name] -= 1
        if self.uses[name]:
            apart = ops.suits(x) and not x.shape[1] % _PANEL
            x, self.there[name] = ops.fork(x) if apart else (x, x)
        return x


def _rectified(x: Tensor, step: Step, alone: bool) -> Tensor:
    """alone: nothing else reads x, so it can be changed in place."""
    return F.relu(x, inplace=alone) if step.kind == "relu" else F.relu6(x, inplace=alone)


def _suits_kernels(shape: tuple[int, ...], step: Step) -> bool:
    """Whether the compiled kernels can compute a convolution with a weight of this shape."""
    out, inside, *kernel = shape
    fits = kernel == [3, 3] and step.stride == step.groups == 1
    return fits and not out % _PANEL and (inside == 3 or not inside % _PANEL)


def _wrapped(x: Tensor, pads: Sequence[tuple[int, int]]) -> Tensor:
    """Add rows and columns of the opposite side to x [batch, C, height, width]."""
    for dim, (before, behind) in zip((-2, -1), pads, strict=True):
        side = x.shape[dim]
        if max(before, behind) > side:
            at = torch.arange(-before, side + behind, device=x.device) % side
            x = x.index_select(dim, at)
        elif before or behind:
            parts = [x.narrow(dim, side - before, before), x, x.narrow(dim, 0, behind)]
            x = torch.cat(parts, dim)
    return x
